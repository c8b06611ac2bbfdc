//! What Debian's kernel does not do to devices. After both parts, hardly a field of the machine's
//! state is what it was after reset; where one excludes another, it says which was chosen.

use boot::layout::{self, port};
use chipset::i8042::{Key, Motion};
use engine::Bus;
use x86_state::{Exception, InDelivery, InterruptShadow, Raised, msr};

use crate::{Vm, golden};

const HPET: u64 = layout::HPET.base;
const IOAPIC: u64 = layout::IOAPIC.base;
const COM1: u16 = port::COM1.base as u16;
const PM: u16 = port::PM.base as u16;
const FW_CFG: u16 = port::FW_CFG.base as u16;
/// Where the board has the first disk and the console.
const DISK: u64 = 1;
const CONSOLE: u64 = 29;
/// A line nobody else drives, at the second PIC.
const LINE: u16 = 10;

/// The bus, in the terms of datasheets.
#[derive(Clone, Copy)]
struct Wires<'a>(&'a dyn Bus);

impl Wires<'_> {
    fn out(self, port: u16, bytes: &[u8]) {
        for byte in bytes {
            self.0.pio_write(port, &[*byte]);
        }
    }

    fn byte(self, port: u16) -> u8 {
        let mut byte = [0];
        self.0.pio_read(port, &mut byte);
        byte[0]
    }

    fn write32(self, address: u64, value: u32) {
        self.0.mmio_write(address, &value.to_le_bytes());
    }

    fn write64(self, address: u64, value: u64) {
        self.0.mmio_write(address, &value.to_le_bytes());
    }

    fn read32(self, address: u64) -> u32 {
        let mut data = [0; 4];
        self.0.mmio_read(address, &mut data);
        u32::from_le_bytes(data)
    }
}

/// What needs time to have its effect: 1 ms.
pub(crate) fn before_the_end(vm: &Vm) {
    let wires = Wires(vm.bus());
    hpet(wires);
    // 8254: counter 0 ticks every 0.2 ms, and nobody hears it.
    wires.out(0x43, &[0x34]);
    wires.out(0x40, &[0x00, 0x01]);
    // A periodic interrupt every 122 µs that nobody acknowledges (MC146818, registers A and B).
    wires.out(0x70, &[0x0a]);
    wires.out(0x71, &[0x23]);
    wires.out(0x70, &[0x0b]);
    wires.out(0x71, &[0x42]);
    uart(wires);
}

/// IA-PC HPET 1.0a, 2.3: timer 0 is periodic and far from its match, timer 1 has a level-triggered
/// one, timer 2 sends messages.
fn hpet(wires: Wires<'_>) {
    wires.write64(HPET + 0x100, 0b100_1000); // periodic, value set
    let (comparator, value) = golden::HPET_MARKS[1];
    wires.write64(HPET + comparator, value);
    wires.write64(HPET + comparator, 0x1000); // its period
    wires.write64(HPET + 0x120, 20 << 9 | 0b110); // input 20, level, enabled
    wires.write64(HPET + 0x128, 100);
    wires.write64(HPET + 0x150, 0xfee0_0000_0000_0040);
    wires.write64(HPET + golden::HPET_MARKS[0].0, golden::HPET_MARKS[0].1);
}

/// Two bytes wait so long that they time out, and others have been lost.
fn uart(wires: Wires<'_>) {
    // The guest's driver does not hear of it.
    wires.write32(IOAPIC, 0x10 + 2 * 4);
    wires.write32(IOAPIC + 0x10, 1 << 16);
    wires.out(COM1 + 1, &[0x05]); // interrupts for data and errors
    // 57600 baud: four characters' time is 0.7 ms.
    let lcr = wires.byte(COM1 + 3);
    wires.out(COM1 + 3, &[lcr | 0x80]);
    wires.out(COM1, &[2]);
    wires.out(COM1 + 3, &[lcr]);
    wires.out(COM1 + 2, &[0xc1]); // FIFOs, trigger at 14
    wires.out(COM1 + 4, &[0x1f]); // loopback
    wires.out(COM1, &[0x61; 20]);
    for _ in 0..14 {
        wires.byte(COM1);
    }
    wires.out(COM1 + 4, &[0x0b]);
    wires.out(golden::SCRATCH.0, &[golden::SCRATCH.1]);
}

