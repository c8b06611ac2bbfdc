//! Delivery of exceptions and interrupts (SDM vol. 3A, chapter 6).

mod long;
mod protected;
mod real;

use x86_state::bits::{Efer, Rflags};
use x86_state::{Exception, SegReg, Vector};

use super::descriptor::Selector;
use crate::{Cpu, Env, Fault, FaultInfo, Mode};

/// An exception could not be delivered, nor could the double fault: the CPU shuts down. Its state
/// is that of the instruction or event whose delivery failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TripleFault;

/// What an event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// An exception, an interrupt, an NMI: outside of the program.
    External,
    /// INT n, INT3, INTO: checked against the gate's DPL.
    Software,
    /// INT1: like an exception, but asked for.
    Int1,
}

/// What is being delivered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event {
    vector: Vector,
    error_code: Option<u32>,
    source: Source,
    /// RFLAGS to be pushed.
    rflags: u64,
    /// RIP to be pushed.
    rip: u64,
}

impl Event {
    /// The EXT bit of error codes that arise in delivery.
    fn ext(&self) -> u32 {
        u32::from(self.source != Source::Software)
    }

    /// The error code that names this event's IDT entry.
    fn idt_error(&self) -> u32 {
        u32::from(self.vector) << 3 | 2 | self.ext()
    }
}

/// How an exception combines with one that arises in its delivery (SDM vol. 3A, table 6-4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Benign,
    Contributory,
    PageFault,
    DoubleFault,
}

fn class(event: &Event) -> Class {
    if event.source != Source::External {
        return Class::Benign;
    }
    match event.vector {
        0 | 10..=13 => Class::Contributory,
        14 => Class::PageFault,
        8 => Class::DoubleFault,
        _ => Class::Benign,
    }
}

/// A chain of exceptions each raised by the delivery of the one before ends in a double fault
/// after two steps, unless benign ones are among them; so this many are never needed.
const CHAIN_MAX: usize = 8;

impl<E: Env> Cpu<E> {
    /// Delivers the exception in [`Cpu::fault`]. RIP is at the instruction that raised it, or,
    /// for a debug trap, at the next.
    ///
    /// # Errors
    /// On shutdown.
    pub fn deliver_fault(&mut self) -> Result<(), TripleFault> {
        let event = self.exception_event(self.fault);
        self.deliver_chain(event)
    }

    /// Delivers an external interrupt.
    ///
    /// # Errors
    /// On shutdown.
    pub fn deliver_interrupt(&mut self, vector: Vector) -> Result<(), TripleFault> {
        let event = self.plain_event(vector, Source::External);
        // Delivered where an exception of this number would be, but never in its class.
        self.deliver_interrupt_event(event)
    }

    /// Delivers a non-maskable interrupt, and masks further ones until IRET.
    ///
    /// # Errors
    /// On shutdown.
    pub fn deliver_nmi(&mut self) -> Result<(), TripleFault> {
        let event = self.plain_event(Exception::Nmi as u8, Source::External);
        self.deliver_interrupt_event(event)?;
        self.nmi_masked = true;
        Ok(())
    }

    /// Delivers again an event whose delivery had begun elsewhere.
    ///
    /// # Errors
    /// On shutdown.
    pub fn deliver_exception(
        &mut self,
        vector: Vector,
        error_code: Option<u32>,
    ) -> Result<(), TripleFault> {
        let rf = self.system_flags | self.flags.bits() | fault_rf(vector);
        let event = Event { error_code, rflags: rf, ..self.plain_event(vector, Source::External) };
        self.deliver_chain(event)
    }

    /// Delivers again an INT n, INT3 or INTO of this length, at RIP.
    ///
    /// # Errors
    /// On shutdown.
    pub(crate) fn deliver_software(
        &mut self,
        vector: Vector,
        length: u8,
    ) -> Result<(), TripleFault> {
        let rip = self.rip.wrapping_add(length.into());
        let event = Event { rip, ..self.plain_event(vector, Source::Software) };
        match self.deliver(event) {
            Ok(()) => Ok(()),
            Err(_) => self.deliver_fault(),
        }
    }

    /// INT n, INT3 and INTO, from their handlers: RIP is after the instruction.
    pub(super) fn software_interrupt(&mut self, vector: Vector) -> Result<(), Fault> {
        self.deliver(self.plain_event(vector, Source::Software))
    }

    /// INT1, from its handler. Its #DB is also that of a trap that a load of SS holds: a second
    /// one, on the same stack of the TSS, would overwrite the first one's frame.
    pub(super) fn int1(&mut self) -> Result<(), Fault> {
        self.deliver(self.plain_event(Exception::Db as u8, Source::Int1))?;
        self.debug.dr6 |= std::mem::take(&mut self.debug_hits);
        Ok(())
    }

