//! `cargo xtask bench`: figures beside a peer's, from the same run.
//!
//! The machine is shared and noisy: subjects are interleaved, medians and smallest values are shown, and
//! only ratios mean much. Where instructions are counted instead of time, load does not matter.

mod boot;
mod disks;
mod engines;
mod idle;
mod inside;
mod nested;
mod subject;
mod trace;

use clap::{Args, Subcommand};

/// What to measure.
#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// From process start to user space, and memory beyond guest memory
    Boot(boot::Options),
    /// A basket of small programs in guests and on this machine: how fast, and whether right
    Engines(engines::Options),
    /// Requests to a disk, beside QEMU
    Disks(disks::Options),
    /// CPU time of a guest that does nothing
    Idle(idle::Options),
    /// One run on the machine at hand, whose kernel tells what KVM does
    #[command(hide = true)]
    Inside(inside::Options),
}

/// Measures.
pub fn run(options: &Options) -> anyhow::Result<()> {
    match &options.what {
        What::Boot(boot) => boot::run(boot),
        What::Disks(options) => disks::run(options),
        What::Engines(options) => engines::run(options),
        What::Idle(options) => idle::run(options),
        What::Inside(options) => inside::run(options),
    }
}

/// The middle one of values, which are sorted for it.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
