use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::{IndexRegister, KernelPaths};
use evloop::Event;
use guest_memory::{Backing, FlatRange, RamOffset};
use virtio::Doorbells;

use super::*;
use crate::event::EventLog;

/// Writes down what it is told.
#[derive(Default)]
struct Fake {
    log: Mutex<Vec<String>>,
    kernel: bool,
    broken: AtomicBool,
}

impl Fake {
    fn new(kernel: bool) -> Arc<Self> {
        Arc::new(Self { kernel, ..Self::default() })
    }

    fn note(&self, what: impl Into<String>) {
        self.log.lock().unwrap().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    fn result(&self) -> Result<(), EngineError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(EngineError::Stuck("broken".into()));
        }
        Ok(())
    }
}

impl CpuComplex for Fake {
    fn set_memory(&self, view: &FlatView) -> Result<(), EngineError> {
        self.note(format!("memory {}", view.iter().count()));
        self.result()
    }
    fn set_dirty_log(&self, on: bool) -> Result<(), EngineError> {
        self.note(format!("dirty {on}"));
        self.result()
    }
    fn harvest_dirty(&self, into: &DirtyBitmap) -> Result<(), EngineError> {
        into.set(3);
        self.result()
    }
    fn send_msi(&self, msi: Msi) {
        self.note(format!("msi {}", msi.data));
    }
    fn set_intr(&self, level: bool) {
        self.note(format!("intr {level}"));
    }
    fn set_ioapic_routes(&self, routes: &IoApicRoutes) -> Result<(), EngineError> {
        self.note(format!("routes {}", routes.entries.len()));
        self.result()
    }
    fn kick(&self, vcpu: VcpuId) {
        self.note(format!("kick {}", vcpu.0));
    }
    fn kernel_paths(&self) -> Option<&dyn KernelPaths> {
        self.kernel.then_some(self)
    }
}

impl KernelPaths for Fake {
    fn hold_back(&self, register: IndexRegister) -> Result<(), EngineError> {
        self.note(format!("+hold back {register:?}"));
        self.result()
    }
    fn release(&self, register: IndexRegister) {
        self.note(format!("-hold back {register:?}"));
    }
    fn attach_doorbell(&self, gpa: u64, _event: BorrowedFd<'_>) -> Result<(), EngineError> {
        self.note(format!("+doorbell {gpa:#x}"));
        self.result()
    }
    fn detach_doorbell(&self, gpa: u64, _event: BorrowedFd<'_>) {
        self.note(format!("-doorbell {gpa:#x}"));
    }
    fn attach_interrupt(&self, _event: BorrowedFd<'_>, msi: Msi) -> Result<(), EngineError> {
        self.note(format!("+interrupt {}", msi.data));
        self.result()
    }
    fn detach_interrupt(&self, _event: BorrowedFd<'_>) {
        self.note("-interrupt");
    }
}

fn msi(data: u32) -> Msi {
    Msi { address: 0xfee0_0000, data }
}

fn event() -> Arc<Event> {
    Arc::new(Event::new().unwrap())
}

#[test]
fn a_complex_is_told_all_that_was_said_before_it_came() {
    let socket = Socket::new(EventLog::new());
    let mut view = FlatView::new();
    let range = FlatRange { gpa: 0, size: 4096, at: RamOffset(0), backing: Backing::Ram };
    view.insert(range).unwrap();
    socket.set_memory(Arc::new(view)).unwrap();
    socket.set_dirty_log(true).unwrap();
    socket.set_line(0, true);
    socket.set_routes(&[None; 24]);
    for data in [5, 6, 5] {
        socket.send_msi(msi(data));
    }
    let first = Fake::new(false);
    socket.plug(first.clone()).unwrap();
    let state = ["memory 1", "dirty true", "routes 24", "intr true"];
    assert_eq!(first.take(), [&state[..], &["msi 5", "msi 6"]].concat());

    let second = Fake::new(false);
    let old = socket.unplug().plug(second.clone()).unwrap().unwrap();
    assert!(Arc::ptr_eq(&old, &(first.clone() as Arc<dyn CpuComplex>)));
    assert_eq!(second.take(), state);
    socket.send_msi(msi(7));
    socket.set_line(0, true);
    socket.set_line(0, false);
    assert_eq!(second.take(), ["msi 7", "intr false"]);
    assert_eq!(first.take(), [""; 0]);
}

