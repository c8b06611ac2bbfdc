//! A deterministic run is the same each time: every byte the guest prints, its kernel's time
//! stamps included, and every byte it leaves on its disk.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use anyhow::ensure;
use guest_work::{DISK_BYTES, END};
use guests::{Init, initrd, kernel};
use vm_tests::{text, trine};

/// Reports after which the guest ends.
const REPORTS: u32 = 10;

/// What a run of the busy guest leaves: its output and its disk.
fn run(cpus: u32) -> anyhow::Result<(String, Vec<u8>)> {
    let kernel = kernel("cloud")?;
    let initrd = initrd(&kernel, &["virtio_pci", "virtio_blk"], Init::Work)?;
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk");
    File::create(&disk)?.set_len(DISK_BYTES)?;
    #[rustfmt::skip]
    let arguments = [
        "run", "--deterministic", "--cpus", &cpus.to_string(), "--memory", "256M",
        "--kernel", text(&kernel.image), "--initrd", text(&initrd), "--disk", text(&disk),
        "--cmdline", &format!("console=ttyS0 panic=-1 WORK_REPORTS={REPORTS}"),
    ];
    let mut command = Command::new(trine()?);
    let output = command.args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.code() == Some(0), "{}\n{printed}", output.status);
    Ok((printed, fs::read(&disk)?))
}

fn is_the_same_twice(cpus: u32) -> anyhow::Result<()> {
    let (one, two) = (run(cpus)?, run(cpus)?);
    ensure!(one.0.contains(END), "{}", one.0);
    let differs = one.0.lines().zip(two.0.lines()).find(|(one, two)| one != two);
    ensure!(differs.is_none(), "{differs:#?}");
    ensure!(one.0.len() == two.0.len(), "one has printed more than the other");
    ensure!(one.1 == two.1, "the disks differ");
    ensure!(one.1.iter().any(|byte| *byte != 0), "nothing was written");
    Ok(())
}

#[test]
fn a_run_on_one_cpu_is_the_same_twice() -> anyhow::Result<()> {
    is_the_same_twice(1)
}

#[test]
fn a_run_on_two_cpus_is_the_same_twice() -> anyhow::Result<()> {
    is_the_same_twice(2)
}
