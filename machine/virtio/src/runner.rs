//! Takes requests off a device's queues, on whatever thread the board chose.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};

use evloop::{Event, EventLoop, Interest, Registration};
use guest_memory::{DmaMemory, GuestMemory};
use pci::{Intx, Msix};

use crate::ring::Ring;
use crate::spec::{NO_VECTOR, status};
use crate::{Broken, Chain, Outcome, VirtioDevice};

/// Requests served before the driver is told and other queues of the thread have their turn.
const BATCH: usize = 64;

/// ISR bits (4.1.4.5).
pub(crate) const ISR_QUEUE: u8 = 1;
pub(crate) const ISR_CONFIG: u8 = 2;

/// Where a device's queues are served.
#[derive(Clone)]
pub enum Dispatch {
    /// Inside the doorbell write, on the vCPU's thread. For repeatable runs, where vCPUs take
    /// turns: a vCPU that feeds the queue while another is inside the doorbell keeps it there.
    Inline,
    /// On these loops: queue `i` on loop `i` modulo their number. At least one.
    Loops(Vec<EventLoop>),
}

/// One queue's place.
pub(crate) struct Slot {
    /// Rung by doorbells.
    pub(crate) event: Arc<Event>,
    /// MSI-X vector, or [`NO_VECTOR`].
    pub(crate) vector: AtomicU16,
    /// The ring while the driver has it enabled.
    pub(crate) ring: Mutex<Option<Ring>>,
    /// The ring shall be left alone as soon as can be: it is being reset.
    pub(crate) closing: AtomicBool,
}

/// A device's queues, and what decides whether they run.
pub(crate) struct Runner {
    // Wiring.
    pub(crate) device: Arc<dyn VirtioDevice>,
    pub(crate) memory: Arc<GuestMemory>,
    pub(crate) msix: Arc<Msix>,
    pub(crate) intx: Arc<Intx>,
    /// Where queues are served; none when that is inside the doorbell.
    loops: Vec<EventLoop>,
    // State.
    pub(crate) slots: Box<[Slot]>,
    pub(crate) status: AtomicU8,
    pub(crate) isr: AtomicU8,
    pub(crate) config_vector: AtomicU16,
    pub(crate) config_generation: AtomicU8,
    pub(crate) bus_master: AtomicBool,
    paused: AtomicBool,
    /// Why the device needs a reset.
    broken: Mutex<Option<Broken>>,
    // Counters.
    pub(crate) interrupts: AtomicU64,
}

/// A device's way to its own queues and driver.
#[derive(Clone, Default)]
pub struct Handle(Weak<Runner>);

impl Handle {
    /// Looks at the queue again: what made requests wait is gone. To be called without locks of
    /// the device's: with [`Dispatch::Inline`] the requests are served inside.
    pub fn kick(&self, queue: usize) {
        if let Some(runner) = self.0.upgrade() {
            runner.kick(queue);
        }
    }

    /// Tells the driver that device configuration has changed.
    pub fn config_changed(&self) {
        if let Some(runner) = self.0.upgrade() {
            runner.config_generation.fetch_add(1, Ordering::AcqRel);
            runner.interrupt_config();
        }
    }

    /// Gives requests that were [`Outcome::Pending`] back to the driver: their heads, and how many
    /// bytes were written. To be called without locks of the device's.
    pub fn complete(&self, queue: usize, done: impl Iterator<Item = (u16, u32)>) {
        match self.0.upgrade() {
            Some(runner) => runner.complete(queue, done),
            None => done.for_each(drop),
        }
    }

