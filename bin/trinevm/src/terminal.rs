//! The terminal in raw mode, and back, whatever happens.
//!
//! It is put back when the guard is dropped, when the process panics, and on SIGCONT it is made
//! raw again (the shell has it cooked while a job is stopped). For a process that is killed,
//! `trine run` does the same from outside.

use std::io;
use std::sync::{Mutex, PoisonError, TryLockError};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

/// What the terminal was before; `None` while it is not ours.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal is raw for as long as this lives.
#[derive(Debug)]
pub struct RawTerminal(());

impl RawTerminal {
    /// Makes the terminal on the standard input raw; later, if another job has it now.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn enter() -> io::Result<Self> {
        let panicking = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            panicking(panic);
        }));
        let raw = Self(());
        raw.renew()?;
        Ok(raw)
    }

    /// Makes it raw, again after a stop, unless another job has it.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn renew(&self) -> io::Result<()> {
        if !is_foreground() {
            return Ok(());
        }
        let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
        if before.is_none() {
            *before = Some(tcgetattr(io::stdin())?);
        }
        let Some(mut raw) = before.clone() else { return Ok(()) };
        raw.make_raw();
        Ok(tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the terminal back. Nothing happens when it is as it was. Never blocks.
pub fn restore() {
    let before = match BEFORE.try_lock() {
        Ok(mut before) => before.take(),
        Err(TryLockError::Poisoned(error)) => error.into_inner().take(),
        // It is being changed by a thread that is still alive, which has it.
        Err(TryLockError::WouldBlock) => None,
    };
    if let Some(before) = before {
        // There is nobody to tell.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}

fn is_foreground() -> bool {
    tcgetpgrp(io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}
