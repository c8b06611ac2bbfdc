//! A host with a daemon and VMs, what is to be there, and a look at what is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::Plan;
use super::daemon::{Answer, Daemon};
use super::faults::{Clock, Fault, Hog, Medium, StoreLock, restore, signal, truncate};
use super::luck::Luck;
use crate::{text, trine};

/// Names of VMs: few, so that they are used again.
const VMS: &[&str] = &["a", "b", "c", "d", "e", "f"];
const PROJECTS: &[&str] = &["p", "q"];
const TOKENS: &[&str] = &["s", "t"];
/// What is kept for a story.
const STORY_LINES: usize = 40;
/// The file system's size, if it can be one of its own.
const MEDIUM_MIB: u32 = 64;
/// The disk of a VM that has one.
const IMAGE_BYTES: u64 = 3 << 20;
const LOOK: Duration = Duration::from_millis(50);

/// What is known of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is there: that was confirmed, and nobody has asked for its end.
    There,
    /// Its end was confirmed, or begun.
    Gone,
    /// There was no answer.
    Unknown,
}

#[derive(Default)]
struct Sums {
    operations: u64,
    refused: u64,
    unanswered: u64,
    faults: BTreeMap<String, u64>,
    not_run: BTreeSet<String>,
}

/// Faults that last.
#[derive(Default)]
struct Ailments {
    hog: Option<Hog>,
    lock: Option<StoreLock>,
    hanging: Option<u32>,
    is_clock_wrong: bool,
}

/// All of it.
pub(super) struct World {
    home: PathBuf,
    aside: PathBuf,
    kernels: Vec<PathBuf>,
    daemon: Daemon,
    clock: Option<Clock>,
    ailments: Ailments,
    vms: BTreeMap<&'static str, Fate>,
    /// Tokens and projects, by path.
    others: BTreeMap<String, Fate>,
    interfaces: BTreeSet<String>,
    sums: Sums,
    story: Vec<String>,
    limit: Duration,
    medium: Option<Medium>,
    _folder: tempfile::TempDir,
}

