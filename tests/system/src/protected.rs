//! Guests whose cases begin in 32-bit protected mode, ring 0, without paging.

use iced_x86::code_asm::*;

use crate::image::{self, *};
use crate::{Asm, Layout, real};

/// PE, MP, ET and NE of CR0.
const CR0: u32 = 0x33;
/// OSFXSR and OSXMMEXCPT of CR4.
const CR4: u32 = 0x600;
/// With paging, the first 2 MiB once more, for ring 3.
const USER: u32 = 0x80_0000;
/// A page directory that maps what there is one to one.
const DIRECTORY: u64 = TABLES;
const TABLE_TEST: u64 = TABLES + 0x1000;
/// PAE: four directories' pointers, and the first two directories.
const POINTERS: u64 = TABLES + 0x2000;
const DIRECTORY_PAE: u64 = TABLES + 0x3000;
const TABLE_TEST_PAE: u64 = TABLES + 0x5000;
/// A directory without large pages, and the table that maps the first 4 MiB one to one.
const DIRECTORY_SMALL: u64 = TABLES + 0x6000;
const TABLE_SMALL: u64 = TABLES + 0x7000;
/// The task of a case that is called by it, and the task of a double fault.
const TSS_FAULT: u64 = TSS2 + 0x100;
const TSS_16: u64 = TSS2 + 0x200;
/// The task of #TS, as the SDM advises (vol. 3A, 7.3).
const TSS_INVALID: u64 = TSS2 + 0x300;
const FAULT_ENTRY: u64 = HANDLER + 0x700;
const INVALID_ENTRY: u64 = HANDLER + 0x780;
/// Code below 1 MiB, for virtual-8086 mode and real mode.
pub(crate) const LOW: u64 = 0x8000;
/// Offset of the 16-bit gate's code segment.
const GATE_16_BASE: u64 = 0x10_0000;

/// Words on the stack of the handler: what it pushes, what the stub pushes, the frame.
const PUSHED: usize = 23;
const TSS_WORDS: usize = 26;
const NAMES: &[&str] = &[
    "sp in handler",
    "gs",
    "fs",
    "es",
    "ds",
    "edi",
    "esi",
    "ebp",
    "esp",
    "ebx",
    "edx",
    "ecx",
    "eax",
    "vector",
    "error",
    "ip",
    "cs",
    "flags",
    "sp",
    "ss",
    "v86 es",
    "v86 ds",
    "v86 fs",
    "v86 gs",
    "cr2",
    "dr6",
    "cr0",
    "tr",
    "entry",
    "tss link",
    "tss esp0",
    "tss ss0",
    "tss esp1",
    "tss ss1",
    "tss esp2",
    "tss ss2",
    "tss cr3",
    "tss eip",
    "tss eflags",
    "tss eax",
    "tss ecx",
    "tss edx",
    "tss ebx",
    "tss esp",
    "tss ebp",
    "tss esi",
    "tss edi",
    "tss es",
    "tss cs",
    "tss ss",
    "tss ds",
    "tss fs",
    "tss gs",
    "tss ldt",
    "tss trap",
    "tss busy",
    "link of the other",
    "other busy",
    "memory",
];

/// Memory cases write to, as a sum in each record: beginnings and sizes.
const WRITTEN: [(u64, u64); 3] =
    [(0x6000, 0x2000), (0xc000, 0xb000), (image::DATA - 0x1000, 0x3000)];

/// A guest in 32-bit protected mode.
pub struct Protected {
    image: Image,
}

fn word(index: usize) -> AsmMemoryOperand {
    dword_ptr(RECORD as u32 + index as u32 * 4)
}

