//! What guests of both kinds have in common: where things are, and the Multiboot image.

use iced_x86::code_asm::CodeAssembler;

use crate::Asm;

/// The interrupt by which a case says that it is done. Any ring may use it.
pub const REPORT: i32 = 0x80;

/// Where the image is loaded (Multiboot 0.6.96, with the address fields of 3.1.1).
pub(crate) const LOAD_AT: u64 = 0x10_0000;
const HEADER_SIZE: u64 = 32;
pub(crate) const GDT: u64 = 0x10_1000;
pub(crate) const IDT: u64 = 0x10_2000;
pub(crate) const TSS: u64 = 0x10_3000;
/// Eight pages for page tables.
pub(crate) const TABLES: u64 = 0x10_4000;
/// What is sent.
pub(crate) const RECORD: u64 = 0x10_c000;
/// Address of the case that runs.
pub(crate) const CURRENT: u64 = 0x10_c800;
/// A far pointer to GDT and IDT, for LGDT and LIDT.
pub(crate) const GDTR: u64 = 0x10_c810;
pub(crate) const IDTR: u64 = 0x10_c820;
/// A second TSS.
pub(crate) const TSS2: u64 = 0x10_d000;
/// 256 stubs of 16 bytes.
pub(crate) const STUBS: u64 = 0x10_e000;
const STUB_SIZE: u64 = 16;
pub(crate) const HANDLER: u64 = 0x11_0000;
pub(crate) const NEXT: u64 = HANDLER + 0x800;
pub(crate) const START: u64 = 0x11_1000;
/// Tops of stacks, 16 KiB each.
pub(crate) const STACK: u64 = 0x12_4000;
pub(crate) const STACK_RING0: u64 = 0x12_8000;
pub(crate) const STACK_IST: u64 = 0x12_c000;
pub(crate) const STACK_USER: u64 = 0x13_4000;
/// A page of data, read, written and executed by cases.
pub(crate) const DATA: u64 = 0x13_8000;
pub(crate) const CASES: u64 = 0x14_0000;
pub(crate) const CASE_SIZE: u64 = 512;
/// Where in a case its second part is.
const SECOND: u64 = 256;
pub(crate) const IMAGE_END: u64 = 0x20_0000;

/// Where a case's code is.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its beginning.
    pub at: u64,
    /// Its second part, which the first has to go to.
    pub second: u64,
}

/// A second part: the width of its code, and how it is made.
type Second<'a> = (u32, &'a dyn Fn(&mut CodeAssembler) -> Asm);

/// An image that is being made.
pub(crate) struct Image {
    bytes: Vec<u8>,
    names: Vec<String>,
    bits: u32,
}

impl Image {
    pub(crate) fn new(bits: u32) -> Self {
        Self { bytes: vec![0; (CASES - LOAD_AT) as usize], names: Vec::new(), bits }
    }

    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) {
        let from = (at - LOAD_AT) as usize;
        self.bytes[from..from + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn put64(&mut self, at: u64, value: u64) {
        self.put(at, &value.to_le_bytes());
    }

    pub(crate) fn code(
        &mut self,
        bits: u32,
        at: u64,
        room: u64,
        make: impl FnOnce(&mut CodeAssembler) -> Asm,
    ) {
        self.code_for(bits, at, at, room, make);
    }

    /// Code that is run at another offset than where it is put.
    pub(crate) fn code_for(
        &mut self,
        bits: u32,
        at: u64,
        offset: u64,
        room: u64,
        make: impl FnOnce(&mut CodeAssembler) -> Asm,
    ) {
        let mut asm = CodeAssembler::new(bits).expect("a width there is");
        let code = make(&mut asm).and_then(|()| asm.assemble(offset));
        let code = code.unwrap_or_else(|e| panic!("{:?}: {e}", self.names.last()));
        assert!(code.len() as u64 <= room, "{:?}: {} bytes", self.names.last(), code.len());
        self.put(at, &code);
    }

    /// Stubs that push the vector, above an error code or a zero.
    pub(crate) fn stubs(&mut self) {
        for vector in 0..256u64 {
            let has_code = matches!(vector, 8 | 10..=14 | 17 | 21);
            self.code(self.bits, stub(vector), STUB_SIZE, |a| {
                if !has_code {
                    a.push(0)?;
                }
                a.push(vector as i32)?;
                a.jmp(HANDLER)
            });
        }
    }

    /// Adds a case. Its second part is of code of so many bits.
    pub(crate) fn case(
        &mut self,
        name: String,
        first: impl FnOnce(&mut CodeAssembler, Case) -> Asm,
        second: Option<Second<'_>>,
    ) {
        let at = LOAD_AT + self.bytes.len() as u64;
        assert!(at + 2 * CASE_SIZE < IMAGE_END, "too many cases");
        let case = Case { at, second: at + SECOND };
        self.names.push(name);
        self.bytes.resize(self.bytes.len() + CASE_SIZE as usize, 0x90);
        let room = if second.is_some() { SECOND } else { CASE_SIZE };
        self.code(self.bits, at, room, |a| {
            first(a, case)?;
            if second.is_none() { a.int(REPORT) } else { Ok(()) }
        });
        if let Some((bits, second)) = second {
            // 16-bit code is run from elsewhere, or by offsets: its jumps are near.
            let offset = if bits == 16 { 0 } else { case.second };
            self.code_for(bits, case.second, offset, SECOND, |a| {
                second(a)?;
                a.int(REPORT)
            });
        }
    }

    /// Ends the run after the last case: the image, and the cases' names.
    pub(crate) fn finish(mut self) -> (Vec<u8>, Vec<String>) {
        // mov eax, 0; mov dx, 0xf4; out dx, eax; hlt; jmp
        let end = [0xb8, 0, 0, 0, 0, 0x66, 0xba, 0xf4, 0, 0xef, 0xf4, 0xeb, 0xfd];
        self.bytes.extend(end);
        let (magic, flags) = (0x1bad_b002u32, 1 << 16);
        let end = LOAD_AT as u32 + self.bytes.len() as u32;
        let entry = (LOAD_AT + HEADER_SIZE) as u32;
        let check = 0u32.wrapping_sub(magic).wrapping_sub(flags);
        let header = [magic, flags, check, LOAD_AT as u32, LOAD_AT as u32, end, end, entry];
        let header: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.put(LOAD_AT, &header);
        (self.bytes, self.names)
    }

    pub(crate) fn entry() -> u64 {
        LOAD_AT + HEADER_SIZE
    }

    pub(crate) fn first_case() -> u64 {
        CASES
    }
}

/// The stub of a vector.
pub(crate) fn stub(vector: u64) -> u64 {
    STUBS + vector * STUB_SIZE
}

/// A segment descriptor: `attr` is its bits 40 to 55.
pub(crate) fn descriptor(base: u64, limit: u64, attr: u64) -> u64 {
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | (attr & 0xff) << 40
        | (limit >> 16 & 0xf) << 48
        | (attr >> 12 & 0xf) << 52
        | (base >> 24 & 0xff) << 56
}

/// A gate: `kind` with P and DPL.
pub(crate) fn gate(selector: u64, offset: u64, kind: u64, low: u64) -> u64 {
    offset & 0xffff | selector << 16 | low << 32 | kind << 40 | (offset >> 16 & 0xffff) << 48
}
