//! The files in `tests/state/golden`: what programs of all versions saved.

use std::fs;
use std::path::PathBuf;

use engine::Bus;
use guests::host;

use crate::{Saved, Vm, drive};

/// Where the HPET is.
const HPET: u64 = 0xfed0_0000;
/// Machine time at which Debian's kernel works with its disk.
const BUSY_MS: u64 = 1_400;

/// Registers Linux leaves as they are, set to be recognised: offset in the HPET and value (IA-PC
/// HPET 1.0a, 2.3.4 and 2.3.8: general configuration, comparator of timer 0).
pub const HPET_MARKS: [(u64, u64); 2] = [(0x10, 0b01), (0x108, 0x1234_5678)];
/// Port of the serial port's scratch register, and value.
pub const SCRATCH: (u16, u8) = (0x3ff, 0x5a);
/// A byte of the RTC's CMOS RAM, and value.
pub const CMOS: (u8, u8) = (0x3f, 0xa5);

/// What is selected in the firmware configuration, the size of RAM; three bytes have been read,
/// and the next is this.
pub const FW_CFG: (u16, u8) = (3, 0x0a);
/// What is in the test device's latch.
pub const LATCH: u32 = 0x1234_5678;

/// A file for each change of the format, the oldest first.
pub fn files() -> Vec<PathBuf> {
    let folder = host::root().join("tests/state/golden");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "state")).collect();
    files.sort();
    files
}

/// Where the next file goes.
pub fn next_file() -> PathBuf {
    host::root().join(format!("tests/state/golden/{:04}.state", files().len() + 1))
}

/// CPUs of the machines in the files.
pub const CORES: u32 = 2;

/// What today's program saves of a machine in whose devices something happens: Debian's kernel
/// works, and what it does not use is used here.
pub fn make() -> Vec<u8> {
    let mut vm = Vm::new(CORES);
    vm.boot();
    vm.run_ms(BUSY_MS);
    drive::before_the_end(&vm);
    vm.run_ms(1);
    drive::at_the_end(&mut vm);
    vm.save().pack()
}

/// Eight bytes of the HPET.
pub fn hpet(bus: &dyn Bus, offset: u64) -> u64 {
    let mut data = [0; 8];
    bus.mmio_read(HPET + offset, &mut data);
    u64::from_le_bytes(data)
}

/// What today's program saves of a machine that has this file's state.
pub fn again(file: &[u8]) -> Vec<u8> {
    Saved::unpack(CORES, file).save().pack()
}
