//! One run of the basket, in a guest or not.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use basket::{END, Line, WRONG};
use guests::UP;

/// How long a guest may take to get to user space.
pub const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// How long nothing may come: no row takes as long.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// Characters of an error message that are told.
const MESSAGE_CHARS: usize = 400;

/// What came of a run.
pub enum Outcome {
    /// The machine is not to be had here, and says why.
    Absent(String),
    /// It ran.
    Ran {
        /// The rows it finished.
        lines: Vec<Line>,
        /// What is wrong with it.
        complaints: Vec<String>,
        /// What it said beside, as far as it was let end by itself.
        said: String,
    },
}

/// Runs the basket until it says that it has ended, or nothing more comes. `to_the_end`: the machine
/// is to be powered off, and may say something.
pub fn run_once(mut command: Command, to_the_end: bool) -> anyhow::Result<Outcome> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let out = child.stdout.take().context("no output")?;
    let mut errors = child.stderr.take().context("no errors")?;
    let (sender, texts) = mpsc::channel();
    let reader = thread::spawn(move || {
        for text in BufReader::new(out).split(b'\n').map_while(Result::ok) {
            let _ = sender.send(String::from_utf8_lossy(&text).trim().to_owned());
        }
    });
    let errors = thread::spawn(move || {
        let mut text = String::new();
        let _ = errors.read_to_string(&mut text);
        text
    });
    let (mut lines, mut complaints, mut started) = (Vec::new(), Vec::new(), false);
    let missing = loop {
        let limit = if started { SILENCE_LIMIT } else { BOOT_LIMIT };
        match texts.recv_timeout(limit) {
            Ok(text) if text == END => break None,
            Ok(text) if text.starts_with(WRONG) => complaints.push(text),
            Ok(text) => {
                started |= text.contains(UP);
                lines.extend(text.parse::<Line>());
            }
            Err(RecvTimeoutError::Timeout) => break Some(format!("nothing came for {limit:?}")),
            Err(RecvTimeoutError::Disconnected) => break Some("it ended".to_owned()),
        }
    };
    if to_the_end && missing.is_none() {
        while texts.recv_timeout(SILENCE_LIMIT).is_ok() {}
    } else {
        let _ = child.kill();
    }
    child.wait()?;
    let _ = reader.join();
    let said = errors.join().unwrap_or_default();
    let errors: String = said.trim().chars().take(MESSAGE_CHARS).collect();
    if let Some(why) = missing {
        if lines.is_empty() && !started {
            return Ok(Outcome::Absent(if errors.is_empty() { why } else { errors }));
        }
        let last = lines.last().map_or("the beginning", |line: &Line| line.name.as_str());
        complaints.push(format!("{why} after {last}; {errors}"));
    }
    Ok(Outcome::Ran { lines, complaints, said })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Outcome {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run_once(command, true).unwrap()
    }

    #[test]
    fn an_engine_that_does_not_start_is_absent_with_its_message() {
        let Outcome::Absent(why) = shell("echo no such engine >&2; exit 4") else {
            panic!("it ran");
        };
        assert_eq!(why, "no such engine");
    }

    #[test]
    fn an_end_in_the_middle_is_complained_about() {
        let script = "echo TRINE-GUEST-UP; echo 'BASKET call 01 2.0 3.0'";
        let Outcome::Ran { lines, complaints, .. } = shell(script) else { panic!("absent") };
        assert_eq!((lines.len(), complaints.len()), (1, 1));
        let script = format!("{script}; echo BASKET-END; echo 7 exits >&2");
        let Outcome::Ran { lines, complaints, said } = shell(&script) else { panic!("absent") };
        assert_eq!((lines.len(), complaints.len(), said.as_str()), (1, 0, "7 exits\n"));
    }
}
