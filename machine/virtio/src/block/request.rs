//! One request (5.2.6): header, data, status.
//!
//! A request whose header or status cannot be reached has no answer and breaks the device. All
//! else that is wrong with it is told in its status.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use guest_memory::{Access, DmaMemory, Lease};
use storage::{Disk, Done, SECTOR_SIZE, Transfer, Work};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::spec::*;
use super::{Block, lock};
use crate::{Broken, Chain, Fault, Handle, Outcome, Span};

/// The status of a request that failed before the disk saw it.
struct Failed(u8);

impl From<Fault> for Failed {
    fn from(_: Fault) -> Self {
        Self(S_IOERR)
    }
}

struct Header {
    kind: u32,
    sector: u64,
}

impl Header {
    fn read(chain: &Chain<'_>) -> Result<Self, Fault> {
        let mut bytes = [0; HEADER_SIZE as usize];
        chain.readable.read(0, &mut bytes)?;
        let [a, b, c, d, _, _, _, _, sector @ ..] = bytes;
        Ok(Self { kind: u32::from_le_bytes([a, b, c, d]), sector: u64::from_le_bytes(sector) })
    }

    fn offset(&self) -> Result<u64, Failed> {
        self.sector.checked_mul(SECTOR_SIZE).ok_or(Failed(S_IOERR))
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A range of a discard or write-zeroes: offset, bytes, and whether its space may be given back.
type Range = (u64, u64, bool);

#[derive(Debug, Clone, Copy, Default)]
enum Action {
    #[default]
    Flush,
    Read(u64),
    /// Durable if true.
    Write(u64, bool),
    Discard(bool),
    WriteZeroes(bool),
}

/// A request on its way. Used again for others, so that its memory is.
#[derive(Default)]
pub(super) struct Pending {
    action: Action,
    lease: Lease,
    ranges: Vec<Range>,
    head: u16,
    memory: Option<Arc<DmaMemory>>,
    status_at: GuestAddress,
    /// What goes into the used ring when all is well.
    written: u32,
}

impl Work for Box<Pending> {
    fn transfer(&self) -> Option<Transfer<'_>> {
        match self.action {
            Action::Flush => Some(Transfer::Flush),
            Action::Read(offset) => Some(Transfer::Read(offset, self.lease.buffers())),
            Action::Write(offset, durable) => {
                Some(Transfer::Write(offset, self.lease.buffers(), durable))
            }
            Action::Discard(_) | Action::WriteZeroes(_) => None,
        }
    }

    fn perform(&self, disk: &dyn Disk) -> io::Result<()> {
        let (Action::Discard(durable) | Action::WriteZeroes(durable)) = self.action else {
            return Ok(());
        };
        for (offset, size_bytes, unmap) in &self.ranges {
            match self.action {
                Action::Discard(_) => disk.discard(*offset, *size_bytes)?,
                _ => disk.write_zeroes(*offset, *size_bytes, *unmap)?,
            }
        }
        if durable { disk.flush() } else { Ok(()) }
    }
}

impl Block {
    pub(super) fn serve(&self, queue: usize, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        let header =
            Header::read(chain).map_err(|_| Broken("made a disk request without a header"))?;
        let no_status = Broken("made a disk request without a status");
        let data_size = chain.writable.size().checked_sub(1).ok_or(no_status)?;
        let status_at = chain.writable.address(data_size).ok_or(no_status)?;
        if !chain.memory().address_in_range(status_at) {
            return Err(no_status);
        }
        let mut pending = lock(&self.spare).pop().unwrap_or_default();
        let written = match self.prepare(&mut pending, &header, chain, data_size) {
            Ok(None) => {
                pending.head = chain.head;
                pending.memory = Some(chain.memory().clone());
                pending.status_at = status_at;
                self.lanes()[queue].push(pending);
                return Ok(Outcome::Pending);
            }
            Ok(Some(written)) => Ok(written),
            Err(Failed(status)) => {
                count(&self.counters.failed);
                Err(status)
            }
        };
        pending.lease.end();
        lock(&self.spare).push(pending);
        let status = written.err().unwrap_or(S_OK);
        chain.writable.write(data_size, &[status]).map_err(|_| no_status)?;
        // The status is last: when less than all data was written, nothing before it counts.
        Ok(Outcome::Done(written.map_or(0, |size| used(size, data_size))))
    }

