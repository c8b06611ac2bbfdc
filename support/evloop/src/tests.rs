//! Loops on real descriptors.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::*;

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_signal_from_another_thread_calls_the_handler() {
    let of = EventLoop::new().unwrap();
    let event = Arc::new(Event::new().unwrap());
    let (sender, receiver) = channel();
    let seen = event.clone();
    let _registration = of
        .add(event.clone(), Interest::Read, move || {
            assert!(seen.clear());
            sender.send(()).unwrap();
        })
        .unwrap();
    let _thread = of.spawn("test").unwrap();
    for _ in 0..3 {
        event.signal();
        receiver.recv_timeout(LONG).unwrap();
    }
}

#[test]
fn a_dropped_registration_is_not_called_again() {
    let of = EventLoop::new().unwrap();
    let event = Arc::new(Event::new().unwrap());
    let calls = Arc::new(AtomicU64::new(0));
    let own = Arc::new(Mutex::new(None));
    let (count, slot, stop) = (calls.clone(), own.clone(), of.clone());
    // The handler leaves the event ready and removes itself.
    let registration = of
        .add(event.clone(), Interest::Read, move || {
            count.fetch_add(1, Ordering::Relaxed);
            drop(lock(&slot).take());
        })
        .unwrap();
    *lock(&own) = Some(registration);
    event.signal();
    let alarm = Arc::new(Alarm::new().unwrap());
    alarm.set(Some(Duration::from_millis(5)));
    let _end = of.add(alarm, Interest::Read, move || stop.stop()).unwrap();
    of.run().unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[test]
fn an_alarm_rings_at_its_time_and_can_be_unset() {
    let alarm = Alarm::new().unwrap();
    alarm.set(Some(Duration::ZERO));
    let begin = Instant::now();
    while !alarm.clear() {
        assert!(begin.elapsed() < LONG);
    }
    alarm.set(Some(Duration::from_millis(1)));
    alarm.set(None);
    std::thread::sleep(Duration::from_millis(3));
    assert!(!alarm.clear());
    alarm.set(Some(Duration::MAX));
    assert!(!alarm.clear());
}

#[test]
fn dropping_the_thread_stops_a_waiting_loop() {
    let of = EventLoop::new().unwrap();
    drop(of.spawn("test").unwrap());
    of.run().unwrap();
}

#[test]
fn regular_files_cannot_be_waited_for() {
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let of = EventLoop::new().unwrap();
    assert!(of.add(Arc::new(file), Interest::Read, || ()).is_err());
}
