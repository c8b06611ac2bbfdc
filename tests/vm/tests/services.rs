//! Debian's own programs at the guest's end of what a VM offers them: the QEMU guest agent, socat.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use guests::Init;
use vm_tests::{Guest, text, trine};

const LIMIT: Duration = Duration::from_secs(300);
const PROMPT: &str = "guest# ";
/// Without udev, the port has no name.
const START_AGENT: &str = "qemu-ga -d -p $(echo /dev/vport*p1); echo AGENT-$((6*7))\n";

/// A VM with Debian's programs, and its control socket.
struct Vm {
    guest: Guest,
    disk: std::path::PathBuf,
    folder: tempfile::TempDir,
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.disk);
    }
}

impl Vm {
    fn start(engine: &str, name: &str, init: Init, more: &[&str]) -> anyhow::Result<Self> {
        let kernel = guests::kernel("cloud")?;
        let modules = [
            "virtio_pci",
            "virtio_blk",
            "ext4",
            "virtio_console",
            "virtio_balloon",
            "vmw_vsock_virtio_transport",
            "button",
            "evdev",
        ];
        let initrd = guests::initrd(&kernel, &modules, init)?;
        let disk = guests::scratch_copy(&guests::services_rootfs()?, &format!("{name}_{engine}"))?;
        let folder = tempfile::tempdir()?;
        let control = folder.path().join("control");
        let mut arguments = vec![
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
            text(&disk),
            "--control",
            text(&control),
        ];
        arguments.extend(more);
        let guest = Guest::start(&arguments, LIMIT)?;
        Ok(Self { guest, disk, folder })
    }

    /// What a command of `trine` says and how it ends.
    fn trine(&self, command: &[&str]) -> anyhow::Result<Output> {
        let control = self.folder.path().join("control");
        let mut trine = Command::new(trine()?);
        trine.env("TRINE_CONTROL", control).args(command);
        Ok(trine.output()?)
    }

    /// What it prints, when it succeeds.
    fn ask(&self, command: &[&str]) -> anyhow::Result<String> {
        let output = self.trine(command)?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{command:?}: {said}\n{}", self.guest.tail());
        Ok(String::from_utf8(output.stdout)?)
    }
}

fn the_agent_does_what_it_is_asked(engine: &str, other: &str) -> anyhow::Result<()> {
    let mut vm = Vm::start(engine, "agent", Init::RootShell, &["--agent"])?;
    vm.guest.expect(PROMPT)?;
    let nobody = vm.trine(&["agent", "ping"])?;
    assert!(!nobody.status.success());
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("no guest agent is running"));

    vm.guest.type_in(START_AGENT)?;
    vm.guest.line_with("AGENT-42")?;
    let begin = Instant::now();
    while !vm.trine(&["agent", "ping"])?.status.success() {
        anyhow::ensure!(begin.elapsed() < LIMIT, "no answer\n{}", vm.guest.tail());
        thread::sleep(Duration::from_millis(100));
    }
    let info = vm.ask(&["agent", "info"])?;
    assert!(info.contains("Debian GNU/Linux 12") && info.contains("guest-exec"), "{info}");
    assert!(vm.ask(&["agent", "network"])?.contains("lo"));

    let script = "echo out; echo err >&2; cat; exit 7";
    let ran = vm.trine(&["exec", "--", "/bin/sh", "-c", script])?;
    assert_eq!(
        (ran.status.code(), &ran.stdout[..], &ran.stderr[..]),
        (Some(7), &b"out\n"[..], &b"err\n"[..])
    );
    let killed = vm.trine(&["exec", "--", "/bin/sh", "-c", "kill -9 $$"])?;
    assert_eq!(killed.status.code(), Some(128 + 9));
    let missing = vm.trine(&["exec", "/no/such/program"])?;
    assert_eq!(missing.status.code(), Some(4), "{}", String::from_utf8_lossy(&missing.stderr));
    // More than a message of the control socket, and than the port's buffer.
    let long = vm.ask(&["exec", "seq", "1", "60000"])?;
    assert_eq!((long.lines().count(), long.lines().last()), (60_000, Some("60000")));

    let (here, back) = (vm.folder.path().join("here"), vm.folder.path().join("back"));
    let data: Vec<u8> = (0..300_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
    fs::write(&here, &data)?;
    vm.ask(&["cp", text(&here), "guest:/root/"])?;
    vm.ask(&["move", "--engine", other])?;
    vm.ask(&["cp", "guest:/root/here", text(&back)])?;
    assert_eq!(fs::read(&back)?, data);
    let refused = vm.trine(&["cp", "guest:/no/such/file", text(&back)])?;
    assert!(!refused.status.success());

    assert_eq!(vm.ask(&["agent", "freeze"])?, "1 file systems\n");
    assert_eq!(vm.ask(&["agent", "thaw"])?, "1 file systems\n");
    vm.ask(&["pause"])?;
    assert!(String::from_utf8_lossy(&vm.trine(&["agent", "ping"])?.stderr).contains("paused"));
    vm.ask(&["resume"])?;
    vm.ask(&["agent", "ping"])?;
    vm.ask(&["quit"])?;
    Ok(())
}