impl World {
    pub fn new(limit: Duration) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (home, aside) = (folder.path().join("home"), folder.path().join("aside"));
        fs::create_dir(&home)?;
        fs::create_dir(&aside)?;
        let mut sums = Sums::default();
        let medium = Medium::mount(&home, MEDIUM_MIB);
        if let Err(error) = &medium {
            sums.not_run.insert(format!("DiskFull ({error})"));
        }
        let mut kernels = Vec::new();
        for (name, code) in [
            ("idle", tinyguest::idle()),
            ("power-off", tinyguest::power_off()),
            ("triple-fault", tinyguest::triple_fault()),
        ] {
            let path = aside.join(name);
            fs::write(&path, tinyguest::multiboot(&code))?;
            kernels.push(path);
        }
        import_image(&home, &aside)?;
        let clock = Clock::new(&aside)?;
        if clock.is_none() {
            sums.not_run.insert("ClockJumps (the package faketime is missing)".to_owned());
        }
        let mut world = Self {
            daemon: Daemon::new(&home, &aside.join("log")),
            medium: medium.ok(),
            interfaces: interfaces()?,
            home,
            aside,
            kernels,
            clock,
            ailments: Ailments::default(),
            vms: BTreeMap::new(),
            others: BTreeMap::new(),
            sums,
            story: Vec::new(),
            limit,
            _folder: folder,
        };
        world.start()?;
        Ok(world)
    }

    fn tell(&mut self, line: String) {
        self.story.push(line);
    }

    fn start(&mut self) -> anyhow::Result<()> {
        match self.daemon.try_start(self.clock.as_ref())? {
            None => Ok(()),
            Some(status) => {
                bail!("the daemon does not start ({status}); {}", self.daemon.last_words())
            }
        }
    }

    /// Asks the daemon, which may be unwell: then an answer may be missing.
    fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> Option<Answer> {
        let answer = self.daemon.ask(method, path, body);
        self.sums.operations += 1;
        let told = match &answer {
            Ok(answer) if answer.is_yes() => answer.status.to_string(),
            Ok(answer) => format!("{} {}", answer.status, answer.body["code"]),
            Err(error) => format!("{error:#}"),
        };
        self.tell(format!("{method} {path}: {told}"));
        match answer {
            Ok(answer) if answer.is_no() => {
                self.sums.refused += 1;
                Some(answer)
            }
            Ok(answer) if answer.is_yes() => Some(answer),
            _ => {
                self.sums.unanswered += 1;
                None
            }
        }
    }

    /// One operation, whatever comes of it.
    pub fn operate(&mut self, luck: &mut Luck) -> anyhow::Result<()> {
        let name = luck.of(VMS);
        let vm = format!("/v1/vms/{name}");
        match luck.below(16) {
            0..=4 => self.create(name, luck),
            5 | 6 => drop(self.ask("POST", &format!("{vm}/start"), None)),
            7 => {
                let force = luck.one_in(2);
                self.ask("POST", &format!("{vm}/stop?force={force}"), None);
            }
            8 => drop(self.ask("POST", &format!("{vm}/restart"), None)),
            9 => drop(self.ask("POST", &format!("{vm}/pause"), None)),
            10 => drop(self.ask("POST", &format!("{vm}/resume"), None)),
            11 | 12 => self.delete(name, luck.one_in(2)),
            13 => self.make_or_delete("/v1/tokens", luck.of(TOKENS), luck.one_in(2)),
            14 => self.make_or_delete("/v1/projects", luck.of(PROJECTS), luck.one_in(2)),
            _ => self.cancel_one(),
        }
        // Sometimes everything comes at once, sometimes there is time to get on.
        if luck.one_in(2) {
            thread::sleep(Duration::from_millis(luck.below(300)));
        }
        Ok(())
    }

    fn create(&mut self, name: &'static str, luck: &mut Luck) {
        let kernel = if luck.one_in(3) { luck.below(3) as usize } else { 0 };
        let mut spec = json!({
            "memory_bytes": 16 << 20,
            "cpus": 1 + luck.below(2),
            "engine": luck.of(&["emu", "full", "auto"]),
            "boot_from": {"kernel": {"kernel": text(&self.kernels[kernel])}},
            "network": luck.of(&["none", "outbound"]),
            "power": luck.of(&["on", "on", "on", "off"]),
            "stop_limit_s": luck.below(3),
            // One that ends by itself for ever would never come to rest.
            "on_end": if kernel == 0 { luck.of(&["stay", "restart-on-failure"]) } else { "stay" },
        });
        if luck.one_in(2) {
            spec["image"] = json!("blank");
        }
        let answer = self.ask("POST", "/v1/vms", Some(&json!({"name": name, "spec": spec})));
        match answer {
            Some(answer) if answer.is_yes() => drop(self.vms.insert(name, Fate::There)),
            Some(_) => {}
            None => drop(self.vms.insert(name, Fate::Unknown)),
        }
    }

    fn delete(&mut self, name: &'static str, force: bool) {
        match self.ask("DELETE", &format!("/v1/vms/{name}?force={force}"), None) {
            Some(answer) if answer.is_yes() => drop(self.vms.insert(name, Fate::Gone)),
            Some(_) => {}
            None => drop(self.vms.insert(name, Fate::Unknown)),
        }
    }

    fn make_or_delete(&mut self, path: &str, name: &str, makes: bool) {
        let own = format!("{path}/{name}");
        let (answer, fate) = if makes {
            let mut body = json!({"name": name});
            if path.ends_with("tokens") {
                body["role"] = json!("viewer");
            }
            (self.ask("POST", path, Some(&body)), Fate::There)
        } else {
            (self.ask("DELETE", &own, None), Fate::Gone)
        };
        match answer {
            Some(answer) if answer.is_yes() => drop(self.others.insert(own, fate)),
            Some(_) => {}
            None => drop(self.others.insert(own, Fate::Unknown)),
        }
    }

    fn cancel_one(&mut self) {
        let running = self.daemon.items("/v1/operations?filter=state=running").unwrap_or_default();
        let id = running.iter().find_map(|operation| operation["id"].as_str());
        if let Some(id) = id {
            self.ask("POST", &format!("/v1/operations/{id}/cancel"), None);
        }
    }

    /// Perhaps something fails, perhaps something is mended.
    pub fn fail(&mut self, luck: &mut Luck) -> anyhow::Result<()> {
        if luck.one_in(4) {
            self.heal()?;
        }
        if !luck.one_in(3) {
            return Ok(());
        }
        let fault = luck.of(Fault::ALL);
        let done = self.have(fault, luck).with_context(|| format!("{fault:?}"))?;
        if done {
            *self.sums.faults.entry(format!("{fault:?}")).or_default() += 1;
            self.tell(format!("-- {fault:?}"));
        }
        Ok(())
    }

    /// Whether it could be had.
    fn have(&mut self, fault: Fault, luck: &mut Luck) -> anyhow::Result<bool> {
        match fault {
            Fault::DaemonKilled => {
                self.kill_daemon()?;
                self.begin_again()?;
            }
            Fault::DaemonGone => self.kill_daemon()?,
            Fault::DaemonReplaced => {
                self.daemon.stop()?;
                self.begin_again()?;
            }
            Fault::VmKilled | Fault::VmHangs => {
                let all: Vec<_> = self.processes()?.into_iter().collect();
                if all.is_empty() || (fault == Fault::VmHangs && self.ailments.hanging.is_some()) {
                    return Ok(false);
                }
                let pid = luck.of(&all);
                if fault == Fault::VmKilled {
                    signal(pid, "KILL")?;
                } else {
                    signal(pid, "STOP")?;
                    self.ailments.hanging = Some(pid);
                }
            }
            Fault::DiskFull => {
                if self.medium.is_none() || self.ailments.hog.is_some() {
                    return Ok(false);
                }
                self.ailments.hog = Some(Hog::fill(&self.home)?);
            }
            Fault::StoreLocked => {
                if !self.daemon.is_up() || self.ailments.lock.is_some() {
                    return Ok(false);
                }
                self.ailments.lock = StoreLock::take(&self.home)?;
                return Ok(self.ailments.lock.is_some());
            }
            Fault::StoreTruncated => {
                self.heal()?;
                return self.cut_the_store(luck).map(|()| true);
            }
            Fault::ClockJumps => {
                let Some(clock) = &self.clock else { return Ok(false) };
                clock.set(luck.of(&[-86_400 * 400, -3600, -60, 60, 3600, 86_400 * 400]))?;
                self.ailments.is_clock_wrong = true;
            }
        }
        Ok(true)
    }

    /// One that is killed while the disk is full, or the store locked, need not be able to start.
    fn begin_again(&mut self) -> anyhow::Result<()> {
        let may_fail = self.ailments.hog.is_some() || self.ailments.lock.is_some();
        match self.daemon.try_start(self.clock.as_ref())? {
            Some(status) if !may_fail => {
                bail!("the daemon does not start ({status}); {}", self.daemon.last_words())
            }
            _ => Ok(()),
        }
    }

    /// VMs go on without it.
    fn kill_daemon(&mut self) -> anyhow::Result<()> {
        let before = self.steady();
        self.daemon.kill()?;
        let after = self.processes()?;
        for (name, pid) in before {
            ensure!(after.contains(&pid), "{name} died with its daemon");
        }
        Ok(())
    }

    /// VMs that run and are to run, and of which nothing else was asked; by name, with their processes.
    fn steady(&self) -> Vec<(String, u32)> {
        let is_steady = |vm: &Value| {
            let kernel = vm["spec"]["boot_from"]["kernel"]["kernel"].as_str().unwrap_or_default();
            let is_on = ["on", "paused"].iter().any(|on| vm["spec"]["power"] == *on);
            let is_here = ["running", "paused"].iter().any(|on| vm["status"]["phase"] == *on);
            is_on
                && is_here
                && kernel.ends_with("idle")
                && vm["deleting"].is_null()
                && vm["spec"]["boot"] == vm["status"]["boot"]
        };
        let vms = self.daemon.items("/v1/vms").unwrap_or_default();
        let alive = self.processes().unwrap_or_default();
        let steady = vms.iter().filter(|vm| is_steady(vm)).filter_map(|vm| {
            let pid = u32::try_from(vm["status"]["pid"].as_u64()?).ok()?;
            // It may have been killed just before.
            alive.contains(&pid).then_some((vm["name"].as_str()?.to_owned(), pid))
        });
        steady.collect()
    }

    /// The daemon says that the store is damaged, or has not needed what is missing.
    fn cut_the_store(&mut self, luck: &mut Luck) -> anyhow::Result<()> {
        self.kill_daemon()?;
        let left = truncate(&self.home, &self.aside, luck)?;
        let before = self.processes()?;
        match self.daemon.try_start(self.clock.as_ref())? {
            None => {
                self.tell(format!("-- started with {left} bytes"));
                let now = self.daemon.items("/v1/vms?limit=1000")?;
                for (name, fate) in &self.vms {
                    let is_there = now.iter().any(|vm| vm["name"] == *name);
                    ensure!(
                        *fate != Fate::There || is_there,
                        "the store was cut to {left} bytes, and {name} is forgotten"
                    );
                }
            }
            Some(status) => {
                let said = self.daemon.last_words();
                ensure!(
                    status.code() == Some(4) && said.contains("store.sqlite"),
                    "a damaged store ({left} bytes) is not told: {status}; {said}"
                );
                let lost: Vec<_> = before.difference(&self.processes()?).copied().collect();
                self.tell(format!("-- {left} bytes left; ended meanwhile: {lost:?}"));
                restore(&self.home, &self.aside)?;
                self.start()?;
            }
        }
        Ok(())
    }

    /// Nothing fails any more.
    pub fn heal(&mut self) -> anyhow::Result<()> {
        self.ailments.hog = None;
        self.ailments.lock = None;
        if let Some(pid) = self.ailments.hanging.take() {
            signal(pid, "CONT")?;
        }
        if let Some(clock) = self.clock.as_ref().filter(|_| self.ailments.is_clock_wrong) {
            clock.set(0)?;
            self.ailments.is_clock_wrong = false;
        }
        if !self.daemon.is_up() {
            self.start()?;
        }
        self.tell("-- all is well".to_owned());
        Ok(())
    }

    /// Everything that was asked for comes to its end, and what was confirmed is there.
    pub fn come_to_rest(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        let (mut stuck, mut restless);
        loop {
            stuck = self.daemon.items("/v1/operations?limit=1000&filter=state=running")?;
            let vms = self.daemon.items("/v1/vms?limit=1000")?;
            restless = vms.into_iter().filter(|vm| !is_at_rest(vm)).collect::<Vec<_>>();
            if stuck.is_empty() && restless.is_empty() {
                break;
            }
            let log = self.daemon.last_words();
            ensure!(
                begin.elapsed() < self.limit,
                "stuck: {stuck:#?}, restless: {restless:#?}; {log}"
            );
            thread::sleep(LOOK);
        }
        self.check_objects()
    }

    fn check_objects(&mut self) -> anyhow::Result<()> {
        let names = |items: Vec<Value>| -> BTreeSet<String> {
            items.iter().filter_map(|item| item["name"].as_str().map(str::to_owned)).collect()
        };
        let vms = names(self.daemon.items("/v1/vms?limit=1000")?);
        for (name, fate) in &mut self.vms {
            check(name, fate, vms.contains(*name))?;
        }
        for path in ["/v1/tokens", "/v1/projects"] {
            let there = names(self.daemon.items(path)?);
            for (own, fate) in self.others.iter_mut().filter(|(own, _)| own.starts_with(path)) {
                check(own, fate, there.contains(&own[path.len() + 1..]))?;
            }
        }
        Ok(())
    }

    /// All is deleted, and nothing is left of it.
    pub fn empty(&mut self) -> anyhow::Result<()> {
        for vm in self.daemon.items("/v1/vms?limit=1000")? {
            let name = vm["name"].as_str().context("no name")?;
            let answer = self.daemon.ask("DELETE", &format!("/v1/vms/{name}?force=true"), None)?;
            ensure!(answer.is_yes(), "{answer:?}");
        }
        self.vms.clear();
        self.come_to_rest()?;
        let begin = Instant::now();
        while !self.processes()?.is_empty() || !self.daemon.items("/v1/vms")?.is_empty() {
            let left = self.processes()?;
            let vms = self.home.join("vms");
            ensure!(
                begin.elapsed() < self.limit,
                "processes {left:?} are left; folders: {:?}; {}",
                files(&vms)?,
                self.daemon.last_words()
            );
            thread::sleep(LOOK);
        }
        let expected = ["disks", "images", "lock", "networks", "sock", "state", "tls", "vms"];
        let mut left = files(&self.home)?;
        left.retain(|path| {
            let mut parts = path.components().map(|part| part.as_os_str().to_string_lossy());
            let first = parts.next().unwrap_or_default();
            let is_emptied = ["disks", "networks", "vms"].contains(&&*first);
            !expected.contains(&&*first) || (is_emptied && parts.next().is_some())
        });
        ensure!(left.is_empty(), "files are left: {left:?}");
        let groups = Path::new("/sys/fs/cgroup/trine");
        let groups = groups.read_dir().into_iter().flatten().flatten();
        let groups: Vec<_> = groups.filter(|entry| entry.path().is_dir()).collect();
        ensure!(groups.is_empty(), "control groups are left: {groups:?}");
        let interfaces = interfaces()?;
        ensure!(interfaces == self.interfaces, "there are other interfaces: {interfaces:?}");
        self.daemon.stop()?;
        ensure!(!self.home.join("sock").exists(), "the daemon's socket is left");
        Ok(())
    }

    /// VMs' processes of this daemon: those whose folders are under its home.
    fn processes(&self) -> anyhow::Result<BTreeSet<u32>> {
        let home = text(&self.home).as_bytes();
        let mut all = BTreeSet::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
            else {
                continue;
            };
            // One that has ended meanwhile, or waits to be collected, has no words.
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let is_ours = words.windows(home.len()).any(|window| window == home);
            if is_ours && Some(pid) != self.daemon.pid() {
                all.insert(pid);
            }
        }
        Ok(all)
    }

    /// What was done last, for who wonders.
    pub fn story(&self, plan: &Plan) -> String {
        let from = self.story.len().saturating_sub(STORY_LINES);
        let (lines, seed) = (self.story[from..].join("\n  "), plan.seed);
        format!("seed {seed}, {}; at last:\n  {lines}\nthen", self.sums())
    }

    /// How much was done.
    pub fn sums(&self) -> String {
        let Sums { operations, refused, unanswered, faults, not_run } = &self.sums;
        let faults: Vec<_> = faults.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let mut told = format!(
            "{operations} operations ({refused} refused, {unanswered} not answered), faults: {}",
            faults.join(", ")
        );
        for fault in not_run {
            told.push_str(&format!("\nNOT RUN: {fault}"));
        }
        told
    }
}

