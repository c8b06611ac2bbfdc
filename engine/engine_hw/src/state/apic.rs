//! The local APIC and its timer.

use kvm_bindings::kvm_lapic_state;
use x86_state::{APIC_BUS_CYCLE_NS, APIC_VERSION, ApicState, ApicTimer};

const VERSION: usize = 0x03;
const TASK_PRIORITY: usize = 0x08;
const PROCESSOR_PRIORITY: usize = 0x0a;
const IN_SERVICE: std::ops::Range<usize> = 0x10..0x18;
const LVT_TIMER: usize = 0x32;
const INITIAL_COUNT: usize = 0x38;
const CURRENT_COUNT: usize = 0x39;
const DIVIDE: usize = 0x3e;

/// Bits 17 and 18 of the timer's LVT entry.
#[derive(PartialEq, Eq)]
enum Mode {
    OneShot,
    Periodic,
    Deadline,
}

fn mode(regs: &[u32; 64]) -> Mode {
    match regs[LVT_TIMER] >> 17 & 3 {
        0 => Mode::OneShot,
        1 => Mode::Periodic,
        _ => Mode::Deadline,
    }
}

/// Nanoseconds of one count (SDM vol. 3A, 11.5.4).
fn count_ns(regs: &[u32; 64]) -> u64 {
    let divide = regs[DIVIDE] & 3 | regs[DIVIDE] >> 1 & 4;
    APIC_BUS_CYCLE_NS << ((divide + 1) & 7)
}

fn registers(page: &kvm_lapic_state) -> [u32; 64] {
    std::array::from_fn(|i| {
        u32::from_le_bytes(std::array::from_fn(|b| page.regs[i * 16 + b] as u8))
    })
}

/// Where a timer that counts stands; `None` for one that does not count.
pub(crate) fn current_count(page: &kvm_lapic_state) -> Option<u32> {
    let regs = registers(page);
    let counts = mode(&regs) != Mode::Deadline && regs[INITIAL_COUNT] != 0;
    counts.then_some(regs[CURRENT_COUNT])
}

/// What user space knows of a timer beyond the kernel's page.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Known {
    /// IA32_TSC_DEADLINE.
    pub(crate) tsc_deadline: u64,
    /// The count when the guest was stopped; the kernel's goes on.
    pub(crate) count: Option<u32>,
    /// What [`page_to`] kept back.
    pub(crate) parked: Option<u32>,
}

/// From the kernel's register page.
pub(crate) fn page_from(page: &kvm_lapic_state, base: u64, known: Known) -> ApicState {
    let mut regs = registers(page);
    regs[CURRENT_COUNT] = 0;
    let deadline = mode(&regs) == Mode::Deadline;
    // A one-shot timer at zero has fired: the vCPU was settled. A periodic one fires now.
    let one_shot = mode(&regs) == Mode::OneShot;
    let running = known.count.filter(|count| !(deadline || one_shot && *count == 0));
    let remaining_ns = running.map(|count| u64::from(count) * count_ns(&regs));
    if regs[INITIAL_COUNT] == 0 {
        regs[INITIAL_COUNT] = known.parked.unwrap_or(0);
    }
    // With the IOAPIC in user space the kernel adds EOI-broadcast suppression; no other engine
    // has it, and a guest that uses it all the same only gets broadcasts it did not ask for.
    regs[VERSION] = APIC_VERSION;
    regs[PROCESSOR_PRIORITY] = processor_priority(&regs);
    let tsc_deadline = if deadline { known.tsc_deadline } else { 0 };
    ApicState { base, regs, timer: ApicTimer { remaining_ns, tsc_deadline } }
}

/// The kernel derives it lazily, so the page may hold an old one (SDM vol. 3A, 11.8.3.1).
fn processor_priority(regs: &[u32; 64]) -> u32 {
    let task = regs[TASK_PRIORITY] & 0xff;
    let in_service = regs[IN_SERVICE].iter().enumerate().rev().find(|(_, word)| **word != 0);
    let vector = in_service.map_or(0, |(i, word)| i as u32 * 32 + word.ilog2());
    if task >> 4 >= vector >> 4 { task } else { vector & 0xf0 }
}

/// To the kernel's page, and an initial count to keep back: the kernel starts any timer that has
/// one, so one that stands must seem never to have been set. The guest would read zero for it.
pub(crate) fn page_to(apic: &ApicState) -> (kvm_lapic_state, Option<u32>) {
    let mut regs = apic.regs;
    let mut parked = None;
    if mode(&regs) != Mode::Deadline {
        match apic.timer.remaining_ns {
            Some(ns) => {
                let count = ns.div_ceil(count_ns(&regs)).min(u64::from(regs[INITIAL_COUNT]));
                // To the kernel zero means a full period, or a timer that has fired.
                regs[CURRENT_COUNT] = (count as u32).max(1);
            }
            None => parked = Some(std::mem::take(&mut regs[INITIAL_COUNT])).filter(|c| *c != 0),
        }
    }
    let mut page = kvm_lapic_state { regs: [0; 1024] };
    for (i, reg) in regs.iter().enumerate() {
        for (b, byte) in reg.to_le_bytes().into_iter().enumerate() {
            page.regs[i * 16 + b] = byte as i8;
        }
    }
    (page, parked)
}