    /// Makes the request ready for the disk; the size of what was written when it needs none.
    fn prepare(
        &self,
        pending: &mut Pending,
        header: &Header,
        chain: &Chain<'_>,
        data_size: u64,
    ) -> Result<Option<u64>, Failed> {
        let durable = self.write_through();
        pending.written = used(0, data_size);
        match header.kind {
            T_IN => {
                count(&self.counters.reads);
                whole_sectors(data_size)?;
                chain.writable.lease(&mut pending.lease, Access::Write, 0, data_size)?;
                pending.action = Action::Read(header.offset()?);
                pending.written = used(data_size, data_size);
            }
            T_OUT => {
                count(&self.counters.writes);
                let size = whole_sectors(chain.readable.size() - HEADER_SIZE)?;
                chain.readable.lease(&mut pending.lease, Access::Read, HEADER_SIZE, size)?;
                pending.action = Action::Write(header.offset()?, durable);
            }
            T_FLUSH if !self.read_only => {
                count(&self.counters.flushes);
                pending.action = Action::Flush;
            }
            T_GET_ID => {
                let size = data_size.min(ID_SIZE as u64);
                chain.writable.write(0, &self.serial[..size as usize])?;
                return Ok(Some(size));
            }
            T_DISCARD | T_WRITE_ZEROES if !self.read_only => {
                count(&self.counters.discards);
                self.read_ranges(&mut pending.ranges, header.kind, &chain.readable)?;
                let discard = header.kind == T_DISCARD;
                let action = if discard { Action::Discard } else { Action::WriteZeroes };
                pending.action = action(durable);
            }
            _ => return Err(Failed(S_UNSUPP)),
        }
        Ok(None)
    }

    /// Tells the driver of requests that are done.
    pub(super) fn finish(&self, queue: usize, done: &mut Done<Box<Pending>>, handle: &Handle) {
        let told = done.iter_mut().map(|(pending, result)| {
            pending.lease.end();
            let status = if result.is_ok() { S_OK } else { S_IOERR };
            if result.is_err() {
                count(&self.counters.failed);
            }
            if let Some(memory) = pending.memory.take() {
                // It was RAM when the request came. Where it is no more, nobody looks.
                let _ = memory.write_slice(&[status], pending.status_at);
            }
            (pending.head, if result.is_ok() { pending.written } else { 0 })
        });
        handle.complete(queue, told);
        lock(&self.spare).extend(done.drain(..).map(|(pending, _)| pending));
    }

    /// Checks all ranges before the first is changed.
    fn read_ranges(
        &self,
        ranges: &mut Vec<Range>,
        kind: u32,
        readable: &Span<'_>,
    ) -> Result<(), Failed> {
        let size = readable.size() - HEADER_SIZE;
        let segments = size / SEGMENT_SIZE;
        if !size.is_multiple_of(SEGMENT_SIZE) || !(1..=u64::from(SEGMENTS_MAX)).contains(&segments)
        {
            return Err(Failed(S_IOERR));
        }
        ranges.clear();
        for i in 0..segments {
            ranges.push(self.range(kind, readable, HEADER_SIZE + i * SEGMENT_SIZE)?);
        }
        Ok(())
    }

    fn range(&self, kind: u32, readable: &Span<'_>, at: u64) -> Result<Range, Failed> {
        let mut bytes = [0; SEGMENT_SIZE as usize];
        readable.read(at, &mut bytes)?;
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = bytes;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes(flags);
        // 5.2.6.2: unknown flags, and unmap in a discard, are not supported.
        let known = if kind == T_DISCARD { 0 } else { SEGMENT_UNMAP };
        if flags & !known != 0 {
            return Err(Failed(S_UNSUPP));
        }
        let inside = sector
            .checked_add(sectors.into())
            .and_then(|end| end.checked_mul(SECTOR_SIZE))
            .is_some_and(|end| end <= self.disk.info().size_bytes);
        if sectors > SEGMENT_SECTORS_MAX || !inside {
            return Err(Failed(S_IOERR));
        }
        Ok((sector * SECTOR_SIZE, u64::from(sectors) * SECTOR_SIZE, flags & SEGMENT_UNMAP != 0))
    }
}

/// The length for the used ring: all data and the status, or nothing.
fn used(written: u64, data_size: u64) -> u32 {
    if written == data_size { u32::try_from(written + 1).unwrap_or(u32::MAX) } else { 0 }
}

fn whole_sectors(size: u64) -> Result<u64, Failed> {
    if size.is_multiple_of(SECTOR_SIZE) { Ok(size) } else { Err(Failed(S_IOERR)) }
}
