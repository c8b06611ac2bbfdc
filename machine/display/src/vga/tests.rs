//! Register scripts: what a BIOS writes for a mode, what a guest draws, and what is then shown.
//! Pictures are compared by their checksums; `golden` prints a small form of them when they differ.

use bus::AddressSpace;
use guest_memory::{FlatView, GuestMemory, RamOffset};
use machine_clock::{MachineClock, TimeSource};

use super::*;

struct Rig {
    vga: Arc<Vga>,
    window: Arc<dyn BusDevice>,
    dispi: Arc<dyn BusDevice>,
    memory: Arc<GuestMemory>,
}

impl Rig {
    fn new() -> Self {
        let memory = GuestMemory::new(&[("vram", VRAM_BYTES)]).unwrap();
        memory.set_view(FlatView::new());
        let clock = MachineClock::new(TimeSource::Counted);
        let config = VgaConfig {
            memory: memory.clone(),
            vram: RamOffset(0),
            clock,
            placed: Box::new(|_| {}),
        };
        let vga = Vga::new(config);
        Self { window: vga.window(), dispi: vga.dispi(), vga, memory }
    }

    fn out(&self, port: u64, values: &[u8]) {
        values.iter().for_each(|value| self.vga.write(port, &[*value]));
    }

    fn inb(&self, port: u64) -> u8 {
        let mut data = [0xff];
        self.vga.read(port, &mut data);
        data[0]
    }

    /// Registers of a mode: miscellaneous, sequencer, CRTC, graphics, attributes.
    fn mode(&self, misc: u8, seq: [u8; 5], crtc: [u8; 25], gfx: [u8; 9], attr: [u8; 21]) {
        self.out(0x3c2, &[misc]);
        let indexed = |port: u64, values: &[u8]| {
            for (index, value) in (0u8..).zip(values) {
                self.vga.write(port, &[index, *value]);
            }
        };
        indexed(0x3c4, &seq);
        self.vga.write(0x3d4, &[0x11, 0]);
        indexed(0x3d4, &crtc);
        indexed(0x3ce, &gfx);
        self.inb(0x3da);
        for (index, value) in (0u8..).zip(attr) {
            self.out(0x3c0, &[index, value]);
        }
        self.out(0x3c0, &[0x20]);
    }

    /// Colours by a formula: every one of 256 is another.
    fn palette(&self) {
        self.out(0x3c8, &[0]);
        for color in 0..=255u8 {
            self.out(0x3c9, &[color & 0x3f, color >> 2, 0x3f - (color >> 2)]);
        }
    }

    fn poke(&self, at: u64, bytes: &[u8]) {
        for (at, byte) in (at..).zip(bytes) {
            self.window.write(at - 0xa_0000, &[*byte]);
        }
    }

    fn peek(&self, at: u64) -> u8 {
        let mut data = [0xff];
        self.window.read(at - 0xa_0000, &mut data);
        data[0]
    }

    fn dispi(&self, register: u16, value: u16) {
        self.dispi.write(0, &register.to_le_bytes());
        self.dispi.write(1, &value.to_le_bytes());
    }

    fn dispi_read(&self, register: u16) -> u16 {
        self.dispi.write(0, &register.to_le_bytes());
        let mut data = [0xff; 2];
        self.dispi.read(2, &mut data);
        u16::from_le_bytes(data)
    }

    fn picture(&self) -> Picture {
        let mut picture = Picture::default();
        self.vga.capture(&mut picture);
        picture
    }

    fn golden(&self, size: (usize, usize), expected: u32) -> Picture {
        let picture = self.picture();
        assert_eq!((picture.width, picture.height), size);
        let bytes: Vec<u8> = picture.pixels.iter().flat_map(|p| p.to_le_bytes()).collect();
        let found = crc32c::crc32c(&bytes);
        assert_eq!(found, expected, "{found:#010x}\n{}", small(&picture));
        picture
    }
}

/// The picture in letters, one for 8 by 16 pixels: dark to bright by green.
fn small(picture: &Picture) -> String {
    let at = |x: usize, y: usize| picture.pixels[y * picture.width + x] >> 8 & 0xff;
    let letter = |x, y| b" .:-=+*#"[(at(x, y) / 32) as usize] as char;
    let line = |y| (0..picture.width).step_by(8).map(|x| letter(x, y)).collect::<String>();
    (0..picture.height).step_by(16).map(|y| line(y) + "\n").collect()
}

