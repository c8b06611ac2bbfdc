//! The monitor's description of itself (VESA E-EDID 1.4): 1280x800, and what else is usual.

/// Bytes of it.
pub(super) const SIZE: usize = 128;

/// Three letters of five bits, "TRN", big-endian.
const MANUFACTURER: [u8; 2] = [0x52, 0x4e];
/// Aspect ratios of standard timings.
const W16_10: u8 = 0;
const W4_3: u8 = 1;
const W5_4: u8 = 2;
const W16_9: u8 = 3;
/// Standard timings at 60 Hz: width and aspect ratio.
const STANDARD: [(u16, u8); 8] = [
    (1920, W16_9),
    (1680, W16_10),
    (1600, W4_3),
    (1440, W16_10),
    (1280, W5_4),
    (1280, W4_3),
    (1280, W16_9),
    (1152, W4_3),
];
/// 1280x800 at 60 Hz with reduced blanking (VESA CVT): 71 MHz, 1440x823 in all.
const PREFERRED: [u8; 18] = [
    0xbc, 0x1b, // 71.00 MHz
    0x00, 0xa0, 0x50, // 1280 shown, 160 blank
    0x20, 0x17, 0x30, // 800 shown, 23 blank
    0x30, 0x20, 0x36, 0x00, // sync: 48 + 32 across, 3 + 6 down
    0x40, 0xc8, 0x10, // 320 mm by 200 mm
    0x00, 0x00, 0x1a, // no border; digital, positive horizontal sync
];

/// The whole of it.
pub(super) fn edid() -> [u8; SIZE] {
    let mut edid = [0; SIZE];
    edid[..8].copy_from_slice(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
    edid[8..10].copy_from_slice(&MANUFACTURER);
    edid[10] = 1; // product
    edid[17] = 36; // made in 2026
    edid[18..20].copy_from_slice(&[1, 4]);
    edid[20] = 0xa5; // digital, 8 bits a colour, DisplayPort: what can have any mode
    edid[21..23].copy_from_slice(&[32, 20]); // centimetres
    edid[23] = 120; // gamma 2.2
    edid[24] = 0x06; // sRGB; the first timing is the preferred one
    edid[25..35].copy_from_slice(&[0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54]);
    edid[35..37].copy_from_slice(&[0x21, 0x08]); // 640x480, 800x600, 1024x768 at 60 Hz
    for (at, (width, aspect)) in (38..).step_by(2).zip(STANDARD) {
        edid[at] = (width / 8 - 31) as u8;
        edid[at + 1] = aspect << 6;
    }
    edid[54..72].copy_from_slice(&PREFERRED);
    edid[72..90].copy_from_slice(&text(0xfc, b"Trine"));
    edid[90..108].copy_from_slice(&text(0xff, b"1"));
    edid[108..126].copy_from_slice(&limits());
    let sum = edid.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    edid[127] = sum.wrapping_neg();
    edid
}

/// A display descriptor with a short text.
fn text(tag: u8, words: &[u8]) -> [u8; 18] {
    let mut descriptor = [b' '; 18];
    descriptor[..5].copy_from_slice(&[0, 0, 0, tag, 0]);
    descriptor[5..5 + words.len()].copy_from_slice(words);
    descriptor[5 + words.len()] = b'\n';
    descriptor
}

/// 50 to 125 Hz down, 30 to 160 kHz across, 600 MHz.
fn limits() -> [u8; 18] {
    let mut descriptor = [b' '; 18];
    descriptor[..11].copy_from_slice(&[0, 0, 0, 0xfd, 0, 50, 125, 30, 160, 60, 1]);
    descriptor[11] = b'\n';
    descriptor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_zero_and_the_preferred_mode_is_1280_by_800() {
        let edid = edid();
        assert_eq!(edid.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        let shown = |low: usize, high: usize| {
            u16::from(edid[54 + low]) | u16::from(edid[54 + high] >> 4) << 8
        };
        assert_eq!((shown(2, 4), shown(5, 7)), (1280, 800));
        let (clock, total) = (u32::from(edid[54]) | u32::from(edid[55]) << 8, 1440 * 823);
        assert_eq!((clock * 10_000 + total / 2) / total, 60);
    }
}
