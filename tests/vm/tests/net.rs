//! Debian's cloud kernel on networks: in this process, and by a tap in a namespace of its own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use guests::{Init, UP};
use vm_tests::{Guest, text, trine};

const LIMIT: Duration = Duration::from_secs(240);
const PROMPT: &str = "guest# ";
/// What udhcpc calls with a lease.
const LEASE: &str = r#"printf '#!/bin/sh\n[ "$1" = bound ] || exit 0\nip addr add $ip/$mask dev eth0\nip route add default via $router\necho BOUND $ip $router $dns\n' > /tmp/lease; chmod +x /tmp/lease"#;

/// A guest with this network, at its prompt.
fn guest(command: Command, net: &str, more: &[&str]) -> anyhow::Result<Guest> {
    guest_with(command, ("cloud", &["virtio_pci", "virtio_net"]), ("emu", net), more)
}

/// The same with this kernel and its drivers, on this engine.
fn guest_with(
    command: Command,
    (kernel, drivers): (&str, &[&str]),
    (engine, net): (&str, &str),
    more: &[&str],
) -> anyhow::Result<Guest> {
    let kernel = guests::kernel(kernel)?;
    let initrd = guests::initrd(&kernel, drivers, Init::Shell)?;
    let mut arguments = vec![
        "--engine",
        engine,
        "--memory",
        "256M",
        "--kernel",
        text(&kernel.image),
        "--initrd",
        text(&initrd),
        "--cmdline",
        "console=ttyS0 quiet panic=-1",
        "--net",
        net,
    ];
    arguments.extend(more);
    let mut guest = Guest::start_by(command, &arguments, LIMIT)?;
    guest.line_with(UP)?;
    guest.expect(PROMPT)?;
    run(&mut guest, "ip link set eth0 up")?;
    Ok(guest)
}

/// Runs a command to its end.
fn run(guest: &mut Guest, command: &str) -> anyhow::Result<()> {
    // Commands come back as they are typed: only what the shell makes of it says that it ran.
    guest.type_in(&format!("{command}; echo RAN-$((6*7))\n"))?;
    guest.line_with("RAN-42").map(drop)
}

fn power_off(mut guest: Guest) -> anyhow::Result<()> {
    guest.type_in("poweroff -f\n")?;
    assert_eq!(guest.wait()?.code(), Some(0));
    Ok(())
}

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i * 7 + i / 251) as u8).collect()
}

fn sha256(data: &[u8]) -> anyhow::Result<String> {
    let mut child =
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().context("no input")?.write_all(data)?;
    let output = String::from_utf8(child.wait_with_output()?.stdout)?;
    Ok(output.split_whitespace().next().unwrap_or_default().to_owned())
}

/// Answers HTTP requests with `data`.
fn serve(listener: TcpListener, data: Vec<u8>) {
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.read(&mut [0; 4096]);
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", data.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&data));
        }
    });
}

/// The guest's one port is asked from the host until the guest listens on it.
fn fetch(port: u16) -> String {
    for _ in 0..600 {
        let mut got = String::new();
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port))
            && stream.read_to_string(&mut got).is_ok()
            && !got.is_empty()
        {
            return got;
        }
        thread::sleep(Duration::from_millis(100));
    }
    String::new()
}

#[test]
fn the_user_network_leads_out_of_the_guest_and_into_it() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let data = pattern(3 << 20);
    let sum = sha256(&data)?;
    serve(listener, data);
    let forwarded = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let net = format!("user,hostfwd=tcp:127.0.0.1:{forwarded}-:22");
    let mut guest = guest(Command::new(trine()?), &net, &[])?;

    run(&mut guest, LEASE)?;
    guest.type_in("udhcpc -i eth0 -s /tmp/lease -q -n\n")?;
    let bound = guest.line_with("BOUND")?;
    assert!(bound.ends_with("BOUND 10.0.2.15 10.0.2.2 10.0.2.3"), "{bound}");
    guest.type_in("ping -c 2 10.0.2.2\n")?;
    guest.line_with("2 packets received")?;
    guest.type_in(&format!("wget -q -O - http://10.0.2.2:{port}/ | sha256sum\n"))?;
    guest.line_with(&sum)?;

    guest.type_in("echo served by the guest | nc -l -p 22\n")?;
    assert_eq!(fetch(forwarded), "served by the guest\n");

    let addressed =
        "until ip -6 addr show eth0 | grep -v tentative | grep -q fec0; do sleep 0.2; done";
    guest.type_in(&format!("{addressed}; ping -c 2 fec0::2\n"))?;
    guest.line_with("2 packets received")?;
    // A name nobody has is answered at once, by the host's server or for want of one.
    guest.type_in("nslookup nobody.invalid 10.0.2.3; echo ANSWERED-$((40+2))\n")?;
    guest.line_with("ANSWERED-42")?;
    power_off(guest)
}

