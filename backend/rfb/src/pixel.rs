//! Pixel formats (7.4).

/// A viewer's format of pixels, with tables to make them by.
#[derive(Clone)]
pub(crate) struct PixelFormat {
    /// Bytes of a pixel: 1, 2 or 4.
    pub bytes: usize,
    big_endian: bool,
    /// By the value of red, green and blue.
    tables: Box<[[u32; 256]; 3]>,
    /// Which three of four bytes have something in them, when it is only three.
    compact: Option<usize>,
    /// Red, green and blue are bytes.
    is_888: bool,
}

/// What is on the wire.
pub(crate) const SIZE: usize = 16;
/// 32 bits, little-endian, red from bit 16: as pictures are.
pub(crate) const NATIVE: [u8; SIZE] = [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];
/// What those get who ask for a colour map: 3 bits of red and green, 2 of blue.
const MAPPED: [u8; SIZE] = [8, 8, 0, 1, 0, 7, 0, 7, 0, 3, 5, 2, 0, 0, 0, 0];

impl PixelFormat {
    /// What a viewer asks for; `None` when it cannot be.
    pub fn parse(wire: &[u8; SIZE]) -> Option<Self> {
        let [bits, depth, big_endian, true_color, ..] = *wire;
        if true_color == 0 {
            return (bits == 8).then(|| Self::parse(&MAPPED)).flatten();
        }
        let bytes = match bits {
            8 => 1,
            16 => 2,
            32 => 4,
            _ => return None,
        };
        let color = |i: usize| {
            let max = u32::from(u16::from_be_bytes([wire[4 + 2 * i], wire[5 + 2 * i]]));
            let shift = u32::from(wire[10 + i]);
            let fits = max > 0 && shift < u32::from(bits) && u64::from(max) << shift < 1 << bits;
            fits.then_some((max, shift))
        };
        let colors = [color(0)?, color(1)?, color(2)?];
        let table = |(max, shift): (u32, u32)| {
            std::array::from_fn(|value| ((value as u32 * max + 127) / 255) << shift)
        };
        let used = colors.iter().fold(0, |used, (max, shift)| used | max << shift);
        let compact = match used {
            _ if bytes < 4 || depth > 24 => None,
            used if used < 1 << 24 => Some(0),
            used if used & 0xff == 0 => Some(1),
            _ => None,
        };
        Some(Self {
            bytes,
            big_endian: big_endian != 0,
            tables: Box::new(colors.map(table)),
            compact,
            is_888: bytes == 4 && depth == 24 && colors.iter().all(|(max, _)| *max == 255),
        })
    }

    /// The pixel of a colour, in wire order; the first [`PixelFormat::bytes`] count.
    fn wire(&self, color: u32) -> [u8; 4] {
        let [blue, green, red, _] = color.to_le_bytes();
        let [reds, greens, blues] = &*self.tables;
        let value = reds[usize::from(red)] | greens[usize::from(green)] | blues[usize::from(blue)];
        if !self.big_endian {
            return value.to_le_bytes();
        }
        let mut bytes = value.to_be_bytes();
        bytes.rotate_left(4 - self.bytes);
        bytes
    }

    /// Appends a pixel.
    pub fn put(&self, color: u32, to: &mut Vec<u8>) {
        to.extend(&self.wire(color)[..self.bytes]);
    }

    /// Appends a pixel as ZRLE has it (7.7.5): without the byte that has nothing in it.
    pub fn put_compact(&self, color: u32, to: &mut Vec<u8>) {
        match self.compact {
            // In big-endian order, the low three bytes are the last.
            Some(low) => {
                let from = if self.big_endian { 1 - low } else { low };
                to.extend(&self.wire(color)[from..from + 3]);
            }
            None => self.put(color, to),
        }
    }

    /// Bytes of a compact pixel.
    pub fn compact_bytes(&self) -> usize {
        if self.compact.is_some() { 3 } else { self.bytes }
    }

    /// Appends a pixel as Tight has it: three bytes where colours are bytes.
    pub fn put_tight(&self, color: u32, to: &mut Vec<u8>) {
        if self.is_888 {
            let [blue, green, red, _] = color.to_le_bytes();
            to.extend([red, green, blue]);
        } else {
            self.put(color, to);
        }
    }

    /// Bytes of a pixel in Tight.
    pub fn tight_bytes(&self) -> usize {
        if self.is_888 { 3 } else { self.bytes }
    }
}

/// The colours of [`MAPPED`], as a message (7.6.2).
pub(crate) fn color_map() -> Vec<u8> {
    let mut message = vec![1, 0, 0, 0, 1, 0];
    for color in 0..256u32 {
        for (value, max) in [(color >> 5, 7), (color >> 2 & 7, 7), (color & 3, 3)] {
            message.extend(((value * 0xffff / max) as u16).to_be_bytes());
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(wire: [u8; SIZE]) -> PixelFormat {
        PixelFormat::parse(&wire).unwrap()
    }

    fn bytes(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&mut bytes);
        bytes
    }

    #[test]
    fn pixels_are_in_the_viewers_order_and_width() {
        let native = format(NATIVE);
        assert_eq!(bytes(|to| native.put(0x01_0203, to)), [3, 2, 1, 0]);
        assert_eq!(bytes(|to| native.put_compact(0x01_0203, to)), [3, 2, 1]);
        assert_eq!(bytes(|to| native.put_tight(0x01_0203, to)), [1, 2, 3]);
        let mut big = NATIVE;
        big[2] = 1;
        assert_eq!(bytes(|to| format(big).put(0x01_0203, to)), [0, 1, 2, 3]);
        assert_eq!(bytes(|to| format(big).put_compact(0x01_0203, to)), [1, 2, 3]);
        let mut high = NATIVE;
        (high[10], high[11], high[12]) = (24, 16, 8);
        assert_eq!(bytes(|to| format(high).put_compact(0x01_0203, to)), [3, 2, 1]);
        let rgb565 = [16, 16, 1, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0];
        assert_eq!(bytes(|to| format(rgb565).put(0xff_0000, to)), [0xf8, 0]);
        assert_eq!(bytes(|to| format(rgb565).put_compact(0x00_00ff, to)), [0, 0x1f]);
    }

    #[test]
    fn formats_that_cannot_be_are_refused() {
        for (at, value) in [(0, 24), (0, 0), (5, 0), (10, 32), (10, 30)] {
            let mut wire = NATIVE;
            wire[at] = value;
            assert!(PixelFormat::parse(&wire).is_none(), "{wire:?}");
        }
    }
}
