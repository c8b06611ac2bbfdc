//! Waits for several descriptors at once.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// Descriptors reported by one wait; the rest comes with the next.
const BATCH: usize = 16;

/// What of a descriptor to wait for. Hang-ups and errors are always reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// It can be read.
    Read,
    /// It can be written.
    Write,
    /// Nothing but hang-ups.
    Nothing,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Self::Read => EventFlags::IN,
            Self::Write => EventFlags::OUT,
            Self::Nothing => EventFlags::empty(),
        }
    }
}

/// A descriptor that is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// What was given to [`Poller::add`].
    pub token: u64,
    /// It can be read, or reading would tell why not.
    pub readable: bool,
    /// It can be written, or writing would tell why not.
    pub writable: bool,
    /// The other end has gone.
    pub hung_up: bool,
}

/// An epoll set.
#[derive(Debug)]
pub struct Poller(OwnedFd);

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// When the host has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Waits for `source` from now on, until it is removed or closed.
    ///
    /// # Errors
    /// `PermissionDenied` when `source` is a file, which is always ready; or when the host
    /// refuses.
    pub fn add(&self, source: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.0, source, EventData::new_u64(token), interest.flags())?)
    }

    /// Changes what is waited for.
    ///
    /// # Errors
    /// When `source` is not in the set.
    pub fn modify(&self, source: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.0, source, EventData::new_u64(token), interest.flags())?)
    }

    /// Waits for `source` no longer.
    ///
    /// # Errors
    /// When `source` is not in the set.
    pub fn remove(&self, source: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.0, source)?)
    }

    /// Waits until something is ready or `timeout` is over, and says what is ready. A signal
    /// ends the wait with nothing.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<impl Iterator<Item = Ready>> {
        let timeout = timeout.map(|d| Timespec {
            tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: d.subsec_nanos().into(),
        });
        let mut buffer = [MaybeUninit::<epoll::Event>::uninit(); BATCH];
        let mut ready = [None; BATCH];
        match epoll::wait(&self.0, &mut buffer, timeout.as_ref()) {
            Ok((events, _)) => {
                for (slot, event) in ready.iter_mut().zip(events) {
                    *slot = Some(told(event));
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(ready.into_iter().flatten())
    }
}

fn told(event: &epoll::Event) -> Ready {
    let (flags, data) = (event.flags, event.data);
    let ends = EventFlags::HUP | EventFlags::ERR;
    Ready {
        token: data.u64(),
        readable: flags.intersects(EventFlags::IN | ends),
        writable: flags.intersects(EventFlags::OUT | ends),
        hung_up: flags.intersects(ends),
    }
}
