//! Registers, memory operands and their encoding.

/// A general register of the host, by its encoding number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reg(u8);

macro_rules! registers {
    ($($name:ident = $number:expr),* $(,)?) => {
        impl Reg {
            $(#[doc = stringify!($name)] pub const $name: Self = Self($number);)*
        }
    };
}

registers! {
    RAX = 0, RCX = 1, RDX = 2, RBX = 3, RSP = 4, RBP = 5, RSI = 6, RDI = 7,
    R8 = 8, R9 = 9, R10 = 10, R11 = 11, R12 = 12, R13 = 13, R14 = 14, R15 = 15,
}

impl Reg {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 16] = {
        let mut all = [Self(0); 16];
        let mut i = 0;
        while i < 16 {
            all[i] = Self(i as u8);
            i += 1;
        }
        all
    };

    /// By number; of a higher one the low four bits count.
    #[inline(always)]
    pub const fn new(number: u8) -> Self {
        Self(number & 15)
    }

    /// Its number.
    #[inline(always)]
    pub const fn number(self) -> u8 {
        self.0
    }

    #[inline(always)]
    pub(crate) const fn low(self) -> u8 {
        self.0 & 7
    }

    #[inline(always)]
    pub(crate) const fn high(self) -> u8 {
        self.0 >> 3
    }
}

/// A segment with a base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Segment {
    /// FS.
    Fs = 0x64,
    /// GS.
    Gs = 0x65,
}

/// A memory operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mem {
    /// Segment prefix.
    pub seg: Option<Segment>,
    /// Base register.
    pub base: Option<Reg>,
    /// Index register, not RSP, and log2 of what it is multiplied with.
    pub index: Option<(Reg, u8)>,
    /// Displacement.
    pub disp: i32,
}

impl Mem {
    /// Base and displacement.
    pub const fn at(base: Reg, disp: i32) -> Self {
        Self { seg: None, base: Some(base), index: None, disp }
    }

    /// Absolute, sign-extended.
    pub const fn absolute(disp: i32) -> Self {
        Self { seg: None, base: None, index: None, disp }
    }

    /// At a displacement from the GS base.
    pub const fn gs(disp: i32) -> Self {
        Self { seg: Some(Segment::Gs), base: None, index: None, disp }
    }

    /// At a displacement from the FS base.
    pub const fn fs(disp: i32) -> Self {
        Self { seg: Some(Segment::Fs), base: None, index: None, disp }
    }

    /// With an index, multiplied by 1 << `scale`.
    pub const fn index(self, index: Reg, scale: u8) -> Self {
        Self { index: Some((index, scale)), ..self }
    }

    /// With a segment prefix.
    pub const fn seg(self, seg: Segment) -> Self {
        Self { seg: Some(seg), ..self }
    }

    /// Bits X and B of a REX prefix.
    #[inline(always)]
    pub(crate) fn rex(&self) -> u8 {
        let index = self.index.map_or(0, |(index, _)| index.high() << 1);
        index | self.base.map_or(0, Reg::high)
    }

    #[inline(always)]
    pub(crate) fn is_encodable(&self) -> bool {
        self.index.is_none_or(|(index, scale)| index != Reg::RSP && scale < 4)
    }
}

/// The bytes of one instruction in the making: long enough for any, legal or not.
#[derive(Clone, Copy)]
pub(crate) struct Bytes {
    bytes: [u8; 32],
    len: usize,
}

impl Bytes {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self { bytes: [0; 32], len: 0 }
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, byte: u8) {
        self.bytes[self.len & 31] = byte;
        self.len += 1;
    }

    #[inline(always)]
    pub(crate) fn push_if(&mut self, there: bool, byte: u8) {
        if there {
            self.push(byte);
        }
    }

    #[inline(always)]
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.push(*byte);
        }
    }

    #[inline(always)]
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len.min(32)]
    }

    /// ModRM with a memory operand; `reg` is its low three bits.
    #[inline]
    pub(crate) fn memory(&mut self, reg: u8, mem: &Mem) {
        let reg = reg << 3;
        let Some(base) = mem.base else {
            let (index, scale) = mem.index.map_or((4, 0), |(index, scale)| (index.low(), scale));
            self.push(reg | 4);
            self.push(scale << 6 | index << 3 | 5);
            return self.extend(&mem.disp.to_le_bytes());
        };
        let mode = match mem.disp {
            // RBP and R13 without a displacement mean something else.
            0 if base.low() != 5 => 0,
            -128..=127 => 0x40,
            _ => 0x80,
        };
        match mem.index {
            Some((index, scale)) => {
                self.push(mode | reg | 4);
                self.push(scale << 6 | index.low() << 3 | base.low());
            }
            None => {
                self.push(mode | reg | base.low());
                self.push_if(base.low() == 4, 0x24);
            }
        }
        match mode {
            0 => {}
            0x40 => self.push(mem.disp as u8),
            _ => self.extend(&mem.disp.to_le_bytes()),
        }
    }
}
