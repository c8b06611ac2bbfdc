//! The APIC as an acceptor and dispenser of interrupts (SDM vol. 3A, 11.8).

use x86_state::{ApicState, DeliveryMode, Vector};

use crate::spec::*;
use crate::timer::Timer;
use crate::{Ipi, Now};

/// What the world must do after an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Deliver this to whom it addresses, the sender included where it does.
    Send(Ipi),
    /// A level-triggered interrupt was ended: tell the IOAPICs.
    Eoi(Vector),
}

/// What the CPU must do after an interrupt came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// Nothing: refused, or nothing new.
    Nothing,
    /// Look at [`Lapic::pending`].
    Pending,
    /// Take a non-maskable interrupt.
    Nmi,
    /// Be initialised.
    Init,
    /// Start at this page, if waiting for it.
    StartUp(Vector),
}

/// Why a saved APIC is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateError(pub(crate) &'static str);

impl std::fmt::Display for StateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "local APIC: {}", self.0)
    }
}

impl std::error::Error for StateError {}

/// One local APIC.
#[derive(Debug, Clone)]
pub struct Lapic {
    /// Fixed by the socket; the ID register of xAPIC mode can be written, this cannot.
    initial_id: u32,
    base: u64,
    regs: [u32; 64],
    pub(crate) timer: Timer,
    /// Errors since ESR was last written.
    errors: u32,
}

impl Lapic {
    /// After power-up.
    pub fn new(id: u32, bsp: bool) -> Self {
        let reset = ApicState::at_reset(id, bsp);
        Self {
            initial_id: id,
            base: reset.base,
            regs: reset.regs,
            timer: Timer::default(),
            errors: 0,
        }
    }

    /// As INIT leaves it: as after power-up, but for IA32_APIC_BASE (and the ID with it).
    pub fn init(&mut self) {
        let base = self.base;
        *self = Self::new(self.initial_id, base & ApicState::BASE_BSP != 0);
        self.base = base;
        if self.is_x2apic() {
            self.enter_x2apic();
        }
    }

    /// The state.
    pub fn save(&self, now: Now) -> ApicState {
        let mut regs = self.regs;
        // Derived, so what was loaded may be old.
        regs[PPR as usize / 16] = u32::from(self.ppr());
        ApicState { base: self.base, regs, timer: self.save_timer(now) }
    }

    /// Takes over a state.
    ///
    /// # Errors
    /// When no APIC could be in it.
    pub fn load(&mut self, state: &ApicState, now: Now) -> Result<(), StateError> {
        use ApicState as A;
        if state.base & A::BASE_X2APIC != 0 && state.base & A::BASE_ENABLE == 0 {
            return Err(StateError("x2APIC mode of a disabled APIC"));
        }
        if [ISR, TMR, IRR].iter().any(|first| state.regs[*first as usize / 16] & 0xffff != 0) {
            return Err(StateError("vectors below 16 are exceptions"));
        }
        self.base = state.base;
        self.regs = state.regs;
        self.set_reg(CURRENT_COUNT, 0);
        self.errors = 0;
        self.load_timer(&state.timer, now);
        Ok(())
    }

    /// IA32_APIC_BASE.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// The guest-physical address of the register page; `None` when there is none (disabled, or
    /// x2APIC mode).
    pub fn mmio_page(&self) -> Option<u64> {
        (self.is_enabled() && !self.is_x2apic()).then_some(self.base & !0xfff)
    }

    #[inline]
    pub(crate) fn reg(&self, offset: u32) -> u32 {
        self.regs[(offset / 16) as usize % 64]
    }

    pub(crate) fn set_reg(&mut self, offset: u32, value: u32) {
        self.regs[(offset / 16) as usize % 64] = value;
    }

    pub(crate) fn set_base(&mut self, value: u64) {
        let was_x2apic = self.is_x2apic();
        let was_enabled = self.is_enabled();
        self.base = value;
        if self.is_x2apic() && !was_x2apic {
            self.enter_x2apic();
        }
        if was_enabled && !self.is_enabled() {
            // SDM 11.4.3: state is lost, as if after power-up, when enabled again.
            let (id, bsp) = (self.initial_id, value & ApicState::BASE_BSP != 0);
            *self = Self { base: value, ..Self::new(id, bsp) };
        }
    }

    /// SDM vol. 3A, 11.12.10.2: the logical ID follows from the ID.
    fn enter_x2apic(&mut self) {
        let id = self.initial_id;
        self.set_reg(ID, id);
        self.set_reg(LDR, (id >> 4) << 16 | 1 << (id & 0xf));
        self.set_reg(ICR2, 0);
    }

    fn software_enabled(&self) -> bool {
        self.is_enabled() && self.reg(SVR) & SVR_ENABLE != 0
    }