impl Default for Protected {
    fn default() -> Self {
        let mut image = Image::new(32);
        tables(&mut image);
        tasks(&mut image);
        pages(&mut image);
        image.stubs();
        image.code(32, Image::entry(), 0x800, enter);
        image.code(32, START, 0x800, |a| {
            a.mov(eax, 0x10)?;
            a.mov(ds, eax)?;
            a.mov(es, eax)?;
            a.cld()?;
            real::install(a)?;
            a.jmp(NEXT)
        });
        real::put(&mut image);
        image.code(32, HANDLER, 0x700, handler);
        for (entry, vector) in [(FAULT_ENTRY, 8), (INVALID_ENTRY, 10)] {
            image.code(32, entry, 0x80, |a| {
                a.push(vector)?;
                a.jmp(HANDLER)
            });
        }
        image.code(32, NEXT, 0x800, next);
        Self { image }
    }
}

impl Protected {
    /// The selectors of interest are below.
    pub const GDT_END: u64 = 0x108;
    /// A page read, written and executed by cases; filled with RET.
    pub const DATA: u64 = image::DATA;
    /// An address at which a report is made.
    pub const REPORTS: u32 = image::DATA as u32 + 0x800;
    /// An address with a page of its own, not present at first, in both kinds of page tables.
    pub const TEST: u32 = 0x60_0000;
    /// Its entries: 32 bits and 64 bits wide.
    pub const TEST_ENTRY: u32 = TABLE_TEST as u32 + 0x200 * 4;
    /// The same, 64 bits wide.
    pub const TEST_ENTRY_PAE: u32 = TABLE_TEST_PAE as u32;
    /// For CR3: 32-bit page tables, and those of PAE.
    pub const CR3: u32 = DIRECTORY as u32;
    /// The same, of PAE.
    pub const CR3_PAE: u32 = POINTERS as u32;
    /// The same, for 32-bit paging without PSE.
    pub const CR3_SMALL: u32 = DIRECTORY_SMALL as u32;
    /// How its records are laid out.
    pub const LAYOUT: Layout = Layout { word: 4, names: NAMES };

    /// A case in ring 0.
    pub fn ring0(&mut self, name: impl Into<String>, code: impl FnOnce(&mut CodeAssembler) -> Asm) {
        self.image.case(name.into(), |a, _| code(a), None);
    }

    /// A case in ring 3, with preparations in ring 0.
    pub fn ring3(
        &mut self,
        name: impl Into<String>,
        before: impl FnOnce(&mut CodeAssembler) -> Asm,
        flags: i32,
        code: &dyn Fn(&mut CodeAssembler) -> Asm,
    ) {
        let first = |a: &mut CodeAssembler, case: Case| {
            before(a)?;
            to_ring3(a, case, flags, 0)
        };
        self.image.case(name.into(), first, Some((32, code)));
    }

    /// The same, with preparations that turn paging on.
    pub fn paged_ring3(
        &mut self,
        name: impl Into<String>,
        before: impl FnOnce(&mut CodeAssembler) -> Asm,
        code: &dyn Fn(&mut CodeAssembler) -> Asm,
    ) {
        let first = |a: &mut CodeAssembler, case: Case| {
            before(a)?;
            to_ring3(a, case, 2, USER)
        };
        self.image.case(name.into(), first, Some((32, code)));
    }

    /// A case in virtual-8086 mode, from 0800:0000, its stack at 0700:0800.
    pub fn v86(
        &mut self,
        name: impl Into<String>,
        flags: i32,
        code: &dyn Fn(&mut CodeAssembler) -> Asm,
    ) {
        let first = |a: &mut CodeAssembler, case: Case| {
            copy_low(a, case)?;
            for segment in [0x44, 0x33, 0x600, 0x600, 0x700, 0x800] {
                a.push(segment)?;
            }
            a.push(flags | 0x2_0002)?;
            a.push((LOW >> 4) as i32)?;
            a.push(0)?;
            a.iretd()
        };
        self.image.case(name.into(), first, Some((16, code)));
    }

