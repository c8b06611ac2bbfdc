//! Where compressed data ends, found without unpacking it.
//!
//! RFC 8878 (Zstandard), the .xz file format 1.2, `lz4_Block_format.md` and LZ4's legacy frame,
//! LZO's file format as `lib/decompress_unlzo.c` of Linux has it.

use flate2::Crc;

use crate::decompress::Compression;
use crate::error::BootError;
use crate::guest::{Image, Source, get, get16, get32};

const ZSTD_MAGIC_SIZE: u64 = 4;
const ZSTD_BLOCK_SIZE_MAX: u64 = 128 << 10;
const LZ4_MAGIC: u32 = 0x184c_2102;
/// What a block of 8 MiB that cannot be packed comes to.
const LZ4_BLOCK_SIZE_MAX: u64 = (8 << 20) + (8 << 20) / 255 + 16;
const XZ_HEADER_SIZE: u64 = 12;
const XZ_FOOTER_SIZE: u64 = 12;
/// An index is a few bytes for each block of at least some KiB.
const XZ_INDEX_SIZE_MAX: u64 = 16 << 20;
const XZ_SIZE_OF_NUMBER_MAX: u32 = 9;

/// What the structure of packed data tells.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    /// Where it ends.
    pub(super) end: u64,
    /// Unpacking it would tell more, and quickly: it has a sum of what is in it.
    pub(super) has_sum: bool,
}

/// How far the data that begins at `at` goes, where its structure tells; the file is `size` long.
///
/// # Errors
/// When it is cut off or broken, or the file cannot be read.
pub(super) fn extent<S: Source>(
    image: &mut Image<S>,
    format: Compression,
    at: u64,
    size: u64,
) -> Result<Option<Extent>, BootError> {
    let mut walk = Walk { image, at, size, part: "its Zstandard data" };
    let mut has_sum = false;
    match format {
        Compression::Zstd => has_sum = walk.zstd()?,
        Compression::Lz4 => walk.lz4()?,
        Compression::Lzo => walk.lzo()?,
        Compression::Xz => {
            let end = walk.xz()?;
            return Ok(end.map(|end| Extent { end, has_sum }));
        }
        Compression::Gzip | Compression::Bzip2 | Compression::Lzma => return Ok(None),
    }
    Ok(Some(Extent { end: walk.at, has_sum }))
}

struct Walk<'a, S> {
    image: &'a mut Image<S>,
    at: u64,
    size: u64,
    part: &'static str,
}

