//! The threads of a VM's vCPUs, and what the control thread tells them.

mod thread;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use cage::VcpuFilter;
use engine::{Bus, CpuComplex, EngineError, Vcpu};
use x86_state::{VcpuId, VcpuState};

use crate::VmError;
use crate::inbox::Inbox;
use thread::CpuThread;

/// Enough for the interpreter's deepest nesting, and below the size at which a host with
/// transparent huge pages backs a stack with one.
const STACK_BYTES: usize = 1 << 20;

/// What a thread does for the control thread. Each order gets one answer.
enum Order {
    /// Execute until stopped.
    Run,
    /// Make no system calls but these.
    Narrow(VcpuFilter),
    /// Give the state.
    Save,
    /// Take over this state.
    Load(Box<VcpuState>),
    /// Load the state into this vCPU of another engine, and keep it beside the old one.
    Prepare(Box<dyn Vcpu>, Box<VcpuState>),
    /// Go on with the prepared vCPU; drop the old one.
    Commit,
    /// Go on with the old vCPU; drop the prepared one.
    Abort,
}

/// The answer to an [`Order`].
enum Answer {
    Stopped(Stop),
    Saved(Box<VcpuState>),
    Done,
    Failed(EngineError),
}

/// Why a vCPU stands.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It was asked to.
    Asked,
    /// It gave up.
    TripleFault,
    /// Its engine failed.
    Failed(EngineError),
}

/// What a vCPU's thread and the control thread share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
}

struct Cpu {
    id: VcpuId,
    /// `None` only while the value is dropped.
    orders: Option<SyncSender<Order>>,
    answers: Receiver<Answer>,
    shared: Arc<Shared>,
    /// An [`Order::Run`] is unanswered.
    running: bool,
    thread: Option<JoinHandle<()>>,
}

/// All vCPUs of a VM. They stand, or they run; never some of each once a call has returned,
/// except for those that stopped by themselves, which [`Inbox`] is told of.
///
/// Every method blocks until the threads have answered, so only the control thread calls them.
pub(crate) struct Cpus {
    cpus: Vec<Cpu>,
    complex: Arc<dyn CpuComplex>,
}

impl Cpus {
    /// Starts a thread for each vCPU. They stand.
    pub(crate) fn new(
        complex: Arc<dyn CpuComplex>,
        vcpus: Vec<Box<dyn Vcpu>>,
        bus: &Arc<dyn Bus>,
        inbox: &Arc<Inbox>,
    ) -> Result<Self, VmError> {
        let mut cpus = Vec::with_capacity(vcpus.len());
        for (id, vcpu) in (0..).map(VcpuId).zip(vcpus) {
            cpus.push(Cpu::new(id, vcpu, bus.clone(), inbox.clone())?);
        }
        Ok(Self { cpus, complex })
    }

    /// Lets the first `count` vCPUs run. The others are not there.
    pub(crate) fn start(&mut self, count: u32) -> Result<(), VmError> {
        for cpu in self.cpus.iter_mut().take(count as usize) {
            cpu.shared.stop.store(false, Ordering::Release);
            cpu.tell(Order::Run)?;
            cpu.running = true;
        }
        Ok(())
    }

    /// Makes all vCPUs stand at an instruction boundary, and says why the first one stands that
    /// was not asked to.
    pub(crate) fn stop(&mut self) -> Result<Stop, VmError> {
        for cpu in self.cpus.iter().filter(|cpu| cpu.running) {
            cpu.shared.stop.store(true, Ordering::Release);
            self.complex.kick(cpu.id);
        }
        let mut first = Stop::Asked;
        for cpu in self.cpus.iter_mut().filter(|cpu| cpu.running) {
            let answer = cpu.answer()?;
            cpu.running = false;
            match (answer, &first) {
                (Answer::Stopped(stop), Stop::Asked) => first = stop,
                (Answer::Stopped(_), _) => {}
                _ => return Err(VmError::Thread { vcpu: cpu.id }),
            }
        }
        Ok(first)
    }

    /// Leaves the threads no system calls but these. A host that refuses leaves them those of the process.
    pub(crate) fn narrow(&mut self, filter: &VcpuFilter) -> Result<(), VmError> {
        self.each(|_| Some(Order::Narrow(filter.clone()))).map(drop)
    }

