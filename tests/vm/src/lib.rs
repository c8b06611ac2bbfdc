//! Runs `trine run` as a user would, and talks to the guest over its serial port.
//!
//! What is tested is the program, not the crates: nothing here names one of them.

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

/// The `trine` program that was built with this test.
///
/// # Errors
/// When it was not: tests of one package do not build another's programs.
pub fn trine() -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let dir = test.ancestors().nth(2).context("the test is not in target/")?;
    let program = dir.join("trine");
    if !program.exists() {
        bail!("no {}: run `cargo build --workspace` first", program.display());
    }
    Ok(program)
}

/// A running guest.
pub struct Guest {
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
    line: Vec<u8>,
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
        let mut child = Command::new(trine()?)
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
            line: Vec::new(),
            tail: VecDeque::new(),
            deadline: Instant::now() + limit,
        })
    }

    /// Waits until the guest has printed `text`, and returns the line it is in so far.
    ///
    /// # Errors
    /// When it ends, or the time is over, before that.
    pub fn expect(&mut self, text: &str) -> anyhow::Result<String> {
        loop {
            let line = String::from_utf8_lossy(&self.line).into_owned();
            if line.contains(text) {
                self.line.clear();
                return Ok(line);
            }
            if let Some(end) = self.line.iter().position(|b| *b == b'\n') {
                let rest = self.line.split_off(end + 1);
                let line = std::mem::replace(&mut self.line, rest);
                self.keep(String::from_utf8_lossy(&line).trim_end().to_owned());
                continue;
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.line.extend(bytes),
                Err(RecvTimeoutError::Timeout) => bail!("no '{text}' in time\n{}", self.tail()),
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the guest ended before '{text}'\n{}", self.tail())
                }
            }
        }
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
                self.line.extend(bytes);
            }
        }
    }

    /// The process ID of the run.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn keep(&mut self, line: String) {
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    fn tail(&self) -> String {
        let lines: Vec<&str> = self.tail.iter().map(String::as_str).collect();
        format!("{}\n{}", lines.join("\n"), String::from_utf8_lossy(&self.line))
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
