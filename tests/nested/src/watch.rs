//! Following a run: what the command prints is between two marks on a serial port.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::{EXIT_BROKEN, EXIT_TIMEOUT};

/// So long it may be silent before a character is sent to it. QEMU 7.2 changes a processor's pending
/// interrupts without their lock at VMRUN and #VMEXIT, and so can lose one; when that was the only
/// processor's timer, the machine sleeps until any other interrupt comes.
const NUDGE: Duration = Duration::from_millis(500);

/// What the machine's serial port tells.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Output(String),
    End(Option<i32>),
}

/// Runs the machine, hands on what the command prints, and returns its exit code.
pub(crate) fn watch(
    machine: &mut Command,
    mark: &str,
    timeout: Duration,
    output: &mut dyn FnMut(&str),
) -> anyhow::Result<i32> {
    let mut running =
        machine.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().with_context(|| {
            format!("cannot start {}", OsStr::to_string_lossy(machine.get_program()))
        })?;
    let port = running.stdout.take().context("no output")?;
    let mut keys = running.stdin.take().context("no input")?;
    let (tell, told) = mpsc::channel();
    let mark = mark.to_owned();
    thread::spawn(move || read(BufReader::new(port), &mark, &tell));
    let deadline = Instant::now() + timeout;
    let code = loop {
        if Instant::now() > deadline {
            break EXIT_TIMEOUT;
        }
        match told.recv_timeout(NUDGE) {
            Ok(Told::Output(text)) => output(&text),
            Ok(Told::End(code)) => break code.unwrap_or(EXIT_BROKEN),
            // Should it have ended, the port says so.
            Err(RecvTimeoutError::Timeout) => drop(keys.write_all(b"\n")),
            Err(RecvTimeoutError::Disconnected) => break EXIT_BROKEN,
        }
    };
    stop(&mut running)?;
    Ok(code)
}

fn stop(running: &mut Child) -> anyhow::Result<()> {
    // It powers off by itself where all is well.
    for _ in 0..20 {
        if running.try_wait()?.is_some() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
    }
    running.kill()?;
    running.wait()?;
    Ok(())
}

/// Tells what is between the two marks; the exit code is behind the second. Ends early when the
/// port breaks, or nobody listens.
fn read(mut port: impl BufRead, mark: &str, tell: &Sender<Told>) {
    let (begin, end) = (format!("{mark} BEGIN"), format!("{mark} END "));
    let mut on = false;
    let mut line = Vec::new();
    while let Ok(1..) = port.read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(&line).replace('\r', "");
        line.clear();
        if let Some(at) = text.find(&end) {
            let code = text[at + end.len()..].trim().parse().ok();
            let _ = tell.send(Told::Output(text[..at].to_owned()));
            let _ = tell.send(Told::End(code));
            return;
        }
        let begins = text.contains(&begin);
        if on && tell.send(Told::Output(text)).is_err() {
            return;
        }
        on |= begins;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(output: &[u8]) -> Vec<Told> {
        let (tell, told) = mpsc::channel();
        read(output, "M", &tell);
        drop(tell);
        told.iter().collect()
    }

    #[test]
    fn only_what_is_between_the_marks_counts() {
        let text = |text: &str| Told::Output(text.to_owned());
        assert_eq!(
            told(b"noise\r\nM BEGIN\r\nhello\r\nno newlineM END 3\r\nnoise\r\n"),
            [text("hello\n"), text("no newline"), Told::End(Some(3))]
        );
        assert_eq!(told(b"M BEGIN\r\nhello\r\n"), [text("hello\n")]);
    }
}
