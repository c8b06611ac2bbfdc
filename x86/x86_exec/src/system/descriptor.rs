//! Selectors and descriptors (SDM vol. 3A, 3.4 and 3.5).

use x86_mmu::Privilege;
use x86_state::{Exception, Segment};

use crate::{Cpu, Env, Fault};

/// What a segment register or a gate names a descriptor with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Selector(pub u16);

impl Selector {
    /// Names no descriptor.
    pub const fn is_null(self) -> bool {
        self.0 & 0xfffc == 0
    }

    /// Requested privilege level.
    pub const fn rpl(self) -> u8 {
        (self.0 & 3) as u8
    }

    /// The same with another RPL.
    pub const fn with_rpl(self, rpl: u8) -> Self {
        Self(self.0 & !3 | rpl as u16)
    }

    /// As an error code.
    pub const fn error_code(self) -> u32 {
        (self.0 & 0xfffc) as u32
    }

    const fn is_local(self) -> bool {
        self.0 & 4 != 0
    }

    const fn offset(self) -> u64 {
        (self.0 & 0xfff8) as u64
    }
}

/// Types of system descriptors (SDM vol. 3A, table 3-2).
pub(crate) mod kind {
    pub const TSS16: u8 = 1;
    pub const LDT: u8 = 2;
    pub const TSS16_BUSY: u8 = 3;
    pub const CALL_GATE16: u8 = 4;
    pub const TASK_GATE: u8 = 5;
    pub const INTERRUPT_GATE16: u8 = 6;
    pub const TRAP_GATE16: u8 = 7;
    pub const TSS32: u8 = 9;
    pub const TSS32_BUSY: u8 = 11;
    pub const CALL_GATE32: u8 = 12;
    pub const INTERRUPT_GATE32: u8 = 14;
    pub const TRAP_GATE32: u8 = 15;
}

/// The eight bytes of a descriptor, and where they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descriptor {
    pub raw: u64,
    /// Linear address.
    pub at: u64,
}

impl Descriptor {
    const fn attr(self) -> u16 {
        (self.raw >> 40) as u16 & 0xf0ff
    }

    /// A bit of [`Segment`]'s attributes is set.
    pub const fn has(self, mask: u16) -> bool {
        self.attr() & mask == mask
    }

    pub const fn is_present(self) -> bool {
        self.has(Segment::P)
    }

    /// Code or data.
    pub const fn is_segment(self) -> bool {
        self.has(Segment::S)
    }

    pub const fn is_code(self) -> bool {
        self.has(Segment::S | Segment::CODE)
    }

    pub const fn is_conforming(self) -> bool {
        self.has(Segment::S | Segment::CODE | Segment::DOWN_CONFORMING)
    }

    pub const fn is_data(self) -> bool {
        self.is_segment() && !self.has(Segment::CODE)
    }

    pub const fn is_writable_data(self) -> bool {
        self.is_data() && self.has(Segment::WRITABLE_READABLE)
    }

    pub const fn is_readable(self) -> bool {
        self.is_data() || self.is_code() && self.has(Segment::WRITABLE_READABLE)
    }

    /// 64-bit code: the L bit.
    pub const fn is_long(self) -> bool {
        self.has(Segment::L)
    }

    pub const fn dpl(self) -> u8 {
        (self.raw >> 45) as u8 & 3
    }

    /// Type field of a system descriptor or gate.
    pub const fn kind(self) -> u8 {
        (self.raw >> 40) as u8 & 0xf
    }

    /// Gates: the selector.
    pub const fn gate_selector(self) -> Selector {
        Selector((self.raw >> 16) as u16)
    }

    /// Gates: 32-bit offset.
    pub const fn gate_offset(self) -> u64 {
        self.raw & 0xffff | self.raw >> 32 & 0xffff_0000
    }

    /// Call gates: how many parameters are copied.
    pub const fn gate_parameters(self) -> u64 {
        self.raw >> 32 & 0x1f
    }

    /// Long-mode interrupt gates: the interrupt stack, or 0.
    pub const fn gate_ist(self) -> u64 {
        self.raw >> 32 & 7
    }

    /// As the hidden part of a register.
    pub const fn segment(self, selector: Selector) -> Segment {
        let raw = self.raw;
        let base = raw >> 16 & 0x00ff_ffff | raw >> 32 & 0xff00_0000;
        let limit = (raw & 0xffff | raw >> 32 & 0xf_0000) as u32;
        let limit = if self.has(Segment::G) { limit << 12 | 0xfff } else { limit };
        Segment { base, limit, selector: selector.0, attr: self.attr() }
    }
}

impl<E: Env> Cpu<E> {
    /// Notes an exception whose error code is a selector.
    #[cold]
    pub(crate) fn selector_fault(&mut self, exception: Exception, selector: Selector) -> Fault {
        self.raise_code(exception, selector.error_code())
    }

    /// Linear address of `size` bytes of the descriptor, when its table has them.
    fn descriptor_address(&self, selector: Selector, size: u64) -> Option<u64> {
        let (base, limit) = if selector.is_local() {
            if self.ldtr.has(Segment::UNUSABLE) {
                return None;
            }
            (self.ldtr.base, u64::from(self.ldtr.limit))
        } else {
            (self.gdtr.base, u64::from(self.gdtr.limit))
        };
        let inside = selector.offset() + size - 1 <= limit;
        inside.then(|| base.wrapping_add(selector.offset()))
    }

    /// Reads a descriptor; `outside` is raised when its table does not have it. The selector is
    /// not null.
    pub(crate) fn descriptor(
        &mut self,
        selector: Selector,
        outside: Exception,
    ) -> Result<Descriptor, Fault> {
        let Some(at) = self.descriptor_address(selector, 8) else {
            return Err(self.selector_fault(outside, selector));
        };
        Ok(Descriptor { raw: self.read_linear(at, Privilege::Supervisor)?, at })
    }

    /// The upper half of a 16-byte descriptor.
    pub(crate) fn descriptor_high(
        &mut self,
        selector: Selector,
        outside: Exception,
    ) -> Result<u64, Fault> {
        let Some(at) = self.descriptor_address(selector, 16) else {
            return Err(self.selector_fault(outside, selector));
        };
        self.read_linear(at.wrapping_add(8), Privilege::Supervisor)
    }

    /// Loads the hidden part of a code or data segment, and sets the descriptor's accessed bit.
    pub(crate) fn accessed(
        &mut self,
        selector: Selector,
        mut descriptor: Descriptor,
    ) -> Result<Segment, Fault> {
        if !descriptor.has(Segment::ACCESSED) {
            self.change_linear32(descriptor.at.wrapping_add(4), 0, 1 << 8)?;
            descriptor.raw |= 1 << 40;
        }
        Ok(descriptor.segment(selector))
    }
}
