//! Scale sets: as many VMs of a template as are wanted.

use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use hyper::Method;
use model::{ScaleSet, ScaleSetPhase};
use serde_json::{Map, Value, json};

use crate::daemon::{Client, Where};
use crate::nouns::{self, ListOptions, Noun, ShowOptions, WaitOptions, size};
use crate::vm;

/// How often it is looked how far a set is.
const AGAIN: Duration = Duration::from_millis(200);

#[derive(Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one, made of the command line")]
pub enum Command {
    /// Make a set of VMs that are alike
    Create(SetOptions),
    /// List scale sets
    Ls(ListOptions),
    /// Say all there is about a scale set
    Show(ShowOptions),
    /// Have so many VMs from now on; where load decides, so many for now
    Resize(ResizeOptions),
    /// Let the VMs' load decide how many there are
    Autoscale(AutoscaleOptions),
    /// Have other VMs: those there are are replaced, some at a time
    Update(UpdateOptions),
    /// Delete scale sets and their VMs
    Rm(RmOptions),
}

#[derive(Args)]
pub struct SetOptions {
    #[command(flatten)]
    template: vm::CreateOptions,
    /// How many VMs
    #[arg(long, value_name = "N", default_value_t = 1)]
    size: u32,
    /// How many are replaced at a time when they are to be others
    #[arg(long, value_name = "N", default_value_t = 1)]
    replace: u32,
}

#[derive(Args)]
pub struct ResizeOptions {
    /// Its name or ID
    name: String,
    /// How many VMs
    size: u32,
    #[command(flatten)]
    to: Where,
    #[command(flatten)]
    wait: WaitOptions,
}

#[derive(Args)]
pub struct AutoscaleOptions {
    /// Its name or ID
    name: String,
    #[command(flatten)]
    to: Where,
    /// Never fewer VMs
    #[arg(long, value_name = "N", default_value_t = 1)]
    min: u32,
    /// Never more
    #[arg(long, value_name = "N", required_unless_present = "off")]
    max: Option<u32>,
    /// What they shall use of their CPUs, on average
    #[arg(long, value_name = "PERCENT", default_value_t = 60)]
    cpu: u32,
    /// How long a change is left alone, in seconds
    #[arg(long, value_name = "S", default_value_t = 300)]
    cool_down: u32,
    /// Let the size decide again
    #[arg(long, conflicts_with = "max")]
    off: bool,
}

#[derive(Args)]
pub struct UpdateOptions {
    /// Its name or ID
    name: String,
    #[command(flatten)]
    to: Where,
    /// Of this image
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    /// With so many CPUs
    #[arg(long, value_name = "N")]
    cpus: Option<u32>,
    /// With so much memory
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
    #[command(flatten)]
    wait: WaitOptions,
}

#[derive(Args)]
pub struct RmOptions {
    /// Their names or IDs
    #[arg(required = true, value_name = "SET")]
    names: Vec<String>,
    #[command(flatten)]
    to: Where,
}

/// How scale sets are shown.
const SETS: Noun = Noun {
    kind: "scale-sets",
    head: &["NAME", "STATE", "WANTED", "RUNNING", "CURRENT", "LOAD", "BOUNDS", "REASON"],
    row: |set| Ok(row(&serde_json::from_value(set.clone())?)),
};

fn row(set: &ScaleSet) -> Vec<String> {
    let (spec, status) = (&set.spec, &set.status);
    let nothing = || "-".to_owned();
    let bounds = |scale: &model::Autoscale| {
        format!("{} to {} at {} %", scale.min, scale.max, scale.cpu_percent)
    };
    vec![
        set.meta.name.to_string(),
        status.phase.as_str().to_owned(),
        status.wanted.to_string(),
        status.running.to_string(),
        status.current.to_string(),
        status.cpu_percent.map_or_else(nothing, |percent| format!("{percent} %")),
        spec.autoscale.as_ref().map_or_else(nothing, bounds),
        status.reason.clone().unwrap_or_else(nothing),
    ]
}

/// Does what is asked.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(options) => create(&options),
        Command::Ls(options) => nouns::list(&options, &SETS),
        Command::Show(options) => nouns::show(&options, &SETS),
        Command::Resize(ResizeOptions { name, size, to, wait }) => {
            change(&to, &name, json!({ "size": size }), wait)
        }
        Command::Autoscale(options) => {
            let AutoscaleOptions { name, to, min, max, cpu, cool_down, .. } = options;
            let scale = max.map(|max| {
                json!({ "min": min, "max": max, "cpu_percent": cpu, "cool_down_s": cool_down })
            });
            change(&to, &name, json!({ "autoscale": scale }), WaitOptions { no_wait: true })
        }
        Command::Update(options) => update(options),
        Command::Rm(options) => {
            let mut client = Client::connect(&options.to)?;
            for name in &options.names {
                let path = path(&client, name);
                client.ask::<Value>(Method::DELETE, &path, None)?;
            }
            Ok(())
        }
    }
}

fn path(client: &Client, name: &str) -> String {
    format!("/v1/scale-sets/{name}?project={}", client.project)
}

fn create(options: &SetOptions) -> anyhow::Result<()> {
    let template = &options.template;
    let mut client = Client::connect(&template.to)?;
    let mut of_vm = template.spec()?;
    of_vm.as_object_mut().context("a spec is an object")?.remove("power");
    let spec = json!({
        "template": of_vm, "size": options.size, "replace_at_once": options.replace,
    });
    let body = json!({ "name": template.name, "spec": spec });
    let path = format!("/v1/scale-sets?project={}", client.project);
    client.ask::<Value>(Method::POST, &path, Some(&body))?;
    finish(&mut client, &template.name, template.wait)?;
    println!("{}", template.name);
    Ok(())
}

fn update(options: UpdateOptions) -> anyhow::Result<()> {
    let UpdateOptions { name, to, image, cpus, memory, wait } = options;
    let mut template = Map::new();
    let values = [
        ("image", image.map(Value::from)),
        ("cpus", cpus.map(Value::from)),
        ("memory_bytes", memory.map(Value::from)),
    ];
    for (field, value) in values {
        template.extend(value.map(|value| (field.to_owned(), value)));
    }
    if template.is_empty() {
        bail!("say what is to be different: --image, --cpus or --memory");
    }
    change(&to, &name, json!({ "template": template }), wait)
}

fn change(to: &Where, name: &str, spec: Value, wait: WaitOptions) -> anyhow::Result<()> {
    let mut client = Client::connect(to)?;
    let path = path(&client, name);
    client.ask::<Value>(Method::PATCH, &path, Some(&json!({ "spec": spec })))?;
    finish(&mut client, name, wait)
}

/// Waits until a set is as wanted.
fn finish(client: &mut Client, name: &str, wait: WaitOptions) -> anyhow::Result<()> {
    if wait.no_wait {
        return Ok(());
    }
    let path = path(client, name);
    let mut looks = 0;
    loop {
        thread::sleep(AGAIN);
        looks += 1;
        let set: ScaleSet = client.ask(Method::GET, &path, None)?;
        match set.status.phase {
            // What was asked for may not have been seen yet.
            ScaleSetPhase::Ready if looks > 5 => return Ok(()),
            ScaleSetPhase::Failed => {
                bail!("{name}: {}", set.status.reason.unwrap_or_default());
            }
            _ => {}
        }
    }
}
