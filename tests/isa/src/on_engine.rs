//! Ring 3 of a VM on an engine.
//!
//! The VM has a page of code and a page of data for ring 3, and an IDT whose every handler reports
//! on the bus and stops. Nothing of it is changed between cases but memory and registers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use engine::{DebugStops, Exit};
use harness::{Machine, at};
use x86_state::{DescriptorTable, SegReg, Segment, VcpuId};

use crate::{
    CODE, Case, DATA, DATA_SIZE, End, FLAGS, GS_BASE, MIDDLE, Outcome, PAGE, State, Subject,
};

const PML4: u64 = 0x2_0000;
const PDPT: u64 = 0x2_1000;
const PD: u64 = 0x2_2000;
const PT_LOW: u64 = 0x2_3000;
const PT_DATA: u64 = 0x2_4000;
const GDT: u64 = 0x2_5000;
const IDT: u64 = 0x2_6000;
const TSS: u64 = 0x2_7000;
/// 256 handlers of 16 bytes.
const HANDLERS: u64 = 0x2_8000;
const HANDLER_SIZE: u64 = 16;
const STACK: u64 = 0x2_a000;
/// Where data's second page is in memory: not behind the first.
const SECOND: u64 = DATA + 0x5000;
const PAGE_SHIFT: u64 = 12;

/// Linux's selectors, which native code sees too.
const CODE_32: u16 = 0x23;
const DATA_USER: u16 = 0x2b;
const CODE_64: u16 = 0x33;
const TASK: u16 = 0x40;
const CODE_RING0: u64 = 0x10;
/// Present, writable, user, accessed, dirty.
const USER_PAGE: u64 = 0x67;
const WRITABLE: u64 = 2;
const NO_EXECUTE: u64 = 1 << 63;
/// Present, writable, accessed, dirty.
const OWN_PAGE: u64 = 0x63;

/// The longest a case may take.
const TIME_LIMIT: Duration = Duration::from_secs(20);
/// Steps of the longest case: a few hundred instructions, some with many iterations.
const STEPS_MAX: u32 = 1 << 20;

/// An engine as a subject.
pub struct OnEngine {
    name: String,
    machine: Machine,
    stepped: bool,
    _watch: Watch,
}

/// Kicks the vCPU now and then, so that no case runs for ever.
struct Watch {
    thread: Thread,
    over: Arc<AtomicBool>,
}

