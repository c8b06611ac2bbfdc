//! The protocol with one viewer, without sockets.

use crate::auth::{CHALLENGE_SIZE, response, same};
use crate::encode::{Encoder, Encoding, header};
use crate::keyboard::Keyboard;
use crate::message::{self, Message};
use crate::pixel::{self, PixelFormat, color_map};
use crate::shown::{Rect, Shown, fitted};
use crate::{Desk, Picture, Pointer};

const VERSION: &[u8; 12] = b"RFB 003.008\n";
const SECURITY_NONE: u8 = 1;
const SECURITY_VNC: u8 = 2;
/// Pseudo-encodings.
const DESKTOP_SIZE: i32 = -223;
const QEMU_KEYS: i32 = -258;
const QEMU_LEDS: i32 = -261;
const EXTENDED_DESKTOP_SIZE: i32 = -308;
/// Buttons of a pointer message.
const LEFT: u8 = 1;
const MIDDLE: u8 = 1 << 1;
const RIGHT: u8 = 1 << 2;
const WHEEL_UP: u8 = 1 << 3;
const WHEEL_DOWN: u8 = 1 << 4;
/// Bytes that may come before they are looked at; the longest message is shorter.
const INPUT_MAX: usize = 16 * 1024;

/// A viewer has broken the protocol, or does not know the password: it is to be hung up on, once it
/// has what was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the viewer {0}")]
pub struct Broken(pub &'static str);

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Version,
    Security,
    Response,
    Init,
    Open,
}

/// One viewer.
pub struct Session {
    stage: Stage,
    /// Minor version of RFB 3: 3, 7 or 8.
    minor: u8,
    password: Option<String>,
    challenge: [u8; CHALLENGE_SIZE],
    name: String,
    input: Vec<u8>,
    /// Bytes that come and are nothing to us.
    skip: usize,
    output: Vec<u8>,
    format: PixelFormat,
    encoding: Encoding,
    encoder: Encoder,
    offers: Offers,
    shown: Shown,
    /// An update is asked for; also if nothing has changed.
    asked: Option<Asked>,
    keyboard: Keyboard,
    buttons: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    WhenChanged,
    Now,
}

/// What the viewer understands besides pixels, and what it has been told of it.
#[derive(Debug, Clone, Copy, Default)]
struct Offers {
    desktop_size: bool,
    extended_size: bool,
    leds: bool,
    /// To be said once: that keys may come by their codes, and that sizes may change.
    say_keys: bool,
    say_size: bool,
    /// A change of the size was asked for, and is to be refused.
    refuse_size: bool,
    leds_said: Option<u8>,
}

impl Session {
    /// A viewer that has just connected. With a password it must know it; `challenge` is then as
    /// random as can be. Its first bytes are in [`Session::output`].
    pub fn new(name: &str, password: Option<String>, challenge: [u8; 16]) -> Self {
        let Some(format) = PixelFormat::parse(&pixel::NATIVE) else {
            unreachable!("our own format is one")
        };
        Self {
            stage: Stage::Version,
            minor: 8,
            password,
            challenge,
            name: name.to_owned(),
            input: Vec::new(),
            skip: 0,
            output: VERSION.to_vec(),
            format,
            encoding: Encoding::Raw,
            encoder: Encoder::new(),
            offers: Offers::default(),
            shown: Shown::default(),
            asked: None,
            keyboard: Keyboard::new(),
            buttons: 0,
        }
    }

    /// What is to be sent; whoever sends it takes it out.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// The viewer is in: it has shown what it must.
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// It waits for what has changed.
    pub fn wants_update(&self) -> bool {
        self.asked.is_some()
    }

