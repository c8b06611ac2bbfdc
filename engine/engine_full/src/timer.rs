//! A thread that leaves mail when a local APIC's timer is due: translated code looks at no clock.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use engine_soft::{Complex, Mailbox};

#[derive(Default)]
struct Table {
    /// By vCPU: machine time in nanoseconds.
    due: Vec<Option<u64>>,
    ends: bool,
}

struct Inside {
    table: Mutex<Table>,
    changed: Condvar,
    soft: Arc<Complex>,
}

impl Inside {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut table = self.table();
        while !table.ends {
            let now = self.soft.clock.now_ns();
            let mut next = None;
            for (slot, due) in self.soft.slots.iter().zip(&mut table.due) {
                match *due {
                    Some(at) if at <= now => {
                        *due = None;
                        slot.mail.post(Mailbox::INTERRUPT);
                    }
                    Some(at) => next = Some(next.map_or(at, |n: u64| n.min(at))),
                    None => {}
                }
            }
            table = match next {
                None => self.changed.wait(table).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let limit = Duration::from_nanos(at - now);
                    let waited = self.changed.wait_timeout(table, limit);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// When each vCPU is to look at its timer.
pub(crate) struct Timers {
    inside: Arc<Inside>,
    thread: Option<JoinHandle<()>>,
}

impl Timers {
    pub(crate) fn new(soft: Arc<Complex>) -> Self {
        let table = Table { due: vec![None; soft.slots.len()], ends: false };
        let inside = Arc::new(Inside { table: Mutex::new(table), changed: Condvar::new(), soft });
        let own = inside.clone();
        let spawned = std::thread::Builder::new().name("timers".into()).spawn(move || own.run());
        Self { inside, thread: spawned.ok() }
    }

    /// The vCPU wants to look at machine time `due`, or not at all.
    pub(crate) fn set(&self, vcpu: usize, due: Option<u64>) {
        let mut table = self.inside.table();
        let before = table.due.iter().flatten().min().copied();
        table.due[vcpu] = due;
        let sooner = due.is_some_and(|at| before.is_none_or(|b| at < b));
        drop(table);
        if sooner {
            self.inside.changed.notify_one();
        }
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        self.inside.table().ends = true;
        self.inside.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
