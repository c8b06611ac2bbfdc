//! Graphics: the VGA's modes, and the linear ones of DISPI.

use super::render::{Colors, Timing};
use super::spec::*;
use super::state::State;
use super::vram::Vram;
use crate::Picture;

/// How a double word becomes eight dots.
#[derive(Clone, Copy)]
enum Shift {
    /// A bit of each plane is a pixel.
    Planes,
    /// Two bits of two planes are a pixel: CGA.
    Interleave,
    /// Each plane is a pixel, two dots wide.
    Bytes,
}

/// Fills the picture from the planes.
pub(super) fn graphics(
    state: &State,
    vram: &Vram,
    colors: &Colors,
    timing: &Timing,
    into: &mut Picture,
) {
    let mode = state.graphics[GFX_MODE];
    let shift = if mode & MODE_256 != 0 {
        Shift::Bytes
    } else if mode & MODE_INTERLEAVE != 0 {
        Shift::Interleave
    } else {
        Shift::Planes
    };
    let crtc_mode = state.crtc[CRTC_MODE];
    // Bit 13 of the address on the wires. In word mode, that is bit 12 of the counter.
    let bit_13 = if crtc_mode & CRTC_MODE_BYTE != 0 { 13 } else { 12 };
    let panning = match shift {
        Shift::Bytes => (timing.panning & 7) / 2 * 2,
        _ => timing.panning & 7,
    };
    let mut words = Vec::new();
    for (line, pixels) in into.pixels.chunks_exact_mut(into.width).enumerate() {
        let (mut start, row) = timing.line(line);
        if crtc_mode & CRTC_MODE_NO_BIT_13 == 0 {
            start = start & !(1 << bit_13) | (row & 1) << bit_13;
        }
        if crtc_mode & CRTC_MODE_NO_BIT_14 == 0 {
            start = start & !(2 << bit_13) | (row >> 1 & 1) << (bit_13 + 1);
        }
        read_line(vram, start, timing.columns + 1, &mut words);
        let dots = words.iter().flat_map(|word| dots(*word, shift, colors));
        let wide = dots.flat_map(|color| std::iter::repeat_n(color, timing.wide));
        for (to, color) in pixels.iter_mut().zip(wide.skip(panning * timing.wide)) {
            *to = color;
        }
    }
}

fn read_line(vram: &Vram, start: usize, count: usize, words: &mut Vec<[u8; 4]>) {
    words.resize(count, [0; 4]);
    vram.read(start * 4, words.as_flattened_mut());
}

fn dots(planes: [u8; 4], shift: Shift, colors: &Colors) -> [u32; 8] {
    std::array::from_fn(|dot| match shift {
        Shift::Planes => {
            let bit = |plane: usize| usize::from(planes[plane] >> (7 - dot) & 1) << plane;
            colors.narrow[bit(0) | bit(1) | bit(2) | bit(3)]
        }
        Shift::Interleave => {
            let (pair, shift) = (dot / 4, 6 - 2 * (dot % 4));
            let low = planes[pair] >> shift & 3;
            let high = planes[pair + 2] >> shift & 3;
            colors.narrow[usize::from(high << 2 | low)]
        }
        Shift::Bytes => colors.wide[usize::from(planes[dot / 2])],
    })
}

/// A DISPI mode with four planes.
pub(super) fn planar_linear(state: &State, vram: &Vram, colors: &Colors, into: &mut Picture) {
    let (start, step) = (state.dispi.start(), state.dispi.line_bytes());
    let mut words = Vec::new();
    for (line, pixels) in into.pixels.chunks_exact_mut(into.width).enumerate() {
        read_line(vram, start + line * step, pixels.len().div_ceil(8), &mut words);
        let dots = words.iter().flat_map(|word| dots(*word, Shift::Planes, colors));
        for (to, color) in pixels.iter_mut().zip(dots) {
            *to = color;
        }
    }
}

/// A DISPI mode with pixels one after the other.
pub(super) fn linear(state: &State, vram: &Vram, colors: &Colors, into: &mut Picture) {
    let dispi = &state.dispi;
    let (start, step) = (dispi.start(), dispi.line_bytes());
    let bytes_of_pixel = if dispi.bpp == 15 { 2 } else { usize::from(dispi.bpp) / 8 };
    let mut bytes = vec![0; into.width * bytes_of_pixel];
    for (line, pixels) in into.pixels.chunks_exact_mut(into.width).enumerate() {
        vram.read(start + line * step, &mut bytes);
        match dispi.bpp {
            8 => fill(pixels, &bytes, |[index]: [u8; 1]| colors.wide[usize::from(index)]),
            15 => fill(pixels, &bytes, |pixel| high_color(u16::from_le_bytes(pixel), 5)),
            16 => fill(pixels, &bytes, |pixel| high_color(u16::from_le_bytes(pixel), 6)),
            24 => fill(pixels, &bytes, |[b, g, r]: [u8; 3]| u32::from_le_bytes([b, g, r, 0])),
            _ => fill(pixels, &bytes, |pixel| u32::from_le_bytes(pixel) & 0xff_ffff),
        }
    }
}

fn fill<const N: usize>(pixels: &mut [u32], bytes: &[u8], color: impl Fn([u8; N]) -> u32) {
    for (to, pixel) in pixels.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *to = color(*pixel);
    }
}

/// Five bits of red and blue, and so many of green.
fn high_color(pixel: u16, green_bits: u32) -> u32 {
    let five = |value: u16| u32::from((value & 0x1f) << 3 | value >> 2 & 7);
    let green = pixel >> 5;
    let green =
        if green_bits == 6 { u32::from((green & 0x3f) << 2 | green >> 4 & 3) } else { five(green) };
    five(pixel >> (5 + green_bits)) << 16 | green << 8 | five(pixel)
}