impl Drop for World {
    /// Of a run that failed, VMs are left, which are nobody's children.
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        for pid in self.processes().unwrap_or_default() {
            let _ = signal(pid, "KILL");
        }
        // What it was mounted on goes after it.
        self.medium = None;
    }
}

fn check(name: &str, fate: &mut Fate, is_there: bool) -> anyhow::Result<()> {
    match fate {
        Fate::There => ensure!(is_there, "{name} is lost"),
        Fate::Gone => ensure!(!is_there, "{name} was deleted, and is there"),
        Fate::Unknown => *fate = if is_there { Fate::There } else { Fate::Gone },
    }
    Ok(())
}

/// Whether a VM does what is wanted of it, or has said why not.
fn is_at_rest(vm: &Value) -> bool {
    let phase = vm["status"]["phase"].as_str().unwrap_or_default();
    let power = vm["spec"]["power"].as_str().unwrap_or_default();
    let is_well = match phase {
        "running" => power == "on",
        "paused" => power == "paused",
        "stopped" | "failed" => true,
        _ => false,
    };
    is_well && vm["deleting"].is_null()
}

fn interfaces() -> anyhow::Result<BTreeSet<String>> {
    let entries = fs::read_dir("/sys/class/net")?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// All files and folders in a folder, beneath it.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (mut all, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path.clone());
            }
            all.push(path.strip_prefix(folder)?.to_owned());
        }
    }
    Ok(all)
}

fn import_image(home: &Path, aside: &Path) -> anyhow::Result<()> {
    let disk = aside.join("blank.raw");
    File::create(&disk)?.set_len(IMAGE_BYTES)?;
    let mut import = Command::new(trine()?);
    import.args(["image", "import", text(&disk), "blank"]).env("TRINE_HOME", home);
    let output = import.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
