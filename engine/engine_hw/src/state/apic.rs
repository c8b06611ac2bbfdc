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

/// From the kernel's register page, whose current-count register holds the phase. `parked` is
/// what [`page_to`] kept back.
pub(crate) fn page_from(
    page: &kvm_lapic_state,
    base: u64,
    tsc_deadline: u64,
    parked: Option<u32>,
) -> ApicState {
    let mut regs = std::array::from_fn(|i| {
        u32::from_le_bytes(std::array::from_fn(|b| page.regs[i * 16 + b] as u8))
    });
    let current = std::mem::take(&mut regs[CURRENT_COUNT]);
    let deadline = mode(&regs) == Mode::Deadline;
    // A one-shot timer at zero has fired, or is about to: the kernel does not tell. It counts as
    // due, since guests bear a spurious timer interrupt, but not a lost one.
    let remaining_ns =
        (!deadline && regs[INITIAL_COUNT] != 0).then(|| u64::from(current) * count_ns(&regs));
    if regs[INITIAL_COUNT] == 0 {
        regs[INITIAL_COUNT] = parked.unwrap_or(0);
    }
    // With the IOAPIC in user space the kernel adds EOI-broadcast suppression; no other engine
    // has it, and a guest that uses it all the same only gets broadcasts it did not ask for.
    regs[VERSION] = APIC_VERSION;
    regs[PROCESSOR_PRIORITY] = processor_priority(&regs);
    let tsc_deadline = if deadline { tsc_deadline } else { 0 };
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
                // To the kernel zero means a full period; a one-shot timer fires at once.
                let least = u32::from(mode(&regs) == Mode::Periodic);
                regs[CURRENT_COUNT] = (count as u32).max(least);
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
