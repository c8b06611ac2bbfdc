//! Runs `trine run` as a user would, and talks to the guest over its serial port.
//!
//! What is tested is the program, not the crates: nothing here names one of them.

pub mod kills;
pub mod moves;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Lines kept to be shown when something goes wrong.
const TAIL_LINES: usize = 40;

/// The `trine` program that was built with this one: it is beside it or, for a test, above.
///
/// # Errors
/// When it was not: tests of one package do not build another's programs.
pub fn trine() -> anyhow::Result<PathBuf> {
    let us = std::env::current_exe()?;
    let mut candidates = us.ancestors().skip(1).take(2).map(|dir| dir.join("trine"));
    candidates
        .find(|path| path.is_file())
        .with_context(|| format!("no trine beside {}: run `cargo build`", us.display()))
}

/// A running guest.
pub struct Guest {
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
    unread: Vec<u8>,
    tail: VecDeque<String>,
    deadline: Instant,
}

impl Guest {
    /// Starts `trine run` with these arguments; everything until its end must happen within
    /// `limit`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(arguments: &[&str], limit: Duration) -> anyhow::Result<Self> {
        Self::start_by(Command::new(trine()?), arguments, limit)
    }

    /// As [`Guest::start`], by a command that ends with the program: in a network namespace, say.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_by(
        mut command: Command,
        arguments: &[&str],
        limit: Duration,
    ) -> anyhow::Result<Self> {
        let mut child = command
            .arg("run")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let mut out = child.stdout.take().context("no output")?;
        let (sender, output) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = out.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            child,
            input,
            output,
            unread: Vec::new(),
            tail: VecDeque::new(),
            deadline: Instant::now() + limit,
        })
    }

    /// Waits until the guest has printed `text`, be its line finished or not. What follows it is
    /// left for the next to read.
    ///
    /// # Errors
    /// When it ends, or the time is over, before that.
    pub fn expect(&mut self, text: &str) -> anyhow::Result<()> {
        loop {
            let line = self.unread.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let found = line.windows(text.len()).position(|window| window == text.as_bytes());
            if let Some(at) = found {
                self.unread.drain(..at + text.len());
                return Ok(());
            }
            if self.take_line().is_none() {
                self.receive(text)?;
            }
        }
    }

    /// The next whole line, without its end.
    ///
    /// # Errors
    /// When the guest ends, or the time is over, before that.
    pub fn line(&mut self) -> anyhow::Result<String> {
        loop {
            match self.take_line() {
                Some(line) => return Ok(line),
                None => self.receive("a line")?,
            }
        }
    }

    /// The next whole line with `text` in it.
    ///
    /// # Errors
    /// When the guest ends, or the time is over, before that.
    pub fn line_with(&mut self, text: &str) -> anyhow::Result<String> {
        loop {
            match self.take_line() {
                Some(line) if line.contains(text) => return Ok(line),
                Some(_) => {}
                None => self.receive(text)?,
            }
        }
    }

    fn take_line(&mut self) -> Option<String> {
        let end = self.unread.iter().position(|byte| *byte == b'\n')?;
        let bytes: Vec<u8> = self.unread.drain(..=end).collect();
        let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line.clone());
        Some(line)
    }

    /// Waits for more of its output.
    fn receive(&mut self, wanted: &str) -> anyhow::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.output.recv_timeout(left) {
            Ok(bytes) => self.unread.extend(bytes),
            Err(RecvTimeoutError::Timeout) => bail!("no '{wanted}' in time\n{}", self.tail()),
            Err(RecvTimeoutError::Disconnected) => {
                bail!("the guest ended before '{wanted}'\n{}", self.tail())
            }
        }
        Ok(())
    }

    /// Types.
    ///
    /// # Errors
    /// When the program has ended.
    pub fn type_in(&mut self, text: &str) -> anyhow::Result<()> {
        let input = self.input.as_mut().context("input was closed")?;
        input.write_all(text.as_bytes())?;
        Ok(input.flush()?)
    }

    /// Waits for the end of the run.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > self.deadline {
                bail!("the run does not end\n{}", self.tail());
            }
            if let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(20)) {
                self.unread.extend(bytes);
            }
        }
    }

    /// The process ID of the run.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last lines it has printed.
    pub fn tail(&self) -> String {
        let lines: Vec<&str> = self.tail.iter().map(String::as_str).collect();
        format!("{}\n{}", lines.join("\n"), String::from_utf8_lossy(&self.unread))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}
