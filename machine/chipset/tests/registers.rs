//! Random accesses to every device: none panics, and what is saved can be restored and saved
//! again without a difference.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use bus::{AddressSpace, Device, Line, LineSink, MsiSink, Section};
use chipset::*;
use guest_memory::{Backing, FlatRange, FlatView, GuestMemory, RamOffset};
use machine_clock::{MachineClock, TimeSource};
use x86_state::Msi;

/// Swallows everything.
struct Nothing;

impl MsiSink for Nothing {
    fn send_msi(&self, _msi: Msi) {}
}

impl RouteSink for Nothing {
    fn set_routes(&self, _routes: &[Option<Msi>]) {}
}

impl PowerSink for Nothing {
    fn power(&self, _event: PowerEvent) {}
}

impl PageUnmapSink for Nothing {
    fn unmap_page(&self, _gpa: u64) {}
}

impl HotplugSink for Nothing {
    fn ejected(&self, _slots: u32) {}
    fn memory_blocks(&self, _count: u32) {}
}

impl ByteSink for Nothing {
    fn put(&self, _byte: u8) {}
}

const IOAPIC_AT: u64 = 0x1_0000;
const HPET_AT: u64 = 0x2_0000;
const PM_AT: u64 = 0x600;
const HOTPLUG_AT: u64 = 0x700;
const UART_AT: u64 = 0x3f8;
const RAM_SIZE: u64 = 0x4000;

/// All devices, wired as on a board, in one address space.
struct Rig {
    clock: Arc<MachineClock>,
    space: Arc<AddressSpace>,
    ioapic: Arc<IoApic>,
    pic: Arc<Pic>,
    uart: Arc<Uart>,
    i8042: Arc<I8042>,
    pm: Arc<Pm>,
    /// In the order of restoring and resetting.
    devices: Vec<Arc<dyn Device>>,
}

fn memory() -> Arc<GuestMemory> {
    let memory = GuestMemory::new(&[("ram", RAM_SIZE)]).unwrap();
    let mut view = FlatView::new();
    let range = FlatRange { gpa: 0, size: RAM_SIZE, at: RamOffset(0), backing: Backing::Ram };
    view.insert(range).unwrap();
    memory.set_view(view);
    memory
}

impl Rig {
    fn new() -> Self {
        let clock = MachineClock::new(TimeSource::Counted);
        let space = AddressSpace::new();
        let nothing = Arc::new(Nothing);
        let pic = Pic::new(Line::unconnected());
        let ioapic = IoApic::new(nothing.clone(), nothing.clone());
        let irqs = IrqLines::new(pic.clone(), ioapic.clone());
        let line = |irq| Line::new(irqs.clone(), irq);
        let hpet = Hpet::new(&clock, irqs.clone(), nothing.clone());
        let heard = irqs.clone();
        let is_heard = Box::new(move || heard.is_heard(0));
        let pit = Pit::new(&clock, Line::new(hpet.clone(), 0), is_heard);
        let woken = Arc::downgrade(&pit);
        irqs.set_on_unmask(move || {
            if let Some(pit) = woken.upgrade() {
                pit.unmasked();
            }
        });
        let config = RtcConfig { start_unix_s: 1_798_761_598, cmos: Vec::new() };
        let rtc = Rtc::new(&clock, Line::new(hpet.clone(), 8), &config);
        let pm = Pm::new(&clock, line(9), nothing.clone(), TimerWidth::Bits24);
        let config = HotplugConfig { cpus: 1, cpus_max: 32, blocks_max: 32 };
        let hotplug = Hotplug::new(config, pm.clone(), Box::new(Nothing));
        (1..5).for_each(|slot| hotplug.plugged(slot));
        let uart = Uart::new(&clock, line(4), nothing.clone());
        let i8042 = I8042::new(line(1), line(12), nothing.clone());
        let reset_control = ResetControl::new(nothing.clone());
        let debug_exit = DebugExit::new(nothing.clone());
        let testdev = TestDevice::new(irqs.clone(), nothing);
        let mut items = FwCfgItems::new(1, RAM_SIZE);
        items.add_file("etc/file", vec![1; 5000]).unwrap();
        let fw_cfg = FwCfg::new(memory(), items);

        map_ports(&space, &pic, pic::PORTS).unwrap();
        map_ports(&space, &pit, pit::PORTS).unwrap();
        map_ports(&space, &rtc, rtc::PORTS).unwrap();
        map_ports(&space, &i8042, i8042::PORTS).unwrap();
        map_ports(&space, &reset_control, reset_control::PORTS).unwrap();
        map_ports(&space, &debug_exit, debug_exit::PORTS).unwrap();
        map_ports(&space, &testdev, testdev::PORTS).unwrap();
        map_ports(&space, &fw_cfg, fw_cfg::PORTS).unwrap();
        space.map(UART_AT, uart::spec::SIZE, uart.clone()).unwrap();
        space.map(HOTPLUG_AT, hotplug::spec::SIZE, hotplug.clone()).unwrap();
        space.map(PM_AT, pm::spec::SIZE, pm.clone()).unwrap();
        space.map(IOAPIC_AT, ioapic::spec::SIZE, ioapic.clone()).unwrap();
        space.map(HPET_AT, hpet::spec::SIZE, hpet.clone()).unwrap();
        let devices: Vec<Arc<dyn Device>> = vec![
            pit,
            rtc,
            hpet,
            hotplug,
            pm.clone(),
            uart.clone(),
            i8042.clone(),
            reset_control,
            debug_exit,
            testdev,
            fw_cfg,
            pic.clone(),
            ioapic.clone(),
        ];
        Self { clock, space, ioapic, pic, uart, i8042, pm, devices }
    }

