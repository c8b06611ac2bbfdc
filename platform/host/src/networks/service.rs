//! A network's DHCP, router advertisements and name server: one process of dnsmasq, nobody's child.
//!
//! Its configuration is one file, which it reads before it gives up root; when that changes, it is started anew.
//! It is told from other processes by its command line, which names that file: no record of it can be out of date.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use reconcile::{WantedNetwork, domain};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::program;

/// It ends within milliseconds; then it is killed.
const END_LIMIT: Duration = Duration::from_millis(500);
/// One that has ended by itself is not started again before.
const AGAIN: Duration = Duration::from_secs(5);

/// A network's folder, and what runs of it.
pub(crate) struct Service {
    folder: PathBuf,
    pid: Option<i32>,
    child: Option<Child>,
    started: Option<Instant>,
}

/// Its configuration.
pub(crate) fn configuration(network: &WantedNetwork, folder: &Path) -> String {
    let (domain, path) = (domain(&network.name), folder.display());
    let mut lines = vec![
        format!("# network {}", network.name),
        format!("interface={}", network.id.bridge()),
        "except-interface=lo".to_owned(),
        "bind-dynamic".to_owned(),
        "user=nobody".to_owned(),
        "group=nogroup".to_owned(),
        format!("pid-file={path}/dnsmasq.pid"),
        format!("dhcp-leasefile={path}/leases"),
        "log-facility=-".to_owned(),
        "quiet-dhcp".to_owned(),
        "quiet-dhcp6".to_owned(),
        "quiet-ra".to_owned(),
        "no-hosts".to_owned(),
        "domain-needed".to_owned(),
        "bogus-priv".to_owned(),
        "dhcp-authoritative".to_owned(),
        "dhcp-no-override".to_owned(),
        format!("domain={domain}"),
        format!("local=/{domain}/"),
    ];
    if let Some(subnet) = network.spec.ipv4.get() {
        lines.push(format!("dhcp-range={},static,{},1h", subnet.addr(), subnet.netmask()));
    }
    if let Some(subnet) = network.spec.ipv6.get() {
        // Cards reach each other by the host: no address but the host's is on their link.
        lines.push(format!("dhcp-range={},static,off-link,64,1h", subnet.addr()));
        lines.push("enable-ra".to_owned());
    }
    for card in &network.cards {
        let (vm, v4, v6) = (&card.vm, card.ipv4, card.ipv6);
        let v4_text = v4.map(|ip| format!(",{ip}")).unwrap_or_default();
        let v6_text = v6.map(|ip| format!(",[{ip}]")).unwrap_or_default();
        lines.push(format!("dhcp-host={}{v4_text}{v6_text},{vm}", card.mac));
        let v6_text = v6.map(|ip| format!(",{ip}")).unwrap_or_default();
        lines.push(format!("host-record={vm}.{domain},{vm}{v4_text}{v6_text}"));
    }
    lines.join("\n") + "\n"
}

impl Service {
    /// That of the network in this folder, found again if it runs.
    pub fn of(folder: PathBuf) -> Self {
        let pid = find(&folder).into_iter().next();
        Self { folder, pid, child: None, started: None }
    }

    /// It runs with this configuration, or why not.
    pub fn run(&mut self, configuration: &str) -> Result<(), String> {
        if let Some(child) = &mut self.child {
            // Who ended is taken note of.
            let _ = child.try_wait();
        }
        let file = file(&self.folder);
        let is_new = fs::read_to_string(&file).is_ok_and(|old| old == configuration);
        let lives = self.pid.is_some_and(|pid| is_it(pid, &file));
        if is_new && lives {
            return Ok(());
        }
        if is_new && self.started.is_some_and(|at| at.elapsed() < AGAIN) {
            return Err(format!("dnsmasq has ended: {}", self.last_words()));
        }
        self.end();
        self.start(&file, configuration).map_err(|error| format!("cannot start dnsmasq: {error}"))
    }

    fn start(&mut self, file: &Path, configuration: &str) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let program = program::find("dnsmasq");
        let program = program.ok_or_else(|| io::Error::other("it is missing: install it"))?;
        let log = File::create(self.folder.join("log"))?;
        // Addresses are the configuration's: leases of another one would be in their way.
        let _ = fs::remove_file(self.folder.join("leases"));
        let partial = self.folder.join("partial");
        fs::write(&partial, configuration)?;
        fs::rename(&partial, file)?;
        self.started = Some(Instant::now());
        let child = Command::new(program)
            .arg("--keep-in-foreground")
            .arg(argument(file))
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.pid = i32::try_from(child.id()).ok();
        self.child = Some(child);
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        log.lines().rfind(|line| !line.is_empty()).unwrap_or("it says nothing").trim().to_owned()
    }

    /// Ends all there are.
    fn end(&mut self) {
        let file = file(&self.folder);
        let own = self.pid.take().filter(|pid| is_it(*pid, &file));
        for pid in own.map_or_else(|| find(&self.folder), |pid| vec![pid]) {
            end(pid, &file);
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    /// Ends it, and takes its folder away.
    pub fn remove(mut self) -> io::Result<()> {
        self.end();
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("dnsmasq.conf")
}

fn argument(file: &Path) -> String {
    format!("--conf-file={}", file.display())
}

/// Process `pid` is the dnsmasq of this file.
fn is_it(pid: i32, file: &Path) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|word| word == argument(file).as_bytes())
}

/// Those that run for this folder.
fn find(folder: &Path) -> Vec<i32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pid = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    let file = file(folder);
    processes.filter_map(pid).filter(|pid| is_it(*pid, &file)).collect()
}

fn end(pid: i32, file: &Path) {
    let Some(process) = Pid::from_raw(pid) else { return };
    let Ok(process) = pidfd_open(process, PidfdFlags::empty()) else { return };
    // The descriptor holds on to one process; is it the one?
    if !is_it(pid, file) {
        return;
    }
    // One that is gone meanwhile is gone.
    let _ = pidfd_send_signal(&process, Signal::TERM);
    let begin = Instant::now();
    while is_it(pid, file) {
        if begin.elapsed() > END_LIMIT {
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
        if begin.elapsed() > 2 * END_LIMIT {
            return;
        }
        thread::sleep(Duration::from_millis(2));
    }
}
