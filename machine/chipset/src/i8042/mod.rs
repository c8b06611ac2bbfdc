//! The PS/2 keyboard controller with a keyboard and a mouse.
//!
//! The output buffer holds one byte; the controller's answers come before the keyboard's bytes
//! and those before the mouse's. An interrupt line is high while a byte of its device waits.

mod keyboard;
mod mouse;
pub mod spec;
mod state;
#[cfg(test)]
mod tests;
mod translate;

use std::sync::{Arc, Mutex};

use bus::{BusDevice, Device, Line, Section, SectionError};

use crate::ports::{read_bytes, write_bytes};
use crate::{PowerEvent, PowerSink, lock};
use spec::*;
use state::{SavedI8042, Source, State};

pub use spec::PORTS;

/// A key, by its scan code of set 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The code of the pressed key: 0x01 to 0x7f.
    pub code: u8,
    /// With the prefix 0xe0.
    pub extended: bool,
}

/// What a mouse does at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Motion {
    /// To the right.
    pub right: i32,
    /// Up.
    pub up: i32,
    /// The wheel, towards the user.
    pub wheel: i32,
    /// The buttons held now: left 1, right 2, middle 4.
    pub buttons: u8,
}

/// The device.
pub struct I8042 {
    // Wiring.
    keyboard_irq: Line,
    mouse_irq: Line,
    power: Arc<dyn PowerSink>,
    // State.
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    state: State,
    /// The levels of the two lines.
    levels: (bool, bool),
}

impl I8042 {
    /// A controller on ISA IRQs 1 and 12, telling `power` of resets.
    pub fn new(keyboard_irq: Line, mouse_irq: Line, power: Arc<dyn PowerSink>) -> Arc<Self> {
        Arc::new(Self { keyboard_irq, mouse_irq, power, inner: Mutex::default() })
    }

    /// The operator presses or releases a key. `false` when the keyboard's buffer is full: then
    /// nothing has happened.
    pub fn key(&self, key: Key, pressed: bool) -> bool {
        self.access(|state| state.keyboard.key(key, pressed))
    }

    /// The keyboard's lamps: scroll lock 1, num lock 2, caps lock 4.
    pub fn leds(&self) -> u8 {
        lock(&self.inner).state.keyboard.leds
    }

    /// The operator moves the mouse.
    pub fn mouse(&self, motion: Motion) {
        self.access(|state| state.mouse.motion(motion));
    }

    fn access<R>(&self, run: impl FnOnce(&mut State) -> R) -> R {
        let mut inner = lock(&self.inner);
        let result = run(&mut inner.state);
        self.sync(&mut inner);
        result
    }

    /// Fills the output buffer and drives the lines.
    fn sync(&self, inner: &mut Inner) {
        inner.state.fill();
        let levels = inner.state.lines();
        if levels != inner.levels {
            self.keyboard_irq.set(levels.0);
            self.mouse_irq.set(levels.1);
            inner.levels = levels;
        }
    }

    fn replace(&self, state: State) {
        let mut inner = lock(&self.inner);
        inner.levels = state.lines();
        inner.state = state;
        self.keyboard_irq.set(inner.levels.0);
        self.mouse_irq.set(inner.levels.1);
    }

    fn read_port(&self, inner: &mut Inner, port: u64) -> u8 {
        if port != DATA {
            return inner.state.status();
        }
        // An empty buffer reads as what was in it last.
        let byte = inner.state.last_output;
        if inner.state.output.take().is_some() {
            // The lines fall before the next byte raises them: it is another edge.
            let levels = std::mem::take(&mut inner.levels);
            if levels != inner.levels {
                self.keyboard_irq.set(false);
                self.mouse_irq.set(false);
            }
        }
        byte
    }

    fn write_port(&self, state: &mut State, port: u64, value: u8) {
        state.last_was_command = port == STATUS_COMMAND;
        let resets = match port {
            STATUS_COMMAND => state.run_command(value),
            _ => state.data(value),
        };
        if resets {
            self.power.power(PowerEvent::Reset);
        }
    }
}

impl State {
    fn control(&self, bit: u8) -> bool {
        self.ram[0] & bit != 0
    }

    fn set_control(&mut self, bit: u8, on: bool) {
        self.ram[0] = self.ram[0] & !bit | if on { bit } else { 0 };
    }

    /// Moves the next byte into the output buffer.
    fn fill(&mut self) {
        if self.output.is_some() {
            return;
        }
        self.output = self.answer.take().or_else(|| self.next_key()).or_else(|| self.next_motion());
        if let Some((_, byte)) = self.output {
            self.last_output = byte;
        }
    }

