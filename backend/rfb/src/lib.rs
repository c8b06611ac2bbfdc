//! An RFB server: it shows a [`Desk`]'s screen to remote viewers and gives it their keys and pointer.
//!
//! - [`Session`] is the protocol with one viewer, without sockets: bytes in, bytes out.
//! - [`Server`] listens on UNIX sockets, TCP and WebSocket, and runs a session a thread.
//!
//! Of what the screen shows, a viewer is sent the tiles that differ from what it has, so nobody has to
//! say what has changed.
//!
//! *Invariants*: a viewer is hostile until it has shown the password, and after. What it sends never
//! panics, and makes nothing grow: a message has a greatest length, and what may be longer is skipped
//! as it comes. To a viewer that does not read, nothing more is sent: one update is on its way at a
//! time, as large as the screen at most. A screen that is open beyond this host has a password.
//!
//! What this crate may not know: what makes the screen.
//!
//! Follows RFC 6143; for its extensions the "rfbproto" community document: extended desktop size,
//! Tight, QEMU's extended key events and LED state. Section numbers are RFC 6143's.

mod auth;
mod encode;
mod error;
mod keyboard;
mod listen;
mod message;
mod pixel;
mod server;
mod session;
mod shown;
mod transport;

pub use error::RfbError;
pub use listen::Place;
pub use server::{Listening, Server};
pub use session::{Broken, Session};

/// A screen as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Picture {
    /// Pixels of a line; at most 65535.
    pub width: usize,
    /// Lines; at most 65535.
    pub height: usize,
    /// Red, green and blue from bit 16, 8 and 0; `width * height` of them.
    pub pixels: Vec<u32>,
}

/// A pointer, as a viewer moves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pointer {
    /// From the left.
    pub x: u16,
    /// From the top.
    pub y: u16,
    /// Size of the screen that the viewer sees.
    pub screen: (u16, u16),
    /// The left button is held.
    pub left: bool,
    /// The middle button is held.
    pub middle: bool,
    /// The right button is held.
    pub right: bool,
    /// Steps of the wheel towards the user.
    pub wheel: i32,
}

/// What viewers see and use. Calls come from any thread, and may not block for long.
pub trait Desk: Send + Sync {
    /// The screen.
    fn look(&self, into: &mut Picture);
    /// A key goes down or up: see [`keymap`] for codes.
    fn key(&self, code: u8, down: bool);
    /// The pointer moves or its buttons change.
    fn point(&self, pointer: Pointer);
    /// Lamps of the keyboard: scroll lock 1, num lock 2, caps lock 4.
    fn leds(&self) -> u8;
}

#[cfg(test)]
mod tests;
