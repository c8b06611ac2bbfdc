//! The keyboard behind the controller: an IBM MF2.

use std::collections::VecDeque;

use super::Key;
use super::spec::*;
use super::translate::set_2_of;

/// Bytes a keyboard buffers; keys that do not fit are lost.
pub(super) const QUEUE_MAX: usize = 16;

const ECHO: u8 = 0xee;
const SET_LEDS: u8 = 0xed;
const SCAN_SET: u8 = 0xf0;
const IDENTIFY: u8 = 0xf2;
const SET_RATE: u8 = 0xf3;
const ENABLE: u8 = 0xf4;
const DISABLE: u8 = 0xf5;
const DEFAULTS: u8 = 0xf6;
const RESEND: u8 = 0xfe;
const RESET: u8 = 0xff;
const ID: [u8; 2] = [0xab, 0x83];

/// The keyboard's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keyboard {
    pub queue: VecDeque<u8>,
    /// The command whose parameter is next.
    pub command: Option<u8>,
    pub scanning: bool,
    /// 1 or 2.
    pub scan_set: u8,
    pub leds: u8,
    pub last_sent: u8,
}

impl Default for Keyboard {
    fn default() -> Self {
        let queue = VecDeque::with_capacity(QUEUE_MAX);
        Self { queue, command: None, scanning: true, scan_set: 2, leds: 0, last_sent: 0 }
    }
}

impl Keyboard {
    /// `false` when there is no room. What nobody scans for, or no keyboard has, is forgotten.
    pub fn key(&mut self, key: Key, pressed: bool) -> bool {
        if !self.scanning {
            return true;
        }
        let mut bytes = [0; 3];
        let mut len = 0;
        let mut push = |byte| {
            bytes[len] = byte;
            len += 1;
        };
        if key.extended {
            push(EXTENDED);
        }
        if self.scan_set == 1 {
            push(key.code & !RELEASED | if pressed { 0 } else { RELEASED });
        } else {
            let Some(code) = set_2_of(key.code) else { return true };
            if !pressed {
                push(BREAK);
            }
            push(code);
        }
        let fits = self.queue.len() + len <= QUEUE_MAX;
        if fits {
            self.queue.extend(&bytes[..len]);
        }
        fits
    }

    /// The next byte to the controller.
    pub fn send(&mut self) -> Option<u8> {
        let byte = self.queue.pop_front()?;
        self.last_sent = byte;
        Some(byte)
    }

    /// A byte from the controller. It ends what was being sent.
    pub fn receive(&mut self, byte: u8) {
        self.queue.clear();
        match self.command.take() {
            Some(command) => self.parameter(command, byte),
            None => self.command(byte),
        }
    }

    fn answer(&mut self, bytes: &[u8]) {
        self.queue.extend(bytes);
    }

    fn defaults(&mut self) {
        self.scan_set = 2;
        self.leds = 0;
    }

    fn command(&mut self, byte: u8) {
        match byte {
            SET_LEDS | SCAN_SET | SET_RATE => self.command = Some(byte),
            ENABLE => self.scanning = true,
            DISABLE => {
                self.defaults();
                self.scanning = false;
            }
            DEFAULTS => self.defaults(),
            RESET => {
                *self = Self::default();
                return self.answer(&[ACK, BAT_PASSED]);
            }
            ECHO => return self.answer(&[ECHO]),
            IDENTIFY => return self.answer(&[ACK, ID[0], ID[1]]),
            RESEND => return self.answer(&[self.last_sent]),
            0xf7..=0xfd => {} // key types of scan set 3
            _ => return self.answer(&[NAK]),
        }
        self.answer(&[ACK]);
    }

    fn parameter(&mut self, command: u8, byte: u8) {
        match (command, byte) {
            (SET_LEDS, _) => self.leds = byte & 7,
            (SCAN_SET, 0) => return self.answer(&[ACK, self.scan_set]),
            (SCAN_SET, 1 | 2) => self.scan_set = byte,
            (SCAN_SET, _) => return self.answer(&[NAK]),
            _ => {} // the typematic rate: repeating is for who sends keys
        }
        self.answer(&[ACK]);
    }
}