/// What a guest that runs would undo.
pub(crate) fn at_the_end(vm: &mut Vm) {
    let wires = Wires(vm.bus());
    pit(wires);
    pics(wires);
    i8042(vm, wires);
    wires.write32(IOAPIC, 0);
    wires.write32(IOAPIC + 0x10, 5 << 24);
    wires.write32(IOAPIC, 1);
    // RTC: another year, and both indices.
    wires.out(0x70, &[9]);
    wires.out(0x71, &[0x30]);
    wires.out(0x72, &[0x21]);
    wires.out(0x70, &[golden::CMOS.0]);
    wires.out(0x71, &[golden::CMOS.1]);
    // ACPI 6.5, 4.8.3: a sleep type, but no sleep.
    vm.machine().press_power_button();
    wires.0.pio_write(PM + 4, &0x1402u16.to_le_bytes());
    wires.0.pio_write(PM + 0xe, &0x0006u16.to_le_bytes());
    // The machine's owner here does not listen to who wants a reset.
    wires.out(0xcf9, &[0x06]);
    wires.out(0x92, &[0x01]);
    wires.0.pio_write(FW_CFG, &golden::FW_CFG.0.to_le_bytes());
    for _ in 0..3 {
        wires.byte(FW_CFG + 1);
    }
    wires.0.pio_write(FW_CFG + 4, &7u32.to_be_bytes());
    wires.0.pio_write(0xe0, &golden::LATCH.to_le_bytes());
    virtio(vm, wires);
    vcpu(vm);
}

/// 8254: a count half written and both latches of counter 0; half a count read of counter 1, and
/// another waits for the end of its period; counter 2 held by its gate.
fn pit(wires: Wires<'_>) {
    wires.out(0x40, &[0x55]);
    wires.out(0x43, &[0xc2, 0x74]);
    wires.out(0x41, &[0x10, 0x20, 0x30, 0x40]);
    wires.byte(0x41);
    wires.out(0x61, &[0x03]);
    wires.out(0x43, &[0xb4]);
    wires.out(0x42, &[0x34, 0x12]);
    wires.out(0x61, &[0x02]);
}

/// 8259A: an interrupt of the second is in service; polling and everything that rotates is on.
fn pics(wires: Wires<'_>) {
    wires.out(0x21, &[!0x04]);
    wires.out(0xa1, &[!0x04]);
    wires.out(0x2000 + LINE, &[1]);
    assert!(wires.0.ack_intr().is_some(), "the line is heard");
    for command in [0x20, 0xa0] {
        // Rotate at automatic ends, lowest priority 3, special mask, read ISR, poll.
        wires.out(command, &[0x80, 0xc3, 0x68, 0x0b, 0x0c]);
    }
    wires.out(0x4d0, &[0x20]);
    wires.out(0x4d1, &[0x02]);
}

