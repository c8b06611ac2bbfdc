//! Disks: those that the daemon keeps, and those of a VM of `trine run`.

use std::fs::File;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use hyper::Method;
use model::{Disk, Operation};
use serde_json::{Value, json};

use crate::control::Target;
use crate::daemon::{Client, Where};
use crate::devices;
use crate::nouns::{
    self, ListOptions, Noun, ShowOptions, WaitOptions, encoded, finish, human, size,
};

#[derive(Subcommand)]
pub enum Command {
    /// Make a disk: empty, of an image, or of a file
    Create(CreateOptions),
    /// List disks; with --control, those of a VM of trine run
    Ls(LsOptions),
    /// Say all there is about a disk
    Show(ShowOptions),
    /// Make a disk larger, also while a VM runs with it
    Resize(ResizeOptions),
    /// Give a VM a disk, also while it runs
    Attach(AttachOptions),
    /// Take disks away from their VMs; guests of those that run are asked to let them go
    Detach(ChangeOptions),
    /// Delete disks; with --control, take a disk away from a VM of trine run
    Rm(RmOptions),
    /// Give a running VM of trine run a disk
    Add {
        #[command(flatten)]
        target: Target,
        /// An image or a block device, and options, as for run --disk
        #[arg(value_name = "PATH[,OPTION]…")]
        disk: String,
    },
}

/// The VM of `trine run` that is meant, if one is.
#[derive(Args)]
pub struct Control {
    /// The control socket of a VM of trine run
    #[arg(long, value_name = "PATH", env = "TRINE_CONTROL")]
    control: Option<PathBuf>,
}

#[derive(Args)]
pub struct CreateOptions {
    /// What it is to be called
    name: String,
    #[command(flatten)]
    to: Where,
    /// Its size, with its unit: 20G [default: its image's, or its file's]
    #[arg(long, value_name = "SIZE", value_parser = size, required_unless_present_any = ["image", "from"])]
    size: Option<u64>,
    /// The image it is made of (trine image ls)
    #[arg(long, value_name = "NAME", conflicts_with = "from")]
    image: Option<String>,
    /// The file it is made of: raw, qcow2, VMDK, VHDX or OVA; - is the standard input
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// The pool it is in (trine pool ls)
    #[arg(long, value_name = "POOL", default_value = "default")]
    pool: String,
    #[command(flatten)]
    wait: WaitOptions,
}

#[derive(Args)]
pub struct LsOptions {
    #[command(flatten)]
    control: Control,
    /// With --control: for programs, as JSON
    #[arg(long, requires = "control")]
    json: bool,
    #[command(flatten)]
    list: ListOptions,
}

#[derive(Args)]
pub struct ResizeOptions {
    /// Its name or ID
    disk: String,
    /// How large it shall be, with its unit: 40G
    #[arg(value_parser = size)]
    size: u64,
    #[command(flatten)]
    control: Control,
    #[command(flatten)]
    to: Where,
    #[command(flatten)]
    wait: WaitOptions,
}

#[derive(Args)]
pub struct AttachOptions {
    /// The disk: its name or ID
    disk: String,
    /// The VM: its name or ID
    vm: String,
    #[command(flatten)]
    to: Where,
    #[command(flatten)]
    wait: WaitOptions,
}

#[derive(Args)]
pub struct ChangeOptions {
    /// Their names or IDs
    #[arg(required = true, value_name = "DISK")]
    disks: Vec<String>,
    #[command(flatten)]
    to: Where,
    #[command(flatten)]
    wait: WaitOptions,
}

#[derive(Args)]
pub struct RmOptions {
    #[command(flatten)]
    change: ChangeOptions,
    /// Also their snapshots
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    control: Control,
    /// With --control: how many seconds the guest has for it
    #[arg(long, value_name = "S", default_value = "30")]
    timeout: u64,
}

/// How disks are shown.
const DISKS: Noun = Noun {
    kind: "disks",
    head: &["NAME", "STATE", "SIZE", "USED", "VM", "FROM", "POOL", "REASON"],
    row: |disk| Ok(row(&serde_json::from_value(disk.clone())?)),
};

