//! Guest memory while it is being filled: what is taken, and writing into it.

use std::io::{self, Read, Seek, SeekFrom};

use guest_memory::{DmaMemory, PAGE_SIZE};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, ReadVolatile};

use crate::error::BootError;
use crate::layout::{EXTENDED_BASE, Layout, RangeKind, Span, low};

/// What images are read from: a file, or bytes in a test.
pub trait Source: Read + Seek + ReadVolatile {}

impl<S: Read + Seek + ReadVolatile> Source for S {}

/// An image and what to call it.
pub struct Image<S> {
    /// For messages; a Multiboot kernel is told it, too.
    pub name: String,
    /// Its bytes.
    pub source: S,
}

impl<S: Source> Image<S> {
    /// An image.
    pub fn new(name: impl Into<String>, source: S) -> Self {
        Self { name: name.into(), source }
    }

    pub(crate) fn size_bytes(&mut self) -> Result<u64, BootError> {
        let size = self.source.seek(SeekFrom::End(0));
        size.map_err(|source| self.unreadable(source))
    }

    pub(crate) fn seek(&mut self, offset: u64) -> Result<(), BootError> {
        let at = self.source.seek(SeekFrom::Start(offset));
        at.map(|_| ()).map_err(|source| self.unreadable(source))
    }

    /// Up to `size` bytes from `offset`, as many as there are.
    pub(crate) fn head(&mut self, offset: u64, size: usize) -> Result<Vec<u8>, BootError> {
        self.seek(offset)?;
        let mut bytes = Vec::new();
        let read = self.source.by_ref().take(size as u64).read_to_end(&mut bytes);
        read.map_err(|source| self.unreadable(source))?;
        Ok(bytes)
    }

    pub(crate) fn unreadable(&self, source: io::Error) -> BootError {
        BootError::Read { name: self.name.clone(), source }
    }

    pub(crate) fn malformed(&self, reason: &'static str) -> BootError {
        BootError::Malformed { name: self.name.clone(), reason }
    }
}

/// Guest memory, and what of it is taken.
pub(crate) struct Guest<'a> {
    memory: &'a DmaMemory,
    pub(crate) layout: &'a Layout,
    taken: Vec<Span>,
}

impl<'a> Guest<'a> {
    pub(crate) fn new(memory: &'a DmaMemory, layout: &'a Layout) -> Self {
        Self { memory, layout, taken: vec![low::BOOT_DATA] }
    }

    /// Takes a range a kernel must have.
    pub(crate) fn take(&mut self, base: u64, size: u64, what: &str) -> Result<(), BootError> {
        let does_not_fit =
            || BootError::DoesNotFit { what: what.to_owned(), base, size_bytes: size };
        let end = base.checked_add(size).ok_or_else(does_not_fit)?;
        let usable = self.layout.ranges().iter().any(|(span, kind)| {
            *kind == RangeKind::Usable && span.base <= base && end <= span.end()
        });
        let span = Span::new(base, size);
        if !usable || self.taken.iter().any(|other| other.overlaps(&span)) {
            return Err(does_not_fit());
        }
        self.taken.push(span);
        Ok(())
    }

    /// Takes the highest pages that end at or before `end` and below 4 GiB.
    pub(crate) fn take_high(&mut self, size: u64, end: u64, what: &str) -> Result<u64, BootError> {
        let no_room = || BootError::NoRoom { what: what.to_owned(), size_bytes: size };
        let mut end = end.min(self.layout.low_ram().end());
        loop {
            let base = end.checked_sub(size).ok_or_else(no_room)? & !(PAGE_SIZE - 1);
            if base < EXTENDED_BASE {
                return Err(no_room());
            }
            let span = Span::new(base, size);
            match self.taken.iter().find(|other| other.overlaps(&span)) {
                // Each turn passes one taken range, so there are no more turns than ranges.
                Some(other) => end = other.base,
                None => {
                    self.taken.push(span);
                    return Ok(base);
                }
            }
        }
    }