#[test]
fn the_agent_does_what_it_is_asked_on_full() -> anyhow::Result<()> {
    the_agent_does_what_it_is_asked("full", "emu")
}

#[test]
fn the_agent_does_what_it_is_asked_on_emu() -> anyhow::Result<()> {
    the_agent_does_what_it_is_asked("emu", "full")
}

/// With systemd, which starts the agent when udev finds its port, and obeys the power button.
fn a_guest_is_shut_down(name: &str, more: &[&str]) -> anyhow::Result<()> {
    let mut vm = Vm::start("full", name, Init::SwitchRoot, more)?;
    vm.guest.expect("login:")?;
    vm.ask(&["shutdown", "--timeout", "200"])?;
    assert_eq!(vm.guest.wait()?.code(), Some(0));
    Ok(())
}

#[test]
fn a_guest_with_an_agent_is_shut_down_by_it() -> anyhow::Result<()> {
    a_guest_is_shut_down("shutdown_agent", &["--agent"])
}

#[test]
fn a_guest_without_an_agent_is_shut_down_by_the_power_button() -> anyhow::Result<()> {
    a_guest_is_shut_down("shutdown_button", &[])
}

/// A megabyte, so that credit runs out many times.
fn pattern() -> Vec<u8> {
    (0..1_000_000u32).map(|i| (i * 7 + i / 251) as u8).collect()
}

fn sockets_lead_into_the_guest_and_out_of_it(engine: &str, other: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("vsock");
    let option = format!("cid=5,socket={}", text(&path));
    let mut vm = Vm::start(engine, "vsock", Init::RootShell, &["--vsock", &option])?;
    vm.guest.expect(PROMPT)?;

    // Into it: an echo, before, across and after a move to another engine.
    vm.guest.type_in("socat VSOCK-LISTEN:1234,fork EXEC:cat & sleep 1; echo LISTENS-$((6*7))\n")?;
    vm.guest.line_with("LISTENS-42")?;
    let mut nobody = BufReader::new(UnixStream::connect(&path)?);
    nobody.get_mut().write_all(b"CONNECT 4321\n")?;
    assert_eq!(nobody.read(&mut [0; 1])?, 0, "nobody listens there");
    let mut stream = BufReader::new(UnixStream::connect(&path)?);
    stream.get_mut().write_all(b"CONNECT 1234\n")?;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    assert!(line.starts_with("OK "), "{line}");
    let data = pattern();
    let (sender, sent) = (stream.get_ref().try_clone()?, data.clone());
    let sending = thread::spawn(move || (&sender).write_all(&sent));
    let mut back = vec![0; data.len()];
    stream.read_exact(&mut back[..500_000])?;
    vm.ask(&["move", "--engine", other])?;
    stream.read_exact(&mut back[500_000..])?;
    sending.join().map_err(|_| anyhow::anyhow!("the sender has failed"))??;
    assert!(back == data);

    // Out of it.
    let listener = UnixListener::bind(folder.path().join("vsock_5000"))?;
    vm.guest.type_in("head -c 1000000 /dev/urandom > /tmp/f; sha256sum < /tmp/f\n")?;
    let sum = vm.guest.line_with("  -")?;
    vm.guest.type_in("socat -u FILE:/tmp/f VSOCK-CONNECT:2:5000\n")?;
    let mut got = fs::File::create(folder.path().join("got"))?;
    std::io::copy(&mut listener.accept()?.0, &mut got)?;
    let ours =
        Command::new("sha256sum").stdin(fs::File::open(folder.path().join("got"))?).output()?;
    assert_eq!(String::from_utf8(ours.stdout)?.trim_end(), sum);
    vm.guest.type_in("socat - VSOCK-CONNECT:2:5001 < /dev/null; echo REFUSED-$?\n")?;
    vm.guest.line_with("REFUSED-1")?;
    vm.ask(&["quit"])?;
    Ok(())
}

