//! Listening, and a thread a viewer.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::listen::{Connection, Listener};
use crate::session::Session;
use crate::transport::{Sent, Transport};
use crate::{Desk, Picture, Place, RfbError};

/// Viewers at a time; more are hung up on.
const VIEWERS_MAX: usize = 16;
/// Time between two looks at the screen: 30 a second.
const LOOK: Duration = Duration::from_millis(33);
/// The same when nothing has changed for long: it doubles up to here.
const LOOK_IDLE: Duration = Duration::from_millis(250);
/// Time a viewer has until it is in.
const ENTRY: Duration = Duration::from_secs(30);
/// Time a viewer may take nothing of what it has asked for.
const STUCK: Duration = Duration::from_secs(60);
/// Time between two passwords.
const WRONG_PASSWORD: Duration = Duration::from_secs(1);
/// Stack of a viewer's thread.
const STACK_BYTES: usize = 256 << 10;
/// Time the host is given when it has no descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where to listen, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// The place.
    pub place: Place,
    /// What viewers must know; its first 8 bytes count.
    pub password: Option<String>,
}

/// Listens and serves until it is dropped.
pub struct Server {
    shared: Arc<Shared>,
    place: Place,
    listening: Option<JoinHandle<()>>,
}

struct Shared {
    name: String,
    password: Option<String>,
    desk: Arc<dyn Desk>,
    stopping: AtomicBool,
    /// Readable when it is time to stop.
    stop: OwnedFd,
    viewers: AtomicUsize,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Server {
    /// Listens at a place, under this name.
    ///
    /// # Errors
    /// When the place is taken, or open to the world without a password.
    pub fn start(name: &str, listening: &Listening, desk: Arc<dyn Desk>) -> Result<Self, RfbError> {
        let Listening { place, password } = listening;
        if password.is_none() && !place.is_local() {
            return Err(RfbError::Open(place.to_string()));
        }
        let listener = Listener::bind(place)?;
        let place = listener.place().unwrap_or_else(|| place.clone());
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            password: password.clone(),
            desk,
            stopping: AtomicBool::new(false),
            stop: stop.map_err(|e| RfbError::Host(e.into()))?,
            viewers: AtomicUsize::new(0),
            threads: Mutex::default(),
        });
        let serving = shared.clone();
        let listening = thread("rfb-listen", move || accept(&listener, &serving));
        let listening = Some(listening.map_err(RfbError::Host)?);
        Ok(Self { shared, place, listening })
    }

    /// Where it listens.
    pub fn place(&self) -> &Place {
        &self.place
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        // A counter that is full is readable already.
        let _ = rustix::io::write(&self.shared.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.listening.take() {
            let _ = thread.join();
        }
        let threads = std::mem::take(&mut *lock(&self.shared.threads));
        for thread in threads {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(run)
}

/// Waits for one of the two, or for so long. What is ready of `fd`; `None` to stop.
fn wait(
    shared: &Shared,
    fd: impl AsFd,
    flags: PollFlags,
    limit: Option<Duration>,
) -> Option<PollFlags> {
    let limit = limit.map(|limit| Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(limit.subsec_nanos()),
    });
    let mut fds = [PollFd::new(&shared.stop, PollFlags::IN), PollFd::new(&fd, flags)];
    let polled = poll(&mut fds, limit.as_ref());
    let interrupted = matches!(polled, Err(rustix::io::Errno::INTR));
    if shared.stopping.load(Ordering::Acquire) || polled.is_err() && !interrupted {
        return None;
    }
    Some(if interrupted { PollFlags::empty() } else { fds[1].revents() })
}

fn accept(listener: &Listener, shared: &Arc<Shared>) {
    while wait(shared, listener, PollFlags::IN, None).is_some() {
        let connection = match listener.accept() {
            Ok(connection) => connection,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => {
                std::thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        let mut threads = lock(&shared.threads);
        threads.retain(|thread| !thread.is_finished());
        if shared.viewers.fetch_add(1, Ordering::AcqRel) >= VIEWERS_MAX {
            shared.viewers.fetch_sub(1, Ordering::AcqRel);
            continue;
        }
        let serving = shared.clone();
        let run = move || {
            serve(connection, &serving);
            serving.viewers.fetch_sub(1, Ordering::AcqRel);
        };
        match thread("rfb-viewer", run) {
            Ok(thread) => threads.push(thread),
            Err(_) => drop(shared.viewers.fetch_sub(1, Ordering::AcqRel)),
        }
    }
}

/// Serves one viewer until it goes.
fn serve(connection: Connection, shared: &Shared) {
    let Ok(transport) = Transport::new(connection, shared.password.is_some()) else { return };
    let mut challenge = [0; 16];
    if getrandom(&mut challenge, GetRandomFlags::empty()) != Ok(challenge.len()) {
        return;
    }
    let session = Session::new(&shared.name, shared.password.clone(), challenge);
    let mut viewer = Viewer { session, transport, rhythm: Rhythm::new(), moved: Instant::now() };
    while viewer.turn(shared) {}
    viewer.session.close(&*shared.desk);
}

struct Viewer {
    session: Session,
    transport: Transport,
    rhythm: Rhythm,
    /// When it last took something of what was to be sent, or there was nothing.
    moved: Instant,
}

/// When to look at the screen.
struct Rhythm {
    begun: Instant,
    next: Instant,
    pause: Duration,
    picture: Picture,
}

impl Rhythm {
    fn new() -> Self {
        let now = Instant::now();
        Self { begun: now, next: now, pause: LOOK, picture: Picture::default() }
    }
}

impl Viewer {
    /// Sends, waits, receives, and looks at the screen. False when the viewer has gone.
    fn turn(&mut self, shared: &Shared) -> bool {
        let left = self.session.output().len();
        let sent = self.transport.send(self.session.output());
        if sent == Sent::All || self.session.output().len() < left {
            self.moved = Instant::now();
        }
        let late = !self.session.is_open() && self.rhythm.begun.elapsed() > ENTRY;
        if sent == Sent::Gone || late || self.moved.elapsed() > STUCK {
            return false;
        }
        let mut flags = PollFlags::IN;
        let mut limit = (!self.session.is_open()).then_some(ENTRY);
        if sent == Sent::Some {
            flags |= PollFlags::OUT;
            limit = Some(STUCK);
        } else if self.session.wants_update() {
            limit = Some(self.rhythm.next.saturating_duration_since(Instant::now()));
        }
        let Some(ready) = wait(shared, &self.transport, flags, limit) else { return false };
        if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
            && !self.receive(shared)
        {
            return false;
        }
        if sent == Sent::All && self.session.wants_update() && self.rhythm.next <= Instant::now() {
            self.look(&*shared.desk);
        }
        true
    }

    fn receive(&mut self, shared: &Shared) -> bool {
        let mut input = Vec::new();
        let open = self.transport.receive(&mut input);
        if let Err(_broken) = self.session.receive(&input, &*shared.desk) {
            // Who guesses passwords guesses slowly; and is told.
            let _ = self.transport.send(self.session.output());
            let _ = wait(shared, &shared.stop, PollFlags::IN, Some(WRONG_PASSWORD));
            return false;
        }
        if !input.is_empty() {
            // What is typed is soon seen.
            self.rhythm.pause = LOOK;
            self.rhythm.next = self.rhythm.next.min(Instant::now() + LOOK);
        }
        open
    }

    fn look(&mut self, desk: &dyn Desk) {
        let Rhythm { next, pause, picture, .. } = &mut self.rhythm;
        desk.look(picture);
        let changed = self.session.update(picture, desk.leds());
        *pause = if changed { LOOK } else { (*pause + *pause / 4).min(LOOK_IDLE) };
        *next = Instant::now() + *pause;
    }
}
