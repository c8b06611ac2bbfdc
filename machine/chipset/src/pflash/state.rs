//! Saved form: the command state machine. The array is memory, and saved with it.

use bus::{Saved, saved_form};

use super::spec::*;

/// What changes while the guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    /// What reads are of: the command.
    pub reading: u8,
    /// The first cycle of the command that is being given; 0 when none is.
    pub pending: u8,
    /// The status register.
    pub status: u8,
    /// Bytes of a buffered program still to come.
    pub left: u8,
    /// The array is mapped for reading, so that reads do not come here.
    pub shown: bool,
    /// Reads of the array that came here, one after the other.
    pub reads: u8,
    /// What a buffered program will write; bytes it does not are all ones, which programs nothing.
    pub buffer: [u8; BUFFER_SIZE],
    /// Where the buffer begins in the array.
    pub buffer_at: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            reading: READ_ARRAY,
            pending: 0,
            status: SR_READY,
            left: 0,
            shown: true,
            reads: 0,
            buffer: [0xff; BUFFER_SIZE],
            buffer_at: 0,
        }
    }
}

saved_form! {
    pub(super) struct SavedFlash: State {
        #[n(0)] reading: u8;
        #[n(1)] pending: u8;
        #[n(2)] status: u8;
        #[n(3)] left: u8;
        #[n(4)] shown: bool, loaded shown && reading == READ_ARRAY;
        #[n(5)] reads: u8;
        #[cbor(n(6), with = "minicbor::bytes")]
        buffer: Vec<u8>, saved buffer.into(), loaded buffer_of(&buffer)?;
        #[n(7)] buffer_at: u64;
    }
}

impl Saved for SavedFlash {
    const KIND: &'static str = "pflash";
    const VERSION: u16 = 1;
}

fn buffer_of(bytes: &[u8]) -> Result<[u8; BUFFER_SIZE], bus::SectionError> {
    bytes.try_into().map_err(|_| bus::SectionError::Impossible {
        kind: SavedFlash::KIND,
        reason: format!("a write buffer of {} bytes", bytes.len()),
    })
}
