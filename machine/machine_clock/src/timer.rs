//! Armed timers, in order of their deadlines.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::{MachineClock, lock};

type Callback = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Table {
    /// By deadline, then by timer: equal deadlines fire in the order the timers were made.
    armed: BTreeMap<(u64, u64), Callback>,
    waker: Option<Callback>,
}

/// The timers of a clock.
#[derive(Default)]
pub(crate) struct TimerTable {
    table: Mutex<Table>,
    next_id: AtomicU64,
}

impl TimerTable {
    pub(crate) fn next(&self) -> Option<u64> {
        lock(&self.table).armed.first_key_value().map(|(key, _)| key.0)
    }

    pub(crate) fn set_waker(&self, waker: Callback) {
        lock(&self.table).waker = Some(waker);
    }

    pub(crate) fn wake(&self) {
        let waker = lock(&self.table).waker.clone();
        if let Some(waker) = waker {
            waker();
        }
    }

    /// Fires timers due at `now_ns`, without those that they arm for the past: a periodic timer
    /// that lags must not hold the caller for ever.
    pub(crate) fn fire_until(&self, now_ns: u64) {
        let due = {
            let mut table = lock(&self.table);
            let rest = table.armed.split_off(&(now_ns, u64::MAX));
            std::mem::replace(&mut table.armed, rest)
        };
        for callback in due.into_values() {
            callback();
        }
    }

    fn arm(&self, key: (u64, u64), callback: &Callback) {
        let mut table = lock(&self.table);
        let earliest = table.armed.first_key_value().is_none_or(|(first, _)| key < *first);
        table.armed.insert(key, callback.clone());
        drop(table);
        if earliest {
            self.wake();
        }
    }

    fn disarm(&self, key: (u64, u64)) {
        lock(&self.table).armed.remove(&key);
    }
}

/// Calls back at a machine time. Dropping it disarms it.
///
/// A callback may still come once after the timer was moved or disarmed, when it was already on
/// its way: it must look at the device's state, not trust that it was called.
pub struct Timer {
    clock: Weak<MachineClock>,
    id: u64,
    deadline_ns: Mutex<Option<u64>>,
    callback: Callback,
}

impl Timer {
    pub(crate) fn new(clock: &Arc<MachineClock>, callback: Callback) -> Self {
        let id = clock.timers.next_id.fetch_add(1, Ordering::Relaxed);
        Self { clock: Arc::downgrade(clock), id, deadline_ns: Mutex::new(None), callback }
    }

    /// Arms the timer for this machine time, in nanoseconds, or disarms it. A time that has
    /// passed fires as soon as it can.
    pub fn set(&self, deadline_ns: Option<u64>) {
        let mut current = lock(&self.deadline_ns);
        let Some(clock) = self.clock.upgrade() else { return };
        if let Some(old) = std::mem::replace(&mut *current, deadline_ns) {
            clock.timers.disarm((old, self.id));
        }
        if let Some(new) = deadline_ns {
            clock.timers.arm((new, self.id), &self.callback);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.set(None);
    }
}
