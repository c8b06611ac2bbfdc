//! SSH keys of a project, with which VMs are made by name.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use crate::daemon::{Client, Where};
use crate::nouns::{self, ListOptions, Noun, ShowOptions};

#[derive(Subcommand)]
pub enum Command {
    /// Make a public key known
    Add(AddOptions),
    /// List the keys there are
    Ls(ListOptions),
    /// Say all there is about a key
    Show(ShowOptions),
    /// Forget keys; VMs that were made with them have them all the same
    Rm(RmOptions),
}

#[derive(Args)]
pub struct AddOptions {
    /// What it is to be called
    name: String,
    /// A file with it: ~/.ssh/id_ed25519.pub
    file: PathBuf,
    #[command(flatten)]
    to: Where,
}

#[derive(Args)]
pub struct RmOptions {
    /// Their names
    #[arg(required = true, value_name = "KEY")]
    names: Vec<String>,
    #[command(flatten)]
    to: Where,
}

/// How keys are shown.
const KEYS: Noun = Noun {
    kind: "ssh-keys",
    head: &["NAME", "KIND", "FINGERPRINT", "COMMENT", "CREATED"],
    row: |key| {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let status = &key["status"];
        let fields = [&key["name"], &status["kind"], &status["fingerprint"], &status["comment"]];
        Ok(fields.into_iter().chain([&key["created"]]).map(text).collect())
    },
};

/// Does what is asked.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Add(options) => {
            let key = std::fs::read_to_string(&options.file)
                .with_context(|| format!("cannot read {}", options.file.display()))?;
            let mut client = Client::connect(&options.to)?;
            let path = format!("/v1/ssh-keys?project={}", client.project);
            let new = json!({ "name": options.name, "spec": { "public_key": key.trim() } });
            let made: Value = client.ask(Method::POST, &path, Some(&new))?;
            println!("{}", made["status"]["fingerprint"].as_str().unwrap_or_default());
        }
        Command::Ls(options) => nouns::list(&options, &KEYS)?,
        Command::Show(options) => nouns::show(&options, &KEYS)?,
        Command::Rm(options) => {
            let mut client = Client::connect(&options.to)?;
            for name in &options.names {
                let path = format!("/v1/ssh-keys/{name}?project={}", client.project);
                client.ask::<Value>(Method::DELETE, &path, None)?;
            }
        }
    }
    Ok(())
}
