//! Boot media, boot loaders and firmware that know nothing of us, from Debian's packages, on `full`.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use guests::{UP, host};
use vm_tests::{Guest, text, trine};

const LIMIT: Duration = Duration::from_secs(300);
const STATUS_RESET: i32 = 8;
const STATUS_TRIPLE_FAULT: i32 = 10;

fn start(arguments: &[&str]) -> anyhow::Result<Guest> {
    Guest::start(&[&["--engine", "full"], arguments].concat(), LIMIT)
}

#[test]
fn u_boot_instead_of_a_bios_gets_to_its_prompt_with_and_without_a_screen() -> anyhow::Result<()> {
    host::need_packages(&["u-boot-qemu"])?;
    for display in ["none", "vga"] {
        let rom = "/usr/lib/u-boot/qemu-x86/u-boot.rom";
        let mut guest = start(&["--firmware", rom, "--display", display])?;
        guest.expect("Hit any key to stop autoboot")?;
        guest.type_in("\n")?;
        guest.expect("=> ")?;
        guest.type_in("reset\n")?;
        guest.expect("Hit any key to stop autoboot")?;
    }
    Ok(())
}

/// It has no serial port: its menu is on the screen, and its last entry resets the machine.
#[test]
fn grub_instead_of_a_bios_has_a_menu_that_is_seen_and_used() -> anyhow::Result<()> {
    let image = guests::packaged("grub-firmware-qemu", "usr/share/qemu/grub.bin")?;
    let folder = tempfile::tempdir()?;
    let (control, shot) = (folder.path().join("control"), folder.path().join("screen.png"));
    let mut guest = start(&[
        "--firmware",
        text(&image),
        "--display",
        "vga",
        "--on-reset",
        "end",
        "--control",
        text(&control),
    ])?;
    let ask = |words: &[&str]| {
        host::output(Command::new(trine()?).args(words).arg("--control").arg(&control))
    };
    // A black screen packs into less than two thousand bytes.
    let begin = Instant::now();
    while ask(&["screenshot", text(&shot)]).is_err() || std::fs::metadata(&shot)?.len() < 3000 {
        ensure!(begin.elapsed() < LIMIT, "nothing is on the screen");
        sleep(Duration::from_millis(200));
    }
    // Later it is at another menu, or at the end of one. Its way to reset is a triple fault.
    while ask(&["key", "end", "enter"]).is_ok() {
        ensure!(begin.elapsed() < LIMIT, "the menu does not take keys");
        sleep(Duration::from_millis(500));
    }
    assert_eq!(guest.wait()?.code().context("killed")?, STATUS_TRIPLE_FAULT);
    Ok(())
}

#[test]
fn uefi_without_a_disk_gets_to_its_shell_which_resets_the_machine() -> anyhow::Result<()> {
    let mut guest = start(&["--firmware", "uefi", "--on-reset", "end"])?;
    guest.expect("UEFI Interactive Shell")?;
    guest.expect("Shell> ")?;
    guest.type_in("reset\r")?;
    assert_eq!(guest.wait()?.code().context("killed")?, STATUS_RESET);
    Ok(())
}

#[test]
fn a_32_bit_kernel_runs_on_a_cpu_without_pae_and_nx() -> anyhow::Result<()> {
    let (kernel, initrd) = guests::i386()?;
    let mut guest = start(&[
        "--cpu",
        "portable,-pae",
        "--kernel",
        text(&kernel),
        "--initrd",
        text(&initrd),
        "--cmdline",
        "console=ttyS0 quiet panic=-1",
    ])?;
    let flags = guest.line_with("flags")?;
    for absent in ["pae", "nx", "lm"] {
        assert!(!flags.split_whitespace().any(|flag| flag == absent), "{flags}");
    }
    assert_eq!(guest.line_with(UP)?, format!("{UP} i686"));
    assert!(guest.wait()?.success(), "{}", guest.tail());
    Ok(())
}
