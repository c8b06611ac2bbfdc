//! ZRLE (7.7.6): tiles of 64 by 64, each in its shortest form, in one zlib stream.

use super::{Palette, Stream};
use crate::Picture;
use crate::pixel::PixelFormat;
use crate::shown::Rect;

const TILE: usize = 64;
/// The largest palette whose indices are packed.
const PACKED_MAX: usize = 16;
const RAW: u8 = 0;
const SOLID: u8 = 1;
const PLAIN_RLE: u8 = 128;

pub(super) fn rect(
    stream: &mut Stream,
    format: &PixelFormat,
    picture: &Picture,
    rect: &Rect,
    to: &mut Vec<u8>,
) {
    let mut tiles = Vec::new();
    for y in (0..rect.height).step_by(TILE) {
        for x in (0..rect.width).step_by(TILE) {
            let part = Rect {
                x: rect.x + x,
                y: rect.y + y,
                width: TILE.min(rect.width - x),
                height: TILE.min(rect.height - y),
            };
            tile(format, picture, &part, &mut tiles);
        }
    }
    let at = to.len();
    to.extend([0; 4]);
    stream.deflate(&tiles, to);
    let size = (to.len() - at - 4) as u32; // a rectangle is a few MiB at most
    to[at..at + 4].copy_from_slice(&size.to_be_bytes());
}

fn tile(format: &PixelFormat, picture: &Picture, part: &Rect, to: &mut Vec<u8>) {
    if let Some(palette) = Palette::of(part.lines(picture).flatten(), PACKED_MAX) {
        let count = palette.colors.len();
        to.push(if count == 1 { SOLID } else { count as u8 });
        palette.colors.iter().for_each(|color| format.put_compact(*color, to));
        let bits = match count {
            1 => return,
            2 => 1,
            3..=4 => 2,
            _ => 4,
        };
        return part.lines(picture).for_each(|line| palette.pack(line, bits, to));
    }
    // Runs may go on over the ends of lines.
    let pixels: Vec<u32> = part.lines(picture).flatten().copied().collect();
    let runs: Vec<&[u32]> = pixels.chunk_by(|a, b| a == b).collect();
    if runs.len() * (format.compact_bytes() + 1) < pixels.len() * format.compact_bytes() {
        to.push(PLAIN_RLE);
        for run in runs {
            format.put_compact(run[0], to);
            let mut rest = run.len() - 1;
            while rest >= 255 {
                to.push(255);
                rest -= 255;
            }
            to.push(rest as u8);
        }
    } else {
        to.push(RAW);
        pixels.iter().for_each(|color| format.put_compact(*color, to));
    }
}
