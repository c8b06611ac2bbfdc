//! Doorbells that go through the host's kernel, and writes that wait there, while the plugged engine
//! can.

use std::os::fd::AsFd;
use std::sync::Arc;

use engine::{CpuComplex, IndexRegister, KernelPaths};
use evloop::Event;
use virtio::Doorbells;

use super::{Socket, lock};

/// What is attached, or would be if the engine could.
#[derive(Default)]
pub(super) struct Paths(Vec<Path>);

struct Path {
    what: What,
    attached: bool,
}

/// A way through the kernel.
enum What {
    Doorbell { gpa: u64, event: Arc<Event> },
    HeldBack(IndexRegister),
}

impl Path {
    fn new(what: What) -> Self {
        Self { what, attached: false }
    }

    fn attach(&mut self, complex: &dyn CpuComplex) {
        let Some(kernel) = complex.kernel_paths() else { return };
        let attached = match &self.what {
            What::Doorbell { gpa, event } => kernel.attach_doorbell(*gpa, event.as_fd()),
            What::HeldBack(register) => kernel.hold_back(*register),
        };
        // Refused: the bus sees the writes, as before.
        self.attached = attached.is_ok();
    }

    fn detach(&mut self, complex: &dyn CpuComplex) {
        let detach = |kernel: &dyn KernelPaths| match &self.what {
            What::Doorbell { gpa, event } => kernel.detach_doorbell(*gpa, event.as_fd()),
            What::HeldBack(register) => kernel.release(*register),
        };
        if let Some(kernel) = complex.kernel_paths().filter(|_| self.attached) {
            detach(kernel);
        }
        self.attached = false;
    }
}

impl Paths {
    pub(super) fn attach_all(&mut self, complex: &dyn CpuComplex) {
        self.0.iter_mut().for_each(|path| path.attach(complex));
    }

    pub(super) fn detach_all(&mut self, complex: &dyn CpuComplex) {
        self.0.iter_mut().for_each(|path| path.detach(complex));
    }
}

impl Socket {
    /// Writes to this register may wait until the next access of a vCPU, for as long as the
    /// machine is there.
    pub(crate) fn hold_back(&self, register: IndexRegister) {
        self.add_path(What::HeldBack(register));
    }

    fn add_path(&self, what: What) {
        let complex = self.read();
        let mut path = Path::new(what);
        let mut paths = lock(&self.paths);
        if let Some(complex) = complex.as_deref() {
            path.attach(complex);
        }
        paths.0.push(path);
    }
}

impl Doorbells for Socket {
    fn attach(&self, gpa: u64, event: &Arc<Event>) {
        self.add_path(What::Doorbell { gpa, event: event.clone() });
    }

    fn detach(&self, gpa: u64, event: &Arc<Event>) {
        let complex = self.read();
        let mut paths = lock(&self.paths);
        let found = |path: &Path| match &path.what {
            What::Doorbell { gpa: at, event: of } => *at == gpa && Arc::ptr_eq(of, event),
            What::HeldBack(_) => false,
        };
        if let Some(at) = paths.0.iter().position(found) {
            let mut path = paths.0.swap_remove(at);
            if let Some(complex) = complex.as_deref() {
                path.detach(complex);
            }
        }
    }
}
