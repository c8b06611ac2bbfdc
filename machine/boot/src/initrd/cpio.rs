//! `cpio` archives of the new ASCII format, as Linux's `init/initramfs.c` reads them.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek};

use crate::elf;

const MAGIC: &[u8; 6] = b"070701";
/// The same with a sum of each file's bytes.
const MAGIC_SUMMED: &[u8; 6] = b"070702";
const HEADER_SIZE: usize = 110;
/// Linux's PATH_MAX.
const NAME_SIZE_MAX: u64 = 4096;
const TRAILER: &[u8] = b"TRAILER!!!\0";
const FILE_TYPE: u32 = 0o170_000;
const REGULAR_FILE: u32 = 0o100_000;
/// Where programs are. Firmware, which is elsewhere, may be for any machine.
const PROGRAMS: [&str; 5] = ["bin/", "sbin/", "usr/bin/", "usr/sbin/", "init"];
/// What a glance goes through at most.
const GLANCE_MAX: u64 = 32 << 20;

/// Begins like an archive.
pub(super) fn is_archive(head: &[u8]) -> bool {
    head.starts_with(MAGIC) || head.starts_with(MAGIC_SUMMED)
}

/// Why it is none that the guest could use.
#[derive(Debug)]
pub(super) enum Problem {
    Io(io::Error),
    Malformed(&'static str),
    Foreign { path: String, found: &'static str },
    TooLarge,
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What an archive comes from: it is read once, from its beginning to its end.
pub(super) trait Stream: BufRead {
    /// Counts bytes off, as they are to be read.
    fn spend(&mut self, bytes: u64) -> Result<(), Problem>;
    /// Passes over bytes that were counted.
    fn pass(&mut self, bytes: u64) -> io::Result<()>;
}

/// From the file.
pub(super) struct Plain<S> {
    pub(super) source: BufReader<S>,
    pub(super) left: u64,
}

/// From a decompressor; `left` is what may come of it.
pub(super) struct Unpacked<R> {
    pub(super) source: BufReader<R>,
    pub(super) left: u64,
}

impl<S: Read + Seek> Stream for Plain<S> {
    fn spend(&mut self, bytes: u64) -> Result<(), Problem> {
        let left = self.left.checked_sub(bytes);
        self.left = left.ok_or(io::Error::from(ErrorKind::UnexpectedEof))?;
        Ok(())
    }

    fn pass(&mut self, bytes: u64) -> io::Result<()> {
        // Within a file, so it fits.
        self.source.seek_relative(bytes as i64)
    }
}

impl<R: Read> Stream for Unpacked<R> {
    fn spend(&mut self, bytes: u64) -> Result<(), Problem> {
        self.left = self.left.checked_sub(bytes).ok_or(Problem::TooLarge)?;
        Ok(())
    }

    fn pass(&mut self, bytes: u64) -> io::Result<()> {
        let passed = io::copy(&mut self.source.by_ref().take(bytes), &mut io::sink())?;
        if passed == bytes { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }
}

macro_rules! reads_source {
    ($type:ident<$inner:ident>, $bound:path) => {
        impl<$inner: $bound> Read for $type<$inner> {
            fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
                self.source.read(data)
            }
        }
        impl<$inner: $bound> BufRead for $type<$inner> {
            fn fill_buf(&mut self) -> io::Result<&[u8]> {
                self.source.fill_buf()
            }
            fn consume(&mut self, amount: usize) {
                self.source.consume(amount);
            }
        }
    };
}
reads_source!(Plain<S>, Read);
reads_source!(Unpacked<R>, Read);

/// How a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walked {
    /// At the archive's end.
    All,
    /// At a program for this machine, or where none was in sight.
    Enough,
}

impl Walked {
    pub(super) fn is_enough(self) -> bool {
        self == Self::Enough
    }
}

/// A stream of archives.
pub(super) struct Archive<R> {
    stream: R,
    at: u64,
}

struct Entry {
    summed: bool,
    mode: u32,
    size: u64,
    sum: u32,
    name: Vec<u8>,
}

impl<R: Stream> Archive<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, at: 0 }
    }

    /// How much was gone through.
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    /// Passes over zeros to the next archive; says whether there is one.
    pub(super) fn find_next(&mut self) -> Result<bool, Problem> {
        loop {
            let bytes = self.stream.fill_buf()?;
            let (size, zeros) = (bytes.len(), bytes.iter().take_while(|byte| **byte == 0).count());
            let first = bytes.get(zeros).copied();
            self.stream.spend(zeros as u64)?;
            self.stream.consume(zeros);
            self.at += zeros as u64;
            match first {
                None if size == 0 => return Ok(false),
                None => {}
                Some(b'0') if self.at.is_multiple_of(4) => return Ok(true),
                Some(_) => return Err(Problem::Malformed("what was packed is no archive")),
            }
        }
    }

    /// Reads to the stream's end.
    pub(super) fn drain(&mut self) -> Result<(), Problem> {
        loop {
            let size = self.stream.fill_buf()?.len();
            if size == 0 {
                return Ok(());
            }
            self.stream.spend(size as u64)?;
            self.stream.consume(size);
            self.at += size as u64;
        }
    }

    /// Goes through one archive, or for a `glance` through its first entries.
    pub(super) fn walk(&mut self, glance: bool) -> Result<Walked, Problem> {
        let mut known = false;
        loop {
            let entry = self.entry()?;
            if entry.name == TRAILER {
                return Ok(Walked::All);
            }
            let data_end = self.at + entry.size;
            let mut head = [0; elf::HEADER_SIZE];
            if !known && entry.is_program() && entry.size >= head.len() as u64 {
                head = self.bytes()?;
                known = elf::is_elf(&head);
                if let Some(found) = elf::foreign_to_us(&head).filter(|_| known) {
                    let path = String::from_utf8_lossy(entry.path()).into_owned();
                    return Err(Problem::Foreign { path, found });
                }
            }
            if entry.summed {
                // Zeros, where no head was read.
                let sum = head.iter().fold(0, |sum, byte| sum + u32::from(*byte));
                self.sum(&entry, data_end - self.at, sum)?;
            }
            self.skip(data_end.next_multiple_of(4) - self.at)?;
            if glance && (known || self.at > GLANCE_MAX) {
                return Ok(Walked::Enough);
            }
        }
    }

    fn entry(&mut self) -> Result<Entry, Problem> {
        let header: [u8; HEADER_SIZE] = self.bytes()?;
        if !is_archive(&header) {
            return Err(Problem::Malformed("an entry of its archive does not begin as one"));
        }
        let field = |n: usize| {
            let digits = &header[6 + n * 8..][..8];
            let text = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'));
            text.and_then(|text| u32::from_str_radix(text, 16).ok())
                .ok_or(Problem::Malformed("an entry of its archive has no numbers"))
        };
        let (mode, size, name_size, sum) = (field(1)?, field(6)?, field(11)?, field(12)?);
        let name_size = u64::from(name_size);
        if !(1..=NAME_SIZE_MAX).contains(&name_size) {
            return Err(Problem::Malformed("an entry of its archive has a name of no such length"));
        }
        self.stream.spend(name_size)?;
        let mut name = vec![0; name_size as usize];
        self.stream.read_exact(&mut name)?;
        self.at += name_size;
        if name != TRAILER {
            self.skip(self.at.next_multiple_of(4) - self.at)?;
        }
        let summed = header.starts_with(MAGIC_SUMMED);
        Ok(Entry { summed, mode, size: size.into(), sum, name })
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        self.stream.spend(N as u64)?;
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), Problem> {
        self.stream.spend(bytes)?;
        self.stream.pass(bytes)?;
        self.at += bytes;
        Ok(())
    }

    /// Reads what is `left` of a file, whose first bytes have the sum that is given.
    fn sum(&mut self, entry: &Entry, mut left: u64, mut sum: u32) -> Result<(), Problem> {
        self.stream.spend(left)?;
        self.at += left;
        while left > 0 {
            let bytes = self.stream.fill_buf()?;
            let size = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if size == 0 {
                return Err(io::Error::from(ErrorKind::UnexpectedEof).into());
            }
            sum = bytes[..size].iter().fold(sum, |sum, byte| sum.wrapping_add((*byte).into()));
            self.stream.consume(size);
            left -= size as u64;
        }
        if sum == entry.sum {
            return Ok(());
        }
        Err(Problem::Malformed("a file of its archive does not have the sum that is told"))
    }
}

impl Entry {
    /// Without its end and leading dots and slashes.
    fn path(&self) -> &[u8] {
        let path = self.name.split(|byte| *byte == 0).next().unwrap_or_default();
        let path = path.strip_prefix(b"./").unwrap_or(path);
        path.strip_prefix(b"/").unwrap_or(path)
    }

    fn is_program(&self) -> bool {
        let path = self.path();
        let mut places = PROGRAMS.iter().map(|place| place.as_bytes());
        self.mode & FILE_TYPE == REGULAR_FILE
            && places.any(|place| path == place || place.ends_with(b"/") && path.starts_with(place))
    }
}
