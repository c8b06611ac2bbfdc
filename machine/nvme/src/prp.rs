//! Physical region pages: where a command's data is (4.3).

use vm_memory::{Bytes, GuestAddress};

use guest_memory::DmaMemory;

use crate::spec::*;

/// Calls `each` with the ranges of `size_bytes` bytes of data.
///
/// # Errors
/// When a list cannot be read, an address is no page's, or `each` fails.
pub(crate) fn ranges(
    memory: &DmaMemory,
    prp1: u64,
    prp2: u64,
    size_bytes: u64,
    mut each: impl FnMut(u64, usize) -> Option<()>,
) -> Result<(), Status> {
    let first = size_bytes.min(PAGE - prp1 % PAGE);
    each(prp1, first as usize).ok_or(DATA_TRANSFER_ERROR)?;
    let mut left = size_bytes - first;
    if left == 0 {
        return Ok(());
    }
    if left <= PAGE {
        return page(prp2, left, &mut each);
    }
    // A list may begin anywhere in its page; those it goes on in begin with theirs. So each but
    // the first has at least one address, and there are no more than pages of data.
    let mut at = prp2;
    if !at.is_multiple_of(8) {
        return Err(PRP_OFFSET_INVALID);
    }
    while left > 0 {
        let room = (PAGE - at % PAGE) / 8;
        let pages = left.div_ceil(PAGE);
        let here = if pages > room { room - 1 } else { pages };
        let read = if pages > room { room } else { pages };
        let mut bytes = [0; PAGE as usize];
        let bytes = &mut bytes[..read as usize * 8];
        memory.read_slice(bytes, GuestAddress(at)).map_err(|_| DATA_TRANSFER_ERROR)?;
        let mut entries = bytes.as_chunks::<8>().0.iter().map(|e| u64::from_le_bytes(*e));
        for address in entries.by_ref().take(here as usize) {
            let size = left.min(PAGE);
            page(address, size, &mut each)?;
            left -= size;
        }
        if let Some(next) = entries.next() {
            if !next.is_multiple_of(PAGE) {
                return Err(PRP_OFFSET_INVALID);
            }
            at = next;
        }
    }
    Ok(())
}

fn page(
    address: u64,
    size: u64,
    each: &mut impl FnMut(u64, usize) -> Option<()>,
) -> Result<(), Status> {
    if !address.is_multiple_of(PAGE) {
        return Err(PRP_OFFSET_INVALID);
    }
    each(address, size as usize).ok_or(DATA_TRANSFER_ERROR)
}