    /// The viewer sends something.
    ///
    /// # Errors
    /// When it is to be hung up on.
    pub fn receive(&mut self, mut bytes: &[u8], desk: &dyn Desk) -> Result<(), Broken> {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let (now, later) = bytes.split_at(bytes.len().min(INPUT_MAX - self.input.len()));
            self.input.extend(now);
            bytes = later;
            let mut used = 0;
            while let Some(size) = self.one(used, desk)? {
                used += size;
                let skipped = self.skip.min(self.input.len() - used);
                self.skip -= skipped;
                used += skipped;
            }
            self.input.drain(..used);
            if self.input.len() == INPUT_MAX {
                return Err(Broken("sends a message that is too long"));
            }
        }
        Ok(())
    }

    /// Takes one message from the input after `used` bytes; its size, if it is whole.
    fn one(&mut self, used: usize, desk: &dyn Desk) -> Result<Option<usize>, Broken> {
        let input = &self.input[used..];
        let size = match self.stage {
            Stage::Version => VERSION.len(),
            Stage::Security | Stage::Init => 1,
            Stage::Response => CHALLENGE_SIZE,
            Stage::Open => {
                let Some((message, size)) = message::parse(input).map_err(Broken)? else {
                    return Ok(None);
                };
                self.message(message, desk)?;
                return Ok(Some(size));
            }
        };
        let Some(part) = input.get(..size) else { return Ok(None) };
        let part = part.to_vec();
        match self.stage {
            Stage::Version => self.version(&part)?,
            Stage::Security => self.security(part[0])?,
            Stage::Response => self.check(&part)?,
            Stage::Init | Stage::Open => self.init(desk),
        }
        Ok(Some(size))
    }

    /// The version (7.1.1), and with it the choice of security.
    fn version(&mut self, text: &[u8]) -> Result<(), Broken> {
        let number = |digits: &[u8]| {
            std::str::from_utf8(digits).ok().and_then(|text| text.parse::<u16>().ok())
        };
        let (major, minor) = (number(&text[4..7]), number(&text[8..11]));
        let (Some(major @ 3..), Some(minor)) = (major, minor) else {
            return Err(Broken("speaks no version of RFB"));
        };
        if !text.starts_with(b"RFB ") || text[7] != b'.' || text[11] != b'\n' {
            return Err(Broken("speaks no version of RFB"));
        }
        self.minor = match (major, minor) {
            (3, 7) => 7,
            (3, ..7) => 3,
            _ => 8,
        };
        let kind = if self.password.is_some() { SECURITY_VNC } else { SECURITY_NONE };
        if self.minor == 3 {
            self.output.extend([0, 0, 0, kind]);
            return self.security(kind);
        }
        self.output.extend([1, kind]);
        self.stage = Stage::Security;
        Ok(())
    }

    fn security(&mut self, kind: u8) -> Result<(), Broken> {
        match (kind, &self.password) {
            (SECURITY_VNC, Some(_)) => {
                self.output.extend(self.challenge);
                self.stage = Stage::Response;
            }
            (SECURITY_NONE, None) => {
                if self.minor == 8 {
                    self.output.extend([0; 4]);
                }
                self.stage = Stage::Init;
            }
            _ => return Err(Broken("chooses a security type that was not offered")),
        }
        Ok(())
    }

    fn check(&mut self, answer: &[u8]) -> Result<(), Broken> {
        let password = self.password.clone().unwrap_or_default();
        let expected = response(&password, &self.challenge);
        let right = answer.first_chunk().is_some_and(|answer| same(answer, &expected));
        self.output.extend([0, 0, 0, u8::from(!right)]);
        if right {
            self.stage = Stage::Init;
            return Ok(());
        }
        if self.minor == 8 {
            let reason = b"wrong password";
            self.output.extend([0, 0, 0, reason.len() as u8]);
            self.output.extend(reason);
        }
        Err(Broken("does not know the password"))
    }

    /// Viewers always share; what the screen is follows (7.3.2).
    fn init(&mut self, desk: &dyn Desk) {
        let mut picture = Picture::default();
        desk.look(&mut picture);
        self.shown.resize(picture.width, picture.height);
        for size in [picture.width, picture.height] {
            self.output.extend((size as u16).to_be_bytes()); // see `Picture`
        }
        self.output.extend(pixel::NATIVE);
        self.output.extend((self.name.len() as u32).to_be_bytes());
        self.output.extend(self.name.as_bytes());
        self.stage = Stage::Open;
    }

    fn message(&mut self, message: Message, desk: &dyn Desk) -> Result<(), Broken> {
        match message {
            Message::PixelFormat(wire) => {
                let format = PixelFormat::parse(&wire);
                self.format = format.ok_or(Broken("asks for a pixel format that cannot be"))?;
                if wire[3] == 0 {
                    self.output.extend(color_map());
                }
            }
            Message::Encodings(list) => self.encodings(&list),
            Message::Update { incremental, area } => {
                if !incremental {
                    self.shown.forget(area);
                }
                let now = !incremental || self.asked == Some(Asked::Now);
                self.asked = Some(if now { Asked::Now } else { Asked::WhenChanged });
            }
            Message::Keysym { down, keysym } => self.keyboard.keysym(keysym, down, desk),
            Message::QemuKey { down, code: code @ 1..=0xff, .. } => {
                self.keyboard.code(code as u8, down, desk);
            }
            Message::QemuKey { down, keysym, .. } => self.keyboard.keysym(keysym, down, desk),
            Message::Pointer { buttons, x, y } => self.pointer(buttons, x, y, desk),
            Message::Skip(size) => self.skip = size,
            Message::DesktopSize => {
                self.offers.refuse_size = self.offers.extended_size;
                self.asked = Some(Asked::Now);
            }
        }
        Ok(())
    }

    fn encodings(&mut self, list: &[i32]) {
        self.encoding = list.iter().find_map(|n| Encoding::of(*n)).unwrap_or(Encoding::Raw);
        let has = |number| list.contains(&number);
        let Offers { leds_said, .. } = self.offers;
        self.offers = Offers {
            desktop_size: has(DESKTOP_SIZE),
            extended_size: has(EXTENDED_DESKTOP_SIZE),
            leds: has(QEMU_LEDS),
            say_keys: has(QEMU_KEYS),
            say_size: has(EXTENDED_DESKTOP_SIZE),
            refuse_size: false,
            leds_said,
        };
    }

    fn pointer(&mut self, buttons: u8, x: u16, y: u16, desk: &dyn Desk) {
        let pressed = buttons & !self.buttons;
        self.buttons = buttons;
        let (width, height) = self.shown.size();
        let step = |bit: u8| i32::from(pressed & bit != 0);
        desk.point(Pointer {
            x,
            y,
            screen: (width as u16, height as u16), // see `Picture`
            left: buttons & LEFT != 0,
            middle: buttons & MIDDLE != 0,
            right: buttons & RIGHT != 0,
            wheel: step(WHEEL_DOWN) - step(WHEEL_UP),
        });
    }

    /// Sends what the viewer does not have of the screen, if it has asked. True when there was
    /// something.
    pub fn update(&mut self, picture: &Picture, leds: u8) -> bool {
        let Some(asked) = self.asked else { return false };
        let size = (picture.width, picture.height);
        let at = self.output.len();
        self.output.extend([0; 4]);
        let mut count = self.extras(size, leds);
        if size != self.shown.size() && (self.offers.desktop_size || self.offers.extended_size) {
            // Alone in its update: the viewer then asks for everything.
            if !self.offers.extended_size {
                let rect = Rect { x: 0, y: 0, width: size.0, height: size.1 };
                header(rect, DESKTOP_SIZE, &mut self.output);
            } else {
                self.extended_size(0, 0, size);
            }
            count += 1;
            self.shown.resize(size.0, size.1);
        } else {
            let cut;
            let mut visible = picture;
            if size != self.shown.size() {
                cut = fitted(picture, self.shown.size());
                visible = &cut;
            }
            for rect in self.shown.update(visible) {
                self.encoder.rect(self.encoding, &self.format, visible, &rect, &mut self.output);
                count += 1;
            }
        }
        if count == 0 && asked == Asked::WhenChanged {
            self.output.truncate(at);
            return false;
        }
        self.output[at + 2..at + 4].copy_from_slice(&count.to_be_bytes());
        self.asked = None;
        true
    }

    /// Rectangles that are none.
    fn extras(&mut self, size: (usize, usize), leds: u8) -> u16 {
        let mut count = 0;
        let nowhere = Rect { x: 0, y: 0, width: 0, height: 0 };
        if std::mem::take(&mut self.offers.say_keys) {
            header(nowhere, QEMU_KEYS, &mut self.output);
            count += 1;
        }
        if self.offers.leds && self.offers.leds_said.replace(leds) != Some(leds) {
            header(nowhere, QEMU_LEDS, &mut self.output);
            self.output.push(leds);
            count += 1;
        }
        if std::mem::take(&mut self.offers.refuse_size) {
            self.extended_size(1, 1, self.shown.size());
            count += 1;
        }
        if std::mem::take(&mut self.offers.say_size) && size == self.shown.size() {
            self.extended_size(0, 0, size);
            count += 1;
        }
        count
    }

    /// One screen of this size, for this reason and with this result.
    fn extended_size(&mut self, reason: usize, result: usize, (width, height): (usize, usize)) {
        let rect = Rect { x: reason, y: result, width, height };
        header(rect, EXTENDED_DESKTOP_SIZE, &mut self.output);
        self.output.extend([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for size in [width, height] {
            self.output.extend((size as u16).to_be_bytes());
        }
        self.output.extend([0; 4]);
    }

    /// The viewer has gone.
    pub fn close(&mut self, desk: &dyn Desk) {
        self.keyboard.release_all(desk);
    }
}