const ATTR_TEXT: [u8; 21] = [
    0, 1, 2, 3, 4, 5, 0x14, 7, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0, 0x0f, 8, 0,
];
const ATTR_16: [u8; 21] = [
    0, 1, 2, 3, 4, 5, 0x14, 7, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x01, 0, 0x0f, 0, 0,
];
const ATTR_256: [u8; 21] =
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x41, 0, 15, 0, 0];

/// 80 by 25 characters of 9 by 16 dots: mode 3.
fn text_mode(rig: &Rig) {
    let crtc = [
        0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0, 0x4f, 0x0d, 0x0e, 0, 0, 0, 0, 0x9c,
        0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff,
    ];
    let gfx = [0, 0, 0, 0, 0, 0x10, 0x0e, 0, 0xff];
    rig.mode(0x67, [3, 0, 3, 0, 2], crtc, gfx, ATTR_TEXT);
    rig.palette();
}

/// A font as a BIOS loads it, into plane 2: character `c` has row `r` of bits `c ^ r`.
fn load_font(rig: &Rig) {
    for (index, value) in [(2, 4), (4, 6)] {
        rig.vga.write(0x3c4, &[index, value]);
    }
    rig.vga.write(0x3ce, &[5, 0]);
    rig.vga.write(0x3ce, &[6, 4]);
    for character in 0..256u64 {
        for row in 0..16u64 {
            rig.poke(0xa_0000 + character * 32 + row, &[(character ^ (row * 17)) as u8]);
        }
    }
    for (index, value) in [(2, 3), (4, 2)] {
        rig.vga.write(0x3c4, &[index, value]);
    }
    rig.vga.write(0x3ce, &[5, 0x10]);
    rig.vga.write(0x3ce, &[6, 0x0e]);
}

fn write_text(rig: &Rig) {
    for cell in 0..80 * 25u64 {
        rig.poke(0xb_8000 + cell * 2, &[cell as u8, (cell >> 3) as u8]);
    }
}

#[test]
fn after_power_up_the_screen_is_black() {
    let picture = Rig::new().picture();
    assert_eq!((picture.width, picture.height), (720, 400));
    assert!(picture.pixels.iter().all(|pixel| *pixel == 0));
}

#[test]
fn text_has_nine_dots_two_colours_and_a_cursor() {
    let rig = Rig::new();
    text_mode(&rig);
    load_font(&rig);
    write_text(&rig);
    assert_eq!((rig.peek(0xb_8000 + 2), rig.peek(0xb_8000 + 17)), (1, 1));
    let picture = rig.golden((720, 400), 0x6798_cc84);
    // Line graphics go on into the ninth dot, and letters do not.
    let pixel = |cell: usize, dot: usize, row: usize| {
        picture.pixels[(cell / 80 * 16 + row) * 720 + cell % 80 * 9 + dot]
    };
    assert_eq!(pixel(0xc1, 7, 0), pixel(0xc1, 8, 0));
    assert_ne!(pixel(0x43, 7, 0), pixel(0x43, 8, 0));
    // The cursor, rows 13 and 14, in a cell that is not black on black as the first.
    rig.vga.write(0x3d4, &[0x0f, 15]);
    let with = rig.picture();
    rig.vga.write(0x3d4, &[0x0a, 0x20]);
    let without = rig.picture();
    let cell = |picture: &Picture, row: usize| picture.pixels[row * 720 + 15 * 9..][..9].to_vec();
    let differs = |row: &usize| cell(&with, *row) != cell(&without, *row);
    assert_eq!((0..16).filter(differs).collect::<Vec<_>>(), [13, 14]);
}

