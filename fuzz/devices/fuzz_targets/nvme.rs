//! Registers and queues of an NVMe controller.

#![no_main]

use std::sync::Arc;

use fuzz_devices::Input;
use fuzz_devices::controller::Rig;
use fuzz_devices::memory_disk::MemoryDisk;
use libfuzzer_sys::fuzz_target;
use nvme::{Nvme, NvmeConfig, NvmeWiring};

fuzz_target!(|data: &[u8]| {
    let rig = Rig::default();
    let wiring = NvmeWiring {
        memory: rig.memory.clone(),
        spaces: rig.spaces.clone(),
        msi: Rig::msi(),
        event_loops: Vec::new(),
    };
    let disk = Arc::new(MemoryDisk::default());
    let nvme = Nvme::new(NvmeConfig { disk, serial: "fuzz".into(), queues: 2 }, &wiring);
    rig.plug(nvme.function(), 0);
    let mut input = Input(data);
    // Queues that the input fills: a controller that is on is hard to find.
    let queue = |opcode: u8, gpa: u64, id: u32, more: u32| {
        let mut entry = [0; 64];
        entry[0] = opcode;
        entry[24..32].copy_from_slice(&gpa.to_le_bytes());
        entry[40..44].copy_from_slice(&(15 << 16 | id).to_le_bytes());
        entry[44..48].copy_from_slice(&more.to_le_bytes());
        entry
    };
    rig.fill(0x1000, &queue(5, 0x4000, 1, 1 << 16 | 3));
    rig.fill(0x1040, &queue(1, 0x3000, 1, 1 << 16 | 1));
    for slot in 0..8u64 {
        let mut entry = [0; 64];
        let bytes = input.bytes(20).to_vec();
        let [head, tail @ ..] = &bytes[..] else { break };
        (entry[0], entry[4]) = (*head, 1);
        entry[24..27].copy_from_slice(&[0, 0, 2]);
        entry[32..35].copy_from_slice(&[0, 0, 3]);
        for (to, byte) in entry[40..].iter_mut().zip(tail) {
            *to = *byte;
        }
        rig.fill(0x3000 + 64 * slot, &entry);
        rig.fill(0x1080 + 64 * slot, &entry);
    }
    rig.write(0x24, 31 << 16 | 31);
    rig.write(0x28, 0x1000);
    rig.write(0x30, 0x2000);
    rig.write(0x14, 0x0046_0001);
    rig.write(0x1000, 2);
    rig.write(0x1008, 8);
    rig.write(0x1000, 2 + u32::from(input.u8() % 16));
    let pause = |on| if on { nvme.pause() } else { nvme.resume() };
    rig.drive(&*nvme, &pause, &mut input);
});
