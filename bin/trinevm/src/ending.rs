//! How a run ends, as people and scripts see it.

use std::fs::File;
use std::io::Write;
use std::process::ExitCode;

use evloop::Signal;
use vmm::{Outcome, VmError};

/// For `--help`. docs/cli.md has the same table.
pub const TABLE: &str = "\
Exit status:
   0  the guest powered off
   2  the command line or one of its files is wrong; nothing was started
   4  the host or the engine failed, or cannot run this VM
   6  ended from outside: Ctrl-A x, or quit on the control socket
   8  the guest reset itself (reboot, or a panic with panic=-1)
  10  a CPU of the guest stopped with a triple fault
 odd  the guest wrote N to the debug-exit port: (N << 1) | 1, lowest 8 bits
A signal (TERM, INT, HUP, QUIT) ends the VM, and then this process with that signal.";

/// How a run ends.
#[derive(Debug)]
pub enum Ending {
    /// The VM ran, and ended so.
    Ran(Outcome),
    /// What was asked for was only to be printed.
    Told,
    /// The command line or a file is wrong: the message.
    Usage(String),
    /// The host or an engine failed: the message.
    Host(String),
    /// A signal ended it.
    Signal(Signal),
}

impl Ending {
    /// A command line that is wrong.
    pub fn usage(message: String) -> Self {
        Self::Usage(message)
    }

    /// The host refuses something.
    pub fn host(what: &str, error: &std::io::Error) -> Self {
        Self::Host(format!("{what}: {error}"))
    }

    /// What is to be said, in one line.
    fn said(&self) -> Option<String> {
        let said = match self {
            Self::Usage(message) | Self::Host(message) => message.as_str(),
            Self::Ran(Outcome::Reset) => "the guest reset the VM",
            Self::Ran(Outcome::TripleFault) => "a CPU of the guest stopped: triple fault",
            _ => return None,
        };
        Some(said.trim_end().replace('\n', " "))
    }

    /// Writes the exit status and what is to be said into a file, a line each: what has no second line was cut
    /// off. For who has not started this process and so is not told by the host.
    pub fn record(&self, mut file: File) {
        let text = format!("{}\n{}\n", self.status(), self.said().unwrap_or_default());
        if let Err(error) = file.write_all(text.as_bytes()) {
            eprintln!("trinevm: cannot write the record of the end: {error}");
        }
    }

    /// Says what is to be said, and ends the process.
    pub fn end(self) -> ExitCode {
        if let Some(said) = self.said() {
            eprintln!("trinevm: {said}");
        }
        if let Self::Signal(signal) = self {
            signal.die_of();
        }
        ExitCode::from(self.status())
    }

    fn status(&self) -> u8 {
        match self {
            Self::Ran(Outcome::PowerOff) | Self::Told => 0,
            Self::Usage(_) => 2,
            Self::Host(_) => 4,
            Self::Ran(Outcome::Quit) => 6,
            Self::Ran(Outcome::Reset) => 8,
            Self::Ran(Outcome::TripleFault) => 10,
            // Odd, as the port makes it: never zero, nor one of the others.
            Self::Ran(Outcome::DebugExit(status)) => *status as u8 | 1,
            Self::Signal(signal) => 128 + signal.number() as u8,
        }
    }
}

impl From<VmError> for Ending {
    fn from(error: VmError) -> Self {
        let message = errchain::Chain(&error).to_string();
        if error.is_usage() { Self::Usage(message) } else { Self::Host(message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_exits_are_odd_and_everything_else_is_even() {
        for value in 0..=u32::from(u8::MAX) + 2 {
            let status = Ending::Ran(Outcome::DebugExit(value)).status();
            assert_eq!(u32::from(status), (value | 1) & 0xff);
        }
        let others = [Outcome::PowerOff, Outcome::Quit, Outcome::Reset, Outcome::TripleFault];
        let mut statuses: Vec<_> = others.map(|o| Ending::Ran(o).status()).into();
        statuses.extend(
            [Ending::usage(String::new()), Ending::Host(String::new())].map(|e| e.status()),
        );
        assert!(statuses.iter().all(|status| status.is_multiple_of(2)));
        statuses.sort_unstable();
        statuses.dedup();
        assert_eq!(statuses.len(), 6);
    }

    #[test]
    fn the_help_has_every_status() {
        for status in [0, 2, 4, 6, 8, 10] {
            assert!(TABLE.contains(&format!("{status:4}  ")), "{status}");
        }
    }
}
