//! The two ends of a watch.
//!
//! A watch is taken from by a thread that waits or by a task that is woken; a reader that does not
//! keep up costs the store a bounded queue and nobody else any time.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::{Entry, Revision};

/// Transactions that wait for a reader. One that is further behind reads anew, which costs less.
const WAITING_MAX: usize = 4096;

/// What one transaction changed, of what is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The transaction's.
    pub revision: Revision,
    /// The changes, in the transaction's order.
    pub changes: Vec<Change>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A key was written.
    Put(Entry),
    /// A key was deleted.
    Delete(String),
}

impl Change {
    /// Whose.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete(key) => key,
        }
    }
}

/// The watch tells no more: its reader was too slow, or the store has closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the watch has ended: watch on from the last revision that was seen")]
pub struct Ended;

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Batch>,
    waker: Option<Waker>,
    has_ended: bool,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        let waker = queue.waker.take();
        drop(queue);
        self.arrived.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The reader's end.
#[derive(Debug)]
pub struct Watch(Arc<Shared>);

/// The store's end. Dropping it ends the watch once all is taken.
#[derive(Debug)]
pub struct Feed {
    reader: Weak<Shared>,
    from: Revision,
}

impl Watch {
    /// Both ends of a watch from this revision on, with what has been already.
    pub fn new(from: Revision, past: Vec<Batch>) -> (Self, Feed) {
        let shared = Arc::new(Shared::default());
        shared.lock().waiting = past.into();
        let feed = Feed { reader: Arc::downgrade(&shared), from };
        (Self(shared), feed)
    }

    /// What comes next, for a task.
    ///
    /// # Errors
    /// When the watch has ended and all is taken.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Batch, Ended>> {
        let mut queue = self.0.lock();
        match queue.waiting.pop_front() {
            Some(batch) => Poll::Ready(Ok(batch)),
            None if queue.has_ended => Poll::Ready(Err(Ended)),
            None => {
                queue.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// What comes next, for a thread; `None` when nothing does for so long.
    ///
    /// # Errors
    /// When the watch has ended and all is taken.
    pub fn next_within(&mut self, limit: Duration) -> Result<Option<Batch>, Ended> {
        let until = Instant::now() + limit;
        let mut queue = self.0.lock();
        loop {
            if let Some(batch) = queue.waiting.pop_front() {
                return Ok(Some(batch));
            }
            if queue.has_ended {
                return Err(Ended);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let waited = self.0.arrived.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Feed {
    /// Tells the reader; `false` when nobody reads any more, or too slowly.
    pub fn tell(&self, batch: Batch) -> bool {
        let Some(shared) = self.reader.upgrade() else { return false };
        if batch.revision < self.from {
            return true;
        }
        let mut queue = shared.lock();
        let keeps_up = queue.waiting.len() < WAITING_MAX;
        if keeps_up {
            queue.waiting.push_back(batch);
        } else {
            queue.has_ended = true;
        }
        shared.wake(queue);
        keeps_up
    }

    /// Somebody reads.
    pub fn is_read(&self) -> bool {
        self.reader.strong_count() > 0
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        if let Some(shared) = self.reader.upgrade() {
            let mut queue = shared.lock();
            queue.has_ended = true;
            shared.wake(queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(revision: u64) -> Batch {
        Batch { revision: Revision(revision), changes: vec![Change::Delete("k".into())] }
    }

    #[test]
    fn a_reader_that_is_too_slow_gets_what_waits_and_then_the_end() {
        let (mut watch, feed) = Watch::new(Revision(1), Vec::new());
        let told = (1..).take_while(|n| feed.tell(batch(*n))).count();
        assert_eq!(told, WAITING_MAX);
        for n in 1..=told as u64 {
            assert_eq!(watch.next_within(Duration::ZERO), Ok(Some(batch(n))));
        }
        assert_eq!(watch.next_within(Duration::from_secs(60)), Err(Ended));
    }

    #[test]
    fn a_task_is_woken_by_what_comes_and_by_the_end() {
        let (mut watch, feed) = Watch::new(Revision(1), vec![batch(1)]);
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(watch.poll(&mut context), Poll::Ready(Ok(batch(1))));
        assert_eq!(watch.poll(&mut context), Poll::Pending);
        feed.tell(batch(2));
        assert_eq!(watch.poll(&mut context), Poll::Ready(Ok(batch(2))));
        drop(feed);
        assert_eq!(watch.poll(&mut context), Poll::Ready(Err(Ended)));
    }

    #[test]
    fn nobody_is_told_when_nobody_reads() {
        let (watch, feed) = Watch::new(Revision(1), Vec::new());
        assert!(feed.is_read());
        drop(watch);
        assert!(!feed.is_read() && !feed.tell(batch(1)));
    }
}