#[test]
fn doorbells_follow_the_engine() {
    let socket = Socket::new(EventLog::new());
    let kernel = Fake::new(true);
    let (one, two) = (event(), event());
    socket.attach(0x1000, &one);
    socket.attach(0x1004, &two);
    socket.plug(kernel.clone()).unwrap();
    assert_eq!(kernel.take()[4..], ["+doorbell 0x1000", "+doorbell 0x1004"]);
    let plain = Fake::new(false);
    socket.unplug().plug(plain.clone()).unwrap();
    assert_eq!(kernel.take(), ["-doorbell 0x1000", "-doorbell 0x1004"]);
    socket.detach(0x1000, &one);
    socket.unplug().plug(kernel.clone()).unwrap();
    assert_eq!(kernel.take()[4..], ["+doorbell 0x1004"]);
    socket.detach(0x1004, &one);
    assert_eq!(kernel.take(), [""; 0], "that is another's doorbell");
    socket.detach(0x1004, &two);
    assert_eq!(kernel.take(), ["-doorbell 0x1004"]);
}

#[test]
fn writes_are_held_back_by_each_engine_that_can() {
    let socket = Socket::new(EventLog::new());
    let (one, two) = (Fake::new(true), Fake::new(true));
    socket.plug(one.clone()).unwrap();
    one.take();
    socket.hold_back(IndexRegister::Port(0x70));
    assert_eq!(one.take(), ["+hold back Port(112)"]);
    socket.unplug().plug(two.clone()).unwrap();
    assert_eq!(one.take(), ["-hold back Port(112)"]);
    assert_eq!(two.take()[4..], ["+hold back Port(112)"]);
}

#[test]
fn a_failed_replacement_leaves_the_old_complex_working() {
    let socket = Socket::new(EventLog::new());
    let old = Fake::new(true);
    socket.attach(0x1000, &event());
    socket.plug(old.clone()).unwrap();
    let new = Fake::new(false);
    new.broken.store(true, Ordering::Relaxed);
    assert!(socket.unplug().plug(new.clone()).is_err());
    drop(socket.unplug());
    assert_eq!(old.take().last().unwrap(), "+doorbell 0x1000");
    socket.send_msi(msi(1));
    assert_eq!(old.take(), ["msi 1"]);
}

#[test]
fn senders_wait_while_the_complex_is_replaced_and_lose_nothing() {
    let socket = Socket::new(EventLog::new());
    let (old, new) = (Fake::new(false), Fake::new(false));
    socket.plug(old.clone()).unwrap();
    old.take();
    let unplugged = socket.unplug();
    let sender = {
        let socket = socket.clone();
        std::thread::spawn(move || (0..100).for_each(|data| socket.send_msi(msi(data))))
    };
    unplugged.prepare(&*new).unwrap();
    assert!(!sender.is_finished());
    unplugged.plug(new.clone()).unwrap();
    sender.join().unwrap();
    assert_eq!(old.take(), [""; 0]);
    assert_eq!(new.take().iter().filter(|note| note.starts_with("msi")).count(), 100);
}

#[test]
fn an_engine_that_fails_under_a_device_is_the_owners_business() {
    let owner = EventLog::new();
    let socket = Socket::new(owner.clone());
    let complex = Fake::new(false);
    socket.plug(complex.clone()).unwrap();
    complex.broken.store(true, Ordering::Relaxed);
    socket.set_routes(&[None]);
    assert!(matches!(owner.take()[..], [MachineEvent::Failed(_)]));
}
