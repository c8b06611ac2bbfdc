//! An environment of plain memory: for tests and benchmarks of whatever runs on a [`Cpu`].

use std::cell::{Cell, RefCell};

use x86_state::bits::{Cr0, Cr4, Efer, Rflags};
use x86_state::{CpuFeatures, SegReg};

use crate::{Backing, Cpu, Env, HostAddr};

const PAGE: usize = 4096;

/// RAM from address 0, and a record of everything else.
///
/// Reads of ports and of what is not RAM take their bytes from [`PlainEnv::input`], or are all
/// ones.
pub struct PlainEnv {
    ram: Vec<Cell<u8>>,
    /// A page that holds code is `Some`, with its generation.
    code: Vec<Cell<(bool, u32)>>,
    /// Port writes, in order.
    pub port_writes: Vec<(u16, Vec<u8>)>,
    /// Writes to what is not RAM, in order.
    pub mmio_writes: Vec<(u64, Vec<u8>)>,
    /// What ports and MMIO will give.
    pub input: RefCell<Vec<u8>>,
    /// What [`Env::attention`] says.
    pub attention: Cell<bool>,
    /// What [`Env::event_waiting`] says.
    pub event_waiting: bool,
    /// CR8.
    pub cr8: u8,
    /// Added to the count of instructions: the TSC.
    pub tsc_offset: u64,
    /// CPUID's answer to (leaf, subleaf), taken from here and else zero.
    pub cpuid: Vec<((u32, u32), [u32; 4])>,
    /// What [`Env::features`] says.
    pub features: CpuFeatures,
    /// Calls of [`Env::stop_others`] (true) and [`Env::let_others_go`].
    pub stopped: Vec<bool>,
    /// Written APIC MSRs.
    pub apic_msrs: Vec<(u32, u64)>,
}

impl PlainEnv {
    /// With this many bytes of RAM, whole pages.
    ///
    /// # Panics
    /// When they are not whole pages.
    pub fn new(size_bytes: usize) -> Self {
        assert!(size_bytes.is_multiple_of(PAGE));
        Self {
            ram: vec![Cell::new(0); size_bytes],
            code: vec![Cell::new((false, 0)); size_bytes / PAGE],
            port_writes: Vec::new(),
            mmio_writes: Vec::new(),
            input: RefCell::default(),
            attention: Cell::new(false),
            event_waiting: false,
            cr8: 0,
            tsc_offset: 0,
            cpuid: Vec::new(),
            features: CpuFeatures::all(),
            stopped: Vec::new(),
            apic_msrs: Vec::new(),
        }
    }

    /// Writes to RAM, marking what was code.
    pub fn put(&self, gpa: u64, bytes: &[u8]) {
        for (at, byte) in (gpa..).zip(bytes) {
            self.store8(HostAddr(at), *byte);
            self.mark_written(HostAddr(at), 1);
        }
    }

    /// Reads RAM.
    pub fn get(&self, gpa: u64, size: usize) -> Vec<u8> {
        self.ram[gpa as usize..][..size].iter().map(Cell::get).collect()
    }

    fn load<const N: usize>(&self, at: HostAddr) -> [u8; N] {
        let cells = &self.ram[at.0 as usize..][..N];
        std::array::from_fn(|i| cells[i].get())
    }

    fn store<const N: usize>(&self, at: HostAddr, bytes: [u8; N]) {
        let cells = &self.ram[at.0 as usize..][..N];
        for (cell, byte) in cells.iter().zip(bytes) {
            cell.set(byte);
        }
    }

    fn give(&self, data: &mut [u8]) {
        let mut input = self.input.borrow_mut();
        for byte in data {
            *byte = if input.is_empty() { 0xff } else { input.remove(0) };
        }
    }
}

