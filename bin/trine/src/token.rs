//! Tokens: with what others prove to the daemon who they are.

use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use serde_json::{Value, json};

use crate::daemon::{Client, Where};
use crate::shown::{Form, table, yaml};

#[derive(Subcommand)]
pub enum Command {
    /// Make a token and print its secret, which is never told again
    Create(CreateOptions),
    /// List the tokens there are
    Ls(ListOptions),
    /// Delete tokens: they are good no longer
    Rm(RemoveOptions),
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    /// May look at things
    Viewer,
    /// May also make, change and delete VMs
    Operator,
    /// May do anything
    Admin,
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
    /// For how long it is good: 12h, 30d [default: until it is deleted]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    expires: Option<u32>,
}

#[derive(Args)]
pub struct ListOptions {
    #[command(flatten)]
    to: Where,
    /// In which form
    #[arg(short, long, value_enum, default_value = "table")]
    output: Form,
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
            let role = match options.role {
                Role::Viewer => "viewer",
                Role::Operator => "operator",
                Role::Admin => "admin",
            };
            let mut new = json!({ "name": options.name, "role": role });
            if let Some(expires) = options.expires {
                new["expires_in_s"] = expires.into();
            }
            let mut client = Client::connect(&options.to)?;
            let made: Value = client.ask(Method::POST, "/v1/tokens", Some(&new))?;
            println!("{}", made["secret"].as_str().unwrap_or_default());
        }
        Command::Ls(options) => {
            let mut client = Client::connect(&options.to)?;
            let tokens: Vec<Value> = client.ask(Method::GET, "/v1/tokens", None)?;
            print!("{}", listed(&tokens, options.output)?);
        }
        Command::Rm(options) => {
            let mut client = Client::connect(&options.to)?;
            for name in &options.names {
                client.ask::<Value>(Method::DELETE, &format!("/v1/tokens/{name}"), None)?;
            }
        }
    }
    Ok(())
}

fn listed(tokens: &[Value], form: Form) -> anyhow::Result<String> {
    let field = |token: &Value, name: &str| token[name].as_str().unwrap_or("-").to_owned();
    Ok(match form {
        Form::Json => serde_json::to_string_pretty(tokens)? + "\n",
        Form::Yaml => yaml(&Value::from(tokens)),
        Form::Name => tokens.iter().map(|token| field(token, "name") + "\n").collect(),
        Form::Table => {
            let row =
                |token| ["name", "role", "created", "expires"].map(|n| field(token, n)).to_vec();
            let rows: Vec<_> = tokens.iter().map(row).collect();
            table(&["NAME", "ROLE", "CREATED", "EXPIRES"], &rows)
        }
    })
}
