//! Sending (3.3, 3.4).

use guest_memory::DmaMemory;
use net::{FRAME_MAX, HEADER_SIZE, Network, Sent};
use vm_memory::{Bytes, GuestAddress};

use crate::offload;
use crate::spec::*;
use crate::state::{Context, State};

/// Descriptors that are looked at before others of the thread have their turn.
const BATCH: usize = 256;
/// The shortest frame that can be sent: a header of Ethernet.
const ETHERNET_SIZE: usize = 14;

/// How a turn has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// There is nothing left, or the network or the driver must do something first.
    Over,
    /// There is more.
    More,
}

/// A descriptor, in the words that all kinds have.
struct Descriptor {
    words: [u32; 4],
}

impl Descriptor {
    fn read(memory: &DmaMemory, at: u64) -> Option<Self> {
        let mut bytes = [0; DESCRIPTOR_SIZE as usize];
        memory.read_slice(&mut bytes, GuestAddress(at)).ok()?;
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Some(Self { words })
    }

    fn command(&self) -> u8 {
        (self.words[2] >> 24) as u8
    }

    fn is_extended(&self) -> bool {
        self.command() & CMD_DEXT != 0
    }

    fn is_context(&self) -> bool {
        self.is_extended() && self.words[2] >> 20 & 15 != DTYP_DATA
    }

    fn address(&self) -> u64 {
        u64::from(self.words[1]) << 32 | u64::from(self.words[0])
    }

    fn length(&self) -> usize {
        let mask = if self.is_extended() { 0xf_ffff } else { 0xffff };
        (self.words[2] & mask) as usize
    }

    fn special(&self) -> u16 {
        (self.words[3] >> 16) as u16
    }

    fn context(&self) -> Context {
        let [ip, tu, kind, more] = self.words;
        let [ipcss, ipcso, ..] = ip.to_le_bytes();
        let [tucss, tucso, ..] = tu.to_le_bytes();
        Context {
            ipcss,
            ipcso,
            ipcse: (ip >> 16) as u16,
            tucss,
            tucso,
            tucse: (tu >> 16) as u16,
            tucmd: (kind >> 24) as u8,
            hdrlen: (more >> 8) as u8,
            mss: (more >> 16) as u16,
        }
    }
}

/// Sends what the ring has.
pub(crate) fn run(state: &mut State, memory: &DmaMemory, network: &dyn Network) -> Turn {
    let mut causes = 0;
    let mut turn = Turn::More;
    for _ in 0..BATCH {
        let mut ring = state.ring(TX_RING);
        if !state.has(TCTL, TCTL_EN) || ring.filled() == 0 {
            turn = Turn::Over;
            break;
        }
        let at = ring.at();
        // A ring where no RAM is: its descriptors say nothing.
        if let Some(descriptor) = Descriptor::read(memory, at) {
            if take(state, &descriptor, memory, network) == Sent::Later {
                turn = Turn::Over;
                break;
            }
            if descriptor.command() & CMD_RS != 0 {
                let status = descriptor.words[3] as u8 | STA_DD;
                // Where it was read from, it can be written.
                let _ = memory.write_obj(status, GuestAddress(at.wrapping_add(12)));
                causes |= TXDW;
            }
        }
        ring.advance();
        *state.register(TX_RING + HEAD) = ring.head;
        if ring.filled() == 0 {
            causes |= TXQE;
        }
    }
    state.raise(causes);
    turn
}

/// Takes a descriptor. With [`Sent::Later`] it is to come again.
fn take(
    state: &mut State,
    descriptor: &Descriptor,
    memory: &DmaMemory,
    network: &dyn Network,
) -> Sent {
    if !state.sending.whole {
        if descriptor.is_context() {
            let cuts = descriptor.command() & CMD_TSE != 0;
            state.contexts[usize::from(cuts)] = descriptor.context();
            return Sent::Taken;
        }
        gather(state, descriptor, memory);
        if descriptor.command() & CMD_EOP == 0 {
            return Sent::Taken;
        }
        let sending = &state.sending;
        let lost = sending.lost || sending.frame.len() < HEADER_SIZE + ETHERNET_SIZE;
        if lost || finish(state, descriptor).is_none() {
            state.sending.clear();
            return Sent::Taken;
        }
        state.sending.whole = true;
    }
    let sent = network.send(0, &state.sending.frame);
    if sent == Sent::Taken {
        let size = state.sending.frame.len() - HEADER_SIZE;
        [GPTC, TPT].into_iter().for_each(|counter| state.count(counter));
        [GOTCL, TOTL].into_iter().for_each(|counter| state.count_bytes(counter, size + 4));
        state.sending.clear();
    }
    sent
}

/// Adds what a descriptor has to the packet.
fn gather(state: &mut State, descriptor: &Descriptor, memory: &DmaMemory) {
    let sending = &mut state.sending;
    let before = sending.frame.len();
    if before == HEADER_SIZE && !sending.lost {
        sending.command = descriptor.command();
        let options = (descriptor.words[3] >> 8) as u8;
        sending.options = if descriptor.is_extended() { options } else { 0 };
    }
    let size = descriptor.length();
    if before + size > FRAME_MAX {
        sending.lost = true;
        return;
    }
    sending.frame.resize(before + size, 0);
    let to = &mut sending.frame[before..];
    sending.lost |= memory.read_slice(to, GuestAddress(descriptor.address())).is_err();
}

/// Does what the driver has left to the card. `None` when that is impossible.
fn finish(state: &mut State, last: &Descriptor) -> Option<()> {
    let vlan = last.command() & CMD_VLE != 0 && state.has(CTRL, CTRL_VME);
    let kind = state.get(VET) as u16;
    let State { sending, contexts, .. } = state;
    let frame = &mut sending.frame;
    let [whole, cut] = [contexts.first()?, contexts.get(1)?];
    let packet = &mut frame[HEADER_SIZE..];
    match sending.command {
        command if command & (CMD_DEXT | CMD_TSE) == CMD_DEXT | CMD_TSE => {
            offload::leave_segmentation(frame, cut, sending.options & POPTS_IXSM != 0)?;
        }
        command if command & CMD_DEXT != 0 => {
            if sending.options & POPTS_IXSM != 0 {
                offload::insert(packet, (whole.ipcss, whole.ipcso, whole.ipcse));
            }
            if sending.options & POPTS_TXSM != 0 {
                offload::insert(packet, (whole.tucss, whole.tucso, whole.tucse));
            }
        }
        _ if last.command() & CMD_IC != 0 => {
            let (start, at) = ((last.words[3] >> 8) as u8, (last.words[2] >> 16) as u8);
            offload::insert(packet, (start, at, 0));
        }
        _ => {}
    }
    if vlan {
        if frame.len() + 4 > FRAME_MAX {
            return None;
        }
        let [a, b] = kind.to_be_bytes();
        let [c, d] = last.special().to_be_bytes();
        let at = HEADER_SIZE + 12;
        frame.splice(at..at, [a, b, c, d]);
        offload::move_header(frame);
    }
    Some(())
}