impl<S: Source> Walk<'_, S> {
    /// The next bytes, which are then behind us.
    fn next<const N: usize>(&mut self) -> Result<[u8; N], BootError> {
        let bytes = self.image.head(self.at, N)?;
        self.skip(N as u64)?;
        // A file that is cut while it is read.
        get(&bytes, 0).ok_or_else(|| self.truncated())
    }

    fn skip(&mut self, bytes: u64) -> Result<(), BootError> {
        let end = self.at.checked_add(bytes).filter(|end| *end <= self.size);
        self.at = end.ok_or_else(|| self.truncated())?;
        Ok(())
    }

    fn truncated(&self) -> BootError {
        let name = self.image.name.clone();
        BootError::Truncated { name, part: self.part, size_bytes: self.size }
    }

    /// RFC 8878, 3.1.1. Says whether it has a sum.
    fn zstd(&mut self) -> Result<bool, BootError> {
        let broken = "its Zstandard data has a block of no such kind";
        self.skip(ZSTD_MAGIC_SIZE)?;
        let [descriptor] = self.next()?;
        let single_segment = descriptor & 0x20 != 0;
        let window = u64::from(!single_segment);
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let content_size = match descriptor >> 6 {
            0 => u64::from(single_segment),
            n => 1 << n,
        };
        self.skip(window + dictionary + content_size)?;
        loop {
            let [low, middle, high] = self.next()?;
            let block = u32::from_le_bytes([low, middle, high, 0]);
            let size = u64::from(block >> 3);
            match block >> 1 & 3 {
                _ if size > ZSTD_BLOCK_SIZE_MAX => return Err(self.image.malformed(broken)),
                0 | 2 => self.skip(size)?,
                1 => self.skip(1)?,
                _ => return Err(self.image.malformed(broken)),
            }
            if block & 1 != 0 {
                break;
            }
        }
        let has_sum = descriptor & 4 != 0;
        self.skip(if has_sum { 4 } else { 0 })?;
        Ok(has_sum)
    }

    /// Blocks up to one of no size, or the file's end; several streams may follow one another.
    fn lz4(&mut self) -> Result<(), BootError> {
        self.part = "its LZ4 data";
        self.skip(4)?;
        while self.at < self.size {
            // Zeros that pad a file to a multiple of something need not be four.
            let rest = self.image.head(self.at, 4)?;
            if rest.iter().all(|byte| *byte == 0) {
                break;
            }
            let size = u32::from_le_bytes(self.next()?);
            if size == LZ4_MAGIC {
                continue;
            }
            if u64::from(size) > LZ4_BLOCK_SIZE_MAX {
                return Err(self
                    .image
                    .malformed("its LZ4 data has a block larger than any can be"));
            }
            self.skip(size.into())?;
        }
        Ok(())
    }

    fn lzo(&mut self) -> Result<(), BootError> {
        const HAS_FILTER: u32 = 0x800;
        /// Adler-32 and CRC-32 of a block's unpacked and packed bytes.
        const SUMS: [(u32, bool); 4] = [(1, false), (0x100, false), (2, true), (0x200, true)];
        self.part = "its LZO data";
        self.skip(9)?;
        let version = u16::from_be_bytes(self.next()?);
        let is_new = version >= 0x940;
        // The library's version, the version needed, the method and its level.
        self.skip(if is_new { 2 + 2 + 1 + 1 } else { 2 + 1 })?;
        let flags = u32::from_be_bytes(self.next()?);
        let filter = if flags & HAS_FILTER != 0 { 4 } else { 0 };
        // Mode, time, its upper half.
        self.skip(filter + 4 + 4 + if is_new { 4 } else { 0 })?;
        let [name_size] = self.next()?;
        self.skip(u64::from(name_size) + 4)?;
        loop {
            let unpacked = u32::from_be_bytes(self.next()?);
            if unpacked == 0 {
                return Ok(());
            }
            let packed = u32::from_be_bytes(self.next()?);
            if packed > unpacked {
                return Err(self.image.malformed("its LZO data has a block that grew"));
            }
            let told = |(flag, of_packed): &(u32, bool)| {
                flags & flag != 0 && (!of_packed || packed < unpacked)
            };
            let sums = SUMS.iter().filter(|sum| told(sum)).count() as u64;
            self.skip(sums * 4 + u64::from(packed))?;
        }
    }

    /// From the file's end back, by indexes, to where the data begins. Where that cannot be, only
    /// unpacking tells why.
    fn xz(&mut self) -> Result<Option<u64>, BootError> {
        self.part = "its XZ data";
        let Some(all_end) = self.last_byte()? else { return Err(self.truncated()) };
        let mut end = all_end;
        while end > self.at {
            let Some(start) = self.xz_stream_start(end)? else { return Ok(None) };
            end = start;
            // Padding between streams: zeros, by fours.
            while end >= self.at + 4 && self.image.head(end - 4, 4)? == [0; 4] {
                end -= 4;
            }
        }
        Ok(Some(all_end))
    }

    /// Behind the last byte that is not zero.
    fn last_byte(&mut self) -> Result<Option<u64>, BootError> {
        let mut end = self.size;
        while end > self.at {
            let start = end.saturating_sub(4096).max(self.at);
            let chunk = self.image.head(start, (end - start) as usize)?;
            if let Some(last) = chunk.iter().rposition(|byte| *byte != 0) {
                return Ok(Some(start + last as u64 + 1));
            }
            end = start;
        }
        Ok(None)
    }

    /// Where the stream begins that ends at `end`, if all of its frame is as it must be.
    fn xz_stream_start(&mut self, end: u64) -> Result<Option<u64>, BootError> {
        let Some(footer_at) = end.checked_sub(XZ_FOOTER_SIZE).filter(|at| *at > self.at) else {
            return Ok(None);
        };
        let footer = self.image.head(footer_at, XZ_FOOTER_SIZE as usize)?;
        let sound = footer.ends_with(b"YZ") && get32(&footer, 0) == Some(crc32(&footer[4..10]));
        let index_size = get32(&footer, 4).map_or(0, |size| (u64::from(size) + 1) * 4);
        let index_at = footer_at.checked_sub(index_size).filter(|at| *at > self.at);
        let (true, Some(index_at), true) = (sound, index_at, index_size <= XZ_INDEX_SIZE_MAX)
        else {
            return Ok(None);
        };
        let index = self.image.head(index_at, index_size as usize)?;
        let Some(blocks) = xz_blocks_size(&index) else { return Ok(None) };
        let before = blocks.checked_add(XZ_HEADER_SIZE);
        let start = before.and_then(|before| index_at.checked_sub(before));
        let Some(start) = start.filter(|start| *start >= self.at) else { return Ok(None) };
        let header = self.image.head(start, XZ_HEADER_SIZE as usize)?;
        let sound = header.starts_with(b"\xfd7zXZ\0")
            && get16(&header, 6) == get16(&footer, 8)
            && get32(&header, 8) == Some(crc32(&header[6..8]));
        Ok(sound.then_some(start))
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Bytes of all blocks an index lists, padding included; `None` when it is damaged.
fn xz_blocks_size(index: &[u8]) -> Option<u64> {
    let (listed, sum) = index.split_at_checked(index.len().checked_sub(4)?)?;
    if get32(sum, 0)? != crc32(listed) {
        return None;
    }
    let mut numbers = listed.strip_prefix(&[0])?;
    let mut total = 0u64;
    for _ in 0..number(&mut numbers)? {
        let block = number(&mut numbers)?;
        number(&mut numbers)?;
        total = total.checked_add(block.checked_next_multiple_of(4)?)?;
    }
    numbers.iter().all(|byte| *byte == 0).then_some(total)
}

/// A number of 7 bits a byte.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for n in 0..XZ_SIZE_OF_NUMBER_MAX {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
