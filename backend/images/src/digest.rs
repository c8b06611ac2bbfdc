//! A disk's ID: SHA-256 over its size and, for each MiB that is not all zeroes, its number and its
//! own SHA-256. So holes cost nothing, and a disk has one ID however it is stored.

use std::fs::File;
use std::io;

use sha2::{Digest, Sha256};

use crate::copy::{CHUNK, chunks};
use crate::{Id, Progress};

/// What is digested, and which rule.
const RULE: &[u8] = b"trine disk, MiB by MiB, 1\n";

/// The ID of the disk in this file.
pub(crate) fn of(file: &File, progress: Progress<'_>) -> io::Result<Id> {
    let size = file.metadata()?.len();
    let mut whole = Sha256::new().chain_update(RULE).chain_update(size.to_le_bytes());
    chunks(file, size, |at, part| {
        progress(at, Some(size));
        whole.update((at / CHUNK as u64).to_le_bytes());
        whole.update(Sha256::digest(part));
        Ok(())
    })?;
    Ok(Id(whole.finalize().into()))
}
