//! `cargo xtask nested -- COMMAND`: runs a command on a machine that has hardware virtualization,
//! whether or not this one has. Its output and exit code are ours.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use guests::host;
use nested::Machine;

/// What to run, and where.
#[derive(Args)]
pub struct Options {
    /// A file the command uses: copied to /job, or to DESTINATION
    #[arg(long = "file", value_name = "SOURCE[:DESTINATION]")]
    files: Vec<String>,
    /// An image that is /dev/vda there; what is written to it is lost
    #[arg(long)]
    disk: Option<PathBuf>,
    /// Processors of the machine
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Its memory, in MiB
    #[arg(long, default_value_t = 2048)]
    memory: u32,
    /// Seconds the command may take
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// One instruction a nanosecond of the machine's clock: times are instruction counts then
    #[arg(long)]
    count_instructions: bool,
    /// Where the machine's own console goes
    #[arg(long)]
    console: Option<PathBuf>,
    /// The command; a program of this machine is copied
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Prepares the machine and runs the command. Exits with the command's code when that is not 0.
pub fn run(options: &Options) -> anyhow::Result<()> {
    host::need_packages(nested::PACKAGES)?;
    let machine = Machine {
        files: options.files.clone(),
        disk: options.disk.clone(),
        cpus: options.cpus,
        memory: options.memory,
        timeout: Duration::from_secs(options.timeout),
        count_instructions: options.count_instructions,
        console: options.console.clone(),
        command: options.command.clone(),
    };
    let code = machine.run(&mut |text| {
        print!("{text}");
        let _ = std::io::stdout().flush();
    })?;
    if code == 0 { Ok(()) } else { std::process::exit(code) }
}
