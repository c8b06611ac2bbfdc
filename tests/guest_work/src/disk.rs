//! What is written to the disk, and where.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// Size of what is written at once.
pub const BLOCK_BYTES: usize = 16 << 10;
/// Places of each worker, used in turn.
pub const SLOTS: u64 = 32;
/// Workers a disk has room for.
pub const WORKERS_MAX: u64 = 4;
/// A disk for all of them.
pub const DISK_BYTES: u64 = WORKERS_MAX * SLOTS * BLOCK_BYTES as u64;

/// Where a worker writes in a round, in bytes.
pub fn at(worker: u64, round: u64) -> u64 {
    (worker * SLOTS + round % SLOTS) * BLOCK_BYTES as u64
}

/// What a worker writes in a round; rounds count from 1. No two blocks have eight bytes in common
/// at the same place.
pub fn block(worker: u64, round: u64) -> Vec<u8> {
    let mut word = (worker << 56 | round).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let words = (0..BLOCK_BYTES / 8).flat_map(|_| {
        // xorshift64: a bijection, which keeps different words different.
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        word.to_le_bytes()
    });
    words.collect()
}

/// Looks, from outside, at what a worker has left after so many rounds that it says it has
/// finished. The next one may have been written, too.
///
/// # Errors
/// What is wrong with it.
pub fn check(disk: &File, worker: u64, rounds: u64) -> Result<(), String> {
    let mut found = vec![0; BLOCK_BYTES];
    for slot in 0..SLOTS {
        disk.read_exact_at(&mut found, at(worker, slot)).map_err(|e| e.to_string())?;
        // The last finished round of this slot, if there was one.
        let last = (rounds.saturating_sub(SLOTS - 1)..=rounds).find(|n| n % SLOTS == slot);
        let is_last = match last {
            Some(last) if last > 0 => found == block(worker, last),
            _ => found.iter().all(|byte| *byte == 0),
        };
        let is_next = (rounds + 1) % SLOTS == slot && found == block(worker, rounds + 1);
        if !is_last && !is_next {
            return Err(format!(
                "slot {slot} of worker {worker} is not what was written in round {last:?}"
            ));
        }
    }
    Ok(())
}
