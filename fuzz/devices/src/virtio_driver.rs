//! A hostile driver: well-formed set-up by turns with anything at all.

use std::sync::Arc;

use bus::Device;
use guest_memory::GuestMemory;
use virtio::VirtioDevice;
use vm_memory::{Bytes, GuestAddress};

use crate::Input;
use crate::testing::*;

/// Addresses that matter: rings, buffers, the ends of RAM, and beyond.
fn address(input: &mut Input<'_>) -> u64 {
    let (kind, offset) = (input.u8(), u64::from(input.u16()));
    match kind % 8 {
        0..3 => RINGS + offset % (2 * QUEUE_BYTES),
        3..6 => BUFFERS + offset,
        6 => (RAM_SIZE - 0x100).wrapping_add(offset),
        _ => u64::MAX - offset,
    }
}

fn desc(input: &mut Input<'_>) -> Desc {
    let gpa = address(input);
    let size = match input.u8() {
        size @ 0..200 => u32::from(size),
        200..250 => 512 * u32::from(input.u8()),
        _ => input.number(4) as u32,
    };
    Desc { gpa, size, flags: u16::from(input.u8() & 7), next: u16::from(input.u8() % 20) }
}

/// Does what the input says to a machine with `device`. `host` is what happens on the host's
/// side of the device meanwhile.
pub fn drive(device: Arc<dyn VirtioDevice>, data: &[u8], host: impl Fn(&mut Input<'_>)) {
    run(Machine::new(device), data, host);
}

/// The same to a machine whose memory the device knows.
pub fn drive_over(
    memory: Arc<GuestMemory>,
    device: Arc<dyn VirtioDevice>,
    data: &[u8],
    host: impl Fn(&mut Input<'_>),
) {
    run(Machine::over(memory, device), data, host);
}

fn run(m: Machine, data: &[u8], host: impl Fn(&mut Input<'_>)) {
    let mut queues = m.start(!0);
    let mut input = Input(data);
    while !input.is_empty() {
        match input.u8() % 16 {
            0..3 => {
                let gpa = address(&mut input);
                let size = usize::from(input.u8());
                // Where there is no RAM, a guest cannot write either.
                let _ = m.memory.dma().write_slice(input.bytes(size), GuestAddress(gpa));
            }
            3..6 => {
                let q = usize::from(input.u8()) % queues.len();
                let count = usize::from(input.u8() % 6);
                let mut chain: Vec<_> = (0..count).map(|_| desc(&mut input)).collect();
                // A sensible order more often than chance would have it.
                chain.iter_mut().for_each(|d| d.flags &= !NEXT);
                chain.sort_by_key(|d| d.flags & WRITE);
                queues[q].add(&m, &chain);
                queues[q].ring(&m);
            }
            6 => {
                let q = usize::from(input.u8()) % queues.len();
                let (index, desc) = (u16::from(input.u8() % 16), desc(&mut input));
                queues[q].set(&m, index, desc);
                queues[q].offer(&m, index);
            }
            7 => {
                let q = usize::from(input.u8()) % queues.len();
                queues[q].set_avail_index(&m, input.u16());
                queues[q].ring(&m);
            }
            8 => {
                let (at, size) = (u64::from(input.u8() % 64), input.access_size());
                m.set_common(at, size, input.number(size));
            }
            9 => {
                let (at, size) = (u64::from(input.u16()), input.access_size());
                m.read(BAR_BASE + at, size);
            }
            10 => {
                let (at, size) = (u64::from(input.u16()), input.access_size());
                m.write(BAR_BASE + at, size, input.number(size));
            }
            11 => m.pci_write(u64::from(input.u8()), input.number(4) as u32),
            12 => {
                // The driver starts anew.
                m.pci_write(0x14, 0);
                m.pci_write(0x10, BAR_BASE as u32);
                m.pci_write(4, 6);
                queues = m.start(!0);
            }
            13 => {
                m.device.pause();
                let saved = m.device.save();
                m.device.restore(&saved).expect("what was saved can be restored");
                assert_eq!(m.device.save(), saved);
                m.device.resume();
            }
            14 => host(&mut input),
            _ => {
                let q = usize::from(input.u8()) % queues.len();
                queues[q].want_interrupt_at(&m, input.u16());
            }
        }
        m.messages.take();
    }
}
