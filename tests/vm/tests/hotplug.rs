//! What comes to Debian's kernel and goes from it while it runs: a disk, a network card, CPUs, memory.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::ensure;
use guests::{Init, UP};
use vm_tests::{Guest, text, trine};

const LIMIT: Duration = Duration::from_secs(400);
const MIB: u64 = 1 << 20;
/// What udhcpc calls with a lease.
const LEASE: &str = r#"printf '#!/bin/sh\n[ "$1" = bound ] || exit 0\nip addr add $ip/$mask dev eth0\nip route add default via $router\n' > /tmp/lease; chmod +x /tmp/lease"#;

struct Vm {
    guest: Guest,
    folder: tempfile::TempDir,
}

impl Vm {
    fn start(engine: &str, flavour: &str) -> anyhow::Result<Self> {
        let kernel = guests::kernel(flavour)?;
        let modules = ["virtio_pci", "virtio_blk", "virtio_net"];
        let initrd = guests::initrd(&kernel, &modules, Init::Shell)?;
        let folder = tempfile::tempdir()?;
        let control = folder.path().join("control");
        let arguments = [
            "--engine",
            engine,
            "--cpus",
            "1,max=3",
            "--memory",
            "256M,max=512M",
            "--kernel",
            text(&kernel.image),
            "--initrd",
            text(&initrd),
            "--cmdline",
            "console=ttyS0 quiet panic=-1",
            "--control",
            text(&control),
        ];
        let mut guest = Guest::start(&arguments, LIMIT)?;
        guest.line_with(UP)?;
        guest.expect("guest# ")?;
        guest.type_in("stty -echo\n")?;
        Ok(Self { guest, folder })
    }

    /// What a command of `trine` says and how it ends.
    fn trine(&self, command: &[&str]) -> anyhow::Result<Output> {
        let mut trine = Command::new(trine()?);
        let control = self.folder.path().join("control");
        Ok(trine.env("TRINE_CONTROL", control).current_dir(&self.folder).args(command).output()?)
    }

    /// What it prints, when it succeeds.
    fn ask(&self, command: &[&str]) -> anyhow::Result<String> {
        let output = self.trine(command)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command:?}: {said}\n{}", self.guest.tail());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Why it fails.
    fn refused(&self, command: &[&str]) -> anyhow::Result<String> {
        let output = self.trine(command)?;
        ensure!(!output.status.success(), "{command:?} succeeds");
        Ok(String::from_utf8(output.stderr)?)
    }

    /// Runs commands in the guest until they have said `told`.
    fn run(&mut self, commands: &str, told: &str) -> anyhow::Result<()> {
        self.guest.type_in(&format!("{commands}\n"))?;
        self.guest.line_with(told).map(drop)
    }
}

