//! Receiving (3.2).

use guest_memory::DmaMemory;
use net::{FRAME_MAX, HEADER_SIZE, Network};
use vm_memory::{Bytes, GuestAddress};

use crate::spec::*;
use crate::state::State;
use crate::transmit::Turn;
use crate::{filter, offload};

/// Frames before others of the thread have their turn.
const BATCH: usize = 64;
/// What the card puts behind a frame without RCTL.SECRC.
const CHECK_SIZE: usize = 4;

/// A frame that the ring has no room for yet: so many bytes, or none.
pub(crate) struct Received {
    pub(crate) frame: Box<[u8]>,
    pub(crate) size: usize,
}

impl Default for Received {
    fn default() -> Self {
        Self { frame: vec![0; FRAME_MAX].into(), size: 0 }
    }
}

/// Bytes of a descriptor's buffer (13.4.22).
fn buffer_size(state: &State) -> usize {
    let size = 2048 >> (state.get(RCTL) >> 16 & 3);
    // With BSEX and the largest size is reserved.
    if state.has(RCTL, RCTL_BSEX) && size < 2048 { size * 16 } else { size }
}

/// Receives what the network and the ring have.
pub(crate) fn run(
    state: &mut State,
    received: &mut Received,
    memory: &DmaMemory,
    network: &dyn Network,
) -> Turn {
    for _ in 0..BATCH {
        if !state.has(RCTL, RCTL_EN) || state.ring(RX_RING).filled() == 0 {
            return Turn::Over;
        }
        if received.size == 0 {
            match network.receive(0, &mut received.frame) {
                None => return Turn::Over,
                Some(size) => received.size = size,
            }
        }
        let frame = received.frame.get(HEADER_SIZE..received.size).unwrap_or_default();
        if frame.len() >= 14 && !put(state, frame, memory) {
            return Turn::Over;
        }
        received.size = 0;
    }
    Turn::More
}

/// What is written into the last descriptor of a frame, besides its length.
#[derive(Default)]
struct Found {
    status: u8,
    errors: u8,
    special: u16,
}

/// Puts a frame into the ring. False when it must wait for more descriptors.
fn put(state: &mut State, frame: &[u8], memory: &DmaMemory) -> bool {
    state.count(TPR);
    state.count_bytes(TORL, frame.len() + CHECK_SIZE);
    if !filter::passes(state, frame) {
        return true;
    }
    let tag = filter::tag(state, frame);
    let longest = match tag {
        _ if state.has(RCTL, RCTL_LPE) => FRAME_LONGEST_LPE,
        Some(_) => FRAME_LONGEST,
        None => FRAME_LONGEST - 4,
    };
    if frame.len() > longest {
        state.count(ROC);
        return true;
    }
    let mut found = checks(state, frame);
    let strips = tag.filter(|_| state.has(CTRL, CTRL_VME));
    let (first, rest) = match strips {
        Some(tag) => {
            (found.special, found.status) = (tag, found.status | STA_VP);
            (&frame[..12], &frame[16..])
        }
        None => (frame, &frame[..0]),
    };
    let mut bytes = Vec::with_capacity(frame.len().max(FRAME_SHORTEST) + CHECK_SIZE);
    bytes.extend_from_slice(first);
    bytes.extend_from_slice(rest);
    bytes.resize(bytes.len().max(FRAME_SHORTEST), 0);
    if !state.has(RCTL, RCTL_SECRC) {
        bytes.resize(bytes.len() + CHECK_SIZE, 0);
    }
    store(state, &bytes, &found, memory) && counted(state, frame)
}

fn counted(state: &mut State, frame: &[u8]) -> bool {
    state.count(GPRC);
    state.count_bytes(GORCL, frame.len() + CHECK_SIZE);
    match frame {
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, ..] => state.count(BPRC),
        [first, ..] if first & 1 != 0 => state.count(MPRC),
        _ => {}
    }
    true
}

/// Checksums that the driver wants to hear of: where none was looked at, it says so.
fn checks(state: &State, frame: &[u8]) -> Found {
    let mut found = Found::default();
    let [ip, transport] = offload::verify(frame);
    for (right, wanted, status, error) in
        [(ip, RXCSUM_IPOFLD, STA_IPCS, ERR_IPE), (transport, RXCSUM_TUOFLD, STA_TCPCS, ERR_TCPE)]
    {
        let Some(right) = right.filter(|_| state.has(RXCSUM, wanted)) else { continue };
        found.status |= status;
        found.errors |= if right { 0 } else { error };
    }
    if found.status == 0 {
        found.status = STA_IXSM;
    }
    found
}

/// Writes a frame into as many buffers as it takes. False when there are too few.
fn store(state: &mut State, bytes: &[u8], found: &Found, memory: &DmaMemory) -> bool {
    let size = buffer_size(state);
    let mut ring = state.ring(RX_RING);
    let needed = bytes.len().div_ceil(size) as u32;
    if needed >= ring.entries {
        // The ring can never hold it.
        state.count(MPC);
        return true;
    }
    if needed > ring.filled() {
        return false;
    }
    let count = bytes.chunks(size).len();
    for (n, chunk) in bytes.chunks(size).enumerate() {
        let at = ring.at();
        let mut address = [0; 8];
        if memory.read_slice(&mut address, GuestAddress(at)).is_ok() {
            let to = u64::from_le_bytes(address);
            let mut tail = [0; 8];
            tail[..2].copy_from_slice(&(chunk.len() as u16).to_le_bytes()); // 16 KiB at most
            let mut status = STA_DD;
            if n + 1 == count {
                status |= STA_EOP | found.status;
                tail[5] = found.errors;
                tail[6..].copy_from_slice(&found.special.to_le_bytes());
            }
            // What is not RAM takes nothing, as on a bus. The status goes last.
            let _ = memory.write_slice(chunk, GuestAddress(to));
            let _ = memory.write_slice(&tail, GuestAddress(at.wrapping_add(8)));
            let _ = memory.write_obj(status, GuestAddress(at.wrapping_add(12)));
        }
        ring.advance();
    }
    *state.register(RX_RING + HEAD) = ring.head;
    // The share of the ring at which the driver wants to hear of it: 1/2, 1/4, 1/8 (13.4.22).
    let few = ring.entries >> (1 + (state.get(RCTL) >> 8 & 3));
    state.raise(if ring.filled() <= few { RXT0 | RXDMT0 } else { RXT0 });
    true
}
