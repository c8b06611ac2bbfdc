//! One run of one VMM on the machine at hand, which has KVM and trace points and is ours alone: the
//! nested one.

use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use guests::host;
use serde_json::json;

use super::subject::{OwnMemory, measure};
use super::trace::Trace;

/// How the line with the result begins.
pub const RESULT: &str = "RESULT ";
/// A boot takes a few seconds of the nested machine's time. A nested guest sometimes hangs where
/// instructions are counted.
const LIMIT: Duration = Duration::from_secs(20);

/// What to run.
#[derive(Args)]
pub struct Options {
    /// Its name, which is in the result
    #[arg(long)]
    name: String,
    /// The line that ends the run
    #[arg(long)]
    line: String,
    /// Memory of the guest, in MiB
    #[arg(long)]
    guest_mib: u64,
    /// The VMM
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Runs it, and prints [`RESULT`] and an object.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let tracefs = ["-t", "tracefs", "tracefs", "/sys/kernel/tracing"];
    // It may be there already: the trace will tell.
    let _ = host::output(Command::new("mount").args(tracefs));
    let (program, arguments) = options.command.split_first().context("no VMM")?;
    let mut command = Command::new(program);
    command.args(arguments);
    let trace = Trace::begin()?;
    let mut trace = Some(trace);
    let mut seen = None;
    let seconds = measure(command, &options.line, LIMIT, LIMIT, &mut |pid| {
        seen = trace.take().map(|t| (t.told(), OwnMemory::of(pid, options.guest_mib << 10)));
    })?;
    let (told, own) = seen.context("the run was not looked at")?;
    let told = told?;
    let result = json!({
        "name": options.name,
        "up_ms": seconds * 1e3,
        "entry_ms": told.entry_ms,
        "accesses": told.accesses(),
        "exits": told.exits,
        "own_kib": own.kib,
        "anonymous_kib": own.anonymous_kib,
    });
    println!("{RESULT}{result}");
    Ok(())
}
