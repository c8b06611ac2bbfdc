//! Frames of any form, to the network in this process. Targets are kept on the host itself.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use net::{FRAME_MAX, HEADER_SIZE, Mac, Network, Offloads, Sent, UserConfig, UserNetwork};

/// Ethernet to the gateway, with IPv4 from 10.0.2.15.
const FRAME: &[u8] = b"\x52\x55\x0a\x00\x02\x02\x02\0\0\0\0\x01\x08\0\
    \x45\0\0\x28\0\0\0\0\x40\x06\0\0\x0a\0\x02\x0f\x0a\0\x02\x02";
/// Where its IPv4 addresses are, which stay.
const ADDRESSES: std::ops::Range<usize> = 26..34;

fuzz_target!(|data: &[u8]| {
    let config = UserConfig { mac: Mac([2, 0, 0, 0, 0, 1]), forwards: Vec::new() };
    let Ok(network) = UserNetwork::new(&config) else { return };
    network.attach(Arc::new(|_| ()));
    network.configure(Offloads::all(), 1);
    let mut room = vec![0; FRAME_MAX];
    for input in data.split(|byte| *byte == 0xfe) {
        let (changes, payload) = input.split_at(input.len().min(8));
        let mut frame = vec![0; HEADER_SIZE];
        frame.extend(FRAME);
        for change in changes.chunks_exact(2) {
            let at = usize::from(change[0]) % FRAME.len();
            if !ADDRESSES.contains(&at) && !(12..14).contains(&at) {
                frame[HEADER_SIZE + at] = change[1];
            }
        }
        let size = (20 + payload.len()) as u16;
        frame[HEADER_SIZE + 16..HEADER_SIZE + 18].copy_from_slice(&size.to_be_bytes());
        frame.extend(payload);
        while network.send(0, &frame) == Sent::Later {
            while network.receive(0, &mut room).is_some() {}
            std::thread::yield_now();
        }
        while network.receive(0, &mut room).is_some() {}
    }
});
