//! Keyboards and pointers (5.8).

mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock};

use bus::{Section, SectionError};

use crate::runner::lock;
use crate::{Broken, Chain, DeviceType, Handle, Outcome, VirtioDevice};
use spec::*;
use state::InputState;

/// Descriptors of a queue.
const QUEUE_SIZE: u16 = 64;
/// Events that wait for the guest. More are lost, as from a real keyboard.
const EVENTS_MAX: usize = 256;

/// Which input device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputKind {
    /// A keyboard with three lamps.
    Keyboard,
    /// A pointer that says where it is, with three buttons and a wheel.
    Tablet,
}

/// Where a tablet's pointer is and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TabletMotion {
    /// From the left: 0 to [`Input::AXIS_MAX`].
    pub x: u16,
    /// From the top.
    pub y: u16,
    /// The buttons held now: left 1, right 2, middle 4.
    pub buttons: u8,
    /// Steps of the wheel, towards the user.
    pub wheel: i32,
}

/// An input device.
pub struct Input {
    // Fixed configuration.
    kind: InputKind,
    // Wiring.
    handle: OnceLock<Handle>,
    // State.
    state: Mutex<State>,
}

#[derive(Debug, Clone, Default)]
struct State {
    select: u8,
    subsel: u8,
    /// A driver listens.
    driven: bool,
    /// Scroll lock 1, num lock 2, caps lock 4.
    leds: u8,
    events: VecDeque<Event>,
}

/// An event, as Linux's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Event {
    kind: u16,
    code: u16,
    value: i32,
}

impl Event {
    fn bytes(&self) -> [u8; EVENT_SIZE] {
        let mut bytes = [0; EVENT_SIZE];
        bytes[..2].copy_from_slice(&self.kind.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.code.to_le_bytes());
        bytes[4..].copy_from_slice(&self.value.to_le_bytes());
        bytes
    }

    fn of(bytes: &[u8; EVENT_SIZE]) -> Self {
        let [a, b, c, d, value @ ..] = *bytes;
        Self {
            kind: u16::from_le_bytes([a, b]),
            code: u16::from_le_bytes([c, d]),
            value: i32::from_le_bytes(value),
        }
    }
}

impl Input {
    /// The greatest coordinate of a tablet.
    pub const AXIS_MAX: u16 = 0x7fff;

    /// A device nobody has touched.
    pub fn new(kind: InputKind) -> Arc<Self> {
        Arc::new(Self { kind, handle: OnceLock::new(), state: Mutex::default() })
    }

    /// A driver listens.
    pub fn is_driven(&self) -> bool {
        lock(&self.state).driven
    }

    /// Lamps of a keyboard: scroll lock 1, num lock 2, caps lock 4.
    pub fn leds(&self) -> u8 {
        lock(&self.state).leds
    }

    /// A key of a keyboard, by its scan code of set 1. `false` when there is no room.
    pub fn key(&self, code: u8, extended: bool, down: bool) -> bool {
        let known = EXTENDED.iter().find(|(scan, _)| *scan == code).map(|(_, key)| *key);
        let key = if extended { known } else { Some(u16::from(code)) };
        let Some(key) = key.filter(|key| (1..KEY_COUNT).contains(key)) else { return true };
        self.send(&[Event { kind: EV_KEY, code: key, value: i32::from(down) }])
    }

    /// A tablet's motion. `false` when there is no room.
    pub fn motion(&self, motion: TabletMotion) -> bool {
        let TabletMotion { x, y, buttons, wheel } = motion;
        let axis = |code, value: u16| Event { kind: EV_ABS, code, value: i32::from(value) };
        let button = |code, bit| Event { kind: EV_KEY, code, value: i32::from(buttons & bit != 0) };
        let mut events = vec![
            axis(ABS_X, x.min(Self::AXIS_MAX)),
            axis(ABS_Y, y.min(Self::AXIS_MAX)),
            button(BTN_LEFT, 1),
            button(BTN_RIGHT, 2),
            button(BTN_MIDDLE, 4),
        ];
        if wheel != 0 {
            events.push(Event { kind: EV_REL, code: REL_WHEEL, value: wheel.saturating_neg() });
        }
        self.send(&events)
    }

    /// Queues a report: all of it or nothing.
    fn send(&self, events: &[Event]) -> bool {
        let mut state = lock(&self.state);
        if !state.driven || state.events.len() + events.len() >= EVENTS_MAX {
            return false;
        }
        state.events.extend(events);
        state.events.push_back(Event { kind: EV_SYN, code: 0, value: 0 });
        drop(state);
        if let Some(handle) = self.handle.get() {
            handle.kick(EVENTS);
        }
        true
    }

