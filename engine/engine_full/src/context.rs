//! What translated code and the engine share of one vCPU, at fixed places.
//!
//! Translated code reaches it through the GS base, which is the start of the view in force (see
//! [`crate::views`]): the context ends where the view begins, and is mapped before every view.
//!
//! Host registers while translated code runs:
//!
//! | host | holds |
//! | --- | --- |
//! | RAX RDX RBX RSP RBP RSI RDI R8 R9 R12 to R15 | the same guest register |
//! | R11 | guest RCX |
//! | RCX, R10 | nothing: temporaries |
//! | memory of the context | guest R10 and R11 |
//! | arithmetic flags, XMM, x87, MXCSR | the guest's |
//! | GS base | the view's read map; the context is below it |
//! | FS base | the view's write map |

use std::mem::offset_of;
use std::sync::atomic::AtomicU64;

/// Entries of a jump table: one for each value of the low 16 bits of an address. The first is never
/// that of one address, so that it can stand for all: see [`Context::jump_mask`].
pub(crate) const JUMPS: usize = 1 << 16;
/// [`Context::jump_mask`] of a vCPU that goes on.
pub(crate) const JUMP_MASK: u64 = JUMPS as u64 - 1;

/// Entries of a far table of jumps: one for each value of the low 18 bits of the sum of an address
/// and the same turned right.
pub(crate) const FAR_JUMPS: usize = 1 << 18;
/// By so many bits.
pub(crate) const FAR_TURN: u32 = 14;

/// Entries of the kernel's other table of jumps, and the bits of an address it goes by: Linux's
/// text has 16 MiB.
pub(crate) const OTHER_JUMPS: usize = 1 << 12;
pub(crate) const OTHER_JUMPS_MASK: u64 = 0xff_000f;

/// Pieces of a stack window's room: see [`StackWindow`].
pub(crate) const ROOMS: usize = 16;
/// Bytes of the unit rooms are counted in.
pub(crate) const ROOM_SIZE: u64 = 64;

/// A run of guest addresses around the current stack pointer that is memory, writable, and
/// contiguous in host memory: code that has compared its whole frame with it need not look at each
/// access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct StackWindow {
    /// One past the last guest address. Frames are rounded up at their lower end, because stacks
    /// are used at the upper end of their pages.
    pub(crate) end: u64,
    /// From guest to host addresses.
    pub(crate) distance: u64,
    /// Where the last byte of a frame of up to `(i + 1) * ROOM_SIZE` bytes may be, from `end`: here
    /// or behind it, as numbers without a sign. In an empty window none can be, because `end` is then
    /// among the addresses that are not canonical.
    pub(crate) room: [u64; ROOMS],
}

impl StackWindow {
    /// Holds no address; whoever goes on in a unit although its window is gone forms none either.
    pub(crate) const EMPTY: Self =
        Self { end: 1 << 63, distance: NO_DISTANCE, room: [u64::MAX; ROOMS] };

    /// Of a window that was found.
    pub(crate) fn new(known: &KnownWindow) -> Self {
        let room = |i| known.least.wrapping_add((i as u64 + 1) * ROOM_SIZE);
        Self { end: known.end, distance: known.distance, room: std::array::from_fn(room) }
    }

    /// Bytes.
    pub(crate) fn size(&self) -> u64 {
        !self.room[0].wrapping_sub(ROOM_SIZE)
    }
}

/// What a unit keeps of what it has found of memory.
pub(crate) const LOOKS: usize = 8;
/// A distance that leads nowhere: from a canonical address to one that is not.
pub(crate) const NO_DISTANCE: u64 = 1 << 63;

/// Windows kept a privilege: by the low bits of the page number.
pub(crate) const KNOWN_WINDOWS: usize = 8;

/// A window that was found for a page, to be had again without a look at the views.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct KnownWindow {
    /// Number of the page it was found for.
    pub(crate) page: u64,
    /// As [`StackWindow::end`].
    pub(crate) end: u64,
    /// From guest to host addresses.
    pub(crate) distance: u64,
    /// The room of a frame without bytes.
    pub(crate) least: u64,
}

