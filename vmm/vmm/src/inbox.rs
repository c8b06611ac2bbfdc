//! What the control thread waits for.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use board::{MachineEvent, MachineOwner};
use vmm_rpc::{Answer, Refusal, Reply, Request};

/// Requests that may wait. Each client has one at a time, so only a crowd fills it.
const REQUESTS_MAX: usize = 32;

/// Answers a request. It does not block, but for what a guest's agent says, which is not said by a
/// thread the VM needs.
pub type Answering = Box<dyn FnMut(Answer) + Send>;

/// Something for the control thread to act on, the most urgent first.
pub(crate) enum Mail {
    /// End the VM.
    Quit,
    /// The machine says something.
    Machine(MachineEvent),
    /// A vCPU stands that was not asked to.
    VcpuStopped,
    /// Someone asks something.
    Request(Request, Answering),
}

#[derive(Default)]
struct Pending {
    quit: bool,
    machine: Option<MachineEvent>,
    vcpu_stopped: bool,
    requests: VecDeque<(Request, Answering)>,
}

/// The control thread's inbox: filled from every thread, emptied by one.
///
/// *Bounded*: of what the guest can cause, the first event counts until it is taken, as for a
/// real machine whose reset line is pulled twice; requests are refused when too many wait.
///
/// *Lock*: a leaf, held for a few instructions, so that a vCPU may post from inside a device.
#[derive(Default)]
pub struct Inbox {
    pending: Mutex<Pending>,
    filled: Condvar,
}

impl Inbox {
    /// Ends the VM, whatever it does.
    pub fn quit(&self) {
        self.post(|pending| pending.quit = true);
    }

    /// Asks something of the VM. `answer` is called once, maybe before this returns.
    pub fn request(&self, request: Request, mut answer: Answering) {
        let mut pending = self.lock();
        if pending.requests.len() >= REQUESTS_MAX {
            drop(pending);
            let message = "too many requests are waiting: try again later".to_owned();
            answer(Reply::Refused { refusal: Refusal::WrongState, message }.into());
            return;
        }
        pending.requests.push_back((request, answer));
        drop(pending);
        self.filled.notify_one();
    }

    pub(crate) fn vcpu_stopped(&self) {
        self.post(|pending| pending.vcpu_stopped = true);
    }

    /// Waits for the next thing to do.
    pub(crate) fn wait(&self) -> Mail {
        let mut pending = self.lock();
        loop {
            if std::mem::take(&mut pending.quit) {
                return Mail::Quit;
            }
            if let Some(event) = pending.machine.take() {
                return Mail::Machine(event);
            }
            if std::mem::take(&mut pending.vcpu_stopped) {
                return Mail::VcpuStopped;
            }
            if let Some((request, answer)) = pending.requests.pop_front() {
                return Mail::Request(request, answer);
            }
            pending = self.filled.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Forgets what machine and vCPUs have said, when they begin anew.
    pub(crate) fn forget_machine(&self) {
        let mut pending = self.lock();
        pending.machine = None;
        pending.vcpu_stopped = false;
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, change: impl FnOnce(&mut Pending)) {
        change(&mut self.lock());
        self.filled.notify_one();
    }
}

impl MachineOwner for Inbox {
    fn event(&self, event: MachineEvent) {
        self.post(|pending| {
            pending.machine.get_or_insert(event);
        });
    }
}