    fn save(&self) -> Vec<Section> {
        self.devices.iter().map(|device| device.save()).collect()
    }

    /// One event, as these numbers choose.
    fn step(&self, random: &mut Random) {
        match random.below(16) {
            0 => self.clock.advance_to(self.clock.now_ns() + random.below(3_000_000)),
            1 => {
                let jump = self.clock.now_ns() + random.below(1 << 40);
                self.clock.set_ns(jump); // the host was late
                self.clock.fire_due();
            }
            2 => match random.below(5) {
                0 => drop(self.uart.receive(&[0x61; 20][..random.below(21) as usize])),
                1 => drop(self.i8042.key(Key { code: random.next() as u8, extended: true }, true)),
                2 => self.i8042.mouse(Motion { right: random.next() as i32, ..Motion::default() }),
                3 => self.pm.press_power_button(),
                _ => self.pm.raise_gpe(random.next() as u8),
            },
            3 => drop(self.pic.ack()),
            4 => self.ioapic.eoi(random.next() as u8),
            5 => self.pic.set_line(random.below(20) as u32, random.next() & 1 != 0),
            _ => self.access(random),
        }
    }

    fn access(&self, random: &mut Random) {
        const RANGES: [(u64, u64); 17] = [
            (0x20, 2),
            (0x40, 4),
            (0x60, 5),
            (0x70, 4),
            (0x92, 1),
            (0xa0, 2),
            (0xe0, 8),
            (0xf4, 4),
            (0x4d0, 2),
            (0x510, 12),
            (PM_AT, 16),
            (UART_AT, 8),
            (0xcf9, 1),
            (0x2000, 24),
            (IOAPIC_AT, 0x48),
            (HPET_AT, 0x180),
            (HPET_AT + 0x100, 0x20),
        ];
        let (base, size) = RANGES[random.below(RANGES.len() as u64) as usize];
        let width = 1 << random.below(4);
        let address = match random.below(2) {
            0 => base + random.below(size),
            _ => base + random.below(size) / width * width,
        };
        let mut data = random.next().to_le_bytes();
        let data = &mut data[..width as usize];
        if random.next() & 1 == 0 {
            self.space.read(address, data);
        } else {
            self.space.write(address, data);
        }
    }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

#[test]
fn random_accesses_never_panic_and_state_survives_its_saving() {
    for seed in 1..=4 {
        let rig = Rig::new();
        let mut random = Random(seed);
        for round in 0..8 {
            for _ in 0..200 {
                rig.step(&mut random);
            }
            let saved = rig.save();
            let copy = Rig::new();
            copy.clock.set_ns(rig.clock.now_ns());
            for (device, section) in copy.devices.iter().zip(&saved) {
                device.restore(section).unwrap();
            }
            assert_eq!(copy.save(), saved, "seed {seed}, round {round}");
        }
    }
}

#[test]
fn a_restored_board_goes_on_like_the_first() {
    for seed in 1..=4 {
        let rig = Rig::new();
        let mut random = Random(seed);
        for _ in 0..300 {
            rig.step(&mut random);
        }
        let copy = Rig::new();
        copy.clock.set_ns(rig.clock.now_ns());
        for (device, section) in copy.devices.iter().zip(rig.save()) {
            device.restore(&section).unwrap();
        }
        let mut twin = Random(random.0);
        for step in 0..100 {
            rig.step(&mut random);
            copy.step(&mut twin);
            let (first, second) = (rig.save(), copy.save());
            for (a, b) in first.iter().zip(&second) {
                assert_eq!(a, b, "seed {seed}, step {step}");
            }
        }
    }
}

#[test]
fn after_reset_all_boards_are_alike() {
    let (fresh, used) = (Rig::new(), Rig::new());
    let mut random = Random(99);
    for _ in 0..500 {
        used.step(&mut random);
    }
    for rig in [&fresh, &used] {
        rig.clock.set_ns(1 << 50);
        rig.devices.iter().for_each(|device| device.reset());
    }
    // The RTC has a battery, and the rig has driven lines of the PIC behind everybody's back.
    let alike = |section: &Section| !["rtc", "pic"].contains(&section.kind.as_str());
    let of = |rig: &Rig| rig.save().into_iter().filter(alike).collect::<Vec<_>>();
    assert_eq!(of(&fresh), of(&used));
}

#[test]
fn bytes_damaged_in_a_section_are_refused_or_harmless() {
    let rig = Rig::new();
    let mut random = Random(5);
    for _ in 0..300 {
        rig.step(&mut random);
    }
    for section in rig.save() {
        for _ in 0..100 {
            let mut damaged = section.clone();
            if damaged.bytes.is_empty() {
                continue;
            }
            let at = random.below(damaged.bytes.len() as u64) as usize;
            damaged.bytes[at] ^= 1 << random.below(8);
            for device in &rig.devices {
                let _ = device.restore(&damaged);
            }
        }
        for _ in 0..50 {
            rig.step(&mut random);
        }
    }
}
