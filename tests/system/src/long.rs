//! Guests whose cases begin in 64-bit mode, ring 0.

use iced_x86::code_asm::*;

use crate::image::{self, *};
use crate::{Asm, Layout};

/// Everything below 2 MiB once more, for ring 3.
const USER: u64 = 0x4000_0000;
const PML4: u64 = TABLES;
const PDPT: u64 = TABLES + 0x1000;
const PD: u64 = TABLES + 0x2000;
const PD_USER: u64 = TABLES + 0x3000;
const PD_APIC: u64 = TABLES + 0x4000;
const PT_TEST: u64 = TABLES + 0x5000;

/// PE, MP, ET, NE, WP and PG of CR0.
const CR0: u32 = 0x8001_0033;
/// PAE, PGE, OSFXSR, OSXMMEXCPT and FSGSBASE of CR4.
const CR4: u32 = 0x1_06a0;
/// SCE, LME, LMA and NXE.
const EFER: u32 = 0xd01;

const NAMES: &[&str] = &[
    "sp in handler",
    "vector",
    "error",
    "ip",
    "cs",
    "flags",
    "sp",
    "ss",
    "cr2",
    "dr6",
    "ds",
    "es",
    "fs",
    "gs",
    "entry",
    "rax",
    "rbx",
    "rcx",
    "rdx",
    "rsi",
    "rdi",
    "rbp",
    "r8",
    "r9",
    "r10",
    "r11",
    "r12",
    "r13",
    "r14",
    "r15",
];

/// A guest in 64-bit mode.
pub struct Long {
    image: Image,
}

fn word(index: u64) -> AsmMemoryOperand {
    qword_ptr(RECORD + index * 8)
}

impl Default for Long {
    fn default() -> Self {
        let mut image = Image::new(64);
        tables(&mut image);
        image.stubs();
        image.code(32, Image::entry(), 0x800, enter);
        image.code(64, START, 0x800, start);
        image.code(64, HANDLER, 0x800, handler);
        image.code(64, NEXT, 0x800, next);
        Self { image }
    }
}

impl Long {
    /// A page-table entry of this decides about [`Long::TEST`].
    pub const TEST_ENTRY: u64 = PT_TEST;
    /// An address with a page of its own, not present at first.
    pub const TEST: u64 = USER + 0x20_0000;
    /// The memory to be put there; filled with RET.
    pub const DATA: u64 = image::DATA;
    /// The same, for ring 3.
    pub const USER_DATA: u64 = USER + image::DATA;
    /// An address at which a report is made, in any mode.
    pub const REPORTS: i32 = image::DATA as i32 + 0x800;
    /// End of the GDT.
    pub const GDT_END: u64 = 0xe0;

    /// A case in ring 0.
    pub fn ring0(&mut self, name: impl Into<String>, code: impl FnOnce(&mut CodeAssembler) -> Asm) {
        self.image.case(name.into(), |a, _| code(a), None);
    }

    /// A case with a second part.
    pub fn parts(
        &mut self,
        name: impl Into<String>,
        first: impl FnOnce(&mut CodeAssembler, Case) -> Asm,
        second: &dyn Fn(&mut CodeAssembler) -> Asm,
    ) {
        self.image.case(name.into(), first, Some((64, second)));
    }

    /// A case in ring 3, with preparations in ring 0.
    pub fn ring3(
        &mut self,
        name: impl Into<String>,
        before: impl FnOnce(&mut CodeAssembler) -> Asm,
        flags: i32,
        code: &dyn Fn(&mut CodeAssembler) -> Asm,
    ) {
        self.user(name.into(), before, flags, 0x3b, (64, code));
    }

    /// A case in ring 3 and compatibility mode: 32-bit code.
    pub fn compatibility(
        &mut self,
        name: impl Into<String>,
        before: impl FnOnce(&mut CodeAssembler) -> Asm,
        code: &dyn Fn(&mut CodeAssembler) -> Asm,
    ) {
        self.user(name.into(), before, 2, 0x2b, (32, code));
    }

