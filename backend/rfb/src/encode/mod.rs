//! Rectangles on the wire (7.7).

mod tight;
mod zrle;

use flate2::{Compress, Compression, FlushCompress};

use crate::Picture;
use crate::pixel::PixelFormat;
use crate::shown::Rect;

/// How hard to compress: viewers wait for latency more than for bytes.
const LEVEL: u32 = 1;

/// An encoding of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Raw,
    Zrle,
    Tight,
}

impl Encoding {
    /// By its number.
    pub fn of(number: i32) -> Option<Self> {
        match number {
            0 => Some(Self::Raw),
            7 => Some(Self::Tight),
            16 => Some(Self::Zrle),
            _ => None,
        }
    }

    fn number(self) -> i32 {
        match self {
            Self::Raw => 0,
            Self::Tight => 7,
            Self::Zrle => 16,
        }
    }
}

/// The compressors of one viewer: their streams go on from rectangle to rectangle.
pub(crate) struct Encoder {
    zrle: Stream,
    tight: [Stream; 3],
}

impl Encoder {
    pub fn new() -> Self {
        Self { zrle: Stream::new(), tight: std::array::from_fn(|_| Stream::new()) }
    }

    /// Appends a rectangle with its header.
    pub fn rect(
        &mut self,
        encoding: Encoding,
        format: &PixelFormat,
        picture: &Picture,
        rect: &Rect,
        to: &mut Vec<u8>,
    ) {
        header(*rect, encoding.number(), to);
        match encoding {
            Encoding::Raw => {
                for line in rect.lines(picture) {
                    line.iter().for_each(|color| format.put(*color, to));
                }
            }
            Encoding::Zrle => zrle::rect(&mut self.zrle, format, picture, rect, to),
            Encoding::Tight => tight::rect(&mut self.tight, format, picture, rect, to),
        }
    }
}

/// Appends a rectangle's header.
pub(crate) fn header(rect: Rect, encoding: i32, to: &mut Vec<u8>) {
    for number in [rect.x, rect.y, rect.width, rect.height] {
        to.extend((number as u16).to_be_bytes()); // pictures have 65535 pixels a side at most
    }
    to.extend(encoding.to_be_bytes());
}

/// A zlib stream that is flushed after each rectangle. It begins when it is first used.
struct Stream(Option<Compress>);

impl Stream {
    fn new() -> Self {
        Self(None)
    }

    /// Appends `data`, compressed.
    fn deflate(&mut self, data: &[u8], to: &mut Vec<u8>) {
        let zlib = self.0.get_or_insert_with(|| Compress::new(Compression::new(LEVEL), true));
        let begin = zlib.total_in();
        loop {
            to.reserve(data.len() / 4 + 256);
            let at = (zlib.total_in() - begin) as usize;
            let result = zlib.compress_vec(&data[at..], to, FlushCompress::Sync);
            assert!(result.is_ok(), "deflating memory does not fail");
            // Room that is left says that all has come out.
            if to.len() < to.capacity() && (zlib.total_in() - begin) as usize == data.len() {
                return;
            }
        }
    }
}

/// The different colours of some pixels, in the order they come, while they are few.
struct Palette {
    colors: Vec<u32>,
}

impl Palette {
    /// `None` when there are more than `max`.
    fn of<'a>(pixels: impl Iterator<Item = &'a u32>, max: usize) -> Option<Self> {
        let mut colors: Vec<u32> = Vec::new();
        let mut last = None;
        for color in pixels {
            if last == Some(*color) {
                continue;
            }
            last = Some(*color);
            if !colors.contains(color) {
                if colors.len() == max {
                    return None;
                }
                colors.push(*color);
            }
        }
        Some(Self { colors })
    }

    fn index(&self, color: u32) -> u8 {
        // Palettes have 256 colours at most, and all that are asked for.
        self.colors.iter().position(|c| *c == color).unwrap_or(0) as u8
    }

    /// A line's pixels as indices of so many bits, from the highest bit on.
    fn pack(&self, line: &[u32], bits: usize, to: &mut Vec<u8>) {
        let per_byte = 8 / bits;
        for pixels in line.chunks(per_byte) {
            let byte = pixels
                .iter()
                .enumerate()
                .fold(0, |byte, (at, color)| byte | self.index(*color) << (8 - bits * (at + 1)));
            to.push(byte);
        }
    }
}
