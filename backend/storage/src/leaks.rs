//! Gives clusters back that belong to nobody.
//!
//! A writer counts a cluster before it is part of the disk, and takes it out of the disk before it
//! counts it no more: whenever it is killed, no cluster has two owners, and some may have none.
//! Whoever opens the image for writing next counts anew. Layout: QEMU's `docs/interop/qcow2.rst`.

use std::cmp::Ordering;
use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::Qcow2Error;
use crate::header::{ENTRY_OFFSET, Tables};

/// Images with more clusters, or more tables, are left as they are: counting takes memory and time.
const CLUSTERS_MAX: u64 = 1 << 25;
const L2_BYTES_MAX: u64 = 1 << 30;

/// An L2 entry: its data is compressed.
const COMPRESSED: u64 = 1 << 62;

const DAMAGED: Qcow2Error = Qcow2Error::Damaged("reference count table");

/// Who owns how much of an image.
struct Census<'a> {
    file: &'a File,
    tables: &'a Tables,
    /// Owners of each cluster.
    owners: Vec<u16>,
}

/// Sets counts that are too high to what they must be. Returns how many clusters were given back.
///
/// # Errors
/// When a cluster has more owners than are counted, or the host fails. Nothing is written then.
pub(crate) fn reclaim(file: &File, tables: &Tables) -> Result<u64, Qcow2Error> {
    let blocks = entries(file, tables.refcounts)?;
    let counted = blocks.iter().rposition(|block| block & ENTRY_OFFSET != 0).map_or(0, |at| at + 1);
    let clusters = (counted as u64).saturating_mul(tables.counts_per_block());
    // Snapshots, bitmaps and what later versions have own clusters, too.
    if tables.has_other_owners || clusters > CLUSTERS_MAX {
        return Ok(0);
    }
    let owners = vec![0; clusters as usize];
    let mut census = Census { file, tables, owners };
    if census.count(&blocks)? { census.settle(&blocks) } else { Ok(0) }
}

fn entries(file: &File, (at, size_bytes): (u64, u64)) -> Result<Vec<u64>, Qcow2Error> {
    let mut bytes = vec![0; size_bytes as usize];
    file.read_exact_at(&mut bytes, at).map_err(Qcow2Error::Host)?;
    Ok(bytes.as_chunks::<8>().0.iter().map(|entry| u64::from_be_bytes(*entry)).collect())
}

