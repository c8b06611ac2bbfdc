//! From bytes to [`Native`].

use iced_x86::{DecoderOptions, Instruction};
use x86_state::{CpuFeatures, SegReg};

use super::table::{READ, Row, WRITTEN, rows};
use super::{Class, Encoding, File, Native, NativeMem};
use crate::decoder::error;
use crate::{DecodeError, INSN_SIZE_MAX};

/// Hints are NOPs. TZCNT and LZCNT are told from BSF and BSR, for the host would.
const OPTIONS: u32 = DecoderOptions::FORCE_RESERVED_NOP | DecoderOptions::NO_WBNOINVD;

const RSP: u8 = 4;
const RBP: u8 = 5;

/// Decodes the instructions of one block in turn.
pub struct NativeDecoder<'a> {
    inner: iced_x86::Decoder<'a>,
    bytes: &'a [u8],
    rows: &'static [Row],
    found: Instruction,
    is_64: bool,
    cpu: CpuFeatures,
}

impl<'a> NativeDecoder<'a> {
    /// For the bytes from the beginning of a block; `code_bits` is 32 or 64.
    ///
    /// # Panics
    /// When `code_bits` is something else.
    pub fn new(code_bits: u32, bytes: &'a [u8]) -> Self {
        assert!(matches!(code_bits, 32 | 64), "16-bit code is not translated");
        Self {
            inner: iced_x86::Decoder::with_ip(code_bits, bytes, 0, OPTIONS),
            bytes,
            rows: rows(),
            found: Instruction::default(),
            is_64: code_bits == 64,
            cpu: CpuFeatures::all(),
        }
    }

    /// For a CPU that has these features only, of those not every profile has.
    #[must_use]
    pub fn with_features(self, cpu: CpuFeatures) -> Self {
        Self { cpu, ..self }
    }

    /// Bytes decoded so far.
    pub fn position(&self) -> usize {
        self.inner.position()
    }

    /// The next instruction.
    ///
    /// # Errors
    /// When there is none. What the caller does then is not to go on.
    pub fn next_insn(&mut self) -> Result<Native, DecodeError> {
        let start = self.inner.position();
        self.inner.decode_out(&mut self.found);
        if self.found.is_invalid() {
            return Err(error(&self.inner, self.bytes, start));
        }
        let code = self.found.code();
        let row = &self.rows[code as usize];
        if !self.cpu.contains(row.needs) {
            return Err(DecodeError::Invalid(self.found.len() as u8));
        }
        let mut native = blank(row, code, start, self.found.len());
        let from = &self.bytes[start..];
        match from.first_chunk::<INSN_SIZE_MAX>() {
            Some(all) => native.bytes = *all,
            None => native.bytes[..from.len()].copy_from_slice(from),
        }
        let mut at = self.prefixes(&mut native);
        if row.encoding != Encoding::Other {
            at = opcode(&mut native, at);
            if row.encoding == Encoding::Vex && !self.is_64 {
                narrow(&mut native);
            }
            at = self.operands(&mut native, row, at);
            self.immediate(&mut native, at);
            effects(&mut native, row);
        }
        Ok(native)
    }

    fn prefixes(&self, native: &mut Native) -> usize {
        let mut at = 0;
        loop {
            match native.bytes[at] {
                0x66 => native.op66 = true,
                0x67 => native.addr67 = true,
                byte @ (0xf2 | 0xf3) => native.rep = byte,
                0xf0 => native.lock = true,
                0x64 => native.seg = Some(SegReg::Fs),
                0x65 => native.seg = Some(SegReg::Gs),
                byte @ (0x26 | 0x2e | 0x36 | 0x3e) if !self.is_64 => {
                    native.seg = Some(match byte {
                        0x26 => SegReg::Es,
                        0x2e => SegReg::Cs,
                        0x36 => SegReg::Ss,
                        _ => SegReg::Ds,
                    });
                }
                0x26 | 0x2e | 0x36 | 0x3e => {}
                byte @ 0x40..=0x4f if self.is_64 => {
                    native.rex = byte;
                    at += 1;
                    continue;
                }
                _ => break,
            }
            // A REX prefix before another prefix does not count.
            native.rex = 0;
            at += 1;
        }
        native.addr_size = match (self.is_64, native.addr67) {
            (true, false) => 8,
            (false, true) => 2,
            _ => 4,
        };
        at
    }

    /// ModRM and what follows up to the immediate.
    fn operands(&self, native: &mut Native, row: &Row, mut at: usize) -> usize {
        if row.absolute {
            self.absolute(native, row, at);
            return at + usize::from(native.addr_size);
        }
        if !has_modrm(native) {
            return at;
        }
        let modrm = native.bytes[at];
        native.modrm = Some(modrm);
        at += 1;
        if native.reg_field == File::None {
            native.reg_field = File::Extension;
        }
        if modrm >> 6 == 3 || !row.memory {
            return at;
        }
        let mut mem = NativeMem {
            base: None,
            index: None,
            scale: 0,
            disp: 0,
            rip_relative: false,
            addr_size: native.addr_size,
            seg: SegReg::Ds,
            size_bytes: row.size_bytes,
            access: row.access,
            aligned: row.aligned,
        };
        at = match native.addr_size {
            2 => memory_16(&mut mem, native, modrm, at),
            _ => self.memory(&mut mem, native, modrm, at),
        };
        if matches!(mem.base, Some(RSP | RBP)) {
            mem.seg = SegReg::Ss;
        }
        mem.seg = native.seg.unwrap_or(mem.seg);
        native.mem = Some(mem);
        at
    }

