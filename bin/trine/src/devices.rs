//! What comes to a running VM and goes from it: disks, network cards, CPUs, memory.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use net::Tap;
use storage::DiskOptions;
use vmm_rpc::{Client, DeviceKind, Files, PluggedDevice, Reply, Request};

use crate::balloon::Size;
use crate::control::Target;

/// Between looks at whether a device has gone.
const LOOK: Duration = Duration::from_millis(50);
/// Queues of a tap that comes: more gain a card nothing.
const PAIRS_MAX: u32 = 4;

#[derive(Subcommand)]
pub enum NetCommand {
    /// Give a running VM a network card
    Add {
        #[command(flatten)]
        target: Target,
        /// As for run --net
        #[arg(value_name = "NETWORK")]
        net: String,
    },
    /// Take a network card away, when the guest lets it go
    Rm(RemoveOptions),
    /// List a VM's network cards
    Ls(ListOptions),
}

#[derive(Args)]
pub struct RemoveOptions {
    #[command(flatten)]
    target: Target,
    /// What ls calls it
    name: String,
    /// How many seconds the guest has for it
    #[arg(long, value_name = "S", default_value = "30")]
    timeout: u64,
}

#[derive(Args)]
pub struct ListOptions {
    #[command(flatten)]
    target: Target,
    /// For programs: as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct SetOptions {
    #[command(flatten)]
    target: Target,
    /// So many CPUs in all
    #[arg(long, value_name = "N", required_unless_present = "memory")]
    cpus: Option<u32>,
    /// So much memory in all, with its unit
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
}

/// Gives a VM a disk.
pub fn add_disk(target: &Target, disk: String) -> anyhow::Result<()> {
    let directory = std::env::current_dir().context("there is no current directory")?;
    let files = files_of_disk(&disk)?;
    add(target, &Request::AddDisk { disk, directory, files })
}

/// Takes a disk away.
pub fn remove_disk(target: &Target, name: &str, timeout_s: u64) -> anyhow::Result<()> {
    remove(target, name, timeout_s, DeviceKind::Disk)
}

/// Makes a disk larger.
pub fn resize_disk(target: &Target, name: String, size_bytes: u64) -> anyhow::Result<()> {
    done(target, &Request::GrowDisk { name, size_bytes })
}

/// Lists a VM's disks.
pub fn list_disks(target: &Target, json: bool) -> anyhow::Result<()> {
    list(target, json, DeviceKind::Disk)
}

/// Does what is asked of network cards.
pub fn net(command: NetCommand) -> anyhow::Result<()> {
    match command {
        NetCommand::Add { target, net } => {
            let files = queues(&net, &target)?;
            add(&target, &Request::AddNet { net, files })
        }
        NetCommand::Rm(RemoveOptions { target, name, timeout }) => {
            remove(&target, &name, timeout, DeviceKind::Net)
        }
        NetCommand::Ls(options) => list(&options.target, options.json, DeviceKind::Net),
    }
}

/// Gives a VM CPUs or memory.
pub fn set(options: &SetOptions) -> anyhow::Result<()> {
    let SetOptions { target, cpus, memory } = options;
    let memory_bytes = memory.map(|size| size.bytes());
    done(target, &Request::Grow { cpus: *cpus, memory_bytes })
}

/// Opens a disk's files, because the VM's process cannot.
fn files_of_disk(disk: &str) -> anyhow::Result<Files> {
    // The VM says what it can have.
    let options = DiskOptions::parse(disk, |option| Ok(option.starts_with("bus=")));
    Ok(options.map_err(anyhow::Error::msg)?.open_files()?.into())
}

/// Opens a tap's queues, if it is a tap.
fn queues(net: &str, target: &Target) -> anyhow::Result<Files> {
    let (to, _) = net.split_once(',').unwrap_or((net, ""));
    let Some((kind @ ("tap" | "bridge"), name)) = to.split_once('=') else {
        return Ok(Files::default());
    };
    let pairs = match Client::connect(target.control())?.ask(&Request::Status)? {
        Reply::Status(status) => status.vcpus.min(PAIRS_MAX) as u16,
        other => return unexpected(other),
    };
    let open = if kind == "tap" { Tap::open_queues } else { Tap::open_on_bridge };
    let (_, queues) = open(name, pairs)?;
    Ok(queues.into())
}

fn done(target: &Target, request: &Request) -> anyhow::Result<()> {
    match Client::connect(target.control())?.ask(request)? {
        Reply::Done => Ok(()),
        other => unexpected(other),
    }
}

fn add(target: &Target, request: &Request) -> anyhow::Result<()> {
    match Client::connect(target.control())?.ask(request)? {
        Reply::Plugged { name } => {
            println!("{name}");
            Ok(())
        }
        other => unexpected(other),
    }
}

fn devices(client: &mut Client, kind: DeviceKind) -> anyhow::Result<Vec<PluggedDevice>> {
    match client.ask(&Request::Devices)? {
        Reply::Devices(all) => Ok(all.into_iter().filter(|device| device.kind == kind).collect()),
        other => unexpected(other),
    }
}

fn remove(target: &Target, name: &str, timeout_s: u64, kind: DeviceKind) -> anyhow::Result<()> {
    let mut client = Client::connect(target.control())?;
    let is_there = |client: &mut Client| {
        anyhow::Ok(devices(client, kind)?.iter().any(|device| device.name == name))
    };
    if !is_there(&mut client)? {
        bail!("the VM has no '{name}': ls lists what it has");
    }
    match client.ask(&Request::RemoveDevice { name: name.to_owned() })? {
        Reply::Done => {}
        other => return unexpected(other),
    }
    let since = Instant::now();
    while is_there(&mut client)? {
        if since.elapsed().as_secs() >= timeout_s {
            bail!("the guest has not let '{name}' go; it may later, and does at its next reset");
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn list(target: &Target, json: bool, kind: DeviceKind) -> anyhow::Result<()> {
    let devices = devices(&mut Client::connect(target.control())?, kind)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&devices).context("cannot show them")?);
        return Ok(());
    }
    for PluggedDevice { name, kind, slot, size_bytes } in devices {
        let size = match kind {
            DeviceKind::Disk => format!("{} MiB", size_bytes >> 20),
            DeviceKind::Net => String::new(),
        };
        println!("{}", format!("{name:12} pci 00:{slot:02x}.0  {size}").trim_end());
    }
    Ok(())
}

fn unexpected<T>(reply: Reply) -> anyhow::Result<T> {
    match reply {
        Reply::Refused { message, .. } => bail!("{message}"),
        other => bail!("the VM answers something else: {other:?}"),
    }
}
