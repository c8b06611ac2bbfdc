//! The key that talks to this program instead of the guest.

/// Ctrl-A, as in the programs people know.
pub const KEY: u8 = 0x01;

/// What to tell someone who sits at the terminal.
pub const HINT: &str = "Ctrl-A x ends the VM, Ctrl-A h helps";
/// What Ctrl-A h says.
pub const HELP: &str = "\r\n\
    Ctrl-A x       end the VM at once\r\n\
    Ctrl-A p       press the VM's power button\r\n\
    Ctrl-A h       this\r\n\
    Ctrl-A Ctrl-A  send Ctrl-A to the guest\r\n";

/// What a byte typed means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Typed {
    /// It is for the guest.
    Byte(u8),
    /// It is part of an escape.
    Nothing,
    /// End the VM.
    Quit,
    /// Press the power button.
    PowerButton,
    /// Say what can be typed.
    Help,
}

/// Tells escapes from the guest's bytes.
#[derive(Debug, Default)]
pub struct Escape {
    begun: bool,
}

impl Escape {
    /// The next byte typed.
    pub fn feed(&mut self, byte: u8) -> Typed {
        if !std::mem::take(&mut self.begun) {
            self.begun = byte == KEY;
            return if self.begun { Typed::Nothing } else { Typed::Byte(byte) };
        }
        match byte {
            KEY => Typed::Byte(KEY),
            b'x' | b'X' => Typed::Quit,
            b'p' | b'P' => Typed::PowerButton,
            b'h' | b'H' | b'?' => Typed::Help,
            _ => Typed::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(bytes: &[u8]) -> Vec<Typed> {
        let mut escape = Escape::default();
        let typed = bytes.iter().map(|byte| escape.feed(*byte));
        typed.filter(|typed| *typed != Typed::Nothing).collect()
    }

    #[test]
    fn bytes_go_to_the_guest() {
        assert_eq!(feed(b"x\x00h"), [Typed::Byte(b'x'), Typed::Byte(0), Typed::Byte(b'h')]);
    }

    #[test]
    fn escapes_do_not() {
        assert_eq!(feed(b"\x01x"), [Typed::Quit]);
        assert_eq!(feed(b"\x01p\x01?"), [Typed::PowerButton, Typed::Help]);
        assert_eq!(feed(b"\x01\x01x"), [Typed::Byte(KEY), Typed::Byte(b'x')]);
        assert_eq!(feed(b"\x01zx"), [Typed::Byte(b'x')]);
    }
}
