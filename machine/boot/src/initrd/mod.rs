//! Linux's initial RAM disk, looked through before a guest gets it: what is cut off, damaged or
//! for another machine would only be told by the guest's kernel, if at all.
//!
//! ```text
//! initrd := ("\0" | archive | packed archive)*
//! ```
//!
//! Linux `Documentation/driver-api/early-userspace/buffer-format.rst`. Archives are walked entry
//! by entry. Of what is packed as Zstandard, LZ4, LZO and XZ the structure is walked to its end. It is
//! unpacked whole where that is quick and shows more: Zstandard with a sum; of others only as much
//! as it takes to see what machine the archive is for. gzip, bzip2 and LZMA have no structure but
//! what unpacking them shows. File system images, which
//! Linux takes as well, must not be longer than the file.

mod cpio;
mod kind;
mod packed;

use std::io::{BufReader, Read, Seek};

use crate::decompress::Compression;
use crate::error::BootError;
use crate::guest::{Image, Source};

use cpio::{Archive, Problem};
use kind::FILE_SYSTEM_HEAD;
use packed::Extent;

/// Reads by less than what is skipped mostly.
const BUFFER_SIZE: usize = 4096;
/// As much as tells archives and compressions.
const BEGINNING_SIZE: usize = 16;

/// Refuses an initrd that no Linux for this machine can unpack. `memory_bytes` is the guest's RAM,
/// which has to hold what is unpacked.
///
/// It may take as long as unpacking does: for gzip, bzip2, LZMA and Zstandard.
///
/// # Errors
/// What is wrong with it.
pub fn check_initrd<S: Source>(image: &mut Image<S>, memory_bytes: u64) -> Result<(), BootError> {
    let size = image.size_bytes()?;
    if size == 0 {
        return Err(BootError::Empty { name: image.name.clone() });
    }
    let head = image.head(0, kind::HEAD_SIZE)?;
    if !cpio::is_archive(&head) && Compression::detect(&head).is_none() {
        if let Some(needed) = kind::file_system_size(&head) {
            return image.holds(needed, "its file system", size);
        }
        if head[0] != 0 {
            return Err(not_an_initrd(image, kind::name(&head)));
        }
    }
    Segments { image, size, at: 0, unpacked_max: memory_bytes }.walk()
}

fn not_an_initrd<S: Source>(image: &Image<S>, found: &'static str) -> BootError {
    BootError::NotAnInitrd { name: image.name.clone(), found }
}

impl<S: Source> Image<S> {
    /// Refuses a file that ends before `end`.
    fn holds(&self, end: u64, part: &'static str, size_bytes: u64) -> Result<(), BootError> {
        if end <= size_bytes {
            return Ok(());
        }
        Err(BootError::Truncated { name: self.name.clone(), part, size_bytes })
    }
}

/// The walk through what follows one another in the file.
struct Segments<'a, S> {
    image: &'a mut Image<S>,
    size: u64,
    at: u64,
    /// What may still be unpacked.
    unpacked_max: u64,
}

