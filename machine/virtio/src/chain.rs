//! One request: the bytes a driver lets a device read, and those it lets it write.

use std::sync::Arc;

use guest_memory::{Access, DmaMemory, Lease};
use vm_memory::{Bytes, GuestAddress};

/// Ranges of guest-physical addresses, as descriptors gave them. Nothing is known of them.
pub(crate) type Ranges = Vec<(u64, usize)>;

/// The descriptors of one request, gathered. Kept between requests, so that they need no memory.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) readable: Ranges,
    pub(crate) writable: Ranges,
}

/// An address in a descriptor is not RAM, or a request is shorter than its device needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a buffer is not in RAM or too short")]
pub struct Fault;

/// A request.
///
/// How a driver cuts it into descriptors means nothing (2.7.4): both parts are bytes from 0 on.
pub struct Chain<'a> {
    /// What the device reads.
    pub readable: Span<'a>,
    /// What the device writes.
    pub writable: Span<'a>,
    /// How many of the driver's requests it is: more than one after [`Outcome::More`](crate::Outcome::More).
    pub requests: u16,
    /// Names the request to [`Handle::complete`](crate::Handle::complete).
    pub head: u16,
}

/// The readable or writable part of a request.
#[derive(Clone, Copy)]
pub struct Span<'a> {
    memory: &'a Arc<DmaMemory>,
    ranges: &'a [(u64, usize)],
    size: u64,
}

impl<'a> Chain<'a> {
    pub(crate) fn new(
        memory: &'a Arc<DmaMemory>,
        gathered: &'a Gathered,
        requests: u16,
        head: u16,
    ) -> Self {
        Self {
            requests,
            head,
            readable: Span::new(memory, &gathered.readable),
            writable: Span::new(memory, &gathered.writable),
        }
    }
}

impl Chain<'_> {
    /// What it is in.
    pub fn memory(&self) -> &Arc<DmaMemory> {
        self.readable.memory
    }
}

impl<'a> Span<'a> {
    fn new(memory: &'a Arc<DmaMemory>, ranges: &'a [(u64, usize)]) -> Self {
        // At most CHAIN_MAX lengths of 32 bits.
        let size = ranges.iter().map(|(_, size)| *size as u64).sum();
        Self { memory, ranges, size }
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its ranges: guest-physical addresses and sizes, as the driver gave them.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.ranges.iter().map(|(gpa, size)| (*gpa, *size as u64))
    }

    /// Copies bytes from `offset` on out of guest memory.
    ///
    /// # Errors
    /// When the span is shorter, or not RAM there.
    pub fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), Fault> {
        let mut done = 0;
        self.pieces(offset, data.len(), |gpa, size| {
            let part = &mut data[done..done + size];
            done += size;
            self.memory.read_slice(part, gpa).map_err(|_| Fault)
        })
    }

    /// Copies `data` into guest memory from `offset` on.
    ///
    /// # Errors
    /// When the span is shorter, or not RAM there. Bytes before that are written.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<(), Fault> {
        let mut done = 0;
        self.pieces(offset, data.len(), |gpa, size| {
            let part = &data[done..done + size];
            done += size;
            self.memory.write_slice(part, gpa).map_err(|_| Fault)
        })
    }

    /// Makes `lease` one of `size` bytes from `offset` on.
    ///
    /// # Errors
    /// When the span is shorter, or not RAM there.
    pub fn lease(
        &self,
        lease: &mut Lease,
        access: Access,
        offset: u64,
        size: u64,
    ) -> Result<(), Fault> {
        lease.begin(self.memory, access);
        let size = usize::try_from(size).map_err(|_| Fault)?;
        self.pieces(offset, size, |gpa, size| lease.add(gpa.0, size).map_err(|_| Fault))
    }

    /// The address of a byte.
    pub fn address(&self, offset: u64) -> Option<GuestAddress> {
        let mut found = None;
        let look = self.pieces(offset, 1, |gpa, _| {
            found = Some(gpa);
            Ok(())
        });
        look.ok().and(found)
    }

    fn pieces(
        &self,
        offset: u64,
        size: usize,
        mut each: impl FnMut(GuestAddress, usize) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let end = offset.checked_add(size as u64).filter(|end| *end <= self.size).ok_or(Fault)?;
        let mut at = 0;
        for (gpa, size) in self.ranges {
            let next = at + *size as u64;
            if next > offset && at < end {
                let skip = offset.saturating_sub(at);
                let gpa = gpa.checked_add(skip).ok_or(Fault)?;
                each(GuestAddress(gpa), (next.min(end) - at - skip) as usize)?;
            }
            at = next;
        }
        Ok(())
    }
}
