//! The CPU socket: where an engine's complex is plugged in, and what it was last told.
//!
//! Devices hold the socket, never an engine. It remembers memory view, IOAPIC routes, INTR level,
//! dirty switch, doorbells and index registers, so that another engine can be brought up without asking a device
//! or taking a device's lock.
//!
//! *Locks*, in this order: a device's own lock; `plugged`; `told`; `paths`. Senders hold `plugged`
//! for reading, so while it is held for writing ([`Socket::unplug`]) they wait and lose nothing.

mod paths;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bus::{LineSink, MsiSink};
use chipset::RouteSink;
use engine::{CpuComplex, EngineError, IoApicRoutes};
use guest_memory::{DirtyBitmap, FlatView};
use x86_state::{Msi, VcpuId};

use crate::event::{MachineEvent, MachineOwner};
use paths::Paths;

/// What the complex was last told.
#[derive(Default)]
struct Told {
    view: Arc<FlatView>,
    routes: IoApicRoutes,
    intr: bool,
    dirty_log: bool,
    /// Messages from before there was a complex. Equal ones merge, as they would in an APIC.
    waiting: Vec<Msi>,
}

/// More messages waiting would mean that a device sends them without a guest having asked.
const WAITING_MAX: usize = 256;

/// The socket of one machine.
pub struct Socket {
    owner: Arc<dyn MachineOwner>,
    plugged: RwLock<Option<Arc<dyn CpuComplex>>>,
    told: Mutex<Told>,
    paths: Mutex<Paths>,
}

impl Socket {
    /// An empty socket.
    pub fn new(owner: Arc<dyn MachineOwner>) -> Arc<Self> {
        Arc::new(Self {
            owner,
            plugged: RwLock::new(None),
            told: Mutex::default(),
            paths: Mutex::default(),
        })
    }

    /// Plugs the first complex in, tells it everything, and sends it what has waited.
    ///
    /// # Errors
    /// When the host refuses; the socket is then still empty.
    ///
    /// # Panics
    /// When one is plugged in already: use [`Socket::unplug`].
    pub fn plug(&self, complex: Arc<dyn CpuComplex>) -> Result<(), EngineError> {
        let empty = self.unplug();
        assert!(empty.guard.is_none(), "the socket holds a complex already");
        empty.plug(complex).map(|_| ())
    }

    /// Takes the write lock and detaches kernel paths: senders of interrupts wait from here until
    /// the returned guard plugs another complex in, or is dropped and the old one stays.
    pub fn unplug(&self) -> Unplugged<'_> {
        let guard = self.plugged.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(complex) = guard.as_deref() {
            lock(&self.paths).detach_all(complex);
        }
        Unplugged { socket: self, guard }
    }

    /// The complex that is plugged in.
    pub fn complex(&self) -> Option<Arc<dyn CpuComplex>> {
        self.read().clone()
    }

    /// The guest's memory is now this.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn set_memory(&self, view: Arc<FlatView>) -> Result<(), EngineError> {
        let complex = self.read();
        let mut told = lock(&self.told);
        told.view = view;
        complex.as_ref().map_or(Ok(()), |complex| complex.set_memory(&told.view))
    }

    /// The same, from a device: it cannot act on a refusal, so the owner is told.
    pub(crate) fn set_memory_or_fail(&self, view: Arc<FlatView>) {
        self.check(self.set_memory(view));
    }

    /// Begins or ends tracking what vCPUs write.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn set_dirty_log(&self, on: bool) -> Result<(), EngineError> {
        let complex = self.read();
        let mut told = lock(&self.told);
        told.dirty_log = on;
        complex.as_ref().map_or(Ok(()), |complex| complex.set_dirty_log(on))
    }

    /// Adds what only the engine knows to be written.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn harvest_dirty(&self, into: &DirtyBitmap) -> Result<(), EngineError> {
        self.read().as_ref().map_or(Ok(()), |complex| complex.harvest_dirty(into))
    }

    /// Makes a vCPU's `run` return.
    pub fn kick(&self, vcpu: VcpuId) {
        if let Some(complex) = self.read().as_ref() {
            complex.kick(vcpu);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<Arc<dyn CpuComplex>>> {
        self.plugged.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A device cannot act on an engine's failure; the owner can.
    fn check(&self, result: Result<(), EngineError>) {
        if let Err(error) = result {
            self.owner.event(MachineEvent::Failed(error));
        }
    }
}

/// The IOAPIC tells; its lock orders the calls.
impl RouteSink for Socket {
    fn set_routes(&self, routes: &[Option<Msi>]) {
        let complex = self.read();
        let mut told = lock(&self.told);
        told.routes = IoApicRoutes { entries: routes.to_vec() };
        if let Some(complex) = complex.as_ref() {
            self.check(complex.set_ioapic_routes(&told.routes));
        }
    }
}

/// The PIC's output pin; the PIC's lock orders the calls.
impl LineSink for Socket {
    fn set_line(&self, _input: u32, level: bool) {
        let complex = self.read();
        let before = std::mem::replace(&mut lock(&self.told).intr, level);
        if let Some(complex) = complex.as_ref().filter(|_| before != level) {
            complex.set_intr(level);
        }
    }
}

impl MsiSink for Socket {
    fn send_msi(&self, msi: Msi) {
        match self.read().as_ref() {
            Some(complex) => complex.send_msi(msi),
            None => {
                let mut told = lock(&self.told);
                if !told.waiting.contains(&msi) && told.waiting.len() < WAITING_MAX {
                    told.waiting.push(msi);
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The socket while its complex is being replaced. Dropping it leaves the one that was there.
pub struct Unplugged<'a> {
    socket: &'a Socket,
    guard: RwLockWriteGuard<'a, Option<Arc<dyn CpuComplex>>>,
}

impl Unplugged<'_> {
    /// Tells a complex that is being prepared all that the old one knows, without plugging it
    /// in: vCPUs are loaded after this and before [`Unplugged::plug`].
    ///
    /// # Errors
    /// When the host refuses.
    pub fn prepare(&self, complex: &dyn CpuComplex) -> Result<(), EngineError> {
        let told = lock(&self.socket.told);
        complex.set_memory(&told.view)?;
        complex.set_dirty_log(told.dirty_log)?;
        complex.set_ioapic_routes(&told.routes)?;
        complex.set_intr(told.intr);
        Ok(())
    }

    /// Plugs in the complex: prepares it, sends it what has waited, and lets senders go on.
    /// Returns the one that was there.
    ///
    /// # Errors
    /// When the host refuses; the one that was there then stays.
    pub fn plug(
        mut self,
        complex: Arc<dyn CpuComplex>,
    ) -> Result<Option<Arc<dyn CpuComplex>>, EngineError> {
        self.prepare(&*complex)?;
        let waiting = std::mem::take(&mut lock(&self.socket.told).waiting);
        for msi in waiting {
            complex.send_msi(msi);
        }
        Ok(self.guard.replace(complex))
    }
}

impl Drop for Unplugged<'_> {
    fn drop(&mut self) {
        if let Some(complex) = self.guard.as_deref() {
            lock(&self.socket.paths).attach_all(complex);
        }
    }
}

#[cfg(test)]
mod tests;
