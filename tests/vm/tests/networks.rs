//! Real guests on one network of the daemon's, in a network namespace of the test's own: what they may send each
//! other, what they may not, the way out and the ways in, and that nothing is left.
//!
//! The host is a namespace, the world outside is another one; a wire is between them.

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use guests::Init;
use serde_json::Value;
use vm_tests::{text, trine};

const LIMIT: Duration = Duration::from_secs(300);
/// What udhcpc calls with a lease.
const LEASE: &str = r#"printf '#!/bin/sh\n[ "$1" = bound ] || exit 0\nip addr add $ip/$mask dev eth0\nip route add default via $router\necho search $domain > /etc/resolv.conf\necho nameserver $dns >> /etc/resolv.conf\necho BOUND $ip\n' > /tmp/lease; chmod +x /tmp/lease; mkdir -p /etc"#;

/// A network namespace that goes with the test.
struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

impl Namespace {
    fn new(name: &str) -> Result<Self, String> {
        let name = format!("trine-{name}-{}", std::process::id());
        ip(&["netns", "add", &name])?;
        let namespace = Self(name);
        ip(&["-n", &namespace.0, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// A command in it.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }

    fn says(&self, words: &[&str]) -> anyhow::Result<String> {
        let output = self.command(words[0]).args(&words[1..]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn ip(words: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(words).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("ip {words:?}: {said}")) }
}

/// A host and the world outside, or why they cannot be.
fn host_and_outside() -> Result<(Namespace, Namespace), String> {
    for program in ["nft", "dnsmasq"] {
        if !PathBuf::from("/usr/sbin").join(program).exists() {
            return Err(format!("{program} is missing"));
        }
    }
    let (host, outside) = (Namespace::new("host")?, Namespace::new("outside")?);
    let (h, o) = (host.0.as_str(), outside.0.as_str());
    ip(&["-n", h, "link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns", o])?;
    for (of, address) in [(h, "198.51.100.1/24"), (o, "198.51.100.2/24")] {
        ip(&["-n", of, "addr", "add", address, "dev", "up0"])?;
        ip(&["-n", of, "link", "set", "up0", "up"])?;
    }
    Ok((host, outside))
}

/// A daemon in the host's namespace.
struct Daemon<'a> {
    host: &'a Namespace,
    home: tempfile::TempDir,
    process: Child,
}

impl<'a> Daemon<'a> {
    fn start(host: &'a Namespace) -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        let process = spawn(host, &home)?;
        let daemon = Self { host, home, process };
        until("the daemon", || Ok(daemon.ask(&["ls"]).is_ok()))?;
        Ok(daemon)
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let socket = self.home.path().join("sock");
        Ok(Command::new(trine()?).args(arguments).env("TRINE_SOCKET", socket).output()?)
    }

    fn ask(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.run(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        let log = fs::read_to_string(self.home.path().join("trined.log")).unwrap_or_default();
        ensure!(output.status.success(), "{arguments:?}: {said}\n{log}");
        Ok(String::from_utf8(output.stdout)?)
    }

    fn refused(&self, arguments: &[&str], code: &str) -> anyhow::Result<()> {
        let output = self.run(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && said.contains(code), "{arguments:?}: {said}");
        Ok(())
    }

    fn show(&self, kind: &str, name: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.ask(&[kind, "show", name, "-o", "json"])?)?)
    }

    /// As nothing but SIGKILL can.
    fn kill_and_start(&mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        self.process = spawn(self.host, &self.home)?;
        until("the daemon", || Ok(self.ask(&["ls"]).is_ok()))
    }

    /// What dnsmasq runs for it.
    fn services(&self) -> anyhow::Result<usize> {
        let folder = self.home.path().join("networks");
        let mut count = 0;
        for entry in fs::read_dir("/proc")? {
            let line = fs::read(entry?.path().join("cmdline")).unwrap_or_default();
            count += usize::from(String::from_utf8_lossy(&line).contains(text(&folder)));
        }
        Ok(count)
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        // Of a test that failed: its VMs are nobody's children.
        let _ = self.run(&["rm", "--force", "a"]);
        let _ = self.run(&["rm", "--force", "b"]);
        let _ = self.run(&["network", "rm", "lan"]);
        thread::sleep(Duration::from_millis(500));
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(host: &Namespace, home: &tempfile::TempDir) -> anyhow::Result<Child> {
    let trined = trine()?.with_file_name("trined");
    let log = fs::File::options().create(true).append(true).open(home.path().join("trined.log"))?;
    // `ip netns exec` becomes the program: what is killed is the daemon.
    let child = host
        .command(text(&trined))
        .arg("--home")
        .arg(home.path())
        .arg("--socket")
        .arg(home.path().join("sock"))
        .stderr(log)
        .spawn();
    child.context("cannot start trined: run `cargo build`")
}

fn until(what: &str, is_so: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let begin = Instant::now();
    while !is_so()? {
        ensure!(begin.elapsed() < LIMIT, "{what} did not come");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A guest's shell, over its serial port by the daemon.
struct Shell {
    process: Child,
    typed: ChildStdin,
    printed: Receiver<Vec<u8>>,
    unread: String,
    commands: u32,
}

impl Shell {
    fn of(daemon: &Daemon, vm: &str) -> anyhow::Result<Self> {
        let mut process = Command::new(trine()?)
            .args(["console", vm])
            .env("TRINE_SOCKET", daemon.home.path().join("sock"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let typed = process.stdin.take().context("no input")?;
        let output = process.stdout.take().context("no output")?;
        let printed = reader(output);
        let mut shell = Self { process, typed, printed, unread: String::new(), commands: 0 };
        shell.until("guest# ")?;
        shell.run(LEASE)?;
        Ok(shell)
    }

    fn until(&mut self, text: &str) -> anyhow::Result<String> {
        let begin = Instant::now();
        loop {
            if let Some(at) = self.unread.find(text) {
                return Ok(self.unread.drain(..at + text.len()).collect());
            }
            let left = LIMIT.saturating_sub(begin.elapsed());
            match self.printed.recv_timeout(left) {
                Ok(bytes) => self.unread.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => bail!("no '{text}' in '{}'", self.unread),
            }
        }
    }

    /// What a command prints, and its status as `STATUS-0`.
    fn run(&mut self, command: &str) -> anyhow::Result<String> {
        self.commands += 1;
        let number = self.commands;
        // The number is put together by the shell: the echo of what is typed has it not.
        writeln!(self.typed, "{command}; echo STATUS-$? \"RAN\"-{number}-")?;
        self.typed.flush()?;
        self.until(&format!("RAN-{number}-"))
    }

    fn does(&mut self, command: &str) -> anyhow::Result<bool> {
        Ok(self.run(command)?.contains("STATUS-0 "))
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn reader(mut output: ChildStdout) -> Receiver<Vec<u8>> {
    let (sender, printed) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = output.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    printed
}

fn launch(daemon: &Daemon, vm: &str, more: &[&str]) -> anyhow::Result<Value> {
    let kernel = guests::kernel("cloud")?;
    let initrd = guests::initrd(&kernel, &["virtio_pci", "virtio_net"], Init::Shell)?;
    let mut words = vec!["launch", vm, "--network", "lan", "--memory", "256M"];
    words.extend(["--kernel", text(&kernel.image), "--initrd", text(&initrd)]);
    words.extend(["--cmdline", "console=ttyS0 quiet panic=-1"]);
    words.extend(more);
    daemon.ask(&words)?;
    Ok(daemon.show("vm", vm)?["status"]["networks"][0].clone())
}

fn field<'a>(card: &'a Value, name: &str) -> anyhow::Result<&'a str> {
    card[name].as_str().with_context(|| format!("no {name} in {card}"))
}

/// Both get what the object says, by DHCP, and know each other's names.
fn addresses_and_names(shells: &mut [Shell; 2], cards: &[Value; 2]) -> anyhow::Result<()> {
    for (shell, card) in shells.iter_mut().zip(cards) {
        shell.run("ip link set eth0 up")?;
        let said = shell.run("udhcpc -i eth0 -s /tmp/lease -q -n")?;
        let bound = format!("BOUND {}", field(card, "ipv4")?);
        ensure!(said.contains(&bound), "not '{bound}' but {said}");
        let v6 = field(card, "ipv6")?;
        shell.run(&format!("ip -6 addr add {v6}/128 dev eth0"))?;
    }
    let (b4, b6) = (field(&cards[1], "ipv4")?, field(&cards[1], "ipv6")?);
    let said = shells[0].run("nslookup b.lan.internal")?;
    ensure!(said.contains(b4) && said.contains(b6), "{said}");
    let pinged = shells[0].does("ping -c 2 -W 5 b")?;
    ensure!(pinged, "b is not reached by its name within the group");
    // The router tells where it is; a guest that has just come listens for a while.
    let wait = format!("for n in $(seq 20); do ping -c 1 -W 2 {b6} && break; sleep 2; done");
    shells[0].run(&wait)?;
    let pinged = shells[0].does(&format!("ping -c 2 -W 5 {b6}"))?;
    ensure!(pinged, "b is not reached by IPv6");
    Ok(())
}

/// `a` cannot be somebody else.
fn spoofing(shells: &mut [Shell; 2], cards: &[Value; 2]) -> anyhow::Result<()> {
    let [a, _] = shells;
    let b4 = field(&cards[1], "ipv4")?;
    let gateway = {
        let (net, _) = b4.rsplit_once('.').context("no IPv4")?;
        format!("{net}.1")
    };
    ensure!(a.does(&format!("ping -c 1 -W 5 {gateway}"))?, "the gateway does not answer");
    a.run("ip addr add 10.99.99.99/32 dev eth0")?;
    let stranger = format!("ping -c 2 -W 1 -I 10.99.99.99 {gateway}");
    ensure!(!a.does(&stranger)?, "an address of nobody was answered");
    a.run(&format!("ip addr add {b4}/32 dev eth0"))?;
    ensure!(!a.does(&format!("ping -c 2 -W 1 -I {b4} {gateway}"))?, "b's address was answered");
    a.run(&format!("ip addr del {b4}/32 dev eth0; arping -U -c 2 -I eth0 {b4}"))?;
    let mac = field(&cards[0], "mac")?;
    a.run(
        "ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:99; ip link set eth0 up",
    )?;
    a.run(&format!("ip route add default via {gateway}"))?;
    ensure!(!a.does(&format!("ping -c 2 -W 1 {gateway}"))?, "another MAC was answered");
    a.run(&format!("ip link set eth0 down; ip link set eth0 address {mac}; ip link set eth0 up"))?;
    a.run(&format!("ip route add default via {gateway}"))?;
    ensure!(a.does(&format!("ping -c 2 -W 5 {gateway}"))?, "its own MAC is not answered");
    Ok(())
}

/// Who connects to the port hears this, again and again.
const SERVE: &str = "{ (while true; do echo served | nc -l -p PORT; done) > /dev/null 2>&1 & }";

fn hears(shell: &mut Shell, address: &str, port: u16) -> anyhow::Result<bool> {
    Ok(shell
        .run(&format!("nc -w 2 {address} {port} < /dev/zero | head -n 1"))?
        .contains("\nserved"))
}

fn groups(daemon: &Daemon, shells: &mut [Shell; 2], cards: &[Value; 2]) -> anyhow::Result<()> {
    let b4 = field(&cards[1], "ipv4")?;
    for port in ["80", "81"] {
        shells[1].run(&SERVE.replace("PORT", port))?;
    }
    ensure!(hears(&mut shells[0], b4, 80)?, "port 80 is refused within the group");
    // b is in another group from now on, whose rules are few.
    daemon.ask(&["security-group", "create", "web"])?;
    daemon.refused(
        &["security-group", "rule", "add", "web", "in", "--ports", "80"],
        "invalid-spec",
    )?;
    let add = ["security-group", "rule", "add", "web", "in", "--protocol", "tcp", "--ports", "80"];
    daemon.ask(&[&add[..], &["--peer", "group:default"]].concat())?;
    daemon.ask(&["launch", "c", "--network", "lan", "--security-group", "web", "--off"])?;
    daemon.refused(&["security-group", "rm", "web"], "in-use")?;
    daemon.refused(&["network", "rm", "lan"], "in-use")?;
    daemon.ask(&["rm", "c"])?;
    // The default group's own rule goes: what was let through within it is refused at once.
    daemon.ask(&["security-group", "rule", "rm", "default", "2"])?;
    until("the refusal", || Ok(rules(daemon)?.matches(" return\n").count() < 4))?;
    ensure!(!hears(&mut shells[0], b4, 80)?, "port 80 is let through by no rule");
    let to =
        ["security-group", "rule", "add", "default", "in", "--protocol", "tcp", "--ports", "80"];
    daemon.ask(&to)?;
    until("the rule", || Ok(rules(daemon)?.contains("tcp dport 80 return")))?;
    ensure!(hears(&mut shells[0], b4, 80)?, "port 80 is refused against the rule");
    ensure!(!hears(&mut shells[0], b4, 81)?, "port 81 is let through by no rule");
    Ok(())
}

fn rules(daemon: &Daemon) -> anyhow::Result<String> {
    daemon.host.says(&["nft", "list", "table", "inet", "trine"])
}

/// Out to the world, in by the published port, and no further.
fn out_and_in(
    host: &Namespace,
    outside: &Namespace,
    shells: &mut [Shell; 2],
) -> anyhow::Result<()> {
    ensure!(shells[0].does("ping -c 2 -W 5 198.51.100.2")?, "no way out");
    let hears = |of: &Namespace, address: &str, port: &str| -> anyhow::Result<bool> {
        let line = format!("busybox nc -w 3 {address} {port} < /dev/zero | head -n 1");
        Ok(of.says(&["sh", "-c", &line])?.contains("served"))
    };
    // The port is one of the loopback: nobody outside reaches it.
    ensure!(hears(host, "127.0.0.1", "8080")?, "the published port leads nowhere");
    ensure!(!hears(outside, "198.51.100.1", "8080")?, "the loopback's port is the world's");
    Ok(())
}

#[test]
fn guests_on_a_network_reach_what_they_may_and_leave_nothing() -> anyhow::Result<()> {
    let (host, outside) = match host_and_outside() {
        Ok(both) => both,
        Err(reason) => {
            println!("NOT RUN: networks of the daemon: {reason}");
            return Ok(());
        }
    };
    let before = host.says(&["ip", "-o", "link"])?;
    let mut daemon = Daemon::start(&host)?;
    daemon.ask(&["network", "create", "lan"])?;
    let network = daemon.show("network", "lan")?;
    ensure!(network["status"]["phase"] == "ready", "{network}");
    daemon.refused(&["network", "create", "lan"], "name-taken")?;
    let subnet = field(&network["spec"], "ipv4")?;
    daemon.refused(&["network", "create", "other", "--ipv4", subnet], "subnet-taken")?;

    let cards = [launch(&daemon, "a", &[])?, launch(&daemon, "b", &["--publish", "8080:80"])?];
    let mut shells = [Shell::of(&daemon, "a")?, Shell::of(&daemon, "b")?];
    addresses_and_names(&mut shells, &cards)?;
    spoofing(&mut shells, &cards)?;
    groups(&daemon, &mut shells, &cards)?;
    out_and_in(&host, &outside, &mut shells)?;

    // Whoever comes after a daemon that was killed finds all as it was.
    drop(shells);
    daemon.kill_and_start()?;
    ensure!(daemon.services()? == 1, "{} dnsmasq", daemon.services()?);
    ensure!(daemon.show("vm", "a")?["status"]["networks"][0] == cards[0]);
    ensure!(daemon.show("network", "lan")?["status"]["phase"] == "ready");

    daemon.ask(&["rm", "--force", "a", "b"])?;
    daemon.ask(&["network", "rm", "lan"])?;
    until("the network's end", || Ok(host.says(&["ip", "-o", "link"])? == before))?;
    until("dnsmasq's end", || Ok(daemon.services()? == 0))?;
    let left = host.says(&["nft", "list", "ruleset"])?;
    ensure!(left.trim().is_empty(), "{left}");
    until("the folders' end", || {
        Ok(fs::read_dir(daemon.home.path().join("networks"))?.next().is_none())
    })
}
