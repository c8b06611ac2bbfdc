//! A guest's instruction as the host's, with other registers and another memory operand.

use x86_decode::native::{Class, Encoding, File, Native, NativeMem};

use crate::operand::Bytes;
use crate::{Assembler, Mem, Reg, Segment};

/// What replaces what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Substitution {
    /// The register that stands for each register the instruction names.
    pub gpr: [Reg; 16],
    /// The memory operand that stands for the instruction's; without one, it stays what it is but
    /// for its registers.
    pub mem: Option<Mem>,
}

impl Substitution {
    /// Nothing is replaced.
    pub const IDENTITY: Self = Self { gpr: Reg::ALL, mem: None };
}

/// There is no such instruction. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unencodable;

impl std::fmt::Display for Unencodable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the instruction has no encoding with these operands")
    }
}

impl std::error::Error for Unencodable {}

/// Writes `native` with its operands replaced.
///
/// # Errors
/// When there is no such encoding: a register the opcode implies is renamed, a high byte is of a
/// register that has none or needs a REX prefix, the memory operand is relative to the instruction
/// or of 16-bit addressing and not replaced, or the instruction transfers control, is
/// [`Class::System`], or uses a 32-bit stack.
#[inline]
pub fn reencode(
    out: &mut Assembler,
    native: &Native,
    to: &Substitution,
) -> Result<(), Unencodable> {
    if !is_rewritable(native, to) {
        return Err(Unencodable);
    }
    let (mem, narrow) = match (&native.mem, &to.mem) {
        (None, _) => (None, native.class == Class::String && native.addr_size == 4),
        (Some(_), Some(mem)) => (Some(*mem), false),
        (Some(mem), None) => (Some(rename(mem, to)?), mem.addr_size == 4),
    };
    if mem.is_some_and(|mem| !mem.is_encodable()) {
        return Err(Unencodable);
    }
    let mut bytes = Bytes::new();
    let seg = mem.map_or_else(|| string_segment(native), |mem| mem.seg);
    if let Some(seg) = seg {
        bytes.push(seg as u8);
    }
    bytes.push_if(narrow, 0x67);
    match native.encoding {
        Encoding::Legacy => legacy(&mut bytes, native, to, mem.as_ref())?,
        Encoding::Vex => vex(&mut bytes, native, to, mem.as_ref())?,
        Encoding::Other => return Err(Unencodable),
    }
    let (at, len) = (usize::from(native.imm_at), usize::from(native.imm_len));
    bytes.extend(&native.bytes[at..at + len]);
    out.raw(bytes.as_slice());
    Ok(())
}

fn is_rewritable(native: &Native, to: &Substitution) -> bool {
    let mut implied = native.gpr_implicit;
    while implied != 0 {
        let reg = implied.trailing_zeros();
        if u32::from(to.gpr[reg as usize & 15].number()) != reg {
            return false;
        }
        implied &= implied - 1;
    }
    match native.class {
        Class::Copy | Class::Nop => true,
        Class::String => native.addr_size != 2,
        // A 32-bit stack has no pushes in 64-bit code.
        Class::Push | Class::Pop | Class::Leave | Class::PushFlags | Class::PopFlags => {
            native.op_size != 4
        }
        _ => false,
    }
}

fn string_segment(native: &Native) -> Option<Segment> {
    if native.class == Class::String { segment(native.seg? as u8) } else { None }
}

fn segment(number: u8) -> Option<Segment> {
    match number {
        4 => Some(Segment::Fs),
        5 => Some(Segment::Gs),
        _ => None,
    }
}

fn rename(mem: &NativeMem, to: &Substitution) -> Result<Mem, Unencodable> {
    if mem.rip_relative || mem.addr_size == 2 {
        return Err(Unencodable);
    }
    let renamed = |reg: u8| to.gpr[usize::from(reg) & 15];
    Ok(Mem {
        seg: segment(mem.seg as u8),
        base: mem.base.map(renamed),
        index: mem.index.map(|index| (renamed(index), mem.scale)),
        disp: mem.disp,
    })
}

/// A register field, encoded: its number, and whether it demands or forbids a REX prefix.
struct Renamed {
    number: u8,
    demands_rex: bool,
    forbids_rex: bool,
}

#[inline(always)]
fn field(
    native: &Native,
    to: &Substitution,
    file: File,
    number: u8,
) -> Result<Renamed, Unencodable> {
    let plain = |number| Renamed { number, demands_rex: false, forbids_rex: false };
    let renamed = |number: u8| to.gpr[usize::from(number) & 15].number();
    Ok(match file {
        File::Gpr => plain(renamed(number)),
        File::Gpr8 if native.rex == 0 && (4..8).contains(&number) => {
            // AH, CH, DH or BH.
            let of = renamed(number - 4);
            if of >= 4 {
                return Err(Unencodable);
            }
            Renamed { number: of + 4, demands_rex: false, forbids_rex: true }
        }
        File::Gpr8 => {
            let number = renamed(number);
            Renamed { number, demands_rex: (4..8).contains(&number), forbids_rex: false }
        }
        File::Vector => plain(number),
        _ => plain(number & 7),
    })
}

