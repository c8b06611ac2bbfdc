//! Managed VMs: what is asked of the daemon about them.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use hyper::Method;
use model::{Operation, Vm};
use serde_json::{Value, json};

use crate::daemon::{Client, Where};
use crate::nouns::{self, ListOptions, Noun, ShowOptions, WaitOptions, encoded, finish, size};

#[derive(Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one, made of the command line")]
pub enum Command {
    /// Make a VM and start it
    Create(CreateOptions),
    /// List VMs
    Ls(ListOptions),
    /// Say all there is about a VM
    Show(ShowOptions),
    /// Start VMs
    Start(ChangeOptions),
    /// Shut VMs down
    Stop(ForceOptions),
    /// Stop VMs and start them
    Restart(ChangeOptions),
    /// Make VMs and their clocks stand
    Pause(ChangeOptions),
    /// Let VMs go on
    Resume(ChangeOptions),
    /// Change a VM's CPUs and memory, also while it runs
    Set(SetOptions),
    /// Delete VMs and their disks
    Rm(RmOptions),
}

/// A number or a size, and what it can grow to while the VM runs.
#[derive(Clone, Copy)]
struct UpTo {
    now: u64,
    most: Option<u64>,
}

fn up_to(text: &str, of: impl Fn(&str) -> Result<u64, String>) -> Result<UpTo, String> {
    let (now, most) = match text.split_once(",max=") {
        Some((now, most)) => (of(now)?, Some(of(most)?)),
        None => (of(text)?, None),
    };
    Ok(UpTo { now, most })
}

fn cpus(text: &str) -> Result<UpTo, String> {
    let number = |text: &str| text.parse::<u32>().map(u64::from).map_err(|error| error.to_string());
    up_to(text, number)
}

fn memory(text: &str) -> Result<UpTo, String> {
    up_to(text, size)
}

#[derive(Args)]
pub struct SetOptions {
    /// Its name or ID
    vm: String,
    #[command(flatten)]
    to: Where,
    /// So many CPUs; with ",max=N", so many can come while it runs, from its next start on
    #[arg(long, value_name = "N[,max=N]", value_parser = cpus, required_unless_present = "memory")]
    cpus: Option<UpTo>,
    /// So much memory, with its unit; with ",max=SIZE" as for CPUs
    #[arg(long, value_name = "SIZE[,max=SIZE]", value_parser = memory)]
    memory: Option<UpTo>,
    #[command(flatten)]
    wait: WaitOptions,
}

#[derive(Args)]
pub struct CreateOptions {
    /// What it is to be called
    pub name: String,
    #[command(flatten)]
    pub to: Where,
    /// The image its disk is made of (trine image ls)
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    /// Bytes of its disk, if more than the image's: 20G
    #[arg(long, value_name = "SIZE", value_parser = size)]
    disk: Option<u64>,
    /// A disk that there is (trine disk ls); repeat for more
    #[arg(long = "attach", value_name = "DISK")]
    disks: Vec<String>,
    /// Number of CPUs; with ",max=N", so many can come while it runs (vm set)
    #[arg(long, value_name = "N[,max=N]", default_value = "1", value_parser = cpus)]
    cpus: UpTo,
    /// Memory, with its unit: 512M, 4G; with ",max=SIZE", so much can come while it runs
    #[arg(long, value_name = "SIZE[,max=SIZE]", default_value = "512M", value_parser = memory)]
    memory: UpTo,
    /// Who executes its CPUs: auto, hw, full or emu
    #[arg(long, value_name = "ENGINE", default_value = "auto")]
    engine: String,
    /// What it starts from: bios or uefi
    #[arg(long, value_name = "FIRMWARE", default_value = "bios")]
    firmware: String,
    /// Start from this kernel instead
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Initial RAM disk of the kernel
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// Command line of the kernel
    #[arg(long, value_name = "STRING", requires = "kernel", allow_hyphen_values = true)]
    cmdline: Option<String>,
    /// A user who is made at the first boot
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// A file with public keys for that user
    #[arg(long, value_name = "FILE")]
    ssh_key: Option<PathBuf>,
    /// A key that the daemon knows (trine ssh-key ls) for that user; repeat for more
    #[arg(long = "key", value_name = "NAME")]
    keys: Vec<String>,
    /// Networks it has cards on (trine network ls), instead of one of its own; repeat for more
    #[arg(long = "network", value_name = "NAME")]
    networks: Vec<String>,
    /// The address of the first card [default: any that is free]
    #[arg(long, value_name = "ADDRESS", requires = "networks")]
    address: Option<String>,
    /// Security groups of its cards; repeat for more [default: default]
    #[arg(long = "security-group", value_name = "NAME", requires = "networks")]
    security_groups: Vec<String>,
    /// A port of this host's loopback that leads into the guest: 2222:22; repeat for more
    #[arg(long = "publish", value_name = "HOST:GUEST")]
    forwards: Vec<String>,
    /// Make it, and do not start it
    #[arg(long)]
    off: bool,
    #[command(flatten)]
    pub wait: WaitOptions,
}