impl KnownWindow {
    /// Of no page.
    pub(crate) const NONE: Self =
        Self { page: u64::MAX, end: 1 << 63, distance: 0, least: u64::MAX };

    /// Found for the page with this address: `start..end`, at least a page.
    pub(crate) fn new(linear: u64, start: u64, end: u64, distance: u64) -> Self {
        Self { page: linear >> 12, end, distance, least: !(end - start) }
    }

    /// Bytes.
    pub(crate) fn size(&self) -> u64 {
        !self.least
    }
}

/// One vCPU's.
#[repr(C, align(64))]
pub(crate) struct Context {
    /// Guest general registers by encoding number. While translated code runs, only R10's and
    /// R11's are.
    pub(crate) gpr: [u64; 16],
    /// Where translated code goes on.
    pub(crate) target: u64,
    /// R10 at the last exit: the linear address, or the guest's next instruction.
    pub(crate) scratch: u64,
    /// A value to be pushed, while both temporaries look where.
    pub(crate) pushed: u64,
    /// Where an indirect call goes, while the return address is pushed.
    pub(crate) called: u64,
    /// Linear address of the page of the user's unit that runs; of 32-bit code marked, as jumps to it
    /// are.
    pub(crate) code_page: u64,
    /// Not zero: user code that is jumped to is 64-bit code.
    pub(crate) long_code: u64,
    /// What the last exit was for: the number of a site.
    pub(crate) site: u32,
    /// AH after LAHF.
    pub(crate) flags: u8,
    /// AL after SETO.
    pub(crate) overflow: u8,
    pub(crate) pad: u16,
    /// RFLAGS.IF, in its place.
    pub(crate) interrupts: u64,
    /// RFLAGS.DF, in its place.
    pub(crate) direction: u64,
    /// RFLAGS.AC, in its place.
    pub(crate) access: u64,
    /// RFLAGS but for those three and the arithmetic flags.
    pub(crate) system_flags: u64,
    /// Address behind the last STI: interrupts wait while the guest is there.
    pub(crate) shadow_rip: u64,
    /// Segment selectors by encoding number.
    pub(crate) selectors: [u64; 6],
    /// CR0 to CR4.
    pub(crate) control: [u64; 5],
    /// Not zero: CS and SS were loaded (see [`crate::transition`]).
    pub(crate) transition: u64,
    /// IA32_LSTAR, where SYSCALL and SYSRET are nothing unusual, else zero.
    pub(crate) syscall_target: u64,
    /// What SYSCALL leaves of RFLAGS.
    pub(crate) syscall_mask: u64,
    /// CS and SS after SYSCALL.
    pub(crate) syscall_selectors: [u64; 2],
    /// CS and SS after SYSRET to 64-bit code.
    pub(crate) sysret_selectors: [u64; 2],
    /// CS and SS of the kernel, as IRET finds them.
    pub(crate) return_selectors: [u64; 2],
    /// Linear address of their descriptors, or zero.
    pub(crate) kernel_descriptors: u64,
    /// Linear address of the descriptors of SS and CS after SYSRET, or zero.
    pub(crate) user_descriptors: u64,
    /// What has to be at the former.
    pub(crate) kernel_flat: [u64; 2],
    /// What has to be at the latter.
    pub(crate) user_flat: [u64; 2],
    /// Not zero: IRET is nothing unusual.
    pub(crate) may_return: u64,
    /// Not zero: a return to user code leaves the data segments as they are.
    pub(crate) may_return_outward: u64,
    /// Not zero: RDFSBASE and its like may be used.
    pub(crate) base_instructions: u64,
    /// GS and FS bases of the view of user code, and of the kernel while AC is set.
    pub(crate) space_bases: [u64; 2],
    /// The same of the kernel while AC is clear.
    pub(crate) kernel_bases: [u64; 2],
    /// How the TSC follows from the host's, if the rate is not zero: see [`crate::tsc`].
    pub(crate) tsc_rate: u64,
    pub(crate) tsc_bias: u64,
    /// With the guest's offset.
    pub(crate) tsc_base: u64,
    /// IA32_TSC_AUX.
    pub(crate) tsc_number: u64,
    /// What a unit has found of memory, for when it needs that again: see
    /// [`crate::translate`]'s `look`.
    pub(crate) looks: [u64; LOOKS],
    /// A register lent for a few instructions.
    pub(crate) borrowed: u64,
    /// AL after SETO and AH after LAHF.
    pub(crate) kept_flags: u64,
    /// From AH after LAHF, with OF at bit 24, to RFLAGS.
    pub(crate) flags_mask: u64,
    /// Where a fault stopped translated code, or zero.
    pub(crate) fault: u64,
    /// FS base of the engine's thread.
    pub(crate) host_fs: u64,
    /// Stack pointer of the engine's thread.
    pub(crate) host_stack: u64,
    /// FS base of translated code: the view's write map.
    pub(crate) view_fs: u64,
    /// GS base of translated code: the view's read map.
    pub(crate) view_gs: u64,
    /// Bases of the guest's FS and GS segments.
    pub(crate) segment_base: [u64; 2],
    /// IA32_KERNEL_GS_BASE.
    pub(crate) kernel_gs_base: u64,
    /// What of a linear address counts: bits 12 to 46 for user code, 12 to 47 for the kernel.
    pub(crate) page_mask: [u64; 2],
    /// The low 0 to 6 bits: by the logarithm of an access's size, say.
    pub(crate) low_mask: [u64; 7],
    /// Bits 0 to 11 of an address but for the low 0 to 11.
    pub(crate) upper_mask: [u64; 12],
    /// Bits 0 to 11 of an address.
    pub(crate) offset_mask: u64,
    /// Bit 12 of a sum of such bits.
    pub(crate) carry_mask: u64,
    /// Not zero: the x87 state is in the CPU.
    pub(crate) x87_at_hand: u64,
    /// What of an address tells its place among the jumps; zero: translated code is to come back at
    /// its next poll, which a jump by address is, too.
    pub(crate) jump_mask: AtomicU64,
    /// Not zero: an event waits for RFLAGS.IF.
    pub(crate) event_waiting: u32,
    /// The user's and the kernel's.
    pub(crate) stack: [StackWindow; 2],
    /// Those found lately, of either.
    pub(crate) known_windows: [[KnownWindow; KNOWN_WINDOWS]; 2],
    /// Guest MXCSR, and the engine's.
    pub(crate) mxcsr: [u32; 2],
    /// XMM registers, in the form of FXSAVE.
    pub(crate) vector: Vectors,
    /// x87 state, in the form of FXSAVE, when it is not in the CPU.
    pub(crate) fxsave: FxArea,
    /// Kernel code by the low 16 bits of its address.
    pub(crate) jumps: [u64; JUMPS],
    /// The same by other bits, for what shares those: addresses, negative, and where they are. See
    /// [`crate::entry::jump_again`].
    pub(crate) other_jumps: [[u64; OTHER_JUMPS]; 2],
    /// What bits.
    pub(crate) other_jumps_mask: u64,
    /// The bits that far tables go by.
    pub(crate) far_jumps_mask: u64,
}

/// XMM registers: low and high half.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(crate) struct Vectors(pub(crate) [[u64; 2]; 16]);

/// What FXSAVE64 writes.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(crate) struct FxArea(pub(crate) [u8; 512]);

/// Bytes of the context, whole pages.
pub(crate) const CONTEXT_SIZE: usize = size_of::<Context>().next_multiple_of(4096);

/// Displacement from the GS base of a field at this offset.
pub(crate) const fn at(offset: usize) -> i32 {
    offset as i32 - CONTEXT_SIZE as i32
}

/// Displacement from the GS base of a field.
macro_rules! field {
    ($($field:tt)+) => {
        $crate::context::at(std::mem::offset_of!($crate::context::Context, $($field)+))
    };
}
pub(crate) use field;

/// Displacement of a stack window's field.
pub(crate) const fn stack_field(user: bool, field: usize) -> i32 {
    let window = if user { 0 } else { 1 };
    at(offset_of!(Context, stack) + window * size_of::<StackWindow>() + field)
}
