//! Registers and bits, by the names of their documents.

/// Ports.
pub mod port {
    pub const CRTC_INDEX_MONO: u64 = 0x3b4;
    pub const CRTC_DATA_MONO: u64 = 0x3b5;
    pub const STATUS_1_MONO: u64 = 0x3ba;
    pub const ATTRIBUTE: u64 = 0x3c0;
    pub const ATTRIBUTE_READ: u64 = 0x3c1;
    /// Written: miscellaneous output. Read: input status 0.
    pub const MISC_WRITE: u64 = 0x3c2;
    pub const SEQUENCER_INDEX: u64 = 0x3c4;
    pub const SEQUENCER_DATA: u64 = 0x3c5;
    pub const DAC_MASK: u64 = 0x3c6;
    /// Written: which colour to read. Read: what the DAC does.
    pub const DAC_READ_INDEX: u64 = 0x3c7;
    pub const DAC_WRITE_INDEX: u64 = 0x3c8;
    pub const DAC_DATA: u64 = 0x3c9;
    pub const FEATURE_READ: u64 = 0x3ca;
    pub const MISC_READ: u64 = 0x3cc;
    pub const GRAPHICS_INDEX: u64 = 0x3ce;
    pub const GRAPHICS_DATA: u64 = 0x3cf;
    pub const CRTC_INDEX: u64 = 0x3d4;
    pub const CRTC_DATA: u64 = 0x3d5;
    /// Read: input status 1. Written: feature control.
    pub const STATUS_1: u64 = 0x3da;
}

/// Miscellaneous output: the CRTC is at 0x3d4, not at 0x3b4.
pub const MISC_COLOR: u8 = 1;
/// Input status 0: a colour monitor is there.
pub const STATUS_0_SENSE: u8 = 1 << 4;
/// Input status 1: nothing is being shown.
pub const STATUS_1_BLANK: u8 = 1;
/// Input status 1: vertical retrace.
pub const STATUS_1_RETRACE: u8 = 1 << 3;

pub const SEQ_CLOCKING: usize = 1;
pub const SEQ_MAP_MASK: usize = 2;
pub const SEQ_CHARACTER_MAP: usize = 3;
pub const SEQ_MEMORY_MODE: usize = 4;
/// Clocking mode: 8 dots a character, not 9; every dot twice; nothing is shown.
pub const CLOCKING_8_DOTS: u8 = 1;
pub const CLOCKING_HALF: u8 = 1 << 3;
pub const CLOCKING_OFF: u8 = 1 << 5;
/// Memory mode: addresses are not split among odd and even planes; chain 4.
pub const MEMORY_SEQUENTIAL: u8 = 1 << 2;
pub const MEMORY_CHAIN_4: u8 = 1 << 3;
/// Which bits the sequencer's registers have.
pub const SEQ_WRITABLE: [u8; 5] = [0x03, 0x3d, 0x0f, 0x3f, 0x0e];

pub const GFX_SET_RESET: usize = 0;
pub const GFX_ENABLE_SET_RESET: usize = 1;
pub const GFX_COLOR_COMPARE: usize = 2;
pub const GFX_ROTATE: usize = 3;
pub const GFX_READ_MAP: usize = 4;
pub const GFX_MODE: usize = 5;
pub const GFX_MISC: usize = 6;
pub const GFX_COLOR_IGNORE: usize = 7;
pub const GFX_BIT_MASK: usize = 8;
/// Mode: compare colours when read; odd/even when read; two bits a pixel; 256 colours.
pub const MODE_READ_1: u8 = 1 << 3;
pub const MODE_ODD_EVEN: u8 = 1 << 4;
pub const MODE_INTERLEAVE: u8 = 1 << 5;
pub const MODE_256: u8 = 1 << 6;
/// Miscellaneous: graphics, not text.
pub const MISC_GRAPHICS: u8 = 1;
pub const GFX_WRITABLE: [u8; 9] = [0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff];