    /// A case in real mode, from 0800:.., its stack at 0700:0800, its data at 0600:0000. FS has a
    /// limit of 4 GiB. There is room for a hundred.
    pub fn real(&mut self, name: impl Into<String>, code: &dyn Fn(&mut CodeAssembler) -> Asm) {
        let first = |a: &mut CodeAssembler, case: Case| {
            copy_low(a, case)?;
            a.lidt(ptr(real::TABLE_POINTER as u32))?;
            to_16_bits(a, case)
        };
        let second = |a: &mut CodeAssembler| {
            real::enter(a)?;
            code(a)
        };
        self.image.case(name.into(), first, Some((16, &second)));
    }

    /// A case in 16-bit protected mode, ring 0. There is room for a hundred.
    pub fn ring0_16(&mut self, name: impl Into<String>, code: &dyn Fn(&mut CodeAssembler) -> Asm) {
        self.image.case(name.into(), to_16_bits, Some((16, code)));
    }

    /// The image and the names of the cases.
    pub fn finish(self) -> (Vec<u8>, Vec<String>) {
        self.image.finish()
    }
}

/// Puts the second part at [`LOW`].
fn copy_low(a: &mut CodeAssembler, case: Case) -> Asm {
    a.mov(esi, case.second as u32)?;
    a.mov(edi, LOW as u32)?;
    a.mov(ecx, 64)?;
    a.rep().movsd()
}

/// Goes to the second part as 16-bit code.
fn to_16_bits(a: &mut CodeAssembler, case: Case) -> Asm {
    a.push(0x28)?;
    a.push((case.second - CASES) as i32)?;
    a.retf()
}

/// Goes to the second part, which is at so much above its place.
fn to_ring3(a: &mut CodeAssembler, case: Case, flags: i32, above: u32) -> Asm {
    a.mov(eax, 0x23)?;
    a.mov(ds, eax)?;
    a.mov(es, eax)?;
    a.xor(eax, eax)?;
    a.push(0x23)?;
    a.push((STACK_USER as u32 + above) as i32)?;
    a.push(flags)?;
    a.push(0x1b)?;
    a.push((case.second as u32 + above) as i32)?;
    a.iretd()
}