/// A mouse with a wheel, in remote mode and wrapping; a keyboard that does not scan, has lights on
/// and more to say than there is room for.
fn i8042(vm: &Vm, wires: Wires<'_>) {
    let drain = || {
        while wires.byte(0x64) & 1 != 0 {
            wires.byte(0x60);
        }
    };
    let mouse = |byte: u8| {
        wires.out(0x64, &[0xd4]);
        wires.out(0x60, &[byte]);
    };
    let device = vm.machine().i8042();
    wires.out(0x64, &[0x60]);
    wires.out(0x60, &[0x47]);
    drain();
    // Rates that show the wheel, resolution, scaling, reports.
    for byte in [0xf3, 200, 0xf3, 100, 0xf3, 80, 0xe8, 3, 0xe7, 0xf4] {
        mouse(byte);
        drain();
    }
    device.mouse(Motion { buttons: 1, ..Motion::default() });
    drain();
    device.key(Key { code: 0x1e, extended: false }, true);
    drain();
    mouse(0xf0); // remote
    drain();
    device.mouse(Motion { right: 5, up: -3, wheel: 1, buttons: 3 });
    mouse(0xee); // wrap: what comes next comes back
    mouse(0x55);
    // Off; lights; scan set 1; lights again, without saying which.
    wires.out(0x60, &[0xf5, 0xed, 0x05, 0xf0, 0x01, 0xed]);
    wires.out(0x64, &[0x20, 0xd1]);
}

/// Virtio 1.3: the disk's cache writes through (5.2.4), and the console has another size, input
/// that nobody takes and a message that is masked.
fn virtio(vm: &Vm, wires: Wires<'_>) {
    wires.0.mmio_write(device_config(wires, DISK) + 32, &[0]);
    // PCI 3.0, 6.8.2.3: function mask.
    let control = capability(wires, CONSOLE, |id, _| id == 0x11);
    wires.write32(control, wires.read32(control) | 1 << 30);
    vm.machine().pause_io();
    let console = vm.machine().console().unwrap();
    console.resize(132, 43);
    console.input(b"typed");
}

/// Where a function's device-specific registers are (virtio 1.3, 4.1.4).
fn device_config(wires: Wires<'_>, device: u64) -> u64 {
    let found = capability(wires, device, |id, kind| id == 0x09 && kind == 4);
    let bar = config(device) + 0x10 + 4 * u64::from(wires.read32(found + 4) as u8);
    let base = u64::from(wires.read32(bar) & !0xf) | u64::from(wires.read32(bar + 4)) << 32;
    base + u64::from(wires.read32(found + 8))
}

/// A function's configuration space.
fn config(device: u64) -> u64 {
    layout::ECAM.base + (device << 15)
}

/// The first capability of which this is so: ID and fourth byte.
fn capability(wires: Wires<'_>, device: u64, is_it: impl Fn(u8, u8) -> bool) -> u64 {
    let mut at = wires.read32(config(device) + 0x34) & 0xff;
    while at != 0 {
        let [id, next, _, kind] = wires.read32(config(device) + u64::from(at)).to_le_bytes();
        if is_it(id, kind) {
            break;
        }
        at = u32::from(next);
    }
    assert_ne!(at, 0, "device {device} has such a capability");
    config(device) + u64::from(at)
}

/// Registers that Linux leaves alone, and events that are about to be delivered.
fn vcpu(vm: &mut Vm) {
    let mut state = vm.vcpu(0);
    state.debug.address = [0x1000, 0x2000, 0x3000, 0x4000];
    state.debug.dr6 |= 1;
    state.debug.dr7 |= 0x3;
    state.ldtr.base = 0x5000;
    state.ldtr.selector = 0x68;
    state.msrs.cstar = 0xffff_ffff_8100_0000;
    state.msrs.tsc_adjust = 77;
    state.msrs.misc_enable ^= msr::MISC_ENABLE_RESET;
    state.msrs.mtrr.fixed[0] = 0x0606_0606_0606_0606;
    state.msrs.mtrr.variable[0] = (0x8000_0006, 0xff_8000_0800);
    state.tsc_offset = 12_345;
    state.shadow = InterruptShadow::Sti;
    state.nmi_masked = true;
    state.nmi_pending = true;
    state.raised =
        Some(Raised { exception: Exception::Pf, error_code: Some(2), payload: Some(0x1234) });
    vm.set_vcpu(0, &state);
    let mut state = vm.vcpu(1);
    state.apic.base += 0x1000;
    state.in_delivery = Some(InDelivery::Software { vector: 0x80, length: 2 });
    vm.set_vcpu(1, &state);
}