/// What GRUB's image for QEMU sets, and nothing else: the planes and the line compare stay as they were.
#[test]
fn text_is_shown_where_only_what_differs_from_power_up_is_set() {
    let rig = Rig::new();
    let set = |port: u64, registers: &[(u8, u8)]| {
        registers.iter().for_each(|(index, value)| rig.vga.write(port, &[*index, *value]));
    };
    rig.out(0x3c2, &[1]);
    set(0x3ce, &[(6, 0), (5, 0), (8, 0xff)]);
    set(0x3c4, &[(4, 0), (2, 4)]);
    rig.poke(0xa_0000 + 32 * u64::from(b'A'), &[0xff; 16]);
    set(0x3ce, &[(6, 3 << 2 | 2), (5, 0x10)]);
    set(0x3c4, &[(2, 3)]);
    set(0x3d4, &[(9, 15), (1, 79), (0x13, 40), (0x12, 0x90), (7, 2)]);
    rig.palette();
    for index in 0..16 {
        rig.inb(0x3da);
        rig.out(0x3c0, &[index, index]);
    }
    set(0x3c4, &[(1, 1)]);
    rig.out(0x3c0, &[0x20]);
    for row in [0, 24] {
        rig.poke(0xb_8000 + 160 * row, b"A\x07");
    }
    let picture = rig.picture();
    assert_eq!((picture.width, picture.height), (640, 401));
    let line = |line: usize| picture.pixels[line * 640];
    assert_ne!(line(0), line(16));
    assert_eq!((line(15), line(399)), (line(0), line(0)));
}

#[test]
fn text_scrolls_by_the_start_address_and_by_rows() {
    let rig = Rig::new();
    text_mode(&rig);
    load_font(&rig);
    write_text(&rig);
    rig.vga.write(0x3d4, &[0x0a, 0x20]);
    let before = rig.picture();
    rig.vga.write(0x3d4, &[0x0d, 80]);
    let line = 720 * 16;
    assert_eq!(rig.picture().pixels[..line], before.pixels[line..2 * line]);
    rig.vga.write(0x3d4, &[0x08, 5]);
    assert_eq!(rig.picture().pixels[..720], before.pixels[line + 5 * 720..][..720]);
    // Line compare: from line 16 on, the beginning of memory is shown.
    rig.vga.write(0x3d4, &[0x07, 0x0f]);
    rig.vga.write(0x3d4, &[0x09, 0x0f]);
    rig.vga.write(0x3d4, &[0x18, 15]);
    assert_eq!(rig.picture().pixels[line..2 * line], before.pixels[..line]);
}

#[test]
fn blinking_characters_are_dark_half_of_the_time() {
    let rig = Rig::new();
    text_mode(&rig);
    load_font(&rig);
    rig.vga.write(0x3d4, &[0x0a, 0x20]);
    rig.poke(0xb_8000, &[0xff, 0x8f]);
    let lit = rig.picture();
    rig.vga.clock.set_ns(14_285_714 * 16);
    let dark = rig.picture();
    assert_ne!(lit.pixels[0], dark.pixels[0]);
    // Without blinking, bit 7 is the background's.
    rig.inb(0x3da);
    rig.out(0x3c0, &[0x30, 0x04]);
    assert_eq!(rig.picture().pixels[0], lit.pixels[0]);
}

#[test]
fn mode_12h_draws_through_set_reset_and_the_bit_mask() {
    let rig = Rig::new();
    let crtc = [
        0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0, 0x40, 0, 0, 0, 0, 0, 0, 0xea, 0x8c,
        0xdf, 0x28, 0, 0xe7, 0x04, 0xe3, 0xff,
    ];
    rig.mode(0xe3, [3, 1, 0xf, 0, 6], crtc, [0, 0, 0, 0, 0, 0, 5, 0xf, 0xff], ATTR_16);
    rig.palette();
    // Write mode 0: stripes by set/reset, a colour each 8 lines.
    rig.vga.write(0x3ce, &[1, 0xf]);
    for line in 0..480u64 {
        rig.vga.write(0x3ce, &[0, ((line / 8) & 0xf) as u8]);
        rig.poke(0xa_0000 + line * 80, &[0; 80]);
    }
    // Write mode 2 with a bit mask: a vertical line of colour 9.
    rig.vga.write(0x3ce, &[1, 0]);
    rig.vga.write(0x3ce, &[5, 2]);
    rig.vga.write(0x3ce, &[8, 0x10]);
    for line in 0..480u64 {
        rig.peek(0xa_0000 + line * 80 + 40);
        rig.poke(0xa_0000 + line * 80 + 40, &[9]);
    }
    let picture = rig.golden((640, 480), 0xed69_3e3e);
    let color = |x: usize, y: usize| picture.pixels[y * 640 + x];
    assert_eq!((color(0, 8), color(323, 8)), (color(639, 15), color(323, 400)));
    assert_ne!(color(322, 8), color(323, 8));
}

