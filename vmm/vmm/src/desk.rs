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
use vmm_rpc::KeyPress;

/// Keys that may wait: as many as a long line typed at once.
pub(crate) const KEYS_MAX: usize = 8192;
/// Time between two keys: firmware's own buffer holds 15 and is read by polling.
const BETWEEN_KEYS: Duration = Duration::from_millis(8);
/// A guest that has taken no key for so long does not listen.
const PATIENCE: Duration = Duration::from_secs(2);
/// Codes after the prefix 0xe0 have this bit in a [`KeyPress`].
const EXTENDED: u8 = 0x80;
/// One step of a wheel.
const WHEEL_STEP: i32 = 1;

/// Buttons of a pointer: left, middle, right, and the wheel's two directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Buttons {
    /// Held now.
    pub left: bool,
    /// Held now.
    pub middle: bool,
    /// Held now.
    pub right: bool,
    /// Steps of the wheel towards the user.
    pub wheel: i32,
}

/// A pointer's place on the screen, whose size is told with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// From the left.
    pub x: u16,
    /// From the top.
    pub y: u16,
}

/// The desk.
///
/// *Locks*: a leaf each, but for the keyboard's and the mouse's own under them.
pub struct Desk {
    screen: Arc<Vga>,
    keyboard: Arc<I8042>,
    keys: Mutex<Keys>,
    /// Keys wait.
    pub(crate) typed: Arc<Event>,
    /// It is time for the next key.
    pub(crate) next: Arc<Alarm>,
    pointer: Mutex<Option<Place>>,
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
        let Some(screen) = machine.display().cloned() else { return Ok(None) };
        Ok(Some(Arc::new(Self {
            screen,
            keyboard: machine.i8042().clone(),
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
        let key = Key { code: code & !EXTENDED, extended: code & EXTENDED != 0 };
        if self.keyboard.key(key, down) {
            keys.waiting.pop_front();
            keys.stuck = None;
        } else if keys.stuck.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            keys.waiting.clear();
            keys.stuck = None;
        }
        self.next.set((!keys.waiting.is_empty()).then_some(BETWEEN_KEYS));
    }

    /// Lamps of the keyboard: scroll lock 1, num lock 2, caps lock 4.
    pub fn leds(&self) -> u8 {
        self.keyboard.leds()
    }

    /// The pointer is there now, on a screen of this size, with these buttons.
    pub fn point(&self, to: Place, _screen: (usize, usize), buttons: Buttons) {
        let from = lock(&self.pointer).replace(to).unwrap_or(to);
        let bit = |held, bit| if held { bit } else { 0 };
        self.keyboard.mouse(Motion {
            right: i32::from(to.x) - i32::from(from.x),
            up: i32::from(from.y) - i32::from(to.y),
            wheel: buttons.wheel * WHEEL_STEP,
            buttons: bit(buttons.left, 1) | bit(buttons.right, 2) | bit(buttons.middle, 4),
        });
    }
}
