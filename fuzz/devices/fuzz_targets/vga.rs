//! Registers, window and frame buffer of the display adapter, and the pictures that follow.

#![no_main]

use std::sync::Arc;

use bus::{AddressSpace, BusDevice, Device};
use display::{Picture, VRAM_BYTES, Vga, VgaConfig};
use fuzz_devices::Input;
use guest_memory::{FlatView, GuestMemory, RamOffset};
use libfuzzer_sys::fuzz_target;
use machine_clock::{MachineClock, TimeSource};
use pci::Spaces;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let Ok(memory) = GuestMemory::new(&[("vram", VRAM_BYTES)]) else { return };
    memory.set_view(FlatView::new());
    let clock = MachineClock::new(TimeSource::Counted);
    let vga = Vga::new(VgaConfig {
        memory,
        vram: RamOffset(0),
        clock: clock.clone(),
        placed: Box::new(|_| {}),
    });
    let spaces = Spaces { memory: AddressSpace::new(), io: AddressSpace::new() };
    let function = vga.function(None, true, &spaces);
    function.config_write(0x10, &0xc000_0000u32.to_le_bytes());
    function.config_write(0x18, &0xd000_0000u32.to_le_bytes());
    function.config_write(4, &[2, 0]);
    let (window, dispi): (Arc<dyn BusDevice>, Arc<dyn BusDevice>) = (vga.window(), vga.dispi());
    let mut picture = Picture::default();
    let mut captures = 0;
    while !input.is_empty() {
        let (what, size) = (input.u8(), input.access_size());
        let mut bytes = input.number(size).to_le_bytes();
        let bytes = &mut bytes[..size];
        match what % 10 {
            0..4 => vga.write(0x3b4 + u64::from(input.u8() % 0x2c), bytes),
            4 => vga.read(0x3b4 + u64::from(input.u8() % 0x2c), bytes),
            5 => window.write(input.number(3) & 0x1_ffff, bytes),
            6 => window.read(input.number(3) & 0x1_ffff, bytes),
            7 => dispi.write(u64::from(input.u8() % 3), bytes),
            8 => spaces.memory.write(0xd000_0000 + (input.number(2) & 0xfff), bytes),
            _ if captures < 1 => {
                captures += 1;
                vga.capture(&mut picture);
                let saved = vga.save();
                vga.reset();
                assert!(vga.restore(&saved).is_ok() && vga.save() == saved);
            }
            _ => clock.set_ns(clock.now_ns() + input.number(4)),
        }
    }
    vga.capture(&mut picture);
});
