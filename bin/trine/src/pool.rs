//! Pools: the folders in which disks are.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use crate::daemon::{Client, Where};
use crate::nouns::{self, ListOptions, Noun, human, size};

#[derive(Subcommand)]
pub enum Command {
    /// Make a pool of a folder of the host
    Create(CreateOptions),
    /// List pools
    Ls(ListOptions),
    /// Set how large all disks of a pool together may be
    Quota(QuotaOptions),
    /// Forget pools without disks; their folders stay
    Rm(RmOptions),
}

#[derive(Args)]
pub struct CreateOptions {
    /// What it is to be called
    name: String,
    /// The folder
    path: PathBuf,
    #[command(flatten)]
    to: Where,
    /// How large all its disks together may be: 500G
    #[arg(long, value_name = "SIZE", value_parser = size)]
    quota: Option<u64>,
}

#[derive(Args)]
pub struct QuotaOptions {
    /// The pool
    name: String,
    /// So large: 500G, or none
    #[arg(value_parser = quota)]
    quota: Quota,
    #[command(flatten)]
    to: Where,
}

#[derive(Clone, Copy)]
struct Quota(Option<u64>);

fn quota(text: &str) -> Result<Quota, String> {
    if text == "none" { Ok(Quota(None)) } else { size(text).map(|bytes| Quota(Some(bytes))) }
}

#[derive(Args)]
pub struct RmOptions {
    /// Their names
    #[arg(required = true, value_name = "POOL")]
    names: Vec<String>,
    #[command(flatten)]
    to: Where,
}

/// How pools are shown.
const POOLS: Noun = Noun {
    kind: "pools",
    head: &["NAME", "DISKS", "SIZE", "QUOTA", "USED", "FOLDER"],
    row: |pool| {
        let bytes = |field: &str| pool[field].as_u64().map_or_else(|| "-".to_owned(), human);
        Ok(vec![
            pool["name"].as_str().unwrap_or_default().to_owned(),
            pool["disks"].to_string(),
            bytes("size_bytes"),
            bytes("quota_bytes"),
            bytes("used_bytes"),
            pool["path"].as_str().unwrap_or("-").to_owned(),
        ])
    },
};

/// Does what is asked.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(options) => {
            let path = std::path::absolute(&options.path)?;
            let path = path.to_str().context("a path must be UTF-8")?;
            let body = json!({ "name": options.name, "path": path, "quota_bytes": options.quota });
            Client::connect(&options.to)?.ask::<Value>(Method::POST, "/v1/pools", Some(&body))?;
            println!("{}", options.name);
        }
        Command::Ls(options) => nouns::list(&options, &POOLS)?,
        Command::Quota(options) => {
            let body = json!({ "quota_bytes": options.quota.0 });
            let path = format!("/v1/pools/{}", options.name);
            Client::connect(&options.to)?.ask::<Value>(Method::PATCH, &path, Some(&body))?;
        }
        Command::Rm(options) => {
            let mut client = Client::connect(&options.to)?;
            for name in &options.names {
                client.ask::<Value>(Method::DELETE, &format!("/v1/pools/{name}"), None)?;
            }
        }
    }
    Ok(())
}
