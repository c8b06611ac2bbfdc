//! The guest's agent, behind a port of a virtio device.
//!
//! A command may take the guest seconds. So each request gets a thread, and the control thread none
//! of the wait. Commands go to the agent one at a time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use guest_agent::{Agent, AgentError, Channel, ChannelError};
use virtio::{PortConfig, PortPeer, Ports};
use vmm_rpc::{AgentRequest, Refusal, Reply};

use crate::Answering;

/// What agents look for in the guest.
const PORT_NAME: &str = "org.qemu.guest_agent.0";
/// It is the device's only port.
const PORT: usize = 0;
/// What an agent may have said that nobody has asked for yet.
const BUFFER_MAX: usize = 64 << 10;
/// Requests at a time: each costs a thread, and its output memory.
const REQUESTS_MAX: usize = 8;
const STACK_BYTES: usize = 256 * 1024;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The host's end of the port.
///
/// *Lock*: the state's is a leaf; the device is called without it.
#[derive(Default)]
struct Line {
    state: Mutex<LineState>,
    changed: Condvar,
    ports: OnceLock<Arc<Ports>>,
}

#[derive(Default)]
struct LineState {
    received: VecDeque<u8>,
    is_open: bool,
    has_room: bool,
}

impl PortPeer for Line {
    fn take(&self, bytes: &[u8]) -> usize {
        let mut state = lock(&self.state);
        let size = bytes.len().min(BUFFER_MAX - state.received.len());
        state.received.extend(&bytes[..size]);
        self.changed.notify_all();
        size
    }

    fn room(&self) {
        lock(&self.state).has_room = true;
        self.changed.notify_all();
    }

    fn opened(&self, open: bool) {
        lock(&self.state).is_open = open;
        self.changed.notify_all();
    }
}

impl Line {
    fn ports(&self) -> Result<&Arc<Ports>, ChannelError> {
        self.ports.get().ok_or(ChannelError::NobodyThere)
    }

    /// Waits while `idle` says so and someone is there.
    fn wait(
        &self,
        until: Instant,
        idle: impl Fn(&LineState) -> bool,
    ) -> Result<MutexGuard<'_, LineState>, ChannelError> {
        let left = until.saturating_duration_since(Instant::now());
        let idle = |state: &mut LineState| state.is_open && idle(state);
        let waited = self.changed.wait_timeout_while(lock(&self.state), left, idle);
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        match timeout.timed_out() {
            _ if !state.is_open => Err(ChannelError::NobodyThere),
            true => Err(ChannelError::TooLate),
            false => Ok(state),
        }
    }
}

/// The way of an [`Agent`] to the port.
struct End(Arc<Line>);

impl Channel for End {
    fn forget(&mut self) {
        lock(&self.0.state).received.clear();
        if let Ok(ports) = self.0.ports() {
            ports.resume(PORT);
        }
    }

    fn send(&mut self, bytes: &[u8], until: Instant) -> Result<(), ChannelError> {
        let mut rest = bytes;
        loop {
            lock(&self.0.state).has_room = false;
            let taken = self.0.ports()?.input(PORT, rest);
            rest = &rest[taken..];
            if rest.is_empty() {
                return Ok(());
            }
            drop(self.0.wait(until, |state| !state.has_room)?);
        }
    }

    fn receive(&mut self, into: &mut [u8], until: Instant) -> Result<usize, ChannelError> {
        let mut state = self.0.wait(until, |state| state.received.is_empty())?;
        let size = into.len().min(state.received.len());
        into.iter_mut().zip(state.received.drain(..size)).for_each(|(to, byte)| *to = byte);
        drop(state);
        self.0.ports()?.resume(PORT);
        Ok(size)
    }
}

/// What answers requests for the guest's agent.
pub(crate) struct AgentService {
    line: Arc<Line>,
    agent: Mutex<Agent<End>>,
    serving: AtomicUsize,
}

impl AgentService {
    /// One whose port has no device yet.
    pub(crate) fn new() -> Arc<Self> {
        let line = Arc::new(Line::default());
        let agent = Mutex::new(Agent::new(End(line.clone()), std::process::id()));
        Arc::new(Self { line, agent, serving: AtomicUsize::new(0) })
    }

    /// The port to build a device with.
    pub(crate) fn port(&self) -> PortConfig {
        PortConfig { name: PORT_NAME.to_owned(), peer: self.line.clone() }
    }

    /// Connects the device that has the port.
    pub(crate) fn connect(&self, ports: Arc<Ports>) {
        let connected = self.line.ports.set(ports);
        assert!(connected.is_ok(), "the agent's port is connected once");
    }

    /// Serves a request on a thread of its own.
    pub(crate) fn start(self: &Arc<Self>, request: AgentRequest, mut answer: Answering) {
        if self.serving.fetch_add(1, Ordering::AcqRel) >= REQUESTS_MAX {
            self.serving.fetch_sub(1, Ordering::AcqRel);
            let message = "the guest's agent has too much to do: try again later".to_owned();
            return answer(Reply::Refused { refusal: Refusal::WrongState, message }.into());
        }
        let service = self.clone();
        let thread = std::thread::Builder::new().name("agent".to_owned()).stack_size(STACK_BYTES);
        let spawned = thread.spawn(move || {
            let reply = service.serve(&request, &mut answer);
            service.serving.fetch_sub(1, Ordering::AcqRel);
            answer(reply.into());
        });
        if spawned.is_err() {
            // The asker went with the thread: its conversation closes unanswered.
            self.serving.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn serve(&self, request: &AgentRequest, answer: &mut Answering) -> Reply {
        let mut agent = lock(&self.agent);
        let mut output = |output| answer(Reply::Agent(output).into());
        match agent.serve(request, &mut output) {
            Ok(reply) => Reply::Agent(reply),
            Err(error) => {
                let refusal = match error {
                    AgentError::Channel(ChannelError::NobodyThere) => Refusal::Unsupported,
                    _ => Refusal::Guest,
                };
                Reply::Refused { refusal, message: errchain::Chain(&error).to_string() }
            }
        }
    }
}
