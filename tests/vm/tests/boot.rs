//! Debian's own kernels and file system on `emu` and `full`.

use std::time::Duration;

use guests::{Init, UP};
use vm_tests::{Guest, text};

const CMDLINE: &str = "console=ttyS0 quiet panic=-1";
/// Exit status of a run that ended because the guest reset itself.
const STATUS_RESET: i32 = 8;

fn boots_and_ends(
    engine: &str,
    flavour: &str,
    cpus: u32,
    init: Init,
) -> anyhow::Result<Option<i32>> {
    let kernel = guests::kernel(flavour)?;
    let initrd = guests::initrd(&kernel, &[], init)?;
    let mut guest = Guest::start(
        &[
            "--engine",
            engine,
            "--cpus",
            &cpus.to_string(),
            "--memory",
            "512M",
            "--kernel",
            text(&kernel.image),
            "--initrd",
            text(&initrd),
            "--cmdline",
            CMDLINE,
        ],
        Duration::from_secs(240),
    )?;
    let up = guest.line_with(UP)?;
    assert_eq!(up.split_whitespace().nth(2), Some(cpus.to_string().as_str()), "{up}");
    Ok(guest.wait()?.code())
}

#[test]
fn the_cloud_kernel_powers_off_on_one_cpu() -> anyhow::Result<()> {
    assert_eq!(boots_and_ends("emu", "cloud", 1, Init::PowerOff)?, Some(0));
    Ok(())
}

#[test]
fn the_cloud_kernel_reboots_on_four_cpus() -> anyhow::Result<()> {
    assert_eq!(boots_and_ends("emu", "cloud", 4, Init::Reboot)?, Some(STATUS_RESET));
    Ok(())
}

#[test]
fn the_general_kernel_powers_off_on_four_cpus() -> anyhow::Result<()> {
    assert_eq!(boots_and_ends("emu", "", 4, Init::PowerOff)?, Some(0));
    Ok(())
}

#[test]
fn the_cloud_kernel_powers_off_on_one_cpu_of_full() -> anyhow::Result<()> {
    assert_eq!(boots_and_ends("full", "cloud", 1, Init::PowerOff)?, Some(0));
    Ok(())
}

#[test]
fn the_cloud_kernel_reboots_on_four_cpus_of_full() -> anyhow::Result<()> {
    assert_eq!(boots_and_ends("full", "cloud", 4, Init::Reboot)?, Some(STATUS_RESET));
    Ok(())
}

#[test]
fn the_general_kernel_powers_off_on_four_cpus_of_full() -> anyhow::Result<()> {
    assert_eq!(boots_and_ends("full", "", 4, Init::PowerOff)?, Some(0));
    Ok(())
}

fn systemd_reaches_its_login_prompt(engine: &str, cpus: u32) -> anyhow::Result<()> {
    let kernel = guests::kernel("cloud")?;
    let modules = ["virtio_pci", "virtio_blk", "ext4"];
    let initrd = guests::initrd(&kernel, &modules, Init::SwitchRoot)?;
    let disk = guests::scratch_copy(&guests::rootfs()?, &format!("systemd_login_{engine}_{cpus}"))?;
    let mut guest = Guest::start(
        &[
            "--engine",
            engine,
            "--cpus",
            &cpus.to_string(),
            "--memory",
            "512M",
            "--kernel",
            text(&kernel.image),
            "--initrd",
            text(&initrd),
            "--cmdline",
            "console=ttyS0 panic=-1",
            "--disk",
            text(&disk),
        ],
        Duration::from_secs(400),
    )?;
    guest.expect("login:")?;
    guest.type_in("root\n")?;
    guest.expect("root@debian")?;
    guest.type_in("poweroff\n")?;
    assert_eq!(guest.wait()?.code(), Some(0));
    std::fs::remove_file(disk)?;
    Ok(())
}

#[test]
fn systemd_reaches_its_login_prompt_from_a_virtio_disk() -> anyhow::Result<()> {
    systemd_reaches_its_login_prompt("emu", 2)
}

#[test]
fn systemd_reaches_its_login_prompt_on_one_cpu_of_full() -> anyhow::Result<()> {
    systemd_reaches_its_login_prompt("full", 1)
}

#[test]
fn systemd_reaches_its_login_prompt_on_four_cpus_of_full() -> anyhow::Result<()> {
    systemd_reaches_its_login_prompt("full", 4)
}