fn row(disk: &Disk) -> Vec<String> {
    let nothing = || "-".to_owned();
    let vm = disk.status.vm.as_ref().or(disk.spec.vm.as_ref());
    let from = disk.spec.source.as_ref().map(|source| match source {
        model::DiskSource::Image(image) => image.name.clone(),
        model::DiskSource::Upload(_) => "upload".to_owned(),
    });
    vec![
        disk.meta.name.to_string(),
        disk.status.phase.as_str().to_owned(),
        human(disk.spec.size_bytes),
        human(disk.status.used_bytes),
        vm.map_or_else(nothing, ToString::to_string),
        from.unwrap_or_else(nothing),
        disk.spec.pool.to_string(),
        disk.status.reason.clone().unwrap_or_default(),
    ]
}

/// Does what is asked.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(options) => create(&options),
        Command::Ls(LsOptions { control: Control { control: Some(control) }, json, .. }) => {
            devices::list_disks(&Target::at(control), json)
        }
        Command::Ls(options) => nouns::list(&options.list, &DISKS),
        Command::Show(options) => nouns::show(&options, &DISKS),
        Command::Resize(options) => match options.control.control {
            Some(control) => devices::resize_disk(&Target::at(control), options.disk, options.size),
            None => {
                let mut client = Client::connect(&options.to)?;
                let body = json!({ "size_bytes": options.size });
                let operation = ask(&mut client, &options.disk, "/resize", "", Some(&body))?;
                finish(&mut client, operation, options.wait)
            }
        },
        Command::Attach(options) => {
            let mut client = Client::connect(&options.to)?;
            let body = json!({ "vm": options.vm });
            let operation = ask(&mut client, &options.disk, "/attach", "", Some(&body))?;
            finish(&mut client, operation, options.wait)
        }
        Command::Detach(options) => change(&options, "/detach", ""),
        Command::Rm(options) => match options.control.control {
            Some(control) => {
                let target = Target::at(control);
                let mut names = options.change.disks.iter();
                names.try_for_each(|name| devices::remove_disk(&target, name, options.timeout))
            }
            None => change(&options.change, "", if options.force { "&force=true" } else { "" }),
        },
        Command::Add { target, disk } => devices::add_disk(&target, disk),
    }
}

fn create(options: &CreateOptions) -> anyhow::Result<()> {
    let mut client = Client::connect(&options.to)?;
    let project = client.project.clone();
    let created: Value = match &options.from {
        None => {
            let body = json!({
                "name": options.name,
                "size_bytes": options.size,
                "image": options.image,
                "pool": options.pool,
            });
            client.ask(Method::POST, &format!("/v1/disks?project={project}"), Some(&body))?
        }
        Some(from) => {
            let size = options.size.map(|size| format!("&size_bytes={size}")).unwrap_or_default();
            let (name, pool) = (encoded(&options.name), encoded(&options.pool));
            let path = format!("/v1/disk-uploads?project={project}&name={name}&pool={pool}{size}");
            upload(&mut client, &path, from)?
        }
    };
    let operation = serde_json::from_value(created["operation"].clone())?;
    finish(&mut client, operation, options.wait)?;
    println!("{}", options.name);
    Ok(())
}

/// Sends a file, and shows how far that is.
pub fn upload(client: &mut Client, path: &str, from: &PathBuf) -> anyhow::Result<Value> {
    if from.as_os_str() == "-" {
        return client.upload(path, Box::new(std::io::stdin()), None);
    }
    let file = File::open(from).with_context(|| format!("cannot open {}", from.display()))?;
    let size = file.metadata().ok().filter(|of| of.is_file()).map(|metadata| metadata.len());
    client.upload(path, Box::new(file), size)
}

fn ask(
    client: &mut Client,
    disk: &str,
    verb: &str,
    query: &str,
    body: Option<&Value>,
) -> anyhow::Result<Operation> {
    let method = if verb.is_empty() { Method::DELETE } else { Method::POST };
    let path = format!("/v1/disks/{disk}{verb}?project={}{query}", client.project);
    client.ask(method, &path, body)
}

fn change(options: &ChangeOptions, verb: &str, query: &str) -> anyhow::Result<()> {
    let mut client = Client::connect(&options.to)?;
    let mut operations = Vec::new();
    // All are asked for before one is waited for.
    for disk in &options.disks {
        operations.push(ask(&mut client, disk, verb, query, None)?);
    }
    operations.into_iter().try_for_each(|of| finish(&mut client, of, options.wait))
}
