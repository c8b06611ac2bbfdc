//! FNSTENV, FLDENV, FNSAVE, FRSTOR, in their four formats (SDM vol. 1, figures 8-9 to 8-12).

use x86_decode::{Code, Insn};
use x86_fpu::x87::EXCEPTIONS;

use super::arithmetic::table;
use crate::{Cpu, Env, Fault, Fpu, Handler, Mode};

type Done = Result<(), Fault>;

const ENVIRONMENT_16: usize = 14;
const ENVIRONMENT_32: usize = 28;
const REGISTERS: usize = 80;

impl Fpu {
    /// The full tag word: two bits a register, by physical number.
    fn tag_word(&self) -> u16 {
        (0..8).fold(0, |word, i| {
            let value = self.st[i];
            let (significand, exponent) = (value as u64, (value >> 64) as u16 & 0x7fff);
            let tag = match exponent {
                _ if self.in_use >> i & 1 == 0 => 3,
                0 if significand == 0 => 1,
                0 | 0x7fff => 2,
                _ if significand >> 63 == 0 => 2,
                _ => 0,
            };
            word | tag << (2 * i)
        })
    }

    fn set_tag_word(&mut self, word: u16) {
        self.in_use =
            (0..8).fold(0, |used, i| used | if word >> (2 * i) & 3 != 3 { 1 << i } else { 0 });
    }

    /// The environment as seven fields, the upper halves of which the 16-bit formats drop.
    fn environment(&self, protected: bool, narrow: bool) -> [u32; 7] {
        let (fip, fdp, fop) = (self.fip as u32, self.fdp as u32, u32::from(self.fop));
        let reserved = 0xffff_0000;
        let [fcw, fsw, ftw] =
            [self.fcw, self.status_word(), self.tag_word()].map(|word| u32::from(word) | reserved);
        // Selectors are not kept. In real mode the pointers' upper bits are where they would be.
        match (protected, narrow) {
            (true, true) => [fcw, fsw, ftw, fip, 0, fdp, 0],
            (true, false) => [fcw, fsw, ftw, fip, fop << 16, fdp, reserved],
            (false, true) => [fcw, fsw, ftw, fip, fip >> 4 & 0xf000 | fop, fdp, fdp >> 4 & 0xf000],
            (false, false) => {
                let upper = |pointer: u32| pointer >> 4 & 0x0fff_f000;
                [fcw, fsw, ftw, fip | reserved, upper(fip) | fop, fdp | reserved, upper(fdp)]
            }
        }
    }

    fn set_environment(&mut self, fields: [u32; 7], protected: bool, narrow: bool) {
        let [fcw, fsw, ftw, fip, fip_upper, fdp, fdp_upper] = fields;
        self.fcw = fcw as u16;
        self.set_status_word(fsw as u16);
        self.set_tag_word(ftw as u16);
        self.set_control_word(fcw as u16);
        let pointer = |low: u32, upper: u32| match (protected, narrow) {
            (true, _) => low,
            (false, true) => low & 0xffff | (upper & 0xf000) << 4,
            (false, false) => low & 0xffff | (upper & 0x0fff_f000) << 4,
        };
        self.fip = u64::from(pointer(fip, fip_upper));
        self.fdp = u64::from(pointer(fdp, fdp_upper));
        self.fop = match (protected, narrow) {
            (true, true) => self.fop,
            (true, false) => (fip_upper >> 16) as u16 & 0x7ff,
            (false, _) => fip_upper as u16 & 0x7ff,
        };
    }
}

fn is_protected<E: Env>(cpu: &Cpu<E>) -> bool {
    !matches!(cpu.mode, Mode::Real | Mode::Virtual8086)
}

/// Writes environment, and registers when `image` has room for them.
fn encode(fpu: &Fpu, protected: bool, narrow: bool, image: &mut [u8]) {
    let fields = fpu.environment(protected, narrow);
    let size = if narrow { 2 } else { 4 };
    let (head, registers) = image.split_at_mut(7 * size);
    for (slot, field) in head.chunks_exact_mut(size).zip(fields) {
        slot.copy_from_slice(&field.to_le_bytes()[..size]);
    }
    for (i, slot) in (0..8).zip(registers.chunks_exact_mut(10)) {
        slot.copy_from_slice(&fpu.get(i).to_le_bytes()[..10]);
    }
}

fn decode(fpu: &mut Fpu, protected: bool, narrow: bool, image: &[u8]) {
    let size = if narrow { 2 } else { 4 };
    let (head, registers) = image.split_at(7 * size);
    let mut fields = [0; 7];
    for (field, slot) in fields.iter_mut().zip(head.chunks_exact(size)) {
        let mut bytes = [0; 4];
        bytes[..size].copy_from_slice(slot);
        *field = u32::from_le_bytes(bytes);
    }
    fpu.set_environment(fields, protected, narrow);
    for (i, slot) in (0..8).zip(registers.chunks_exact(10)) {
        let mut bytes = [0; 16];
        bytes[..10].copy_from_slice(slot);
        let at = fpu.physical(i);
        fpu.st[at] = u128::from_le_bytes(bytes);
    }
}

/// FNSTENV (masks all exceptions afterwards) and FNSAVE (initialises afterwards).
#[inline(always)]
fn save<E: Env, const SIZE: usize>(cpu: &mut Cpu<E>, insn: &Insn, narrow: bool) -> Done {
    cpu.x87_available()?;
    let mut image = [0; SIZE];
    encode(&cpu.fpu, is_protected(cpu), narrow, &mut image);
    cpu.write_bytes(insn.seg, cpu.ea(insn), &image)?;
    if SIZE > REGISTERS {
        cpu.fpu.initialize();
    } else {
        cpu.fpu.set_control_word(cpu.fpu.fcw | EXCEPTIONS);
    }
    Ok(())
}

/// FLDENV and FRSTOR.
#[inline(always)]
fn restore<E: Env, const SIZE: usize>(cpu: &mut Cpu<E>, insn: &Insn, narrow: bool) -> Done {
    cpu.x87_wait()?;
    let mut image = [0; SIZE];
    cpu.read_bytes(insn.seg, cpu.ea(insn), &mut image)?;
    let protected = is_protected(cpu);
    decode(&mut cpu.fpu, protected, narrow, &image);
    Ok(())
}

pub(super) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    Some(table! { insn;
        Fnstenv_m14byte => |c, i| save::<E, ENVIRONMENT_16>(c, i, true),
        Fnstenv_m28byte => |c, i| save::<E, ENVIRONMENT_32>(c, i, false),
        Fldenv_m14byte => |c, i| restore::<E, ENVIRONMENT_16>(c, i, true),
        Fldenv_m28byte => |c, i| restore::<E, ENVIRONMENT_32>(c, i, false),
        Fnsave_m94byte => |c, i| save::<E, { ENVIRONMENT_16 + REGISTERS }>(c, i, true),
        Fnsave_m108byte => |c, i| save::<E, { ENVIRONMENT_32 + REGISTERS }>(c, i, false),
        Frstor_m94byte => |c, i| restore::<E, { ENVIRONMENT_16 + REGISTERS }>(c, i, true),
        Frstor_m108byte => |c, i| restore::<E, { ENVIRONMENT_32 + REGISTERS }>(c, i, false),
    })
}
