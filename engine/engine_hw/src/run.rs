//! The run loop: into the kernel, and out to the bus.

use std::io;

use engine::{Bus, DebugStop, EngineError, Exit};
use kvm_bindings::{KVM_MP_STATE_HALTED, KVM_MP_STATE_RUNNABLE};
use kvm_ioctls::VcpuExit;
use x86_state::Vector;

use crate::host_error;
use crate::msr;
use crate::state::apic;
use crate::vcpu::HwVcpu;

/// What became of one stay in the kernel.
enum Stay {
    /// The bus was served: on with the guest.
    Served,
    /// The guest takes an interrupt from the PIC now.
    Window,
    /// A signal, or an immediate exit. Whatever access was pending is finished.
    Interrupted,
    /// The guest cannot go on.
    Stuck(&'static str),
    /// `run` is over.
    Over(Exit),
}

impl HwVcpu {
    /// Runs until there is something for the caller of `run`.
    ///
    /// A kick never ends the loop by itself: it makes the next stay return EINTR, after the kernel
    /// has finished the access it was in the middle of.
    pub(crate) fn execute(&mut self, bus: &dyn Bus) -> Result<Exit, EngineError> {
        if self.complex.intr() && !self.page_is_current {
            // Only an exit tells whether the guest takes interrupts, and a halted one would sleep.
            self.kicker.page().set_immediate_exit(true);
        }
        loop {
            self.kicker.page().set_window_request(self.complex.intr());
            let stay = self.stay(bus).map_err(host_error("run a vCPU"))?;
            self.page_is_current = true;
            match stay {
                Stay::Served => {}
                Stay::Window => self.interrupt(bus)?,
                Stay::Interrupted => {
                    if self.kicker.take() {
                        return self.settle(bus);
                    }
                    if self.kicker.page().takes_interrupts() {
                        self.interrupt(bus)?;
                    }
                }
                Stay::Stuck(why) => return Err(self.stuck(why)),
                Stay::Over(Exit::Debug(DebugStop::Step))
                    if self.has_passed().map_err(host_error("set breakpoints"))? => {}
                Stay::Over(exit) => return Ok(exit),
            }
        }
    }

    /// Has the kernel finish what the guest has caused and no register shows: an EOI on its way
    /// to the bus, an APIC timer that has expired but not yet requested its interrupt.
    ///
    /// Not for a debugger's stops: a round may meet the breakpoint again, and who stops there goes
    /// on from there.
    fn settle(&mut self, bus: &dyn Bus) -> Result<Exit, EngineError> {
        self.kicker.page().set_window_request(false);
        let refused = "settle a vCPU";
        let rounds = self.kicker.begin_rounds(&self.fd).map_err(host_error(refused))?;
        let settled = self.go_round(bus);
        self.kicker.end_rounds(&self.fd, &rounds).map_err(host_error(refused))?;
        match settled.map_err(host_error(refused))? {
            None => Ok(Exit::Kicked),
            Some(other) => {
                self.kicker.kick(); // not answered yet
                Ok(other)
            }
        }
    }

    /// Until no round does anything more. `Some` when `run` is over for another reason than a kick.
    fn go_round(&mut self, bus: &dyn Bus) -> io::Result<Option<Exit>> {
        let mut expired = false;
        loop {
            match self.stay(bus)? {
                Stay::Served => continue,
                Stay::Over(exit) => return Ok(Some(exit)),
                Stay::Window | Stay::Interrupted | Stay::Stuck(_) => {}
            }
            let page = self.fd.get_lapic()?;
            let count = apic::current_count(&page);
            // A count of zero that was so before the last round has had its interrupt.
            if count != Some(0) || std::mem::replace(&mut expired, true) {
                self.timer_count = count;
                return Ok(None);
            }
        }
    }

