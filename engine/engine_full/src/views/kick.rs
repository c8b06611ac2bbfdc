//! The word others stop translated code with.
//!
//! UNSAFETY: names a word of a mapping of its own.
#![allow(unsafe_code, reason = "the word is shared with generated code")]

use std::sync::atomic::{AtomicU64, Ordering};

use engine_soft::Alarm;

use super::reservation::Reservation;
use crate::context::Context;

/// The word that makes translated code come back, mapped apart so that it outlives the views.
pub(crate) struct KickWord {
    pub(super) mapping: Reservation,
}

impl KickWord {
    fn word(&self) -> &AtomicU64 {
        let at = self.mapping.start + std::mem::offset_of!(Context, jump_mask);
        // SAFETY: the mapping is of the context's file, and lives as long as `self`.
        unsafe { AtomicU64::from_ptr(at as *mut u64) }
    }
}

impl Alarm for KickWord {
    fn ring(&self) {
        self.word().store(0, Ordering::SeqCst);
    }
}
