//! A daemon that is killed and started, and asked over its socket.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::faults::Clock;
use crate::trine;

/// By then it answers, has ended, or hangs.
const LIMIT: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(10);

/// A daemon.
pub(super) struct Daemon {
    home: PathBuf,
    log: PathBuf,
    process: Option<Child>,
}

/// What it answers: a status, and an object.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    /// It says that it has done it, or begun to.
    pub fn is_yes(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// It says that it has not done it, and why.
    pub fn is_no(&self) -> bool {
        (400..500).contains(&self.status)
    }
}

impl Daemon {
    pub fn new(home: &Path, log: &Path) -> Self {
        Self { home: home.to_owned(), log: log.to_owned(), process: None }
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Starts it, and waits until it answers or has ended; `None` when it answers.
    pub fn try_start(&mut self, clock: Option<&Clock>) -> anyhow::Result<Option<ExitStatus>> {
        ensure!(self.process.is_none(), "there is one already");
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(trine()?.with_file_name("trined"));
        command.arg("--home").arg(&self.home).arg("--socket").arg(self.socket()).stderr(log);
        clock.into_iter().for_each(|clock| clock.set_up(&mut command));
        let mut process = command.spawn().context("cannot start trined: run `cargo build`")?;
        let begin = Instant::now();
        loop {
            if let Some(status) = process.try_wait()? {
                return Ok(Some(status));
            }
            if self.ask("GET", "/v1/vms?limit=1", None).is_ok_and(|answer| answer.is_yes()) {
                self.process = Some(process);
                return Ok(None);
            }
            if begin.elapsed() > LIMIT {
                let _ = process.kill();
                bail!("the daemon neither answers nor ends; {}", self.last_words());
            }
            thread::sleep(LOOK);
        }
    }

    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// As the service manager stops it.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        super::faults::signal(process.id(), "TERM")?;
        let begin = Instant::now();
        while begin.elapsed() < LIMIT {
            if let Some(status) = process.try_wait()? {
                ensure!(status.success(), "it ends with {status}; {}", self.last_words());
                return Ok(());
            }
            thread::sleep(LOOK);
        }
        let _ = process.kill();
        bail!("the daemon does not stop; {}", self.last_words())
    }

    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    fn socket(&self) -> PathBuf {
        self.home.join("sock")
    }

    pub fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Asks by HTTP/1.1. An error: there was no answer, and nobody knows whether it has done it.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(LIMIT))?;
        let body = body.map_or_else(String::new, Value::to_string);
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: trine\r\nConnection: close\r\n{kind}\
             Content-Length: {length}\r\n\r\n{body}"
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text).context("no answer")?;
        let (head, body) = text.split_once("\r\n\r\n").context("no whole answer")?;
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        let body = if body.is_empty() { Value::Null } else { serde_json::from_str(body)? };
        Ok(Answer { status, body })
    }

    /// As [`Daemon::ask`], of one that is to be well.
    pub fn items(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let answer = self.ask("GET", path, None)?;
        ensure!(answer.is_yes(), "{path}: {answer:?}");
        let items = answer.body.get("items").unwrap_or(&answer.body);
        Ok(items.as_array().context("no list")?.clone())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
