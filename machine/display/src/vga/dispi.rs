//! The DISPI registers: linear modes.

use super::spec::dispi::*;
use crate::PIXELS_MAX;

/// The registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Dispi {
    pub index: u16,
    pub id: u16,
    pub xres: u16,
    pub yres: u16,
    pub bpp: u16,
    pub enable: u16,
    pub bank: u16,
    pub virt_width: u16,
    pub x_offset: u16,
    pub y_offset: u16,
}

/// What a write asks of the adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    /// Video memory is to be made zero.
    Clear,
}

impl Dispi {
    pub fn at_reset() -> Self {
        Self { id: ID_5, ..Self::default() }
    }

    /// A mode of these registers is shown, and not one of the VGA's.
    pub fn is_on(&self) -> bool {
        self.enable & ENABLED != 0
    }

    pub fn dac_8bit(&self) -> bool {
        self.enable & DAC_8BIT != 0
    }

    /// The window shows linear memory: all modes but those with planes.
    pub fn is_linear(&self) -> bool {
        self.is_on() && self.bpp != 4
    }

    /// Bits a pixel takes in memory.
    fn bits(&self) -> usize {
        match self.bpp {
            15 => 16,
            bpp => usize::from(bpp),
        }
    }

    /// Bytes of a line in memory; with planes, of one plane.
    pub fn line_bytes(&self) -> usize {
        let bits = if self.bpp == 4 { 1 } else { self.bits() };
        usize::from(self.virt_width) * bits / 8
    }

    /// Where the picture begins, in the same bytes.
    pub fn start(&self) -> usize {
        let bits = if self.bpp == 4 { 1 } else { self.bits() };
        usize::from(self.y_offset) * self.line_bytes() + usize::from(self.x_offset) * bits / 8
    }

    pub fn read(&self, register: u16, vram_bytes: usize) -> u16 {
        let caps = self.enable & GET_CAPS != 0;
        match register {
            ID => self.id,
            XRES if caps => XRES_MAX,
            YRES if caps => YRES_MAX,
            BPP if caps => BPP_MAX,
            XRES => self.xres,
            YRES => self.yres,
            BPP => self.bpp,
            ENABLE => self.enable,
            BANK => self.bank,
            VIRT_WIDTH => self.virt_width,
            VIRT_HEIGHT => self.virt_height(vram_bytes),
            X_OFFSET => self.x_offset,
            Y_OFFSET => self.y_offset,
            VIDEO_MEMORY_64K => u16::try_from(vram_bytes >> 16).unwrap_or(u16::MAX),
            _ => 0,
        }
    }

    /// Lines that fit into memory.
    fn virt_height(&self, vram_bytes: usize) -> u16 {
        let memory = if self.bpp == 4 { vram_bytes / 4 } else { vram_bytes };
        let lines = memory.checked_div(self.line_bytes()).unwrap_or(0);
        u16::try_from(lines).unwrap_or(u16::MAX)
    }

    /// A write. What does not fit is made to fit, as Bochs's does: nothing is refused.
    pub fn write(&mut self, register: u16, value: u16, vram_bytes: usize) -> Effect {
        match register {
            ID if (ID_0..=ID_5).contains(&value) => self.id = value,
            XRES => self.xres = value.min(XRES_MAX) & !7,
            YRES => self.yres = value.min(YRES_MAX),
            BPP => self.bpp = if value == 0 { 8 } else { value },
            BANK => {
                let banks = u16::try_from(vram_bytes >> 16).unwrap_or(u16::MAX);
                self.bank = if value < banks { value } else { 0 };
            }
            VIRT_WIDTH => {
                self.virt_width = value & !7;
                self.fit(vram_bytes);
            }
            X_OFFSET => {
                self.x_offset = value;
                self.fit(vram_bytes);
            }
            Y_OFFSET => {
                self.y_offset = value;
                self.fit(vram_bytes);
            }
            ENABLE => return self.set_enable(value, vram_bytes),
            _ => {}
        }
        if matches!(register, XRES | YRES | BPP) && self.is_on() {
            self.fit(vram_bytes);
        }
        Effect::Nothing
    }

    fn set_enable(&mut self, value: u16, vram_bytes: usize) -> Effect {
        let known = ENABLED | GET_CAPS | DAC_8BIT | LFB_ENABLED | NO_CLEAR;
        let begins = value & ENABLED != 0 && !self.is_on();
        self.enable = value & known;
        if !begins {
            return Effect::Nothing;
        }
        (self.virt_width, self.x_offset, self.y_offset, self.bank) = (self.xres, 0, 0, 0);
        self.fit(vram_bytes);
        if value & NO_CLEAR == 0 { Effect::Clear } else { Effect::Nothing }
    }

    /// Makes the mode one that memory holds.
    fn fit(&mut self, vram_bytes: usize) {
        if !matches!(self.bpp, 4 | 8 | 15 | 16 | 24 | 32) {
            self.bpp = 8;
        }
        self.xres = self.xres.clamp(8, XRES_MAX) & !7;
        self.virt_width = self.virt_width.max(self.xres) & !7;
        let lines = self.virt_height(vram_bytes);
        let shown = u16::try_from(PIXELS_MAX / usize::from(self.xres)).unwrap_or(u16::MAX);
        self.yres = self.yres.max(1).min(lines.max(1)).min(shown).min(YRES_MAX);
        self.x_offset = self.x_offset.min(self.virt_width - self.xres);
        self.y_offset = self.y_offset.min(lines.saturating_sub(self.yres));
    }

    /// The same, of a state from outside.
    pub fn made_to_fit(mut self, vram_bytes: usize) -> Self {
        if self.is_on() {
            self.fit(vram_bytes);
        }
        self.bank = if usize::from(self.bank) < vram_bytes >> 16 { self.bank } else { 0 };
        self
    }
}
