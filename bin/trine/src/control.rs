//! Talking to a running VM.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use vmm_rpc::{Client, EngineName, Reply, Request, RpcError, Status};

use crate::Command;

/// Which VM.
#[derive(Args)]
pub struct Target {
    /// The VM's control socket, as given to trine run --control
    #[arg(long, value_name = "PATH", env = "TRINE_CONTROL")]
    control: PathBuf,
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
        Command::Run(_) => bail!("not a question to a VM"),
        Command::Status(options) => (options.target, Request::Status, options.json),
        Command::Pause(target) => (target, Request::Pause, false),
        Command::Resume(target) => (target, Request::Resume, false),
        Command::Reset(target) => (target, Request::Reset, false),
        Command::PowerButton(target) => (target, Request::PowerButton, false),
        Command::Quit(target) => (target, Request::Quit, false),
        Command::Move(options) => (options.target, Request::Move { engine: options.engine }, false),
    };
    let mut client = Client::connect(&target.control)?;
    match client.ask(&request) {
        Ok(Reply::Done) => {}
        // It may end faster than it answers.
        Err(RpcError::Closed) if request == Request::Quit => {}
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
        ("overhead", format!("{} KiB beyond guest memory", status.overhead_bytes >> 10)),
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
    rows.iter().map(|(name, value)| format!("{name:12} {value}\n")).collect()
}