/// Chain 4, 320 by 200 of 256 colours: mode 13h. With the last three, mode X.
fn mode_13h(rig: &Rig, memory: u8, crtc_14: u8, crtc_17: u8) {
    let crtc = [
        0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0, 0x41, 0, 0, 0, 0, 0, 0, 0x9c, 0x8e,
        0x8f, 0x28, crtc_14, 0x96, 0xb9, crtc_17, 0xff,
    ];
    let gfx = [0, 0, 0, 0, 0, 0x40, 5, 0xf, 0xff];
    rig.mode(0x63, [3, 1, 0xf, 0, memory], crtc, gfx, ATTR_256);
    rig.palette();
}

#[test]
fn mode_13h_has_a_byte_a_pixel_and_mode_x_a_plane() {
    let rig = Rig::new();
    mode_13h(&rig, 0x0e, 0x40, 0xa3);
    for at in 0..64_000u64 {
        rig.poke(0xa_0000 + at, &[(at % 320 / 2 + at / 320) as u8]);
    }
    assert_eq!(rig.peek(0xa_0000 + 322), 2);
    let chained = rig.golden((640, 400), 0x8894_cc61);
    let rig = Rig::new();
    mode_13h(&rig, 6, 0, 0xe3);
    for at in 0..64_000u64 {
        rig.vga.write(0x3c4, &[2, 1 << (at & 3)]);
        rig.poke(0xa_0000 + at / 4, &[(at % 320 / 2 + at / 320) as u8]);
    }
    assert!(rig.picture() == chained, "planes are shown otherwise than chained bytes");
    rig.vga.write(0x3ce, &[4, 2]);
    assert_eq!(rig.peek(0xa_0000 + 80), 2);
}

#[test]
fn mode_4_has_two_bits_a_pixel_and_odd_lines_elsewhere() {
    let rig = Rig::new();
    let crtc = [
        0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0, 0xc1, 0, 0, 0, 0, 0, 0, 0x9c, 0x8e,
        0x8f, 0x14, 0, 0x96, 0xb9, 0xa2, 0xff,
    ];
    let mut attr = ATTR_16;
    attr[..4].copy_from_slice(&[0, 0x13, 0x15, 0x17]);
    attr[0x12] = 3;
    rig.mode(0x63, [3, 9, 3, 0, 2], crtc, [0, 0, 0, 0, 0, 0x30, 0x0f, 0, 0xff], attr);
    rig.palette();
    for line in 0..200u64 {
        let at = 0xb_8000 + line % 2 * 0x2000 + line / 2 * 80;
        rig.poke(at, &[(line * 3) as u8; 80]);
        rig.poke(at + line % 80, &[0b0001_1011]);
    }
    rig.golden((640, 400), 0xffbd_4319);
}

