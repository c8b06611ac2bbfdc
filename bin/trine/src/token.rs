//! Tokens: with what others prove to the daemon who they are.

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use crate::daemon::{Client, Where};
use crate::nouns::{self, ListOptions, Noun};
use crate::user::Role;

#[derive(Subcommand)]
pub enum Command {
    /// Make a token and print its secret, which is never told again
    Create(CreateOptions),
    /// List the tokens there are
    Ls(ListOptions),
    /// Delete tokens: they are good no longer
    Rm(RemoveOptions),
}

#[derive(Args)]
pub struct CreateOptions {
    /// What it is to be called
    name: String,
    #[command(flatten)]
    to: Where,
    /// What its bearer may do
    #[arg(long, value_enum, default_value = "operator")]
    role: Role,
    /// Whose it is: it may no more than they may [default: nobody's; of who has signed in, their own]
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// It is good in this project only
    #[arg(long = "in", value_name = "PROJECT")]
    within: Option<String>,
    /// For how long it is good: 12h, 30d [default: until it is deleted]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    expires: Option<u32>,
}

#[derive(Args)]
pub struct RemoveOptions {
    /// Their names
    #[arg(required = true, value_name = "TOKEN")]
    names: Vec<String>,
    #[command(flatten)]
    to: Where,
}

fn seconds(text: &str) -> Result<u32, String> {
    let bad = || "give a number and m, h or d: 30d".to_owned();
    let unit = text.chars().last().ok_or_else(bad)?;
    let each = match unit {
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(bad()),
    };
    let number: u32 = text.trim_end_matches(unit).parse().map_err(|_| bad())?;
    number.checked_mul(each).ok_or_else(|| "longer than this will run".to_owned())
}

/// Does what is asked.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(options) => {
            let mut new = json!({
                "name": options.name,
                "role": options.role.as_str(),
                "user": options.user,
                "project": options.within,
            });
            if let Some(expires) = options.expires {
                new["expires_in_s"] = expires.into();
            }
            let mut client = Client::connect(&options.to)?;
            let made: Value = client.ask(Method::POST, "/v1/tokens", Some(&new))?;
            println!("{}", made["secret"].as_str().unwrap_or_default());
        }
        Command::Ls(options) => nouns::list(&options, &TOKENS)?,
        Command::Rm(options) => {
            let mut client = Client::connect(&options.to)?;
            for name in &options.names {
                client.ask::<Value>(Method::DELETE, &format!("/v1/tokens/{name}"), None)?;
            }
        }
    }
    Ok(())
}

/// How tokens are shown.
const TOKENS: Noun = Noun {
    kind: "tokens",
    head: &["NAME", "ROLE", "USER", "PROJECT", "CREATED", "EXPIRES"],
    row: |token| {
        let field = |name| token[name].as_str().unwrap_or("-").to_owned();
        Ok(["name", "role", "user", "project", "created", "expires"].map(field).to_vec())
    },
};