    fn next_key(&mut self) -> Option<(Source, u8)> {
        while !self.control(CTR_KBD_DISABLED) {
            let byte = self.keyboard.send()?;
            let byte = if self.control(CTR_XLATE) {
                translate::translate(byte, &mut self.released)
            } else {
                Some(byte)
            };
            if let Some(byte) = byte {
                return Some((Source::Keyboard, byte));
            }
        }
        None
    }

    fn next_motion(&mut self) -> Option<(Source, u8)> {
        if self.control(CTR_AUX_DISABLED) {
            return None;
        }
        self.mouse.send().map(|byte| (Source::Mouse, byte))
    }

    /// The levels of the keyboard's and the mouse's line.
    fn lines(&self) -> (bool, bool) {
        let full = |source| self.output.is_some_and(|(from, _)| from == source);
        (
            full(Source::Keyboard) && self.control(CTR_KBD_INT),
            full(Source::Mouse) && self.control(CTR_AUX_INT),
        )
    }

    fn status(&self) -> u8 {
        let output = match self.output {
            None => 0,
            Some((Source::Keyboard, _)) => STR_OBF,
            Some((Source::Mouse, _)) => STR_OBF | STR_AUX_OBF,
        };
        let command = if self.last_was_command { STR_CMD } else { 0 };
        let sys = if self.control(CTR_SYS) { STR_SYS } else { 0 };
        STR_KEYLOCK | output | command | sys
    }

    fn reply(&mut self, byte: u8) {
        self.answer = Some((Source::Keyboard, byte));
    }

    /// A byte to the command port; `true` resets the machine.
    fn run_command(&mut self, value: u8) -> bool {
        self.command = None;
        match value {
            CMD_READ_RAM..=0x3f => self.reply(self.ram[usize::from(value & 0x1f)]),
            CMD_WRITE_RAM..=0x7f
            | CMD_WRITE_OUTPUT
            | CMD_KBD_LOOP
            | CMD_AUX_LOOP
            | CMD_AUX_SEND => self.command = Some(value),
            CMD_AUX_DISABLE => self.set_control(CTR_AUX_DISABLED, true),
            CMD_AUX_ENABLE => self.set_control(CTR_AUX_DISABLED, false),
            CMD_KBD_DISABLE => self.set_control(CTR_KBD_DISABLED, true),
            CMD_KBD_ENABLE => self.set_control(CTR_KBD_DISABLED, false),
            CMD_AUX_TEST | CMD_KBD_TEST => self.reply(0),
            CMD_SELF_TEST => {
                self.set_control(CTR_SYS, true);
                self.reply(SELF_TEST_PASSED);
            }
            CMD_READ_INPUT => self.reply(0x80), // the keyboard is not locked
            CMD_READ_OUTPUT => {
                let full = match self.output {
                    None => 0,
                    Some((Source::Keyboard, _)) => OUT_KBD_OBF,
                    Some((Source::Mouse, _)) => OUT_AUX_OBF,
                };
                self.reply(OUT_NO_RESET | OUT_A20 | full);
            }
            CMD_PULSE..=0xff => return value & OUT_NO_RESET == 0,
            _ => {}
        }
        false
    }

    /// A byte to the data port; `true` resets the machine.
    fn data(&mut self, value: u8) -> bool {
        match self.command.take() {
            Some(CMD_WRITE_OUTPUT) => return value & OUT_NO_RESET == 0,
            Some(CMD_KBD_LOOP) => self.reply(value),
            Some(CMD_AUX_LOOP) => self.answer = Some((Source::Mouse, value)),
            Some(CMD_AUX_SEND) => {
                self.set_control(CTR_AUX_DISABLED, false);
                self.mouse.receive(value);
            }
            Some(write_ram) => self.ram[usize::from(write_ram & 0x1f)] = value,
            None => {
                self.set_control(CTR_KBD_DISABLED, false);
                self.released = false;
                self.keyboard.receive(value);
            }
        }
        false
    }
}

impl BusDevice for I8042 {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut inner = lock(&self.inner);
        read_bytes(offset, data, |port| {
            let byte = self.read_port(&mut inner, port);
            self.sync(&mut inner);
            byte
        });
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.access(|state| write_bytes(offset, data, |at, byte| self.write_port(state, at, byte)));
    }
}

impl Device for I8042 {
    fn reset(&self) {
        self.replace(State::default());
    }

    fn save(&self) -> Section {
        Section::encode(&SavedI8042::from(&lock(&self.inner).state))
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        self.replace(State::try_from(section.decode::<SavedI8042>()?)?);
        Ok(())
    }
}
