//! What Linux packs kernels and initial RAM disks with, as a stream.
//!
//! What Linux's `lib/decompress*.c` know, but LZO: gzip, bzip2, LZMA, XZ, LZ4 in its legacy frames,
//! Zstandard.

use std::io::{self, BufRead, Read};

use lzma_rust2::{LzmaReader, XzReader};

/// Most memory a decoder may take for its window, as the stream asks for it. Linux packs with at
/// most 128 MiB; more is an attempt to exhaust the host.
const WINDOW_KIB_MAX: u32 = 192 << 10;
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Unpacked size of a block of a legacy LZ4 frame.
const LZ4_BLOCK_SIZE: usize = 8 << 20;
const LZ4_MAGIC: u32 = 0x184c_2102;

/// How a payload is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    Gzip,
    Bzip2,
    Lzma,
    Xz,
    Lzo,
    Lz4,
    Zstd,
}

impl Compression {
    /// By its first bytes.
    pub(crate) fn detect(magic: &[u8]) -> Option<Self> {
        const MAGICS: [(&[u8], Compression); 8] = [
            (b"\x1f\x8b", Compression::Gzip),
            (b"BZh", Compression::Bzip2),
            (b"\x5d\x00\x00", Compression::Lzma),
            (b"\xfd7zXZ\x00", Compression::Xz),
            (b"\x89LZO\x00\x0d\x0a\x1a\x0a", Compression::Lzo),
            (b"\x02\x21\x4c\x18", Compression::Lz4),
            (b"\x28\xb5\x2f\xfd", Compression::Zstd),
            (b"\x22\xb5\x2f\xfd", Compression::Zstd),
        ];
        MAGICS.iter().find(|(bytes, _)| magic.starts_with(bytes)).map(|(_, format)| *format)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "LZMA",
            Self::Xz => "XZ",
            Self::Lzo => "LZO",
            Self::Lz4 => "LZ4",
            Self::Zstd => "Zstandard",
        }
    }

    /// The unpacked stream; `None` when we cannot unpack it. Its length is not bounded: the
    /// caller reads no more than it wants. LZ4 ends where `packed` does.
    ///
    /// # Errors
    /// When the stream's header is bad.
    pub(crate) fn decode<'a, R: BufRead + 'a>(
        self,
        mut packed: R,
    ) -> io::Result<Option<Box<dyn Read + 'a>>> {
        Ok(Some(match self {
            Self::Gzip => Box::new(flate2::bufread::GzDecoder::new(packed)),
            Self::Bzip2 => Box::new(bzip2::bufread::BzDecoder::new(packed)),
            Self::Lzma => Box::new(LzmaReader::new_mem_limit(packed, WINDOW_KIB_MAX, None)?),
            Self::Xz => Box::new(XzReader::new_mem_limit(packed, false, WINDOW_KIB_MAX)),
            Self::Lzo => return Ok(None),
            Self::Lz4 => {
                let mut magic = [0; 4];
                packed.read_exact(&mut magic)?;
                if u32::from_le_bytes(magic) != LZ4_MAGIC {
                    return Err(malformed("no LZ4 frame"));
                }
                Box::new(Lz4Legacy::new(packed))
            }
            Self::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(packed)?.single_frame();
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Box::new(decoder)
            }
        }))
    }
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// LZ4's legacy frame: blocks of 8 MiB (the last may be shorter), each after its packed size.
struct Lz4Legacy<R> {
    packed: R,
    block: Vec<u8>,
    input: Vec<u8>,
    at: usize,
}

impl<R: Read> Lz4Legacy<R> {
    fn new(packed: R) -> Self {
        Self { packed, block: Vec::new(), input: Vec::new(), at: 0 }
    }

    /// The next block's size, if there is one; frames may follow one another.
    fn next_size(&mut self) -> io::Result<Option<usize>> {
        loop {
            let mut size = [0; 4];
            match self.packed.read_exact(&mut size) {
                Ok(()) if u32::from_le_bytes(size) == LZ4_MAGIC => {}
                Ok(()) => return Ok(Some(u32::from_le_bytes(size) as usize)),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Unpacks the next block; an empty one is the end.
    fn next_block(&mut self) -> io::Result<()> {
        self.at = 0;
        let Some(size) = self.next_size()? else {
            self.block.clear();
            return Ok(());
        };
        if size > lz4_flex::block::get_maximum_output_size(LZ4_BLOCK_SIZE) {
            return Err(malformed("an LZ4 block is larger than any can be"));
        }
        self.input.resize(size, 0);
        self.packed.read_exact(&mut self.input)?;
        self.block.resize(LZ4_BLOCK_SIZE, 0);
        let unpacked = lz4_flex::block::decompress_into(&self.input, &mut self.block)
            .map_err(io::Error::other)?;
        self.block.truncate(unpacked);
        Ok(())
    }
}

impl<R: Read> Read for Lz4Legacy<R> {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        if self.at == self.block.len() {
            self.next_block()?;
        }
        let left = &self.block[self.at..];
        let size = left.len().min(data.len());
        data[..size].copy_from_slice(&left[..size]);
        self.at += size;
        Ok(size)
    }
}
