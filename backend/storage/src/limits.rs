//! Limits on how fast a disk is: requests and bytes a second.

use std::fs::File;
use std::io;
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vm_memory::VolatileSlice;

use crate::{Disk, DiskInfo, DiskOptions, OpenError, total};

/// What passes at once after a pause: what the limit lets through in this time.
const BURST: Duration = Duration::from_millis(100);

/// Limits on reads, writes, and both together; none where there is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Requests a second.
    pub iops: Limit,
    /// Bytes a second.
    pub bps: Limit,
}

/// A limit on each direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limit {
    /// On both together.
    pub total: Option<Rate>,
    /// On reads.
    pub read: Option<Rate>,
    /// On writes, discards and zeroes.
    pub write: Option<Rate>,
}

/// So many a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(pub u64);

impl FromStr for Rate {
    type Err = &'static str;

    /// A number, with `k`, `M` or `G` for 1000, 1000000 and 1000000000.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = "not a rate: give a number a second, as 500, 10k or 100M";
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit: u64 = match unit {
            "" => 1,
            "k" | "K" => 1_000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            _ => return Err(bad),
        };
        let rate = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
        rate.filter(|rate| *rate > 0).map(Self).ok_or(bad)
    }
}

/// What is taken that is not there is owed: whoever takes waits until it would be.
#[derive(Debug)]
struct Bucket {
    rate: u64,
    /// When all that was taken will have come in.
    paid_up: Instant,
}

impl Bucket {
    fn take(&mut self, amount: u64, now: Instant) -> Instant {
        let nanoseconds = u128::from(amount) * 1_000_000_000 / u128::from(self.rate);
        let cost = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        self.paid_up = self.paid_up.max(earliest).checked_add(cost).unwrap_or(self.paid_up);
        self.paid_up
    }
}

/// For each direction: buckets of requests and bytes that count it.
#[derive(Debug, Default)]
struct State {
    buckets: Vec<(Direction, Unit, Bucket)>,
    /// How many are in a hurry.
    hurried: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Requests,
    Bytes,
}

/// A disk under [`Limits`]. Requests wait on the thread that makes them, before they begin.
pub(crate) struct Limited {
    disk: Arc<dyn Disk>,
    state: Mutex<State>,
    hurry: Condvar,
}

impl Limited {
    pub(crate) fn new(disk: Arc<dyn Disk>, limits: &Limits) -> Self {
        let paid_up = Instant::now();
        let mut buckets = Vec::new();
        for (unit, limit) in [(Unit::Requests, limits.iops), (Unit::Bytes, limits.bps)] {
            let Limit { total, read, write } = limit;
            let directions =
                [(Direction::Both, total), (Direction::Read, read), (Direction::Write, write)];
            for (direction, rate) in directions {
                buckets.extend(rate.map(|Rate(rate)| (direction, unit, Bucket { rate, paid_up })));
            }
        }
        let state = Mutex::new(State { buckets, hurried: 0 });
        Self { disk, state, hurry: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, direction: Direction, size_bytes: u64) {
        let mut state = self.state();
        let now = Instant::now();
        let mut start = now;
        for (of, unit, bucket) in &mut state.buckets {
            if *of == direction || *of == Direction::Both {
                let amount = if *unit == Unit::Requests { 1 } else { size_bytes };
                start = start.max(bucket.take(amount, now));
            }
        }
        loop {
            let left = start.saturating_duration_since(Instant::now());
            if left.is_zero() || state.hurried > 0 {
                return;
            }
            let woken = self.hurry.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Disk for Limited {
    fn info(&self) -> DiskInfo {
        self.disk.info()
    }

    fn grow(&self, size_bytes: u64) -> io::Result<()> {
        self.disk.grow(size_bytes)
    }

    fn lay(&self, over: &DiskOptions, files: Vec<File>) -> Result<(), OpenError> {
        self.disk.lay(over, files)
    }

    fn read(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.wait(Direction::Read, total(buffers)?);
        self.disk.read(offset, buffers)
    }

    fn write(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.wait(Direction::Write, total(buffers)?);
        self.disk.write(offset, buffers)
    }

    fn flush(&self) -> io::Result<()> {
        self.disk.flush()
    }

    /// Counts as a request: there are no bytes in it.
    fn discard(&self, offset: u64, size_bytes: u64) -> io::Result<()> {
        self.wait(Direction::Write, 0);
        self.disk.discard(offset, size_bytes)
    }

    fn write_zeroes(&self, offset: u64, size_bytes: u64, unmap: bool) -> io::Result<()> {
        self.wait(Direction::Write, if unmap { 0 } else { size_bytes });
        self.disk.write_zeroes(offset, size_bytes, unmap)
    }

    fn may_wait(&self) -> bool {
        true
    }

    fn hurry(&self, on: bool) {
        let mut state = self.state();
        state.hurried = if on { state.hurried + 1 } else { state.hurried.saturating_sub(1) };
        drop(state);
        self.hurry.notify_all();
        self.disk.hurry(on);
    }
}
