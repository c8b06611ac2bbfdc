//! Page numbers, reports, hints and statistics of any form, while the host asks for memory.

#![no_main]

use fuzz_devices::testing::memory;
use fuzz_devices::virtio_driver::drive_over;
use libfuzzer_sys::fuzz_target;
use virtio::Balloon;

fuzz_target!(|data: &[u8]| {
    let memory = memory();
    let balloon = Balloon::new(memory.clone());
    drive_over(memory, balloon.clone(), data, |input| match input.u8() % 3 {
        0 => balloon.set_target(input.number(8)),
        1 => balloon.reclaim(),
        _ => drop(balloon.stats()),
    });
});
