//! Users: who can sign in, and what they may.

use std::collections::BTreeMap;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use serde_json::{Value, json};

use crate::context::asked;
use crate::daemon::{Client, Where};
use crate::nouns::{self, ListOptions, Noun, ShowOptions};

#[derive(Subcommand)]
pub enum Command {
    /// Make a user; the password is asked for, or comes from standard input
    Create(CreateOptions),
    /// List users
    Ls(ListOptions),
    /// Say all there is about a user
    Show(ShowOptions),
    /// Say what users may do, instead of what they might
    Set(SetOptions),
    /// Give a user another password: they are signed out everywhere
    Password(PasswordOptions),
    /// Delete users, with their tokens: what is open of theirs ends
    Rm(RmOptions),
}

/// What somebody may do, each also what those before may.
#[derive(Clone, Copy, ValueEnum)]
pub enum Role {
    /// May look at things
    Viewer,
    /// May also make, change and delete VMs
    Operator,
    /// May do anything
    Admin,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

#[derive(Args)]
pub struct RightsOptions {
    /// The role everywhere, in all projects and of the host
    #[arg(long, value_enum)]
    role: Option<Role>,
    /// A role in a project: web=operator; repeat for more
    #[arg(long = "in", value_name = "PROJECT=ROLE", value_parser = within)]
    within: Vec<(String, String)>,
}

impl RightsOptions {
    fn rights(&self) -> Value {
        let projects: BTreeMap<_, _> = self.within.iter().cloned().collect();
        json!({ "everywhere": self.role.map(Role::as_str), "projects": projects })
    }
}

fn within(text: &str) -> Result<(String, String), String> {
    let bad = || "give PROJECT=ROLE, as in web=operator".to_owned();
    let (project, role) = text.split_once('=').ok_or_else(bad)?;
    let role = Role::from_str(role, false).map_err(|_| bad())?;
    Ok((project.to_owned(), role.as_str().to_owned()))
}

#[derive(Args)]
pub struct CreateOptions {
    /// What they are to be called
    name: String,
    #[command(flatten)]
    to: Where,
    #[command(flatten)]
    rights: RightsOptions,
    /// They have no password: they sign in with an identity provider, or by tokens
    #[arg(long)]
    no_password: bool,
}

#[derive(Args)]
pub struct SetOptions {
    /// Their names
    #[arg(required = true, value_name = "USER")]
    users: Vec<String>,
    #[command(flatten)]
    to: Where,
    #[command(flatten)]
    rights: RightsOptions,
    /// They may nothing, besides what their groups give
    #[arg(long, conflicts_with_all = ["role", "within"])]
    no_rights: bool,
    /// They cannot sign in, and their tokens are good for nothing
    #[arg(long)]
    disable: bool,
    /// They can again
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
}

#[derive(Args)]
pub struct PasswordOptions {
    /// Their name
    user: String,
    #[command(flatten)]
    to: Where,
    /// Ask for the password they have, too: for those who are no administrators
    #[arg(long)]
    own: bool,
    /// They are to have none
    #[arg(long, conflicts_with = "own")]
    none: bool,
}

#[derive(Args)]
pub struct RmOptions {
    /// Their names
    #[arg(required = true, value_name = "USER")]
    users: Vec<String>,
    #[command(flatten)]
    to: Where,
}

/// How users are shown.
const USERS: Noun = Noun {
    kind: "users",
    head: &["NAME", "ROLE", "IN PROJECTS", "FROM", "STATE", "CREATED"],
    row: |user| {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let projects = user["rights"]["projects"].as_object();
        let projects =
            projects.into_iter().flatten().map(|(name, of)| format!("{name}={}", text(of)));
        let projects = projects.collect::<Vec<_>>().join(",");
        let state = if user["disabled"] == true { "disabled" } else { "active" };
        Ok(vec![
            text(&user["name"]),
            text(&user["rights"]["everywhere"]),
            if projects.is_empty() { "-".to_owned() } else { projects },
            user["provided"]["issuer"].as_str().unwrap_or("here").to_owned(),
            state.to_owned(),
            text(&user["created"]),
        ])
    },
};

/// Does what is asked.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(options) => {
            let mut client = Client::connect(&options.to)?;
            let password = (!options.no_password).then(|| asked("Password: ")).transpose()?;
            let rights = options.rights.rights();
            let new = json!({ "name": options.name, "password": password, "rights": rights });
            client.ask::<Value>(Method::POST, "/v1/users", Some(&new))?;
            println!("{}", options.name);
        }
        Command::Ls(options) => nouns::list(&options, &USERS)?,
        Command::Show(options) => nouns::show(&options, &USERS)?,
        Command::Set(options) => set(&options)?,
        Command::Password(options) => {
            let mut client = Client::connect(&options.to)?;
            let old = options.own.then(|| asked("Password now: ")).transpose()?;
            let new = (!options.none).then(|| asked("New password: ")).transpose()?;
            let body = json!({ "password": new, "old_password": old });
            let path = format!("/v1/users/{}/password", options.user);
            client.ask::<Value>(Method::PUT, &path, Some(&body))?;
        }
        Command::Rm(options) => {
            let mut client = Client::connect(&options.to)?;
            for user in &options.users {
                client.ask::<Value>(Method::DELETE, &format!("/v1/users/{user}"), None)?;
            }
        }
    }
    Ok(())
}

fn set(options: &SetOptions) -> anyhow::Result<()> {
    let mut patch = json!({});
    let has_rights = options.rights.role.is_some() || !options.rights.within.is_empty();
    if has_rights || options.no_rights {
        patch["rights"] = options.rights.rights();
    }
    if options.disable || options.enable {
        patch["disabled"] = options.disable.into();
    }
    let is_any = patch.as_object().is_some_and(|patch| !patch.is_empty());
    is_any.then_some(()).context("say what to set: --role, --in, --no-rights, --disable")?;
    let mut client = Client::connect(&options.to)?;
    for user in &options.users {
        client.ask::<Value>(Method::PATCH, &format!("/v1/users/{user}"), Some(&patch))?;
    }
    Ok(())
}
