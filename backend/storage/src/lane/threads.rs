//! Threads that do requests one at a time each. They come when there is work and go when there is
//! none.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Shared, Work, lock, perform};

/// Threads of a lane: requests that wait for the host at the same time.
const THREADS_MAX: usize = 8;
/// A thread without work goes after this time.
const IDLE: Duration = Duration::from_secs(5);
/// The library under qcow2 compresses on the stack.
const STACK_BYTES: usize = 1 << 20;

pub(super) struct Threads<W> {
    state: Mutex<State<W>>,
    wake: Condvar,
}

struct State<W> {
    waiting: VecDeque<W>,
    threads: usize,
    idle: usize,
    handles: Vec<JoinHandle<()>>,
    stopped: bool,
}

impl<W> Default for Threads<W> {
    fn default() -> Self {
        let state = State {
            waiting: VecDeque::new(),
            threads: 0,
            idle: 0,
            handles: Vec::new(),
            stopped: false,
        };
        Self { state: Mutex::new(state), wake: Condvar::new() }
    }
}

impl<W: Work> Threads<W> {
    pub(super) fn push(&self, work: W) {
        lock(&self.state).waiting.push_back(work);
    }

    /// Has threads for what waits. One for which the host has no thread at all is returned.
    pub(super) fn start(&self, shared: &Arc<Shared<W>>) -> Option<W> {
        let mut state = lock(&self.state);
        if state.waiting.is_empty() {
            return None;
        }
        let missing = state.waiting.len().saturating_sub(state.idle);
        for _ in 0..missing.min(THREADS_MAX - state.threads) {
            let weak = Arc::downgrade(shared);
            let thread = std::thread::Builder::new().name("disk".to_owned());
            match thread.stack_size(STACK_BYTES).spawn(move || run(&weak)) {
                Ok(handle) => {
                    state.threads += 1;
                    state.handles.retain(|handle| !handle.is_finished());
                    state.handles.push(handle);
                }
                Err(_) => break,
            }
        }
        if state.threads == 0 {
            return state.waiting.pop_front();
        }
        for _ in 0..state.idle.min(state.waiting.len()) {
            self.wake.notify_one();
        }
        None
    }

    /// Ends the threads when they have done what there is. One of them may call this, as the last
    /// owner of the lane.
    pub(super) fn stop(&self) {
        let mut state = lock(&self.state);
        state.stopped = true;
        let handles = std::mem::take(&mut state.handles);
        drop(state);
        self.wake.notify_all();
        let me = std::thread::current().id();
        for handle in handles.into_iter().filter(|handle| handle.thread().id() != me) {
            let _ = handle.join();
        }
    }

    /// The next request, or `None` for the thread to end.
    fn next(&self) -> Option<W> {
        let mut state = lock(&self.state);
        loop {
            if let Some(work) = state.waiting.pop_front() {
                return Some(work);
            }
            if state.stopped {
                state.threads -= 1;
                return None;
            }
            state.idle += 1;
            let (woken, timeout) =
                self.wake.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if timeout.timed_out() && state.waiting.is_empty() {
                state.threads -= 1;
                return None;
            }
        }
    }
}

fn run<W: Work>(weak: &Weak<Shared<W>>) {
    let Some(shared) = weak.upgrade() else { return };
    let mut done = Vec::with_capacity(1);
    while let Some(work) = shared.threads.next() {
        let result = perform(&work, &*shared.disk);
        done.push((work, result));
        shared.give_back(&mut done);
    }
}
