//! Projects, their quotas, and who may do what in them.

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use crate::daemon::{Client, Where};
use crate::nouns::{self, ListOptions, Noun, ShowOptions, human, size};
use crate::shown::table;
use crate::user::Role;

#[derive(Subcommand)]
pub enum Command {
    /// Make a project
    Create(CreateOptions),
    /// List projects, with what is taken of their quotas
    Ls(ListOptions),
    /// Say all there is about a project
    Show(ShowOptions),
    /// Set how much all that is in a project may take together
    Quota(QuotaOptions),
    /// Who may do what in a project
    #[command(subcommand)]
    Member(MemberCommand),
    /// Delete empty projects
    Rm(RmOptions),
}

#[derive(Args)]
pub struct CreateOptions {
    /// What it is to be called
    name: String,
    #[command(flatten)]
    to: Where,
    #[command(flatten)]
    limits: Limits,
}

#[derive(Args)]
pub struct Limits {
    /// So many VMs, or none for as many as the host has room for
    #[arg(long, value_name = "N", value_parser = number)]
    vms: Option<Limit>,
    /// CPUs of all VMs together
    #[arg(long, value_name = "N", value_parser = number)]
    cpus: Option<Limit>,
    /// Memory of all VMs together: 64G
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    memory: Option<Limit>,
    /// Sizes of all disks together: 2T
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    disks: Option<Limit>,
    /// Addresses on networks
    #[arg(long, value_name = "N", value_parser = number)]
    addresses: Option<Limit>,
    /// Snapshots
    #[arg(long, value_name = "N", value_parser = number)]
    snapshots: Option<Limit>,
}

/// A limit, or none.
#[derive(Clone, Copy)]
struct Limit(Option<u64>);

fn number(text: &str) -> Result<Limit, String> {
    match text {
        "none" => Ok(Limit(None)),
        text => {
            text.parse().map(|n| Limit(Some(n))).map_err(|_| "give a number, or none".to_owned())
        }
    }
}

fn bytes(text: &str) -> Result<Limit, String> {
    if text == "none" { Ok(Limit(None)) } else { size(text).map(|bytes| Limit(Some(bytes))) }
}

impl Limits {
    fn quota(&self) -> Value {
        let mut quota = json!({});
        for (name, limit) in [
            ("vms", self.vms),
            ("cpus", self.cpus),
            ("memory_bytes", self.memory),
            ("disk_bytes", self.disks),
            ("addresses", self.addresses),
            ("snapshots", self.snapshots),
        ] {
            if let Some(Limit(limit)) = limit {
                quota[name] = json!(limit);
            }
        }
        quota
    }
}

#[derive(Args)]
pub struct QuotaOptions {
    /// The project
    name: String,
    #[command(flatten)]
    to: Where,
    #[command(flatten)]
    limits: Limits,
}

#[derive(Subcommand)]
pub enum MemberCommand {
    /// Give a user a role in a project
    Add(AddOptions),
    /// List who has a role in a project
    Ls(MembersOptions),
    /// Take users' roles in a project from them
    Rm(RmMemberOptions),
}

#[derive(Args)]
pub struct AddOptions {
    /// The project
    project_name: String,
    /// The user
    user: String,
    #[command(flatten)]
    to: Where,
    /// What they may do there
    #[arg(long, value_enum, default_value = "operator")]
    role: Role,
}

#[derive(Args)]
pub struct MembersOptions {
    /// The project
    project_name: String,
    #[command(flatten)]
    to: Where,
}

#[derive(Args)]
pub struct RmMemberOptions {
    /// The project
    project_name: String,
    /// The users
    #[arg(required = true, value_name = "USER")]
    users: Vec<String>,
    #[command(flatten)]
    to: Where,
}

#[derive(Args)]
pub struct RmOptions {
    /// Their names
    #[arg(required = true, value_name = "PROJECT")]
    names: Vec<String>,
    #[command(flatten)]
    to: Where,
}

/// How projects are shown: what is taken, of how much.
const PROJECTS: Noun = Noun {
    kind: "projects",
    head: &["NAME", "VMS", "CPUS", "MEMORY", "DISKS", "ADDRESSES", "SNAPSHOTS"],
    row: |project| {
        let of = |field: &str, shown: fn(u64) -> String| {
            let used = shown(project["status"]["used"][field].as_u64().unwrap_or(0));
            let limit = project["quota"][field].as_u64();
            limit.map_or(used.clone(), |limit| format!("{used}/{}", shown(limit)))
        };
        let plain = |n: u64| n.to_string();
        Ok(vec![
            project["name"].as_str().unwrap_or("-").to_owned(),
            of("vms", plain),
            of("cpus", plain),
            of("memory_bytes", human),
            of("disk_bytes", human),
            of("addresses", plain),
            of("snapshots", plain),
        ])
    },
};

/// Does what is asked.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(options) => {
            let mut client = Client::connect(&options.to)?;
            let new = json!({ "name": options.name, "quota": options.limits.quota() });
            client.ask::<Value>(Method::POST, "/v1/projects", Some(&new))?;
            println!("{}", options.name);
        }
        Command::Ls(options) => nouns::list(&options, &PROJECTS)?,
        Command::Show(options) => nouns::show(&options, &PROJECTS)?,
        Command::Quota(options) => {
            let mut client = Client::connect(&options.to)?;
            let patch = json!({ "quota": options.limits.quota() });
            let path = format!("/v1/projects/{}", options.name);
            client.ask::<Value>(Method::PATCH, &path, Some(&patch))?;
        }
        Command::Member(command) => member(command)?,
        Command::Rm(options) => {
            let mut client = Client::connect(&options.to)?;
            for name in &options.names {
                client.ask::<Value>(Method::DELETE, &format!("/v1/projects/{name}"), None)?;
            }
        }
    }
    Ok(())
}

fn member(command: MemberCommand) -> anyhow::Result<()> {
    let path = |project: &str, user: &str| format!("/v1/projects/{project}/members/{user}");
    match command {
        MemberCommand::Add(AddOptions { project_name, user, to, role }) => {
            let body = json!({ "role": role.as_str() });
            let mut client = Client::connect(&to)?;
            client.ask::<Value>(Method::PUT, &path(&project_name, &user), Some(&body))?;
        }
        MemberCommand::Ls(MembersOptions { project_name, to }) => {
            let path = format!("/v1/projects/{project_name}/members?limit=1000");
            let page: Value = Client::connect(&to)?.ask(Method::GET, &path, None)?;
            let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            let rows = page["items"].as_array().into_iter().flatten();
            let rows: Vec<_> = rows.map(|of| vec![text(&of["user"]), text(&of["role"])]).collect();
            print!("{}", table(&["USER", "ROLE"], &rows));
        }
        MemberCommand::Rm(RmMemberOptions { project_name, users, to }) => {
            let mut client = Client::connect(&to)?;
            for user in &users {
                client.ask::<Value>(Method::DELETE, &path(&project_name, user), None)?;
            }
        }
    }
    Ok(())
}