    /// What configuration space shows of what is selected.
    fn selected(&self, select: u8, subsel: u8) -> Vec<u8> {
        let keyboard = self.kind == InputKind::Keyboard;
        match (select, u16::from(subsel)) {
            (CFG_ID_NAME, 0) => {
                if keyboard {
                    "Trine keyboard".into()
                } else {
                    "Trine tablet".into()
                }
            }
            (CFG_ID_SERIAL, 0) => b"1".to_vec(),
            (CFG_ID_DEVIDS, 0) => {
                let product = if keyboard { 1 } else { 2 };
                [BUS_VIRTUAL, 0x1af4, product, 1].iter().flat_map(|id| id.to_le_bytes()).collect()
            }
            (CFG_EV_BITS, EV_KEY) if keyboard => {
                let mut bits = vec![0xff; usize::from(KEY_COUNT) / 8];
                bits[0] = 0xfe; // there is no key 0
                bits
            }
            (CFG_EV_BITS, EV_LED) if keyboard => vec![7],
            (CFG_EV_BITS, EV_REP) if keyboard => vec![3],
            (CFG_EV_BITS, EV_KEY) => bits(&[BTN_LEFT, BTN_RIGHT, BTN_MIDDLE]),
            (CFG_EV_BITS, EV_REL) if !keyboard => bits(&[REL_WHEEL]),
            (CFG_EV_BITS, EV_ABS) if !keyboard => bits(&[ABS_X, ABS_Y]),
            (CFG_ABS_INFO, ABS_X | ABS_Y) if !keyboard => [0, u32::from(Self::AXIS_MAX), 0, 0, 0]
                .iter()
                .flat_map(|n| n.to_le_bytes())
                .collect(),
            _ => Vec::new(),
        }
    }

    /// A lamp that the driver turns on or off.
    fn status(&self, event: Event) {
        // Linux counts num lock, caps lock, scroll lock.
        let bit = match (event.kind, event.code) {
            (EV_LED, 0) => 2,
            (EV_LED, 1) => 4,
            (EV_LED, 2) => 1,
            _ => return,
        };
        let mut state = lock(&self.state);
        state.leds = state.leds & !bit | if event.value != 0 { bit } else { 0 };
    }
}

/// A bitmap with these bits.
fn bits(set: &[u16]) -> Vec<u8> {
    let size = set.iter().max().map_or(0, |last| usize::from(last / 8) + 1);
    let mut bytes = vec![0; size];
    set.iter().for_each(|bit| bytes[usize::from(bit / 8)] |= 1 << (bit % 8));
    bytes
}

impl VirtioDevice for Input {
    fn device_type(&self) -> DeviceType {
        DeviceType::Input
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE; 2]
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        let (select, subsel) = {
            let state = lock(&self.state);
            (state.select, state.subsel)
        };
        let bytes = self.selected(select, subsel);
        let mut config = [0; CONFIG_SIZE];
        (config[0], config[1]) = (select, subsel);
        config[SIZE] = bytes.len() as u8; // the longest has 35
        config[BYTES..BYTES + bytes.len()].copy_from_slice(&bytes);
        let from = usize::try_from(offset).ok().and_then(|at| config.get(at..)).unwrap_or_default();
        for (to, byte) in data.iter_mut().zip(from) {
            *to = *byte;
        }
    }

    fn config_write(&self, offset: u64, data: &[u8]) {
        let mut state = lock(&self.state);
        for (at, byte) in (offset..).zip(data) {
            match at {
                SELECT => state.select = *byte,
                SUBSEL => state.subsel = *byte,
                _ => {}
            }
        }
    }

    fn attach(&self, handle: Handle) {
        let attached = self.handle.set(handle);
        assert!(attached.is_ok(), "an input device is attached once");
    }

    fn start(&self, _features: u64) {
        lock(&self.state).driven = true;
    }

    fn handle(&self, queue: usize, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        if queue == STATUS {
            let mut bytes = [0; EVENT_SIZE];
            if chain.readable.size() >= EVENT_SIZE as u64 {
                let wild = |_| Broken("sent an input device a buffer that is not RAM");
                chain.readable.read(0, &mut bytes).map_err(wild)?;
                self.status(Event::of(&bytes));
            }
            return Ok(Outcome::Done(0));
        }
        if chain.writable.size() < EVENT_SIZE as u64 {
            return Err(Broken("gave an input device a buffer smaller than an event"));
        }
        let Some(event) = lock(&self.state).events.pop_front() else { return Ok(Outcome::Wait) };
        let wild = |_| Broken("gave an input device a buffer that is not RAM");
        chain.writable.write(0, &event.bytes()).map_err(wild)?;
        Ok(Outcome::Done(EVENT_SIZE as u32))
    }

    fn reset(&self) {
        *lock(&self.state) = State::default();
    }

    fn save(&self) -> Section {
        Section::encode(&InputState::from(&*lock(&self.state)))
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        *lock(&self.state) = State::try_from(section.decode::<InputState>()?)?;
        Ok(())
    }
}
