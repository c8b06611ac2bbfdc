//! Memory, a clock, a bus, and the CPUs of the engine under test.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::{Bus, CpuComplex, Exit, Parts, Vcpu};
use guest_memory::{Backing, FlatRange, FlatView, GuestMemory, PAGE_SIZE, RamOffset};
use machine_clock::{MachineClock, TimeSource};
use x86_state::{
    Activity, CpuFeatures, CpuProfile, DescriptorTable, Gpr, SegReg, Segment, Topology, VcpuId,
    VcpuState,
    bits::{Cr0, Cr4, Efer, Rflags},
};

use crate::{FakeBus, Subject};

const RAM_SIZE: u64 = 4 << 20;
const GDT: u64 = 0x4000;
const IDT: u64 = 0x5000;
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;

/// A machine with guests in 64-bit mode at ring 0, their addresses mapped one to one.
pub struct Machine {
    /// 4 MiB of RAM from zero.
    pub memory: Arc<GuestMemory>,
    /// Runs.
    pub clock: Arc<MachineClock>,
    /// Where the guest's accesses go.
    pub bus: Arc<FakeBus>,
    /// The engine's.
    pub complex: Arc<dyn CpuComplex>,
    /// The engine's, by ID.
    pub vcpus: Vec<Box<dyn Vcpu>>,
    /// What they are.
    pub profile: CpuProfile,
}

impl Machine {
    /// Where guest code of vCPU `id` is.
    pub const fn code_at(id: usize) -> u64 {
        0x1_0000 + 0x1000 * id as u64
    }

    /// Where the handler of guests that have one begins, from the code's start.
    pub const HANDLER: u64 = 0x80;
    /// Page directories, one a GiB, of 2 MiB pages.
    pub const DIRECTORIES: [u64; 4] = [0x8000, 0x9000, 0xa000, 0xb000];
    /// A place for the guest's data.
    pub const DATA: u64 = 0x10_0000;

    /// A machine with so many CPUs.
    pub fn new(subject: &Subject, cores: u32) -> Self {
        Self::without(subject, cores, CpuFeatures::PCID)
    }

    /// The same without features.
    pub fn without(subject: &Subject, cores: u32, features: CpuFeatures) -> Self {
        let profile = CpuProfile::portable(Topology { cores }, subject.tsc_khz).unwrap();
        let profile = profile.without(features);
        let memory = GuestMemory::new(&[("ram", RAM_SIZE)]).unwrap();
        let clock = MachineClock::new(TimeSource::Host);
        let parts = Parts { clock: clock.clone(), memory: memory.clone() };
        let built = subject.engine.build(&profile, &parts).unwrap();
        let bus = FakeBus::new();
        bus.connect(&built.complex);
        let machine =
            Self { memory, clock, bus, complex: built.complex, vcpus: built.vcpus, profile };
        machine.set_view(&[(0, RAM_SIZE, 0, Backing::Ram)]);
        machine.write_tables();
        machine.clock.start();
        machine
    }

    /// The guest-physical ranges: address, size, offset, backing.
    pub fn set_view(&self, ranges: &[(u64, u64, u64, Backing)]) {
        let view = || {
            let mut view = FlatView::new();
            for &(gpa, size, at, backing) in ranges {
                view.insert(FlatRange { gpa, size, at: RamOffset(at), backing }).unwrap();
            }
            view
        };
        self.memory.set_view(view());
        self.complex.set_memory(&view()).unwrap();
    }

    fn write_tables(&self) {
        let table = 3; // present, writable
        self.write(PML4, PDPT | table);
        for (gib, directory) in (0u64..).zip(Self::DIRECTORIES) {
            self.write(PDPT + gib * 8, directory | table);
            for i in 0..512 {
                self.write(directory + i * 8, (gib << 30 | i << 21) | 0x80 | table);
            }
        }
        for (i, descriptor) in
            [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffffu64].iter().enumerate()
        {
            self.write(GDT + i as u64 * 8, *descriptor);
        }
    }

    /// Writes eight bytes of RAM.
    pub fn write(&self, at: u64, value: u64) {
        self.memory.store(RamOffset(at), value);
        self.memory.bits().mark_written(RamOffset(at), 8);
    }

    /// Reads eight bytes of RAM.
    pub fn read(&self, at: u64) -> u64 {
        self.memory.load(RamOffset(at))
    }

    /// Puts code where vCPU `id` runs, and all interrupts at its handler.
    pub fn place(&self, id: usize, code: &[u8]) {
        assert!(code.len() as u64 <= PAGE_SIZE);
        for (i, chunk) in (0u64..).zip(code.chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            self.write(Self::code_at(id) + i * 8, u64::from_le_bytes(bytes));
        }
        let handler = Self::code_at(id) + Self::HANDLER;
        for vector in 0..256 {
            let gate = handler & 0xffff | 8 << 16 | 0x8e << 40 | (handler >> 16) << 48;
            self.write(IDT + vector * 16, gate);
        }
    }

