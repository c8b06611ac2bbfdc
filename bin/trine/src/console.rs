//! A managed VM's serial port at this terminal.

use std::io::{IsTerminal, Read, Write, stdin, stdout};

use clap::Args;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::daemon::{Client, Where};

/// Ctrl-], as in telnet.
const LEAVE: u8 = 0x1d;

#[derive(Args)]
pub struct Options {
    /// Its name or ID
    vm: String,
    #[command(flatten)]
    to: Where,
}

/// Puts the terminal back when it is left.
struct Raw(Termios);

impl Raw {
    fn enter() -> anyhow::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that refuses now has gone.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.0);
    }
}

/// Shows what the guest prints and types what is typed, until Ctrl-] or the VM is gone.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let mut client = Client::connect(&options.to)?;
    let is_terminal = stdin().is_terminal();
    let (keys, typed) = tokio::sync::mpsc::channel(16);
    if is_terminal {
        eprintln!("trine: Ctrl-] leaves the console; the VM goes on");
    }
    let raw = is_terminal.then(Raw::enter).transpose()?;
    std::thread::spawn(move || {
        let mut bytes = [0; 1024];
        while let Ok(length @ 1..) = stdin().read(&mut bytes) {
            let typed = &bytes[..length];
            let leaves = is_terminal && typed.contains(&LEAVE);
            if leaves || keys.blocking_send(typed.to_vec()).is_err() {
                return;
            }
        }
    });
    let result = client.converse(&format!("/v1/vms/{}/console", options.vm), typed, |bytes| {
        stdout().write_all(bytes)?;
        Ok(stdout().flush()?)
    });
    drop(raw);
    result
}