    #[inline]
    fn memory(&self, mem: &mut NativeMem, native: &Native, modrm: u8, mut at: usize) -> usize {
        let (x, b) = match native.encoding {
            Encoding::Vex => (!native.vex[0] >> 6 & 1, !native.vex[0] >> 5 & 1),
            _ => (native.rex >> 1 & 1, native.rex & 1),
        };
        let (mode, rm) = (modrm >> 6, modrm & 7);
        let mut base = rm;
        if rm == 4 {
            let sib = native.bytes[at];
            at += 1;
            base = sib & 7;
            let index = sib >> 3 & 7 | x << 3;
            if index != RSP {
                mem.index = Some(index);
                mem.scale = sib >> 6;
            }
        }
        if base == 5 && mode == 0 {
            mem.rip_relative = rm == 5 && self.is_64;
            mem.disp = disp_32(native, at);
            return at + 4;
        }
        mem.base = Some(base | b << 3);
        match mode {
            0 => at,
            1 => {
                mem.disp = i32::from(native.bytes[at] as i8);
                at + 1
            }
            _ => {
                mem.disp = disp_32(native, at);
                at + 4
            }
        }
    }

    /// MOV with an absolute address: the rest of its bytes.
    fn absolute(&self, native: &mut Native, row: &Row, at: usize) {
        let size = usize::from(native.addr_size);
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(&native.bytes[at..at + size]);
        let address = i64::from_le_bytes(bytes);
        // 32-bit addresses are what their low half says.
        let Some(disp) = (match size {
            8 => i32::try_from(address).ok(),
            _ => Some(address as i32),
        }) else {
            native.class = Class::System;
            return;
        };
        native.mem = Some(NativeMem {
            base: None,
            index: None,
            scale: 0,
            disp,
            rip_relative: false,
            addr_size: native.addr_size,
            seg: native.seg.unwrap_or(SegReg::Ds),
            size_bytes: row.size_bytes,
            access: row.access,
            aligned: 1,
        });
    }

    fn immediate(&self, native: &mut Native, at: usize) {
        native.imm_at = at as u8;
        native.imm_len = native.len - at as u8;
        let bytes = &native.bytes[at..];
        native.imm = match native.imm_len {
            1 => i64::from(bytes[0] as i8),
            2 => {
                let value = u16::from_le_bytes([bytes[0], bytes[1]]);
                let unsigned = native.class == Class::Ret;
                if unsigned { i64::from(value) } else { i64::from(value as i16) }
            }
            4 => i64::from(disp_32(native, at)),
            8 => {
                let mut value = [0; 8];
                value.copy_from_slice(&bytes[..8]);
                i64::from_le_bytes(value)
            }
            _ => 0,
        };
    }
}

