//! Interrupt pins (PCI Local Bus 3.0, 2.2.6 and 6.2.4), for systems that do not use messages.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bus::Line;

use crate::DevFn;

/// INTA to INTD, as the interrupt pin register has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin(u8);

impl Pin {
    /// The pin of a function: those of one device have different ones as far as there are.
    pub const fn of(at: DevFn) -> Self {
        Self(at.function() % 4)
    }

    /// 0 for INTA to 3 for INTD.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    const fn register(self) -> u8 {
        self.0 + 1
    }
}

/// The interrupt pin of a function, which nobody has wired yet.
///
/// *Lock*: a leaf but for driving the line.
#[derive(Default)]
pub struct Intx {
    // Wiring.
    wire: OnceLock<(Pin, Line)>,
    // State.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The device wants an interrupt.
    wanted: bool,
    /// Messages are on, or the command register forbids it.
    silent: bool,
    driven: bool,
}

impl Intx {
    /// A pin.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// The device wants an interrupt or not, as `wanted` says when it is asked: under a lock, so
    /// that of two who call at once the later one has the last word.
    pub fn update(&self, wanted: impl FnOnce() -> bool) {
        self.change(|state| state.wanted = wanted());
    }

    /// It may not be driven, or may.
    pub(crate) fn set_silent(&self, silent: bool) {
        self.change(|state| state.silent = silent);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let driven = state.wanted && !state.silent;
        if driven != state.driven {
            state.driven = driven;
            if let Some((_, line)) = self.wire.get() {
                line.set(driven);
            }
        }
    }

    /// Wires it, before the guest runs. The first wire stays.
    pub(crate) fn connect(&self, pin: Pin, line: Line) {
        let _ = self.wire.set((pin, line));
    }

    /// The interrupt pin register.
    pub(crate) fn register(&self) -> u8 {
        self.wire.get().map_or(0, |(pin, _)| pin.register())
    }

    /// The status register's bit: whatever the command register says (6.2.3).
    pub(crate) fn is_wanted(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).wanted
    }
}
