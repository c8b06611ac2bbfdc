//! Snapshots of VMs' disks.

use anyhow::bail;
use clap::{Args, Subcommand};
use hyper::Method;
use model::{Consistency, Operation, Snapshot};
use serde_json::{Value, json};

use crate::daemon::{Client, Where};
use crate::nouns::{self, ListOptions, Noun, ShowOptions, WaitOptions, finish, human};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    create: CreateOptions,
}

#[derive(Subcommand)]
enum Command {
    /// Take a snapshot of a VM's disks: the same as without 'create'
    Create(CreateOptions),
    /// List snapshots
    Ls(ListOptions),
    /// Say all there is about a snapshot
    Show(ShowOptions),
    /// Make the disks of a VM that is off what they were: what was written since is gone
    Revert(ChangeOptions),
    /// Delete snapshots: the disks stay as they are
    Rm(ChangeOptions),
}

#[derive(Args)]
pub struct CreateOptions {
    /// The VM whose disks it is of
    vm: Option<String>,
    #[command(flatten)]
    to: Where,
    /// What it is to be called [default: the VM's name and the time]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Of this disk only; repeat for more
    #[arg(long = "disk", value_name = "DISK")]
    disks: Vec<String>,
    #[command(flatten)]
    wait: WaitOptions,
}

#[derive(Args)]
pub struct ChangeOptions {
    /// Their names or IDs
    #[arg(required = true, value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    #[command(flatten)]
    to: Where,
    #[command(flatten)]
    wait: WaitOptions,
}

/// How snapshots are shown.
const SNAPSHOTS: Noun = Noun {
    kind: "snapshots",
    head: &["NAME", "STATE", "VM", "DISKS", "SIZE", "GUEST", "CREATED", "REASON"],
    row: |snapshot| Ok(row(&serde_json::from_value(snapshot.clone())?)),
};

fn row(snapshot: &Snapshot) -> Vec<String> {
    let (spec, status) = (&snapshot.spec, &snapshot.status);
    let disks: Vec<&str> = spec.disks.iter().map(AsRef::as_ref).collect();
    let guest = match status.consistency {
        Some(Consistency::Stopped) => "off",
        Some(Consistency::Filesystem) => "at rest",
        Some(Consistency::Crash) => "running",
        None => "-",
    };
    vec![
        snapshot.meta.name.to_string(),
        status.phase.as_str().to_owned(),
        spec.vm.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        disks.join(","),
        human(status.size_bytes),
        guest.to_owned(),
        snapshot.meta.created.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        status.reason.clone().unwrap_or_default(),
    ]
}

/// Does what is asked.
pub fn run(options: Options) -> anyhow::Result<()> {
    match options.command {
        None => create(options.create),
        Some(Command::Create(options)) => create(options),
        Some(Command::Ls(options)) => nouns::list(&options, &SNAPSHOTS),
        Some(Command::Show(options)) => nouns::show(&options, &SNAPSHOTS),
        Some(Command::Revert(options)) => change(&options, Method::POST, "/revert"),
        Some(Command::Rm(options)) => change(&options, Method::DELETE, ""),
    }
}

fn create(options: CreateOptions) -> anyhow::Result<()> {
    let Some(of) = options.vm.as_ref().or(options.disks.first()) else {
        bail!(
            "name the VM: trine snapshot VM, or a disk with --disk; trine snapshot ls lists them"
        );
    };
    let name = options.name.unwrap_or_else(|| {
        let time = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
        // Both fit into a name.
        format!("{}-{time}", &of[..of.len().min(47)])
    });
    let mut client = Client::connect(&options.to)?;
    let body = json!({ "name": name, "vm": options.vm, "disks": options.disks });
    let path = format!("/v1/snapshots?project={}", client.project);
    let created: Value = client.ask(Method::POST, &path, Some(&body))?;
    let operation = serde_json::from_value(created["operation"].clone())?;
    finish(&mut client, operation, options.wait)?;
    println!("{name}");
    Ok(())
}

fn change(options: &ChangeOptions, method: Method, verb: &str) -> anyhow::Result<()> {
    let mut client = Client::connect(&options.to)?;
    let mut operations = Vec::new();
    for snapshot in &options.snapshots {
        let path = format!("/v1/snapshots/{snapshot}{verb}?project={}", client.project);
        operations.push(client.ask::<Operation>(method.clone(), &path, None)?);
    }
    operations.into_iter().try_for_each(|of| finish(&mut client, of, options.wait))
}
