//! The arithmetic flags, kept as what they follow from.
//!
//! An ALU instruction stores its result and its carries; bits are worked out when someone looks.
//! Every instruction stores the same form, so that a look needs no decision, and the form can
//! express any combination of the six flags.

use x86_state::bits::Rflags;

use crate::Word;

/// CF, PF, AF, ZF, SF and OF.
pub const ARITHMETIC: u64 = Rflags::CF.bits()
    | Rflags::PF.bits()
    | Rflags::AF.bits()
    | Rflags::ZF.bits()
    | Rflags::SF.bits()
    | Rflags::OF.bits();

const TOP: u64 = 1 << 63;
const AF_CARRY: u64 = 1 << 4;

/// The six arithmetic flags.
#[derive(Debug, Clone, Copy)]
pub struct Flags {
    /// ZF: it is zero.
    zero: u64,
    /// SF: bit 63. PF: the low byte has an even number of ones.
    sign: u64,
    /// AF: bit 4. OF: bit 63 differs from `carry`. Of a sum, the carries *into* each bit.
    carries: u64,
    /// CF.
    carry: bool,
}

/// Sign-extends to 64 bits.
#[inline(always)]
pub(crate) fn sign_extend<T: Word>(value: T) -> u64 {
    let unused = 64 - 8 * T::SIZE as u32;
    ((value.to_u64() << unused) as i64 >> unused) as u64
}

impl Flags {
    /// From RFLAGS; other bits are dropped.
    pub fn from_bits(rflags: u64) -> Self {
        let is = |flag: Rflags| rflags & flag.bits() != 0;
        let carry = is(Rflags::CF);
        let mut carries = 0;
        if is(Rflags::AF) {
            carries |= AF_CARRY;
        }
        if is(Rflags::OF) != carry {
            carries |= TOP;
        }
        Self {
            zero: if is(Rflags::ZF) { 0 } else { 1 },
            sign: if is(Rflags::SF) { TOP } else { 0 } | if is(Rflags::PF) { 0 } else { 1 },
            carries,
            carry,
        }
    }

    /// As bits of RFLAGS.
    pub const fn bits(self) -> u64 {
        (self.carry as u64)
            | (self.parity() as u64) << 2
            | self.carries & AF_CARRY
            | (self.is_zero() as u64) << 6
            | (self.is_negative() as u64) << 7
            | (self.overflow() as u64) << 11
    }

    /// One of the six is set.
    pub const fn has(self, flag: Rflags) -> bool {
        self.bits() & flag.bits() != 0
    }

    /// CF.
    #[inline(always)]
    pub const fn carry(self) -> bool {
        self.carry
    }

    /// ZF.
    #[inline(always)]
    pub const fn is_zero(self) -> bool {
        self.zero == 0
    }

    /// SF.
    #[inline(always)]
    pub const fn is_negative(self) -> bool {
        self.sign & TOP != 0
    }

    /// OF.
    #[inline(always)]
    pub const fn overflow(self) -> bool {
        (self.carries & TOP != 0) != self.carry
    }

    /// PF.
    #[inline(always)]
    pub const fn parity(self) -> bool {
        (self.sign as u8).count_ones() & 1 == 0
    }

    /// AF.
    #[inline(always)]
    pub const fn adjust(self) -> bool {
        self.carries & AF_CARRY != 0
    }

    /// A condition by its encoding in Jcc, SETcc and CMOVcc (SDM vol. 1, appendix B).
    #[inline(always)]
    pub const fn condition(self, code: u8) -> bool {
        let holds = match (code >> 1) & 7 {
            0 => self.overflow(),
            1 => self.carry,
            2 => self.is_zero(),
            3 => self.carry | self.is_zero(),
            4 => self.is_negative(),
            5 => self.parity(),
            6 => self.is_negative() != self.overflow(),
            _ => self.is_zero() | (self.is_negative() != self.overflow()),
        };
        holds != (code & 1 != 0)
    }

    /// Sets CF; the others stay.
    #[inline(always)]
    pub const fn set_carry(&mut self, on: bool) {
        // OF is kept as its difference from CF.
        self.carries ^= ((self.carry != on) as u64) << 63;
        self.carry = on;
    }

    /// Sets CF and OF; the others stay.
    #[inline(always)]
    pub const fn set_carry_overflow(&mut self, carry: bool, overflow: bool) {
        self.carries = self.carries & !TOP | ((carry != overflow) as u64) << 63;
        self.carry = carry;
    }

    /// Sets ZF; the others stay.
    #[inline(always)]
    pub const fn set_zero(&mut self, on: bool) {
        self.zero = !on as u64;
    }

    /// Sets AF; the others stay.
    #[inline(always)]
    pub const fn set_adjust(&mut self, on: bool) {
        self.carries = self.carries & !AF_CARRY | (on as u64) << 4;
    }

    /// Sets ZF, SF and PF by a result; the others stay.
    #[inline(always)]
    pub fn set_result<T: Word>(&mut self, result: T) {
        self.zero = sign_extend(result);
        self.sign = self.zero;
    }

    /// After AND, OR, XOR, TEST: CF, OF and AF are clear.
    #[inline(always)]
    pub fn set_logic<T: Word>(&mut self, result: T) {
        let result = sign_extend(result);
        *self = Self { zero: result, sign: result, carries: 0, carry: false };
    }

