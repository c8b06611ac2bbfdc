//! All vCPUs but one stand still, between two instructions.
//!
//! For what hardware does with its bus locked and the host has no operation for: a LOCKed access
//! that is split over two pages, or that is not to memory (SDM vol. 3A, 9.1.2). It is rare enough
//! for the price.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Table {
    /// vCPUs that may touch memory now.
    running: u32,
    /// One has the machine to itself, or waits for it.
    held: bool,
}

/// Who may touch memory. A leaf among locks, but for mail.
#[derive(Default)]
pub(crate) struct Standstill {
    table: Mutex<Table>,
    changed: Condvar,
}

impl Standstill {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, table: MutexGuard<'a, Table>) -> MutexGuard<'a, Table> {
        self.changed.wait(table).unwrap_or_else(PoisonError::into_inner)
    }

    /// A vCPU begins to run, once none stands in its way.
    pub(crate) fn enter(&self) {
        let mut table = self.table();
        while table.held {
            table = self.wait(table);
        }
        table.running += 1;
    }

    /// A vCPU that has entered touches no memory any more.
    pub(crate) fn leave(&self) {
        self.table().running -= 1;
        self.changed.notify_all();
    }

    /// One that has entered goes on alone. `ask` is to make the others leave.
    pub(crate) fn begin(&self, ask: impl FnOnce()) {
        self.leave(); // others may want the same
        let mut table = self.table();
        while table.held {
            table = self.wait(table);
        }
        table.held = true;
        if table.running > 0 {
            ask();
        }
        while table.running > 0 {
            table = self.wait(table);
        }
    }

    /// Ends that.
    pub(crate) fn end(&self) {
        let mut table = self.table();
        table.held = false;
        table.running += 1;
        drop(table);
        self.changed.notify_all();
    }
}