#[derive(Args)]
pub struct ChangeOptions {
    /// Their names or IDs
    #[arg(required = true, value_name = "VM")]
    vms: Vec<String>,
    #[command(flatten)]
    to: Where,
    #[command(flatten)]
    wait: WaitOptions,
}

#[derive(Args)]
pub struct RmOptions {
    #[command(flatten)]
    change: ChangeOptions,
    /// At once, whatever the guest does
    #[arg(short, long)]
    force: bool,
    /// Leave the disks that were made for them
    #[arg(long)]
    keep_disks: bool,
}

#[derive(Args)]
pub struct ForceOptions {
    #[command(flatten)]
    change: ChangeOptions,
    /// At once, whatever the guest does
    #[arg(short, long)]
    force: bool,
}

/// Does what is asked.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(options) => create(options),
        Command::Ls(options) => list(&options),
        Command::Show(options) => nouns::show(&options, &VMS),
        Command::Start(options) => change(&options, Method::POST, "/start", ""),
        Command::Restart(options) => change(&options, Method::POST, "/restart", ""),
        Command::Pause(options) => change(&options, Method::POST, "/pause", ""),
        Command::Resume(options) => change(&options, Method::POST, "/resume", ""),
        Command::Stop(options) => {
            let force = if options.force { "&force=true" } else { "" };
            change(&options.change, Method::POST, "/stop", force)
        }
        Command::Set(options) => set(&options),
        Command::Rm(options) => {
            let force = if options.force { "&force=true" } else { "" };
            let keep = if options.keep_disks { "&keep_disks=true" } else { "" };
            change(&options.change, Method::DELETE, "", &format!("{force}{keep}"))
        }
    }
}

fn absolute(path: &PathBuf) -> anyhow::Result<String> {
    let path =
        std::path::absolute(path).with_context(|| format!("cannot find {}", path.display()))?;
    path.into_os_string().into_string().ok().context("a path must be UTF-8")
}

impl CreateOptions {
    /// The VM's spec.
    ///
    /// # Errors
    /// When an option makes no sense, or a file that it names cannot be read.
    pub fn spec(&self) -> anyhow::Result<Value> {
        let options = self;
        let boot_from = match &options.kernel {
            None => json!({ "firmware": options.firmware }),
            Some(kernel) => json!({ "kernel": {
                "kernel": absolute(kernel)?,
                "initrd": options.initrd.as_ref().map(absolute).transpose()?,
                "cmdline": options.cmdline.clone().unwrap_or_default(),
            }}),
        };
        let mut forwards = Vec::new();
        for forward in &options.forwards {
            let ports = forward.split_once(':').and_then(|(host, guest)| {
                Some((host.parse::<u16>().ok()?, guest.parse::<u16>().ok()?))
            });
            let (host, guest) = ports.context("--publish takes HOST:GUEST, as in 2222:22")?;
            forwards.push(json!({ "host_port": host, "guest_port": guest }));
        }
        let mut spec = json!({
            "power": if options.off { "off" } else { "on" },
            "cpus": options.cpus.now,
            "cpus_max": options.cpus.most,
            "memory_bytes": options.memory.now,
            "memory_max_bytes": options.memory.most,
            "engine": options.engine,
            "image": options.image,
            "disk_bytes": options.disk,
            "disks": options.disks,
            "boot_from": boot_from,
        });
        if options.networks.is_empty() {
            spec["network"] = json!({ "user": forwards });
        } else {
            spec["networks"] = cards(options, &forwards);
        }
        if options.user.is_some() || options.ssh_key.is_some() || !options.keys.is_empty() {
            let keys = options.ssh_key.as_ref().map(std::fs::read_to_string).transpose();
            let keys = keys.context("cannot read the file of --ssh-key")?.unwrap_or_default();
            let keys: Vec<&str> =
                keys.lines().map(str::trim).filter(|key| !key.is_empty()).collect();
            spec["cloud_init"] = json!({
                "user": options.user,
                "ssh_keys": keys,
                "keys": options.keys,
            });
        }
        Ok(spec)
    }
}

