//! `cargo xtask lockstep`: a whole guest, checked from its first instruction to its last.

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use engine_full::CODE_SIZE;
use guests::Init;
use lockstep::{Guest, run, show};

const MEMORY_BYTES: u64 = 256 << 20;
const CMDLINE: &str = "console=ttyS0 panic=-1 nowatchdog";
/// Kernels say so last.
const UNTIL: &str = "reboot: Power down";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// Debian's cloud kernel, to its first process and its end
    Boot,
    /// The same with the programs of the basket
    Basket,
}

#[derive(Parser)]
struct Options {
    /// What is booted
    #[arg(value_enum, default_value_t = What::Boot)]
    what: What,
    /// Each unit of translated code by itself: finds a mistake where it is made
    #[arg(long)]
    by_unit: bool,
    /// Memory for translated code, in MiB: with less than it needs, the oldest is dropped again and again
    #[arg(long, default_value_t = CODE_SIZE >> 20)]
    code_mib: usize,
    /// The basket's arguments
    #[arg(long, default_value = "--check")]
    basket: String,
    /// How many minutes it may take
    #[arg(long, default_value_t = 30)]
    minutes: u64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let Ok(kernel) = guests::kernel("cloud") else { return ExitCode::FAILURE };
    let initrd = match options.what {
        What::Boot => guests::initrd(&kernel, &[], Init::PowerOff),
        What::Basket => guests::basket().map(|basket| basket.initrd),
    };
    let Ok(initrd) = initrd else { return ExitCode::FAILURE };
    let guest = Guest {
        kernel: kernel.image,
        initrd,
        cmdline: format!("{CMDLINE} BASKET=\"{}\"", options.basket),
        memory_bytes: MEMORY_BYTES,
        until: UNTIL.into(),
        limit: Duration::from_secs(60 * options.minutes),
        by_unit: options.by_unit,
        code_bytes: options.code_mib << 20,
    };
    let begin = Instant::now();
    let compared = run(&guest, true);
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "\n{} stretches with {} instructions are the same in {:.0} s, {} left other flags",
        count(&compared.checked.stretches),
        count(&compared.checked.instructions),
        begin.elapsed().as_secs_f64(),
        count(&compared.checked.flags_left),
    );
    if let Some(divergence) = &compared.divergence {
        println!("{}", show(divergence));
    } else if !compared.is_whole {
        println!("the guest did not come to its end");
    } else {
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}