    #[inline(always)]
    fn set_sum<T: Word>(&mut self, a: T, b: T, result: T, carry: bool) {
        let (a, b, result) = (sign_extend(a), sign_extend(b), sign_extend(result));
        *self = Self { zero: result, sign: result, carries: a ^ b ^ result, carry };
    }

    /// `a + b`.
    #[inline(always)]
    pub fn add<T: Word>(&mut self, a: T, b: T) -> T {
        let result = T::from_u64(a.to_u64().wrapping_add(b.to_u64()));
        self.set_sum(a, b, result, result.to_u64() < a.to_u64());
        result
    }

    /// `a + b + CF`.
    #[inline(always)]
    pub fn adc<T: Word>(&mut self, a: T, b: T) -> T {
        let (x, y, carry) = (a.to_u64(), b.to_u64(), u64::from(self.carry));
        let result = T::from_u64(x.wrapping_add(y).wrapping_add(carry));
        let r = result.to_u64();
        self.set_sum(a, b, result, r < x || (carry != 0 && r == x));
        result
    }

    /// `a - b`.
    #[inline(always)]
    pub fn sub<T: Word>(&mut self, a: T, b: T) -> T {
        let result = T::from_u64(a.to_u64().wrapping_sub(b.to_u64()));
        self.set_sum(a, b, result, a.to_u64() < b.to_u64());
        result
    }

    /// `a - b - CF`.
    #[inline(always)]
    pub fn sbb<T: Word>(&mut self, a: T, b: T) -> T {
        let (x, y, borrow) = (a.to_u64(), b.to_u64(), u64::from(self.carry));
        let result = T::from_u64(x.wrapping_sub(y).wrapping_sub(borrow));
        self.set_sum(a, b, result, x < y || (borrow != 0 && x == y));
        result
    }

    /// `a + 1`; CF stays.
    #[inline(always)]
    pub fn inc<T: Word>(&mut self, a: T) -> T {
        let carry = self.carry;
        let result = self.add(a, T::from_u64(1));
        self.set_carry(carry);
        result
    }

    /// `a - 1`; CF stays.
    #[inline(always)]
    pub fn dec<T: Word>(&mut self, a: T) -> T {
        let carry = self.carry;
        let result = self.sub(a, T::from_u64(1));
        self.set_carry(carry);
        result
    }
}

impl Default for Flags {
    fn default() -> Self {
        Self::from_bits(0)
    }
}

impl PartialEq for Flags {
    fn eq(&self, other: &Self) -> bool {
        self.bits() == other.bits()
    }
}

impl Eq for Flags {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_survives() {
        for bits in (0..1 << 12).filter(|b| b & !ARITHMETIC == 0) {
            assert_eq!(Flags::from_bits(bits).bits(), bits);
            let mut flags = Flags::from_bits(bits);
            flags.set_carry(!flags.carry());
            assert_eq!(flags.bits(), bits ^ 1);
            flags.set_carry_overflow(false, true);
            assert_eq!(flags.bits(), bits & !1 | 1 << 11);
            flags.set_adjust(true);
            flags.set_zero(false);
            assert_eq!(flags.bits(), bits & !0x41 | 0x810);
        }
    }

    #[test]
    fn bytes_add_and_subtract_as_wider_arithmetic_says() {
        for (a, b, carry) in
            (0..=255u8).flat_map(|a| (0..=255u8).flat_map(move |b| [(a, b, 0), (a, b, 1)]))
        {
            let mut flags = Flags::from_bits(u64::from(carry));
            let sum = flags.adc(a, b);
            let wide = u16::from(a) + u16::from(b) + u16::from(carry);
            assert_eq!(sum, wide as u8);
            assert_eq!(flags.carry(), wide > 255);
            let signed = i16::from(a as i8) + i16::from(b as i8) + i16::from(carry);
            assert_eq!(flags.overflow(), i16::from(signed as i8) != signed);
            assert_eq!(flags.adjust(), (a & 15) + (b & 15) + carry > 15);
            assert_eq!(flags.is_zero(), sum == 0);

            let mut flags = Flags::from_bits(u64::from(carry));
            let difference = flags.sbb(a, b);
            let wide = i16::from(a) - i16::from(b) - i16::from(carry);
            assert_eq!(difference, wide as u8);
            assert_eq!(flags.carry(), wide < 0);
            let signed = i16::from(a as i8) - i16::from(b as i8) - i16::from(carry);
            assert_eq!(flags.overflow(), i16::from(signed as i8) != signed);
            assert_eq!(flags.adjust(), (a & 15) < (b & 15) + carry);
            assert_eq!(flags.is_negative(), difference >= 128);
            assert_eq!(flags.parity(), difference.count_ones().is_multiple_of(2));
        }
    }

    #[test]
    fn inc_and_dec_keep_carry() {
        for carry in [0, 1] {
            let mut flags = Flags::from_bits(carry);
            assert_eq!(flags.inc(0x7fffu16), 0x8000);
            assert_eq!(flags.bits(), carry | 0x894);
            assert_eq!(flags.dec(0x8000u16), 0x7fff);
            assert_eq!(flags.bits(), carry | 0x814);
            assert_eq!(flags.inc(0xffu8), 0);
            assert_eq!(flags.bits(), carry | 0x54);
        }
    }
}