#[test]
fn write_modes_latches_and_colour_compare_follow_the_manual() {
    let rig = Rig::new();
    rig.vga.write(0x3c4, &[2, 0xf]);
    rig.vga.write(0x3c4, &[4, 6]);
    rig.vga.write(0x3ce, &[6, 5]);
    rig.vga.write(0x3ce, &[8, 0xff]);
    // Each plane another byte.
    for plane in 0..4u8 {
        rig.vga.write(0x3c4, &[2, 1 << plane]);
        rig.poke(0xa_0000, &[0x11 << plane]);
    }
    rig.vga.write(0x3c4, &[2, 0xf]);
    let planes = |at: u64| -> [u8; 4] {
        std::array::from_fn(|plane| {
            rig.vga.write(0x3ce, &[4, plane as u8]);
            rig.peek(at)
        })
    };
    assert_eq!(planes(0xa_0000), [0x11, 0x22, 0x44, 0x88]);
    // Write mode 1 copies the latches.
    rig.vga.write(0x3ce, &[5, 1]);
    rig.peek(0xa_0000);
    rig.poke(0xa_0001, &[0]);
    assert_eq!(planes(0xa_0001), [0x11, 0x22, 0x44, 0x88]);
    // Write mode 0 with rotation and XOR.
    rig.vga.write(0x3ce, &[5, 0]);
    rig.vga.write(0x3ce, &[3, 0x18 | 4]);
    rig.peek(0xa_0000);
    rig.poke(0xa_0002, &[0xf0]);
    assert_eq!(planes(0xa_0002), [0x1e, 0x2d, 0x4b, 0x87]);
    // Write mode 3: the byte is a mask of set/reset.
    rig.vga.write(0x3ce, &[3, 0]);
    rig.vga.write(0x3ce, &[5, 3]);
    rig.vga.write(0x3ce, &[0, 5]);
    rig.peek(0xa_0000);
    rig.poke(0xa_0003, &[0x0f]);
    assert_eq!(planes(0xa_0003), [0x1f, 0x20, 0x4f, 0x80]);
    // Read mode 1: which pixels have colour 4, but for plane 3.
    rig.vga.write(0x3ce, &[5, 8]);
    rig.vga.write(0x3ce, &[2, 4]);
    rig.vga.write(0x3ce, &[7, 7]);
    assert_eq!(rig.peek(0xa_0000), 0x44);
}

#[test]
fn linear_modes_of_every_depth_show_what_memory_holds() {
    for (bpp, pixel, color) in [
        (8, &[0x42][..], 0),
        (15, &[0x1f, 0x7c], 0xff_00ff),
        (16, &[0xe0, 0x07], 0x00_ff00),
        (24, &[1, 2, 3], 0x03_0201),
        (32, &[1, 2, 3, 0xff], 0x03_0201),
    ] {
        let rig = Rig::new();
        rig.palette();
        rig.inb(0x3da);
        rig.out(0x3c0, &[0x20]);
        for (register, value) in [(4, 0), (3, bpp), (1, 800), (2, 600), (4, 0x41)] {
            rig.dispi(register, value);
        }
        let picture = rig.picture();
        assert_eq!((picture.width, picture.height), (800, 600));
        let bytes = if bpp == 15 { 2 } else { u64::from(bpp) / 8 };
        rig.memory.write(RamOffset((599 * 800 + 799) * bytes), pixel);
        let last = *rig.picture().pixels.last().unwrap();
        let color = if bpp == 8 { 0x08_41be } else { color };
        assert_eq!(last, color, "{last:#x} with {bpp} bits");
    }
}

#[test]
fn the_window_shows_linear_memory_by_banks() {
    let rig = Rig::new();
    for (register, value) in [(3, 32), (1, 640), (2, 480), (4, 1), (5, 3)] {
        rig.dispi(register, value);
    }
    rig.poke(0xa_1234, &[0x5a]);
    assert_eq!(rig.memory.load::<u8>(RamOffset(0x3_1234)), 0x5a);
    assert_eq!(rig.peek(0xa_1234), 0x5a);
    rig.dispi(5, 0x100);
    assert_eq!(rig.dispi_read(5), 0);
}

#[test]
fn a_linear_mode_that_does_not_fit_is_made_to_fit() {
    let rig = Rig::new();
    for (register, value) in [(3, 32), (1, 0xffff), (2, 0xffff), (4, 1), (6, 0xffff), (9, 0xffff)] {
        rig.dispi(register, value);
    }
    let picture = rig.picture();
    assert!(picture.width <= 4096 && picture.pixels.len() <= PIXELS_MAX);
    assert_eq!(rig.dispi_read(0), 0xb0c5);
    assert_eq!(rig.dispi_read(10), 256);
    rig.dispi(4, 3);
    assert_eq!((rig.dispi_read(1), rig.dispi_read(2), rig.dispi_read(3)), (4096, 4096, 32));
}

#[test]
fn turning_a_mode_on_clears_what_it_shows_unless_told_not_to() {
    let rig = Rig::new();
    let dirty = |rig: &Rig| rig.memory.write(RamOffset(100), &[1]);
    for (enable, left) in [(0x41, 0), (0xc1, 1)] {
        rig.dispi(4, 0);
        dirty(&rig);
        for (register, value) in [(3, 32), (1, 640), (2, 480), (4, enable)] {
            rig.dispi(register, value);
        }
        assert_eq!(rig.memory.load::<u8>(RamOffset(100)), left);
    }
}

