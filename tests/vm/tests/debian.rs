//! A Debian as people run it: a whole disk from packages, booted by firmware from power-on, configured
//! by cloud-init, reached by ssh through a port of the host.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use guests::{Debian, IMAGE, debian, free_port, host, network};
use vm_tests::{Guest, text, trine};

/// Of one test, the image not counted.
const LIMIT: Duration = Duration::from_secs(900);
const AGAIN: Duration = Duration::from_secs(1);

const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";

/// Runs a command in the guest as soon as it can be reached.
fn in_guest(debian: &Debian, port: u16, words: &str) -> anyhow::Result<String> {
    let begin = Instant::now();
    loop {
        let mut ssh = debian.ssh(port);
        match host::output(ssh.args(["-o", "ConnectTimeout=20", words])) {
            Ok(said) => return Ok(said.trim().to_owned()),
            Err(error) if begin.elapsed() > LIMIT => return Err(error),
            Err(_) => sleep(AGAIN),
        }
    }
}

/// From power-on to login, a reboot by itself, and the end by `trine` with these words. `uefi` is
/// what the guest sees of it.
fn life(firmware: &str, uefi: &str, end: &[&str]) -> anyhow::Result<()> {
    let debian = debian(&trine()?)?;
    let (port, folder) = (free_port()?, tempfile::tempdir()?);
    let control = folder.path().join("control");
    let mut program = Command::new(trine()?);
    program.env("TRINE_HOME", &debian.home);
    let mut arguments = vec!["--engine", "full", "--cpus", "2", "--memory", "1G"];
    let (seed, network) = (debian.seed(), network(port));
    arguments.extend(["--firmware", firmware, "--image", IMAGE, "--agent"]);
    arguments.extend(["--cloud-init", &seed, "--net", &network, "--control", text(&control)]);
    let mut guest = Guest::start_by(program, &arguments, LIMIT)?;
    guest.expect("debian login:")?;
    let seen = in_guest(
        &debian,
        port,
        &format!(
            "hostname; ip -4 -o addr show scope global; cloud-init status --wait | tail -n 1; \
             [ -d /sys/firmware/efi ] && echo UEFI || echo BIOS; {BOOT_ID}"
        ),
    )?;
    let lines: Vec<&str> = seen.lines().collect();
    let [name, address, status, started_by, first] = lines[..] else { bail!("{seen}") };
    assert_eq!((name, status, started_by), ("debian", "status: done", uefi));
    assert!(address.contains("10.0.2.15/24"), "{address}");

    in_guest(&debian, port, "sudo systemctl reboot; true")?;
    guest.expect("debian login:")?;
    assert_ne!(in_guest(&debian, port, BOOT_ID)?, first);
    host::output(Command::new(trine()?).args(end).arg("--control").arg(&control))?;
    let code = guest.wait()?.code().context("killed")?;
    assert_eq!(code, 0, "{}", guest.tail());
    Ok(())
}

#[test]
fn it_boots_by_bios_reboots_and_is_ended_by_its_button_on_full() -> anyhow::Result<()> {
    life("bios", "BIOS", &["power-button"])
}

#[test]
fn it_boots_by_uefi_reboots_and_is_ended_by_its_agent_on_full() -> anyhow::Result<()> {
    life("uefi", "UEFI", &["shutdown", "--timeout", "200"])
}