#[inline]
fn disp_32(native: &Native, at: usize) -> i32 {
    let bytes = &native.bytes[at..at + 4];
    i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// SDM vol. 2A, table 2-1.
fn memory_16(mem: &mut NativeMem, native: &Native, modrm: u8, at: usize) -> usize {
    const BX: u8 = 3;
    const SI: u8 = 6;
    const DI: u8 = 7;
    let (mode, rm) = (modrm >> 6, modrm & 7);
    (mem.base, mem.index) = match rm {
        0 => (Some(BX), Some(SI)),
        1 => (Some(BX), Some(DI)),
        2 => (Some(RBP), Some(SI)),
        3 => (Some(RBP), Some(DI)),
        4 => (Some(SI), None),
        5 => (Some(DI), None),
        6 if mode == 0 => (None, None),
        6 => (Some(RBP), None),
        _ => (Some(BX), None),
    };
    let size = match mode {
        0 if rm == 6 => 2,
        mode => usize::from(mode),
    };
    mem.disp = match size {
        0 => 0,
        1 => i32::from(native.bytes[at] as i8),
        _ => i32::from(i16::from_le_bytes([native.bytes[at], native.bytes[at + 1]])),
    };
    at + size
}

/// VEX prefix, escapes and opcode.
#[inline]
fn opcode(native: &mut Native, mut at: usize) -> usize {
    let bytes = &native.bytes;
    let mut len = 1;
    if native.encoding == Encoding::Vex {
        if bytes[at] == 0xc5 {
            // R alone of R, X and B, map 0F; W is 0.
            native.vex = [bytes[at + 1] & 0x80 | 0x61, bytes[at + 1] & 0x7f];
            at += 2;
        } else {
            native.vex = [bytes[at + 1], bytes[at + 2]];
            at += 3;
        }
    } else if bytes[at] == 0x0f {
        len = if matches!(bytes[at + 1], 0x38 | 0x3a) { 3 } else { 2 };
    }
    native.opcode_at = at as u8;
    native.opcode_len = len as u8;
    at + len
}

/// What 32-bit code ignores and 64-bit code does not: B, the top of vvvv, and W where it would
/// widen a general register.
fn narrow(native: &mut Native) {
    native.vex[0] |= 0x20;
    native.vex[1] |= 0x40;
    let fields = [native.reg_field, native.rm_field, native.vvvv];
    if fields.iter().any(|file| file.is_gpr()) {
        native.vex[1] &= 0x7f;
    }
}

fn has_modrm(native: &Native) -> bool {
    let map = match (native.encoding, native.opcode_len) {
        (Encoding::Vex, _) => return native.vex[0] & 0x1f != 1 || native.opcode() != 0x77,
        (_, 1) => &ONE_BYTE,
        (_, 2) => &TWO_BYTE,
        _ => return true,
    };
    let opcode = native.opcode();
    map[usize::from(opcode >> 4)] >> (opcode & 15) & 1 != 0
}

/// Opcodes with a ModRM byte: a row of sixteen an element (SDM vol. 2D, table A-2).
const ONE_BYTE: [u16; 16] =
    [0x0f0f, 0x0f0f, 0x0f0f, 0x0f0f, 0, 0, 0x0a0c, 0, 0xffff, 0, 0, 0, 0x00f3, 0xff0f, 0, 0xc0c0];
/// Of those after 0F (table A-3).
const TWO_BYTE: [u16; 16] = [
    0xa00f, 0xffff, 0xffff, 0, 0xffff, 0xffff, 0xffff, 0xff7f, 0, 0xffff, 0xf8f8, 0xffff, 0x00ff,
    0xffff, 0xffff, 0xffff,
];

/// What it does to registers and flags.
#[inline]
fn effects(native: &mut Native, row: &Row) {
    let memory = native.mem.is_some();
    if row.reg.file.is_gpr() {
        let reg = native.reg();
        note(native, row.reg.file, reg, row.reg.access);
    }
    if row.rm.file.is_gpr() && !memory {
        let reg = native.rm();
        note(native, row.rm.file, reg, row.rm.access);
    }
    if row.opcode.file.is_gpr() {
        let reg = native.opcode_register();
        note(native, row.opcode.file, reg, row.opcode.access);
    }
    if row.vvvv.file.is_gpr() {
        let reg = native.vvvv();
        note(native, row.vvvv.file, reg, row.vvvv.access);
    }
    if let Some(mem) = native.mem {
        for reg in [mem.base, mem.index].into_iter().flatten() {
            native.gpr_read |= 1 << reg;
        }
        if row.bit_string && native.reg_field == File::Gpr {
            native.class = Class::System;
        }
    }
    if row.conditional {
        native.condition = native.opcode() & 15;
    }
    let width = if native.op_size == 8 { 63 } else { 31 };
    if row.counts && native.imm & width == 0 {
        native.flags_written = 0;
    }
    if native.class == Class::String && native.rep != 0 {
        native.gpr_read |= 1 << 1;
        native.gpr_written |= 1 << 1;
        native.gpr_implicit |= 1 << 1;
        native.flags_written = 0;
    }
}

#[inline]
fn note(native: &mut Native, file: File, mut reg: u8, access: u8) {
    if file == File::Gpr8 && native.rex == 0 && native.encoding == Encoding::Legacy && reg >= 4 {
        reg -= 4;
        native.high_byte |= 1 << reg;
    }
    native.gpr_read |= u16::from(access & READ != 0) << reg;
    native.gpr_written |= u16::from(access & WRITTEN != 0) << reg;
}

fn blank(row: &Row, code: iced_x86::Code, start: usize, len: usize) -> Native {
    Native {
        code,
        offset: start as u16,
        len: len as u8,
        bytes: [0; INSN_SIZE_MAX],
        encoding: row.encoding,
        op66: false,
        addr67: false,
        rep: 0,
        rep_mandatory: row.rep_mandatory,
        lock: false,
        seg: None,
        rex: 0,
        vex: [0; 2],
        opcode_at: 0,
        opcode_len: 1,
        modrm: None,
        imm_at: 0,
        imm_len: 0,
        reg_field: row.reg.file,
        rm_field: row.rm.file,
        opcode_reg: row.opcode.file,
        vvvv: row.vvvv.file,
        op_size: row.op_size,
        addr_size: 8,
        mem: None,
        imm: 0,
        gpr_read: row.implicit_read,
        gpr_written: row.implicit_written,
        gpr_implicit: row.implicit_read | row.implicit_written,
        high_byte: 0,
        flags_read: row.flags_read,
        flags_written: row.flags_written,
        class: row.class,
        condition: 0,
        vector: row.vector,
        features: row.features,
    }
}
