//! The controller's state, and its saved form.

use std::collections::VecDeque;

use bus::{Saved, SectionError, saved_form};
use minicbor::{Decode, Encode};

use super::keyboard::{self, Keyboard};
use super::mouse::{self, ID_WHEEL, Mouse};
use super::spec::*;

/// RAM of the controller; byte 0 is the command byte.
pub(super) const RAM_SIZE: usize = 32;

/// Where a byte in the output buffer is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Keyboard,
    Mouse,
}

/// What changes while the guest runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub ram: [u8; RAM_SIZE],
    pub output: Option<(Source, u8)>,
    /// What is, or was last, in the output buffer.
    pub last_output: u8,
    /// The controller's own answer, waiting for the output buffer.
    pub answer: Option<(Source, u8)>,
    /// The command whose parameter is next.
    pub command: Option<u8>,
    pub last_was_command: bool,
    /// Translation has swallowed a break prefix.
    pub released: bool,
    pub keyboard: Keyboard,
    pub mouse: Mouse,
}

impl Default for State {
    fn default() -> Self {
        let mut ram = [0; RAM_SIZE];
        ram[0] = CTR_AT_RESET;
        Self {
            ram,
            output: None,
            last_output: 0,
            answer: None,
            command: None,
            last_was_command: false,
            released: false,
            keyboard: Keyboard::default(),
            mouse: Mouse::default(),
        }
    }
}

saved_form! {
    pub(super) struct SavedI8042: State {
        #[cbor(n(0), with = "minicbor::bytes")]
        ram: Vec<u8>, saved ram.into(), loaded ram_of(&ram)?;
        #[n(1)] output: Option<SavedByte>,
            saved output.map(Into::into), loaded output.map(Into::into);
        #[n(2)] answer: Option<SavedByte>,
            saved answer.map(Into::into), loaded answer.map(Into::into);
        #[n(3)] command: Option<u8>;
        #[n(4)] last_was_command: bool;
        #[n(5)] released: bool;
        #[n(6)] keyboard: SavedKeyboard,
            saved SavedKeyboard::from(&keyboard), loaded keyboard.try_into()?;
        #[n(7)] mouse: SavedMouse, saved SavedMouse::from(&mouse), loaded mouse.try_into()?;
        #[n(8)] last_output: u8;
    }
}

impl Saved for SavedI8042 {
    const KIND: &'static str = "i8042";
    const VERSION: u16 = 1;
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct SavedByte {
    #[n(0)]
    from_mouse: bool,
    #[n(1)]
    byte: u8,
}

saved_form! {
    struct SavedKeyboard: Keyboard {
        #[cbor(n(0), with = "minicbor::bytes")]
        queue: Vec<u8>, saved queue.into(),
            loaded queue_of("keyboard's queue", queue, keyboard::QUEUE_MAX)?;
        #[n(1)] command: Option<u8>;
        #[n(2)] scanning: bool;
        #[n(3)] scan_set: u8, loaded if scan_set == 1 { 1 } else { 2 };
        #[n(4)] leds: u8, loaded leds & 7;
        #[n(5)] last_sent: u8;
    }
}

saved_form! {
    struct SavedMouse: Mouse {
        #[cbor(n(0), with = "minicbor::bytes")]
        queue: Vec<u8>, saved queue.into(),
            loaded queue_of("mouse's queue", queue, mouse::QUEUE_MAX)?;
        #[n(1)] command: Option<u8>;
        #[n(2)] reporting: bool;
        #[n(3)] remote: bool;
        #[n(4)] wrap: bool;
        #[n(5)] scale_2: bool;
        #[n(6)] resolution: u8, loaded resolution & 3;
        #[n(7)] rate: u8;
        #[cbor(n(8), with = "minicbor::bytes")]
        earlier_rates: [u8; 2];
        #[n(9)] id: u8, loaded if id == ID_WHEEL { ID_WHEEL } else { 0 };
        #[n(10)] last_sent: u8;
        #[n(11)] buttons: u8, loaded buttons & 7;
        #[n(12)] reported: u8, loaded reported & 7;
        #[n(13)] moved: [i32; 3];
    }
}

fn impossible(what: &str, len: usize) -> SectionError {
    let reason = format!("{len} bytes in the {what}");
    SectionError::Impossible { kind: SavedI8042::KIND, reason }
}

impl From<(Source, u8)> for SavedByte {
    fn from((source, byte): (Source, u8)) -> Self {
        Self { from_mouse: source == Source::Mouse, byte }
    }
}

impl From<SavedByte> for (Source, u8) {
    fn from(SavedByte { from_mouse, byte }: SavedByte) -> Self {
        (if from_mouse { Source::Mouse } else { Source::Keyboard }, byte)
    }
}

fn ram_of(bytes: &[u8]) -> Result<[u8; RAM_SIZE], SectionError> {
    bytes.try_into().map_err(|_| impossible("controller", bytes.len()))
}

fn queue_of(name: &str, bytes: Vec<u8>, max: usize) -> Result<VecDeque<u8>, SectionError> {
    if bytes.len() > max { Err(impossible(name, bytes.len())) } else { Ok(bytes.into()) }
}
