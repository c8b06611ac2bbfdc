//! 32-bit user code in long mode: what has to be usual for it to be translated.
//!
//! Its segments are flat; where FS or GS is not, instructions that use that are the interpreter's. Translated
//! code cuts RSP to 32 bits with each change, so no stack window it finds goes beyond those.

use x86_exec::{Cpu, Env, Mode as CpuMode};
use x86_state::{SegReg, Segment};

use super::FullVcpu;
use crate::cache::Mode;
use crate::context::{KnownWindow, StackWindow};

/// No window for 32-bit code ends behind it: what RSP is cut to stays where it was. The last page's are
/// looked at one by one.
const WINDOW_END_MAX: u64 = 0xffff_f000;

/// 32-bit user code whose segments are flat, but for FS and GS.
pub(super) fn is_flat<E: Env>(cpu: &Cpu<E>) -> bool {
    let [es, cs, ss, ds] = [SegReg::Es, SegReg::Cs, SegReg::Ss, SegReg::Ds].map(|r| cpu.segment(r));
    cpu.mode == CpuMode::Compat32
        && cpu.cpl == 3
        && [es, cs, ss, ds].iter().all(|segment| segment.base == 0 && is_whole(segment))
        && [es, ss, ds].iter().all(|segment| is_whole_data(segment))
        && ss.has(Segment::DB)
}

/// What of the CPU's state code is translated for.
pub(super) fn mode<E: Env>(cpu: &Cpu<E>) -> Mode {
    if cpu.mode != CpuMode::Compat32 {
        return Mode::empty();
    }
    let mut mode = Mode::COMPAT;
    mode.set(Mode::NO_FS, !is_whole_data(cpu.segment(SegReg::Fs)));
    mode.set(Mode::NO_GS, !is_whole_data(cpu.segment(SegReg::Gs)));
    mode
}

fn is_whole(segment: &Segment) -> bool {
    segment.limit == u32::MAX && !segment.has(Segment::UNUSABLE)
}

/// Writable, and not expand-down.
fn is_whole_data(segment: &Segment) -> bool {
    let kind =
        segment.attr & (Segment::CODE | Segment::DOWN_CONFORMING | Segment::WRITABLE_READABLE);
    is_whole(segment) && kind == Segment::WRITABLE_READABLE
}

impl FullVcpu {
    /// Before the registers are given to translated code.
    pub(super) fn narrow(&mut self) {
        let compat = self.soft.cpu.mode == CpuMode::Compat32;
        self.views.context().long_code = u64::from(!compat);
        if !compat {
            return;
        }
        self.soft.cpu.gpr[4] &= 0xffff_ffff;
        let context = self.views.context();
        if context.stack[0].end > WINDOW_END_MAX {
            context.stack[0] = StackWindow::EMPTY;
        }
        for known in &mut context.known_windows[0] {
            if known.end > WINDOW_END_MAX {
                *known = KnownWindow::NONE;
            }
        }
    }

    /// A window that was found, as far as the code at hand may use it.
    pub(super) fn cut_window(&self, found: KnownWindow) -> Option<KnownWindow> {
        let beyond = found.end.saturating_sub(WINDOW_END_MAX);
        if self.soft.cpu.mode != CpuMode::Compat32 || beyond == 0 {
            return Some(found);
        }
        let start = found.end - found.size();
        let linear = found.page << 12;
        (linear < WINDOW_END_MAX && start < WINDOW_END_MAX)
            .then(|| KnownWindow::new(linear, start, WINDOW_END_MAX, found.distance))
    }
}