    /// Where the queue is served, if not inside the doorbell.
    pub fn event_loop(&self, queue: usize) -> Option<EventLoop> {
        let runner = self.0.upgrade()?;
        runner.loops.get(queue % runner.loops.len().max(1)).cloned()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Runner {
    pub(crate) fn new(
        device: Arc<dyn VirtioDevice>,
        memory: Arc<GuestMemory>,
        msix: Arc<Msix>,
        dispatch: &Dispatch,
    ) -> io::Result<(Arc<Self>, Vec<Registration>)> {
        let slot = |_| {
            Ok(Slot {
                event: Arc::new(Event::new()?),
                vector: AtomicU16::new(NO_VECTOR),
                ring: Mutex::new(None),
                closing: AtomicBool::new(false),
            })
        };
        let slots = device.queue_sizes().iter().map(slot).collect::<io::Result<Box<[_]>>>()?;
        let runner = Arc::new(Self {
            device,
            memory,
            msix,
            intx: Intx::new(),
            loops: match dispatch {
                Dispatch::Inline => Vec::new(),
                Dispatch::Loops(loops) => loops.clone(),
            },
            slots,
            status: AtomicU8::new(0),
            isr: AtomicU8::new(0),
            config_vector: AtomicU16::new(NO_VECTOR),
            config_generation: AtomicU8::new(0),
            bus_master: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            broken: Mutex::new(None),
            interrupts: AtomicU64::new(0),
        });
        runner.device.attach(Handle(Arc::downgrade(&runner)));
        let registrations = match dispatch {
            Dispatch::Inline => Vec::new(),
            Dispatch::Loops(loops) => runner.register(loops)?,
        };
        Ok((runner, registrations))
    }

    fn register(self: &Arc<Self>, loops: &[EventLoop]) -> io::Result<Vec<Registration>> {
        assert!(!loops.is_empty(), "a device has no loop");
        let queue = |(index, slot): (usize, &Slot)| {
            let (weak, event) = (Arc::downgrade(self), slot.event.clone());
            loops[index % loops.len()].add(slot.event.clone(), Interest::Read, move || {
                event.clear();
                if let Some(runner) = weak.upgrade() {
                    runner.run(index);
                }
            })
        };
        self.slots.iter().enumerate().map(queue).collect()
    }

    pub(crate) fn is_inline(&self) -> bool {
        self.loops.is_empty()
    }

    /// Has the queue served.
    pub(crate) fn kick(&self, queue: usize) {
        match self.slots.get(queue) {
            Some(slot) if !self.is_inline() => slot.event.signal(),
            Some(_) => self.run(queue),
            None => {}
        }
    }

    /// A doorbell that came by the bus: short requests are served by the vCPU that rings, because waking
    /// a thread takes longer than they do.
    pub(crate) fn ring(&self, queue: usize) {
        let Some(slot) = self.slots.get(queue) else { return };
        if self.is_inline() {
            self.run(queue);
        } else if self.device.is_prompt(queue) {
            match slot.ring.try_lock() {
                Ok(ring) => self.run_locked(queue, ring),
                Err(TryLockError::Poisoned(ring)) => self.run_locked(queue, ring.into_inner()),
                Err(TryLockError::WouldBlock) => slot.event.signal(),
            }
        } else {
            slot.event.signal();
        }
    }

    pub(crate) fn kick_all(&self) {
        (0..self.slots.len()).for_each(|queue| self.kick(queue));
    }

    /// Ends service. When it returns, no request is in flight and guest memory stands still.
    pub(crate) fn pause(&self) {
        self.paused.store(true, Ordering::SeqCst);
        for (queue, slot) in self.slots.iter().enumerate() {
            drop(lock(&slot.ring));
            self.device.drain(queue);
        }
    }

    /// Begins service again, with what came meanwhile.
    pub(crate) fn resume(&self) {
        self.paused.store(false, Ordering::SeqCst);
        self.kick_all();
    }

    fn may_run(&self, slot: &Slot) -> bool {
        let status = self.status.load(Ordering::SeqCst);
        status & status::DRIVER_OK != 0
            && status & status::DEVICE_NEEDS_RESET == 0
            && self.bus_master.load(Ordering::SeqCst)
            && !self.paused.load(Ordering::SeqCst)
            && !slot.closing.load(Ordering::SeqCst)
    }

    fn run(&self, queue: usize) {
        self.run_locked(queue, lock(&self.slots[queue].ring));
    }

    fn run_locked(&self, queue: usize, mut ring: MutexGuard<'_, Option<Ring>>) {
        let slot = &self.slots[queue];
        let Some(served) = ring.as_mut() else { return };
        let memory = self.memory.dma();
        let result = self.serve(queue, served, &memory);
        self.tell(slot, served, &memory, result);
        drop(ring);
        self.device.submit(queue);
    }

    fn complete(&self, queue: usize, done: impl Iterator<Item = (u16, u32)>) {
        let slot = &self.slots[queue];
        let mut ring = lock(&slot.ring);
        // What a reset has taken the ring from is nobody's business any more.
        let Some(ring) = ring.as_mut() else { return done.for_each(drop) };
        let memory = self.memory.dma();
        let mut result = Ok(());
        for (head, written) in done {
            result = result.and(ring.complete_kept(&memory, head, written));
        }
        self.tell(slot, ring, &memory, result);
    }

    /// Interrupts the driver if it wants that. What was done before a mistake is told, too.
    fn tell(&self, slot: &Slot, ring: &mut Ring, memory: &DmaMemory, result: Result<(), Broken>) {
        let told = ring.must_interrupt(memory);
        if told == Ok(true) {
            self.interrupt(slot);
        }
        if let Err(broken) = result.and(told.map(drop)) {
            self.needs_reset(broken);
        }
    }

    fn serve(&self, queue: usize, ring: &mut Ring, memory: &Arc<DmaMemory>) -> Result<(), Broken> {
        let slot = &self.slots[queue];
        let mut more = false;
        for served in 0usize.. {
            if !self.may_run(slot) {
                ring.put_back();
                return Ok(());
            }
            if served >= BATCH && !self.is_inline() && !more {
                slot.event.signal();
                return Ok(());
            }
            if served == 0 {
                ring.silence(memory)?;
            }
            let head = if more { ring.pop_more(memory)? } else { ring.pop(memory)? };
            if head.is_none() {
                if ring.listen(memory)? {
                    ring.silence(memory)?;
                    continue;
                }
                // Of requests that are too small together, none is served: the driver rings
                // with the next.
                ring.put_back();
                return Ok(());
            }
            let chain = Chain::new(memory, &ring.gathered, ring.requests(), ring.head());
            let outcome = self.device.handle(queue, &chain)?;
            more = outcome == Outcome::More;
            match outcome {
                Outcome::Done(written) => ring.complete(memory, written)?,
                Outcome::Pending => ring.keep(),
                Outcome::More => {}
                Outcome::Wait => {
                    ring.put_back();
                    return Ok(());
                }
                Outcome::Again => {
                    ring.put_back();
                    if !self.is_inline() {
                        slot.event.signal();
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Drives the interrupt pin as the ISR says.
    pub(crate) fn drive_pin(&self) {
        self.intx.update(|| self.isr.load(Ordering::Acquire) != 0);
    }

    fn interrupt(&self, slot: &Slot) {
        self.isr.fetch_or(ISR_QUEUE, Ordering::AcqRel);
        self.drive_pin();
        self.interrupts.fetch_add(1, Ordering::Relaxed);
        self.msix.notify(slot.vector.load(Ordering::Acquire));
    }

    fn interrupt_config(&self) {
        if self.status.load(Ordering::SeqCst) & status::DRIVER_OK != 0 {
            self.isr.fetch_or(ISR_CONFIG, Ordering::AcqRel);
            self.drive_pin();
            self.msix.notify(self.config_vector.load(Ordering::Acquire));
        }
    }

    /// Stops the device until the driver resets it (2.1.2).
    pub(crate) fn needs_reset(&self, broken: Broken) {
        *lock(&self.broken) = Some(broken);
        self.status.fetch_or(status::DEVICE_NEEDS_RESET, Ordering::SeqCst);
        self.interrupt_config();
    }

    /// What the driver did wrong last, since reset.
    pub(crate) fn broken(&self) -> Option<Broken> {
        *lock(&self.broken)
    }

    /// Takes a queue's ring away, when what is being done with it is finished.
    pub(crate) fn close(&self, queue: usize) -> Option<Ring> {
        let slot = &self.slots[queue];
        slot.closing.store(true, Ordering::SeqCst);
        drop(lock(&slot.ring));
        self.device.drain(queue);
        let ring = lock(&slot.ring).take();
        slot.closing.store(false, Ordering::SeqCst);
        ring
    }

    /// Back to the state after power-up, but for what belongs to PCI and the board.
    pub(crate) fn reset(&self) {
        self.status.store(0, Ordering::SeqCst);
        for (queue, slot) in self.slots.iter().enumerate() {
            self.close(queue);
            slot.vector.store(NO_VECTOR, Ordering::Release);
        }
        // A request that was in flight may have broken the device meanwhile.
        self.status.store(0, Ordering::SeqCst);
        self.isr.store(0, Ordering::Release);
        self.drive_pin();
        self.config_vector.store(NO_VECTOR, Ordering::Release);
        *lock(&self.broken) = None;
        self.device.reset();
    }
}
