//! Interrupt lines and messages.

use std::sync::Arc;

use x86_state::Msi;

/// Where lines end: an interrupt controller, or a test.
pub trait LineSink: Send + Sync {
    /// The level of input `input` is now `level`. Called for every change, and maybe without one.
    fn set_line(&self, input: u32, level: bool);
}

/// One wire from a device to a [`LineSink`].
#[derive(Clone)]
pub struct Line {
    sink: Arc<dyn LineSink>,
    input: u32,
}

impl Line {
    /// The wire to `input` of `sink`.
    pub fn new(sink: Arc<dyn LineSink>, input: u32) -> Self {
        Self { sink, input }
    }

    /// A wire that ends nowhere.
    pub fn unconnected() -> Self {
        Self::new(Arc::new(Nowhere), 0)
    }

    /// Drives the wire.
    pub fn set(&self, level: bool) {
        self.sink.set_line(self.input, level);
    }

    /// Drives the wire high and low again, for edge-triggered inputs.
    pub fn pulse(&self) {
        self.set(true);
        self.set(false);
    }
}

struct Nowhere;

impl LineSink for Nowhere {
    fn set_line(&self, _input: u32, _level: bool) {}
}

/// Where message-signalled interrupts go: the CPU socket, or a test.
pub trait MsiSink: Send + Sync {
    /// Sends one. Never blocks on the guest, and is never lost.
    fn send_msi(&self, msi: Msi);
}

/// Messages go nowhere.
pub struct NoMsi;

impl MsiSink for NoMsi {
    fn send_msi(&self, _msi: Msi) {}
}
