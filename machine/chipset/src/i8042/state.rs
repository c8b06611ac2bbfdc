//! The controller's state, and its saved form.

use bus::{Saved, SectionError};
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

#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct SavedI8042 {
    #[cbor(n(0), with = "minicbor::bytes")]
    ram: Vec<u8>,
    #[n(1)]
    output: Option<SavedByte>,
    #[n(2)]
    answer: Option<SavedByte>,
    #[n(3)]
    command: Option<u8>,
    #[n(4)]
    last_was_command: bool,
    #[n(5)]
    released: bool,
    #[n(6)]
    keyboard: SavedKeyboard,
    #[n(7)]
    mouse: SavedMouse,
    #[n(8)]
    last_output: u8,
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

#[derive(Encode, Decode)]
#[cbor(map)]
struct SavedKeyboard {
    #[cbor(n(0), with = "minicbor::bytes")]
    queue: Vec<u8>,
    #[n(1)]
    command: Option<u8>,
    #[n(2)]
    scanning: bool,
    #[n(3)]
    scan_set: u8,
    #[n(4)]
    leds: u8,
    #[n(5)]
    last_sent: u8,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct SavedMouse {
    #[cbor(n(0), with = "minicbor::bytes")]
    queue: Vec<u8>,
    #[n(1)]
    command: Option<u8>,
    #[n(2)]
    reporting: bool,
    #[n(3)]
    remote: bool,
    #[n(4)]
    wrap: bool,
    #[n(5)]
    scale_2: bool,
    #[n(6)]
    resolution: u8,
    #[n(7)]
    rate: u8,
    #[cbor(n(8), with = "minicbor::bytes")]
    earlier_rates: [u8; 2],
    #[n(9)]
    id: u8,
    #[n(10)]
    last_sent: u8,
    #[n(11)]
    buttons: u8,
    #[n(12)]
    reported: u8,
    #[n(13)]
    moved: [i32; 3],
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

impl From<&State> for SavedI8042 {
    fn from(state: &State) -> Self {
        let State {
            ram,
            output,
            last_output,
            answer,
            command,
            last_was_command,
            released,
            keyboard,
            mouse,
        } = state.clone();
        Self {
            ram: ram.into(),
            output: output.map(SavedByte::from),
            last_output,
            answer: answer.map(SavedByte::from),
            command,
            last_was_command,
            released,
            keyboard: keyboard.into(),
            mouse: mouse.into(),
        }
    }
}

impl TryFrom<SavedI8042> for State {
    type Error = SectionError;

    fn try_from(saved: SavedI8042) -> Result<Self, SectionError> {
        let SavedI8042 {
            ram,
            output,
            last_output,
            answer,
            command,
            last_was_command,
            released,
            keyboard,
            mouse,
        } = saved;
        Ok(Self {
            ram: ram.try_into().map_err(|ram: Vec<u8>| impossible("controller", ram.len()))?,
            output: output.map(Into::into),
            last_output,
            answer: answer.map(Into::into),
            command,
            last_was_command,
            released,
            keyboard: keyboard.try_into()?,
            mouse: mouse.try_into()?,
        })
    }
}

impl From<Keyboard> for SavedKeyboard {
    fn from(keyboard: Keyboard) -> Self {
        let Keyboard { queue, command, scanning, scan_set, leds, last_sent } = keyboard;
        Self { queue: queue.into(), command, scanning, scan_set, leds, last_sent }
    }
}

impl TryFrom<SavedKeyboard> for Keyboard {
    type Error = SectionError;

    fn try_from(saved: SavedKeyboard) -> Result<Self, SectionError> {
        let SavedKeyboard { queue, command, scanning, scan_set, leds, last_sent } = saved;
        if queue.len() > keyboard::QUEUE_MAX {
            return Err(impossible("keyboard's queue", queue.len()));
        }
        let scan_set = if scan_set == 1 { 1 } else { 2 };
        Ok(Self { queue: queue.into(), command, scanning, scan_set, leds: leds & 7, last_sent })
    }
}

impl From<Mouse> for SavedMouse {
    fn from(mouse: Mouse) -> Self {
        let Mouse {
            queue,
            command,
            reporting,
            remote,
            wrap,
            scale_2,
            resolution,
            rate,
            earlier_rates,
            id,
            last_sent,
            buttons,
            reported,
            moved,
        } = mouse;
        Self {
            queue: queue.into(),
            command,
            reporting,
            remote,
            wrap,
            scale_2,
            resolution,
            rate,
            earlier_rates,
            id,
            last_sent,
            buttons,
            reported,
            moved,
        }
    }
}

impl TryFrom<SavedMouse> for Mouse {
    type Error = SectionError;

    fn try_from(saved: SavedMouse) -> Result<Self, SectionError> {
        let SavedMouse {
            queue,
            command,
            reporting,
            remote,
            wrap,
            scale_2,
            resolution,
            rate,
            earlier_rates,
            id,
            last_sent,
            buttons,
            reported,
            moved,
        } = saved;
        if queue.len() > mouse::QUEUE_MAX {
            return Err(impossible("mouse's queue", queue.len()));
        }
        Ok(Self {
            queue: queue.into(),
            command,
            reporting,
            remote,
            wrap,
            scale_2,
            resolution: resolution & 3,
            rate,
            earlier_rates,
            id: if id == ID_WHEEL { ID_WHEEL } else { 0 },
            last_sent,
            buttons: buttons & 7,
            reported: reported & 7,
            moved,
        })
    }
}
