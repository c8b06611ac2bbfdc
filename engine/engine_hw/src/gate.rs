//! Keeps vCPUs out of guest mode while memory slots change.
//!
//! The kernel can neither split nor move a slot in one step. A vCPU that ran between the removal
//! of one and the making of its successor would see its RAM as MMIO.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

fn lock(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One door a vCPU.
///
/// *Locks*: `change`, then the doors by index. A vCPU's thread holds its door only inside the
/// kernel, never while it calls the bus, so a device may cause a change.
pub(crate) struct Gate {
    change: Mutex<()>,
    closing: AtomicBool,
    doors: Box<[Mutex<()>]>,
}

impl Gate {
    /// For this many vCPUs.
    pub(crate) fn new(vcpus: usize) -> Self {
        let doors = (0..vcpus).map(|_| Mutex::new(())).collect();
        Self { change: Mutex::new(()), closing: AtomicBool::new(false), doors }
    }

    /// To be held by a vCPU's thread while it is in the kernel.
    pub(crate) fn pass(&self, vcpu: usize) -> MutexGuard<'_, ()> {
        loop {
            let door = lock(&self.doors[vcpu]);
            if !self.closing.load(SeqCst) {
                return door;
            }
            drop(door);
            drop(lock(&self.change));
        }
    }

    /// Runs `change` while no vCPU is in the kernel. `poke` gets them out.
    pub(crate) fn closed<R>(&self, poke: impl Fn(), change: impl FnOnce() -> R) -> R {
        let changing = lock(&self.change);
        self.closing.store(true, SeqCst);
        // A vCPU that passed before the store is inside or about to enter, and sees the poke.
        poke();
        let doors: Vec<_> = self.doors.iter().map(lock).collect();
        let result = change();
        self.closing.store(false, SeqCst);
        drop(doors);
        drop(changing);
        result
    }
}
