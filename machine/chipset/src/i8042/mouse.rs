//! The mouse behind the controller: PS/2, with IntelliMouse's wheel for who asks for it.

use std::collections::VecDeque;

use super::Motion;
use super::spec::*;

/// Bytes a mouse buffers: an answer or a packet at a time.
pub(super) const QUEUE_MAX: usize = 8;

const SCALE_1: u8 = 0xe6;
const SCALE_2: u8 = 0xe7;
const SET_RESOLUTION: u8 = 0xe8;
const STATUS: u8 = 0xe9;
const STREAM: u8 = 0xea;
const READ: u8 = 0xeb;
const END_WRAP: u8 = 0xec;
const WRAP: u8 = 0xee;
const REMOTE: u8 = 0xf0;
const IDENTIFY: u8 = 0xf2;
const SET_RATE: u8 = 0xf3;
const ENABLE: u8 = 0xf4;
const DISABLE: u8 = 0xf5;
const DEFAULTS: u8 = 0xf6;
const RESEND: u8 = 0xfe;
const RESET: u8 = 0xff;

/// Set one after the other, these rates turn a mouse into one with a wheel.
const WHEEL_KNOCK: [u8; 3] = [200, 100, 80];
/// The identification of a mouse with a wheel.
pub(super) const ID_WHEEL: u8 = 3;
/// The largest motion kept while nobody reads.
const MOTION_MAX: i32 = 0xffff;

/// The mouse's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mouse {
    pub queue: VecDeque<u8>,
    /// The command whose parameter is next.
    pub command: Option<u8>,
    pub reporting: bool,
    pub remote: bool,
    pub wrap: bool,
    pub scale_2: bool,
    pub resolution: u8,
    pub rate: u8,
    /// The two rates set last.
    pub earlier_rates: [u8; 2],
    /// 0, or [`ID_WHEEL`].
    pub id: u8,
    pub last_sent: u8,
    /// Left, right, middle.
    pub buttons: u8,
    /// The buttons as last reported.
    pub reported: u8,
    /// Motion not yet reported: right, up, wheel towards the user.
    pub moved: [i32; 3],
}

impl Default for Mouse {
    fn default() -> Self {
        Self {
            queue: VecDeque::with_capacity(QUEUE_MAX),
            command: None,
            reporting: false,
            remote: false,
            wrap: false,
            scale_2: false,
            resolution: 2,
            rate: 100,
            earlier_rates: [0; 2],
            id: 0,
            last_sent: 0,
            buttons: 0,
            reported: 0,
            moved: [0; 3],
        }
    }
}

impl Mouse {
    pub fn motion(&mut self, motion: Motion) {
        let Motion { right, up, wheel, buttons } = motion;
        for (moved, by) in self.moved.iter_mut().zip([right, up, wheel]) {
            *moved = moved.saturating_add(by).clamp(-MOTION_MAX, MOTION_MAX);
        }
        self.buttons = buttons & 7;
        self.report();
    }

    /// Queues a packet, when there is news and the last packet is out.
    fn report(&mut self) {
        let news = self.moved != [0; 3] || self.buttons != self.reported;
        if news && self.reporting && !self.remote && !self.wrap && self.queue.is_empty() {
            self.packet();
        }
    }

    fn packet(&mut self) {
        let [right, up, wheel] = &mut self.moved;
        let take = |from: &mut i32, limit: i32| {
            let part = (*from).clamp(-limit - 1, limit);
            *from -= part;
            part
        };
        let (x, y) = (take(right, 255), take(up, 255));
        let z = take(wheel, 7);
        let sign = |value: i32, bit: u8| if value < 0 { bit } else { 0 };
        let head = 0x08 | self.buttons | sign(x, 0x10) | sign(y, 0x20);
        self.queue.extend([head, x as u8, y as u8]);
        if self.id == ID_WHEEL {
            self.queue.push_back(z as u8);
        }
        self.reported = self.buttons;
    }

    /// The next byte to the controller.
    pub fn send(&mut self) -> Option<u8> {
        let byte = self.queue.pop_front()?;
        self.last_sent = byte;
        self.report();
        Some(byte)
    }

    /// A byte from the controller. It ends what was being sent.
    pub fn receive(&mut self, byte: u8) {
        self.queue.clear();
        match self.command.take() {
            _ if self.wrap && !matches!(byte, END_WRAP | RESET) => self.answer(&[byte]),
            Some(command) => self.parameter(command, byte),
            None => self.command(byte),
        }
    }

    fn answer(&mut self, bytes: &[u8]) {
        self.queue.extend(bytes);
    }

    fn defaults(&mut self) {
        let (queue, id) = (std::mem::take(&mut self.queue), self.id);
        *self = Self { queue, id, last_sent: self.last_sent, ..Self::default() };
    }

    fn command(&mut self, byte: u8) {
        match byte {
            SET_RESOLUTION | SET_RATE => self.command = Some(byte),
            SCALE_1 | SCALE_2 => self.scale_2 = byte == SCALE_2,
            STREAM => self.remote = false,
            REMOTE => self.remote = true,
            WRAP => self.wrap = true,
            END_WRAP => self.wrap = false,
            ENABLE => self.reporting = true,
            DISABLE => self.reporting = false,
            DEFAULTS => self.defaults(),
            STATUS => {
                let flag = |on: bool, bit: u8| if on { bit } else { 0 };
                // The status has the buttons in another order than packets: right is bit 0.
                let buttons = [(1, 4), (2, 1), (4, 2)];
                let buttons =
                    buttons.iter().fold(0, |b, (bit, to)| b | flag(self.buttons & bit != 0, *to));
                let modes =
                    flag(self.scale_2, 0x10) | flag(self.reporting, 0x20) | flag(self.remote, 0x40);
                return self.answer(&[ACK, modes | buttons, self.resolution, self.rate]);
            }
            READ => {
                self.answer(&[ACK]);
                return self.packet();
            }
            IDENTIFY => return self.answer(&[ACK, self.id]),
            RESEND => return self.answer(&[self.last_sent]),
            RESET => {
                *self = Self::default();
                return self.answer(&[ACK, BAT_PASSED, self.id]);
            }
            _ => return self.answer(&[NAK]),
        }
        self.answer(&[ACK]);
    }

    fn parameter(&mut self, command: u8, byte: u8) {
        if command == SET_RESOLUTION {
            self.resolution = byte & 3;
        } else {
            let [earlier, last] = self.earlier_rates;
            if [earlier, last, byte] == WHEEL_KNOCK {
                self.id = ID_WHEEL;
            }
            self.earlier_rates = [last, byte];
            self.rate = byte;
        }
        self.answer(&[ACK]);
    }
}
