//! The EEPROM (5.6): 64 words behind a Microwire interface (5.3), as those of National's 93C46.

const WORDS: usize = 64;
/// The sum of all words (5.6.35).
const CHECKSUM: u16 = 0xbaba;
/// Start bit, two bits of operation, six of address.
const COMMAND_END: u32 = 1 << 8;
const READ: u32 = 2;

/// What is in it, for a card with this address.
pub(crate) fn words(mac: [u8; 6]) -> [u16; WORDS] {
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(mac.as_chunks::<2>().0) {
        *word = u16::from_le_bytes(*bytes);
    }
    words[5..9].fill(0xffff); // no image, no part number
    words[9] = 0xffff;
    words[0xa] = 0x4408; // identifiers are valid
    words[0xb..0xf].copy_from_slice(&[0x001e, 0x8086, 0x100e, 0x8086]);
    words[0xf] = 0x3040;
    let sum = words.iter().fold(0u16, |sum, word| sum.wrapping_add(*word));
    words[WORDS - 1] = CHECKSUM.wrapping_sub(sum);
    words
}

/// The interface's state.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Microwire {
    /// The bits of a command that have come, after the start bit; while it reads, its address.
    pub(crate) command: u32,
    /// Bits left of a word that is read, and one; 0 while a command comes.
    pub(crate) left: u8,
    /// The data pin.
    pub(crate) out: bool,
}

impl Microwire {
    /// It is not selected.
    pub(crate) fn deselect(&mut self) {
        *self = Self { out: true, ..Self::default() };
    }

    /// The clock rises.
    pub(crate) fn clock(&mut self, input: bool, words: &[u16; WORDS]) {
        if self.left > 0 {
            if self.left == 1 {
                (self.command, self.left) = ((self.command + 1) % WORDS as u32, 17);
            }
            self.left -= 1;
            let word = words[self.command as usize % WORDS];
            self.out = word >> (self.left - 1) & 1 != 0;
            return;
        }
        self.command = self.command << 1 | u32::from(input);
        if self.command < COMMAND_END {
            return;
        }
        if self.command >> 6 & 3 == READ {
            // A zero comes before the first bit.
            *self = Self { command: self.command % WORDS as u32, left: 17, out: false };
        } else {
            self.command = 0;
        }
    }
}
