//! One connection: a stream of the guest's and a UNIX socket.

use std::collections::VecDeque;
use std::num::Wrapping;
use std::os::fd::OwnedFd;

use rustix::net::{Shutdown, shutdown};

use crate::packet::*;
use crate::socket::{receive, transmit};
use crate::{BUFFER, Header};

/// Longest `CONNECT PORT` line.
const GREETING_MAX: usize = 32;

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The host's program has not yet said which port.
    Greeting,
    /// The guest has not yet answered.
    Requested,
    /// Bytes flow.
    Established,
    /// The guest is to be told that it is over.
    Over,
}

/// What the guest is to be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Due {
    request: bool,
    response: bool,
    credit: bool,
    credit_request: bool,
    /// Flags of a shutdown.
    shutdown: u32,
}

/// What happens on the socket that is worth waking up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

pub(crate) struct Connection {
    pub(crate) socket: OwnedFd,
    pub(crate) stage: Stage,
    greeting: Vec<u8>,
    due: Due,
    /// The socket has bytes, or their end.
    readable: bool,
    /// The host's program sends no more.
    host_ended: bool,
    /// It takes no more, either.
    host_is_gone: bool,
    /// What the guest has said of itself: flags of a shutdown.
    guest_ended: u32,
    /// From the guest, for the socket.
    unsent: VecDeque<u8>,
    /// Bytes taken from the guest and passed on, ever, and what the guest knows of it.
    passed_on: Wrapping<u32>,
    told: Wrapping<u32>,
    /// Bytes sent to the guest, ever.
    sent: Wrapping<u32>,
    /// What the guest buffers, and has taken of it, ever.
    guest_buffer: u32,
    guest_taken: Wrapping<u32>,
}

impl Connection {
    fn new(socket: OwnedFd, stage: Stage) -> Self {
        Self {
            socket,
            stage,
            greeting: Vec::new(),
            due: Due::default(),
            readable: false,
            host_ended: false,
            host_is_gone: false,
            guest_ended: 0,
            unsent: VecDeque::new(),
            passed_on: Wrapping(0),
            told: Wrapping(0),
            sent: Wrapping(0),
            guest_buffer: 0,
            guest_taken: Wrapping(0),
        }
    }

    /// One a program of the host has begun.
    pub(crate) fn from_host(socket: OwnedFd) -> Self {
        Self::new(socket, Stage::Greeting)
    }

    /// One the guest has begun, with this packet.
    pub(crate) fn from_guest(socket: OwnedFd, request: &Header) -> Self {
        let mut connection = Self::new(socket, Stage::Established);
        connection.due.response = true;
        connection.note_credit(request);
        connection
    }

    fn note_credit(&mut self, header: &Header) {
        self.guest_buffer = header.buf_alloc;
        self.guest_taken = Wrapping(header.fwd_cnt);
    }

    /// What the guest has room for.
    fn credit(&self) -> usize {
        let under_way = (self.sent - self.guest_taken).0;
        self.guest_buffer.saturating_sub(under_way) as usize
    }

    pub(crate) fn wanted(&self) -> Wanted {
        let read = !self.readable && !self.host_ended;
        let read = read && !matches!(self.stage, Stage::Requested | Stage::Over);
        Wanted { read, write: !self.unsent.is_empty() }
    }

    /// The guest is to be told something, or can take bytes.
    pub(crate) fn has_packet(&self) -> bool {
        match self.stage {
            Stage::Over => true,
            Stage::Greeting => false,
            Stage::Requested | Stage::Established => {
                self.due != Due::default() || self.may_read() && self.credit() > 0
            }
        }
    }

    fn may_read(&self) -> bool {
        self.stage == Stage::Established
            && self.readable
            && !self.host_ended
            && self.guest_ended & NO_RECEIVE == 0
    }

    /// The socket has bytes, or their end.
    pub(crate) fn readable(&mut self) {
        self.readable = true;
        if self.may_read() && self.credit() == 0 {
            self.due.credit_request = true;
        }
    }

    /// Reads on in the line that says which port; it when it is whole. The connection is over when
    /// it is none.
    pub(crate) fn greeted(&mut self) -> Option<u32> {
        loop {
            let mut byte = [0];
            // One by one, because what follows the line is for the guest.
            match receive(&self.socket, &mut byte) {
                None => return None,
                Some(1..) if byte == *b"\n" => break,
                Some(1..) if self.greeting.len() < GREETING_MAX => self.greeting.push(byte[0]),
                Some(_) => {
                    self.stage = Stage::Over;
                    return None;
                }
            }
        }
        let line = String::from_utf8_lossy(&self.greeting);
        let mut words = line.split_ascii_whitespace();
        let is_connect = words.next().is_some_and(|word| word.eq_ignore_ascii_case("connect"));
        let port = words.next().filter(|_| is_connect).and_then(|port| port.parse().ok());
        self.stage = if port.is_some() { Stage::Requested } else { Stage::Over };
        self.due.request = port.is_some();
        port
    }