/// A file of the guest's goes to the host, and another comes.
fn exchanges(guest: &mut Guest, served: u16, sum: &str) -> anyhow::Result<()> {
    guest.type_in(&format!("wget -q -O - http://10.0.2.2:{served}/ | sha256sum\n"))?;
    guest.line_with(sum)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let reader = thread::spawn(move || -> anyhow::Result<Vec<u8>> {
        let (mut stream, mut got) = (listener.accept()?.0, Vec::new());
        stream.read_to_end(&mut got)?;
        Ok(got)
    });
    run(guest, "head -c 3000000 /dev/urandom > /tmp/file")?;
    run(guest, &format!("nc 10.0.2.2 {port} < /tmp/file"))?;
    let got = reader.join().map_err(|_| anyhow::anyhow!("the reader has failed"))??;
    guest.type_in("sha256sum < /tmp/file\n")?;
    guest.line_with(&sha256(&got)?)?;
    assert_eq!(got.len(), 3_000_000);
    Ok(())
}

#[test]
fn intels_card_works_with_linuxs_driver_and_moves_between_engines() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let data = pattern(3 << 20);
    let sum = sha256(&data)?;
    serve(listener, data);
    let folder = tempfile::tempdir()?;
    let control = folder.path().join("control");
    let drivers = ("", &["e1000"][..]);
    let more = ["--control", text(&control)];
    let program = Command::new(trine()?);
    let mut guest = guest_with(program, drivers, ("full", "user,model=e1000"), &more)?;
    run(&mut guest, LEASE)?;
    guest.type_in("udhcpc -i eth0 -s /tmp/lease -q -n\n")?;
    guest.line_with("BOUND 10.0.2.15 10.0.2.2 10.0.2.3")?;
    exchanges(&mut guest, port, &sum)?;
    let moved = Command::new(trine()?)
        .args(["move", "--control", text(&control), "--engine", "emu"])
        .status()?;
    assert!(moved.success());
    exchanges(&mut guest, port, &sum)?;
    power_off(guest)
}

/// A network namespace that goes with the test.
struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

impl Namespace {
    /// One with these set-up commands done, or why not.
    fn new(name: &str, commands: &[&str]) -> Result<Self, String> {
        let ip = |words: &[&str]| {
            let output = Command::new("ip").args(words).output().map_err(|e| e.to_string())?;
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if output.status.success() { Ok(()) } else { Err(format!("ip {words:?}: {said}")) }
        };
        let name = format!("trine-{name}-{}", std::process::id());
        ip(&["netns", "add", &name])?;
        let namespace = Self(name);
        for command in commands {
            let words: Vec<_> =
                ["-n", &namespace.0].into_iter().chain(command.split(' ')).collect();
            ip(&words)?;
        }
        Ok(namespace)
    }

    /// A command in it.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }
}

/// A guest at the other end of `net` in the namespace sends a file to a program there.
fn sends_through(namespace: &Namespace, net: &str) -> anyhow::Result<()> {
    // While its own input is open, it takes what comes to the end.
    let receiver = namespace
        .command("busybox")
        .args(["nc", "-l", "-p", "9000"])
        .stdout(Stdio::piped())
        .stdin(Stdio::piped())
        .spawn()?;
    let mut guest = guest(namespace.command(text(&trine()?)), net, &["--cpus", "2"])?;
    run(&mut guest, "ip addr add 192.168.77.2/24 dev eth0")?;
    guest.type_in("ping -c 2 192.168.77.1\n")?;
    guest.line_with("2 packets received")?;
    run(&mut guest, "head -c 2000000 /dev/urandom > /tmp/file")?;
    // More than a pipe holds: it is read while the guest sends.
    let reader = thread::spawn(move || receive_all(receiver));
    run(&mut guest, "nc 192.168.77.1 9000 < /tmp/file")?;
    let got = reader.join().map_err(|_| anyhow::anyhow!("the reader has failed"))??;
    guest.type_in("sha256sum < /tmp/file\n")?;
    guest.line_with(&sha256(&got)?)?;
    assert_eq!(got.len(), 2_000_000);
    power_off(guest)
}

/// All that a program prints, with its input left open.
fn receive_all(mut program: Child) -> anyhow::Result<Vec<u8>> {
    let mut got = Vec::new();
    program.stdout.take().context("no output")?.read_to_end(&mut got)?;
    program.wait()?;
    Ok(got)
}

#[test]
fn a_tap_leads_to_the_hosts_kernel() -> anyhow::Result<()> {
    let commands = [
        "tuntap add dev tap0 mode tap multi_queue",
        "addr add 192.168.77.1/24 dev tap0",
        "link set tap0 up",
    ];
    match Namespace::new("tap", &commands) {
        Ok(namespace) => sends_through(&namespace, "tap=tap0"),
        Err(reason) => {
            println!("NOT RUN: a tap in a network namespace: {reason}");
            Ok(())
        }
    }
}

#[test]
fn a_bridge_gets_a_tap_of_its_own() -> anyhow::Result<()> {
    let commands =
        ["link add br0 type bridge", "addr add 192.168.77.1/24 dev br0", "link set br0 up"];
    match Namespace::new("bridge", &commands) {
        Ok(namespace) => sends_through(&namespace, "bridge=br0"),
        Err(reason) => {
            println!("NOT RUN: a bridge in a network namespace: {reason}");
            Ok(())
        }
    }
}
