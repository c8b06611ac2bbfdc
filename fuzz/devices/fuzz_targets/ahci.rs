//! Registers, command lists and packets of a SATA controller.

#![no_main]

use std::sync::Arc;

use ahci::{Ahci, AhciWiring, Drive};
use fuzz_devices::Input;
use fuzz_devices::controller::Rig;
use fuzz_devices::memory_disk::MemoryDisk;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let rig = Rig::default();
    let wiring = AhciWiring {
        memory: rig.memory.clone(),
        spaces: rig.spaces.clone(),
        msi: Rig::msi(),
        event_loop: None,
    };
    let serial = || "fuzz".to_owned();
    let drives = vec![
        Drive::Disk { disk: Arc::new(MemoryDisk::default()), serial: serial() },
        Drive::Cdrom { disk: Some(Arc::new(MemoryDisk::default())), serial: serial() },
        Drive::Cdrom { disk: None, serial: serial() },
    ];
    let ahci = Ahci::new(drives, &wiring);
    rig.plug(ahci.function(), 5);
    let mut input = Input(data);
    // Ports with lists of commands that the input fills: those are hard to find.
    for port in 0..3u32 {
        let at = 0x100 + 0x80 * u64::from(port);
        let list = 0x1000 + port * 0x4000;
        rig.write(at, list);
        rig.write(at + 8, list + 0x800);
        for slot in 0..4u32 {
            let table = list + 0x1000 + slot * 0x400;
            let mut header = [0; 32];
            (header[0], header[2]) = (5, 3);
            header[8..12].copy_from_slice(&table.to_le_bytes());
            rig.fill(u64::from(list + slot * 32), &header);
            let command = input.bytes(16).to_vec();
            rig.fill(table.into(), &[&[0x27, 0x80], &command[..]].concat());
            if port > 0 {
                rig.fill(u64::from(table) + 2, &[0xa0]);
                rig.fill(u64::from(table) + 0x40, &command);
            }
            for prd in 0..3u64 {
                let size = u32::from(input.u16());
                let entry = [0x2_0000 + 0x1000 * prd, u64::from(size) << 32];
                rig.fill(u64::from(table) + 0x80 + 16 * prd, &entry.map(u64::to_le_bytes).concat());
            }
        }
        rig.write(at + 0x18, 0x10);
        rig.write(at + 0x18, 0x11);
        rig.write(at + 0x38, input.u8().into());
    }
    let pause = |on| if on { ahci.pause() } else { ahci.resume() };
    rig.drive(&*ahci, &pause, &mut input);
});
