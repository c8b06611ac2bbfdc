//! From a viewer's keys to those of a US keyboard.
//!
//! Old viewers send what a key means, not which it is. What is typed with shift on the viewer's
//! keyboard may need none here, or the other way round: shift is then pressed or let go for the key.

use keymap::{SHIFT_LEFT, SHIFT_RIGHT};

use crate::Desk;

const LED_CAPS: u8 = 4;
const CODES: usize = 256;

/// The keys a viewer holds.
pub(crate) struct Keyboard {
    held: [bool; CODES],
}

impl Keyboard {
    pub fn new() -> Self {
        Self { held: [false; CODES] }
    }

    /// A key by its code.
    pub fn code(&mut self, code: u8, down: bool, desk: &dyn Desk) {
        self.held[usize::from(code)] = down;
        desk.key(code, down);
    }

    /// A key by its keysym (7.5.4). One that a US keyboard does not have is forgotten.
    pub fn keysym(&mut self, keysym: u32, down: bool, desk: &dyn Desk) {
        let Some(stroke) = keymap::of_keysym(keysym) else { return };
        let letter = char::from_u32(keysym).is_some_and(|c| c.is_ascii_alphabetic());
        let capitals = letter && desk.leds() & LED_CAPS != 0;
        let shift = stroke.shift != capitals;
        let held = [SHIFT_LEFT, SHIFT_RIGHT].map(|key| (key, self.held[usize::from(key)]));
        let is_held = held.iter().any(|(_, held)| *held);
        // With shift held, a small letter is what caps lock makes of it, or a program that means the
        // key: either way shift is to stay.
        let as_held = shift == is_held || letter && is_held;
        if !down || !keymap::is_character(keysym) || as_held {
            return self.code(stroke.code, down, desk);
        }
        if shift {
            desk.key(SHIFT_LEFT, true);
            self.code(stroke.code, true, desk);
            desk.key(SHIFT_LEFT, false);
        } else {
            let held = held.iter().filter(|(_, held)| *held).map(|(key, _)| *key);
            held.clone().for_each(|key| desk.key(key, false));
            self.code(stroke.code, true, desk);
            held.for_each(|key| desk.key(key, true));
        }
    }

    /// The viewer has gone: nobody will let go of its keys.
    pub fn release_all(&mut self, desk: &dyn Desk) {
        for (code, held) in (0..=u8::MAX).zip(&mut self.held) {
            if std::mem::take(held) {
                desk.key(code, false);
            }
        }
    }
}