    fn plain_event(&self, vector: Vector, source: Source) -> Event {
        Event { vector, error_code: None, source, rflags: self.rflags(), rip: self.rip }
    }

    /// Applies an exception's side effects, and makes an event of it.
    fn exception_event(&mut self, info: FaultInfo) -> Event {
        let vector = info.exception as u8;
        let mut rflags = self.rflags();
        match info.exception {
            Exception::Pf => {
                self.cr2 = info.payload;
                rflags |= Rflags::RF.bits();
            }
            Exception::Db => {
                self.note_debug_exception(info.payload);
                if info.fault_class_db() {
                    rflags |= Rflags::RF.bits();
                }
            }
            _ => rflags |= fault_rf(vector),
        }
        let error_code = info.exception.has_error_code().then_some(info.error_code);
        Event { vector, error_code, source: Source::External, rflags, rip: self.rip }
    }

    fn deliver_interrupt_event(&mut self, event: Event) -> Result<(), TripleFault> {
        match self.deliver(event) {
            Ok(()) => Ok(()),
            Err(_) => {
                self.fault.add_ext();
                self.deliver_fault()
            }
        }
    }

    fn deliver_chain(&mut self, first: Event) -> Result<(), TripleFault> {
        let mut event = first;
        for _ in 0..CHAIN_MAX {
            if self.deliver(event).is_ok() {
                return Ok(());
            }
            let earlier = class(&event);
            self.fault.add_ext();
            event = self.exception_event(self.fault);
            let double = match (earlier, class(&event)) {
                (Class::DoubleFault, Class::Contributory | Class::PageFault) => {
                    return Err(TripleFault);
                }
                (Class::PageFault, Class::Contributory | Class::PageFault) => true,
                (Class::Contributory, Class::Contributory) => true,
                _ => false,
            };
            if double {
                event = Event {
                    vector: Exception::Df as u8,
                    error_code: Some(0),
                    rflags: self.rflags(),
                    ..event
                };
            }
        }
        Err(TripleFault)
    }

    /// Delivers through the IVT or IDT. On a fault, nothing is changed that the guest can see.
    fn deliver(&mut self, event: Event) -> Result<(), Fault> {
        if self.mode == Mode::Real {
            self.deliver_real(&event)?;
        } else if self.efer & Efer::LMA.bits() != 0 {
            self.deliver_long(&event)?;
        } else {
            self.deliver_protected(&event)?;
        }
        self.shadow = x86_state::InterruptShadow::None;
        self.activity = x86_state::Activity::Running;
        self.check_events = true;
        Ok(())
    }

    /// What all deliveries do to RFLAGS; interrupt gates clear IF besides.
    fn clear_flags_for_handler(&mut self, interrupt_gate: bool) {
        let mut clear = Rflags::TF | Rflags::NT | Rflags::RF | Rflags::VM;
        if interrupt_gate {
            clear |= Rflags::IF;
        }
        if self.mode == Mode::Real {
            clear |= Rflags::AC;
        }
        self.system_flags &= !clear.bits();
    }

    /// #GP, #TS, #NP or #SS with a selector, in delivery.
    fn delivery_fault(&mut self, exception: Exception, selector: Selector) -> Fault {
        self.selector_fault(exception, selector)
    }

    /// A vector whose IDT entry is outside of the table, or wrong.
    fn idt_fault(&mut self, exception: Exception, event: &Event) -> Fault {
        self.raise_code(exception, event.idt_error())
    }

    /// Selector of the current code segment.
    fn cs_selector(&self) -> u64 {
        self.segment(SegReg::Cs).selector.into()
    }
}

/// RF in the pushed flags: set for faults, so that the instruction is begun again without its
/// breakpoint (SDM vol. 3B, 18.3.1.1).
fn fault_rf(vector: Vector) -> u64 {
    match vector {
        0 | 5..=7 | 10..=14 | 16 | 17 | 19 => Rflags::RF.bits(),
        _ => 0,
    }
}

impl FaultInfo {
    /// The exception arose in the delivery of an event outside of the program.
    fn add_ext(&mut self) {
        let selector =
            matches!(self.exception, Exception::Ts | Exception::Np | Exception::Ss | Exception::Gp);
        if selector {
            self.error_code |= 1;
        }
    }

    /// A debug exception that is a fault, but not an instruction breakpoint: general detect.
    fn fault_class_db(&self) -> bool {
        self.payload & x86_state::bits::Dr6::BD.bits() != 0
    }
}
