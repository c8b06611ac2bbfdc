//! Talking to a running VM.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use keymap::SHIFT_LEFT;
use vmm_rpc::{Client, EngineName, KeyPress, Reply, Request, RpcError, Status};

use crate::Command;

/// Keys in one message.
const KEYS_AT_ONCE: usize = 1024;

/// Which VM.
#[derive(Args)]
pub struct Target {
    /// The VM's control socket, as given to trine run --control
    #[arg(long, value_name = "PATH", env = "TRINE_CONTROL")]
    control: PathBuf,
}

impl Target {
    /// The VM that answers there.
    pub fn at(control: PathBuf) -> Self {
        Self { control }
    }

    /// Where it answers.
    pub fn control(&self) -> &Path {
        &self.control
    }
}

#[derive(Args)]
pub struct KeyOptions {
    #[command(flatten)]
    target: Target,
    /// Names of keys that are pressed together, with dashes: ctrl-alt-delete, shift-f1, a
    #[arg(value_name = "KEYS", required = true)]
    combinations: Vec<String>,
}

#[derive(Args)]
pub struct TypeOptions {
    #[command(flatten)]
    target: Target,
    /// Press Enter after it
    #[arg(long)]
    enter: bool,
    /// What to type, on a US keyboard
    #[arg(value_name = "TEXT", allow_hyphen_values = true)]
    text: String,
}

fn press(code: u8) -> KeyPress {
    KeyPress { code, down: true }
}

fn release(code: u8) -> KeyPress {
    KeyPress { code, down: false }
}

/// Each combination goes down in its order and up again backwards.
fn combined(combinations: &[String]) -> anyhow::Result<Vec<KeyPress>> {
    let mut keys = Vec::new();
    for combination in combinations {
        let codes = keymap::combination(combination).map_err(|name| {
            let names: Vec<_> = keymap::names().collect();
            anyhow!("there is no key '{name}': give a character or {}", names.join(", "))
        })?;
        keys.extend(codes.iter().map(|code| press(*code)));
        keys.extend(codes.iter().rev().map(|code| release(*code)));
    }
    Ok(keys)
}

fn typed(text: &str, enter: bool) -> anyhow::Result<Vec<KeyPress>> {
    let mut keys = Vec::new();
    for character in text.chars().chain(enter.then_some('\n')) {
        let stroke = keymap::of_char(character)
            .with_context(|| format!("no key of a US keyboard types {character:?}"))?;
        let one = [press(stroke.code), release(stroke.code)];
        if stroke.shift {
            keys.extend([press(SHIFT_LEFT), one[0], one[1], release(SHIFT_LEFT)]);
        } else {
            keys.extend(one);
        }
    }
    Ok(keys)
}

#[derive(Args)]
pub struct StatusOptions {
    #[command(flatten)]
    target: Target,
    /// For programs: as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct MoveOptions {
    #[command(flatten)]
    target: Target,
    /// The engine to go on in: hw, full or emu
    #[arg(long)]
    engine: EngineName,
}

/// Does what a command asks of a VM, and prints the answer.
pub fn ask(command: Command) -> anyhow::Result<()> {
    let (target, request, json) = match command {
        Command::Key(options) => {
            let keys = combined(&options.combinations)?;
            (options.target, Request::Keys { keys }, false)
        }
        Command::Type(options) => {
            let keys = typed(&options.text, options.enter)?;
            // A message holds so many.
            for part in keys.chunks(KEYS_AT_ONCE) {
                send(&options.target, &Request::Keys { keys: part.to_vec() }, false)?;
            }
            return Ok(());
        }
        Command::Status(options) => (options.target, Request::Status, options.json),
        Command::Pause(target) => (target, Request::Pause, false),
        Command::Resume(target) => (target, Request::Resume, false),
        Command::Reset(target) => (target, Request::Reset, false),
        Command::PowerButton(target) => (target, Request::PowerButton, false),
        Command::Quit(target) => (target, Request::Quit, false),
        Command::Move(options) => (options.target, Request::Move { engine: options.engine }, false),
        _ => bail!("not a question to a VM"),
    };
    send(&target, &request, json)
}

fn send(target: &Target, request: &Request, json: bool) -> anyhow::Result<()> {
    let mut client = Client::connect(&target.control)?;
    match client.ask(request) {
        Ok(Reply::Done | Reply::Agent(_) | Reply::Balloon(_)) => {}
        // It may end faster than it answers.
        Err(RpcError::Closed) if *request == Request::Quit => {}
        Ok(Reply::Moved(moved)) => {
            let stopped_ms = moved.stopped_us as f64 / 1000.0;
            println!("moved from {} to {} in {stopped_ms:.1} ms", moved.from, moved.to);
        }
        Ok(Reply::Status(status)) if json => {
            println!(
                "{}",
                serde_json::to_string_pretty(&status).context("cannot show the status")?
            );
        }
        Ok(Reply::Status(status)) => print!("{}", table(&status)),
        Ok(Reply::Plugged { .. } | Reply::Devices(_)) => bail!("the VM answers something else"),
        Ok(Reply::Screen { .. }) => bail!("the VM shows a screen that was not asked for"),
        Ok(Reply::Refused { message, .. }) => bail!("{message}"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn table(status: &Status) -> String {
    let seconds = status.machine_time_ms as f64 / 1000.0;
    let rows = [
        ("state", status.state.to_string()),
        ("engine", format!("{} ({})", status.engine, status.engine_reason)),
        ("vCPUs", status.vcpus.to_string()),
        ("memory", format!("{} MiB", status.memory_bytes >> 20)),
        ("has run", format!("{seconds:.1} s")),
        ("resets", status.resets.to_string()),
        ("moves", status.moves.to_string()),
        (
            "accesses",
            format!(
                "{} port, {} MMIO, {} of them unclaimed",
                status.port_accesses, status.mmio_accesses, status.unclaimed_accesses
            ),
        ),
        ("lost output", format!("{} bytes", status.console_lost_bytes)),
        ("process", status.pid.to_string()),
    ];
    let holds = status.cage.holds.iter().map(|line| ("cage", line.clone()));
    let lacks = status.cage.lacks.iter().map(|line| ("not caged", line.clone()));
    let rows = rows.into_iter().chain(status.costs()).chain(holds).chain(lacks);
    rows.map(|(name, value)| format!("{name:12} {value}\n")).collect()
}
