//! Ports and registers of the legacy devices, while time goes on.

#![no_main]

use std::sync::Arc;

use bus::{AddressSpace, BusDevice, Device, Line, NoMsi};
use chipset::{
    ByteSink, DebugExit, IoApic, IrqLines, Pic, Pit, Pm, PowerEvent, PowerSink, ResetControl,
    RouteSink, Rtc, RtcConfig, TimerWidth, Uart,
};
use fuzz_devices::Input;
use libfuzzer_sys::fuzz_target;
use machine_clock::{MachineClock, TimeSource};
use x86_state::Msi;

struct Nothing;

impl ByteSink for Nothing {
    fn put(&self, _byte: u8) {}
}

impl PowerSink for Nothing {
    fn power(&self, _event: PowerEvent) {}
}

impl RouteSink for Nothing {
    fn set_routes(&self, _routes: &[Option<Msi>]) {}
}

/// A device, as the fuzzer sees it.
struct Part {
    device: Arc<dyn BusDevice>,
    state: Arc<dyn Device>,
}

fn part<D: BusDevice + Device + 'static>(device: &Arc<D>) -> Part {
    Part { device: device.clone(), state: device.clone() }
}

fuzz_target!(|data: &[u8]| {
    let clock = MachineClock::new(TimeSource::Counted);
    let nothing = Arc::new(Nothing);
    let pic = Pic::new(Line::unconnected());
    let ioapic = IoApic::new(Arc::new(NoMsi), nothing.clone());
    let irqs = IrqLines::new(pic.clone(), ioapic.clone());
    let line = |irq| Line::new(irqs.clone(), irq);
    let heard = irqs.clone();
    let pit = Pit::new(&clock, line(0), Box::new(move || heard.is_heard(0)));
    let uart = Uart::new(&clock, line(4), nothing.clone());
    let config = RtcConfig { start_unix_s: 1_700_000_000, cmos: Vec::new() };
    let rtc = Rtc::new(&clock, line(8), &config);
    let pm = Pm::new(&clock, line(9), nothing.clone(), TimerWidth::Bits24);
    let parts = [
        part(&pic),
        part(&ioapic),
        part(&pit),
        part(&uart),
        part(&rtc),
        part(&pm),
        part(&ResetControl::new(nothing.clone())),
        part(&DebugExit::new(nothing)),
    ];
    let space = AddressSpace::new();
    for (base, part) in (0..).step_by(0x1_0000).zip(&parts) {
        space.map(base, 0x1_0000, part.device.clone()).unwrap();
    }
    clock.start();
    let mut input = Input(data);
    while !input.is_empty() {
        let action = input.u8();
        let at = u64::from(action & 7) << 16 | u64::from(input.u8());
        let size = input.access_size();
        let mut bytes = [0xff; 8];
        match action >> 3 & 7 {
            0..3 => space.write(at, &input.number(size).to_le_bytes()[..size]),
            3..5 => space.read(at, &mut bytes[..size]),
            5 => {
                // Up to 134 ms: a counted clock fires every period of a fast timer on the way.
                let now = clock.now_ns();
                clock.advance_to(now.saturating_add(input.number(3) << (at & 3)));
            }
            6 => {
                let state = &parts[usize::from(action & 7)].state;
                let saved = state.save();
                state.restore(&saved).expect("what was saved can be restored");
                assert_eq!(state.save(), saved);
            }
            _ => match at & 7 {
                0 => drop(pic.ack()),
                1 => ioapic.eoi(input.u8()),
                2 => pm.press_power_button(),
                3 => drop(uart.receive(input.bytes(20))),
                4 => pit.unmasked(),
                _ => parts[usize::from(action & 7)].state.reset(),
            },
        }
    }
});