fn legacy(
    bytes: &mut Bytes,
    native: &Native,
    to: &Substitution,
    mem: Option<&Mem>,
) -> Result<(), Unencodable> {
    bytes.push_if(native.op66, 0x66);
    bytes.push_if(
        native.rep_mandatory || native.class == Class::String && native.rep != 0,
        native.rep,
    );
    bytes.push_if(native.lock, 0xf0);
    let mut opcode = native.opcode();
    if native.opcode_len == 1 {
        match opcode {
            0x40..=0x4f => return increment(bytes, native, to),
            0x82 => opcode = 0x80,
            _ => {}
        }
    }
    let wide = native.rex & 8;
    let Some(modrm) = native.modrm else {
        return match mem {
            Some(mem) => absolute(bytes, opcode, wide, mem),
            None => short(bytes, native, to, opcode, wide),
        };
    };
    let reg = field(native, to, native.reg_field, native.reg())?;
    let (mut demands, mut forbids) = (reg.demands_rex, reg.forbids_rex);
    let mut rex = wide | reg.number >> 3 << 2;
    let mut rm = 0;
    match mem {
        Some(mem) => rex |= mem.rex(),
        None => {
            let renamed = field(native, to, native.rm_field, native.rm())?;
            (demands, forbids) = (demands | renamed.demands_rex, forbids | renamed.forbids_rex);
            rex |= renamed.number >> 3;
            rm = renamed.number & 7;
        }
    }
    put_rex(bytes, rex, demands, forbids)?;
    escapes(bytes, native);
    bytes.push(opcode);
    match mem {
        Some(mem) => bytes.memory(reg.number & 7, mem),
        None => bytes.push(modrm & 0xc0 | (reg.number & 7) << 3 | rm),
    }
    Ok(())
}

#[inline(always)]
fn put_rex(bytes: &mut Bytes, rex: u8, demands: bool, forbids: bool) -> Result<(), Unencodable> {
    let there = rex != 0 || demands;
    if there && forbids {
        return Err(Unencodable);
    }
    bytes.push_if(there, 0x40 | rex);
    Ok(())
}

#[inline(always)]
fn escapes(bytes: &mut Bytes, native: &Native) {
    let at = usize::from(native.opcode_at);
    if native.opcode_len > 1 {
        bytes.push(0x0f);
        bytes.push_if(native.opcode_len > 2, native.bytes[at + 1]);
    }
}

/// INC and DEC of 32-bit code, whose opcodes are REX prefixes.
fn increment(bytes: &mut Bytes, native: &Native, to: &Substitution) -> Result<(), Unencodable> {
    let reg = to.gpr[usize::from(native.opcode_register())];
    bytes.push_if(reg.high() != 0, 0x41);
    bytes.push(0xff);
    bytes.push(0xc0 | native.opcode() & 8 | reg.low());
    Ok(())
}

/// MOV with an absolute address, whose address is of 8 bytes in 64-bit code.
fn absolute(bytes: &mut Bytes, opcode: u8, wide: u8, mem: &Mem) -> Result<(), Unencodable> {
    put_rex(bytes, wide | mem.rex(), false, false)?;
    bytes.push(match opcode {
        0xa0 => 0x8a,
        0xa1 => 0x8b,
        0xa2 => 0x88,
        _ => 0x89,
    });
    bytes.memory(0, mem);
    Ok(())
}

/// Without ModRM, perhaps with a register in the opcode.
fn short(
    bytes: &mut Bytes,
    native: &Native,
    to: &Substitution,
    mut opcode: u8,
    wide: u8,
) -> Result<(), Unencodable> {
    if native.opcode_reg == File::None {
        put_rex(bytes, wide, false, false)?;
    } else {
        let reg = field(native, to, native.opcode_reg, native.opcode_register())?;
        opcode = opcode & 0xf8 | reg.number & 7;
        if native.class == Class::Copy && native.opcode_len == 1 && opcode == 0x90 && reg.number < 8
        {
            // XCHG of EAX with itself would be NOP, which keeps its upper half.
            return Err(Unencodable);
        }
        put_rex(bytes, wide | reg.number >> 3, reg.demands_rex, reg.forbids_rex)?;
    }
    escapes(bytes, native);
    bytes.push(opcode);
    Ok(())
}

fn vex(
    bytes: &mut Bytes,
    native: &Native,
    to: &Substitution,
    mem: Option<&Mem>,
) -> Result<(), Unencodable> {
    let map = native.vex[0] & 0x1f;
    let mut payload = native.vex[1];
    if native.vvvv.is_gpr() {
        let reg = to.gpr[usize::from(native.vvvv())].number();
        payload = payload & 0x87 | (!reg & 15) << 3;
    }
    let Some(modrm) = native.modrm else {
        bytes.extend(&[0xc5, 0x80 | payload, native.opcode()]);
        return Ok(());
    };
    let file = |file| if file == File::Gpr8 { File::Gpr } else { file };
    let reg = field(native, to, file(native.reg_field), native.reg())?.number;
    let (mut extension, mut rm) = (reg >> 3 << 2, 0);
    match mem {
        Some(mem) => extension |= mem.rex(),
        None => {
            let number = field(native, to, file(native.rm_field), native.rm())?.number;
            extension |= number >> 3;
            rm = number & 7;
        }
    }
    let inverted = (!extension & 7) << 5;
    if extension & 3 == 0 && map == 1 && payload & 0x80 == 0 {
        bytes.extend(&[0xc5, inverted & 0x80 | payload]);
    } else {
        bytes.extend(&[0xc4, inverted | map, payload]);
    }
    bytes.push(native.opcode());
    match mem {
        Some(mem) => bytes.memory(reg & 7, mem),
        None => bytes.push(modrm & 0xc0 | (reg & 7) << 3 | rm),
    }
    Ok(())
}
