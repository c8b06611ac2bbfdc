//! What the basket's programs compute in a guest is what they compute on this machine.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use basket::{END, Line, WRONG};
use guests::{UP, host};
use vm_tests::{Guest, text};

/// Exit statuses of a run with an engine that there is not, or that cannot run here.
const STATUSES_ABSENT: [Option<i32>; 2] = [Some(2), Some(4)];
/// Rows of instructions that the portable CPU has not.
const NOT_PORTABLE: &[&str] = &["avx2"];

/// Runs the basket in a guest, without measuring, and compares its sums. False: there is no such
/// engine here.
fn computes_the_same(engine: &str) -> anyhow::Result<bool> {
    let (kernel, basket) = (guests::kernel("cloud")?, guests::basket()?);
    let native = host::output(basket.native().arg("--check"))?;
    let mut right: BTreeMap<String, u64> = native
        .lines()
        .filter_map(|line| line.parse::<Line>().ok())
        .map(|line| (line.name, line.sum))
        .collect();
    ensure!(right.len() > 30, "the basket has few rows on this machine:\n{native}");
    let mut guest = Guest::start(
        &[
            "--engine",
            engine,
            "--memory",
            "1G",
            "--kernel",
            text(&kernel.image),
            "--initrd",
            text(&basket.initrd),
            "--cmdline",
            "console=ttyS0 quiet panic=-1 BASKET=--check",
        ],
        Duration::from_secs(300),
    )?;
    if let Err(error) = guest.line_with(UP) {
        if STATUSES_ABSENT.contains(&guest.wait()?.code()) {
            eprintln!("not run: {engine} is not to be had here");
            return Ok(false);
        }
        return Err(error);
    }
    loop {
        let line = guest.line()?;
        if line == END {
            break;
        }
        if line.starts_with(WRONG) {
            bail!("{line}");
        }
        if let Ok(Line { name, sum, .. }) = line.parse() {
            let expected = right.remove(&name).with_context(|| format!("{name}: twice"))?;
            ensure!(sum == expected, "{name} computes {sum:016x}, natively {expected:016x}");
        }
    }
    right.retain(|name, _| !NOT_PORTABLE.contains(&name.as_str()));
    ensure!(right.is_empty(), "not computed in the guest: {:?}", right.keys());
    ensure!(guest.wait()?.success(), "the guest does not power off");
    Ok(true)
}

#[test]
fn the_basket_computes_on_emu_what_it_computes_natively() -> anyhow::Result<()> {
    ensure!(computes_the_same("emu")?, "emu is to be had everywhere");
    Ok(())
}

#[test]
fn the_basket_computes_on_full_what_it_computes_natively() -> anyhow::Result<()> {
    computes_the_same("full").map(drop)
}