    /// The state in which a guest in 64-bit mode begins its code.
    pub fn long_mode(&self, id: usize) -> VcpuState {
        let mut state = VcpuState::at_reset(&self.profile, VcpuId(id as u32));
        let data = Segment { base: 0, limit: u32::MAX, selector: 0x10, attr: 0xc093 };
        state.segments = [data; 6];
        state.segments[SegReg::Cs as usize] = Segment { selector: 8, attr: 0xa09b, ..data };
        state.ldtr = Segment::unusable(0, 0);
        state.gdtr = DescriptorTable { base: GDT, limit: 0x17 };
        state.idtr = DescriptorTable { base: IDT, limit: 0xfff };
        state.cr0 = (Cr0::PG | Cr0::WP | Cr0::NE | Cr0::ET | Cr0::MP | Cr0::PE).bits();
        state.cr3 = PML4;
        state.cr4 = (Cr4::PAE | Cr4::OSFXSR | Cr4::OSXMMEXCPT).bits();
        state.efer = (Efer::LME | Efer::LMA | Efer::NXE).bits();
        state.regs.rip = Self::code_at(id);
        state.regs.gpr[Gpr::Rsp as usize] = 0x8_0000 + 0x1000 * id as u64;
        state.regs.gpr[Gpr::Rbx as usize] = crate::fake_bus::at::MMIO;
        state.apic.regs[0x0f] = 0x1ff; // the local APIC is on
        state.activity = Activity::Running;
        state
    }

    /// A machine of one CPU about to run this code, after `change`.
    pub fn about_to_run(
        subject: &Subject,
        code: &[u8],
        change: impl FnOnce(&mut VcpuState),
    ) -> Self {
        let mut machine = Self::new(subject, 1);
        machine.place(0, code);
        let mut state = machine.long_mode(0);
        change(&mut state);
        machine.vcpus[0].load(&state).unwrap();
        machine
    }

    /// The bus, as engines take it.
    pub fn as_bus(&self) -> Arc<dyn Bus> {
        self.bus.clone()
    }

    /// Runs the first vCPU until something is up.
    pub fn run(&mut self) -> Exit {
        let bus = self.as_bus();
        self.vcpus[0].run(&bus).unwrap()
    }

    /// Runs the first vCPU until its guest is done.
    pub fn run_until_done(&mut self) {
        while self.bus.take_done() == 0 {
            assert_eq!(self.run(), Exit::Kicked);
        }
    }

    /// Runs every vCPU on a thread of its own until as many guests are done.
    pub fn run_all_until_done(&mut self) {
        let bus = self.as_bus();
        let vcpus = std::mem::take(&mut self.vcpus);
        let count = vcpus.len() as u32;
        let over = AtomicBool::new(false);
        self.vcpus = std::thread::scope(|scope| {
            let run = |mut vcpu: Box<dyn Vcpu>| {
                let (bus, over) = (&bus, &over);
                scope.spawn(move || {
                    while !over.load(Ordering::SeqCst) {
                        assert_eq!(vcpu.run(bus).unwrap(), Exit::Kicked);
                    }
                    vcpu
                })
            };
            let threads: Vec<_> = vcpus.into_iter().map(run).collect();
            let mut done = 0;
            while done < count && !threads.iter().any(|thread| thread.is_finished()) {
                std::thread::sleep(Duration::from_millis(1));
                done += self.bus.take_done();
            }
            over.store(true, Ordering::SeqCst);
            (0..count).for_each(|id| self.complex.kick(VcpuId(id)));
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
    }

    /// Lets ring 3 have all memory.
    pub fn open_to_users(&self) {
        let user = 4;
        let tables = [(PML4, 1), (PDPT, 4)].into_iter();
        for (table, count) in tables.chain(Self::DIRECTORIES.map(|directory| (directory, 512))) {
            for at in (table..).step_by(8).take(count) {
                self.write(at, self.read(at) | user);
            }
        }
    }

    /// As [`Machine::long_mode`] in ring 3, which may use ports.
    pub fn user_mode(&self, id: usize) -> VcpuState {
        let mut state = self.long_mode(id);
        for segment in &mut state.segments {
            segment.selector |= 3;
            segment.attr |= 0x60;
        }
        state.regs.rflags |= Rflags::IOPL.bits();
        state
    }

    /// Runs the first vCPU on a thread of its own; kicks it when `meanwhile` is over.
    pub fn run_while(&mut self, meanwhile: impl FnOnce(&Self)) {
        let mut vcpu = self.vcpus.remove(0);
        let bus = self.as_bus();
        let ran = std::thread::scope(|scope| {
            let runner = scope.spawn(move || {
                let exit = vcpu.run(&bus).unwrap();
                (vcpu, exit)
            });
            meanwhile(self);
            self.complex.kick(VcpuId(0));
            runner.join()
        });
        let (vcpu, exit) = ran.unwrap();
        assert_eq!(exit, Exit::Kicked);
        self.vcpus.insert(0, vcpu);
    }
}