fn tables(image: &mut Image) {
    let flat = u64::from(u32::MAX) >> 12;
    let reports = u64::from(Protected::REPORTS);
    let below_data = image::DATA - 0x1000;
    let descriptors = [
        0,
        descriptor(0, flat, 0xc09b),            // 08: code of ring 0
        descriptor(0, flat, 0xc093),            // 10: data of ring 0
        descriptor(0, flat, 0xc0fb),            // 18: code of ring 3
        descriptor(0, flat, 0xc0f3),            // 20: data of ring 3
        descriptor(CASES, 0xffff, 0x9b),        // 28: 16-bit code
        descriptor(image::DATA, 0xffff, 0x93),  // 30: 16-bit data
        descriptor(image::DATA, 0xfff, 0x40f3), // 38: data with a limit
        descriptor(below_data, 0xfff, 0x40f7),  // 40: data, expand down
        descriptor(below_data, 0xfff, 0xf7),    // 48: 16-bit data, expand down
        descriptor(image::DATA, 0xff, 0x40f0),  // 50: data, read only, not accessed
        descriptor(0, flat, 0xc013),            // 58: data not present
        descriptor(0, flat, 0xc09e),            // 60: conforming code
        descriptor(TSS, 0x67, 0x89),            // 68: TSS
        descriptor(TSS2, 0x67, 0xe9),           // 70: another TSS
        descriptor(TSS_FAULT, 0x67, 0x89),      // 78: the TSS of double faults
        descriptor(TSS_16, 0x2b, 0xe1),         // 80: a 16-bit TSS
        descriptor(GDT, 0x2f, 0xe2),            // 88: LDT
        gate(0x08, reports, 0xec, 2),           // 90: call gate, two parameters
        gate(0xd8, image::stub(0x72) - GATE_16_BASE, 0xe4, 1), // 98: 16-bit call gate
        gate(0x70, 0, 0xe5, 0),                 // a0: task gate
        gate(0x60, reports, 0xec, 0),           // a8: call gate to conforming code
        descriptor(0, flat, 0xc0f8),            // b0: code, execute only
        descriptor(TSS2, 0x66, 0xe9),           // b8: a TSS too short
        gate(0x08, reports, 0x8c, 0),           // c0: call gate for ring 0
        descriptor(TSS2, 0x67, 0x69),           // c8: TSS not present
        gate(0x58, reports, 0xec, 0),           // d0: call gate to what is no code
        descriptor(GATE_16_BASE, 0xf_ffff, 0x409b), // d8: for 16-bit gates
        descriptor(0, flat, 0xc0bb),            // e0: code of ring 1
        descriptor(0, flat, 0xc0b3),            // e8: data of ring 1
        gate(0xe0, reports, 0xec, 1),           // f0: call gate to ring 1
        gate(0x78, 0, 0x65, 0),                 // f8: task gate not present
        descriptor(TSS_INVALID, 0x67, 0x89),    // 100: the TSS of #TS
    ];
    for (index, descriptor) in descriptors.iter().enumerate() {
        image.put64(GDT + index as u64 * 8, *descriptor);
    }
    for vector in 0..256 {
        let stub = image::stub(vector);
        let entry = match vector {
            3 | 4 | 0x80 => gate(0x08, stub, 0xee, 0),
            8 => gate(0x78, 0, 0x85, 0),
            10 => gate(0x100, 0, 0x85, 0),
            0x90 => gate(0x08, stub, 0xef, 0),
            0x91 => gate(0x70, 0, 0xe5, 0),
            0x92 => gate(0xd8, stub - GATE_16_BASE, 0xe6, 0),
            0x93 => gate(0x60, stub, 0xee, 0),
            0x94 => gate(0, stub, 0xee, 0),
            0x95 => gate(0x08, stub, 0x6e, 0),
            0x96 => gate(0x10, stub, 0xee, 0),
            0x97 => gate(0x08, stub, 0xec, 0),
            0x98 => gate(0xe0, stub, 0xee, 0),
            0x99 => gate(0xd8, stub - GATE_16_BASE, 0xe7, 0),
            0x9a => gate(0x1b, stub, 0xee, 0),
            _ => gate(0x08, stub, 0x8e, 0),
        };
        image.put64(IDT + vector * 8, entry);
    }
    image.put(image::DATA, &[0xc3; 4096]);
    image.put(u64::from(Protected::REPORTS), &[0xcd, REPORT as u8]);
    image.put(GDTR, &(Protected::GDT_END as u16 - 1).to_le_bytes());
    image.put(GDTR + 2, &(GDT as u32).to_le_bytes());
    image.put(IDTR, &0x7ffu16.to_le_bytes());
    image.put(IDTR + 2, &(IDT as u32).to_le_bytes());
    image.put(CURRENT, &((Image::first_case() - CASE_SIZE) as u32).to_le_bytes());
}

