//! One request (5.2.6): header, data, status.
//!
//! A request whose header or status cannot be reached has no answer and breaks the device. All
//! else that is wrong with it is told in its status.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use storage::SECTOR_SIZE;

use super::Block;
use super::spec::*;
use crate::{Broken, Chain, Fault, Outcome, Span};

/// Why a request failed.
enum Failed {
    /// The status to give.
    Status(u8),
    /// The host's disk failed, or refused the range.
    Disk,
}

impl From<io::Error> for Failed {
    fn from(_: io::Error) -> Self {
        Self::Disk
    }
}

impl From<Fault> for Failed {
    fn from(_: Fault) -> Self {
        Self::Status(S_IOERR)
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
        self.sector.checked_mul(SECTOR_SIZE).ok_or(Failed::Status(S_IOERR))
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Block {
    pub(super) fn serve(&self, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        let header =
            Header::read(chain).map_err(|_| Broken("made a disk request without a header"))?;
        let no_status = Broken("made a disk request without a status");
        let status_at = chain.writable.size().checked_sub(1).ok_or(no_status)?;
        let (status, written) = match self.perform(&header, chain, status_at) {
            Ok(written) => (S_OK, written),
            Err(failed) => {
                count(&self.counters.failed);
                (if let Failed::Status(status) = failed { status } else { S_IOERR }, 0)
            }
        };
        chain.writable.write(status_at, &[status]).map_err(|_| no_status)?;
        // The status is last: when less than all data was written, nothing before it counts.
        let whole = status == S_OK && written == status_at;
        Ok(Outcome::Done(if whole { u32::try_from(written + 1).unwrap_or(u32::MAX) } else { 0 }))
    }

    /// Returns the bytes written into the `data_size` bytes before the status.
    fn perform(&self, header: &Header, chain: &Chain<'_>, data_size: u64) -> Result<u64, Failed> {
        match header.kind {
            T_IN => {
                count(&self.counters.reads);
                let lease = chain.writable.write_lease(0, whole_sectors(data_size)?)?;
                self.disk.read(header.offset()?, &lease.buffers())?;
                Ok(data_size)
            }
            T_OUT => {
                count(&self.counters.writes);
                let size = whole_sectors(chain.readable.size() - HEADER_SIZE)?;
                let lease = chain.readable.read_lease(HEADER_SIZE, size)?;
                self.disk.write(header.offset()?, &lease.buffers())?;
                self.settle()
            }
            T_FLUSH if !self.read_only => {
                count(&self.counters.flushes);
                self.disk.flush()?;
                Ok(0)
            }
            T_GET_ID => {
                let size = data_size.min(ID_SIZE as u64);
                chain.writable.write(0, &self.serial[..size as usize])?;
                Ok(size)
            }
            T_DISCARD | T_WRITE_ZEROES if !self.read_only => {
                count(&self.counters.discards);
                self.change_ranges(header.kind, &chain.readable)?;
                self.settle()
            }
            _ => Err(Failed::Status(S_UNSUPP)),
        }
    }

    fn settle(&self) -> Result<u64, Failed> {
        if self.write_through() {
            self.disk.flush()?;
        }
        Ok(0)
    }

    /// Checks all ranges before it changes the first.
    fn change_ranges(&self, kind: u32, readable: &Span<'_>) -> Result<(), Failed> {
        let size = readable.size() - HEADER_SIZE;
        let segments = size / SEGMENT_SIZE;
        if !size.is_multiple_of(SEGMENT_SIZE) || !(1..=u64::from(SEGMENTS_MAX)).contains(&segments)
        {
            return Err(Failed::Status(S_IOERR));
        }
        let mut ranges = [(0, 0, false); SEGMENTS_MAX as usize];
        let ranges = &mut ranges[..segments as usize];
        for (i, range) in ranges.iter_mut().enumerate() {
            *range = self.range(kind, readable, HEADER_SIZE + i as u64 * SEGMENT_SIZE)?;
        }
        for (offset, size, unmap) in ranges {
            if kind == T_DISCARD {
                self.disk.discard(*offset, *size)?;
            } else {
                self.disk.write_zeroes(*offset, *size, *unmap)?;
            }
        }
        Ok(())
    }

    /// Offset, size in bytes and unmap flag of the range at `at`.
    fn range(&self, kind: u32, readable: &Span<'_>, at: u64) -> Result<(u64, u64, bool), Failed> {
        let mut bytes = [0; SEGMENT_SIZE as usize];
        readable.read(at, &mut bytes)?;
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = bytes;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes(flags);
        // 5.2.6.2: unknown flags, and unmap in a discard, are not supported.
        let known = if kind == T_DISCARD { 0 } else { SEGMENT_UNMAP };
        if flags & !known != 0 {
            return Err(Failed::Status(S_UNSUPP));
        }
        let inside = sector
            .checked_add(sectors.into())
            .and_then(|end| end.checked_mul(SECTOR_SIZE))
            .is_some_and(|end| end <= self.disk.info().size_bytes);
        if sectors > SEGMENT_SECTORS_MAX || !inside {
            return Err(Failed::Status(S_IOERR));
        }
        Ok((sector * SECTOR_SIZE, u64::from(sectors) * SECTOR_SIZE, flags & SEGMENT_UNMAP != 0))
    }
}

fn whole_sectors(size: u64) -> Result<u64, Failed> {
    if size.is_multiple_of(SECTOR_SIZE) { Ok(size) } else { Err(Failed::Status(S_IOERR)) }
}
