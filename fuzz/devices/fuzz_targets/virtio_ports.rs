//! Port buffers and control messages of any form, while the host sends and takes.

#![no_main]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fuzz_devices::virtio_driver::drive;
use libfuzzer_sys::fuzz_target;
use virtio::{PortConfig, PortPeer, Ports};

/// Has room for so much.
#[derive(Default)]
struct Peer(AtomicUsize);

impl PortPeer for Peer {
    fn take(&self, bytes: &[u8]) -> usize {
        let room = self.0.load(Ordering::Relaxed).min(bytes.len());
        self.0.fetch_sub(room, Ordering::Relaxed);
        room
    }
    fn room(&self) {}
    fn opened(&self, _open: bool) {}
}

fuzz_target!(|data: &[u8]| {
    let peer = Arc::new(Peer::default());
    let port = |name: &str| PortConfig { name: name.into(), peer: peer.clone() };
    let ports = Ports::new(vec![port("one"), port("two")]);
    drive(ports.clone(), data, |input| {
        let index = usize::from(input.u8() % 2);
        peer.0.store(input.u16().into(), Ordering::Relaxed);
        ports.resume(index);
        ports.input(index, &vec![b'x'; input.u16().into()]);
    });
});
