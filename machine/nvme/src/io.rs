//! Commands of I/O queues (6), and their way to the disk.

use std::io;
use std::sync::Arc;

use guest_memory::{Access, DmaMemory, Lease};
use storage::{Disk, Transfer, Work};
use vm_memory::{Bytes, GuestAddress};

use crate::controller::Command;
use crate::prp;
use crate::spec::*;

#[derive(Debug, Clone, Copy, Default)]
enum Action {
    #[default]
    Flush,
    Read(u64),
    /// Durable if true.
    Write(u64, bool),
    Discard,
    /// Durable if true.
    Zeroes(bool),
}

/// A command on its way to the disk. Used again for others, so that its memory is.
#[derive(Default)]
pub(crate) struct Job {
    action: Action,
    lease: Lease,
    /// Offsets, sizes, and whether their space may be given back.
    ranges: Vec<(u64, u64, bool)>,
    sq: u16,
    cid: u16,
}

impl Job {
    /// Gives guest memory back.
    pub(crate) fn release(&mut self) {
        self.lease.end();
    }

    /// Its queue and identifier.
    pub(crate) fn of(&self) -> (u16, u16) {
        (self.sq, self.cid)
    }

    pub(crate) fn status_of(&self, error: &io::Error) -> Status {
        match (error.kind(), self.action) {
            (io::ErrorKind::InvalidInput, _) => LBA_OUT_OF_RANGE,
            (io::ErrorKind::ReadOnlyFilesystem, _) => READ_ONLY,
            (_, Action::Read(_)) => READ_ERROR,
            _ => WRITE_FAULT,
        }
    }
}

impl Work for Box<Job> {
    fn transfer(&self) -> Option<Transfer<'_>> {
        match self.action {
            Action::Flush => Some(Transfer::Flush),
            Action::Read(offset) => Some(Transfer::Read(offset, self.lease.buffers())),
            Action::Write(offset, durable) => {
                Some(Transfer::Write(offset, self.lease.buffers(), durable))
            }
            Action::Discard | Action::Zeroes(_) => None,
        }
    }

    fn perform(&self, disk: &dyn Disk) -> io::Result<()> {
        for (offset, size_bytes, unmap) in &self.ranges {
            match self.action {
                Action::Discard => disk.discard(*offset, *size_bytes)?,
                _ => disk.write_zeroes(*offset, *size_bytes, *unmap)?,
            }
        }
        if matches!(self.action, Action::Zeroes(true)) { disk.flush() } else { Ok(()) }
    }
}

/// Makes a job of a command.
///
/// # Errors
/// The status, when it ends here.
pub(crate) fn prepare(
    command: &Command<'_>,
    job: &mut Job,
    memory: &Arc<DmaMemory>,
    disk: &dyn Disk,
) -> Result<(), Status> {
    (job.sq, job.cid) = (command.sq, command.cid());
    job.ranges.clear();
    if !command.is_plain() {
        return Err(INVALID_FIELD);
    }
    let all = command.opcode() == nvm::FLUSH && command.namespace() == NAMESPACES_ALL;
    if command.namespace() != NAMESPACE && !all {
        return Err(INVALID_NAMESPACE);
    }
    let blocks = disk.info().size_bytes / BLOCK;
    let within = |lba: u64, count: u64| {
        let inside = lba.checked_add(count).is_some_and(|end| end <= blocks);
        if inside { Ok((lba * BLOCK, count * BLOCK)) } else { Err(LBA_OUT_OF_RANGE) }
    };
    let range = || within(command.qword(10), u64::from(command.dword(12) & 0xffff) + 1);
    let durable = command.dword(12) & 1 << 30 != 0;
    job.action = match command.opcode() {
        nvm::FLUSH => Action::Flush,
        nvm::READ => {
            let (offset, size_bytes) = range()?;
            lease(command, job, memory, Access::Write, size_bytes)?;
            Action::Read(offset)
        }
        nvm::WRITE => {
            let (offset, size_bytes) = range()?;
            lease(command, job, memory, Access::Read, size_bytes)?;
            Action::Write(offset, durable)
        }
        nvm::WRITE_ZEROES => {
            let (offset, size_bytes) = range()?;
            let deallocate = command.dword(12) & 1 << 25 != 0;
            job.ranges.push((offset, size_bytes, deallocate));
            Action::Zeroes(durable)
        }
        nvm::DATASET_MANAGEMENT => {
            let count = (command.dword(10) & 0xff) as usize + 1;
            let mut bytes = [0; 16 * RANGES_MAX];
            let bytes = &mut bytes[..16 * count];
            read(command, memory, bytes)?;
            // Attributes other than deallocate are advice.
            if command.dword(11) & 1 << 2 != 0 {
                for entry in bytes.as_chunks::<16>().0 {
                    let [_, _, _, _, n0, n1, n2, n3, lba @ ..] = *entry;
                    let count = u32::from_le_bytes([n0, n1, n2, n3]).into();
                    let (offset, size_bytes) = within(u64::from_le_bytes(lba), count)?;
                    job.ranges.push((offset, size_bytes, true));
                }
            }
            Action::Discard
        }
        _ => return Err(INVALID_OPCODE),
    };
    Ok(())
}

fn lease(
    command: &Command<'_>,
    job: &mut Job,
    memory: &Arc<DmaMemory>,
    access: Access,
    size_bytes: u64,
) -> Result<(), Status> {
    if size_bytes > TRANSFER_MAX {
        return Err(INVALID_FIELD);
    }
    job.lease.begin(memory, access);
    let (prp1, prp2) = command.prps();
    let lease = &mut job.lease;
    prp::ranges(memory, prp1, prp2, size_bytes, |gpa, size| lease.add(gpa, size).ok())
}

/// Copies a command's data out of guest memory.
///
/// # Errors
/// The status, when it is nowhere.
fn read(command: &Command<'_>, memory: &DmaMemory, data: &mut [u8]) -> Result<(), Status> {
    let (prp1, prp2) = command.prps();
    let mut at = 0;
    prp::ranges(memory, prp1, prp2, data.len() as u64, |gpa, size| {
        let part = data.get_mut(at..at + size)?;
        at += size;
        memory.read_slice(part, GuestAddress(gpa)).ok()
    })
}
