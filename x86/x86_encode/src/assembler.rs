//! Host code, an instruction at a time.

use crate::label::Labels;
use crate::operand::Bytes;
use crate::{Label, Mem, OutOfRange, Reg};

/// Arithmetic of two operands, as opcodes and ModRM extensions number it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the SDM's names")]
pub enum Alu {
    Add = 0,
    Or = 1,
    Adc = 2,
    Sbb = 3,
    And = 4,
    Sub = 5,
    Xor = 6,
    Cmp = 7,
}

/// Shifts and rotates, as ModRM extensions number them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the SDM's names")]
pub enum Shift {
    Rol = 0,
    Ror = 1,
    Rcl = 2,
    Rcr = 3,
    Shl = 4,
    Shr = 5,
    Sar = 7,
}

/// Condition codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the SDM's names")]
pub enum Cond {
    O = 0,
    No = 1,
    B = 2,
    Ae = 3,
    E = 4,
    Ne = 5,
    Be = 6,
    A = 7,
    S = 8,
    Ns = 9,
    P = 10,
    Np = 11,
    L = 12,
    Ge = 13,
    Le = 14,
    G = 15,
}

impl Cond {
    const ALL: [Self; 16] = [
        Self::O,
        Self::No,
        Self::B,
        Self::Ae,
        Self::E,
        Self::Ne,
        Self::Be,
        Self::A,
        Self::S,
        Self::Ns,
        Self::P,
        Self::Np,
        Self::L,
        Self::Ge,
        Self::Le,
        Self::G,
    ];

    /// By number; of a higher one the low four bits count.
    pub const fn new(number: u8) -> Self {
        Self::ALL[(number & 15) as usize]
    }

    /// Its opposite.
    pub const fn not(self) -> Self {
        Self::new(self as u8 ^ 1)
    }
}

/// Mandatory prefix, escape and opcode of an instruction with ModRM.
#[derive(Clone, Copy)]
struct Op {
    prefix: u8,
    escape: &'static [u8],
    opcode: u8,
    /// Bit W, whatever the size.
    wide: bool,
}

const fn op(opcode: u8) -> Op {
    Op { prefix: 0, escape: &[], opcode, wide: false }
}

const fn op_0f(opcode: u8) -> Op {
    Op { prefix: 0, escape: &[0x0f], opcode, wide: false }
}

const fn op_f3(opcode: u8) -> Op {
    Op { prefix: 0xf3, escape: &[0x0f], opcode, wide: true }
}

/// What ModRM.rm names.
#[derive(Clone, Copy)]
enum Rm<'a> {
    Reg(Reg),
    Mem(&'a Mem),
}

/// Opcodes of operands of more than a byte are those of a byte plus one.
const fn sized(opcode: u8, size: u8) -> u8 {
    opcode | (size > 1) as u8
}

/// Writes instructions. Sizes are in bytes: 1, 2, 4 or 8. Byte registers are low ones: SPL, not AH.
#[derive(Debug, Default)]
pub struct Assembler {
    code: Vec<u8>,
    labels: Labels,
}

impl Assembler {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets everything but its memory.
    pub fn clear(&mut self) {
        self.code.clear();
        self.labels.clear();
    }

    /// What was written.
    pub fn code(&self) -> &[u8] {
        &self.code
    }

    /// What was written, to be patched.
    pub fn code_mut(&mut self) -> &mut [u8] {
        &mut self.code
    }

    /// Where the next byte goes.
    #[inline(always)]
    pub fn here(&self) -> usize {
        self.labels.place_of(self.code.len())
    }

    /// What is written from here on will be so many bytes further on than it is in
    /// [`Assembler::code`]: jumps between it and what is before reckon with that.
    pub fn move_apart(&mut self, by: usize) {
        self.labels.set_apart(self.code.len(), by);
    }

    /// Whether every jump goes where it should.
    ///
    /// # Errors
    /// When a label was not placed or is too far for a short jump.
    pub fn finish(&self) -> Result<(), OutOfRange> {
        self.labels.finish()
    }