    fn user(
        &mut self,
        name: String,
        before: impl FnOnce(&mut CodeAssembler) -> Asm,
        flags: i32,
        selector: i32,
        second: (u32, &dyn Fn(&mut CodeAssembler) -> Asm),
    ) {
        let first = |a: &mut CodeAssembler, case: Case| {
            before(a)?;
            a.push(0x33)?;
            a.push((USER + STACK_USER) as i32)?;
            a.push(flags)?;
            a.push(selector)?;
            a.push((USER + case.second) as i32)?;
            a.iretq()
        };
        self.image.case(name, first, Some(second));
    }

    /// The image and the names of the cases.
    pub fn finish(self) -> (Vec<u8>, Vec<String>) {
        self.image.finish()
    }

    /// How its records are laid out.
    pub const LAYOUT: Layout = Layout { word: 8, names: NAMES };
}

fn tables(image: &mut Image) {
    let flat = u64::from(u32::MAX) >> 12;
    let descriptors = [
        0,
        descriptor(0, flat, 0xa09b),            // 08: code of ring 0
        descriptor(0, flat, 0xc093),            // 10: data of ring 0
        descriptor(0, flat, 0xc0fb),            // 18: what SYSEXIT pretends
        descriptor(0, flat, 0xc0f3),            // 20
        descriptor(0, flat, 0xc0fb),            // 28: 32-bit code of ring 3
        descriptor(0, flat, 0xc0f3),            // 30: data of ring 3
        descriptor(0, flat, 0xa0fb),            // 38: code of ring 3
        descriptor(0, flat, 0xc013),            // 40: data not present
        descriptor(0, flat, 0xa09e),            // 48: conforming code
        descriptor(0, flat, 0xc09b),            // 50: 32-bit code of ring 0
        gate(0x08, image::stub(0x70), 0xec, 0), // 58: call gate
        0,
        descriptor(TSS, 0x67, 0x89), // 68: TSS
        0,
        descriptor(GDT, 0x1f, 0xe2), // 78: LDT
        0,
        descriptor(TSS2, 0x67, 0xe9), // 88: another TSS
        0,
        descriptor(0, 0x1f_ffff, 0x4096), // 98: data, expand down
        descriptor(0, flat, 0xc0f0),      // a0: data, read only, not accessed
        descriptor(0, flat, 0xa0f8),      // a8: code, execute only, not accessed
        descriptor(0, flat, 0xa01b),      // b0: code not present
        descriptor(TSS2, 0x67, 0x69),     // b8: TSS not present
        0,
        gate(0x08, image::stub(0x71), 0x8c, 0), // c8: call gate for ring 0
        1 << 40,
        descriptor(0, flat, 0xe0fb), // d8: code with both L and D
    ];
    for (index, descriptor) in descriptors.iter().enumerate() {
        image.put64(GDT + index as u64 * 8, *descriptor);
    }
    for vector in 0..256 {
        let kind = if matches!(vector, 3 | 4 | 0x80 | 0x90..=0x9f) { 0xee } else { 0x8e };
        // A double fault has a stack of its own, so that a lost one can be reported.
        let ist = if vector & 0xf8 == 0x90 { vector & 7 } else { u64::from(vector == 8) };
        let kind = if vector == 0x98 { 0x6e } else { kind };
        image.put64(IDT + vector * 16, gate(0x08, image::stub(vector), kind, ist));
    }
    image.put64(IDT + 0x99 * 16 + 8, 0x8000); // not canonical
    image.put(TSS + 4, &STACK_RING0.to_le_bytes());
    for ist in 0..7 {
        image.put64(TSS + 36 + ist * 8, STACK_IST - ist * 0x200 - ist);
    }
    image.put64(PML4, PDPT | 7);
    image.put64(PDPT, PD | 3);
    image.put64(PDPT + 8, PD_USER | 7);
    image.put64(PDPT + 24, PD_APIC | 3);
    image.put64(PD, 0x83);
    image.put64(PD_USER, 0x87);
    image.put64(PD_USER + 8, PT_TEST | 7);
    image.put64(PD_APIC + (0xfee0_0000 >> 21 & 511) * 8, 0xfee0_009b);
    image.put(image::DATA, &[0xc3; 4096]);
    image.put(Long::REPORTS as u64, &[0xcd, REPORT as u8]);
    image.put(GDTR, &(Long::GDT_END as u16 - 1).to_le_bytes());
    image.put64(GDTR + 2, GDT);
    image.put(IDTR, &0xfffu16.to_le_bytes());
    image.put64(IDTR + 2, IDT);
    image.put64(CURRENT, Image::first_case() - CASE_SIZE);
}