    fn stay(&mut self, bus: &dyn Bus) -> io::Result<Stay> {
        let door = self.complex.gate.pass(self.id.0 as usize);
        let exit = self.fd.run();
        drop(door);
        self.complex.take_held_back(bus);
        match exit {
            Ok(VcpuExit::IoIn(port, data)) => {
                for access in data.chunks_mut(self.kicker.page().port_access_size().max(1)) {
                    bus.pio_read(port, access);
                }
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                for access in data.chunks(self.kicker.page().port_access_size().max(1)) {
                    bus.pio_write(port, access);
                }
            }
            Ok(VcpuExit::MmioRead(gpa, data)) => {
                for part in bus_cycles(data.len()) {
                    bus.mmio_read(gpa + part.start as u64, &mut data[part]);
                }
            }
            Ok(VcpuExit::MmioWrite(gpa, data)) => {
                for part in bus_cycles(data.len()) {
                    bus.mmio_write(gpa + part.start as u64, &data[part]);
                }
            }
            Ok(VcpuExit::IoapicEoi(vector)) => bus.eoi(vector),
            Ok(VcpuExit::X86Rdmsr(access)) => {
                match msr::read_constant(&self.complex.profile, access.index) {
                    Some(value) => *access.data = value,
                    None => *access.error = 1,
                }
            }
            Ok(VcpuExit::X86Wrmsr(access)) => {
                *access.error = u8::from(!msr::write_is_ignored(access.index));
            }
            Ok(VcpuExit::IrqWindowOpen) => return Ok(Stay::Window),
            Ok(VcpuExit::Debug(stop)) => {
                let breakpoint = stop.dr6 & 0xf != 0;
                let stop =
                    if breakpoint { DebugStop::Breakpoint(stop.pc) } else { DebugStop::Step };
                return Ok(Stay::Over(Exit::Debug(stop)));
            }
            Ok(VcpuExit::Shutdown) => return Ok(Stay::Over(Exit::TripleFault)),
            Ok(VcpuExit::Intr) => return Ok(Stay::Interrupted),
            Ok(VcpuExit::InternalError) => return Ok(Stay::Stuck("internal error")),
            Ok(VcpuExit::FailEntry(..)) => return Ok(Stay::Stuck("the CPU refuses its state")),
            Ok(_) => return Ok(Stay::Stuck("unknown exit")),
            Err(e) => {
                return match e.errno() {
                    libc::EINTR => Ok(Stay::Interrupted),
                    // A waiting vCPU has met INIT or SIPI.
                    libc::EAGAIN => Ok(Stay::Served),
                    _ => Err(e.into()),
                };
            }
        }
        Ok(Stay::Served)
    }

    /// The guest takes interrupts: gives it the PIC's, if it still has one.
    ///
    /// The vector becomes an event in delivery, which the kernel begins the next entry with and
    /// which `save` sees. (KVM_INTERRUPT keeps it where nothing reads it back: a kick before the
    /// next entry would lose an acknowledged interrupt.)
    fn interrupt(&mut self, bus: &dyn Bus) -> Result<(), EngineError> {
        if !self.complex.intr() {
            return Ok(());
        }
        match bus.ack_intr() {
            Some(vector) => self.deliver(vector).map_err(host_error("deliver an interrupt")),
            None => Ok(()),
        }
    }

    fn deliver(&mut self, vector: Vector) -> io::Result<()> {
        let mut events = self.fd.get_vcpu_events()?;
        events.interrupt.injected = 1;
        events.interrupt.nr = vector;
        events.interrupt.soft = 0;
        self.fd.set_vcpu_events(&events)?;
        let mut activity = self.fd.get_mp_state()?;
        if activity.mp_state == KVM_MP_STATE_HALTED {
            activity.mp_state = KVM_MP_STATE_RUNNABLE;
            self.fd.set_mp_state(activity)?;
        }
        Ok(())
    }

    /// What there is to say about a guest the kernel gave up on.
    fn stuck(&self, why: &str) -> EngineError {
        let (kind, bytes) = self.kicker.page().internal_error();
        let at = match (self.fd.get_regs(), self.fd.get_sregs()) {
            (Ok(regs), Ok(sregs)) => format!(
                "rip {:#x} (CS base {:#x}, CR0 {:#x}, EFER {:#x})",
                regs.rip, sregs.cs.base, sregs.cr0, sregs.efer
            ),
            _ => "an unknown address".to_owned(),
        };
        EngineError::Stuck(format!("{why} {kind} at {at}, instruction {bytes:02x?}"))
    }
}

/// An access of `len` bytes as bus cycles of 8, 4, 2 and 1: the kernel cuts one that crosses a page
/// into pieces of any length, which no CPU puts on a bus.
fn bus_cycles(len: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let left = len - start;
        let size = 1 << left.checked_ilog2()?.min(3);
        start += size;
        Some(start - size..start)
    })
}

#[cfg(test)]
mod tests {
    use super::bus_cycles;

    #[test]
    fn odd_pieces_become_cycles_of_powers_of_two() {
        assert_eq!(bus_cycles(7).collect::<Vec<_>>(), [0..4, 4..6, 6..7]);
        assert_eq!(bus_cycles(8).next(), Some(0..8));
        assert_eq!(bus_cycles(0).count(), 0);
    }
}