macro_rules! words {
    ($($type:ty, $load:ident, $store:ident, $cmpxchg:ident;)*) => {
        $(
            #[inline(always)]
            fn $load(&self, at: HostAddr) -> $type {
                <$type>::from_le_bytes(self.load(at))
            }
            #[inline(always)]
            fn $store(&self, at: HostAddr, value: $type) {
                self.store(at, value.to_le_bytes());
            }
            fn $cmpxchg(&self, at: HostAddr, old: $type, new: $type) -> $type {
                let found = self.$load(at);
                if found == old {
                    self.$store(at, new);
                }
                found
            }
        )*
    };
}

impl Env for PlainEnv {
    words! {
        u8, load8, store8, cmpxchg8;
        u16, load16, store16, cmpxchg16;
        u32, load32, store32, cmpxchg32;
        u64, load64, store64, cmpxchg64;
    }

    #[inline(always)]
    fn backing(&self, gpa: u64) -> Backing {
        if gpa < self.ram.len() as u64 { Backing::Ram(HostAddr(gpa)) } else { Backing::Bus }
    }

    fn cmpxchg128(&self, at: HostAddr, old: u128, new: u128) -> u128 {
        let found = u128::from_le_bytes(self.load(at));
        if found == old {
            self.store(at, new.to_le_bytes());
        }
        found
    }

    fn read(&self, at: HostAddr, data: &mut [u8]) {
        let cells = &self.ram[at.0 as usize..][..data.len()];
        for (byte, cell) in data.iter_mut().zip(cells) {
            *byte = cell.get();
        }
    }

    fn write(&self, at: HostAddr, data: &[u8]) -> bool {
        let cells = &self.ram[at.0 as usize..][..data.len()];
        for (cell, byte) in cells.iter().zip(data) {
            cell.set(*byte);
        }
        self.mark_written(at, data.len())
    }

    #[inline(always)]
    fn watched(&self, at: HostAddr) -> bool {
        self.code[at.0 as usize / PAGE].get().0
    }

    fn mark_written(&self, at: HostAddr, size: usize) -> bool {
        if size == 0 || !self.watched(at) {
            return false;
        }
        let page = &self.code[at.0 as usize / PAGE];
        page.set((true, page.get().1.wrapping_add(1)));
        true
    }

    fn mark_code(&self, at: HostAddr, _size: usize) {
        let page = &self.code[at.0 as usize / PAGE];
        page.set((true, page.get().1));
    }

    #[inline(always)]
    fn code_generation(&self, at: HostAddr) -> u32 {
        self.code[at.0 as usize / PAGE].get().1
    }

    fn stop_others(&mut self) {
        self.stopped.push(true);
    }

    fn let_others_go(&mut self) {
        self.stopped.push(false);
    }

    fn mmio_read(&mut self, _gpa: u64, data: &mut [u8]) {
        self.give(data);
    }

    fn mmio_write(&mut self, gpa: u64, data: &[u8]) {
        self.mmio_writes.push((gpa, data.to_vec()));
    }

    fn pio_read(&mut self, _port: u16, data: &mut [u8]) {
        self.give(data);
    }

