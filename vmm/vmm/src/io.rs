//! I/O threads: they wait for descriptors and for machine time.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use evloop::{Alarm, Event, EventLoop, Interest, Registration};
use machine_clock::{MachineClock, TimeSource};
use vmm_rpc::{Answer, Listener, Peer, Received, Refusal, Reply};

use crate::{Desk, Inbox, VmError};

/// Device timers and the control protocol's JSON need little; the guest chooses none of it.
const STACK_BYTES: usize = 256 * 1024;
/// Clients at a time. Each costs a descriptor and, while it asks, a message's memory.
const CLIENTS_MAX: usize = 16;
/// A client that takes none of a program's output for so long misses the rest.
const AGENT_PATIENCE: Duration = Duration::from_secs(10);
/// A host without descriptors must not make the thread spin on a client it cannot take in.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// What an I/O thread is to wait for.
pub struct Io {
    of: EventLoop,
    registrations: Vec<Registration>,
}

impl Io {
    /// Nothing yet.
    ///
    /// # Errors
    /// When the host has no descriptors left.
    pub fn new() -> Result<Self, VmError> {
        let of = EventLoop::new().map_err(|e| refused("make an event loop", e))?;
        Ok(Self { of, registrations: Vec::new() })
    }

    /// The loop, for handlers that add others.
    pub fn event_loop(&self) -> &EventLoop {
        &self.of
    }

    /// Calls `handler` whenever `source` is ready.
    ///
    /// # Errors
    /// When the host refuses, because `source` is a regular file, say.
    pub fn add(
        &mut self,
        source: Arc<dyn AsFd + Send + Sync>,
        interest: Interest,
        handler: impl FnMut() + Send + 'static,
    ) -> io::Result<()> {
        self.registrations.push(self.of.add(source, interest, handler)?);
        Ok(())
    }

    /// Fires the timers of `clock` at their time. A counted clock fires its own.
    ///
    /// # Errors
    /// When the host has no descriptors left.
    pub fn serve_clock(&mut self, clock: &Arc<MachineClock>) -> Result<(), VmError> {
        if clock.source() == TimeSource::Counted {
            return Ok(());
        }
        let failed = |e| refused("make a timer", e);
        let alarm = Arc::new(Alarm::new().map_err(failed)?);
        let moved = Arc::new(Event::new().map_err(failed)?);
        let waker = moved.clone();
        clock.set_waker(move || waker.signal());
        let (of, ringing) = (clock.clone(), alarm.clone());
        let ring = move || {
            ringing.clear();
            of.fire_due();
            arm(&of, &ringing);
        };
        self.add(alarm.clone(), Interest::Read, ring).map_err(failed)?;
        let (of, event) = (clock.clone(), moved.clone());
        let look = move || {
            event.clear();
            arm(&of, &alarm);
        };
        self.add(moved, Interest::Read, look).map_err(failed)
    }

    /// Gives the guest what is typed on the desk's keyboard.
    ///
    /// # Errors
    /// When the host refuses to wait.
    pub fn serve_desk(&mut self, desk: &Arc<Desk>) -> Result<(), VmError> {
        let failed = |e| refused("wait for keys", e);
        let (typing, giving) = (desk.clone(), desk.clone());
        let typed = move || {
            typing.typed.clear();
            typing.give_keys();
        };
        self.add(desk.typed.clone(), Interest::Read, typed).map_err(failed)?;
        let next = move || {
            giving.next.clear();
            giving.give_keys();
        };
        self.add(desk.next.clone(), Interest::Read, next).map_err(failed)
    }

    /// Takes requests from clients of `listener` to `inbox`.
    ///
    /// # Errors
    /// When the host has no descriptors left.
    pub fn serve_control(
        &mut self,
        listener: Listener,
        inbox: &Arc<Inbox>,
        program: &str,
    ) -> Result<(), VmError> {
        let listener = Arc::new(listener);
        let clients = Clients {
            of: self.of.clone(),
            inbox: inbox.clone(),
            program: program.to_owned(),
            next: 0,
            known: Arc::default(),
        };
        let (of, mut clients) = (listener.clone(), clients);
        self.add(listener, Interest::Read, move || clients.take_in(&of))
            .map_err(|e| refused("wait for the control socket", e))
    }

    /// Starts the thread, under this name.
    ///
    /// # Errors
    /// When the host has no thread left.
    pub fn start(self, name: &str) -> Result<IoThread, VmError> {
        self.start_after(name, None::<fn()>)
    }

    /// The same; the thread does `first` before it waits for anything.
    ///
    /// # Errors
    /// When the host has no thread left.
    pub fn start_after(
        self,
        name: &str,
        first: Option<impl FnOnce() + Send + 'static>,
    ) -> Result<IoThread, VmError> {
        let of = self.of.clone();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                if let Some(first) = first {
                    first();
                }
                of.run()
            })
            .map_err(|source| VmError::NoThread { name: "I/O", source })?;
        Ok(IoThread { io: self, thread: Some(thread) })
    }
}

/// A running I/O thread. Dropping it ends it and closes what it served.
pub struct IoThread {
    io: Io,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Drop for IoThread {
    fn drop(&mut self) {
        self.io.of.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn refused(operation: &'static str, source: io::Error) -> VmError {
    VmError::Host { operation, source }
}

/// Sets the alarm for the clock's next deadline. A stopped clock calls the waker when it starts.
fn arm(clock: &MachineClock, alarm: &Alarm) {
    let deadline_ns = clock.next_deadline_ns().filter(|_| clock.is_running());
    let delay = |at: u64| Duration::from_nanos(at.saturating_sub(clock.now_ns()));
    alarm.set(deadline_ns.map(delay));
}

/// Those who ask.
struct Clients {
    of: EventLoop,
    inbox: Arc<Inbox>,
    program: String,
    next: u64,
    known: Arc<Mutex<BTreeMap<u64, Registration>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clients {
    fn take_in(&mut self, listener: &Listener) {
        let peer = match listener.accept(&self.program) {
            Ok(Some(peer)) => Arc::new(peer),
            Ok(None) => return,
            Err(_) => return std::thread::sleep(ACCEPT_PAUSE),
        };
        // One too many is turned away: its connection closes here.
        if lock(&self.known).len() >= CLIENTS_MAX {
            return;
        }
        let id = self.next;
        self.next += 1;
        let (asking, inbox, known) = (peer.clone(), self.inbox.clone(), self.known.clone());
        let handler = move || {
            if !serve(&asking, &inbox) {
                drop(lock(&known).remove(&id));
            }
        };
        if let Ok(registration) = self.of.add(peer, Interest::Read, handler) {
            lock(&self.known).insert(id, registration);
        }
    }
}

/// Takes one request to the inbox. `false` when the client has gone.
fn serve(peer: &Arc<Peer>, inbox: &Inbox) -> bool {
    match peer.receive() {
        Received::Request(request) => {
            let answering = peer.clone();
            // A client that takes no answers misses this one.
            let answer = move |answer: Answer| match &answer.reply {
                Reply::Agent(_) => drop(answering.reply_within(&answer, AGENT_PATIENCE)),
                _ => drop(answering.reply(&answer)),
            };
            inbox.request(request, Box::new(answer));
            true
        }
        Received::Bad(message) => {
            let refusal = Refusal::BadRequest;
            peer.reply(&Reply::Refused { refusal, message }.into()).is_ok()
        }
        Received::Nothing => true,
        Received::Closed => false,
    }
}

#[cfg(test)]
mod tests;