    /// These bytes.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.code.extend_from_slice(bytes);
    }

    /// A label without a place.
    pub fn label(&mut self) -> Label {
        self.labels.add()
    }

    /// A label's place is here.
    pub fn bind(&mut self, label: Label) {
        self.labels.bind(&mut self.code, label);
    }

    /// A label whose place is here.
    pub fn label_here(&mut self) -> Label {
        let label = self.label();
        self.bind(label);
        label
    }

    /// Where a label's place is.
    pub fn place(&self, label: Label) -> Option<usize> {
        self.labels.place(label)
    }

    #[inline]
    fn emit(&mut self, op: Op, size: u8, reg: Reg, rm: Rm<'_>) {
        self.emit_imm(op, size, false, reg, rm, &[]);
    }

    /// `bytes`: a register of one byte is among the operands.
    #[inline]
    fn emit_imm(&mut self, op: Op, size: u8, bytes: bool, reg: Reg, rm: Rm<'_>, imm: &[u8]) {
        let mut out = Bytes::new();
        if let Rm::Mem(mem) = rm {
            assert!(mem.is_encodable(), "RSP is no index");
            if let Some(seg) = mem.seg {
                out.push(seg as u8);
            }
        }
        out.push_if(size == 2, 0x66);
        out.push_if(op.prefix != 0, op.prefix);
        let mut rex = u8::from(size == 8 || op.wide) << 3 | reg.high() << 2;
        rex |= match rm {
            Rm::Reg(reg) => reg.high(),
            Rm::Mem(mem) => mem.rex(),
        };
        let unusual = |reg: Reg| (4..8).contains(&reg.number());
        let demanded = bytes && (unusual(reg) || matches!(rm, Rm::Reg(reg) if unusual(reg)));
        out.push_if(rex != 0 || demanded, 0x40 | rex);
        out.extend(op.escape);
        out.push(op.opcode);
        match rm {
            Rm::Reg(rm) => out.push(0xc0 | reg.low() << 3 | rm.low()),
            Rm::Mem(mem) => out.memory(reg.low(), mem),
        }
        out.extend(imm);
        self.raw(out.as_slice());
    }

    #[inline]
    fn emit_sized(&mut self, opcode: u8, size: u8, reg: Reg, rm: Rm<'_>) {
        self.emit_imm(op(sized(opcode, size)), size, size == 1, reg, rm, &[]);
    }

    /// An opcode with an extension for a register.
    #[inline]
    fn emit_group(&mut self, opcode: u8, size: u8, extension: u8, rm: Rm<'_>, imm: &[u8]) {
        // A byte register is only in rm: the extension is none.
        let demanded = size == 1 && matches!(rm, Rm::Reg(_));
        let Rm::Reg(reg) = rm else {
            return self.emit_imm(op(opcode), size, false, Reg::new(extension), rm, imm);
        };
        let mut out = Bytes::new();
        out.push_if(size == 2, 0x66);
        let rex = u8::from(size == 8) << 3 | reg.high();
        out.push_if(rex != 0 || demanded && reg.number() >= 4, 0x40 | rex);
        out.push(opcode);
        out.push(0xc0 | extension << 3 | reg.low());
        out.extend(imm);
        self.raw(out.as_slice());
    }

    /// MOV `to`, `from`.
    pub fn mov_rr(&mut self, size: u8, to: Reg, from: Reg) {
        self.emit_sized(0x88, size, from, Rm::Reg(to));
    }

    /// MOV of a number into a whole register, in the shortest form; flags are kept.
    pub fn mov_ri(&mut self, to: Reg, value: u64) {
        if let Ok(value) = u32::try_from(value) {
            let mut out = Bytes::new();
            out.push_if(to.high() != 0, 0x41);
            out.push(0xb8 | to.low());
            out.extend(&value.to_le_bytes());
            self.raw(out.as_slice());
        } else if let Ok(value) = i32::try_from(value as i64) {
            self.emit_group(0xc7, 8, 0, Rm::Reg(to), &value.to_le_bytes());
        } else {
            self.raw(&[0x48 | to.high(), 0xb8 | to.low()]);
            self.raw(&value.to_le_bytes());
        }
    }

    /// MOV from memory, zero-extended to 64 bits.
    pub fn load(&mut self, size: u8, to: Reg, from: Mem) {
        let (op, size) = match size {
            1 => (op_0f(0xb6), 4),
            2 => (op_0f(0xb7), 4),
            size => (op(0x8b), size),
        };
        self.emit(op, size, to, Rm::Mem(&from));
    }

    /// MOVSX from memory of `size` bytes to 64 bits.
    pub fn load_signed(&mut self, size: u8, to: Reg, from: Mem) {
        let op = match size {
            1 => op_0f(0xbe),
            2 => op_0f(0xbf),
            4 => op(0x63),
            _ => op(0x8b),
        };
        self.emit(op, 8, to, Rm::Mem(&from));
    }

    /// MOVZX of the low bytes of a register to 64 bits.
    pub fn movzx(&mut self, size: u8, to: Reg, from: Reg) {
        let op = match size {
            1 => op_0f(0xb6),
            2 => op_0f(0xb7),
            _ => op(0x8b),
        };
        self.emit_imm(op, if size == 8 { 8 } else { 4 }, size == 1, to, Rm::Reg(from), &[]);
    }

    /// MOVSX of the low bytes of a register to 64 bits.
    pub fn movsx(&mut self, size: u8, to: Reg, from: Reg) {
        let op = match size {
            1 => op_0f(0xbe),
            2 => op_0f(0xbf),
            4 => op(0x63),
            _ => op(0x8b),
        };
        self.emit(op, 8, to, Rm::Reg(from));
    }

    /// MOV to memory.
    pub fn store(&mut self, size: u8, to: Mem, from: Reg) {
        self.emit_sized(0x88, size, from, Rm::Mem(&to));
    }

    /// MOV of a number, sign-extended from 32 bits, to memory.
    pub fn store_imm32(&mut self, size: u8, to: Mem, value: i32) {
        let imm = value.to_le_bytes();
        let len = usize::from(size.min(4));
        self.emit_group(sized(0xc6, size), size, 0, Rm::Mem(&to), &imm[..len]);
    }

    /// LEA of 4 or 8 bytes; the segment does not count.
    pub fn lea(&mut self, size: u8, to: Reg, of: Mem) {
        self.emit(op(0x8d), size, to, Rm::Mem(&Mem { seg: None, ..of }));
    }

    /// `to` op= `from`.
    pub fn alu_rr(&mut self, alu: Alu, size: u8, to: Reg, from: Reg) {
        self.emit_sized((alu as u8) << 3, size, from, Rm::Reg(to));
    }

    /// `to` op= memory.
    pub fn alu_rm(&mut self, alu: Alu, size: u8, to: Reg, from: Mem) {
        self.emit_sized((alu as u8) << 3 | 2, size, to, Rm::Mem(&from));
    }

    /// Memory op= `from`.
    pub fn alu_mr(&mut self, alu: Alu, size: u8, to: Mem, from: Reg) {
        self.emit_sized((alu as u8) << 3, size, from, Rm::Mem(&to));
    }

    /// `to` op= a number, sign-extended from 32 bits.
    pub fn alu_ri(&mut self, alu: Alu, size: u8, to: Reg, value: i32) {
        self.alu_imm(alu, size, Rm::Reg(to), value);
    }

    /// Memory op= a number, sign-extended from 32 bits.
    pub fn alu_mi(&mut self, alu: Alu, size: u8, to: Mem, value: i32) {
        self.alu_imm(alu, size, Rm::Mem(&to), value);
    }

    fn alu_imm(&mut self, alu: Alu, size: u8, rm: Rm<'_>, value: i32) {
        let imm = value.to_le_bytes();
        let (opcode, len) = match size {
            1 => (0x80, 1),
            _ if i8::try_from(value).is_ok() => (0x83, 1),
            2 => (0x81, 2),
            _ => (0x81, 4),
        };
        self.emit_group(opcode, size, alu as u8, rm, &imm[..len]);
    }

    /// TEST of registers.
    pub fn test_rr(&mut self, size: u8, a: Reg, b: Reg) {
        self.emit_sized(0x84, size, b, Rm::Reg(a));
    }

    /// TEST with a number, sign-extended from 32 bits.
    pub fn test_ri(&mut self, size: u8, a: Reg, value: i32) {
        let imm = value.to_le_bytes();
        self.emit_group(sized(0xf6, size), size, 0, Rm::Reg(a), &imm[..usize::from(size.min(4))]);
    }

    /// TEST of memory with a number, sign-extended from 32 bits.
    pub fn test_mi(&mut self, size: u8, a: Mem, value: i32) {
        let imm = value.to_le_bytes();
        self.emit_group(sized(0xf6, size), size, 0, Rm::Mem(&a), &imm[..usize::from(size.min(4))]);
    }

    /// A shift or rotate by a number.
    pub fn shift_ri(&mut self, shift: Shift, size: u8, to: Reg, count: u8) {
        self.emit_group(sized(0xc0, size), size, shift as u8, Rm::Reg(to), &[count]);
    }

    /// A shift or rotate by CL.
    pub fn shift_cl(&mut self, shift: Shift, size: u8, to: Reg) {
        self.emit_group(sized(0xd2, size), size, shift as u8, Rm::Reg(to), &[]);
    }

    /// NOT.
    pub fn not(&mut self, size: u8, to: Reg) {
        self.emit_group(sized(0xf6, size), size, 2, Rm::Reg(to), &[]);
    }

    /// NEG.
    pub fn neg(&mut self, size: u8, to: Reg) {
        self.emit_group(sized(0xf6, size), size, 3, Rm::Reg(to), &[]);
    }

    /// INC of memory; CF is kept.
    pub fn inc_m(&mut self, size: u8, to: Mem) {
        self.emit_group(sized(0xfe, size), size, 0, Rm::Mem(&to), &[]);
    }

    /// DEC of memory; CF is kept.
    pub fn dec_m(&mut self, size: u8, to: Mem) {
        self.emit_group(sized(0xfe, size), size, 1, Rm::Mem(&to), &[]);
    }

    /// IMUL `to` = `from` * `value`.
    pub fn imul_rri(&mut self, size: u8, to: Reg, from: Reg, value: i32) {
        let imm = value.to_le_bytes();
        let (opcode, len) = match i8::try_from(value) {
            Ok(_) => (0x6b, 1),
            Err(_) => (0x69, usize::from(size.min(4))),
        };
        self.emit_imm(op(opcode), size, false, to, Rm::Reg(from), &imm[..len]);
    }

    /// IMUL `to` *= `from`.
    pub fn imul_rr(&mut self, size: u8, to: Reg, from: Reg) {
        self.emit(op_0f(0xaf), size, to, Rm::Reg(from));
    }

    /// BT with a number: CF is the bit.
    pub fn bt_ri(&mut self, size: u8, of: Reg, bit: u8) {
        self.emit_imm(op_0f(0xba), size, false, Reg::RSP, Rm::Reg(of), &[bit]);
    }

    /// BT of memory with a number: CF is the bit.
    pub fn bt_mi(&mut self, size: u8, of: Mem, bit: u8) {
        self.emit_imm(op_0f(0xba), size, false, Reg::RSP, Rm::Mem(&of), &[bit]);
    }

    /// CMOVcc.
    pub fn cmov_rr(&mut self, cond: Cond, size: u8, to: Reg, from: Reg) {
        self.emit(op_0f(0x40 | cond as u8), size, to, Rm::Reg(from));
    }

    /// CMOVcc from memory.
    pub fn cmov_rm(&mut self, cond: Cond, size: u8, to: Reg, from: Mem) {
        self.emit(op_0f(0x40 | cond as u8), size, to, Rm::Mem(&from));
    }

    /// SETcc of a byte.
    pub fn setcc(&mut self, cond: Cond, to: Reg) {
        // Of the register field nothing counts.
        self.emit_imm(op_0f(0x90 | cond as u8), 1, true, Reg::RAX, Rm::Reg(to), &[]);
    }

    /// SETcc of a byte in memory.
    pub fn setcc_m(&mut self, cond: Cond, to: Mem) {
        self.emit(op_0f(0x90 | cond as u8), 1, Reg::RAX, Rm::Mem(&to));
    }

    /// XCHG of registers.
    pub fn xchg_rr(&mut self, size: u8, a: Reg, b: Reg) {
        self.emit_sized(0x86, size, b, Rm::Reg(a));
    }

    /// XCHG with memory, which locks.
    pub fn xchg_mr(&mut self, size: u8, a: Mem, b: Reg) {
        self.emit_sized(0x86, size, b, Rm::Mem(&a));
    }

    /// LAHF.
    pub fn lahf(&mut self) {
        self.raw(&[0x9f]);
    }

    /// SAHF.
    pub fn sahf(&mut self) {
        self.raw(&[0x9e]);
    }

    /// PUSHFQ.
    pub fn pushf(&mut self) {
        self.raw(&[0x9c]);
    }

    /// POPFQ.
    pub fn popf(&mut self) {
        self.raw(&[0x9d]);
    }

    /// PUSH.
    pub fn push_r(&mut self, reg: Reg) {
        self.opcode_reg(0x50, reg);
    }

    /// POP.
    pub fn pop_r(&mut self, reg: Reg) {
        self.opcode_reg(0x58, reg);
    }

    fn opcode_reg(&mut self, opcode: u8, reg: Reg) {
        let bytes = [0x41, opcode | reg.low()];
        self.raw(&bytes[usize::from(reg.high() == 0)..]);
    }

    /// PUSH of memory, 8 bytes.
    pub fn push_m(&mut self, mem: Mem) {
        self.emit_group(0xff, 4, 6, Rm::Mem(&mem), &[]);
    }

    /// POP to memory, 8 bytes.
    pub fn pop_m(&mut self, mem: Mem) {
        self.emit_group(0x8f, 4, 0, Rm::Mem(&mem), &[]);
    }

    /// PUSH of a number, sign-extended to 8 bytes.
    pub fn push_i(&mut self, value: i32) {
        match i8::try_from(value) {
            Ok(value) => self.raw(&[0x6a, value as u8]),
            Err(_) => {
                self.raw(&[0x68]);
                self.raw(&value.to_le_bytes());
            }
        }
    }

    /// JMP; of four bytes unless the label is placed and near.
    pub fn jmp(&mut self, label: Label) {
        if self.is_near(label) {
            return self.jmp_short(label);
        }
        self.raw(&[0xe9]);
        self.labels.write_distance(&mut self.code, label, false);
    }

    /// JMP with a distance of one byte.
    pub fn jmp_short(&mut self, label: Label) {
        self.raw(&[0xeb]);
        self.labels.write_distance(&mut self.code, label, true);
    }

    /// JMP with a distance of four bytes, whatever it is; returns where the distance is.
    pub fn jmp_rel32(&mut self, distance: i32) -> usize {
        self.rel32(&[0xe9], distance)
    }

    /// Jcc; of four bytes unless the label is placed and near.
    pub fn jcc(&mut self, cond: Cond, label: Label) {
        if self.is_near(label) {
            return self.jcc_short(cond, label);
        }
        self.raw(&[0x0f, 0x80 | cond as u8]);
        self.labels.write_distance(&mut self.code, label, false);
    }

    /// Jcc with a distance of one byte.
    pub fn jcc_short(&mut self, cond: Cond, label: Label) {
        self.raw(&[0x70 | cond as u8]);
        self.labels.write_distance(&mut self.code, label, true);
    }

    /// Jcc with a distance of four bytes, whatever it is; returns where the distance is.
    pub fn jcc_rel32(&mut self, cond: Cond, distance: i32) -> usize {
        self.rel32(&[0x0f, 0x80 | cond as u8], distance)
    }

    /// JRCXZ, whose distance is of one byte.
    pub fn jrcxz(&mut self, label: Label) {
        self.raw(&[0xe3]);
        self.labels.write_distance(&mut self.code, label, true);
    }

    /// CALL of a label.
    pub fn call(&mut self, label: Label) {
        self.raw(&[0xe8]);
        self.labels.write_distance(&mut self.code, label, false);
    }

    /// CALL with a distance of four bytes, whatever it is; returns where the distance is.
    pub fn call_rel32(&mut self, distance: i32) -> usize {
        self.rel32(&[0xe8], distance)
    }

    fn rel32(&mut self, opcode: &[u8], distance: i32) -> usize {
        self.raw(opcode);
        let at = self.code.len();
        self.raw(&distance.to_le_bytes());
        at
    }

    fn is_near(&self, label: Label) -> bool {
        self.place(label).is_some_and(|place| self.here() + 2 - place <= 128)
    }

    /// JMP to a register's value.
    pub fn jmp_r(&mut self, to: Reg) {
        self.emit_group(0xff, 4, 4, Rm::Reg(to), &[]);
    }

    /// JMP to what memory holds.
    pub fn jmp_m(&mut self, to: Mem) {
        self.emit_group(0xff, 4, 4, Rm::Mem(&to), &[]);
    }

    /// CALL of a register's value.
    pub fn call_r(&mut self, to: Reg) {
        self.emit_group(0xff, 4, 2, Rm::Reg(to), &[]);
    }

    /// CALL of what memory holds.
    pub fn call_m(&mut self, to: Mem) {
        self.emit_group(0xff, 4, 2, Rm::Mem(&to), &[]);
    }

    /// CALL of an address, through a register.
    pub fn call_absolute(&mut self, through: Reg, address: u64) {
        self.mov_ri(through, address);
        self.call_r(through);
    }

    /// RET.
    pub fn ret(&mut self) {
        self.raw(&[0xc3]);
    }

    /// INT3.
    pub fn int3(&mut self) {
        self.raw(&[0xcc]);
    }

    /// UD2.
    pub fn ud2(&mut self) {
        self.raw(&[0x0f, 0x0b]);
    }

    /// RDTSC.
    pub fn rdtsc(&mut self) {
        self.raw(&[0x0f, 0x31]);
    }

    /// RDFSBASE of 64 bits.
    pub fn rdfsbase(&mut self, to: Reg) {
        self.emit(op_f3(0xae), 4, Reg::RAX, Rm::Reg(to));
    }

    /// RDGSBASE of 64 bits.
    pub fn rdgsbase(&mut self, to: Reg) {
        self.emit(op_f3(0xae), 4, Reg::RCX, Rm::Reg(to));
    }

    /// WRFSBASE of 64 bits.
    pub fn wrfsbase(&mut self, from: Reg) {
        self.emit(op_f3(0xae), 4, Reg::RDX, Rm::Reg(from));
    }

    /// WRGSBASE of 64 bits.
    pub fn wrgsbase(&mut self, from: Reg) {
        self.emit(op_f3(0xae), 4, Reg::RBX, Rm::Reg(from));
    }

    /// LDMXCSR.
    pub fn ldmxcsr(&mut self, from: Mem) {
        self.emit(op_0f(0xae), 4, Reg::RDX, Rm::Mem(&from));
    }

    /// STMXCSR.
    pub fn stmxcsr(&mut self, to: Mem) {
        self.emit(op_0f(0xae), 4, Reg::RBX, Rm::Mem(&to));
    }

    /// MOVAPS from memory.
    pub fn movaps_load(&mut self, xmm: u8, from: Mem) {
        self.emit(op_0f(0x28), 4, Reg::new(xmm), Rm::Mem(&from));
    }

    /// MOVAPS to memory.
    pub fn movaps_store(&mut self, to: Mem, xmm: u8) {
        self.emit(op_0f(0x29), 4, Reg::new(xmm), Rm::Mem(&to));
    }

    /// MOVUPS from memory.
    pub fn movups_load(&mut self, xmm: u8, from: Mem) {
        self.emit(op_0f(0x10), 4, Reg::new(xmm), Rm::Mem(&from));
    }

    /// MOVUPS to memory.
    pub fn movups_store(&mut self, to: Mem, xmm: u8) {
        self.emit(op_0f(0x11), 4, Reg::new(xmm), Rm::Mem(&to));
    }

    /// VMOVUPS of 32 bytes from memory.
    pub fn vmovups_load(&mut self, ymm: u8, from: Mem) {
        self.vex(1, 0x04, 0x10, Reg::new(ymm), Reg::RAX, Rm::Mem(&from));
    }

    /// VMOVUPS of 32 bytes to memory.
    pub fn vmovups_store(&mut self, to: Mem, ymm: u8) {
        self.vex(1, 0x04, 0x11, Reg::new(ymm), Reg::RAX, Rm::Mem(&to));
    }

    /// PEXT of 8 bytes: the bits of `from` that `mask` selects.
    pub fn pext_rm(&mut self, to: Reg, from: Reg, mask: Mem) {
        self.vex(2, 0x82, 0xf5, to, from, Rm::Mem(&mask));
    }

    /// PEXT of 8 bytes: the bits of `from` that `mask` selects.
    pub fn pext_rr(&mut self, to: Reg, from: Reg, mask: Reg) {
        self.vex(2, 0x82, 0xf5, to, from, Rm::Reg(mask));
    }

    /// ANDN: `to` = !`not` & `from`.
    pub fn andn(&mut self, size: u8, to: Reg, not: Reg, from: Reg) {
        self.vex(2, u8::from(size == 8) << 7, 0xf2, to, not, Rm::Reg(from));
    }

    /// SHLX, SHRX or SARX by a register: flags are kept.
    pub fn shiftx(&mut self, shift: Shift, size: u8, to: Reg, from: Reg, count: Reg) {
        let prefix = match shift {
            Shift::Shr => 3,
            Shift::Sar => 2,
            _ => 1,
        };
        self.vex(2, u8::from(size == 8) << 7 | prefix, 0xf7, to, count, Rm::Reg(from));
    }

    /// A VEX encoding: `payload` is its last byte without vvvv, the third of the long form.
    fn vex(&mut self, map: u8, payload: u8, opcode: u8, reg: Reg, vvvv: Reg, rm: Rm<'_>) {
        let mut out = Bytes::new();
        let extension = match rm {
            Rm::Reg(rm) => rm.high(),
            Rm::Mem(mem) => {
                assert!(mem.is_encodable(), "RSP is no index");
                if let Some(seg) = mem.seg {
                    out.push(seg as u8);
                }
                mem.rex()
            }
        };
        let inverted = (!(extension | reg.high() << 2) & 7) << 5;
        out.extend(&[0xc4, inverted | map, payload | (!vvvv.number() & 15) << 3, opcode]);
        match rm {
            Rm::Reg(rm) => out.push(0xc0 | reg.low() << 3 | rm.low()),
            Rm::Mem(mem) => out.memory(reg.low(), mem),
        }
        self.raw(out.as_slice());
    }

    /// NOPs, this many bytes of them, as few as may be.
    pub fn nops(&mut self, mut count: usize) {
        // SDM vol. 2B, NOP, table 4-12.
        const LONG: [&[u8]; 9] = [
            &[0x90],
            &[0x66, 0x90],
            &[0x0f, 0x1f, 0x00],
            &[0x0f, 0x1f, 0x40, 0],
            &[0x0f, 0x1f, 0x44, 0, 0],
            &[0x66, 0x0f, 0x1f, 0x44, 0, 0],
            &[0x0f, 0x1f, 0x80, 0, 0, 0, 0],
            &[0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
            &[0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
        ];
        while count > 0 {
            let len = count.min(LONG.len());
            self.raw(LONG[len - 1]);
            count -= len;
        }
    }

    /// NOPs so that the distance of a jump whose opcode is of `opcode_len` bytes (1, or 2 of Jcc),
    /// emitted next, is all in eight bytes at a multiple of eight: so it can be patched while others
    /// execute it.
    pub fn align_for_rel32(&mut self, opcode_len: usize) {
        let within = (self.here() + opcode_len) & 7;
        if within > 4 {
            self.nops(8 - within);
        }
    }
}
