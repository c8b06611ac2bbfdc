//! The cage of a VM's process: when all it needs is open, it gives up the right to anything else.
//!
//! [`Cage::close`] is called once, by the control thread, after set-up and before the guest's first
//! instruction. From then on every thread of the process, those that are there and those to come:
//!
//! - has no capabilities, gains no privileges by `execve`, and, where it was asked for, is an unprivileged
//!   user's in an empty root folder ([`Cage::user`]);
//! - opens no file by its name and makes, removes or renames none (Landlock, with no exception; and system
//!   calls for it are refused);
//! - makes no system call that is not listed in `filters`. What only an intruder would ask for ends the
//!   process; everything else that is not listed fails with EPERM, because a rare path through a library must
//!   not cost a guest its life.
//!
//! vCPUs' threads have a narrower list ([`VcpuFilter`]).
//!
//! *Invariants*: what this host's kernel cannot do is left out and said ([`Level::lacks`]), never an error;
//! what the operator asked for by number, a user ID, is done or an error. Nothing here ever widens.
//!
//! What this crate may not know: VMs, devices, engines beyond what their system calls are.
//! It follows `seccomp(2)`, `landlock(7)`, `capabilities(7)`, `cgroups(7)`.

mod filters;
mod host;
mod landlock;
mod threads;

use std::io;
use std::path::PathBuf;

pub use filters::{Needs, VcpuFilter};
pub use host::{close_inherited, join, leave_namespaces};

/// What the cage is to be like.
#[derive(Debug, Clone, Default)]
pub struct Cage {
    /// What the process goes on doing.
    pub needs: Needs,
    /// Who it is from then on, and the empty folder that is all it sees of the file system. Only root can ask
    /// for it.
    pub user: Option<(u32, PathBuf)>,
}

/// What holds, in words for people, and what this host lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Level {
    /// What holds.
    pub holds: Vec<String>,
    /// What does not, and why.
    pub lacks: Vec<String>,
}

impl Level {
    /// Takes in what holds, or why something does not.
    pub fn note(&mut self, result: Result<String, String>) {
        match result {
            Ok(holds) => self.holds.push(holds),
            Err(lacks) => self.lacks.push(lacks),
        }
    }
}

/// Why a cage cannot be closed.
#[derive(Debug, thiserror::Error)]
pub enum CageError {
    /// The user it was to be.
    #[error("the process cannot become user {user}: only root can")]
    User {
        /// Which.
        user: u32,
        /// What the host says.
        source: io::Error,
    },
    /// The folder it was to see.
    #[error("the process cannot have {} as its root folder", path.display())]
    Root {
        /// Which.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// A thread that does not answer.
    #[error("the process's rights cannot be given up")]
    Rights(#[source] io::Error),
    /// The list of system calls: our mistake.
    #[error("the list of system calls is wrong: this is a bug of this program: {0}")]
    List(String),
}

impl Cage {
    /// Closes it, for all threads.
    ///
    /// # Errors
    /// When what was asked for cannot be had; not for what the kernel does not know. The process must end then.
    pub fn close(&self) -> Result<Level, CageError> {
        let mut level = Level::default();
        let rules = landlock::closed(self.needs.inet);
        let fd = rules.as_ref().ok().map(|(fd, _)| fd);
        threads::give_up(fd, self.user.is_some()).map_err(CageError::Rights)?;
        if let Some((user, root)) = &self.user {
            // Whoever stops being root has no capabilities (capabilities(7)).
            host::change_root(root)?;
            host::change_user(*user)?;
            level.holds.push(format!("user {user} in an empty root folder"));
        }
        level.holds.push("no capabilities, no new privileges".to_owned());
        level.note(match &rules {
            Ok((_, abi)) => Ok(format!("landlock, version {abi}: no file is opened")),
            Err(error) => Err(format!("landlock: this kernel has none ({error})")),
        });
        level.note(filters::install(&self.needs)?);
        Ok(level)
    }
}
