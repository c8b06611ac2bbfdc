//! One port.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bus::SectionError;

use super::spec::*;
use super::state::{PortState, PortsState};
use super::{PortConfig, PortPeer};
use crate::runner::lock;
use crate::{Broken, Chain, Outcome};

/// Input that waits for the guest. What does not fit stays with the host.
const INPUT_MAX: usize = 64 << 10;
/// Bytes copied at once, on the stack.
const PIECE: usize = 4096;
/// Messages to the guest. A bit each, so that a driver that asks again and again gets one answer.
const MESSAGES: [u16; 3] = [PORT_ADD, PORT_OPEN, PORT_NAME];

pub(super) struct Port {
    // Wiring.
    name: String,
    peer: Arc<dyn PortPeer>,
    // State.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: bool,
    /// Control messages that are due: bits by their events.
    due: u16,
    input: VecDeque<u8>,
    /// Bytes were refused: tell when there is room.
    refused: bool,
    /// Bytes of the first request that the peer has taken already.
    sent: u64,
}

impl Port {
    pub(super) fn new(config: PortConfig) -> Self {
        let PortConfig { name, peer } = config;
        Self { name, peer, state: Mutex::default() }
    }

    pub(super) fn input(&self, bytes: &[u8]) -> usize {
        let mut state = lock(&self.state);
        let room = if state.open { INPUT_MAX - state.input.len() } else { 0 };
        let taken = bytes.len().min(room);
        state.input.extend(&bytes[..taken]);
        state.refused = taken < bytes.len();
        taken
    }

    pub(super) fn is_open(&self) -> bool {
        lock(&self.state).open
    }

    pub(super) fn announce(&self, event: u16) {
        lock(&self.state).due |= 1 << event;
    }

    /// The event and value of the next message to the guest, and the name that goes with it.
    pub(super) fn take_due(&self) -> Option<(u16, u16, &str)> {
        let mut state = lock(&self.state);
        let event = MESSAGES.into_iter().find(|event| state.due & 1 << event != 0)?;
        state.due &= !(1 << event);
        // The host's end is always open: it is the agent's absence that is to be noticed, not ours.
        Some((event, 1, if event == PORT_NAME { &self.name } else { "" }))
    }

    pub(super) fn set_open(&self, open: bool) {
        let mut state = lock(&self.state);
        state.open = open;
        let room = !open && state.drop_input();
        drop(state);
        self.tell(room);
        self.peer.opened(open);
    }

    fn tell(&self, room: bool) {
        if room {
            self.peer.room();
        }
    }

    pub(super) fn receive(&self, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        let mut done = 0;
        let mut room = false;
        loop {
            let mut piece = [0; PIECE];
            let mut state = lock(&self.state);
            if state.input.is_empty() && done == 0 {
                return Ok(Outcome::Wait);
            }
            let left = chain.writable.size() - done;
            let size = (PIECE.min(state.input.len()) as u64).min(left) as usize;
            for (to, byte) in piece.iter_mut().zip(state.input.drain(..size)) {
                *to = byte;
            }
            room |= size > 0 && std::mem::take(&mut state.refused);
            drop(state);
            if size == 0 || done >= INPUT_MAX as u64 {
                break;
            }
            let wild = |_| Broken("gave a port a buffer that is not RAM");
            chain.writable.write(done, &piece[..size]).map_err(wild)?;
            done += size as u64;
        }
        self.tell(room);
        Ok(Outcome::Done(done as u32)) // below INPUT_MAX and a piece
    }

    pub(super) fn transmit(&self, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        let mut at = std::mem::take(&mut lock(&self.state).sent);
        while at < chain.readable.size() {
            let mut piece = [0; PIECE];
            let piece = &mut piece[..(chain.readable.size() - at).min(PIECE as u64) as usize];
            let wild = |_| Broken("sent a port a buffer that is not RAM");
            chain.readable.read(at, piece).map_err(wild)?;
            let taken = self.peer.take(piece);
            at += taken as u64;
            if taken < piece.len() {
                lock(&self.state).sent = at;
                return Ok(Outcome::Wait);
            }
        }
        Ok(Outcome::Done(0))
    }

    pub(super) fn reset(&self) {
        let mut state = lock(&self.state);
        let State { open, due, input: _, refused: _, sent } = &mut *state;
        (*open, *due, *sent) = (false, 0, 0);
        let room = state.drop_input();
        drop(state);
        self.tell(room);
        self.peer.opened(false);
    }

    pub(super) fn save(&self) -> PortState {
        let State { open, due, input, refused: _, sent } = &*lock(&self.state);
        let input = input.iter().copied().collect();
        PortState { name: self.name.clone(), open: *open, due: *due, input, sent: *sent }
    }

    pub(super) fn check(&self, saved: &PortState) -> Result<(), SectionError> {
        let known = MESSAGES.iter().fold(0, |bits, event| bits | 1 << event);
        let reason = if saved.name != self.name {
            format!("port '{}' where '{}' is", saved.name, self.name)
        } else if saved.input.len() > INPUT_MAX {
            "more input than a port holds".to_owned()
        } else if saved.due & !known != 0 {
            "messages that are not there".to_owned()
        } else {
            return Ok(());
        };
        Err(PortsState::impossible(reason))
    }

    pub(super) fn restore(&self, saved: &PortState) {
        let PortState { name: _, open, due, input, sent } = saved;
        let input = input.iter().copied().collect();
        let state = State { open: *open, due: *due, input, refused: false, sent: *sent };
        *lock(&self.state) = state;
        self.peer.opened(*open);
    }
}

impl State {
    /// Says whether someone waits for room.
    fn drop_input(&mut self) -> bool {
        self.input.clear();
        std::mem::take(&mut self.refused)
    }
}