#[test]
fn the_registers_are_in_memory_too() {
    let rig = Rig::new();
    let mmio = Mmio(rig.vga.clone());
    let read = |at: u64| {
        let mut data = [0; 2];
        mmio.read(at, &mut data);
        u16::from_le_bytes(data)
    };
    mmio.write(0x502, &1024u16.to_le_bytes());
    assert_eq!((read(0x500), read(0x502), rig.dispi_read(1)), (0xb0c5, 1024, 1024));
    assert_eq!((read(0), read(0x600), read(0x604)), (0xff00, 8, 0x1e1e));
    mmio.write(0x402, &[0x67]);
    assert_eq!((read(0x40c) as u8, rig.inb(0x3cc)), (0x67, 0x67));
}

#[test]
fn the_first_crtc_registers_can_be_protected() {
    let rig = Rig::new();
    rig.out(0x3c2, &[1]);
    rig.vga.write(0x3d4, &[0x01, 0x4f]);
    rig.vga.write(0x3d4, &[0x11, 0x80]);
    rig.vga.write(0x3d4, &[0x01, 0x27]);
    rig.vga.write(0x3d4, &[0x07, 0xff]);
    let crtc = |index: u8| {
        rig.out(0x3d4, &[index]);
        rig.inb(0x3d5)
    };
    assert_eq!((crtc(1), crtc(7)), (0x4f, 0x10));
    assert_eq!(rig.inb(0x3b5), 0xff);
}

#[test]
fn the_beam_is_in_retrace_once_a_frame() {
    let rig = Rig::new();
    rig.out(0x3c2, &[1]);
    let retraces = (0..1000u64).map(|i| {
        rig.vga.clock.set_ns(i * 28_571);
        rig.inb(0x3da) & 8 != 0
    });
    let levels: Vec<_> = retraces.collect();
    assert_eq!(levels.windows(2).filter(|w| !w[0] && w[1]).count(), 2);
}

#[test]
fn any_registers_make_a_picture_of_bounded_size_and_a_state_that_comes_back() {
    let rig = Rig::new();
    let mut seed = 1u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as u32
    };
    for round in 0..100 {
        for _ in 0..40 {
            rig.vga.write(0x3b4 + u64::from(random() % 0x2c), &[random() as u8, random() as u8]);
            rig.window.write(u64::from(random() % 0x2_0000), &[random() as u8; 4]);
        }
        rig.dispi((random() % 12) as u16, random() as u16);
        rig.out(0x3c0, &[0x20]);
        if round % 4 == 0 {
            rig.vga.write(0x3d4, &[0x01, 0xff]);
        }
        let picture = rig.picture();
        assert!(picture.pixels.len() <= PIXELS_MAX);
        let saved = rig.vga.save();
        rig.vga.reset();
        rig.vga.restore(&saved).unwrap();
        assert_eq!(rig.vga.save(), saved);
    }
}

#[test]
fn the_frame_buffer_says_where_it_is() {
    let memory = GuestMemory::new(&[("vram", VRAM_BYTES)]).unwrap();
    let placed = Arc::new(Mutex::new(None));
    let told = placed.clone();
    let vga = Vga::new(VgaConfig {
        memory,
        vram: RamOffset(0),
        clock: MachineClock::new(TimeSource::Counted),
        placed: Box::new(move |base| *told.lock().unwrap() = base),
    });
    let spaces = Spaces { memory: AddressSpace::new(), io: AddressSpace::new() };
    let function = vga.function(None, true, &spaces);
    function.config_write(0x10, &0xc000_0000u32.to_le_bytes());
    function.config_write(4, &[2, 0]);
    assert_eq!(*placed.lock().unwrap(), Some(0xc000_0000));
    let mut data = [0; 4];
    spaces.memory.write(0xc000_0ffc, &[1, 2, 3, 4]);
    spaces.memory.read(0xc000_0ffc, &mut data);
    assert_eq!(data, [1, 2, 3, 4]);
    function.config_write(4, &[0, 0]);
    assert_eq!(*placed.lock().unwrap(), None);
}