pub const CRTC_COUNT: usize = 0x19;
pub const CRTC_H_DISPLAY_END: usize = 0x01;
pub const CRTC_OVERFLOW: usize = 0x07;
pub const CRTC_PRESET_ROW: usize = 0x08;
pub const CRTC_MAX_SCAN: usize = 0x09;
pub const CRTC_CURSOR_START: usize = 0x0a;
pub const CRTC_CURSOR_END: usize = 0x0b;
pub const CRTC_START_HIGH: usize = 0x0c;
pub const CRTC_START_LOW: usize = 0x0d;
pub const CRTC_CURSOR_HIGH: usize = 0x0e;
pub const CRTC_CURSOR_LOW: usize = 0x0f;
pub const CRTC_V_RETRACE_END: usize = 0x11;
pub const CRTC_V_DISPLAY_END: usize = 0x12;
pub const CRTC_OFFSET: usize = 0x13;
pub const CRTC_UNDERLINE: usize = 0x14;
pub const CRTC_MODE: usize = 0x17;
pub const CRTC_LINE_COMPARE: usize = 0x18;
/// Overflow: bit 8 of the line compare register.
pub const OVERFLOW_LINE_COMPARE_8: u8 = 1 << 4;
/// Vertical retrace end: registers 0 to 7 cannot be written.
pub const PROTECT: u8 = 1 << 7;
/// Maximum scan line: every line twice.
pub const MAX_SCAN_DOUBLE: u8 = 1 << 7;
pub const CURSOR_OFF: u8 = 1 << 5;
/// Mode: row scan bits do not take the place of address bits 13 and 14; addresses are bytes.
pub const CRTC_MODE_NO_BIT_13: u8 = 1;
pub const CRTC_MODE_NO_BIT_14: u8 = 1 << 1;
pub const CRTC_MODE_BYTE: u8 = 1 << 6;

pub const ATTRIBUTE_COUNT: usize = 0x15;
pub const ATTRIBUTE_MODE: usize = 0x10;
pub const ATTRIBUTE_PLANES: usize = 0x12;
pub const ATTRIBUTE_PANNING: usize = 0x13;
pub const ATTRIBUTE_COLOR_SELECT: usize = 0x14;
/// Index: the palette is used by the screen, which is black otherwise.
pub const ATTRIBUTE_SHOW: u8 = 1 << 5;
/// Mode: monochrome; the ninth dot of line graphics is the eighth; bit 7 blinks; colour bits 5 and
/// 4 come from the colour select register.
pub const ATTRIBUTE_MONO: u8 = 1 << 1;
pub const ATTRIBUTE_LINE_GRAPHICS: u8 = 1 << 2;
pub const ATTRIBUTE_BLINK: u8 = 1 << 3;
pub const ATTRIBUTE_P54: u8 = 1 << 7;

/// DISPI registers.
pub mod dispi {
    pub const ID: u16 = 0;
    pub const XRES: u16 = 1;
    pub const YRES: u16 = 2;
    pub const BPP: u16 = 3;
    pub const ENABLE: u16 = 4;
    pub const BANK: u16 = 5;
    pub const VIRT_WIDTH: u16 = 6;
    pub const VIRT_HEIGHT: u16 = 7;
    pub const X_OFFSET: u16 = 8;
    pub const Y_OFFSET: u16 = 9;
    pub const VIDEO_MEMORY_64K: u16 = 10;

    /// The newest version of the interface, and the oldest.
    pub const ID_5: u16 = 0xb0c5;
    pub const ID_0: u16 = 0xb0c0;
    pub const ENABLED: u16 = 1;
    /// The first registers read as the greatest values they can have.
    pub const GET_CAPS: u16 = 1 << 1;
    pub const DAC_8BIT: u16 = 1 << 5;
    pub const LFB_ENABLED: u16 = 1 << 6;
    pub const NO_CLEAR: u16 = 1 << 7;
    pub const XRES_MAX: u16 = 4096;
    pub const YRES_MAX: u16 = 4096;
    pub const BPP_MAX: u16 = 32;
}

/// BAR 2.
pub mod mmio {
    pub const SIZE: u64 = 0x1000;
    pub const EDID: u64 = 0;
    pub const EDID_SIZE: u64 = 0x400;
    /// The VGA's ports from 0x3c0.
    pub const VGA: u64 = 0x400;
    pub const VGA_SIZE: u64 = 0x20;
    /// The DISPI registers, 16 bits each.
    pub const DISPI: u64 = 0x500;
    pub const DISPI_SIZE: u64 = 0x16;
    /// How many bytes of registers there are from here on, and the byte order.
    pub const EXTENDED: u64 = 0x600;
    pub const EXTENDED_SIZE: u64 = 8;
    pub const LITTLE_ENDIAN: u32 = 0x1e1e_1e1e;
}