fn comes_and_goes(engine: &str, other: &str, flavour: &str) -> anyhow::Result<()> {
    let mut vm = Vm::start(engine, flavour)?;
    for name in ["a.img", "b.img"] {
        File::create(vm.folder.path().join(name))?.set_len(64 * MIB)?;
    }

    // A disk, by a name from here.
    assert_eq!(vm.ask(&["disk", "add", "a.img"])?, "disk0\n");
    assert!(vm.refused(&["disk", "add", "a.img"])?.contains("in use"));
    assert!(vm.refused(&["disk", "add", "b.img,bus=nvme"])?.contains("virtio"));
    let copy = "until [ -b /dev/vda ]; do sleep 0.1; done; \
                dd if=/dev/urandom of=/tmp/x bs=64k count=32 2>/dev/null; \
                dd if=/tmp/x of=/dev/vda bs=64k oflag=direct conv=fsync 2>/dev/null; \
                dd if=/dev/vda bs=64k count=32 iflag=direct 2>/dev/null | cmp - /tmp/x && \
                echo DISK-$((6*7))";
    vm.run(copy, "DISK-42")?;

    // It grows.
    assert!(vm.refused(&["disk", "resize", "disk0", "1M"])?.contains("only grow"));
    vm.ask(&["disk", "resize", "disk0", "96M"])?;
    let larger = "until [ $(cat /sys/block/vda/size) = 196608 ]; do sleep 0.1; done; \
                  dd if=/tmp/x of=/dev/vda bs=1M seek=90 count=2 oflag=direct conv=fsync \
                  2>/dev/null && echo LARGER-$((6*7))";
    vm.run(larger, "LARGER-42")?;

    // A network card.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    assert!(vm.refused(&["net", "add", "user,model=e1000"])?.contains("virtio"));
    assert_eq!(vm.ask(&["net", "add", "user"])?, "net0\n");
    vm.guest.type_in(&format!("{LEASE}\n"))?;
    let talk = format!(
        "until ip link set eth0 up 2>/dev/null; do sleep 0.1; done; \
         until udhcpc -i eth0 -s /tmp/lease -q -n >/dev/null 2>&1; do sleep 0.1; done; \
         until echo from the guest | nc -w 30 10.0.2.2 {port}; do sleep 0.1; done; \
         echo NET-$((6*7))"
    );
    vm.guest.type_in(&format!("{talk}\n"))?;
    let mut said = String::new();
    BufReader::new(listener.accept()?.0).read_line(&mut said)?;
    assert_eq!(said, "from the guest\n");
    vm.guest.line_with("NET-42")?;

    // CPUs and memory.
    assert!(vm.refused(&["set", "--cpus", "4"])?.contains("can have 3"));
    vm.ask(&["set", "--cpus", "3"])?;
    vm.ask(&["set", "--memory", "512M"])?;
    let cpus = "for n in 1 2; do c=/sys/devices/system/cpu/cpu$n/online; \
                until [ -e $c ]; do sleep 0.1; done; echo 1 > $c; done; echo CPUS-$(nproc)";
    vm.run(cpus, "CPUS-3")?;
    let memory = "for m in /sys/devices/system/memory/memory32 /sys/devices/system/memory/memory33; do \
                  until [ -e $m/state ]; do sleep 0.1; done; echo online > $m/state; done; \
                  mkdir -p /big; mount -t tmpfs -o size=400m none /big; \
                  dd if=/dev/zero of=/big/x bs=1M count=300 2>/dev/null && \
                  echo MEMORY-$(($(grep MemTotal /proc/meminfo | tr -dc 0-9) / 1024 > 420))";
    vm.run(memory, "MEMORY-1")?;
    let status = vm.ask(&["status"])?;
    assert!(status.contains("512 MiB") && status.lines().any(|line| line == "vCPUs        3"));

    // All of it goes along to another engine.
    vm.ask(&["move", "--engine", other])?;
    vm.run(copy, "DISK-42")?;
    vm.run("for n in 0 1 2; do taskset -c $n sha256sum /tmp/x; done | sort -u | wc -l", "1")?;

    // And goes, and another comes.
    assert!(vm.ask(&["disk", "ls"])?.starts_with("disk0"));
    vm.ask(&["disk", "rm", "disk0"])?;
    vm.ask(&["net", "rm", "net0"])?;
    vm.run("[ -e /dev/vda ] || [ -e /sys/class/net/eth0 ] || echo GONE-$((6*7))", "GONE-42")?;
    assert_eq!((vm.ask(&["disk", "ls"])?, vm.ask(&["net", "ls"])?), Default::default());
    assert_eq!(vm.ask(&["disk", "add", "a.img"])?, "disk1\n");
    vm.run(copy, "DISK-42")?;
    vm.guest.type_in("poweroff -f\n")?;
    assert_eq!(vm.guest.wait()?.code(), Some(0));
    let written = fs::read(vm.folder.path().join("a.img"))?;
    ensure!(written[..2 << 20].iter().any(|byte| *byte != 0));
    Ok(())
}

#[test]
fn disk_card_cpus_and_memory_come_and_go_on_full() -> anyhow::Result<()> {
    comes_and_goes("full", "emu", "")
}

#[test]
fn disk_card_cpus_and_memory_come_and_go_on_emu() -> anyhow::Result<()> {
    comes_and_goes("emu", "full", "cloud")
}
