//! `cargo xtask bench`: figures beside a peer's, from the same run.
//!
//! The machine is shared and noisy: subjects are interleaved, medians and smallest values are shown, and
//! only ratios mean much.

mod boot;
mod subject;

use clap::{Args, Subcommand};

/// What to measure.
#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Seconds from process start to user space, and memory beyond guest memory
    Boot(boot::Options),
}

/// Measures.
pub fn run(options: &Options) -> anyhow::Result<()> {
    match &options.what {
        What::Boot(boot) => boot::run(boot),
    }
}

/// The middle one of sorted values.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
