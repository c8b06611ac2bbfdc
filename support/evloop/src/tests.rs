//! Each source, waited for.

use std::time::{Duration, Instant};

use super::*;

const LONG: Option<Duration> = Some(Duration::from_secs(10));
const SHORT: Option<Duration> = Some(Duration::from_millis(1));

fn tokens(poller: &Poller, timeout: Option<Duration>) -> Vec<u64> {
    poller.wait(timeout).unwrap().map(|ready| ready.token).collect()
}

#[test]
fn an_event_wakes_until_it_is_taken() {
    let poller = Poller::new().unwrap();
    let event = Event::new().unwrap();
    poller.add(&event, 7, Interest::Read).unwrap();
    assert_eq!(tokens(&poller, SHORT), []);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            event.signal();
            event.signal();
        });
        assert_eq!(tokens(&poller, LONG), [7]);
    });
    assert!(event.take());
    assert!(!event.take());
    assert_eq!(tokens(&poller, SHORT), []);
}

#[test]
fn a_timer_comes_once_at_its_time_even_at_once() {
    let poller = Poller::new().unwrap();
    let timer = Timer::new().unwrap();
    poller.add(&timer, 1, Interest::Read).unwrap();
    let start = Instant::now();
    timer.set(Some(Duration::from_micros(1500))).unwrap();
    assert_eq!(tokens(&poller, LONG), [1]);
    assert!(start.elapsed() >= Duration::from_micros(1500));
    assert!(timer.take() && !timer.take());
    timer.set(Some(Duration::ZERO)).unwrap();
    assert_eq!(tokens(&poller, LONG), [1]);
    timer.set(Some(Duration::from_millis(1))).unwrap();
    timer.set(None).unwrap();
    assert_eq!(tokens(&poller, Some(Duration::from_millis(5))), []);
}

#[test]
fn interest_decides_what_is_reported_but_hang_ups_always_are() {
    let poller = Poller::new().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    poller.add(&writer, 1, Interest::Nothing).unwrap();
    assert_eq!(tokens(&poller, SHORT), []);
    poller.modify(&writer, 1, Interest::Write).unwrap();
    let ready: Vec<_> = poller.wait(LONG).unwrap().collect();
    assert!(ready[0].writable && !ready[0].hung_up);
    poller.modify(&writer, 1, Interest::Nothing).unwrap();
    drop(reader);
    assert!(poller.wait(LONG).unwrap().all(|ready| ready.hung_up));
    poller.remove(&writer).unwrap();
    assert_eq!(tokens(&poller, SHORT), []);
}

#[test]
fn a_file_cannot_be_waited_for() {
    let poller = Poller::new().unwrap();
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let error = poller.add(&file, 1, Interest::Read).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
}
