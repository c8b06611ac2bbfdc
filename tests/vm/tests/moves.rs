//! A busy guest goes through the engines that this machine has, a hundred times, and nothing is
//! lost or repeated. (`nested` has what needs hardware virtualization.)

use std::time::Duration;

use guests::{Init, initrd, kernel};
use vm_tests::moves::{Plan, run};

const MOVES: u64 = 100;

fn goes_through(engines: &[&str], cpus: u32) -> anyhow::Result<()> {
    let kernel = kernel("cloud")?;
    let moved = run(&Plan {
        engines: engines.iter().map(|engine| (*engine).to_owned()).collect(),
        moves: MOVES,
        cpus,
        initrd: initrd(&kernel, &["virtio_pci", "virtio_blk"], Init::Work)?,
        kernel: kernel.image,
        cmdline: "console=ttyS0 quiet panic=-1".to_owned(),
        limit: Duration::from_secs(240),
    })?;
    println!("{moved}");
    Ok(())
}

#[test]
fn one_emu_after_another() -> anyhow::Result<()> {
    goes_through(&["emu"], 2)
}

#[test]
fn from_emu_to_full_and_back() -> anyhow::Result<()> {
    goes_through(&["emu", "full"], 2)
}
