//! Networks that VMs share.

use std::thread;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use hyper::Method;
use model::{NetworkPhase, Subnet, VirtualNetwork};
use serde_json::{Value, json};

use crate::daemon::{Client, Where};
use crate::nouns::{ListOptions, WaitOptions, read};
use crate::shown::{Form, table, yaml};

/// How often it is looked whether a network is ready.
const AGAIN: Duration = Duration::from_millis(100);

#[derive(Subcommand)]
pub enum Command {
    /// Make a network: a bridge of the host, with DHCP, names, and a way out
    Create(CreateOptions),
    /// List networks
    Ls(ListOptions),
    /// Say all there is about a network, and who has its addresses
    Show(ShowOptions),
    /// Delete networks that no VM has a card on
    Rm(RemoveOptions),
}

#[derive(Args)]
pub struct CreateOptions {
    /// What it is to be called
    name: String,
    #[command(flatten)]
    to: Where,
    /// Its IPv4 addresses: 10.20.30.0/24, auto or none
    #[arg(long, value_name = "SUBNET", default_value = "auto")]
    ipv4: String,
    /// Its IPv6 addresses: fd00:1:2:3::/64, auto or none
    #[arg(long, value_name = "SUBNET", default_value = "auto")]
    ipv6: String,
    /// What leaves it keeps its address: others must have a route to it
    #[arg(long)]
    no_nat: bool,
    #[command(flatten)]
    wait: WaitOptions,
}

#[derive(Args)]
pub struct ShowOptions {
    /// Its name or ID
    network: String,
    #[command(flatten)]
    to: Where,
    /// In which form
    #[arg(short, long, value_enum, default_value = "yaml")]
    output: Form,
}

#[derive(Args)]
pub struct RemoveOptions {
    /// Their names or IDs
    #[arg(required = true, value_name = "NETWORK")]
    names: Vec<String>,
    #[command(flatten)]
    to: Where,
}

/// Does what is asked.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(options) => create(&options),
        Command::Ls(options) => {
            let mut client = Client::connect(&options.to)?;
            let networks = read(&mut client, "networks", &options)?;
            print!("{}", listed(&networks, options.output)?);
            Ok(())
        }
        Command::Show(options) => show(&options),
        Command::Rm(options) => {
            let mut client = Client::connect(&options.to)?;
            for name in &options.names {
                let path = format!("/v1/networks/{name}?project={}", client.project);
                client.ask::<Value>(Method::DELETE, &path, None)?;
            }
            Ok(())
        }
    }
}

fn create(options: &CreateOptions) -> anyhow::Result<()> {
    let mut client = Client::connect(&options.to)?;
    let spec = json!({ "ipv4": options.ipv4, "ipv6": options.ipv6, "nat": !options.no_nat });
    let body = json!({ "name": options.name, "spec": spec });
    let path = format!("/v1/networks?project={}", client.project);
    let mut network: VirtualNetwork = client.ask(Method::POST, &path, Some(&body))?;
    let path = format!("/v1/networks/{}?project={}", network.meta.id, client.project);
    while network.status.phase == NetworkPhase::Pending && !options.wait.no_wait {
        thread::sleep(AGAIN);
        network = client.ask(Method::GET, &path, None)?;
    }
    if network.status.phase == NetworkPhase::Failed {
        let why = network.status.reason.unwrap_or_default();
        bail!("{}: it is there, and not ready: {why}", options.name);
    }
    println!("{}", options.name);
    Ok(())
}

fn show(options: &ShowOptions) -> anyhow::Result<()> {
    let mut client = Client::connect(&options.to)?;
    let path = format!("/v1/networks/{}?project={}", options.network, client.project);
    let mut network: Value = client.ask(Method::GET, &path, None)?;
    if options.output != Form::Yaml {
        print!("{}", shown(&network, options.output)?);
        return Ok(());
    }
    let id = network["id"].as_str().unwrap_or_default();
    let path = format!("/v1/addresses?filter=network_id={id}&limit=1000");
    let addresses: Value = client.ask(Method::GET, &path, None)?;
    network["addresses"] = addresses["items"].clone();
    print!("{}", yaml(&network));
    Ok(())
}

fn shown(network: &Value, form: Form) -> anyhow::Result<String> {
    match form {
        Form::Json => Ok(serde_json::to_string_pretty(network)? + "\n"),
        form => listed(std::slice::from_ref(network), form),
    }
}

fn listed(networks: &[Value], form: Form) -> anyhow::Result<String> {
    Ok(match form {
        Form::Json => serde_json::to_string_pretty(networks)? + "\n",
        Form::Yaml => yaml(&Value::from(networks)),
        Form::Name => {
            let names = networks.iter().filter_map(|network| network["name"].as_str());
            names.map(|name| format!("{name}\n")).collect()
        }
        Form::Table => {
            let mut rows = Vec::new();
            for network in networks {
                rows.push(row(&serde_json::from_value(network.clone())?));
            }
            table(&["NAME", "STATE", "IPV4", "IPV6", "NAT", "CARDS", "REASON"], &rows)
        }
    })
}

fn row(network: &VirtualNetwork) -> Vec<String> {
    let (spec, status) = (&network.spec, &network.status);
    let (v4, v6) = (&spec.ipv4, &spec.ipv6);
    vec![
        network.meta.name.to_string(),
        status.phase.as_str().to_owned(),
        if *v4 == Subnet::None { "-".to_owned() } else { v4.to_string() },
        if *v6 == Subnet::None { "-".to_owned() } else { v6.to_string() },
        if spec.nat { "yes" } else { "no" }.to_owned(),
        status.cards.to_string(),
        status.reason.clone().unwrap_or_default(),
    ]
}
