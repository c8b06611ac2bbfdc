//! Text: characters from plane 0, attributes from plane 1, dots from plane 2.

use super::render::{Colors, Timing};
use super::spec::*;
use super::state::State;
use super::vram::Vram;
use crate::Picture;

/// A frame of text modes.
const FRAME_NS: u64 = 14_285_714;
/// The cursor is on for so many frames, and then off; characters half as often.
const CURSOR_FRAMES: u64 = 8;
/// Where fonts begin in plane 2, by the number in the character map register.
const FONTS: [usize; 8] = [0, 0x4000, 0x8000, 0xc000, 0x2000, 0x6000, 0xa000, 0xe000];
/// Rows a font has for each character.
const FONT_ROWS: usize = 32;
/// Characters whose eighth dot goes on into the ninth.
const LINE_GRAPHICS: std::ops::RangeInclusive<u8> = 0xc0..=0xdf;

/// What is the same for all characters of a picture.
struct Style {
    /// Fonts of attributes with and without bit 3.
    fonts: [usize; 2],
    dots: usize,
    line_graphics: bool,
    blinks: bool,
    /// Blinking characters are dark now.
    dark: bool,
    /// The underline's row, on a monochrome adapter.
    underline: Option<usize>,
    /// The cursor's cell and rows.
    cursor: Option<(usize, std::ops::RangeInclusive<usize>)>,
}

impl Style {
    fn of(state: &State, dots: usize, now_ns: u64) -> Self {
        let map = state.sequencer[SEQ_CHARACTER_MAP];
        let font = |low: u8, high: u8| FONTS[usize::from(map >> low & 3 | (map >> high & 1) << 2)];
        let mode = state.attribute[ATTRIBUTE_MODE];
        let crtc = &state.crtc;
        let phase = now_ns / (FRAME_NS * CURSOR_FRAMES);
        let on = crtc[CRTC_CURSOR_START] & CURSOR_OFF == 0 && phase.is_multiple_of(2);
        let at = usize::from(crtc[CRTC_CURSOR_HIGH]) << 8 | usize::from(crtc[CRTC_CURSOR_LOW]);
        let rows =
            usize::from(crtc[CRTC_CURSOR_START] & 0x1f)..=usize::from(crtc[CRTC_CURSOR_END] & 0x1f);
        Self {
            fonts: [font(2, 5), font(0, 4)],
            dots,
            line_graphics: mode & ATTRIBUTE_LINE_GRAPHICS != 0,
            blinks: mode & ATTRIBUTE_BLINK != 0,
            dark: phase / 2 % 2 == 1,
            underline: (mode & ATTRIBUTE_MONO != 0)
                .then_some(usize::from(crtc[CRTC_UNDERLINE] & 0x1f)),
            cursor: on.then_some((at, rows)),
        }
    }

    /// Nine dots of a character's row, the first in bit 8, and the colours of those set and clear.
    fn row(&self, vram: &Vram, cell: usize, row: usize) -> (u16, usize, usize) {
        let [character, attribute, ..] = vram.double_word(cell).to_le_bytes();
        let font = self.fonts[usize::from(attribute & 8 == 0)];
        let glyph = font + usize::from(character) * FONT_ROWS + row;
        let [_, _, dots, _] = vram.double_word(glyph & 0xffff).to_le_bytes();
        let ninth = self.line_graphics && LINE_GRAPHICS.contains(&character);
        let mut dots = u16::from(dots) << 1 | u16::from(ninth) & u16::from(dots);
        let (mut front, mut back) = (attribute & 0xf, attribute >> 4);
        if self.blinks {
            if back & 8 != 0 && self.dark {
                dots = 0;
            }
            back &= 7;
        }
        if self.underline == Some(row) && attribute & 7 == 1 {
            dots = 0x1ff;
        }
        if self.cursor.as_ref().is_some_and(|(at, rows)| *at == cell && rows.contains(&row)) {
            dots = 0x1ff;
        }
        if self.underline.is_some() && attribute & 0x77 == 0 {
            (front, back) = (0, 0); // invisible
        }
        (dots, usize::from(front), usize::from(back))
    }
}

/// Fills the picture with text.
pub(super) fn text(
    state: &State,
    vram: &Vram,
    colors: &Colors,
    timing: &Timing,
    (dots, now_ns): (usize, u64),
    into: &mut Picture,
) {
    let style = Style::of(state, dots, now_ns);
    // With 9 dots a character, 8 means no panning and 0 one dot.
    let panning = match (dots, timing.panning) {
        (9, 8..) => 0,
        (9, n) => n + 1,
        (_, n) => n & 7,
    };
    for (line, pixels) in into.pixels.chunks_exact_mut(into.width).enumerate() {
        let (start, row) = timing.line(line);
        let mut at = 0;
        // One character more, for what panning moves in.
        for column in 0..=timing.columns {
            let (bits, front, back) = style.row(vram, start + column, row);
            for dot in 0..style.dots {
                let color = if bits & 0x100 >> dot != 0 { front } else { back };
                for _ in 0..timing.wide {
                    let moved = (at / timing.wide).checked_sub(panning).map(|_| at);
                    let to = moved.and_then(|at| pixels.get_mut(at - panning * timing.wide));
                    if let Some(to) = to {
                        *to = colors.narrow[color];
                    }
                    at += 1;
                }
            }
        }
    }
}
