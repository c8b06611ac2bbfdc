//! The 256 bytes, and which of their bits the guest can change.

use crate::spec::{
    CAPABILITIES_POINTER, CONFIG_SIZE, DEVICE_SPECIFIC, STATUS, STATUS_CAPABILITIES,
};

/// Configuration space as bytes.
pub type ConfigBytes = [u8; CONFIG_SIZE];

/// Configuration space of one function.
#[derive(Clone)]
pub(crate) struct Registers {
    pub(crate) bytes: ConfigBytes,
    pub(crate) writable: ConfigBytes,
    /// Where the next capability goes.
    free: usize,
    /// Where its address is to be written.
    link: usize,
}

impl Registers {
    pub(crate) fn new() -> Self {
        Self {
            bytes: [0; CONFIG_SIZE],
            writable: [0; CONFIG_SIZE],
            free: DEVICE_SPECIFIC,
            link: CAPABILITIES_POINTER,
        }
    }

    /// Sets a register and which of its bits the guest can write.
    pub(crate) fn set(&mut self, at: usize, value: &[u8], writable: &[u8]) {
        self.bytes[at..at + value.len()].copy_from_slice(value);
        self.writable[at..at + writable.len()].copy_from_slice(writable);
    }

    pub(crate) fn set_u16(&mut self, at: usize, value: u16, writable: u16) {
        self.set(at, &value.to_le_bytes(), &writable.to_le_bytes());
    }

    pub(crate) fn set_u32(&mut self, at: usize, value: u32, writable: u32) {
        self.set(at, &value.to_le_bytes(), &writable.to_le_bytes());
    }

    pub(crate) fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    pub(crate) fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) | u32::from(self.u16(at + 2)) << 16
    }

    /// Appends a capability; `body` follows its ID and link. Returns where it is.
    pub(crate) fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> usize {
        let at = self.free;
        assert!(at + 2 + body.len() <= CONFIG_SIZE, "capabilities do not fit");
        assert_eq!(body.len(), writable.len(), "a capability's mask has its length");
        self.bytes[self.link] = at as u8; // at most 255, by the assertion
        self.set_u16(STATUS, self.u16(STATUS) | STATUS_CAPABILITIES, 0);
        self.bytes[at] = id;
        self.set(at + 2, body, writable);
        self.link = at + 1;
        self.free = (at + 2 + body.len()).next_multiple_of(4);
        at
    }

    pub(crate) fn read(&self, at: usize, data: &mut [u8]) {
        if let Some(bytes) = self.bytes.get(at..).and_then(|rest| rest.get(..data.len())) {
            data.copy_from_slice(bytes);
        }
    }

    pub(crate) fn write(&mut self, at: usize, data: &[u8]) {
        for (i, new) in (at..CONFIG_SIZE).zip(data) {
            self.bytes[i] = self.bytes[i] & !self.writable[i] | new & self.writable[i];
        }
    }
}
