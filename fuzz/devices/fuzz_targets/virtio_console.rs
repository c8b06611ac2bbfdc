//! Console buffers of any form, while someone types.

#![no_main]

use fuzz_devices::virtio_driver::drive;
use libfuzzer_sys::fuzz_target;
use virtio::{Console, ConsoleConfig};

fuzz_target!(|data: &[u8]| {
    let console = Console::new(ConsoleConfig {
        output: Box::new(|_| ()),
        room: Box::new(|| ()),
        size: (80, 25),
    });
    drive(console.clone(), data, |input| {
        let size = usize::from(input.u16() % 5000);
        if input.u8() % 4 == 0 {
            console.resize(input.u16(), input.u16());
        }
        console.input(&vec![b'x'; size]);
    });
});