impl Watch {
    fn new(machine: &Machine) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (complex, seen) = (machine.complex.clone(), over.clone());
        let handle = thread::spawn(move || {
            while !seen.load(Ordering::Acquire) {
                thread::park_timeout(TIME_LIMIT);
                complex.kick(VcpuId(0));
            }
        });
        Self { thread: handle.thread().clone(), over }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl OnEngine {
    /// A VM on this engine. `stepped`: stops after each instruction, as a debugger does.
    pub fn new(subject: &harness::Subject, stepped: bool) -> Self {
        let mut machine = Machine::new(subject, 1);
        write_tables(&machine);
        let stops = DebugStops { step: true, breakpoints: Vec::new() };
        machine.vcpus[0].set_debug(stepped.then_some(&stops)).unwrap();
        let kind = subject.engine.kind();
        let name = if stepped { format!("{kind}, stepped") } else { kind.to_string() };
        let watch = Watch::new(&machine);
        Self { name, machine, stepped, _watch: watch }
    }

    fn load(&mut self, case: &Case) {
        let mut state = self.machine.long_mode(0);
        let data = Segment { base: 0, limit: u32::MAX, selector: DATA_USER, attr: 0xc0f3 };
        state.segments = [data; 6];
        if case.code_bits == 64 {
            state.segments[SegReg::Gs as usize].base = GS_BASE;
        }
        state.segments[SegReg::Cs as usize] = match case.code_bits {
            32 => Segment { selector: CODE_32, attr: 0xc0fb, ..data },
            _ => Segment { selector: CODE_64, attr: 0xa0fb, ..data },
        };
        state.tr = Segment { base: TSS, limit: 0x67, selector: TASK, attr: 0x8b };
        state.gdtr = DescriptorTable { base: GDT, limit: 0x4f };
        state.idtr = DescriptorTable { base: IDT, limit: 0xfff };
        state.cr3 = PML4;
        state.regs.gpr = case.state.gpr;
        state.regs.rip = CODE;
        state.regs.rflags = 0x202 | case.state.flags & FLAGS;
        case.state.put_image(state.xsave.bytes_mut());
        self.machine.vcpus[0].load(&state).unwrap();
    }

    /// Runs until a handler has reported.
    fn finish(&mut self) -> bool {
        let (mut kicks, mut steps) = (0, 0);
        while self.machine.bus.take_done() == 0 {
            match self.machine.run() {
                Exit::Kicked => kicks += 1,
                Exit::Debug(_) if self.stepped => steps += 1,
                other => panic!("{}: {other:?}", self.name),
            }
            // One kick is of the report, one may be of the watch's last round.
            if kicks > 3 || steps > STEPS_MAX {
                return false;
            }
        }
        true
    }

    fn read(&self, at: u64, size: usize) -> Vec<u8> {
        (at..at + size as u64)
            .step_by(8)
            .flat_map(|at| self.machine.read(at).to_le_bytes())
            .collect()
    }
}

impl Subject for OnEngine {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn run(&mut self, case: &Case) -> Outcome {
        let mut code = case.code.clone();
        code.resize(PAGE, 0xcc);
        write(&self.machine, CODE, &code);
        let (first, second) = case.data.split_at(PAGE);
        write(&self.machine, DATA, first);
        write(&self.machine, SECOND, second);
        self.load(case);
        if !self.finish() {
            return Outcome { end: End::Hung, state: State::default(), data: Vec::new() };
        }
        let ended = self.machine.vcpus[0].save().unwrap();
        let vector = ((ended.regs.rip - HANDLERS) / HANDLER_SIZE) as u8;
        let has_error = matches!(vector, 8 | 10..=14 | 17 | 21);
        let mut frame = ended.regs.gpr[4] + if has_error { 8 } else { 0 };
        let mut pop = || {
            frame += 8;
            self.machine.read(frame - 8)
        };
        let (rip, _cs, flags, rsp) = (pop(), pop(), pop(), pop());
        let mut state =
            State { gpr: ended.regs.gpr, flags: flags & FLAGS, rip, ..State::default() };
        state.gpr[4] = rsp;
        state.take_image(ended.xsave.bytes());
        let end = match vector {
            3 => {
                state.rip -= 1;
                End::Done
            }
            vector => End::Raised(vector),
        };
        let data = [self.read(DATA, PAGE), self.read(SECOND, PAGE)].concat();
        debug_assert_eq!(data.len(), DATA_SIZE);
        Outcome { end, state, data }
    }
}

fn write(machine: &Machine, at: u64, bytes: &[u8]) {
    for (at, chunk) in (at..).step_by(8).zip(bytes.chunks_exact(8)) {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        let value = u64::from_le_bytes(word);
        if machine.read(at) != value {
            machine.write(at, value);
        }
    }
}

fn write_tables(machine: &Machine) {
    let page = |address: u64| address >> PAGE_SHIFT & 511;
    machine.write(PML4, PDPT | USER_PAGE);
    machine.write(PDPT, PD | USER_PAGE);
    machine.write(PD, PT_LOW | USER_PAGE);
    machine.write(PD + 8, PT_DATA | USER_PAGE | NO_EXECUTE);
    for own in (PML4..STACK).step_by(PAGE) {
        machine.write(PT_LOW + page(own) * 8, own | OWN_PAGE);
    }
    machine.write(PT_LOW + page(CODE) * 8, CODE | USER_PAGE & !WRITABLE);
    machine.write(PT_DATA + page(DATA) * 8, DATA | USER_PAGE | NO_EXECUTE);
    machine.write(PT_DATA + page(MIDDLE) * 8, SECOND | USER_PAGE | NO_EXECUTE);
    let descriptors = [
        0,
        0,
        0x00af_9b00_0000_ffff, // 10: code of ring 0
        0x00cf_9300_0000_ffff, // 18: data of ring 0
        0x00cf_fb00_0000_ffff, // 23: 32-bit code
        0x00cf_f300_0000_ffff, // 2b: data
        0x00af_fb00_0000_ffff, // 33: code
        0,
        0x0000_8b00_0000_0067 | TSS << 16, // 40: task
        0,
    ];
    for (i, descriptor) in (0..).zip(descriptors) {
        machine.write(GDT + i * 8, descriptor);
    }
    for vector in 0..256 {
        let handler = HANDLERS + vector * HANDLER_SIZE;
        // OUT DONE, AL; HLT; JMP to it
        machine.write(handler, 0x00fd_ebf4_00e6 | u64::from(at::DONE) << 8);
        let kind = if vector == 3 { 0xee } else { 0x8e };
        let gate = handler & 0xffff | CODE_RING0 << 16 | kind << 40 | (handler >> 16) << 48;
        machine.write(IDT + vector * 16, gate);
    }
    machine.write(TSS, STACK << 32); // RSP0 is at 4
    machine.write(TSS + 0x60, 0x68 << 48); // no ports
}
