//! Segment registers with their hidden parts, and descriptor-table registers.

/// A segment register's encoding number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SegReg {
    /// Extra.
    Es = 0,
    /// Code.
    Cs = 1,
    /// Stack.
    Ss = 2,
    /// Data.
    Ds = 3,
    /// Extra, with a 64-bit base.
    Fs = 4,
    /// Extra, with a 64-bit base.
    Gs = 5,
}

/// A segment register, visible and hidden part.
///
/// `attr` holds the descriptor's bits 8..=15 and 20..=23 (SDM vol. 3A, figure 3-8) in bits
/// 0..=7 and 12..=15, the layout the hardware's own VMCS uses, plus [`Segment::UNUSABLE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// Linear address of the first byte.
    pub base: u64,
    /// Last valid offset, in bytes: the granularity bit is already applied.
    pub limit: u32,
    /// The visible part.
    pub selector: u16,
    /// Access rights.
    pub attr: u16,
}

impl Segment {
    /// Type field: accessed (code and data).
    pub const ACCESSED: u16 = 1 << 0;
    /// Type field: writable data, or readable code.
    pub const WRITABLE_READABLE: u16 = 1 << 1;
    /// Type field: expand-down data, or conforming code.
    pub const DOWN_CONFORMING: u16 = 1 << 2;
    /// Type field: code.
    pub const CODE: u16 = 1 << 3;
    /// Code or data, not a system descriptor.
    pub const S: u16 = 1 << 4;
    /// Where the descriptor privilege level starts.
    pub const DPL_SHIFT: u32 = 5;
    /// Present.
    pub const P: u16 = 1 << 7;
    /// Available to software.
    pub const AVL: u16 = 1 << 12;
    /// 64-bit code.
    pub const L: u16 = 1 << 13;
    /// 32-bit default size, big stack, or upper bound of expand-down data.
    pub const DB: u16 = 1 << 14;
    /// Limit counts pages.
    pub const G: u16 = 1 << 15;
    /// Loaded with a null selector, or never loaded (our bit 8, unused in descriptors).
    pub const UNUSABLE: u16 = 1 << 8;

    /// A segment that faults on use, in canonical form. In 64-bit mode data segments of this kind
    /// are usable all the same, and FS and GS keep `base`.
    pub const fn unusable(selector: u16, base: u64) -> Self {
        Self { base, limit: 0, selector, attr: Self::UNUSABLE }
    }

    /// A segment as real mode and reset know it: 64 KiB from `selector * 16`, read/write accessed.
    pub const fn real(selector: u16) -> Self {
        Self { base: (selector as u64) << 4, limit: 0xffff, selector, attr: 0x93 }
    }

    /// Descriptor privilege level.
    pub const fn dpl(&self) -> u8 {
        ((self.attr >> Self::DPL_SHIFT) & 3) as u8
    }

    /// The type field, four bits.
    pub const fn kind(&self) -> u8 {
        (self.attr & 0xf) as u8
    }

    /// All of the bits of `mask` are set in the attributes.
    pub const fn has(&self, mask: u16) -> bool {
        self.attr & mask == mask
    }

    /// The form equal guests share: an unusable segment keeps only selector and base, and the
    /// granularity bit follows from the limit, which already has it applied. (No instruction shows
    /// the loaded bit to a guest, and SVM hardware does not keep it.)
    pub const fn canonical(self) -> Self {
        if self.has(Self::UNUSABLE) {
            return Self::unusable(self.selector, self.base);
        }
        let granularity = if self.limit > 0xf_ffff { Self::G } else { 0 };
        Self { attr: self.attr & !Self::G | granularity, ..self }
    }
}

/// GDTR or IDTR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct DescriptorTable {
    /// Linear address.
    pub base: u64,
    /// Last valid offset.
    pub limit: u16,
}
