//! The VGA's ports.

use super::spec::*;
use super::state::State;

/// A frame of the 400 lines that most modes have: 70 Hz, 449 lines with blanking.
const FRAME_NS: u64 = 14_285_714;
const LINES: u64 = 449;
const LINES_SHOWN: u64 = 400;
/// The vertical retrace pulse is longer here than a monitor's two lines: who polls for it through a
/// slow exit shall see it in the frame they wait in.
const RETRACE: std::ops::Range<u64> = 412..447;

impl State {
    /// The CRTC answers where the miscellaneous register says, and only there.
    fn crtc_port(&self, port: u64) -> u64 {
        match (port, self.misc & MISC_COLOR != 0) {
            (port::CRTC_INDEX_MONO | port::CRTC_DATA_MONO | port::STATUS_1_MONO, false) => {
                port + 0x20
            }
            (port::CRTC_INDEX | port::CRTC_DATA | port::STATUS_1, false)
            | (port::CRTC_INDEX_MONO | port::CRTC_DATA_MONO | port::STATUS_1_MONO, true) => 0,
            _ => port,
        }
    }

    pub(super) fn port_read(&mut self, port: u64, now_ns: u64) -> u8 {
        let indexed =
            |registers: &[u8], index: u8| registers.get(usize::from(index)).copied().unwrap_or(0);
        match self.crtc_port(port) {
            port::ATTRIBUTE => self.attribute_index,
            port::ATTRIBUTE_READ => indexed(&self.attribute, self.attribute_index & 0x1f),
            port::MISC_WRITE => STATUS_0_SENSE,
            port::SEQUENCER_INDEX => self.sequencer_index,
            port::SEQUENCER_DATA => indexed(&self.sequencer, self.sequencer_index),
            port::DAC_MASK => self.dac_mask,
            port::DAC_READ_INDEX => {
                if self.dac_reading {
                    3
                } else {
                    0
                }
            }
            port::DAC_WRITE_INDEX => self.dac_write_index,
            port::DAC_DATA => self.dac_read(),
            port::FEATURE_READ => self.feature,
            port::MISC_READ => self.misc,
            port::GRAPHICS_INDEX => self.graphics_index,
            port::GRAPHICS_DATA => indexed(&self.graphics, self.graphics_index),
            port::CRTC_INDEX => self.crtc_index,
            port::CRTC_DATA => indexed(&self.crtc, self.crtc_index),
            port::STATUS_1 => {
                self.attribute_data = false;
                status_1(now_ns)
            }
            _ => 0xff,
        }
    }

    pub(super) fn port_write(&mut self, port: u64, value: u8) {
        match self.crtc_port(port) {
            port::ATTRIBUTE => self.attribute_write(value),
            port::MISC_WRITE => self.misc = value & !(1 << 4),
            port::SEQUENCER_INDEX => self.sequencer_index = value & 7,
            port::SEQUENCER_DATA => {
                let index = usize::from(self.sequencer_index);
                if let (Some(register), Some(mask)) =
                    (self.sequencer.get_mut(index), SEQ_WRITABLE.get(index))
                {
                    *register = value & mask;
                }
            }
            port::DAC_MASK => self.dac_mask = value,
            port::DAC_READ_INDEX => {
                (self.dac_read_index, self.dac_component, self.dac_reading) = (value, 0, true);
            }
            port::DAC_WRITE_INDEX => {
                (self.dac_write_index, self.dac_component, self.dac_reading) = (value, 0, false);
            }
            port::DAC_DATA => self.dac_write(value),
            port::GRAPHICS_INDEX => self.graphics_index = value & 0xf,
            port::GRAPHICS_DATA => {
                let index = usize::from(self.graphics_index);
                if let (Some(register), Some(mask)) =
                    (self.graphics.get_mut(index), GFX_WRITABLE.get(index))
                {
                    *register = value & mask;
                }
            }
            port::CRTC_INDEX => self.crtc_index = value & 0x3f,
            port::CRTC_DATA => self.crtc_write(value),
            port::STATUS_1 => self.feature = value & 0x1b,
            _ => {}
        }
    }

    /// The first seven are protected together with the overflow register, of which one bit never is.
    fn crtc_write(&mut self, value: u8) {
        let index = usize::from(self.crtc_index);
        let protected = self.crtc[CRTC_V_RETRACE_END] & PROTECT != 0 && index <= CRTC_OVERFLOW;
        let Some(register) = self.crtc.get_mut(index) else { return };
        if !protected {
            *register = value;
        } else if index == CRTC_OVERFLOW {
            let open = OVERFLOW_LINE_COMPARE_8;
            *register = *register & !open | value & open;
        }
    }

    fn attribute_write(&mut self, value: u8) {
        self.attribute_data = !self.attribute_data;
        if self.attribute_data {
            self.attribute_index = value & 0x3f;
            return;
        }
        let index = usize::from(self.attribute_index & 0x1f);
        let mask = match index {
            0..=0xf | ATTRIBUTE_PLANES => 0x3f,
            ATTRIBUTE_MODE => 0xef,
            ATTRIBUTE_PANNING | ATTRIBUTE_COLOR_SELECT => 0x0f,
            _ => 0xff,
        };
        if let Some(register) = self.attribute.get_mut(index) {
            *register = value & mask;
        }
    }

    fn dac_read(&mut self) -> u8 {
        let value = self.dac[usize::from(self.dac_read_index)][usize::from(self.dac_component)];
        self.dac_component = (self.dac_component + 1) % 3;
        if self.dac_component == 0 {
            self.dac_read_index = self.dac_read_index.wrapping_add(1);
        }
        value
    }

    fn dac_write(&mut self, value: u8) {
        let value = if self.dispi.dac_8bit() { value } else { value & 0x3f };
        self.dac[usize::from(self.dac_write_index)][usize::from(self.dac_component)] = value;
        self.dac_component = (self.dac_component + 1) % 3;
        if self.dac_component == 0 {
            self.dac_write_index = self.dac_write_index.wrapping_add(1);
        }
    }
}

/// What the beam does: it moves with time, though nothing is drawn by it.
fn status_1(now_ns: u64) -> u8 {
    let at = now_ns % FRAME_NS * LINES;
    let (line, in_line) = (at / FRAME_NS, at % FRAME_NS);
    let blank = line >= LINES_SHOWN || in_line >= FRAME_NS / 5 * 4;
    let bit = |on, bit| if on { bit } else { 0 };
    bit(blank, STATUS_1_BLANK) | bit(RETRACE.contains(&line), STATUS_1_RETRACE)
}
