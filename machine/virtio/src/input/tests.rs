//! Keys and motions through the queue, and what drivers ask first.

use bus::Device;

use super::*;
use crate::testing::*;

fn config(device: &Input, select: u8, subsel: u8) -> Vec<u8> {
    device.config_write(0, &[select, subsel]);
    let mut config = [0; CONFIG_SIZE];
    device.config_read(0, &mut config);
    config[BYTES..BYTES + usize::from(config[SIZE])].to_vec()
}

/// Type, code and value of what came into buffers of eight bytes.
fn events(m: &Machine, count: usize) -> Vec<(u16, u16, i32)> {
    let bytes = m.bytes(BUFFERS, count * EVENT_SIZE);
    let events = bytes.as_chunks::<EVENT_SIZE>().0.iter().map(Event::of);
    events.map(|event| (event.kind, event.code, event.value)).collect()
}

fn offer(m: &Machine, q: &mut Queue, count: u64) {
    for i in 0..count {
        q.add(m, &[writable(BUFFERS + i * EVENT_SIZE as u64, EVENT_SIZE as u32)]);
    }
    q.ring(m);
}

#[test]
fn a_keyboard_sends_linuxs_keys() {
    let keyboard = Input::new(InputKind::Keyboard);
    let m = Machine::new(keyboard.clone());
    assert!(!keyboard.key(0x1e, false, true), "nobody listens yet");
    let mut q = m.start(!0).remove(EVENTS);
    assert!(keyboard.is_driven());
    offer(&m, &mut q, 6);
    assert!(keyboard.key(0x1e, false, true) && keyboard.key(0x48, true, false));
    assert!(keyboard.key(0x7f, true, true), "a key that nobody has is forgotten");
    assert_eq!(q.used(&m).len(), 4);
    assert_eq!(events(&m, 4), [(1, 30, 1), (0, 0, 0), (1, 103, 0), (0, 0, 0)]);
}

#[test]
fn a_tablet_says_where_it_is() {
    let tablet = Input::new(InputKind::Tablet);
    let m = Machine::new(tablet.clone());
    let mut q = m.start(!0).remove(EVENTS);
    offer(&m, &mut q, 10);
    assert!(tablet.motion(TabletMotion { x: 0xffff, y: 5, buttons: 4, wheel: 1 }));
    assert_eq!(
        events(&m, 7),
        [
            (3, 0, 0x7fff),
            (3, 1, 5),
            (1, 0x110, 0),
            (1, 0x111, 0),
            (1, 0x112, 1),
            (2, 8, -1),
            (0, 0, 0)
        ]
    );
}

#[test]
fn drivers_learn_what_there_is() {
    let keyboard = Input::new(InputKind::Keyboard);
    assert_eq!(config(&keyboard, CFG_ID_NAME, 0), b"Trine keyboard");
    assert_eq!(config(&keyboard, CFG_EV_BITS, EV_LED as u8), [7]);
    assert!(config(&keyboard, CFG_EV_BITS, EV_ABS as u8).is_empty());
    assert!(config(&keyboard, 0, 0).is_empty());
    let tablet = Input::new(InputKind::Tablet);
    assert_eq!(config(&tablet, CFG_EV_BITS, EV_ABS as u8), [3]);
    assert_eq!(config(&tablet, CFG_EV_BITS, EV_KEY as u8)[34], 7);
    assert_eq!(config(&tablet, CFG_ABS_INFO, 1)[4..8], [0xff, 0x7f, 0, 0]);
}

#[test]
fn lamps_are_the_drivers() {
    let keyboard = Input::new(InputKind::Keyboard);
    let m = Machine::new(keyboard.clone());
    let mut q = m.start(!0).remove(STATUS);
    m.fill(BUFFERS, &Event { kind: EV_LED, code: 1, value: 1 }.bytes());
    q.add(&m, &[readable(BUFFERS, EVENT_SIZE as u32)]);
    q.ring(&m);
    assert_eq!(keyboard.leds(), 4);
}

#[test]
fn what_nobody_takes_is_bounded_and_saved_and_gone_after_a_reset() {
    let keyboard = Input::new(InputKind::Keyboard);
    let m = Machine::new(keyboard.clone());
    m.start(!0);
    let taken = (0..1000).filter(|_| keyboard.key(1, false, true)).count();
    assert!((100..=EVENTS_MAX).contains(&taken), "{taken}");
    let saved = keyboard.save();
    let other = Input::new(InputKind::Keyboard);
    other.restore(&saved).unwrap();
    assert!(other.save() == saved && other.is_driven());
    m.device.reset();
    assert!(!keyboard.is_driven());
}

#[test]
fn a_buffer_smaller_than_an_event_breaks_the_device() {
    let keyboard = Input::new(InputKind::Keyboard);
    let m = Machine::new(keyboard.clone());
    let mut q = m.start(!0).remove(EVENTS);
    q.add(&m, &[writable(BUFFERS, 4)]);
    q.ring(&m);
    assert!(m.needs_reset());
}
