//! What a viewer says once it is in (7.5).

use crate::pixel;

/// Most encodings a viewer may list: there are not so many.
const ENCODINGS_MAX: usize = 1024;

const SET_PIXEL_FORMAT: u8 = 0;
const SET_ENCODINGS: u8 = 2;
const UPDATE_REQUEST: u8 = 3;
const KEY: u8 = 4;
const POINTER: u8 = 5;
const CUT_TEXT: u8 = 6;
const SET_DESKTOP_SIZE: u8 = 251;
const QEMU: u8 = 255;
const QEMU_KEY: u8 = 0;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    PixelFormat([u8; pixel::SIZE]),
    Encodings(Vec<i32>),
    /// Everything of this rectangle when not incremental: x, y, width, height.
    Update {
        incremental: bool,
        area: [u16; 4],
    },
    Keysym {
        down: bool,
        keysym: u32,
    },
    Pointer {
        buttons: u8,
        x: u16,
        y: u16,
    },
    /// So many bytes follow that are to be skipped.
    Skip(usize),
    DesktopSize,
    QemuKey {
        down: bool,
        keysym: u32,
        code: u32,
    },
}

/// The message at the beginning of `bytes` and its length; `None` while it is not whole.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Message, usize)>, &'static str> {
    let Some(kind) = bytes.first() else { return Ok(None) };
    let u16_at = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let u32_at = |at: usize| u32::from(u16_at(at)) << 16 | u32::from(u16_at(at + 2));
    let size = match *kind {
        SET_PIXEL_FORMAT => 4 + pixel::SIZE,
        SET_ENCODINGS => 4,
        UPDATE_REQUEST => 10,
        KEY | CUT_TEXT | SET_DESKTOP_SIZE => 8,
        POINTER => 6,
        QEMU => 12,
        _ => return Err("sends a message that was not offered"),
    };
    if bytes.len() < size {
        return Ok(None);
    }
    let message = match *kind {
        SET_PIXEL_FORMAT => {
            let mut format = [0; pixel::SIZE];
            format.copy_from_slice(&bytes[4..size]);
            Message::PixelFormat(format)
        }
        SET_ENCODINGS => {
            let count = usize::from(u16_at(2));
            if count > ENCODINGS_MAX {
                return Err("lists more encodings than there are");
            }
            let end = size + 4 * count;
            let Some(list) = bytes.get(size..end) else { return Ok(None) };
            let list = list.as_chunks::<4>().0.iter().map(|wire| i32::from_be_bytes(*wire));
            return Ok(Some((Message::Encodings(list.collect()), end)));
        }
        UPDATE_REQUEST => Message::Update {
            incremental: bytes[1] != 0,
            area: [u16_at(2), u16_at(4), u16_at(6), u16_at(8)],
        },
        KEY => Message::Keysym { down: bytes[1] != 0, keysym: u32_at(4) },
        POINTER => Message::Pointer { buttons: bytes[1], x: u16_at(2), y: u16_at(4) },
        // A negative length is that of an extension which nobody was offered.
        CUT_TEXT => Message::Skip((u32_at(4) as i32).unsigned_abs() as usize),
        SET_DESKTOP_SIZE => {
            let screens = usize::from(bytes[6]) * 16;
            if bytes.len() < size + screens {
                return Ok(None);
            }
            return Ok(Some((Message::DesktopSize, size + screens)));
        }
        _ if bytes[1] != QEMU_KEY => return Err("sends an extension that was not offered"),
        _ => Message::QemuKey { down: u16_at(2) != 0, keysym: u32_at(4), code: u32_at(8) },
    };
    Ok(Some((message, size)))
}
