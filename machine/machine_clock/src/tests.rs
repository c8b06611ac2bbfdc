//! Clock and timers by hand.

use super::*;

fn counter(clock: &Arc<MachineClock>) -> (Timer, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let seen = count.clone();
    let timer = clock.timer(move || {
        seen.fetch_add(1, Ordering::Relaxed);
    });
    (timer, count)
}

#[test]
fn a_timer_fires_once_at_its_deadline() {
    let clock = MachineClock::new(TimeSource::Counted);
    let (timer, count) = counter(&clock);
    timer.set(Some(100));
    clock.advance_to(99);
    assert_eq!(count.load(Ordering::Relaxed), 0);
    clock.advance_to(100);
    clock.advance_to(1000);
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[test]
fn timers_see_their_own_deadline_as_now() {
    let clock = MachineClock::new(TimeSource::Counted);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let timers: Vec<_> = [30, 10, 20]
        .into_iter()
        .map(|at| {
            let (clock2, seen) = (clock.clone(), seen.clone());
            let timer = clock.timer(move || lock(&seen).push(clock2.now_ns()));
            timer.set(Some(at));
            timer
        })
        .collect();
    clock.advance_to(100);
    assert_eq!(*lock(&seen), [10, 20, 30]);
    assert_eq!(clock.now_ns(), 100);
    drop(timers);
}

#[test]
fn disarmed_and_dropped_timers_stay_silent() {
    let clock = MachineClock::new(TimeSource::Counted);
    let (timer, count) = counter(&clock);
    timer.set(Some(10));
    timer.set(None);
    clock.advance_to(20);
    timer.set(Some(30));
    drop(timer);
    clock.advance_to(40);
    assert_eq!(count.load(Ordering::Relaxed), 0);
    assert_eq!(clock.next_deadline_ns(), None);
}

#[test]
fn a_stopped_clock_stands_and_fires_nothing() {
    let clock = MachineClock::new(TimeSource::Host);
    let (timer, count) = counter(&clock);
    timer.set(Some(0));
    clock.fire_due();
    assert_eq!((clock.now_ns(), count.load(Ordering::Relaxed)), (0, 0));
    clock.start();
    clock.fire_due();
    assert_eq!(count.load(Ordering::Relaxed), 1);
    clock.stop();
    let stood = clock.now_ns();
    assert_eq!(clock.now_ns(), stood);
}

#[test]
fn the_waker_is_called_only_for_an_earlier_deadline() {
    let clock = MachineClock::new(TimeSource::Counted);
    let wakes = Arc::new(AtomicU64::new(0));
    let seen = wakes.clone();
    clock.set_waker(move || {
        seen.fetch_add(1, Ordering::Relaxed);
    });
    let (a, _) = counter(&clock);
    let (b, _) = counter(&clock);
    a.set(Some(100));
    b.set(Some(200));
    assert_eq!(wakes.load(Ordering::Relaxed), 1);
    b.set(Some(50));
    assert_eq!(wakes.load(Ordering::Relaxed), 2);
}

#[test]
fn a_timer_that_rearms_itself_in_the_past_does_not_hold_the_caller() {
    let clock = MachineClock::new(TimeSource::Host);
    let slot: Arc<Mutex<Option<Timer>>> = Arc::default();
    let own = slot.clone();
    let timer = clock.timer(move || {
        if let Some(timer) = lock(&own).as_ref() {
            timer.set(Some(0));
        }
    });
    timer.set(Some(0));
    *lock(&slot) = Some(timer);
    clock.start();
    clock.fire_due();
    assert_eq!(clock.next_deadline_ns(), Some(0));
    *lock(&slot) = None;
}
