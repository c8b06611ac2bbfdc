//! Debian's own kernels and file system on `emu`.

use std::time::Duration;

use guests::{Init, UP};
use vm_tests::{Guest, text};

const CMDLINE: &str = "console=ttyS0 quiet panic=-1";
/// Exit status of a run that ended because the guest reset itself.
const STATUS_RESET: i32 = 8;

fn boots_and_ends(flavour: &str, cpus: u32, init: Init) -> anyhow::Result<Option<i32>> {
    let kernel = guests::kernel(flavour)?;
    let initrd = guests::initrd(&kernel, &[], init)?;
    let mut guest = Guest::start(
        &[
            "--engine",
            "emu",
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
    assert_eq!(boots_and_ends("cloud", 1, Init::PowerOff)?, Some(0));
    Ok(())
}

#[test]
fn the_cloud_kernel_reboots_on_four_cpus() -> anyhow::Result<()> {
    assert_eq!(boots_and_ends("cloud", 4, Init::Reboot)?, Some(STATUS_RESET));
    Ok(())
}

#[test]
fn the_general_kernel_powers_off_on_four_cpus() -> anyhow::Result<()> {
    assert_eq!(boots_and_ends("", 4, Init::PowerOff)?, Some(0));
    Ok(())
}

#[test]
fn systemd_reaches_its_login_prompt_from_a_virtio_disk() -> anyhow::Result<()> {
    let kernel = guests::kernel("cloud")?;
    let modules = ["virtio_pci", "virtio_blk", "ext4"];
    let initrd = guests::initrd(&kernel, &modules, Init::SwitchRoot)?;
    let disk = guests::scratch_copy(&guests::rootfs()?, "systemd_login")?;
    let mut guest = Guest::start(
        &[
            "--engine",
            "emu",
            "--cpus",
            "2",
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
