//! Security groups: what VMs may send and be sent.

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use model::{Direction, Peer, Rule, RuleProtocol, SecurityGroup};
use serde_json::{Value, json};

use crate::daemon::{Client, Where};
use crate::nouns::{ListOptions, read};
use crate::shown::{Form, table, yaml};

#[derive(Subcommand)]
pub enum Command {
    /// Make a security group, whose VMs may send anything; what they may be sent, rules say
    Create(CreateOptions),
    /// List security groups
    Ls(ListOptions),
    /// List a security group's rules
    Show(ShowOptions),
    /// Rules of a security group; they hold for running VMs at once
    #[command(subcommand)]
    Rule(RuleCommand),
    /// Delete security groups that nobody names
    Rm(RemoveOptions),
}

#[derive(Subcommand)]
pub enum RuleCommand {
    /// Let something through
    Add(AddOptions),
    /// Let something through no more
    Rm(RemoveRuleOptions),
}

#[derive(Args)]
pub struct CreateOptions {
    /// What it is to be called
    name: String,
    #[command(flatten)]
    to: Where,
    /// Let nothing out, either
    #[arg(long)]
    closed: bool,
}

#[derive(Args)]
pub struct ShowOptions {
    /// Its name or ID
    group: String,
    #[command(flatten)]
    to: Where,
    /// In which form
    #[arg(short, long, value_enum, default_value = "table")]
    output: Form,
}

#[derive(Args)]
pub struct RemoveOptions {
    /// Their names or IDs
    #[arg(required = true, value_name = "GROUP")]
    names: Vec<String>,
    #[command(flatten)]
    to: Where,
}

#[derive(Clone, Copy, ValueEnum)]
enum Way {
    /// To the VM
    In,
    /// From the VM
    Out,
}

#[derive(Clone, Copy, ValueEnum)]
enum Protocol {
    /// Everything
    Any,
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// ICMP and ICMPv6
    Icmp,
}

#[derive(Args)]
pub struct AddOptions {
    /// The group's name or ID
    group: String,
    /// Which way
    #[arg(value_enum)]
    way: Way,
    #[command(flatten)]
    to: Where,
    /// What
    #[arg(long, value_enum, default_value = "any")]
    protocol: Protocol,
    /// To which ports: 80, 8000-8999
    #[arg(long, value_name = "PORTS")]
    ports: Option<String>,
    /// From or to whom: 192.0.2.0/24, or group:NAME [default: everybody]
    #[arg(long, value_name = "PEER")]
    peer: Option<String>,
}

#[derive(Args)]
pub struct RemoveRuleOptions {
    /// The group's name or ID
    group: String,
    /// The rule's number, as 'security-group show' has it
    number: usize,
    #[command(flatten)]
    to: Where,
}

/// Does what is asked.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(options) => {
            let mut client = Client::connect(&options.to)?;
            let rules = if options.closed { json!([]) } else { json!([{ "direction": "out" }]) };
            let body = json!({ "name": options.name, "spec": { "rules": rules } });
            let path = format!("/v1/security-groups?project={}", client.project);
            client.ask::<Value>(Method::POST, &path, Some(&body))?;
            println!("{}", options.name);
        }
        Command::Ls(options) => {
            let mut client = Client::connect(&options.to)?;
            let groups = read(&mut client, "security-groups", &options)?;
            print!("{}", listed(&groups, options.output)?);
        }
        Command::Show(options) => {
            let mut client = Client::connect(&options.to)?;
            let group: Value = client.ask(Method::GET, &path(&client, &options.group), None)?;
            print!("{}", shown(&group, options.output)?);
        }
        Command::Rule(RuleCommand::Add(options)) => add(&options)?,
        Command::Rule(RuleCommand::Rm(options)) => {
            let mut client = Client::connect(&options.to)?;
            let path = path(&client, &options.group);
            client.edit_spec(&path, |spec| {
                let rules = spec["rules"].as_array_mut().context("the group has no rules")?;
                if !(1..=rules.len()).contains(&options.number) {
                    bail!("there is no rule {}: it has {}", options.number, rules.len());
                }
                rules.remove(options.number - 1);
                Ok(())
            })?;
        }
        Command::Rm(options) => {
            let mut client = Client::connect(&options.to)?;
            for name in &options.names {
                client.ask::<Value>(Method::DELETE, &path(&client, name), None)?;
            }
        }
    }
    Ok(())
}

fn path(client: &Client, group: &str) -> String {
    format!("/v1/security-groups/{group}?project={}", client.project)
}

fn add(options: &AddOptions) -> anyhow::Result<()> {
    let mut rule = json!({
        "direction": match options.way {
            Way::In => "in",
            Way::Out => "out",
        },
        "protocol": match options.protocol {
            Protocol::Any => "any",
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp => "icmp",
        },
    });
    if let Some(ports) = &options.ports {
        rule["ports"] = json!(ports);
    }
    match options.peer.as_deref().map(|peer| (peer, peer.strip_prefix("group:"))) {
        Some((_, Some(group))) => rule["peer"] = json!({ "group": group }),
        Some((cidr, None)) => rule["peer"] = json!({ "cidr": cidr }),
        None => {}
    }
    let mut client = Client::connect(&options.to)?;
    let path = path(&client, &options.group);
    client.edit_spec(&path, |spec| {
        spec["rules"].as_array_mut().context("the group has no rules")?.push(rule);
        Ok(())
    })
}

fn shown(group: &Value, form: Form) -> anyhow::Result<String> {
    Ok(match form {
        Form::Json => serde_json::to_string_pretty(group)? + "\n",
        Form::Yaml => yaml(group),
        Form::Name => listed(std::slice::from_ref(group), form)?,
        Form::Table => {
            let group: SecurityGroup = serde_json::from_value(group.clone())?;
            let rows: Vec<_> = group.spec.rules.iter().enumerate().map(row).collect();
            table(&["NUMBER", "WAY", "PROTOCOL", "PORTS", "PEER"], &rows)
        }
    })
}

fn row((index, rule): (usize, &Rule)) -> Vec<String> {
    let protocol = match rule.protocol {
        RuleProtocol::Any => "any",
        RuleProtocol::Tcp => "tcp",
        RuleProtocol::Udp => "udp",
        RuleProtocol::Icmp => "icmp",
    };
    let way = match rule.direction {
        Direction::In => "in",
        Direction::Out => "out",
    };
    let peer = match &rule.peer {
        Peer::Anybody => "-".to_owned(),
        Peer::Cidr(cidr) => cidr.0.to_string(),
        Peer::Group(group) => format!("group:{group}"),
    };
    let ports = rule.ports.map_or_else(|| "-".to_owned(), |ports| ports.to_string());
    vec![(index + 1).to_string(), way.to_owned(), protocol.to_owned(), ports, peer]
}

fn listed(groups: &[Value], form: Form) -> anyhow::Result<String> {
    Ok(match form {
        Form::Json => serde_json::to_string_pretty(groups)? + "\n",
        Form::Yaml => yaml(&Value::from(groups)),
        Form::Name => {
            let names = groups.iter().filter_map(|group| group["name"].as_str());
            names.map(|name| format!("{name}\n")).collect()
        }
        Form::Table => {
            let mut rows = Vec::new();
            for group in groups {
                let group: SecurityGroup = serde_json::from_value(group.clone())?;
                let (rules, cards) = (group.spec.rules.len(), group.status.cards);
                rows.push(vec![group.meta.name.to_string(), rules.to_string(), cards.to_string()]);
            }
            table(&["NAME", "RULES", "CARDS"], &rows)
        }
    })
}
