//! The daemon with real VMs: a VM outlives its daemon's death, and goes without a trace when it is deleted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use guests::Init;
use serde_json::Value;
use vm_tests::{text, trine};

const LIMIT: Duration = Duration::from_secs(300);

/// A daemon with a home of its own. What it leaves behind, the test's end kills.
struct Daemon {
    home: tempfile::TempDir,
    process: Child,
}

impl Daemon {
    fn start() -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        let process = spawn(home.path())?;
        let daemon = Self { home, process };
        daemon.until("the daemon", || daemon.ask(&["ls"]).is_ok())?;
        Ok(daemon)
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("sock")
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        Ok(Command::new(trine()?).args(arguments).env("TRINE_SOCKET", self.socket()).output()?)
    }

    fn ask(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.run(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?}: {said}");
        Ok(String::from_utf8(output.stdout)?)
    }

    fn show(&self, vm: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.ask(&["vm", "show", vm, "-o", "json"])?)?)
    }

    /// As nothing but SIGKILL can.
    fn kill_and_start(&mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        self.process = spawn(self.home.path())?;
        self.until("the daemon", || self.ask(&["ls"]).is_ok())
    }

    fn until(&self, what: &str, is_so: impl Fn() -> bool) -> anyhow::Result<()> {
        let begin = Instant::now();
        while !is_so() {
            ensure!(begin.elapsed() < LIMIT, "{what} did not come; {}", self.log());
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("trined.log")).unwrap_or_default()
    }

    fn folders(&self) -> usize {
        fs::read_dir(self.home.path().join("vms")).map_or(0, Iterator::count)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Of a test that failed: its VMs are nobody's children.
        let _ = self.run(&["rm", "--force", "a"]);
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(home: &Path) -> anyhow::Result<Child> {
    let trined = trine()?.with_file_name("trined");
    let log = fs::File::options().create(true).append(true).open(home.join("trined.log"))?;
    let child = Command::new(&trined)
        .arg("--home")
        .arg(home)
        .arg("--socket")
        .arg(home.join("sock"))
        .stderr(log)
        .spawn();
    child.with_context(|| format!("cannot start {}: run `cargo build`", trined.display()))
}

fn is_alive(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

#[test]
fn a_vm_outlives_its_daemon_and_leaves_nothing_when_it_is_deleted() -> anyhow::Result<()> {
    let kernel = guests::kernel("cloud")?;
    let initrd = guests::initrd(&kernel, &[], Init::Shell)?;
    let mut daemon = Daemon::start()?;
    let (image, initrd) = (text(&kernel.image), text(&initrd));
    let cmdline = "console=ttyS0 quiet panic=-1";
    let launch = ["launch", "a", "--kernel", image, "--initrd", initrd, "--cmdline", cmdline];
    assert_eq!(daemon.ask(&launch)?, "a\n");
    assert_eq!(daemon.ask(&["ls", "-o", "name"])?, "a\n");
    let before = daemon.show("a")?;
    assert_eq!(before["status"]["phase"], "running", "{before}");
    let pid = before["status"]["pid"].as_u64().context("no process ID")?;

    daemon.kill_and_start()?;
    assert!(is_alive(pid), "the VM died with its daemon");
    let after = daemon.show("a")?;
    assert_eq!(after["status"]["pid"], pid);
    assert_eq!(after["status"]["phase"], "running", "{after}");
    assert_eq!(after["status"]["boot"], 1);

    // It still obeys: a clock that stands, and goes on.
    daemon.ask(&["vm", "pause", "a"])?;
    assert_eq!(daemon.show("a")?["status"]["phase"], "paused");
    daemon.ask(&["vm", "resume", "a"])?;
    let refused = daemon.run(&["rm", "a"])?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("(vm-running)"));

    // Killed behind the daemon's back, it is seen to have failed, and can be started again.
    Command::new("kill").args(["-9", &pid.to_string()]).status()?;
    let failed = |phase: &str| daemon.show("a").is_ok_and(|vm| vm["status"]["phase"] == phase);
    daemon.until("the failure", || failed("failed"))?;
    daemon.ask(&["start", "a"])?;
    let again = daemon.show("a")?;
    assert_eq!(again["status"]["boot"], 2);
    let pid = again["status"]["pid"].as_u64().context("no process ID")?;

    daemon.ask(&["rm", "--force", "a"])?;
    assert_eq!(daemon.ask(&["ls", "-o", "name"])?, "");
    daemon.until("the process' end", || !is_alive(pid))?;
    assert_eq!(daemon.folders(), 0);
    Ok(())
}

#[test]
fn what_cannot_start_says_why_and_stays_to_be_looked_at() -> anyhow::Result<()> {
    let daemon = Daemon::start()?;
    let refused = daemon.run(&["launch", "a", "--kernel", "/nonexistent/vmlinuz"])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("/nonexistent/vmlinuz"), "{said}");
    assert_eq!(daemon.show("a")?["status"]["phase"], "failed");
    let refused = daemon.run(&["launch", "b", "--image", "missing"])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("no image 'missing'"), "{said}");
    daemon.ask(&["rm", "a", "b"])?;
    assert_eq!(daemon.folders(), 0);
    Ok(())
}
