//! Frames and control commands of any form, while others come.

#![no_main]

use std::sync::{Arc, Mutex, OnceLock};

use fuzz_devices::virtio_driver::drive;
use libfuzzer_sys::fuzz_target;
use net::{Mac, Network, NetworkInfo, Offloads, OnReady, Ready, Sent};
use virtio::{Net, NetConfig};

/// Takes every other frame, and gives those that came.
#[derive(Default)]
struct Any {
    coming: Mutex<Vec<Vec<u8>>>,
    full: Mutex<bool>,
    on_ready: OnceLock<OnReady>,
}

impl Network for Any {
    fn info(&self) -> NetworkInfo {
        NetworkInfo { pairs: 2, from_guest: Offloads::all(), to_guest: Offloads::all() }
    }
    fn attach(&self, on_ready: OnReady) {
        let _ = self.on_ready.set(on_ready);
    }
    fn configure(&self, _to_guest: Offloads, pairs: u16) {
        assert!((1..=2).contains(&pairs));
    }
    fn send(&self, pair: usize, _frame: &[u8]) -> Sent {
        assert!(pair < 2);
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
    let any = Arc::new(Any::default());
    let card = Net::new(any.clone(), NetConfig { mac: Mac([2, 0, 0, 0, 0, 1]), mac_changes: true });
    drive(card.clone(), data, |input| {
        let size = 12 + usize::from(input.u16());
        let to = if input.u8() % 2 == 0 { 0xff } else { input.u8() };
        if input.u8() % 8 == 0 {
            card.set_link(input.u8() % 2 == 0);
        }
        any.coming.lock().unwrap().push(vec![to; size]);
        let pair = usize::from(input.u8() % 3);
        any.on_ready.get().unwrap()(Ready::Receive(pair));
        any.on_ready.get().unwrap()(Ready::Send(pair));
    });
});
