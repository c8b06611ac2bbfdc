//! How often Linux reaches the board on its way to user space: on `hw` nearly all of it is exits
//! to the VMM (`cargo xtask bench boot --engine hw` counts those).

use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use guests::{Init, UP, initrd, kernel};
use vm_tests::{Guest, text, trine};

/// Counted: 880, of which 126 are writes to index registers, which wait in the kernel on `hw`; 48
/// look at the slots of a VM to which cards can come, and 20 at the event that tells of them. What
/// is left depends on how long the guest measures its clocks.
const ACCESSES_MAX: u64 = 900;

#[test]
fn linux_reaches_user_space_in_few_accesses() -> anyhow::Result<()> {
    let kernel = kernel("cloud")?;
    let initrd = initrd(&kernel, &[], Init::Line)?;
    let folder = tempfile::tempdir()?;
    let control = folder.path().join("control");
    #[rustfmt::skip]
    let arguments = [
        "--engine", "emu", "--memory", "256M", "--kernel", text(&kernel.image),
        "--initrd", text(&initrd), "--cmdline", "console=ttyS0 quiet panic=-1",
        "--control", text(&control),
    ];
    let mut guest = Guest::start(&arguments, Duration::from_secs(240))?;
    guest.line_with(UP)?;
    let asked =
        Command::new(trine()?).args(["status", "--json", "--control"]).arg(&control).output()?;
    let status: serde_json::Value = serde_json::from_slice(&asked.stdout)?;
    let count = |name: &str| status[name].as_u64().unwrap_or(u64::MAX);
    let (ports, mmio) = (count("port_accesses"), count("mmio_accesses"));
    println!("{ports} port and {mmio} MMIO accesses");
    ensure!(ports > 100 && mmio > 10, "{status} counts too little to be true");
    ensure!(ports.saturating_add(mmio) <= ACCESSES_MAX, "{ports} port and {mmio} MMIO accesses");
    Ok(())
}
