//! Operations on a daemon while its host fails: more of them than a test has time for.

use std::time::{Duration, Instant};

use clap::Parser;
use vm_tests::kills::{Plan, run};

#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 500)]
    operations: u64,
    /// Decides what is done and what fails; another one each time without it
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds to come to rest in
    #[arg(long, default_value_t = 120)]
    limit: u64,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(|| std::process::id().into());
    let (operations, limit) = (options.operations, Duration::from_secs(options.limit));
    let begin = Instant::now();
    let told = run(&Plan { operations, seed, limit })?;
    println!("seed {seed}: {told}\nin {:.0} s", begin.elapsed().as_secs_f64());
    Ok(())
}
