//! The window at 0xa0000: what an access does to the four planes.

use super::spec::*;
use super::state::State;
use super::vram::Vram;

/// Bytes of a plane that the window reaches without banks.
const WINDOW_64K: u64 = 0x1_0000;

/// A byte for each of four bits.
pub(super) fn expand(bits: u8) -> u32 {
    (0..4).filter(|plane| bits & 1 << plane != 0).map(|plane| 0xff << (8 * plane)).sum()
}

fn repeat(byte: u8) -> u32 {
    u32::from(byte) * 0x0101_0101
}

/// Where an access goes: a double word of video memory, and which of its planes.
struct Place {
    double_word: usize,
    planes: u8,
}

impl State {
    /// The offset in memory that the window shows at `offset` from 0xa0000.
    fn seen_at(&self, offset: u64) -> Option<u64> {
        let (base, size) = match self.graphics[GFX_MISC] >> 2 & 3 {
            0 => (0, 0x2_0000),
            1 => (0, WINDOW_64K),
            2 => (0x1_0000, 0x8000),
            _ => (0x1_8000, 0x8000),
        };
        let at = offset.checked_sub(base).filter(|at| *at < size)?;
        Some(at + if self.dispi.is_on() { u64::from(self.dispi.bank) * WINDOW_64K } else { 0 })
    }

    /// A byte of linear memory, when that is what the window shows.
    fn linear_at(&self, offset: u64) -> Option<u64> {
        let bank = u64::from(self.dispi.bank) * WINDOW_64K;
        (self.dispi.is_linear() && offset < WINDOW_64K).then_some(bank + offset)
    }

    fn place(&self, at: u64, odd_even: bool) -> Place {
        let at = at as usize; // below 2^33: banks are 16 bits
        if self.sequencer[SEQ_MEMORY_MODE] & MEMORY_CHAIN_4 != 0 {
            Place { double_word: at >> 2, planes: 1 << (at & 3) }
        } else if odd_even {
            Place { double_word: at >> 1, planes: 5 << (at & 1) }
        } else {
            Place { double_word: at, planes: 0xf }
        }
    }

    /// Reads a byte of the window.
    pub(super) fn window_read(&mut self, vram: &Vram, offset: u64) -> u8 {
        if let Some(at) = self.linear_at(offset) {
            return vram.byte(at as usize);
        }
        let Some(at) = self.seen_at(offset) else { return 0xff };
        let mode = self.graphics[GFX_MODE];
        let Place { double_word, planes } = self.place(at, mode & MODE_ODD_EVEN != 0);
        self.latch = vram.double_word(double_word);
        if mode & MODE_READ_1 != 0 {
            let differs = (self.latch ^ expand(self.graphics[GFX_COLOR_COMPARE]))
                & expand(self.graphics[GFX_COLOR_IGNORE]);
            return !differs.to_le_bytes().iter().fold(0, |all, plane| all | plane);
        }
        // The address chooses the plane where there are several, and the register among the rest.
        let plane = match planes {
            0xf => self.graphics[GFX_READ_MAP] & 3,
            0x5 => self.graphics[GFX_READ_MAP] & 2,
            0xa => self.graphics[GFX_READ_MAP] & 2 | 1,
            one => one.trailing_zeros() as u8,
        };
        self.latch.to_le_bytes()[usize::from(plane)]
    }

    /// Writes a byte to the window.
    pub(super) fn window_write(&mut self, vram: &Vram, offset: u64, value: u8) {
        if let Some(at) = self.linear_at(offset) {
            return vram.set_byte(at as usize, value);
        }
        let Some(at) = self.seen_at(offset) else { return };
        // The manual wants the two the other way round from each other. Where they are not, odd and
        // even addresses are one plane's, as GRUB's image for QEMU expects when it writes its font.
        let odd_even = self.sequencer[SEQ_MEMORY_MODE] & MEMORY_SEQUENTIAL == 0
            && self.graphics[GFX_MODE] & MODE_ODD_EVEN != 0;
        let Place { double_word, planes } = self.place(at, odd_even);
        let mask = expand(planes & self.sequencer[SEQ_MAP_MASK]);
        let planes = self.through_the_unit(value);
        let before = vram.double_word(double_word);
        vram.set_double_word(double_word, before & !mask | planes & mask);
    }

    /// What the graphics controller makes of a byte that is written, by its write mode.
    fn through_the_unit(&self, value: u8) -> u32 {
        let gfx = &self.graphics;
        let rotated = value.rotate_right(u32::from(gfx[GFX_ROTATE] & 7));
        let set_reset = expand(gfx[GFX_SET_RESET]);
        let bits = repeat(gfx[GFX_BIT_MASK]);
        let (planes, bits) = match gfx[GFX_MODE] & 3 {
            0 => {
                let enable = expand(gfx[GFX_ENABLE_SET_RESET]);
                (repeat(rotated) & !enable | set_reset & enable, bits)
            }
            1 => return self.latch,
            2 => (expand(value & 0xf), bits),
            _ => (set_reset, bits & repeat(rotated)),
        };
        let planes = match gfx[GFX_ROTATE] >> 3 & 3 {
            0 => planes,
            1 => planes & self.latch,
            2 => planes | self.latch,
            _ => planes ^ self.latch,
        };
        planes & bits | self.latch & !bits
    }
}
