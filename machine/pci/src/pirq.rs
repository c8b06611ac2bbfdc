//! From interrupt pins to interrupt controllers, as in an ICH9 (datasheet, 5.9.6, 10.1.40 and
//! 13.1.17): eight PIRQs, of which each is an input of the IOAPIC and, where the LPC bridge routes
//! it, an ISA interrupt. Which function has which PIRQ is the board's wiring.

use std::sync::{Arc, Mutex, PoisonError};

use bus::{Line, LineSink};

use crate::DevFn;

/// PIRQ A to H.
pub const PIRQS: usize = 8;
/// The routing register: not routed, and to which ISA interrupt.
pub(crate) const ROUTE_OFF: u8 = 1 << 7;
const ROUTE_IRQ: u8 = 0xf;
/// ISA interrupts that a PIRQ can be: not the timer's, keyboard's, cascade's, clock's and
/// coprocessor's.
const ROUTABLE: u16 = 0b1101_1110_1111_1000;

/// The wires between functions and interrupt controllers.
///
/// *Lock*: a leaf but for driving lines.
pub struct PirqRouter {
    // Fixed configuration.
    /// The controllers' input that PIRQ A is.
    first_input: u32,
    // Wiring.
    controllers: Arc<dyn LineSink>,
    // State: it follows from functions and from the LPC bridge.
    state: Mutex<State>,
}

struct State {
    /// Which functions assert each PIRQ: a bit for each device and function.
    asserted: [[u64; 4]; PIRQS],
    routes: [u8; PIRQS],
    /// Levels of the controllers' inputs.
    driven: u32,
}

impl PirqRouter {
    /// A router to these inputs, of which the first 16 are ISA's and PIRQ A is `first_input`, with
    /// nothing asserted and nothing routed to ISA.
    ///
    /// # Panics
    /// When there are not so many inputs: the board's mistake.
    pub fn new(controllers: Arc<dyn LineSink>, first_input: u32) -> Arc<Self> {
        assert!((16..=24).contains(&first_input), "PIRQ A at input {first_input}");
        let state = State { asserted: Default::default(), routes: [ROUTE_OFF; PIRQS], driven: 0 };
        Arc::new(Self { first_input, controllers, state: Mutex::new(state) })
    }

    /// The wire from a function to a PIRQ: 0 for A.
    ///
    /// # Panics
    /// When there is no such PIRQ: the board's mistake.
    pub fn line(self: &Arc<Self>, at: DevFn, pirq: usize) -> Line {
        assert!(pirq < PIRQS, "PIRQ {pirq}");
        let from = u32::from(at.device()) << 3 | u32::from(at.function());
        Line::new(self.clone(), (pirq as u32) << 8 | from)
    }

    /// The routing registers of PIRQ A to H are now these.
    pub(crate) fn set_routes(&self, routes: [u8; PIRQS]) {
        self.change(|state| state.routes = routes);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let levels = state.levels(self.first_input);
        let changed = levels ^ state.driven;
        state.driven = levels;
        for input in (0..u32::BITS).filter(|input| changed >> input & 1 != 0) {
            self.controllers.set_line(input, levels >> input & 1 != 0);
        }
    }
}

impl State {
    fn levels(&self, first_input: u32) -> u32 {
        let mut levels = 0;
        for (n, (asserted, route)) in (0u32..).zip(self.asserted.iter().zip(self.routes)) {
            if *asserted == [0; 4] {
                continue;
            }
            levels |= 1 << (first_input + n);
            let irq = route & ROUTE_IRQ;
            if route & ROUTE_OFF == 0 && ROUTABLE >> irq & 1 != 0 {
                levels |= 1 << irq;
            }
        }
        levels
    }
}

impl LineSink for PirqRouter {
    fn set_line(&self, input: u32, level: bool) {
        let of = (input >> 8) as usize % PIRQS;
        self.change(|state| {
            let (word, bit) = ((input >> 6 & 3) as usize, 1u64 << (input & 63));
            let word = &mut state.asserted[of][word];
            *word = if level { *word | bit } else { *word & !bit };
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Inputs(Mutex<u32>);

    impl LineSink for Inputs {
        fn set_line(&self, input: u32, level: bool) {
            let mut levels = self.0.lock().unwrap();
            *levels = *levels & !(1 << input) | u32::from(level) << input;
        }
    }

    fn rig() -> (Arc<Inputs>, Arc<PirqRouter>) {
        let inputs = Arc::new(Inputs::default());
        (inputs.clone(), PirqRouter::new(inputs, 16))
    }

    #[test]
    fn a_shared_line_is_high_until_all_who_drive_it_are_low() {
        let (inputs, router) = rig();
        let (one, five) = (router.line(DevFn::new(1, 0), 5), router.line(DevFn::new(31, 7), 5));
        one.set(true);
        five.set(true);
        assert_eq!(*inputs.0.lock().unwrap(), 1 << 21);
        one.set(false);
        assert_eq!(*inputs.0.lock().unwrap(), 1 << 21);
        five.set(false);
        assert_eq!(*inputs.0.lock().unwrap(), 0);
    }

    #[test]
    fn a_routed_pirq_is_an_isa_interrupt_too_and_moves_with_its_route() {
        let (inputs, router) = rig();
        router.line(DevFn::new(1, 0), 5).set(true);
        let mut routes = [ROUTE_OFF; PIRQS];
        for (route, levels) in [(11, 1 << 11), (10, 1 << 10), (0x8a, 0), (2, 0), (13, 0)] {
            routes[5] = route;
            router.set_routes(routes);
            assert_eq!(*inputs.0.lock().unwrap(), 1 << 21 | levels, "{route:#x}");
        }
    }
}