impl<S: Source> Segments<'_, S> {
    fn walk(mut self) -> Result<(), BootError> {
        let mut archives = 0;
        while self.skip_zeros()? {
            let head = self.image.head(self.at, BEGINNING_SIZE)?;
            // The kernel looks for the next archive at addresses it could begin at.
            if cpio::is_archive(&head) && self.at.is_multiple_of(4) {
                self.archive()?;
            } else {
                let format = Compression::detect(&head).ok_or_else(|| self.unknown(archives))?;
                self.packed(format)?;
            }
            archives += 1;
        }
        if archives == 0 {
            return Err(not_an_initrd(self.image, "there is nothing in it but zeros"));
        }
        Ok(())
    }

    fn unknown(&self, archives: u32) -> BootError {
        if archives == 0 {
            return not_an_initrd(self.image, "its format is unknown");
        }
        self.image
            .malformed("after its first archive comes neither another nor a known compression")
    }

    /// Goes to the next byte that is not zero, if there is one.
    fn skip_zeros(&mut self) -> Result<bool, BootError> {
        while self.at < self.size {
            let chunk = self.image.head(self.at, BUFFER_SIZE)?;
            match chunk.iter().position(|byte| *byte != 0) {
                Some(zeros) => {
                    self.at += zeros as u64;
                    return Ok(true);
                }
                // A file that was cut meanwhile.
                None if chunk.is_empty() => break,
                None => self.at += chunk.len() as u64,
            }
        }
        Ok(false)
    }

    fn archive(&mut self) -> Result<(), BootError> {
        self.image.seek(self.at)?;
        let source = BufReader::with_capacity(BUFFER_SIZE, &mut self.image.source);
        let mut archive = Archive::new(cpio::Plain { source, left: self.size - self.at });
        let walked = archive.walk(false);
        let read = archive.position();
        match walked {
            Ok(_) => {
                self.at += read;
                Ok(())
            }
            Err(Problem::Io(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                let (name, part) = (self.image.name.clone(), "its archive");
                Err(BootError::Truncated { name, part, size_bytes: self.size })
            }
            Err(Problem::Io(error)) => Err(self.image.unreadable(error)),
            Err(problem) => Err(self.other(problem)),
        }
    }

    /// What is wrong with an archive, packed or not.
    fn other(&self, problem: Problem) -> BootError {
        let name = self.image.name.clone();
        match problem {
            Problem::Io(source) => BootError::Read { name, source },
            Problem::Malformed(reason) => BootError::Malformed { name, reason },
            Problem::Foreign { path, found } => {
                BootError::ForeignInitrd { name, program: path, found }
            }
            Problem::TooLarge => BootError::UnpacksTooLarge { name },
        }
    }

    fn packed(&mut self, format: Compression) -> Result<(), BootError> {
        let extent = packed::extent(self.image, format, self.at, self.size)?;
        self.unpack(format, extent)
    }

    /// Unpacks: all of it where its extent is not known or it has a sum, else as much as says what
    /// it is for.
    fn unpack(&mut self, format: Compression, extent: Option<Extent>) -> Result<(), BootError> {
        let end = extent.map(|extent| extent.end);
        let glance = extent.is_some_and(|extent| !extent.has_sum);
        let name = self.image.name.clone();
        let broken =
            |source| BootError::Decompress { name: name.clone(), format: format.name(), source };
        let size = end.unwrap_or(self.size) - self.at;
        self.image.seek(self.at)?;
        let (walked, position) = {
            let mut input = BufReader::with_capacity(64 << 10, &mut self.image.source);
            let walked = match format.decode(input.by_ref().take(size)).map_err(broken)? {
                Some(mut stream) => contents(&mut stream, self.unpacked_max, glance),
                None => Ok(0),
            };
            (walked, input.stream_position())
        };
        match walked {
            Ok(unpacked) => self.unpacked_max -= unpacked,
            Err(Problem::Io(source)) => return Err(broken(source)),
            Err(problem) => return Err(self.other(problem)),
        }
        self.at = match (end, format) {
            (Some(end), _) => end,
            // Its decoder reads ahead.
            (None, Compression::Lzma) => self.size,
            (None, _) => position.map_err(|source| self.image.unreadable(source))?,
        };
        Ok(())
    }
}

/// Goes through what is unpacked: archives, with zeros between, or a file system. Stops early where
/// enough was seen for a `glance`. Returns how much that was.
fn contents(stream: &mut dyn Read, max: u64, glance: bool) -> Result<u64, Problem> {
    let mut head = Vec::new();
    stream.take(FILE_SYSTEM_HEAD as u64).read_to_end(&mut head)?;
    let is_file_system = !cpio::is_archive(&head) && kind::file_system_size(&head).is_some();
    let stream = BufReader::with_capacity(64 << 10, head.as_slice().chain(stream));
    let mut archive = Archive::new(cpio::Unpacked { source: stream, left: max });
    if is_file_system {
        if !glance {
            archive.drain()?;
        }
        return Ok(archive.position());
    }
    while archive.find_next()? {
        if archive.walk(glance)?.is_enough() {
            break;
        }
    }
    Ok(archive.position())
}

#[cfg(test)]
mod tests;
