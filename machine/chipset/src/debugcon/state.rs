//! Saved form: the device has no state, but it has a place in a snapshot, so that a snapshot of a
//! machine with it does not load into one without.

use bus::Saved;
use minicbor::{Decode, Encode};

#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct SavedDebugCon {}

impl Saved for SavedDebugCon {
    const KIND: &'static str = "debugcon";
    const VERSION: u16 = 1;
}