#[test]
fn sockets_lead_into_the_guest_and_out_of_it_on_full() -> anyhow::Result<()> {
    sockets_lead_into_the_guest_and_out_of_it("full", "emu")
}

#[test]
fn sockets_lead_into_the_guest_and_out_of_it_on_emu() -> anyhow::Result<()> {
    sockets_lead_into_the_guest_and_out_of_it("emu", "full")
}

/// Bytes of a field of `trine balloon --json`.
fn balloon(vm: &Vm, arguments: &[&str], field: &str) -> anyhow::Result<u64> {
    let said = vm.ask(&[&["balloon", "--json"][..], arguments].concat())?;
    let said: serde_json::Value = serde_json::from_str(&said)?;
    said[field].as_u64().with_context(|| format!("{field} in {said}"))
}

/// Waits until a field is what it should be.
fn balloon_until(vm: &Vm, field: &str, is: impl Fn(u64) -> bool) -> anyhow::Result<u64> {
    let begin = Instant::now();
    loop {
        let value = balloon(vm, &[], field)?;
        if is(value) {
            return Ok(value);
        }
        anyhow::ensure!(begin.elapsed() < LIMIT, "{field} stays {value}");
        thread::sleep(Duration::from_millis(500));
    }
}

fn memory_goes_back_to_the_host(engine: &str, other: &str) -> anyhow::Result<()> {
    const MIB: u64 = 1 << 20;
    let mut vm = Vm::start(engine, "balloon", Init::RootShell, &[])?;
    vm.guest.expect(PROMPT)?;
    let use_memory = "mount -t tmpfs -o size=300M t /mnt; head -c 200000000 /dev/urandom > /mnt/f; \
                      sha256sum < /bin/bash; echo USED-$((6*7))\n";
    vm.guest.type_in(use_memory)?;
    let sum = vm.guest.line_with("  -")?;
    vm.guest.line_with("USED-42")?;
    let used = balloon(&vm, &[], "resident_bytes")?;
    assert!(used > 200 * MIB, "{used}");

    // What is freed is reported.
    vm.guest.type_in("rm /mnt/f; echo FREED-$((6*7))\n")?;
    vm.guest.line_with("FREED-42")?;
    let reported = balloon_until(&vm, "resident_bytes", |bytes| bytes < used - 150 * MIB)?;

    // What is asked for is given, on another engine too, and had back.
    vm.ask(&["move", "--engine", other])?;
    vm.ask(&["balloon", "256M"])?;
    balloon_until(&vm, "actual_bytes", |bytes| bytes == 256 * MIB)?;
    let total = balloon_until(&vm, "available_bytes", |bytes| bytes < 256 * MIB)?;
    vm.ask(&["balloon", "0"])?;
    balloon_until(&vm, "actual_bytes", |bytes| bytes == 0)?;
    vm.ask(&["move", "--engine", engine])?;

    // All that is free now.
    let released = balloon(&vm, &[], "released_bytes")?;
    vm.ask(&["balloon", "--reclaim"])?;
    balloon_until(&vm, "released_bytes", |bytes| bytes > released + 100 * MIB)?;
    vm.guest.type_in("sha256sum < /bin/bash\n")?;
    assert_eq!(vm.guest.line_with("  -")?, sum);
    println!(
        "{engine}: {} MiB on the host, {} MiB after they were freed; {} MiB available inflated",
        used / MIB,
        reported / MIB,
        total / MIB
    );
    vm.ask(&["quit"])?;
    Ok(())
}

#[test]
fn memory_goes_back_to_the_host_on_full() -> anyhow::Result<()> {
    memory_goes_back_to_the_host("full", "emu")
}

#[test]
fn memory_goes_back_to_the_host_on_emu() -> anyhow::Result<()> {
    memory_goes_back_to_the_host("emu", "full")
}
