//! From registers and video memory to a picture.

use super::spec::*;
use super::state::State;
use super::vram::Vram;
use super::{graphics, text};
use crate::{PIXELS_MAX, Picture};

/// What is shown when nothing is: as large as the text a machine begins with.
const NOTHING: (usize, usize) = (720, 400);

/// What the CRTC's registers say of the picture, in all modes of the VGA.
pub(super) struct Timing {
    /// Characters of 8 or 9 dots across.
    pub columns: usize,
    /// Lines down.
    pub lines: usize,
    /// Pixels that a dot becomes, across.
    pub wide: usize,
    /// Lines that a row of the character generator becomes.
    pub tall: usize,
    /// Rows of a character.
    pub rows: usize,
    /// Double words from one row of characters to the next.
    pub step: usize,
    /// The double word at the top left.
    pub start: usize,
    /// Below this line, what is shown begins at 0. None below the first: there it is what a register
    /// says that nobody has set.
    pub split: usize,
    /// Dots that the picture is moved to the left.
    pub panning: usize,
    /// The row of the first character that is the first line.
    pub first_row: usize,
}

impl Timing {
    fn of(state: &State) -> Self {
        let (crtc, overflow) = (&state.crtc, state.crtc[CRTC_OVERFLOW]);
        let bit = |byte: u8, bit: u8, to: u8| usize::from(byte >> bit & 1) << to;
        let max_scan = crtc[CRTC_MAX_SCAN];
        let word = |high: usize, low: usize| usize::from(crtc[high]) << 8 | usize::from(crtc[low]);
        Self {
            columns: usize::from(crtc[CRTC_H_DISPLAY_END]) + 1,
            lines: (usize::from(crtc[CRTC_V_DISPLAY_END])
                | bit(overflow, 1, 8)
                | bit(overflow, 6, 9))
                + 1,
            wide: if state.sequencer[SEQ_CLOCKING] & CLOCKING_HALF != 0 { 2 } else { 1 },
            tall: if max_scan & MAX_SCAN_DOUBLE != 0 { 2 } else { 1 },
            rows: usize::from(max_scan & 0x1f) + 1,
            step: usize::from(crtc[CRTC_OFFSET]) * 2,
            start: word(CRTC_START_HIGH, CRTC_START_LOW)
                + usize::from(crtc[CRTC_PRESET_ROW] >> 5 & 3),
            split: usize::from(crtc[CRTC_LINE_COMPARE]) | bit(overflow, 4, 8) | bit(max_scan, 6, 9),
            panning: usize::from(state.attribute[ATTRIBUTE_PANNING]),
            first_row: usize::from(crtc[CRTC_PRESET_ROW] & 0x1f),
        }
    }

    /// For a line of the picture: the double word it begins at, and the row in its characters.
    pub fn line(&self, line: usize) -> (usize, usize) {
        let (base, first, line) = if self.split != 0 && line > self.split {
            (0, 0, line - self.split - 1)
        } else {
            (self.start, self.first_row, line)
        };
        let row = line / self.tall + first;
        (base + row / self.rows * self.step, row % self.rows)
    }
}

/// Makes the picture.
pub(super) fn render(state: &State, vram: &Vram, now_ns: u64, into: &mut Picture) {
    let off = state.attribute_index & ATTRIBUTE_SHOW == 0
        || state.sequencer[SEQ_CLOCKING] & CLOCKING_OFF != 0 && !state.dispi.is_on();
    let colors = Colors::of(state);
    if state.dispi.is_on() {
        let (width, height) = (usize::from(state.dispi.xres), usize::from(state.dispi.yres));
        into.begin(width, height);
        match state.dispi.bpp {
            _ if off => {}
            4 => graphics::planar_linear(state, vram, &colors, into),
            _ => graphics::linear(state, vram, &colors, into),
        }
        return;
    }
    let timing = Timing::of(state);
    if off && timing.columns < 2 {
        return into.begin(NOTHING.0, NOTHING.1);
    }
    let is_text = state.graphics[GFX_MISC] & MISC_GRAPHICS == 0;
    let nine = is_text && state.sequencer[SEQ_CLOCKING] & CLOCKING_8_DOTS == 0;
    let dots = if nine { 9 } else { 8 };
    let width = timing.columns * dots * timing.wide;
    into.begin(width, timing.lines.min(PIXELS_MAX / width));
    match (off, is_text) {
        (true, _) => {}
        (false, true) => text::text(state, vram, &colors, &timing, (dots, now_ns), into),
        (false, false) => graphics::graphics(state, vram, &colors, &timing, into),
    }
}

/// The DAC's colours, and the way of a pixel's four bits to them.
pub(super) struct Colors {
    /// By the pixel's 8 bits.
    pub wide: Box<[u32; 256]>,
    /// By the pixel's 4 bits.
    pub narrow: [u32; 16],
}

impl Colors {
    fn of(state: &State) -> Self {
        let wide_dac = state.dispi.dac_8bit();
        let component =
            |value: u8| u32::from(if wide_dac { value } else { value << 2 | value >> 4 & 3 });
        let color = |index: usize| {
            let [red, green, blue] = state.dac[index & usize::from(state.dac_mask)];
            component(red) << 16 | component(green) << 8 | component(blue)
        };
        let select = state.attribute[ATTRIBUTE_COLOR_SELECT];
        let p54 = state.attribute[ATTRIBUTE_MODE] & ATTRIBUTE_P54 != 0;
        let narrow = std::array::from_fn(|pixel| {
            let enabled = pixel & usize::from(state.attribute[ATTRIBUTE_PLANES] & 0xf);
            let palette = state.attribute[enabled] & 0x3f;
            let low = if p54 { palette & 0xf | (select & 3) << 4 } else { palette };
            color(usize::from(low | (select & 0xc) << 4))
        });
        Self { wide: Box::new(std::array::from_fn(color)), narrow }
    }
}
