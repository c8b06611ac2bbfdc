//! Kills whoever writes to a qcow2 image, and looks at what is left: metadata must be sound, and
//! what was flushed must be there.
//!
//! The program is its own writer: started as `powercut write IMAGE FIRST`, it writes, zeroes and
//! discards from several threads and tells what it has flushed, until it is killed. What a slot
//! may hold follows from the numbers of rounds alone, so nothing else is remembered.

mod killer;
mod writer;

pub use killer::{Summary, run};
pub use writer::write;

/// Threads of the writer, each with slots of its own.
const WORKERS: u64 = 3;
/// Slots of a thread.
const SLOTS: u64 = 600;
/// Bytes of a slot.
const SLOT_BYTES: u64 = 4096;
/// Bytes of the disk: slots are spread, so that clusters, L2 tables and refcounts are made.
const DISK_BYTES: u64 = 1 << 30;
/// Rounds of a writer at most: the next one's numbers begin after them.
const ROUNDS: u64 = 1 << 32;

/// Where a slot is.
fn offset(worker: u64, slot: u64) -> u64 {
    // A step that is no multiple of a cluster, over all of the disk.
    let step = DISK_BYTES / SLOT_BYTES / (WORKERS * SLOTS);
    (slot * WORKERS + worker) * step * SLOT_BYTES
}

/// What a round does to which slot: the slot, and whether it is made zero.
fn action(worker: u64, round: u64) -> (u64, bool) {
    let mut x = (round << 2 | worker).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 29;
    (x % SLOTS, x >> 40 & 7 == 0)
}

/// What a round writes.
fn content(worker: u64, round: u64) -> Vec<u8> {
    let words = (0..SLOT_BYTES / 16).flat_map(|n| [round ^ n << 48, worker ^ n]);
    words.flat_map(u64::to_le_bytes).collect()
}