    /// The state of all vCPUs. They must stand.
    pub(crate) fn save(&mut self) -> Result<Vec<VcpuState>, VmError> {
        self.each(|_| Some(Order::Save))?
            .into_iter()
            .map(|answer| match answer {
                (_, Answer::Saved(state)) => Ok(*state),
                (vcpu, _) => Err(VmError::Thread { vcpu }),
            })
            .collect()
    }

    /// Puts a state into each vCPU. They must stand.
    pub(crate) fn load(&mut self, states: Vec<VcpuState>) -> Result<(), VmError> {
        let mut states = states.into_iter();
        self.each(|_| states.next().map(|state| Order::Load(Box::new(state)))).map(drop)
    }

    /// Loads states into vCPUs of another engine, on the threads that will run them. The old
    /// vCPUs are kept until [`Cpus::commit`] or [`Cpus::abort`].
    pub(crate) fn prepare(
        &mut self,
        vcpus: Vec<Box<dyn Vcpu>>,
        states: Vec<VcpuState>,
    ) -> Result<(), VmError> {
        let mut both = vcpus.into_iter().zip(states);
        self.each(|_| both.next().map(|(vcpu, state)| Order::Prepare(vcpu, Box::new(state))))
            .map(drop)
    }

    /// Goes on with the prepared vCPUs, in this complex.
    pub(crate) fn commit(&mut self, complex: Arc<dyn CpuComplex>) -> Result<(), VmError> {
        self.complex = complex;
        self.each(|_| Some(Order::Commit)).map(drop)
    }

    /// Goes on with the old vCPUs.
    pub(crate) fn abort(&mut self) -> Result<(), VmError> {
        self.each(|_| Some(Order::Abort)).map(drop)
    }

    /// Gives every thread an order, then collects every answer, so that the threads work at the
    /// same time and none is left with an answer nobody takes. The first failure is returned.
    fn each(
        &mut self,
        mut order: impl FnMut(VcpuId) -> Option<Order>,
    ) -> Result<Vec<(VcpuId, Answer)>, VmError> {
        for cpu in &self.cpus {
            assert!(!cpu.running, "vCPU {} was told to work while it runs", cpu.id.0);
            cpu.tell(order(cpu.id).ok_or(VmError::Thread { vcpu: cpu.id })?)?;
        }
        let answers: Vec<_> = self.cpus.iter().map(|cpu| (cpu.id, cpu.answer())).collect();
        let check = |(vcpu, answer): (VcpuId, Result<Answer, VmError>)| match answer? {
            Answer::Failed(source) => Err(VmError::Vcpu { vcpu, source }),
            answer => Ok((vcpu, answer)),
        };
        answers.into_iter().map(check).collect()
    }
}

impl Cpu {
    fn new(
        id: VcpuId,
        vcpu: Box<dyn Vcpu>,
        bus: Arc<dyn Bus>,
        inbox: Arc<Inbox>,
    ) -> Result<Self, VmError> {
        let shared = Arc::new(Shared::default());
        // One order and one answer at a time: neither side ever waits for room.
        let (orders, ordered) = sync_channel(1);
        let (answering, answers) = sync_channel(1);
        let of = CpuThread::new(vcpu, bus, shared.clone(), inbox);
        let thread = std::thread::Builder::new()
            .name(format!("vcpu{}", id.0))
            .stack_size(STACK_BYTES)
            .spawn(move || of.serve(&ordered, &answering))
            .map_err(|source| VmError::NoThread { name: "a vCPU", source })?;
        Ok(Self { id, orders: Some(orders), answers, shared, running: false, thread: Some(thread) })
    }

    fn tell(&self, order: Order) -> Result<(), VmError> {
        let orders = self.orders.as_ref().ok_or(VmError::Thread { vcpu: self.id })?;
        orders.send(order).map_err(|_| VmError::Thread { vcpu: self.id })
    }

    fn answer(&self) -> Result<Answer, VmError> {
        self.answers.recv().map_err(|_| VmError::Thread { vcpu: self.id })
    }
}

impl Drop for Cpus {
    fn drop(&mut self) {
        // A thread that has died cannot be stopped and need not be.
        let _ = self.stop();
        for cpu in &mut self.cpus {
            drop(cpu.orders.take());
            if let Some(thread) = cpu.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests;