fn create(options: CreateOptions) -> anyhow::Result<()> {
    let spec = options.spec()?;
    let mut client = Client::connect(&options.to)?;
    let path = format!("/v1/vms?project={}", client.project);
    let body = json!({ "name": options.name, "spec": spec });
    let created: Value = client.ask(Method::POST, &path, Some(&body))?;
    let operation = serde_json::from_value(created["operation"].clone())?;
    finish(&mut client, operation, options.wait)?;
    println!("{}", options.name);
    Ok(())
}

/// The first card has the address and the ports.
fn cards(options: &CreateOptions, forwards: &[Value]) -> Value {
    let card = |(index, network): (usize, &String)| {
        let mut card = json!({ "network": network });
        if !options.security_groups.is_empty() {
            card["security_groups"] = json!(options.security_groups);
        }
        if index == 0 {
            card["address"] = json!(options.address);
            card["ports"] = json!(forwards);
        }
        card
    };
    options.networks.iter().enumerate().map(card).collect()
}

/// Bounds are a matter of the next start; what is within those there are comes at once.
fn set(options: &SetOptions) -> anyhow::Result<()> {
    let mut client = Client::connect(&options.to)?;
    let path = |rest: &str, of: &Client| {
        format!("/v1/vms/{}{rest}?project={}", encoded(&options.vm), of.project)
    };
    let most = |of: Option<UpTo>| of.and_then(|of| of.most);
    let (cpus_max, memory_max) = (most(options.cpus), most(options.memory));
    if cpus_max.is_some() || memory_max.is_some() {
        let mut spec = json!({});
        let mut say = |field: &str, value: Option<u64>| {
            value.into_iter().for_each(|value| spec[field] = json!(value));
        };
        say("cpus", options.cpus.map(|of| of.now));
        say("cpus_max", cpus_max);
        say("memory_bytes", options.memory.map(|of| of.now));
        say("memory_max_bytes", memory_max);
        let body = json!({ "spec": spec });
        client.ask::<Value>(Method::PATCH, &path("", &client), Some(&body))?;
    }
    let now = |of: Option<UpTo>| of.map(|of| of.now);
    let body = json!({ "cpus": now(options.cpus), "memory_bytes": now(options.memory) });
    let operation = client.ask(Method::POST, &path("/resize", &client), Some(&body))?;
    finish(&mut client, operation, options.wait)?;
    if options.wait.no_wait {
        return Ok(());
    }
    let vm: Vm = client.ask(Method::GET, &path("", &client), None)?;
    if !vm.status.at_next_start.is_empty() {
        let fields = vm.status.at_next_start.join(" and ");
        eprintln!(
            "{}: {fields} cannot come while it runs, and will with its next start",
            vm.meta.name
        );
    }
    Ok(())
}

fn change(options: &ChangeOptions, method: Method, verb: &str, query: &str) -> anyhow::Result<()> {
    let mut client = Client::connect(&options.to)?;
    let mut operations = Vec::new();
    // All are asked for before one is waited for.
    for vm in &options.vms {
        let path = format!("/v1/vms/{vm}{verb}?project={}{query}", client.project);
        operations.push(client.ask::<Operation>(method.clone(), &path, None)?);
    }
    for operation in operations {
        finish(&mut client, operation, options.wait)?;
    }
    Ok(())
}

pub fn list(options: &ListOptions) -> anyhow::Result<()> {
    nouns::list(options, &VMS)
}

/// How VMs are shown.
const VMS: Noun = Noun {
    kind: "vms",
    head: &["NAME", "STATE", "ENGINE", "CPUS", "MEMORY", "IMAGE", "ADDRESS", "DISKS", "REASON"],
    row: |vm| Ok(row(&serde_json::from_value(vm.clone())?)),
};

/// An address of each of its cards.
fn addresses(vm: &Vm) -> Option<String> {
    let each = vm.status.networks.iter().filter_map(|card| {
        let v6 = card.ipv6.map(|address| address.to_string());
        card.ipv4.map(|address| address.to_string()).or(v6)
    });
    let each: Vec<_> = each.collect();
    (!each.is_empty()).then(|| each.join(","))
}

fn row(vm: &Vm) -> Vec<String> {
    let nothing = || "-".to_owned();
    let engine = vm.status.engine.map_or_else(nothing, |engine| engine.as_str().to_owned());
    vec![
        vm.meta.name.to_string(),
        vm.status.phase.as_str().to_owned(),
        engine,
        vm.spec.cpus.to_string(),
        format!("{} MiB", vm.spec.memory_bytes >> 20),
        vm.spec.image.clone().unwrap_or_else(nothing),
        addresses(vm).unwrap_or_else(nothing),
        vm.spec.disks.len().to_string(),
        vm.status.reason.clone().unwrap_or_default(),
    ]
}
