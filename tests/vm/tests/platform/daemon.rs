//! A daemon with a home of its own.

#![allow(dead_code, reason = "each test uses some of it")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use vm_tests::trine;

const LIMIT: Duration = Duration::from_secs(300);

/// A daemon with a home of its own. What it leaves behind, the test's end kills.
pub struct Daemon {
    home: tempfile::TempDir,
    process: Child,
}

impl Daemon {
    pub fn start() -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        let process = spawn(home.path())?;
        let daemon = Self { home, process };
        daemon.until("the daemon", || daemon.ask(&["ls"]).is_ok())?;
        Ok(daemon)
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("sock")
    }

    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        Ok(Command::new(trine()?).args(arguments).env("TRINE_SOCKET", self.socket()).output()?)
    }

    pub fn ask(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.run(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?}: {said}");
        Ok(String::from_utf8(output.stdout)?)
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// What the API says to a request that succeeds.
    pub fn http(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<String> {
        let (status, body) = self.say(method, path, body)?;
        ensure!((200..300).contains(&status), "{method} {path}: {status} {body}");
        Ok(body)
    }

    /// A request that does not, for this reason.
    pub fn refused(&self, method: &str, path: &str, code: &str) -> anyhow::Result<()> {
        let (status, body) = self.say(method, path, b"")?;
        ensure!(status >= 400 && body.contains(code), "{method} {path}: {status} {body}");
        Ok(())
    }

    fn say(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<(u16, String)> {
        let mut socket = UnixStream::connect(self.socket())?;
        let length = body.len();
        // Of version 1.0: what comes ends with the connection, and is in one piece.
        write!(
            socket,
            "{method} {path} HTTP/1.0\r\nContent-Type: application/octet-stream\r\n\
             Content-Length: {length}\r\n\r\n"
        )?;
        socket.write_all(body)?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.context("no status")?, body.to_owned()))
    }

    /// All there is about an object.
    pub fn object(&self, noun: &str, name: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.ask(&[noun, "show", name, "-o", "json"])?)?)
    }

    pub fn show(&self, vm: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.ask(&["vm", "show", vm, "-o", "json"])?)?)
    }

    /// As nothing but SIGKILL can.
    pub fn kill_and_start(&mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        self.process = spawn(self.home.path())?;
        self.until("the daemon", || self.ask(&["ls"]).is_ok())
    }

    pub fn until(&self, what: &str, is_so: impl Fn() -> bool) -> anyhow::Result<()> {
        let begin = Instant::now();
        while !is_so() {
            ensure!(begin.elapsed() < LIMIT, "{what} did not come; {}", self.log());
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("trined.log")).unwrap_or_default()
    }

    /// What the log says of where it listens.
    pub fn listens(&self, what: &str) -> anyhow::Result<String> {
        let log = self.log();
        let line =
            log.lines().find(|line| line.contains("listening")).context("it does not listen")?;
        let value = line.split(&format!("{what}=")).nth(1).and_then(|rest| rest.split(' ').next());
        Ok(value.context("the log has no such field")?.to_owned())
    }

    /// Somebody elsewhere, who has files of their own and no socket.
    pub fn elsewhere(&self, arguments: &[&str], typed: &str) -> anyhow::Result<Output> {
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

    pub fn folders(&self) -> usize {
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
