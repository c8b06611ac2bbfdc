//! The daemon with real VMs: a VM outlives its daemon's death, and goes without a trace when it is deleted.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
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

    /// What the log says of where it listens.
    fn listens(&self, what: &str) -> anyhow::Result<String> {
        let log = self.log();
        let line =
            log.lines().find(|line| line.contains("listening")).context("it does not listen")?;
        let value = line.split(&format!("{what}=")).nth(1).and_then(|rest| rest.split(' ').next());
        Ok(value.context("the log has no such field")?.to_owned())
    }

    /// Somebody elsewhere, who has files of their own and no socket.
    fn elsewhere(&self, arguments: &[&str], typed: &str) -> anyhow::Result<Output> {
        let mut command = Command::new(trine()?);
        command.args(arguments).env("XDG_CONFIG_HOME", self.home.path()).env_remove("TRINE_SOCKET");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut input) = child.stdin.take() {
            // One that is refused before does not read it.
            let _ = input.write_all(typed.as_bytes());
        }
        Ok(child.wait_with_output()?)
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
        .args(["--listen", "127.0.0.1:0"])
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

#[test]
fn somebody_elsewhere_may_what_their_token_says() -> anyhow::Result<()> {
    let daemon = Daemon::start()?;
    let server = format!("https://{}", daemon.listens("address")?);
    let fingerprint = daemon.listens("fingerprint")?;
    let token =
        daemon.ask(&["token", "create", "looker", "--role", "viewer", "--expires", "1h"])?;
    let add = ["context", "add", "lab", &server];

    let refused = |output: &Output, why: &str| -> anyhow::Result<()> {
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && said.contains(why), "{said}");
        Ok(())
    };
    refused(&daemon.elsewhere(&add, &token)?, &format!("--fingerprint {fingerprint}"))?;
    let wrong = "00".repeat(32);
    let of_another = [&add[..], &["--fingerprint", &wrong]].concat();
    refused(&daemon.elsewhere(&of_another, &token)?, "its certificate is another one")?;
    let right = [&add[..], &["--fingerprint", &fingerprint]].concat();
    refused(&daemon.elsewhere(&right, "trine_guessed\n")?, "unauthorized")?;

    let added = daemon.elsewhere(&right, &token)?;
    ensure!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    let listed = daemon.elsewhere(&["ls"], "")?;
    assert!(String::from_utf8(listed.stdout)?.starts_with("NAME"));
    refused(&daemon.elsewhere(&["launch", "a"], "")?, "forbidden")?;

    daemon.ask(&["token", "rm", "looker"])?;
    refused(&daemon.elsewhere(&["ls"], "")?, "unauthorized")
}
