//! Debian's kernel with disks of every controller and format, and a CD-ROM.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use guests::{Init, UP};
use vm_tests::{Guest, text};

const MODULES: [&str; 8] =
    ["virtio_pci", "virtio_blk", "ahci", "sd_mod", "sr_mod", "isofs", "nvme", "ext4"];
const DISK_BYTES: u64 = 64 << 20;
/// What is on the disc; its file is no multiple of a block's size without the rest.
const DISC: &[u8] = b"TRINE-DISC\n";

/// In the guest: the same random bytes to each disk, past the page cache, and back.
fn script(disks: &[&str]) -> String {
    let each = disks.join(" ");
    format!(
        "dd if=/dev/urandom of=/tmp/x bs=64k count=64 2>/dev/null\n\
         for d in {each}; do\n\
         while ! [ -b /dev/$d ]; do sleep 0.1; done\n\
         dd if=/tmp/x of=/dev/$d bs=64k seek=8 oflag=direct conv=fsync 2>/dev/null && \
         dd if=/dev/$d bs=64k skip=8 count=64 iflag=direct 2>/dev/null | cmp - /tmp/x && \
         echo SAME-$d\n\
         done\n\
         while ! [ -b /dev/sr0 ]; do sleep 0.1; done\n\
         head -c 11 /dev/sr0\n\
         dd if=/tmp/x of=/dev/sda bs=64k seek=8 conv=fsync 2>/dev/null\n\
         md5sum < /tmp/x\n\
         poweroff -f\n"
    )
}

fn disks_of_every_kind(engine: &str) -> anyhow::Result<()> {
    let kernel = guests::kernel("")?;
    let initrd = guests::initrd(&kernel, &MODULES, Init::Shell)?;
    let dir = tempfile::tempdir()?;
    let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    for name in ["sata.img", "nvme.img"] {
        fs::File::create(at(name))?.set_len(DISK_BYTES)?;
    }
    let mut disc = DISC.to_vec();
    disc.resize(64 << 10, 0);
    fs::write(at("disc.iso"), disc)?;
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", &at("virtio.qcow2"), &DISK_BYTES.to_string()])
        .status()
        .context("no qemu-img: apt-get install qemu-utils")?;
    ensure!(made.success(), "qemu-img fails");
    let mut guest = Guest::start(
        &[
            "--engine",
            engine,
            "--cpus",
            "2",
            "--memory",
            "512M",
            "--kernel",
            text(&kernel.image),
            "--initrd",
            text(&initrd),
            "--cmdline",
            "console=ttyS0 quiet panic=-1",
            "--disk",
            &at("virtio.qcow2"),
            "--disk",
            &format!("{},bus=sata", at("sata.img")),
            "--disk",
            &format!("{},bus=nvme", at("nvme.img")),
            "--cdrom",
            &at("disc.iso"),
        ],
        Duration::from_secs(400),
    )?;
    guest.line_with(UP)?;
    guest.expect("guest# ")?;
    guest.type_in("stty -echo\n")?;
    guest.type_in(&script(&["vda", "sda", "nvme0n1"]))?;
    for told in ["SAME-vda", "SAME-sda", "SAME-nvme0n1", "TRINE-DISC"] {
        guest.line_with(told)?;
    }
    let sum = guest.line_with("  -")?;
    ensure!(guest.wait()?.success(), "{}", guest.tail());
    // The host's files have what the guest wrote.
    let copied = Command::new("qemu-img")
        .args(["convert", "-f", "qcow2", "-O", "raw", &at("virtio.qcow2"), &at("virtio.img")])
        .status()?;
    ensure!(copied.success(), "qemu-img fails");
    let written = |name: &str| anyhow::Ok(fs::read(at(name))?[512 << 10..][..4 << 20].to_vec());
    let data = written("sata.img")?;
    ensure!(data.iter().any(|byte| *byte != 0) && sum.len() > 30);
    ensure!(written("nvme.img")? == data && written("virtio.img")? == data, "the disks differ");
    Ok(())
}

#[test]
fn a_stock_kernel_uses_every_kind_of_disk_on_full() -> anyhow::Result<()> {
    disks_of_every_kind("full")
}

#[test]
fn a_stock_kernel_uses_every_kind_of_disk_on_emu() -> anyhow::Result<()> {
    disks_of_every_kind("emu")
}