    /// An interrupt comes.
    pub fn accept(&mut self, mode: DeliveryMode, vector: Vector, level: bool) -> Accepted {
        match mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
                if !self.software_enabled() {
                    return Accepted::Nothing;
                }
                if vector < 16 {
                    self.error(ESR_RECEIVE_VECTOR);
                    return Accepted::Nothing;
                }
                self.set_bit(IRR, vector, true);
                self.set_bit(TMR, vector, level);
                Accepted::Pending
            }
            DeliveryMode::Nmi => Accepted::Nmi,
            DeliveryMode::Init => Accepted::Init,
            DeliveryMode::StartUp => Accepted::StartUp(vector),
            // No profile has system management; ExtINT messages are for the PIC, whose pin is
            // looked at anyway.
            DeliveryMode::Smi | DeliveryMode::ExtInt => Accepted::Nothing,
        }
    }

    /// The LVT entry's event happened.
    pub(crate) fn fire_lvt(&mut self, offset: u32) -> Accepted {
        let lvt = self.reg(offset);
        if lvt & LVT_MASKED != 0 {
            return Accepted::Nothing;
        }
        let mode = match offset {
            LVT_TIMER | LVT_ERROR => Some(DeliveryMode::Fixed),
            _ => DeliveryMode::from_bits((lvt >> DELIVERY_SHIFT) as u8),
        };
        mode.map_or(Accepted::Nothing, |mode| self.accept(mode, lvt as u8, false))
    }

    /// The PIC's pin rose, and LINT0 is not in ExtINT mode.
    pub fn raise_lint0(&mut self) -> Accepted {
        if self.takes_ext_int() { Accepted::Nothing } else { self.fire_lvt(LVT_LINT0) }
    }

    /// The PIC's pin reaches the CPU: through LINT0 as ExtINT, or past a disabled APIC.
    pub fn takes_ext_int(&self) -> bool {
        let lvt = self.reg(LVT_LINT0);
        !self.is_enabled()
            || (lvt & LVT_MASKED == 0 && lvt >> DELIVERY_SHIFT & 7 == DeliveryMode::ExtInt as u32)
    }

    /// The vector to deliver now: the highest requested, when above the processor's priority.
    #[inline]
    pub fn pending(&self) -> Option<Vector> {
        let vector = self.highest(IRR)?;
        (self.software_enabled() && vector & 0xf0 > self.ppr() & 0xf0).then_some(vector)
    }

    /// Takes [`Lapic::pending`] into service. `None` when there is none.
    pub fn acknowledge(&mut self) -> Option<Vector> {
        let vector = self.pending()?;
        self.set_bit(IRR, vector, false);
        self.set_bit(ISR, vector, true);
        Some(vector)
    }

    pub(crate) fn end_of_interrupt(&mut self) -> Effect {
        let Some(vector) = self.highest(ISR) else { return Effect::None };
        self.set_bit(ISR, vector, false);
        if self.bit(TMR, vector) { Effect::Eoi(vector) } else { Effect::None }
    }

    /// The processor-priority register (SDM vol. 3A, 11.8.3.1).
    pub fn ppr(&self) -> u8 {
        let (tpr, isr) = (self.reg(TPR) as u8, self.highest(ISR).unwrap_or(0));
        if tpr & 0xf0 >= isr & 0xf0 { tpr } else { isr & 0xf0 }
    }

    /// CR8.
    pub fn cr8(&self) -> u8 {
        (self.reg(TPR) >> 4) as u8 & 0xf
    }

    /// Sets CR8.
    pub fn set_cr8(&mut self, value: u8) {
        self.set_reg(TPR, u32::from(value & 0xf) << 4);
    }

    pub(crate) fn error(&mut self, bit: u32) {
        self.errors |= bit;
        // The error interrupt is sent once per kind until ESR is written; a guest that has an
        // illegal vector in LVT_ERROR itself must not recurse.
        if self.reg(LVT_ERROR) & 0xff >= 16 {
            self.fire_lvt(LVT_ERROR);
        }
    }

    /// ESR is written: what happened since the last time becomes visible.
    pub(crate) fn latch_errors(&mut self) {
        let errors = std::mem::take(&mut self.errors);
        self.set_reg(ESR, errors);
    }

    pub(crate) fn bit(&self, first: u32, vector: Vector) -> bool {
        self.reg(first + u32::from(vector / 32) * 16) & 1 << (vector % 32) != 0
    }

    fn set_bit(&mut self, first: u32, vector: Vector, on: bool) {
        let offset = first + u32::from(vector / 32) * 16;
        let bit = 1 << (vector % 32);
        let old = self.reg(offset);
        self.set_reg(offset, if on { old | bit } else { old & !bit });
    }

    fn highest(&self, first: u32) -> Option<Vector> {
        (0..8u32).rev().find_map(|i| {
            let word = self.reg(first + i * 16);
            (word != 0).then(|| (i * 32 + 31 - word.leading_zeros()) as u8)
        })
    }
}
