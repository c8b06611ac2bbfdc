//! User code's tables of jumps, which are below each view and mirror.
//!
//! UNSAFETY: writes entries through raw pointers; the tables are as long as here, and mapped as long as
//! the view or mirror they are below, which hands this out for a moment.
#![allow(unsafe_code, reason = "the tables are shared with generated code")]

use super::{FAR_JUMPS_SIZE, JUMPS_SIZE};
use crate::context::{FAR_JUMPS, FAR_TURN, JUMPS};

/// Where they begin.
#[derive(Clone, Copy)]
pub(super) struct Tables(pub(super) usize);

impl Tables {
    fn far(self) -> *mut [u64; 2] {
        self.0 as *mut [u64; 2]
    }

    fn jumps_for(self) -> *mut u64 {
        (self.0 + FAR_JUMPS_SIZE) as *mut u64
    }

    fn jumps(self) -> *mut u64 {
        (self.0 + FAR_JUMPS_SIZE + JUMPS_SIZE) as *mut u64
    }

    /// All jumps miss.
    pub(super) fn clear(self, miss: u64) {
        // SAFETY: see the module.
        unsafe { std::slice::from_raw_parts_mut(self.jumps(), JUMPS) }.fill(miss);
    }

    /// The same, where far ones may have been set.
    pub(super) fn clear_all(self, miss: u64) {
        self.clear(miss);
        // SAFETY: see the module.
        unsafe { std::slice::from_raw_parts_mut(self.far(), FAR_JUMPS) }.fill([0; 2]);
    }

    /// Jumps to `rip` go to `place` by the near table and to `host` by the far one.
    pub(super) fn set(self, rip: u64, place: u64, host: u64) {
        let index = rip as usize & (JUMPS - 1);
        // SAFETY: see the module; the indices are inside the tables.
        unsafe {
            self.jumps().add(index).write_volatile(place);
            self.jumps_for().add(index).write_volatile(rip.wrapping_neg());
            self.far().add(far_place(rip)).write_volatile([rip.wrapping_neg(), host]);
        }
    }

    /// Jumps to `rip` miss.
    pub(super) fn forget(self, rip: u64, miss: u64) {
        let index = rip as usize & (JUMPS - 1);
        // SAFETY: see the module; the indices are inside the tables.
        unsafe {
            self.jumps().add(index).write_volatile(miss);
            self.far().add(far_place(rip)).write_volatile([0; 2]);
        }
    }
}

/// Where an address is in a far table: large programs have code 256 KiB apart. See
/// [`crate::entry::user_jump_again`].
fn far_place(rip: u64) -> usize {
    (rip.wrapping_add(rip.rotate_right(FAR_TURN))) as usize & (FAR_JUMPS - 1)
}
