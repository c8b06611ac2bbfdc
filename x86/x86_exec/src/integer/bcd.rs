//! DAA, DAS, AAA, AAS, AAM, AAD (SDM vol. 2A).

use x86_decode::{Insn, Mnemonic};
use x86_state::{Exception, Gpr};

use crate::{Cpu, Env, Fault, Handler};

const AX: u8 = Gpr::Rax as u8;
const AH: u8 = 16;

pub(super) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    Some(match insn.mnemonic() {
        Mnemonic::Daa => decimal::<E, false>,
        Mnemonic::Das => decimal::<E, true>,
        Mnemonic::Aaa => ascii::<E, false>,
        Mnemonic::Aas => ascii::<E, true>,
        Mnemonic::Aam => aam,
        Mnemonic::Aad => aad,
        _ => return None,
    })
}

/// DAA, or DAS when `SUBTRACT`.
fn decimal<E: Env, const SUBTRACT: bool>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    let al = cpu.reg::<u8>(AX);
    let adjust = al & 15 > 9 || cpu.flags.adjust();
    let high = al > 0x99 || cpu.flags.carry();
    let correction = if adjust { 6 } else { 0 } + if high { 0x60 } else { 0 };
    let result = if SUBTRACT { al.wrapping_sub(correction) } else { al.wrapping_add(correction) };
    // DAS also borrows out of the low correction.
    let carry = high || SUBTRACT && adjust && al < 6;
    cpu.set_reg(AX, result);
    cpu.flags.set_logic(result);
    cpu.flags.set_carry_overflow(carry, false);
    cpu.flags.set_adjust(adjust);
    Ok(())
}

/// AAA, or AAS when `SUBTRACT`.
fn ascii<E: Env, const SUBTRACT: bool>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    let ax = cpu.reg::<u16>(AX);
    let adjust = ax & 15 > 9 || cpu.flags.adjust();
    let result = match (adjust, SUBTRACT) {
        (false, _) => ax,
        (true, false) => ax.wrapping_add(0x106),
        (true, true) => ax.wrapping_sub(0x106),
    } & 0xff0f;
    cpu.set_reg(AX, result);
    cpu.flags.set_logic(result as u8);
    cpu.flags.set_carry_overflow(adjust, false);
    cpu.flags.set_adjust(adjust);
    Ok(())
}

fn aam<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let (al, base) = (cpu.reg::<u8>(AX), insn.imm as u8);
    let Some(high) = al.checked_div(base) else {
        return Err(cpu.raise(Exception::De));
    };
    cpu.set_reg(AH, high);
    cpu.set_reg(AX, al % base);
    cpu.flags.set_logic(al % base);
    Ok(())
}

fn aad<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let (al, ah) = (cpu.reg::<u8>(AX), cpu.reg::<u8>(AH));
    let result = al.wrapping_add(ah.wrapping_mul(insn.imm as u8));
    cpu.set_reg(AX, u16::from(result));
    cpu.flags.set_logic(result);
    Ok(())
}
