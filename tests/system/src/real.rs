//! What real mode needs below 1 MiB: an interrupt table, a stub for each vector, and the way back
//! to the handler of protected mode, which finds the frame of virtual-8086 mode with an error code
//! of zero.

use iced_x86::code_asm::*;

use crate::Asm;
use crate::image::*;
use crate::protected::LOW;

/// Where it is in the image, in one piece.
const IMAGE: u64 = 0x11_2000;
const SIZE: u64 = 0x2000;
/// Where it is put: stubs first.
const AT: u64 = 0x9000;
const STUB_SIZE: u64 = 8;
const COMMON: u64 = AT + 0x800;
/// Registers as the handler finds them; see [`Slot`].
const SLOTS: u64 = AT + 0xe00;
/// For LGDT in real mode, and for LIDT on the way there.
const POINTER: u64 = AT + 0xf00;
pub(crate) const TABLE_POINTER: u64 = POINTER + 8;
const TABLE: u64 = AT + 0x1000;
/// 32-bit code.
const RETURN: u64 = IMAGE + SIZE;

/// What is kept between the modes, in the order of the handler's stack from its end.
#[derive(Clone, Copy)]
enum Slot {
    Gs,
    Fs,
    Ds,
    Es,
    Ss,
    Sp,
    Flags,
    Cs,
    Ip,
    /// Behind the error code, which stays zero.
    Vector = 10,
    General,
}

const GENERAL: [AsmRegister32; 7] = [eax, ebx, ecx, edx, esi, edi, ebp];

fn slot(slot: Slot, index: usize) -> u64 {
    SLOTS + (slot as u64 + index as u64) * 4
}

pub(crate) fn put(image: &mut Image) {
    for vector in 0..256 {
        let at = AT + vector * STUB_SIZE;
        let place = at - AT + IMAGE;
        image.code_for(16, place, at - AT, STUB_SIZE, |a| {
            a.push(vector as u8 as i8 as i32)?;
            a.jmp(COMMON - AT)
        });
        let entry = (AT >> 4) << 16 | (at - AT);
        image.put(TABLE - AT + IMAGE + vector * 4, &(entry as u32).to_le_bytes());
    }
    image.code_for(16, COMMON - AT + IMAGE, COMMON - AT, SLOTS - COMMON, common);
    let pointers = [(POINTER, 0xffffu16, GDT), (TABLE_POINTER, 0x3ff, TABLE)];
    for (at, limit, base) in pointers {
        image.put(at - AT + IMAGE, &limit.to_le_bytes());
        image.put(at - AT + IMAGE + 2, &(base as u32).to_le_bytes());
    }
    image.code(32, RETURN, 0x200, back);
}

/// Puts it where it belongs.
pub(crate) fn install(a: &mut CodeAssembler) -> Asm {
    a.mov(esi, IMAGE as u32)?;
    a.mov(edi, AT as u32)?;
    a.mov(ecx, SIZE as u32 / 4)?;
    a.rep().movsd()
}

/// The memory operand of a slot in real mode, where CS is at [`AT`].
fn kept(which: Slot, index: usize) -> u32 {
    (slot(which, index) - AT) as u32
}

fn common(a: &mut CodeAssembler) -> Asm {
    for (index, register) in GENERAL.into_iter().enumerate() {
        a.mov(dword_ptr(kept(Slot::General, index)).cs(), register)?;
    }
    a.xor(eax, eax)?;
    for which in [Slot::Vector, Slot::Ip, Slot::Cs, Slot::Flags] {
        a.pop(ax)?;
        if matches!(which, Slot::Vector) {
            a.xor(ah, ah)?;
        }
        a.mov(dword_ptr(kept(which, 0)).cs(), eax)?;
    }
    a.mov(dword_ptr(kept(Slot::Sp, 0)).cs(), esp)?;
    let segments = [(Slot::Gs, gs), (Slot::Fs, fs), (Slot::Ds, ds), (Slot::Es, es), (Slot::Ss, ss)];
    for (which, register) in segments {
        a.mov(eax, register)?;
        a.mov(dword_ptr(kept(which, 0)).cs(), eax)?;
    }
    a.db(&[0x2e, 0x66, 0x0f, 0x01, 0x16])?; // LGDT CS:[..]
    a.dw(&[(POINTER - AT) as u16])?;
    a.mov(eax, cr0)?;
    a.or(al, 1)?;
    a.mov(cr0, eax)?;
    a.db(&[0x66, 0xea])?;
    a.dd(&[RETURN as u32])?;
    a.dw(&[8])
}

/// To the handler, as if from virtual-8086 mode.
fn back(a: &mut CodeAssembler) -> Asm {
    a.mov(eax, 0x10)?;
    for segment in [ds, es, fs, gs, ss] {
        a.mov(segment, eax)?;
    }
    a.mov(esp, STACK as u32)?;
    for index in 0..Slot::General as usize {
        a.push(dword_ptr(slot(Slot::Gs, index) as u32))?;
    }
    for (index, register) in GENERAL.into_iter().enumerate() {
        a.mov(register, dword_ptr(slot(Slot::General, index) as u32))?;
    }
    a.jmp(HANDLER)
}

/// From 16-bit protected mode at a copy in low memory's image to real mode at 0800:.. .
pub(crate) fn enter(a: &mut CodeAssembler) -> Asm {
    a.mov(ax, 0x30)?;
    for segment in [ds, es, gs, ss] {
        a.mov(segment, ax)?;
    }
    // FS keeps a limit of 4 GiB.
    a.mov(eax, cr0)?;
    a.and(al, !1u8 as i32)?;
    a.mov(cr0, eax)?;
    let mut real = a.create_label();
    a.db(&[0xea])?;
    // Behind this, the same in the copy: the code begins at offset 0 there.
    let here: u16 = ENTERED;
    a.dw(&[here, (LOW >> 4) as u16])?;
    a.set_label(&mut real)?;
    a.mov(ax, 0x600)?;
    for segment in [ds, es, gs] {
        a.mov(segment, ax)?;
    }
    a.mov(ax, 0x700)?;
    a.mov(ss, ax)?;
    a.mov(esp, 0x800)?;
    a.mov(eax, 0x1234_5678)
}

/// Bytes before the far jump's target in what [`enter`] makes.
const ENTERED: u16 = 3 + 4 * 2 + 3 + 2 + 3 + 5;
