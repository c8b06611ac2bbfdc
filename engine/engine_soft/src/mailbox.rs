//! What others want of a vCPU: a word of bits that it looks at once a block, and that wakes it.
//!
//! A sender sets a bit, then wakes the thread if it sleeps. The vCPU announces that it sleeps,
//! then looks at the word once more. Both are sequentially consistent: either the vCPU sees the
//! bit, or the sender sees it sleep.
//!
//! An engine that looks at something else while it runs (a word of its own, whose turn it is) has
//! it told by an [`Alarm`].

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

/// Told of all mail.
pub trait Alarm: Send + Sync {
    /// Mail was left: [`Mailbox::any`] is true until it is taken. Called by any thread, under no
    /// lock of this crate's.
    fn ring(&self);
}

/// One vCPU's mail.
#[derive(Default)]
pub struct Mailbox {
    bits: AtomicU32,
    start_up_vector: AtomicU8,
    sleeps: AtomicBool,
    thread: Mutex<Option<Thread>>,
    alarm: OnceLock<Arc<dyn Alarm>>,
}

impl Mailbox {
    /// `run` shall return.
    pub const KICK: u32 = 1 << 0;
    /// A non-maskable interrupt came.
    pub const NMI: u32 = 1 << 1;
    /// INIT came.
    pub const INIT: u32 = 1 << 2;
    /// A start-up message came.
    pub const START_UP: u32 = 1 << 3;
    /// The memory view changed.
    pub const MEMORY: u32 = 1 << 4;
    /// Maskable interrupts are to be looked at again.
    pub const INTERRUPT: u32 = 1 << 5;
    /// Another vCPU wants the machine to itself for a moment.
    pub const STAND_STILL: u32 = 1 << 6;

    /// Rings this alarm at all mail from now on, and at once when there is some. For whoever builds
    /// the vCPU.
    ///
    /// # Panics
    /// When it has an alarm.
    pub fn set_alarm(&self, alarm: Arc<dyn Alarm>) {
        assert!(self.alarm.set(alarm).is_ok(), "a mailbox has one alarm");
        if self.any() {
            self.ring();
        }
    }

    fn ring(&self) {
        if let Some(alarm) = self.alarm.get() {
            alarm.ring();
        }
    }

    /// There is mail.
    #[inline(always)]
    pub fn any(&self) -> bool {
        self.bits.load(Ordering::Relaxed) != 0
    }

    /// Leaves mail, and wakes the vCPU.
    pub fn post(&self, bits: u32) {
        self.bits.fetch_or(bits, Ordering::SeqCst);
        self.ring();
        if self.sleeps.load(Ordering::SeqCst) {
            let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(thread) = thread.as_ref() {
                thread.unpark();
            }
        }
    }

    /// Leaves a start-up message. A second one before the first is read replaces it, as the
    /// hardware's.
    pub fn post_start_up(&self, vector: u8) {
        self.start_up_vector.store(vector, Ordering::SeqCst);
        self.post(Self::START_UP);
    }

    /// The vector of the last start-up message.
    pub fn start_up_vector(&self) -> u8 {
        self.start_up_vector.load(Ordering::SeqCst)
    }

    /// There is mail of one of these kinds.
    pub fn has(&self, bits: u32) -> bool {
        self.bits.load(Ordering::SeqCst) & bits != 0
    }

    /// Takes mail of these kinds out; what was there.
    pub fn take(&self, bits: u32) -> u32 {
        if self.any() { self.bits.fetch_and(!bits, Ordering::SeqCst) & bits } else { 0 }
    }

    /// The calling thread is the vCPU's from now on.
    pub fn adopt_thread(&self) {
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current());
    }

    /// Sleeps until there is mail, or for `limit`.
    pub fn sleep(&self, limit: Option<Duration>) {
        self.sleeps.store(true, Ordering::SeqCst);
        if self.bits.load(Ordering::SeqCst) == 0 {
            match limit {
                Some(limit) => thread::park_timeout(limit),
                None => thread::park(),
            }
        }
        self.sleeps.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Bell(AtomicU32);

    impl Alarm for Bell {
        fn ring(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn all_mail_rings_the_alarm_even_what_came_before_it() {
        let (mail, bell) = (Mailbox::default(), Arc::new(Bell::default()));
        mail.post(Mailbox::KICK);
        mail.set_alarm(bell.clone());
        assert_eq!(bell.0.load(Ordering::Relaxed), 1);
        mail.post(Mailbox::KICK);
        mail.post_start_up(7);
        assert_eq!(bell.0.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn mail_of_one_kind_leaves_the_others() {
        let mail = Mailbox::default();
        mail.post(Mailbox::KICK | Mailbox::NMI);
        assert_eq!(mail.take(!Mailbox::KICK), Mailbox::NMI);
        assert!(mail.any() && mail.has(Mailbox::KICK));
        assert_eq!(mail.take(Mailbox::KICK), Mailbox::KICK);
        assert!(!mail.any());
    }

    #[test]
    fn mail_that_came_before_keeps_the_vcpu_awake() {
        let mail = Mailbox::default();
        mail.adopt_thread();
        mail.post(Mailbox::INTERRUPT);
        mail.sleep(None);
    }
}
