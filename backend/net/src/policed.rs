//! What a guest may do with a network: how fast, and under which address.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use evloop::{Alarm, EventLoop, Interest, Registration};

use crate::{
    HEADER_SIZE, Mac, Network, NetworkInfo, Offloads, OnReady, Rate, Ready, Sent, TokenBucket, lock,
};

/// Fixed configuration of [`Policed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Frames from the guest must have this source address; others are lost.
    pub only_from: Option<Mac>,
    /// Limit on each direction.
    pub rate: Option<Rate>,
}

/// A network under a [`Policy`].
pub struct Policed {
    // Fixed configuration.
    only_from: Option<Mac>,
    // Wiring.
    network: Arc<dyn Network>,
    on_ready: Arc<OnceLock<OnReady>>,
    limits: Option<[Limit; 2]>,
    // Counters.
    spoofed: AtomicU64,
}

/// *Lock*: the bucket's is a leaf.
struct Limit {
    bucket: Mutex<TokenBucket>,
    alarm: Arc<Alarm>,
    _registration: Registration,
}

impl Limit {
    /// At its time, all of `ready` are called.
    fn new(
        rate: Rate,
        of: &EventLoop,
        on_ready: &Arc<OnceLock<OnReady>>,
        ready: impl Iterator<Item = Ready> + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let alarm = Arc::new(Alarm::new()?);
        let (ringing, on_ready) = (alarm.clone(), on_ready.clone());
        let registration = of.add(alarm.clone(), Interest::Read, move || {
            ringing.clear();
            if let Some(on_ready) = on_ready.get() {
                ready.clone().for_each(|ready| on_ready(ready));
            }
        })?;
        let bucket = Mutex::new(TokenBucket::new(rate, Instant::now()));
        Ok(Self { bucket, alarm, _registration: registration })
    }

    fn may_pass(&self) -> bool {
        let wait = lock(&self.bucket).may_pass(Instant::now()).err();
        if wait.is_some() {
            self.alarm.set(wait);
        }
        wait.is_none()
    }
}

const SEND: usize = 0;
const RECEIVE: usize = 1;

impl Policed {
    /// `network` under `policy`; `of` waits for the time of what is too fast.
    ///
    /// # Errors
    /// When the host has no descriptors left.
    pub fn new(network: Arc<dyn Network>, policy: Policy, of: &EventLoop) -> io::Result<Arc<Self>> {
        let Policy { only_from, rate } = policy;
        let on_ready = Arc::new(OnceLock::new());
        let pairs = usize::from(network.info().pairs);
        let limits = rate.map(|rate| {
            io::Result::Ok([
                Limit::new(rate, of, &on_ready, (0..pairs).map(Ready::Send))?,
                Limit::new(rate, of, &on_ready, (0..pairs).map(Ready::Receive))?,
            ])
        });
        let limits = limits.transpose()?;
        Ok(Arc::new(Self { only_from, network, on_ready, limits, spoofed: AtomicU64::new(0) }))
    }

    /// Frames lost because of their source address.
    pub fn spoofed(&self) -> u64 {
        self.spoofed.load(Ordering::Relaxed)
    }

    fn limit(&self, direction: usize) -> Option<&Limit> {
        self.limits.as_ref().map(|limits| &limits[direction])
    }
}

impl Network for Policed {
    fn info(&self) -> NetworkInfo {
        self.network.info()
    }

    fn attach(&self, on_ready: OnReady) {
        let first = self.on_ready.set(on_ready.clone());
        assert!(first.is_ok(), "a network is attached once");
        self.network.attach(on_ready);
    }

    fn configure(&self, to_guest: Offloads, pairs: u16) {
        self.network.configure(to_guest, pairs);
    }

    fn send(&self, pair: usize, frame: &[u8]) -> Sent {
        let source = frame.get(HEADER_SIZE + 6..HEADER_SIZE + 12);
        if self.only_from.is_some_and(|mac| source != Some(&mac.0[..])) {
            self.spoofed.fetch_add(1, Ordering::Relaxed);
            return Sent::Taken;
        }
        let limit = self.limit(SEND);
        if limit.is_some_and(|limit| !limit.may_pass()) {
            return Sent::Later;
        }
        let sent = self.network.send(pair, frame);
        if let (Some(limit), Sent::Taken) = (limit, sent) {
            lock(&limit.bucket).pass(frame.len());
        }
        sent
    }

    fn receive(&self, pair: usize, frame: &mut [u8]) -> Option<usize> {
        let limit = self.limit(RECEIVE);
        if limit.is_some_and(|limit| !limit.may_pass()) {
            return None;
        }
        let size = self.network.receive(pair, frame)?;
        if let Some(limit) = limit {
            lock(&limit.bucket).pass(size);
        }
        Some(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Takes and gives whatever there is.
    struct Endless;

    impl Network for Endless {
        fn info(&self) -> NetworkInfo {
            let none = Offloads::empty();
            NetworkInfo { pairs: 1, from_guest: none, to_guest: none }
        }
        fn attach(&self, _on_ready: OnReady) {}
        fn configure(&self, _to_guest: Offloads, _pairs: u16) {}
        fn send(&self, _pair: usize, _frame: &[u8]) -> Sent {
            Sent::Taken
        }
        fn receive(&self, _pair: usize, _frame: &mut [u8]) -> Option<usize> {
            Some(1514)
        }
    }

    #[test]
    fn frames_under_another_address_are_lost() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let policy = Policy { only_from: Some(mac), rate: None };
        let policed = Policed::new(Arc::new(Endless), policy, &EventLoop::new().unwrap()).unwrap();
        let mut frame = [0; 60];
        frame[HEADER_SIZE + 6..HEADER_SIZE + 12].copy_from_slice(&mac.0);
        policed.send(0, &frame);
        assert_eq!(policed.spoofed(), 0);
        frame[HEADER_SIZE + 11] = 2;
        policed.send(0, &frame);
        policed.send(0, &frame[..HEADER_SIZE + 3]);
        assert_eq!(policed.spoofed(), 2);
    }

    #[test]
    fn what_is_too_fast_waits_and_is_called_in_time() {
        let of = EventLoop::new().unwrap();
        let policy = Policy { only_from: None, rate: Some(Rate { bytes_per_s: 10_000_000 }) };
        let policed = Policed::new(Arc::new(Endless), policy, &of).unwrap();
        let (sender, called) = std::sync::mpsc::channel();
        policed.attach(Arc::new(move |ready| sender.send(ready).unwrap()));
        let thread = of.spawn("rate").unwrap();
        let frame = [0; 1514];
        while policed.send(0, &frame) == Sent::Taken {}
        while policed.receive(0, &mut [0; 2000]).is_some() {}
        let mut ready: Vec<_> =
            (0..2).map(|_| called.recv_timeout(Duration::from_secs(10)).unwrap()).collect();
        ready.sort_by_key(|ready| *ready == Ready::Receive(0));
        assert_eq!(ready, [Ready::Send(0), Ready::Receive(0)]);
        drop(thread);
    }
}
