//! Registers and rings of a gigabit network card, while frames come.

#![no_main]

use std::sync::{Arc, Mutex};

use e1000::{E1000, E1000Wiring};
use fuzz_devices::Input;
use fuzz_devices::controller::Rig;
use libfuzzer_sys::fuzz_target;
use net::{FRAME_MAX, Mac, Network, NetworkInfo, Offloads, OnReady, Sent};

/// Takes every other frame, and gives those that came.
#[derive(Default)]
struct Any {
    coming: Mutex<Vec<Vec<u8>>>,
    full: Mutex<bool>,
}

impl Network for Any {
    fn info(&self) -> NetworkInfo {
        NetworkInfo { pairs: 1, from_guest: Offloads::all(), to_guest: Offloads::all() }
    }
    fn attach(&self, _on_ready: OnReady) {}
    fn configure(&self, to_guest: Offloads, pairs: u16) {
        assert_eq!((to_guest, pairs), (Offloads::empty(), 1));
    }
    fn send(&self, _pair: usize, frame: &[u8]) -> Sent {
        assert!(frame.len() <= FRAME_MAX);
        let mut full = self.full.lock().unwrap();
        *full = !*full;
        if *full { Sent::Taken } else { Sent::Later }
    }
    fn receive(&self, _pair: usize, frame: &mut [u8]) -> Option<usize> {
        let next = self.coming.lock().unwrap().pop()?;
        frame[..next.len()].copy_from_slice(&next);
        Some(next.len())
    }
}

fuzz_target!(|data: &[u8]| {
    let rig = Rig::default();
    let network = Arc::new(Any::default());
    let wiring = E1000Wiring {
        memory: rig.memory.clone(),
        spaces: rig.spaces.clone(),
        network: network.clone(),
        event_loop: None,
    };
    let card = E1000::new(Mac([2, 0, 0, 0, 0, 1]), &wiring).unwrap();
    rig.plug(card.function(), 0);
    let mut input = Input(data);
    for _ in 0..input.u8() % 8 {
        let size = usize::from(input.u16());
        let mut frame = vec![0xff; 12 + size];
        let head = input.bytes(60).to_vec();
        let count = head.len().min(size);
        frame[12..12 + count].copy_from_slice(&head[..count]);
        network.coming.lock().unwrap().push(frame);
    }
    // Rings that the input fills: a card that is on is hard to find.
    for slot in 0..8u64 {
        let sends = input.bytes(16).to_vec();
        rig.fill(0x1000 + 16 * slot, &sends);
        rig.fill(0x2000 + 16 * slot, &(0x1_0000 + 0x800 * slot).to_le_bytes());
    }
    for (ring, base) in [(0x3800, 0x1000), (0x2800, 0x2000)] {
        rig.write(ring, base);
        rig.write(ring + 8, 128);
    }
    rig.write(0x400, 2);
    rig.write(0x100, 0x8002 | u32::from(input.u8()) << 8);
    rig.write(0x2818, 7);
    rig.write(0x3818, 7);
    let pause = |on| if on { card.pause() } else { card.resume() };
    rig.drive(&*card, &pause, &mut input);
});
