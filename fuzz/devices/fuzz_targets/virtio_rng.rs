//! Entropy requests of any form.

#![no_main]

use fuzz_devices::virtio_driver::drive;
use libfuzzer_sys::fuzz_target;
use virtio::{Entropy, EntropySource};

fuzz_target!(|data: &[u8]| {
    drive(Entropy::new(EntropySource::Seeded(1)), data, |_| ());
});
