//! A disk whose changes are thrown away: they go to a file without a name.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::{Mode, OFlags};
use vm_memory::VolatileSlice;

use crate::{Disk, DiskInfo, check_range, total, vectored};

/// What is copied from the disk below when a part of it is written: what file systems write, so
/// that they copy nothing.
const BLOCK: u64 = 4096;

/// Changes over a disk that stays as it is.
///
/// *Lock*: whoever writes to a block the file does not have has it alone, so that what is copied
/// from below never covers what another has written. Blocks are told to be there after they are.
pub(crate) struct Overlay {
    info: DiskInfo,
    below: Arc<dyn Disk>,
    file: File,
    /// A bit for each block: it is in the file.
    there: Box<[AtomicU64]>,
    appear: RwLock<()>,
}

impl Overlay {
    /// An unnamed file in `directory`.
    pub(crate) fn make_file(directory: &Path) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC | OFlags::EXCL;
        Ok(rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// No changes yet; they will be in `file`.
    pub(crate) fn new(below: Arc<dyn Disk>, file: File) -> io::Result<Self> {
        let below_info = below.info();
        file.set_len(below_info.size_bytes)?;
        let words = below_info.size_bytes.div_ceil(BLOCK).div_ceil(64) as usize;
        let there = (0..words).map(|_| AtomicU64::new(0)).collect();
        let info = DiskInfo { read_only: false, ..below_info };
        Ok(Self { info, below, file, there, appear: RwLock::new(()) })
    }

    /// Where such files go: where large files may be, not where memory is.
    pub(crate) fn directory() -> PathBuf {
        std::env::var_os("TMPDIR").map_or_else(|| "/var/tmp".into(), PathBuf::from)
    }

    fn is_there(&self, block: u64) -> bool {
        self.there[(block / 64) as usize].load(Ordering::Acquire) & 1 << (block % 64) != 0
    }

    fn blocks(offset: u64, size_bytes: u64) -> std::ops::Range<u64> {
        offset / BLOCK..(offset + size_bytes).div_ceil(BLOCK)
    }

    /// Runs of blocks that are in the file or not, as byte ranges: offset, size, and which.
    fn runs(&self, offset: u64, size_bytes: u64) -> impl Iterator<Item = (u64, u64, bool)> {
        let end = offset + size_bytes;
        let mut at = offset;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let there = self.is_there(at / BLOCK);
            let mut blocks = at / BLOCK + 1..end.div_ceil(BLOCK);
            let stop = blocks.find(|block| self.is_there(*block) != there);
            let next = stop.map_or(end, |block| block * BLOCK);
            let run = (at, next - at, there);
            at = next;
            Some(run)
        })
    }

    /// Copies what of a block from below a write from `offset` to `end` does not cover.
    fn copy_edges(&self, offset: u64, end: u64) -> io::Result<()> {
        let mut bytes = [0; BLOCK as usize];
        let edges = [offset / BLOCK, (end - 1) / BLOCK];
        for (n, block) in edges.into_iter().enumerate() {
            let covered = block * BLOCK >= offset && (block + 1) * BLOCK <= end;
            if covered || self.is_there(block) || n == 1 && edges[0] == block {
                continue;
            }
            let size = BLOCK.min(self.info.size_bytes - block * BLOCK) as usize;
            let buffer = [VolatileSlice::from(&mut bytes[..size])];
            self.below.read(block * BLOCK, &buffer)?;
            vectored::write(&self.file, block * BLOCK, &buffer)?;
        }
        Ok(())
    }

    /// Does `write`, which fills the file from `offset` on, and shows it.
    fn change(
        &self,
        offset: u64,
        size_bytes: u64,
        write: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        if size_bytes == 0 {
            return Ok(());
        }
        if Self::blocks(offset, size_bytes).all(|block| self.is_there(block)) {
            let _shared = self.appear.read().unwrap_or_else(PoisonError::into_inner);
            return write();
        }
        let _alone = self.appear.write().unwrap_or_else(PoisonError::into_inner);
        self.copy_edges(offset, offset + size_bytes)?;
        write()?;
        for block in Self::blocks(offset, size_bytes) {
            self.there[(block / 64) as usize].fetch_or(1 << (block % 64), Ordering::Release);
        }
        Ok(())
    }
}

/// The buffers of `size` bytes from `skip` on.
fn part<'a>(buffers: &[VolatileSlice<'a>], skip: u64, size: u64) -> Vec<VolatileSlice<'a>> {
    let (mut skip, mut left) = (skip as usize, size as usize);
    let mut found = Vec::new();
    for buffer in buffers {
        if skip >= buffer.len() {
            skip -= buffer.len();
            continue;
        }
        let length = left.min(buffer.len() - skip);
        found.extend(buffer.subslice(skip, length).ok().filter(|_| length > 0));
        (skip, left) = (0, left - length);
    }
    found
}

impl Disk for Overlay {
    fn info(&self) -> DiskInfo {
        self.info
    }

    fn read(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        let size_bytes = total(buffers)?;
        check_range(self.info.size_bytes, offset, size_bytes)?;
        for (at, size, there) in self.runs(offset, size_bytes) {
            let cut;
            let buffers = if size == size_bytes {
                buffers
            } else {
                cut = part(buffers, at - offset, size);
                &cut
            };
            if there {
                vectored::read(&self.file, at, buffers)?;
            } else {
                self.below.read(at, buffers)?;
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        let size_bytes = total(buffers)?;
        check_range(self.info.size_bytes, offset, size_bytes)?;
        self.change(offset, size_bytes, || vectored::write(&self.file, offset, buffers))
    }

    /// What is thrown away need not survive the host.
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, offset: u64, size_bytes: u64) -> io::Result<()> {
        check_range(self.info.size_bytes, offset, size_bytes)
    }

    fn write_zeroes(&self, offset: u64, size_bytes: u64, _unmap: bool) -> io::Result<()> {
        check_range(self.info.size_bytes, offset, size_bytes)?;
        self.change(offset, size_bytes, || vectored::write_zeroes(&self.file, offset, size_bytes))
    }
}
