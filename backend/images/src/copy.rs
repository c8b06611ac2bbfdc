//! Copies of disks, without their holes.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::Progress;

/// Bytes handled at once.
pub(crate) const CHUNK: usize = 1 << 20;

/// All zeroes.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Calls `each` with what is not a hole, in parts that each lie in one chunk, and their places.
/// A part that begins a chunk's data has the whole chunk, zeroes of holes included.
pub(crate) fn chunks(
    file: &File,
    size_bytes: u64,
    mut each: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < size_bytes {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            // Not every file system can tell.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            data => data?,
        };
        at = data - data % CHUNK as u64;
        if at >= size_bytes {
            break;
        }
        let part = &mut buffer[..CHUNK.min(usize::try_from(size_bytes - at).unwrap_or(CHUNK))];
        file.read_exact_at(part, at)?;
        if !is_zero(part) {
            each(at, part)?;
        }
        at += part.len() as u64;
    }
    Ok(())
}

/// Copies a disk into an empty file: as a reference to the same blocks, where the file system has
/// those.
pub(crate) fn disk(from: &File, to: &File, progress: Progress<'_>) -> io::Result<()> {
    let size = from.metadata()?.len();
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        progress(size, Some(size));
        return Ok(());
    }
    to.set_len(size)?;
    chunks(from, size, |at, part| {
        progress(at, Some(size));
        to.write_all_at(part, at)
    })
}

/// Copies what comes, to its end, into an empty file. Zeroes become holes.
pub(crate) fn stream(mut from: impl Read, to: &File, progress: Progress<'_>) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    loop {
        let mut filled = 0;
        while filled < CHUNK {
            match from.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if !is_zero(&buffer[..filled]) {
            to.write_all_at(&buffer[..filled], at)?;
        }
        at += filled as u64;
        progress(at, None);
        if filled < CHUNK {
            return to.set_len(at);
        }
    }
}
