//! What stands on a user's desk: the screen, the keyboard and the pointer.
//!
//! Keys wait here until the guest's keyboard has room for them, because a PS/2 keyboard holds few and
//! firmware reads them slowly. What a guest does not read for long is thrown away, so that nothing
//! typed long ago turns up in its next program.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use board::Machine;
use chipset::{I8042, Key, Motion};
use display::{Picture, Vga};
use evloop::{Alarm, Event};
use rfb::Pointer;
use virtio::{Input, TabletMotion};
use vmm_rpc::KeyPress;

/// Keys that may wait: as many as a long line typed at once.
pub(crate) const KEYS_MAX: usize = 8192;
/// Time between two keys: firmware's own buffer holds 15 and is read by polling.
const BETWEEN_KEYS: Duration = Duration::from_millis(8);
/// A guest that has taken no key for so long does not listen.
const PATIENCE: Duration = Duration::from_secs(2);
/// Codes after the prefix 0xe0 have this bit in a [`KeyPress`].
const EXTENDED: u8 = 0x80;

/// The desk.
///
/// *Locks*: a leaf each, but for the keyboard's and the mouse's own under them.
pub struct Desk {
    screen: Arc<Vga>,
    ps2: Arc<I8042>,
    /// Where drivers listen to them, they are the better ones: firmware does not.
    keyboard: Arc<Input>,
    tablet: Arc<Input>,
    keys: Mutex<Keys>,
    /// Keys wait.
    pub(crate) typed: Arc<Event>,
    /// It is time for the next key.
    pub(crate) next: Arc<Alarm>,
    /// Where the pointer was last.
    pointer: Mutex<Option<(u16, u16)>>,
}

struct Keys {
    waiting: VecDeque<KeyPress>,
    /// Since when the guest has taken none.
    stuck: Option<Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// The desk of this machine, if it has a screen.
    pub(crate) fn new(machine: &Machine) -> std::io::Result<Option<Arc<Self>>> {
        let parts = (machine.display(), machine.keyboard(), machine.tablet());
        let (Some(screen), Some(keyboard), Some(tablet)) = parts else { return Ok(None) };
        Ok(Some(Arc::new(Self {
            screen: screen.clone(),
            ps2: machine.i8042().clone(),
            keyboard: keyboard.clone(),
            tablet: tablet.clone(),
            keys: Mutex::new(Keys { waiting: VecDeque::new(), stuck: None }),
            typed: Arc::new(Event::new()?),
            next: Arc::new(Alarm::new()?),
            pointer: Mutex::default(),
        })))
    }

    /// What the screen shows.
    pub fn capture(&self, into: &mut Picture) {
        self.screen.capture(into);
    }

    /// Presses and releases keys. `false` when too many wait already: none of them is taken.
    pub fn type_keys(&self, pressed: &[KeyPress]) -> bool {
        let mut keys = lock(&self.keys);
        if keys.waiting.len() + pressed.len() > KEYS_MAX {
            return false;
        }
        keys.waiting.extend(pressed);
        drop(keys);
        self.typed.signal();
        true
    }

    /// Gives the guest the next key, and says by the alarm when to come again.
    pub(crate) fn give_keys(&self) {
        let mut keys = lock(&self.keys);
        let Some(KeyPress { code, down }) = keys.waiting.front().copied() else { return };
        let (code, extended) = (code & !EXTENDED, code & EXTENDED != 0);
        let taken = if self.keyboard.is_driven() {
            self.keyboard.key(code, extended, down)
        } else {
            self.ps2.key(Key { code, extended }, down)
        };
        if taken {
            keys.waiting.pop_front();
            keys.stuck = None;
        } else if keys.stuck.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            keys.waiting.clear();
            keys.stuck = None;
        }
        self.next.set((!keys.waiting.is_empty()).then_some(BETWEEN_KEYS));
    }
}

impl rfb::Desk for Desk {
    fn look(&self, into: &mut rfb::Picture) {
        let mut picture =
            Picture { pixels: std::mem::take(&mut into.pixels), ..Picture::default() };
        self.capture(&mut picture);
        let Picture { width, height, pixels } = picture;
        *into = rfb::Picture { width, height, pixels };
    }

    fn key(&self, code: u8, down: bool) {
        // One that finds no room is lost, as with a keyboard whose buffer is full.
        let _ = self.type_keys(&[KeyPress { code, down }]);
    }

    fn point(&self, pointer: Pointer) {
        let Pointer { x, y, screen: (width, height), left, middle, right, wheel } = pointer;
        let (from_x, from_y) = lock(&self.pointer).replace((x, y)).unwrap_or((x, y));
        let bit = |held, bit| if held { bit } else { 0 };
        let buttons = bit(left, 1) | bit(right, 2) | bit(middle, 4);
        if self.tablet.is_driven() {
            let axis = |at: u16, size: u16| {
                let last = u32::from(size.max(2) - 1);
                (u32::from(at).min(last) * u32::from(Input::AXIS_MAX) / last) as u16
            };
            let (x, y) = (axis(x, width), axis(y, height));
            // Where there is no room, the guest does not listen.
            let _ = self.tablet.motion(TabletMotion { x, y, buttons, wheel });
            return;
        }
        self.ps2.mouse(Motion {
            right: i32::from(x) - i32::from(from_x),
            up: i32::from(from_y) - i32::from(y),
            wheel,
            buttons,
        });
    }

    fn leds(&self) -> u8 {
        if self.keyboard.is_driven() { self.keyboard.leds() } else { self.ps2.leds() }
    }
}