impl Census<'_> {
    fn own(&mut self, at: u64, size_bytes: u64) -> Result<(), Qcow2Error> {
        let Some(more) = size_bytes.checked_sub(1) else { return Ok(()) };
        let bits = self.tables.cluster_bits;
        let last = at.checked_add(more).ok_or(DAMAGED)?;
        for cluster in at >> bits..=last >> bits {
            let owners = self.owners.get_mut(cluster as usize).ok_or(DAMAGED)?;
            *owners = owners.saturating_add(1);
        }
        Ok(())
    }

    /// Counts every owner there is; false when there are too many tables.
    fn count(&mut self, blocks: &[u64]) -> Result<bool, Qcow2Error> {
        let cluster_bytes = self.tables.cluster_bytes();
        self.own(0, cluster_bytes)?;
        for (at, size) in [self.tables.l1, self.tables.refcounts] {
            self.own(at, size)?;
        }
        for block in blocks {
            self.own_table(block & ENTRY_OFFSET)?;
        }
        let l1 = entries(self.file, self.tables.l1)?;
        let tables = l1.iter().filter(|entry| **entry & ENTRY_OFFSET != 0).count() as u64;
        if tables * cluster_bytes > L2_BYTES_MAX {
            return Ok(false);
        }
        for table in l1 {
            let at = table & ENTRY_OFFSET;
            if self.own_table(at)? {
                let data = entries(self.file, (at, cluster_bytes))?;
                data.into_iter().try_for_each(|entry| self.own_data(entry))?;
            }
        }
        Ok(true)
    }

    /// A table belongs to nobody else: one that did would be read again and again. False for none.
    fn own_table(&mut self, at: u64) -> Result<bool, Qcow2Error> {
        if at == 0 {
            return Ok(false);
        }
        self.own(at, self.tables.cluster_bytes())?;
        let alone = self.owners[(at >> self.tables.cluster_bits) as usize] == 1;
        if alone { Ok(true) } else { Err(DAMAGED) }
    }

    fn own_data(&mut self, entry: u64) -> Result<(), Qcow2Error> {
        if entry & COMPRESSED == 0 {
            let at = entry & ENTRY_OFFSET;
            return if at == 0 { Ok(()) } else { self.own(at, self.tables.cluster_bytes()) };
        }
        // Offset, then how many more sectors of 512 bytes it touches.
        let split = 62 - (self.tables.cluster_bits - 8);
        let at = entry & ((1 << split) - 1);
        let more = (entry & (COMPRESSED - 1)) >> split;
        self.own(at, 512 - at % 512 + more * 512)
    }

    /// Compares what is counted with what there is, and writes the blocks that differ.
    fn settle(&self, blocks: &[u64]) -> Result<u64, Qcow2Error> {
        let per_block = self.tables.counts_per_block();
        let mut bytes = vec![0; self.tables.cluster_bytes() as usize];
        let (mut reclaimed, mut mended) = (0, Vec::new());
        for (block, owners) in blocks.iter().zip(self.owners.chunks(per_block as usize)) {
            let at = block & ENTRY_OFFSET;
            if at == 0 {
                owners.iter().all(|owners| *owners == 0).then_some(()).ok_or(DAMAGED)?;
                continue;
            }
            self.file.read_exact_at(&mut bytes, at).map_err(Qcow2Error::Host)?;
            let before = reclaimed;
            for (index, owners) in owners.iter().enumerate() {
                let count = Count::new(self.tables.refcount_order, index);
                match count.get(&bytes).cmp(&u64::from(*owners)) {
                    Ordering::Less => return Err(DAMAGED),
                    Ordering::Equal => {}
                    Ordering::Greater => {
                        count.set(&mut bytes, (*owners).into());
                        reclaimed += 1;
                    }
                }
            }
            if reclaimed != before {
                mended.push((at, bytes.clone()));
            }
        }
        let write = |(at, bytes): &(u64, Vec<u8>)| self.file.write_all_at(bytes, *at);
        mended.iter().try_for_each(write).map_err(Qcow2Error::Host)?;
        Ok(reclaimed)
    }
}

/// Where one count is in its block: whole bytes, big-endian, or bits from the lowest on.
struct Count {
    byte: usize,
    bytes: usize,
    shift: usize,
    mask: u8,
}

impl Count {
    fn new(order: u32, index: usize) -> Self {
        let bit = index << order;
        let bits = 1usize << order;
        let mask = if bits < 8 { (1u8 << bits) - 1 } else { u8::MAX };
        Self { byte: bit / 8, bytes: bits.div_ceil(8), shift: bit % 8, mask }
    }

    fn get(&self, block: &[u8]) -> u64 {
        let value = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte >> self.shift & self.mask);
        block[self.byte..self.byte + self.bytes].iter().fold(0, value)
    }

    fn set(&self, block: &mut [u8], value: u64) {
        let bytes = &value.to_be_bytes()[8 - self.bytes..];
        for (to, from) in block[self.byte..].iter_mut().zip(bytes) {
            *to = *to & !(self.mask << self.shift) | (from & self.mask) << self.shift;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_every_width_are_read_and_written_alone() {
        for order in 0..=6 {
            let mut block = [0xff; 64];
            let most = u64::MAX >> (64 - (1u32 << order));
            Count::new(order, 3).set(&mut block, 1);
            assert_eq!(Count::new(order, 2).get(&block), most, "order {order}");
            assert_eq!(Count::new(order, 3).get(&block), 1, "order {order}");
            assert_eq!(Count::new(order, 4).get(&block), most, "order {order}");
        }
    }
}
