//! A command's place in guest memory: its header, frame, and the list of its data.

use std::sync::Arc;

use guest_memory::{Access, DmaMemory, Lease};
use vm_memory::{Bytes, GuestAddress};

use crate::spec::*;

/// Entries of a data list read at once.
const CHUNK: usize = 64;

/// A command header (4.2.2).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    at: u64,
    flags: u16,
    entries: u16,
    table: u64,
}

impl Header {
    /// The header of a slot; `None` where no RAM is.
    pub(crate) fn read(memory: &DmaMemory, list: u64, slot: u32) -> Option<Self> {
        let at = list.checked_add(u64::from(slot) * HEADER_SIZE)?;
        let mut bytes = [0; 16];
        memory.read_slice(&mut bytes, GuestAddress(at)).ok()?;
        let [f0, f1, e0, e1, _, _, _, _, table @ ..] = bytes;
        let table = u64::from_le_bytes(table) & !0x7f;
        let (flags, entries) = (u16::from_le_bytes([f0, f1]), u16::from_le_bytes([e0, e1]));
        Some(Self { at, flags, entries, table })
    }

    /// The device leaves BSY clear after this frame (the first half of a software reset).
    pub(crate) fn clears_busy(&self) -> bool {
        self.flags & 1 << 10 != 0
    }

    /// The command frame.
    pub(crate) fn frame(&self, memory: &DmaMemory) -> Option<[u8; 64]> {
        let mut frame = [0; 64];
        memory.read_slice(&mut frame, GuestAddress(self.table)).ok().map(|()| frame)
    }

    /// The packet of a PACKET command.
    pub(crate) fn packet(&self, memory: &DmaMemory) -> Option<[u8; 16]> {
        let mut packet = [0; 16];
        let at = self.table.checked_add(TABLE_ACMD)?;
        memory.read_slice(&mut packet, GuestAddress(at)).ok().map(|()| packet)
    }

    /// Says how many bytes went over.
    pub(crate) fn transferred(&self, memory: &DmaMemory, size_bytes: u64) {
        let count = u32::try_from(size_bytes).unwrap_or(u32::MAX);
        // Where the header was read, RAM is.
        let _ = memory.write_slice(&count.to_le_bytes(), GuestAddress(self.at + 4));
    }

    /// Calls `each` with the ranges of the data list, up to `size_bytes`. Returns how many bytes
    /// they have; `None` when the list or `each` fails.
    fn ranges(
        &self,
        memory: &DmaMemory,
        size_bytes: u64,
        mut each: impl FnMut(u64, usize) -> Option<()>,
    ) -> Option<u64> {
        let (mut done, mut index) = (0, 0u64);
        let mut chunk = [0; CHUNK * PRD_SIZE as usize];
        while done < size_bytes && index < u64::from(self.entries) {
            let count = (u64::from(self.entries) - index).min(CHUNK as u64);
            let bytes = &mut chunk[..(count * PRD_SIZE) as usize];
            let at = self.table.checked_add(TABLE_PRDT + index * PRD_SIZE)?;
            memory.read_slice(bytes, GuestAddress(at)).ok()?;
            index += count;
            for entry in bytes.as_chunks::<16>().0 {
                let [a0, a1, a2, a3, a4, a5, a6, a7, _, _, _, _, size @ ..] = *entry;
                let gpa = u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]) & !1;
                // Bit 0 of the count is always one: lengths are even.
                let size = u64::from(u32::from_le_bytes(size) & 0x3f_ffff | 1) + 1;
                let size = size.min(size_bytes - done);
                if size > 0 {
                    each(gpa, size as usize)?;
                    done += size;
                }
            }
        }
        Some(done)
    }

    /// Makes `lease` one of the first `size_bytes` of the data; `None` when there are fewer.
    pub(crate) fn lease(
        &self,
        lease: &mut Lease,
        memory: &Arc<DmaMemory>,
        access: Access,
        size_bytes: u64,
    ) -> Option<()> {
        lease.begin(memory, access);
        let had = self.ranges(memory, size_bytes, |gpa, size| lease.add(gpa, size).ok())?;
        (had == size_bytes).then_some(())
    }

    /// Copies as much of `data` as there is room for; returns how much.
    pub(crate) fn put(&self, memory: &DmaMemory, data: &[u8]) -> Option<u64> {
        let mut left = data;
        self.ranges(memory, data.len() as u64, |gpa, size| {
            let (now, rest) = left.split_at_checked(size)?;
            left = rest;
            memory.write_slice(now, GuestAddress(gpa)).ok()
        })
    }

    /// Reads exactly as much as `data` takes.
    pub(crate) fn get(&self, memory: &DmaMemory, data: &mut [u8]) -> Option<()> {
        let (mut at, size_bytes) = (0, data.len() as u64);
        let had = self.ranges(memory, size_bytes, |gpa, size| {
            let part = data.get_mut(at..at + size)?;
            at += size;
            memory.read_slice(part, GuestAddress(gpa)).ok()
        })?;
        (had == size_bytes).then_some(())
    }
}
