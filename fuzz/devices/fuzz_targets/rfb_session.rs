//! What a viewer says, in pieces of any size, while the screen changes its contents and its size.

#![no_main]

use std::sync::Mutex;

use fuzz_devices::Input;
use libfuzzer_sys::fuzz_target;
use rfb::{Desk, Picture, Pointer, Session};

/// More output than any sequence of updates of such screens has, when it is taken after each.
const OUTPUT_MAX: usize = 1 << 20;

/// Which keys are held: every one that goes down must come up.
struct Held(Mutex<[bool; 256]>);

impl Desk for Held {
    fn look(&self, into: &mut Picture) {
        *into = picture(40, 30, 1);
    }

    fn key(&self, code: u8, down: bool) {
        self.0.lock().unwrap()[usize::from(code)] = down;
    }

    fn point(&self, pointer: Pointer) {
        assert!((-1..=1).contains(&pointer.wheel));
    }

    fn leds(&self) -> u8 {
        4
    }
}

fn picture(width: usize, height: usize, seed: u32) -> Picture {
    let pixel = |i: usize| match seed % 4 {
        0 => seed,
        1 => (i as u32).wrapping_mul(2_654_435_761 ^ seed),
        2 => [seed, 0][i / 3 % 2],
        _ => i as u32 / 17 * seed,
    };
    let pixels = (0..width * height).map(|i| pixel(i) & 0xff_ffff).collect();
    Picture { width, height, pixels }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let flags = input.u8();
    let password = (flags & 1 != 0).then(|| "secret".to_owned());
    let desk = Held(Mutex::new([false; 256]));
    let mut session = Session::new("fuzz", password, [7; 16]);
    if flags & 2 != 0 {
        // Most inputs are to get past the door.
        let opened = session.receive(b"RFB 003.003\n\x01", &desk);
        assert!(opened.is_ok());
    }
    while !input.is_empty() {
        let size = usize::from(input.u8());
        if session.receive(input.bytes(size), &desk).is_err() {
            break;
        }
        let now = picture(1 + size % 130, 1 + size % 70, size as u32 * 0x9e37);
        session.update(&now, size as u8 & 7);
        assert!(session.output().len() < OUTPUT_MAX);
        session.output().clear();
    }
    session.close(&desk);
    assert!(desk.0.lock().unwrap().iter().all(|held| !held), "a key is still held");
});
