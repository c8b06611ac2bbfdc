//! Disk requests of any form, to a disk in memory.

#![no_main]

use std::sync::Arc;

use fuzz_devices::memory_disk::MemoryDisk;
use fuzz_devices::virtio_driver::drive;
use libfuzzer_sys::fuzz_target;
use virtio::{Block, BlockConfig};

fuzz_target!(|data: &[u8]| {
    let disk = Arc::new(MemoryDisk::default());
    drive(Block::new(disk, &BlockConfig { serial: "fuzz".into(), queues: 2 }), data, |_| ());
});