/// From the Multiboot entry to long mode.
fn enter(a: &mut CodeAssembler) -> Asm {
    a.lgdt(ptr(GDTR as u32))?;
    a.mov(eax, CR4)?;
    a.mov(cr4, eax)?;
    a.mov(eax, PML4 as u32)?;
    a.mov(cr3, eax)?;
    a.mov(ecx, 0xc000_0080u32)?;
    a.xor(edx, edx)?;
    a.mov(eax, EFER & !0x400)?;
    a.wrmsr()?;
    a.mov(eax, CR0)?;
    a.mov(cr0, eax)?;
    let mut far = vec![0xea];
    far.extend((START as u32).to_le_bytes());
    far.extend([0x08, 0]);
    a.db(&far)
}

fn start(a: &mut CodeAssembler) -> Asm {
    a.mov(ax, 0x68)?;
    a.ltr(ax)?;
    a.mov(al, 0xff)?;
    a.out(0x21, al)?;
    a.out(0xa1, al)?;
    a.jmp(NEXT)
}

fn handler(a: &mut CodeAssembler) -> Asm {
    a.mov(word(15), rax)?;
    for (index, register) in
        [rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15].iter().enumerate()
    {
        a.mov(word(16 + index as u64), *register)?;
    }
    a.mov(word(0), rsp)?;
    for index in 1..8 {
        a.pop(rax)?;
        a.mov(word(index), rax)?;
    }
    a.mov(rax, cr2)?;
    a.mov(word(8), rax)?;
    a.mov(rax, dr6)?;
    a.mov(word(9), rax)?;
    for (index, segment) in [ds, es, fs, gs].iter().enumerate() {
        a.mov(eax, *segment)?;
        a.mov(word(10 + index as u64), rax)?;
    }
    a.mov(rax, qword_ptr(PT_TEST))?;
    a.mov(word(14), rax)?;
    a.cld()?;
    a.mov(rsi, RECORD)?;
    a.mov(ecx, NAMES.len() as u32 * 8)?;
    let mut wait = a.create_label();
    a.set_label(&mut wait)?;
    a.mov(dx, 0x3fd)?;
    a.in_(al, dx)?;
    a.test(al, 0x20)?;
    a.jz(wait)?;
    a.mov(dx, 0x3f8)?;
    a.lodsb()?;
    a.out(dx, al)?;
    a.dec(ecx)?;
    a.jnz(wait)?;
    a.jmp(NEXT)
}

/// Begins the next case in the known state.
fn next(a: &mut CodeAssembler) -> Asm {
    a.mov(eax, CR0)?;
    a.mov(cr0, rax)?;
    a.mov(eax, CR4)?;
    a.mov(cr4, rax)?;
    a.mov(eax, PML4 as u32)?;
    a.mov(cr3, rax)?;
    a.mov(ecx, 0xc000_0080u32)?;
    a.xor(edx, edx)?;
    a.mov(eax, EFER)?;
    a.wrmsr()?;
    a.mov(eax, 0x10)?;
    for segment in [ds, es, fs, gs, ss] {
        a.mov(segment, eax)?;
    }
    a.xor(eax, eax)?;
    a.lldt(ax)?;
    a.mov(cr2, rax)?;
    a.mov(dr7, rax)?;
    a.mov(eax, 0xffff_0ff0u32)?;
    a.mov(dr6, rax)?;
    a.lgdt(ptr(GDTR))?;
    a.lidt(ptr(IDTR))?;
    a.fninit()?;
    a.mov(rsp, STACK)?;
    a.add(qword_ptr(CURRENT), CASE_SIZE as i32)?;
    a.push(0x10)?;
    a.push(STACK as i32)?;
    a.push(2)?;
    a.push(0x08)?;
    a.push(qword_ptr(CURRENT))?;
    for (index, register) in
        [rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15].iter().enumerate()
    {
        a.mov(*register, 0x1111_1111_1111 * index as u64)?;
    }
    a.iretq()
}
