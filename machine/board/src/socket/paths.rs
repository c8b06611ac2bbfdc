//! Doorbells and interrupts that go through the host's kernel while the plugged engine can.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

use engine::CpuComplex;
use x86_state::Msi;

use super::{Socket, lock};

/// What is attached, or would be if the engine could.
#[derive(Default)]
pub(super) struct Paths {
    next_id: u64,
    doorbells: Vec<(u64, Doorbell)>,
    interrupts: Vec<(u64, Interrupt)>,
}

struct Doorbell {
    gpa: u64,
    event: Arc<OwnedFd>,
    attached: bool,
}

struct Interrupt {
    msi: Msi,
    event: Arc<OwnedFd>,
    attached: bool,
}

impl Doorbell {
    fn attach(&mut self, complex: &dyn CpuComplex) {
        let Some(kernel) = complex.kernel_paths() else { return };
        self.attached = kernel.attach_doorbell(self.gpa, self.event.as_fd()).is_ok();
    }

    fn detach(&mut self, complex: &dyn CpuComplex) {
        if let Some(kernel) = complex.kernel_paths().filter(|_| self.attached) {
            kernel.detach_doorbell(self.gpa, self.event.as_fd());
        }
        self.attached = false;
    }
}

impl Interrupt {
    fn attach(&mut self, complex: &dyn CpuComplex) {
        let Some(kernel) = complex.kernel_paths() else { return };
        self.attached = kernel.attach_interrupt(self.event.as_fd(), self.msi).is_ok();
    }

    fn detach(&mut self, complex: &dyn CpuComplex) {
        if let Some(kernel) = complex.kernel_paths().filter(|_| self.attached) {
            kernel.detach_interrupt(self.event.as_fd());
        }
        self.attached = false;
    }
}

impl Paths {
    pub(super) fn attach_all(&mut self, complex: &dyn CpuComplex) {
        self.doorbells.iter_mut().for_each(|(_, path)| path.attach(complex));
        self.interrupts.iter_mut().for_each(|(_, path)| path.attach(complex));
    }

    pub(super) fn detach_all(&mut self, complex: &dyn CpuComplex) {
        self.doorbells.iter_mut().for_each(|(_, path)| path.detach(complex));
        self.interrupts.iter_mut().for_each(|(_, path)| path.detach(complex));
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

/// A doorbell's claim to a kernel path. Dropping it gives it up.
pub struct DoorbellPath {
    socket: Weak<Socket>,
    id: u64,
}

/// An interrupt's claim to a kernel path. Dropping it gives it up.
pub struct InterruptPath {
    socket: Weak<Socket>,
    id: u64,
}

impl Socket {
    /// Guest writes to this MMIO address may signal `event` instead of reaching the bus, for as
    /// long as the returned value lives and whenever the plugged engine can.
    pub fn doorbell_path(self: &Arc<Self>, gpa: u64, event: Arc<OwnedFd>) -> DoorbellPath {
        let complex = self.read();
        let mut paths = lock(&self.paths);
        let mut path = Doorbell { gpa, event, attached: false };
        if let Some(complex) = complex.as_deref() {
            path.attach(complex);
        }
        let id = paths.id();
        paths.doorbells.push((id, path));
        DoorbellPath { socket: Arc::downgrade(self), id }
    }

    /// Signals of `event` send `msi`, for as long as the returned value lives and whenever
    /// [`InterruptPath::is_attached`] says so; the device sends it itself otherwise.
    pub fn interrupt_path(self: &Arc<Self>, event: Arc<OwnedFd>, msi: Msi) -> InterruptPath {
        let complex = self.read();
        let mut paths = lock(&self.paths);
        let mut path = Interrupt { msi, event, attached: false };
        if let Some(complex) = complex.as_deref() {
            path.attach(complex);
        }
        let id = paths.id();
        paths.interrupts.push((id, path));
        InterruptPath { socket: Arc::downgrade(self), id }
    }
}

impl InterruptPath {
    /// The kernel listens to the event.
    pub fn is_attached(&self) -> bool {
        let Some(socket) = self.socket.upgrade() else { return false };
        let _complex = socket.read();
        let paths = lock(&socket.paths);
        paths.interrupts.iter().any(|(id, path)| *id == self.id && path.attached)
    }
}

impl Drop for DoorbellPath {
    fn drop(&mut self) {
        let Some(socket) = self.socket.upgrade() else { return };
        let complex = socket.read();
        let mut paths = lock(&socket.paths);
        if let Some(at) = paths.doorbells.iter().position(|(id, _)| *id == self.id) {
            let (_, mut path) = paths.doorbells.remove(at);
            if let Some(complex) = complex.as_deref() {
                path.detach(complex);
            }
        }
    }
}

impl Drop for InterruptPath {
    fn drop(&mut self) {
        let Some(socket) = self.socket.upgrade() else { return };
        let complex = socket.read();
        let mut paths = lock(&socket.paths);
        if let Some(at) = paths.interrupts.iter().position(|(id, _)| *id == self.id) {
            let (_, mut path) = paths.interrupts.remove(at);
            if let Some(complex) = complex.as_deref() {
                path.detach(complex);
            }
        }
    }
}