    /// Takes the lowest pages above everything that is taken.
    pub(crate) fn take_above(&mut self, size: u64, what: &str) -> Result<u64, BootError> {
        let no_room = || BootError::NoRoom { what: what.to_owned(), size_bytes: size };
        let top = self.taken.iter().map(Span::end).max().unwrap_or(0).max(EXTENDED_BASE);
        let base = top.checked_next_multiple_of(PAGE_SIZE).ok_or_else(no_room)?;
        let end = base.checked_add(size).ok_or_else(no_room)?;
        if end > self.layout.low_ram().end() {
            return Err(no_room());
        }
        self.taken.push(Span::new(base, size));
        Ok(base)
    }

    /// Writes where the layout or [`Guest::take`] says that there is RAM.
    pub(crate) fn write(&self, gpa: u64, data: &[u8]) {
        let written = self.memory.write_slice(data, GuestAddress(gpa));
        assert!(written.is_ok(), "{gpa:#x} is not RAM");
    }

    /// Reads `size` bytes of the image from `offset` straight into memory that was taken.
    pub(crate) fn read<S: Source>(
        &self,
        gpa: u64,
        image: &mut Image<S>,
        offset: u64,
        size: u64,
        part: &'static str,
    ) -> Result<(), BootError> {
        let size_bytes = image.size_bytes()?;
        let truncated = || BootError::Truncated { name: image.name.clone(), part, size_bytes };
        let all = offset.checked_add(size).is_some_and(|end| end <= size_bytes);
        let size = usize::try_from(size).ok().filter(|_| all).ok_or_else(truncated)?;
        if size == 0 {
            return Ok(());
        }
        image.seek(offset)?;
        let read = self.memory.read_exact_volatile_from(GuestAddress(gpa), &mut image.source, size);
        read.map_err(|error| match error {
            GuestMemoryError::IOError(source) => image.unreadable(source),
            other => image.unreadable(io::Error::other(other)),
        })
    }

    /// Reads the whole image into the highest memory below `end`; returns where and how much.
    pub(crate) fn read_high<S: Source>(
        &mut self,
        image: &mut Image<S>,
        end: u64,
    ) -> Result<Span, BootError> {
        let size = image.size_bytes()?;
        if size == 0 {
            return Err(BootError::Empty { name: image.name.clone() });
        }
        let name = image.name.clone();
        let base = self.take_high(size, end, &name)?;
        self.read(base, image, 0, size, "the file")?;
        Ok(Span::new(base, size))
    }
}

/// A structure that is put together byte by byte.
pub(crate) struct Blob(pub(crate) Vec<u8>);

impl Blob {
    pub(crate) fn zeroed(size: usize) -> Self {
        Self(vec![0; size])
    }

    /// Puts bytes at a fixed offset of a fixed structure.
    pub(crate) fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn put32(&mut self, offset: usize, value: u32) {
        self.put(offset, &value.to_le_bytes());
    }

    pub(crate) fn put64(&mut self, offset: usize, value: u64) {
        self.put(offset, &value.to_le_bytes());
    }
}

/// A little-endian number in bytes that may end too early.
pub(crate) fn get<const N: usize>(bytes: &[u8], offset: u64) -> Option<[u8; N]> {
    let start = usize::try_from(offset).ok()?;
    bytes.get(start..start.checked_add(N)?)?.try_into().ok()
}

pub(crate) fn get16(bytes: &[u8], offset: u64) -> Option<u16> {
    get(bytes, offset).map(u16::from_le_bytes)
}

pub(crate) fn get32(bytes: &[u8], offset: u64) -> Option<u32> {
    get(bytes, offset).map(u32::from_le_bytes)
}

pub(crate) fn get64(bytes: &[u8], offset: u64) -> Option<u64> {
    get(bytes, offset).map(u64::from_le_bytes)
}

/// A string as a kernel wants it.
pub(crate) fn c_string(text: &str, what: &'static str, max: usize) -> Result<Vec<u8>, BootError> {
    if text.contains('\0') {
        return Err(BootError::Nul(what));
    }
    if text.len() > max {
        return Err(BootError::CmdlineTooLong { size_bytes: text.len(), max_bytes: max });
    }
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    Ok(bytes)
}