/// What a 32-bit TSS begins with.
fn task(entry: u64, stack: u64, dirty: u32) -> Vec<u8> {
    let selectors = [0x10, 0x08, 0x10, 0x10, 0x20, 0x38];
    let mut words = vec![0, STACK_RING0 as u32, 0x10, STACK_IST as u32, 0xe9, 0, 0];
    words.extend([DIRECTORY as u32, entry as u32, 2]);
    words.extend((1..9).map(|i| i * dirty));
    words[14] = stack as u32;
    words.extend(selectors);
    words.extend([0, 0x68 << 16]);
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn tasks(image: &mut Image) {
    image.put(TSS, &task(0, 0, 0));
    image.put(TSS2, &task(Protected::REPORTS.into(), STACK_IST - 0x800, 0x0101_0101));
    image.put(TSS_FAULT, &task(FAULT_ENTRY, STACK_IST - 0x400, 0));
    image.put(TSS_INVALID, &task(INVALID_ENTRY, STACK_IST - 0xc00, 0));
    let entry = (u64::from(Protected::REPORTS) - GATE_16_BASE) as u16;
    let mut words = [0u16; 22];
    words[7] = entry;
    words[8] = 2;
    words[13] = 0x800; // SP
    words[17..21].copy_from_slice(&[0x10, 0xd8, 0x30, 0x10]);
    for (at, word) in (TSS_16..).step_by(2).zip(words) {
        image.put(at, &word.to_le_bytes());
    }
}

fn pages(image: &mut Image) {
    let mut put32 = |at, value: u32| image.put(at, &value.to_le_bytes());
    put32(DIRECTORY, 0x83);
    put32(DIRECTORY + u64::from(USER >> 22) * 4, 0x87);
    put32(DIRECTORY + 4, TABLE_TEST as u32 | 7);
    put32(DIRECTORY_SMALL, TABLE_SMALL as u32 | 3);
    put32(DIRECTORY_SMALL + u64::from(USER >> 22) * 4, TABLE_SMALL as u32 | 7);
    put32(DIRECTORY_SMALL + 4, TABLE_TEST as u32 | 7);
    for page in 0..1024 {
        put32(TABLE_SMALL + page * 4, (page as u32) << 12 | 7);
    }
    image.put64(POINTERS, DIRECTORY_PAE | 1);
    image.put64(DIRECTORY_PAE, 0x83);
    image.put64(DIRECTORY_PAE + u64::from(USER >> 21) * 8, 0x87);
    image.put64(DIRECTORY_PAE + 24, TABLE_TEST_PAE | 7);
}

fn enter(a: &mut CodeAssembler) -> Asm {
    a.lgdt(ptr(GDTR as u32))?;
    a.mov(eax, CR4)?;
    a.mov(cr4, eax)?;
    a.mov(al, 0xff)?;
    a.out(0x21, al)?;
    a.out(0xa1, al)?;
    let mut far = vec![0xea];
    far.extend((START as u32).to_le_bytes());
    far.extend([0x08, 0]);
    a.db(&far)
}

fn handler(a: &mut CodeAssembler) -> Asm {
    a.pushad()?;
    a.push(ds)?;
    a.push(es)?;
    a.push(fs)?;
    a.push(gs)?;
    a.mov(eax, 0x10)?;
    a.mov(ds, eax)?;
    a.mov(es, eax)?;
    a.mov(word(0), esp)?;
    a.xor(eax, eax)?;
    a.mov(dr7, eax)?; // what follows reads what cases watch
    for index in 0..PUSHED {
        a.mov(eax, dword_ptr(esp + index as i32 * 4))?;
        if index < 4 || index == 15 || index >= 18 {
            a.movzx(eax, ax)?; // a push of a selector leaves the upper half to the CPU
        }
        a.mov(word(1 + index), eax)?;
    }
    a.mov(eax, cr2)?;
    a.mov(word(1 + PUSHED), eax)?;
    a.mov(eax, dr6)?;
    a.mov(word(2 + PUSHED), eax)?;
    a.mov(eax, cr0)?;
    a.mov(word(3 + PUSHED), eax)?;
    a.str(eax)?;
    a.movzx(eax, ax)?;
    a.mov(word(4 + PUSHED), eax)?;
    a.mov(eax, dword_ptr(Protected::TEST_ENTRY))?;
    a.add(eax, dword_ptr(Protected::TEST_ENTRY_PAE))?;
    a.mov(word(5 + PUSHED), eax)?;
    a.mov(esi, TSS as u32)?;
    a.mov(edi, RECORD as u32 + 4 * (6 + PUSHED as u32))?;
    a.mov(ecx, TSS_WORDS as u32)?;
    a.cld()?;
    a.rep().movsd()?;
    for (index, at) in [GDT + 0x68 + 4, TSS2, GDT + 0x70 + 4].iter().enumerate() {
        a.mov(eax, dword_ptr(*at as u32))?;
        a.mov(word(6 + PUSHED + TSS_WORDS + index), eax)?;
    }
    a.xor(edx, edx)?;
    for (at, size) in WRITTEN {
        a.mov(esi, at as u32)?;
        a.mov(ecx, size as u32 / 4)?;
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.rol(edx, 1)?;
        a.add(edx, dword_ptr(esi))?;
        a.add(esi, 4)?;
        a.dec(ecx)?;
        a.jnz(again)?;
    }
    a.mov(word(NAMES.len() - 1), edx)?;
    a.mov(esi, RECORD as u32)?;
    a.mov(ecx, NAMES.len() as u32 * 4)?;
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

/// Memory that cases write to is as at first.
fn restore_memory(a: &mut CodeAssembler) -> Asm {
    a.cld()?;
    let (data, size) = WRITTEN[2];
    let returns = 0xc3c3_c3c3u32;
    for (at, size, value) in [
        (0, 0x9000, 0u32),
        (WRITTEN[1].0, WRITTEN[1].1, 0),
        (data, 0x1000, 0),
        (image::DATA, 0x1000, returns),
        (data + 0x2000, size - 0x2000, 0),
    ] {
        a.mov(eax, value)?;
        a.mov(edi, at as u32)?;
        a.mov(ecx, size as u32 / 4)?;
        a.rep().stosd()?;
    }
    a.mov(word_ptr(Protected::REPORTS), i32::from(u16::from_le_bytes([0xcd, REPORT as u8])))
}

/// Begins the next case in the known state.
fn next(a: &mut CodeAssembler) -> Asm {
    a.mov(eax, 0x10)?;
    a.mov(ss, eax)?;
    a.mov(esp, STACK as u32)?;
    a.push(2)?;
    a.popfd()?; // no nested task
    a.mov(eax, CR0)?;
    a.mov(cr0, eax)?;
    a.mov(eax, CR4)?;
    a.mov(cr4, eax)?;
    a.xor(eax, eax)?;
    a.mov(cr3, eax)?;
    a.mov(dr7, eax)?;
    a.mov(cr2, eax)?;
    a.mov(dword_ptr(Protected::TEST_ENTRY), eax)?;
    a.mov(dword_ptr(Protected::TEST_ENTRY_PAE), eax)?;
    a.mov(dword_ptr(Protected::TEST_ENTRY_PAE + 4), eax)?;
    a.mov(dword_ptr(TSS2 as u32), eax)?;
    a.lldt(ax)?;
    a.mov(eax, 0xffff_0ff0u32)?;
    a.mov(dr6, eax)?;
    a.lgdt(ptr(GDTR as u32))?;
    a.lidt(ptr(IDTR as u32))?;
    a.fninit()?;
    a.mov(eax, 0x10)?;
    for segment in [ds, es, fs, gs] {
        a.mov(segment, eax)?;
    }
    // No task is busy but the first.
    for (selector, kind) in
        [(0x68, 0x89), (0x70, 0xe9), (0x78, 0x89), (0x80, 0xe1), (0xb8, 0xe9), (0x100, 0x89)]
    {
        a.mov(byte_ptr(GDT as u32 + selector + 5), kind)?;
    }
    restore_memory(a)?;
    // The saved registers of the first are forgotten.
    a.mov(edi, TSS as u32 + 32)?;
    a.mov(ecx, 16)?;
    a.xor(eax, eax)?;
    a.cld()?;
    a.rep().stosd()?;
    a.mov(dword_ptr(TSS as u32), eax)?;
    a.mov(eax, 0x68)?;
    a.ltr(ax)?;
    a.add(dword_ptr(CURRENT as u32), CASE_SIZE as i32)?;
    a.push(2)?;
    a.push(0x08)?;
    a.push(dword_ptr(CURRENT as u32))?;
    for (index, register) in [eax, ebx, ecx, edx, esi, edi, ebp].iter().enumerate() {
        a.mov(*register, 0x1111_1111 * index as u32)?;
    }
    a.iretd()
}