    /// A packet of the guest's. `own_port` is the host's.
    pub(crate) fn packet(&mut self, header: &Header, data: &[u8], own_port: u32) {
        self.note_credit(header);
        match (header.op, self.stage) {
            (RESPONSE, Stage::Requested) => {
                let answer = format!("OK {own_port}\n");
                let answered = transmit(&self.socket, answer.as_bytes()) == Some(answer.len());
                self.stage = if answered { Stage::Established } else { Stage::Over };
            }
            (RW, Stage::Established) => self.take(header, data),
            (CREDIT_UPDATE, Stage::Established) => {}
            (CREDIT_REQUEST, Stage::Established) => self.due.credit = true,
            (SHUTDOWN, Stage::Established) => {
                self.guest_ended |= header.flags & (NO_RECEIVE | NO_SEND);
                self.end_when_drained();
            }
            _ => self.stage = Stage::Over,
        }
    }

    fn take(&mut self, header: &Header, data: &[u8]) {
        let is_allowed = self.guest_ended & NO_SEND == 0
            && data.len() == header.len as usize
            && data.len() <= BUFFER - self.unsent.len();
        if !is_allowed {
            self.stage = Stage::Over;
            return;
        }
        self.unsent.extend(data);
        self.drain();
    }

    /// Passes on what the socket takes.
    pub(crate) fn drain(&mut self) {
        while !self.unsent.is_empty() {
            match transmit(&self.socket, self.unsent.as_slices().0) {
                Some(0) => break,
                Some(size) => {
                    self.unsent.drain(..size);
                    self.passed_on += Wrapping(size as u32);
                }
                None => {
                    // What it has sent before it went is still to come.
                    self.passed_on += Wrapping(self.unsent.len() as u32);
                    self.unsent.clear();
                    self.takes_none();
                }
            }
        }
        // Half of the buffer is free that the guest does not know of.
        self.due.credit |= (self.passed_on - self.told).0 as usize >= BUFFER / 2;
        self.end_when_drained();
    }

    /// What the guest has ended is ended for the host's program when it has all of it.
    fn end_when_drained(&mut self) {
        let both = NO_RECEIVE | NO_SEND;
        if self.unsent.is_empty() && self.guest_ended & NO_SEND != 0 {
            // It may have gone already.
            let _ = shutdown(&self.socket, Shutdown::Write);
            if self.guest_ended & both == both || self.host_ended {
                self.stage = Stage::Over;
            }
        }
    }

    /// The next packet for the guest: operation, flags, and bytes in `data`.
    pub(crate) fn next(&mut self, data: &mut [u8]) -> Option<(u16, u32, usize)> {
        let due = &mut self.due;
        let mut take = |flag: fn(&mut Due) -> &mut bool| std::mem::take(flag(due));
        if self.stage == Stage::Over {
            return Some((RST, 0, 0));
        }
        if take(|due| &mut due.request) {
            return Some((REQUEST, 0, 0));
        }
        if take(|due| &mut due.response) {
            return Some((RESPONSE, 0, 0));
        }
        if take(|due| &mut due.credit) {
            return Some((CREDIT_UPDATE, 0, 0));
        }
        if self.may_read() && self.credit() > 0 {
            let room = data.len().min(self.credit()).min(BUFFER);
            match receive(&self.socket, &mut data[..room]) {
                None => self.readable = false,
                Some(0) => {
                    self.host_ended = true;
                    self.due.shutdown |= NO_SEND;
                    self.end_when_drained();
                    return self.next(data);
                }
                Some(size) => {
                    self.sent += Wrapping(size as u32);
                    self.due.credit_request = self.credit() == 0;
                    return Some((RW, 0, size));
                }
            }
        }
        if std::mem::take(&mut self.due.credit_request) {
            return Some((CREDIT_REQUEST, 0, 0));
        }
        let flags = std::mem::take(&mut self.due.shutdown);
        (flags != 0).then_some((SHUTDOWN, flags, 0))
    }

    /// The socket's other end is closed altogether: the guest need not send any more.
    pub(crate) fn hung_up(&mut self) {
        self.readable();
        self.drain();
        self.takes_none();
    }

    /// The host's program takes no more of the guest's bytes.
    fn takes_none(&mut self) {
        if !std::mem::replace(&mut self.host_is_gone, true) {
            self.due.shutdown |= NO_RECEIVE;
        }
    }

    /// Credit that goes with every packet.
    pub(crate) fn tell(&mut self, header: &mut Header) {
        header.buf_alloc = BUFFER as u32;
        header.fwd_cnt = self.passed_on.0;
        self.told = self.passed_on;
    }
}