    fn pio_write(&mut self, port: u16, data: &[u8]) {
        self.port_writes.push((port, data.to_vec()));
    }

    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let row = self.cpuid.iter().find(|row| row.0 == (leaf, subleaf));
        row.map_or([0; 4], |row| row.1)
    }

    fn features(&self) -> CpuFeatures {
        self.features
    }

    fn allows_msr(&self, _number: u32) -> bool {
        true
    }

    fn cr4_mask(&self) -> u64 {
        Cr4::all().bits()
    }

    fn efer_mask(&self) -> u64 {
        Efer::all().bits()
    }

    fn xcr0_mask(&self) -> u64 {
        x86_state::XSAVE_X87 | x86_state::XSAVE_SSE
    }

    fn physical_bits(&self) -> u8 {
        40
    }

    fn arch_capabilities(&self) -> u64 {
        0
    }

    fn random(&mut self, _retired: u64) -> Option<u64> {
        Some(0x0123_4567_89ab_cdef)
    }

    fn tsc(&mut self, retired: u64) -> u64 {
        self.tsc_offset.wrapping_add(retired)
    }

    fn set_tsc(&mut self, value: u64, retired: u64) {
        self.tsc_offset = value.wrapping_sub(retired);
    }

    fn apic_read_msr(&mut self, number: u32) -> Option<u64> {
        self.apic_msrs.iter().rfind(|row| row.0 == number).map(|row| row.1)
    }

    fn apic_write_msr(&mut self, number: u32, value: u64) -> Option<()> {
        self.apic_msrs.push((number, value));
        Some(())
    }

    fn cr8(&self) -> u8 {
        self.cr8
    }

    fn set_cr8(&mut self, value: u8) {
        self.cr8 = value;
    }

    #[inline(always)]
    fn attention(&self) -> bool {
        self.attention.get()
    }

    fn event_waiting(&self) -> bool {
        self.event_waiting
    }
}

/// Page tables of [`Cpu::flat64`], three pages from here.
const TABLES: u64 = 0x1000;

impl Cpu<PlainEnv> {
    /// Real mode at 0:`rip`, 1 MiB of RAM and a bit.
    pub fn real16(rip: u64, code: &[u8]) -> Self {
        let mut cpu = Self::new(PlainEnv::new(0x11_0000));
        cpu.env.put(rip, code);
        cpu.rip = rip;
        cpu.update_mode();
        cpu
    }

    /// Flat 32-bit protected mode at ring 0 without paging, 16 MiB of RAM, `code` at `rip`.
    pub fn flat32(rip: u64, code: &[u8]) -> Self {
        let mut cpu = Self::new(PlainEnv::new(16 << 20));
        cpu.env.put(rip, code);
        cpu.rip = rip;
        cpu.cr0 |= Cr0::PE.bits();
        cpu.flat_segments(0xc093, 0xc09b);
        cpu
    }

    /// Long mode at this ring: 16 MiB of RAM at its own addresses, all of it open to user code,
    /// SSE on. Page tables are at 0x1000, the stack ends at 0x80_0000, `code` is at `rip`.
    pub fn flat64(ring: u8, rip: u64, code: &[u8]) -> Self {
        let mut cpu = Self::new(PlainEnv::new(16 << 20));
        cpu.env.put(TABLES, &(TABLES + 0x1007).to_le_bytes());
        cpu.env.put(TABLES + 0x1000, &(TABLES + 0x2007).to_le_bytes());
        for i in 0..8 {
            cpu.env.put(TABLES + 0x2000 + i * 8, &((i << 21) | 0x87).to_le_bytes());
        }
        cpu.env.put(rip, code);
        cpu.rip = rip;
        cpu.gpr[4] = 0x80_0000;
        cpu.cr3 = TABLES;
        cpu.cr4 = (Cr4::PAE | Cr4::OSFXSR | Cr4::OSXMMEXCPT).bits();
        cpu.cr0 = (Cr0::PE | Cr0::PG | Cr0::ET | Cr0::NE | Cr0::WP | Cr0::MP).bits();
        cpu.efer = (Efer::LME | Efer::LMA | Efer::SCE | Efer::NXE).bits();
        let dpl = u16::from(ring & 3) << 5;
        cpu.flat_segments(0xc093 | dpl, 0xa09b | dpl);
        cpu
    }

    fn flat_segments(&mut self, data: u16, code: u16) {
        for (i, segment) in self.segments.iter_mut().enumerate() {
            let is_code = i == SegReg::Cs as usize;
            segment.base = 0;
            segment.limit = u32::MAX;
            segment.attr = if is_code { code } else { data };
            segment.selector = if is_code { 0x8 } else { 0x10 } | (data >> 5 & 3);
        }
        self.system_flags = Rflags::FIXED.bits();
        self.update_mode();
        self.update_paging();
    }
}
