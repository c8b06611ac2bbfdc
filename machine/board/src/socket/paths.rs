//! Doorbells that go through the host's kernel while the plugged engine can.

use std::os::fd::AsFd;
use std::sync::Arc;

use engine::CpuComplex;
use evloop::Event;
use virtio::Doorbells;

use super::{Socket, lock};

/// What is attached, or would be if the engine could.
#[derive(Default)]
pub(super) struct Paths(Vec<Doorbell>);

struct Doorbell {
    gpa: u64,
    event: Arc<Event>,
    attached: bool,
}

impl Doorbell {
    fn attach(&mut self, complex: &dyn CpuComplex) {
        let Some(kernel) = complex.kernel_paths() else { return };
        // Refused: the bus sees the writes, as before.
        self.attached = kernel.attach_doorbell(self.gpa, self.event.as_fd()).is_ok();
    }

    fn detach(&mut self, complex: &dyn CpuComplex) {
        if let Some(kernel) = complex.kernel_paths().filter(|_| self.attached) {
            kernel.detach_doorbell(self.gpa, self.event.as_fd());
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

impl Doorbells for Socket {
    fn attach(&self, gpa: u64, event: &Arc<Event>) {
        let complex = self.read();
        let mut paths = lock(&self.paths);
        let mut path = Doorbell { gpa, event: event.clone(), attached: false };
        if let Some(complex) = complex.as_deref() {
            path.attach(complex);
        }
        paths.0.push(path);
    }

    fn detach(&self, gpa: u64, event: &Arc<Event>) {
        let complex = self.read();
        let mut paths = lock(&self.paths);
        let found = |path: &Doorbell| path.gpa == gpa && Arc::ptr_eq(&path.event, event);
        if let Some(at) = paths.0.iter().position(found) {
            let mut path = paths.0.swap_remove(at);
            if let Some(complex) = complex.as_deref() {
                path.detach(complex);
            }
        }
    }
}
