//! What nouns of the command line have in common: lists, objects in a form, waiting for what was asked.

use std::io::{IsTerminal, Write, stderr, stdout};

use anyhow::bail;
use clap::Args;
use hyper::Method;
use model::{Operation, OperationState};
use serde::Deserialize;
use serde_json::Value;

use crate::daemon::{Client, Where};
use crate::shown::{Form, table, yaml};

/// A kind of objects.
pub struct Noun {
    /// What they are called in the API's paths.
    pub kind: &'static str,
    /// The columns of their table.
    pub head: &'static [&'static str],
    /// A row of it.
    pub row: fn(&Value) -> anyhow::Result<Vec<String>>,
}

#[derive(Args)]
pub struct ListOptions {
    #[command(flatten)]
    pub to: Where,
    /// Only what is so: status.phase=running and name~web
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
    /// By which field: name, -created
    #[arg(long, value_name = "FIELD", allow_hyphen_values = true)]
    sort: Option<String>,
    /// In which form
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Form,
    /// Show it again when something changes, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
}

#[derive(Args)]
pub struct ShowOptions {
    /// Its name or ID
    pub name: String,
    #[command(flatten)]
    pub to: Where,
    /// In which form
    #[arg(short, long, value_enum, default_value = "yaml")]
    pub output: Form,
}

#[derive(Args, Clone, Copy)]
pub struct WaitOptions {
    /// Do not wait until it is done
    #[arg(long)]
    pub no_wait: bool,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Value>,
    next_page: Option<String>,
}

/// A number of bytes, with its unit.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.strip_suffix("iB").unwrap_or(unit) {
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err("give a number and M, G or T".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "not a number that makes sense".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large for any machine".to_owned())
}

/// Waits for operations, and shows how far they are.
pub fn finish(
    client: &mut Client,
    mut operation: Operation,
    wait: WaitOptions,
) -> anyhow::Result<()> {
    if wait.no_wait {
        return Ok(());
    }
    let shows = stderr().is_terminal();
    while operation.state == OperationState::Running {
        if shows {
            let (name, percent) = (&operation.target.name, operation.percent);
            eprint!("\r\x1b[K{name}: {} {percent} %", operation.phase);
        }
        let path = format!("/v1/operations/{}?wait_s=1", operation.id);
        operation = client.ask(Method::GET, &path, None)?;
    }
    if shows {
        eprint!("\r\x1b[K");
    }
    let (name, verb) = (&operation.target.name, operation.verb.as_str());
    match (operation.state, operation.error) {
        (OperationState::Failed, Some(error)) => bail!("{name}: {verb} failed: {}", error.message),
        (OperationState::Cancelled, _) => {
            bail!("{name}: {verb} was cancelled, or another change came")
        }
        _ => Ok(()),
    }
}

/// As a part of a query.
pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let mut encoded = String::new();
    for byte in text.bytes() {
        match plain(byte) {
            true => encoded.push(char::from(byte)),
            false => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// All objects of a kind that are asked for.
pub fn read(client: &mut Client, kind: &str, options: &ListOptions) -> anyhow::Result<Vec<Value>> {
    let mut query = format!("/v1/{kind}?project={}&limit=1000", client.project);
    for (name, value) in [("filter", &options.filter), ("sort", &options.sort)] {
        if let Some(value) = value {
            query.push_str(&format!("&{name}={}", encoded(value)));
        }
    }
    let mut items = Vec::new();
    let mut page: Option<String> = None;
    loop {
        let of = page.map(|page| format!("&page={page}")).unwrap_or_default();
        let answer: Page = client.ask(Method::GET, &format!("{query}{of}"), None)?;
        items.extend(answer.items);
        page = answer.next_page;
        if page.is_none() {
            return Ok(items);
        }
    }
}

/// Lists objects, once or as they change.
pub fn list(options: &ListOptions, noun: &Noun) -> anyhow::Result<()> {
    let mut client = Client::connect(&options.to)?;
    let mut last = String::new();
    loop {
        let text = listed(&read(&mut client, noun.kind, options)?, options.output, noun)?;
        if text != last {
            let clear = if options.watch && stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
            print!("{clear}{text}");
            stdout().flush()?;
            last = text;
        }
        if !options.watch {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
}

/// Objects in a form.
pub fn listed(items: &[Value], form: Form, noun: &Noun) -> anyhow::Result<String> {
    Ok(match form {
        Form::Json => serde_json::to_string_pretty(items)? + "\n",
        Form::Yaml => yaml(&Value::from(items)),
        Form::Name => {
            let names = items.iter().filter_map(|of| of["name"].as_str());
            names.map(|name| format!("{name}\n")).collect()
        }
        Form::Table => {
            let mut rows = Vec::new();
            for item in items {
                rows.push((noun.row)(item)?);
            }
            table(noun.head, &rows)
        }
    })
}

/// All there is about an object.
pub fn show(options: &ShowOptions, noun: &Noun) -> anyhow::Result<()> {
    let mut client = Client::connect(&options.to)?;
    let path = format!("/v1/{}/{}?project={}", noun.kind, options.name, client.project);
    let object: Value = client.ask(Method::GET, &path, None)?;
    match options.output {
        Form::Yaml => print!("{}", yaml(&object)),
        Form::Json => println!("{}", serde_json::to_string_pretty(&object)?),
        form => print!("{}", listed(&[object], form, noun)?),
    }
    Ok(())
}

/// A number of bytes for people: with one digit after the point, where it is not a whole number.
pub fn human(bytes: u64) -> String {
    let units = [(1_u64 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    let unit = units.iter().find(|(unit, _)| bytes >= *unit);
    unit.map_or_else(
        || format!("{bytes}"),
        |(unit, letter)| match (bytes * 10 + unit / 2) / unit {
            tenths if tenths.is_multiple_of(10) => format!("{}{letter}", tenths / 10),
            tenths => format!("{}.{}{letter}", tenths / 10, tenths % 10),
        },
    )
}
