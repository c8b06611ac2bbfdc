//! What is written to the disk is on the disk.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use anyhow::{Context, ensure};
use guest_work::{BLOCK_BYTES, SLOTS, at, block};
use rustix::fs::OFlags;

use super::Steps;

/// What direct access to disks wants of an address.
const ALIGN: usize = 4096;

/// Writes block after block past the page cache, reads each back at once, and again when its
/// place is to be used for another.
pub fn run(path: &str, worker: u64) -> anyhow::Result<()> {
    let disk = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(path)
        .with_context(|| format!("cannot open {path}"))?;
    let mut room = vec![0; BLOCK_BYTES + ALIGN];
    let begin = room.as_ptr().align_offset(ALIGN);
    let buffer = &mut room[begin..begin + BLOCK_BYTES];
    let mut steps = Steps::default();
    for round in 1.. {
        if round > SLOTS {
            expect(&disk, buffer, worker, round - SLOTS)?;
        }
        buffer.copy_from_slice(&block(worker, round));
        disk.write_all_at(buffer, at(worker, round))?;
        disk.sync_data()?;
        expect(&disk, buffer, worker, round)?;
        steps.finish()?;
    }
    Ok(())
}

fn expect(disk: &File, buffer: &mut [u8], worker: u64, round: u64) -> anyhow::Result<()> {
    buffer.fill(0);
    disk.read_exact_at(buffer, at(worker, round))?;
    let (is, was) = (crc32c::crc32c(buffer), crc32c::crc32c(&block(worker, round)));
    ensure!(is == was, "round {round} of worker {worker} reads {is:08x}, but wrote {was:08x}");
    Ok(())
}
