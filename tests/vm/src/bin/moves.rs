//! Moves a guest at work, and says what that showed: for machines that are not the tests' own.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use vm_tests::moves::{Plan, run};

#[derive(Parser)]
struct Options {
    /// Engines to go through, in order
    #[arg(long, value_delimiter = ',', default_value = "emu")]
    engines: Vec<String>,
    #[arg(long, default_value_t = 100)]
    moves: u64,
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    #[arg(long)]
    kernel: PathBuf,
    /// The RAM disk of the tests' guest at work
    #[arg(long)]
    initrd: PathBuf,
    #[arg(long, default_value = "console=ttyS0 quiet panic=-1")]
    cmdline: String,
    /// Seconds it may take
    #[arg(long, default_value_t = 600)]
    limit: u64,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let moved = run(&Plan {
        engines: options.engines,
        moves: options.moves,
        cpus: options.cpus,
        kernel: options.kernel,
        initrd: options.initrd,
        cmdline: options.cmdline,
        limit: Duration::from_secs(options.limit),
    })?;
    println!("{moved}");
    Ok(())
}
