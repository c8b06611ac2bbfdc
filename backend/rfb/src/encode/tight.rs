//! Tight ("rfbproto", 7.7.7), without JPEG: fill, palettes and pixels, each in a zlib stream of its own.

use super::{Palette, Stream};
use crate::Picture;
use crate::pixel::PixelFormat;
use crate::shown::Rect;

/// Shorter data is not compressed.
const COMPRESSED_MIN: usize = 12;
/// More colours gain nothing over pixels.
const PALETTE_MAX: usize = 64;
const FILL: u8 = 0x80;
const EXPLICIT_FILTER: u8 = 0x40;
const PALETTE_FILTER: u8 = 1;
/// Streams: pixels, two colours, and more.
const PIXELS: usize = 0;
const MONO: usize = 1;
const INDEXED: usize = 2;

pub(super) fn rect(
    streams: &mut [Stream; 3],
    format: &PixelFormat,
    picture: &Picture,
    rect: &Rect,
    to: &mut Vec<u8>,
) {
    let palette = Palette::of(rect.lines(picture).flatten(), PALETTE_MAX);
    let mut data = Vec::new();
    let stream = match palette {
        Some(palette) if palette.colors.len() == 1 => {
            to.push(FILL);
            return format.put_tight(palette.colors[0], to);
        }
        Some(palette) => {
            let (stream, bits) = if palette.colors.len() == 2 { (MONO, 1) } else { (INDEXED, 8) };
            to.extend([EXPLICIT_FILTER | (stream as u8) << 4, PALETTE_FILTER]);
            to.push((palette.colors.len() - 1) as u8);
            palette.colors.iter().for_each(|color| format.put_tight(*color, to));
            rect.lines(picture).for_each(|line| palette.pack(line, bits, &mut data));
            stream
        }
        None => {
            to.push((PIXELS as u8) << 4);
            data.reserve(rect.width * rect.height * format.tight_bytes());
            rect.lines(picture).flatten().for_each(|color| format.put_tight(*color, &mut data));
            PIXELS
        }
    };
    if data.len() < COMPRESSED_MIN {
        return to.extend(data);
    }
    let mut compressed = Vec::new();
    streams[stream].deflate(&data, &mut compressed);
    compact_length(compressed.len(), to);
    to.extend(compressed);
}

/// A length of up to 22 bits, seven at a time.
fn compact_length(length: usize, to: &mut Vec<u8>) {
    assert!(length < 1 << 22, "a rectangle of {length} bytes");
    let [low, middle, high] = [length & 0x7f, length >> 7 & 0x7f, length >> 14].map(|n| n as u8);
    match (middle, high) {
        (0, 0) => to.push(low),
        (_, 0) => to.extend([low | 0x80, middle]),
        _ => to.extend([low | 0x80, middle | 0x80, high]),
    }
}
