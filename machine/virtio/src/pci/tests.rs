//! The transport, with a device that only counts.

use std::sync::atomic::{AtomicBool, AtomicU64};

use bus::Device;
use evloop::EventLoop;
use minicbor::{Decode, Encode};
use statecodec::Saved;

use super::*;
use crate::spec::features;
use crate::testing::*;
use crate::{Chain, DeviceType, Handle, Outcome};

/// Gives every request back, or makes them wait.
#[derive(Default)]
struct Counter {
    handled: AtomicU64,
    waiting: AtomicBool,
    started: AtomicU64,
    handle: std::sync::OnceLock<Handle>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct CounterState {
    #[n(0)]
    handled: u64,
}

impl Saved for CounterState {
    const KIND: &'static str = "test-counter";
    const VERSION: u16 = 1;
}

const OWN_FEATURE: u64 = 1 << 3;

impl VirtioDevice for Counter {
    fn device_type(&self) -> DeviceType {
        DeviceType::Net
    }
    fn features(&self) -> u64 {
        OWN_FEATURE
    }
    fn queue_sizes(&self) -> &[u16] {
        &[64, 128]
    }
    fn config_read(&self, offset: u64, data: &mut [u8]) {
        data.fill(offset as u8);
    }
    fn attach(&self, handle: Handle) {
        assert!(self.handle.set(handle).is_ok());
    }
    fn start(&self, features: u64) {
        self.started.store(features, Ordering::Relaxed);
    }
    fn handle(&self, _queue: usize, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        if self.waiting.load(Ordering::Relaxed) {
            return Ok(Outcome::Wait);
        }
        self.handled.fetch_add(1, Ordering::Relaxed);
        Ok(Outcome::Done(chain.writable.size() as u32))
    }
    fn reset(&self) {
        self.handled.store(0, Ordering::Relaxed);
    }
    fn save(&self) -> Section {
        Section::encode(&CounterState { handled: self.handled.load(Ordering::Relaxed) })
    }
    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        self.handled.store(section.decode::<CounterState>()?.handled, Ordering::Relaxed);
        Ok(())
    }
}

fn machine() -> (Machine, Arc<Counter>) {
    let counter = Arc::new(Counter::default());
    (Machine::new(counter.clone()), counter)
}

fn handled(counter: &Counter) -> u64 {
    counter.handled.load(Ordering::Relaxed)
}

const PLAIN: u64 = !features::EVENT_IDX;
const BUFFER: Desc = Desc { gpa: BUFFERS, size: 64, flags: WRITE, next: 0 };

#[test]
fn the_function_is_a_modern_virtio_device() {
    let (m, _) = machine();
    assert_eq!(m.pci_read(0), 0x1041_1af4);
    assert_eq!(m.pci_read(8), 0x0200_0001);
    m.pci_write(0x10, u32::MAX);
    assert_eq!(m.pci_read(0x10), 0xffff_8004);
}

#[test]
fn features_are_agreed_on_only_when_offered_and_modern() {
    let (m, counter) = machine();
    assert_eq!(m.offered(), features::TRANSPORT | OWN_FEATURE);
    for bad in [OWN_FEATURE, features::VERSION_1 | 1, features::VERSION_1 | 1 << 33] {
        m.set_common(0x14, 1, 0);
        m.set_common(0x14, 1, 3);
        m.accept(bad);
        m.set_common(0x14, 1, 0xb);
        assert_eq!(m.status(), 3, "{bad:#x}");
        m.set_common(0x14, 1, 0xf);
        assert_eq!(m.status(), 3, "no start without features");
    }
    m.negotiate(OWN_FEATURE);
    m.accept(0);
    m.set_common(0x14, 1, 0xf);
    assert_eq!(counter.started.load(Ordering::Relaxed), OWN_FEATURE | features::VERSION_1);
    m.set_common(0x14, 1, 1);
    assert_eq!(m.status(), 15, "bits are not taken back");
}

#[test]
fn registers_of_each_width_and_no_others() {
    let (m, _) = machine();
    assert_eq!(m.common(0x12, 2), 2);
    assert_eq!(m.common(0x18, 2), 64);
    m.set_common(0x18, 2, 48); // no power of two
    m.set_common(0x18, 2, 128); // too large
    m.set_common(0x18, 1, 32); // too narrow
    assert_eq!(m.common(0x18, 2), 64);
    m.set_common(0x16, 2, 1);
    assert_eq!((m.common(0x18, 2), m.common(0x1e, 2)), (128, 1));
    m.set_common(0x16, 2, 2);
    assert_eq!((m.common(0x18, 2), m.common(0x1a, 2)), (0, 0xffff));
    m.set_common(0x18, 2, 16);
    m.set_common(0x1a, 2, 1);
    m.set_common(0x10, 2, 3);
    assert_eq!(m.common(0x10, 2), 0xffff, "three vectors: 0, 1, 2");
    m.set_common(0x16, 2, 0);
    m.set_common(0x20, 8, 0x1_2345_6780);
    m.set_common(0x24, 4, 7);
    assert_eq!((m.common(0x20, 8), m.common(0x24, 4)), (0x7_2345_6780, 7));
    assert_eq!(m.common(0x3c, 4), 0xffff_ffff);
    assert_eq!(m.read(m.config + 5, 2), 0x0505);
}

#[test]
fn requests_are_served_and_interrupt_their_queue() {
    let (m, counter) = machine();
    let mut queues = m.start(PLAIN);
    queues[1].add(&m, &[BUFFER]);
    queues[1].add(&m, &[BUFFER, BUFFER]);
    queues[1].ring(&m);
    assert_eq!(queues[1].used(&m), [(0, 64), (1, 128)]);
    assert_eq!(m.messages.take(), [0x42], "one interrupt for the batch");
    assert_eq!(m.read(m.isr, 1), 1);
    assert_eq!(m.read(m.isr, 1), 0, "reading clears");
    // VIRTQ_AVAIL_F_NO_INTERRUPT
    m.fill(queues[1].base + 0x1000, &1u16.to_le_bytes());
    queues[1].add(&m, &[BUFFER]);
    queues[1].ring(&m);
    assert_eq!((m.messages.take(), handled(&counter)), (vec![], 3));
    assert_eq!(m.device.interrupts(), 1);
}

#[test]
fn nothing_is_served_before_the_driver_is_ready() {
    let (m, counter) = machine();
    m.negotiate(PLAIN);
    let mut q = m.enable(0, RING_SIZE);
    q.add(&m, &[BUFFER]);
    q.ring(&m);
    assert_eq!(handled(&counter), 0);
    m.set_common(0x14, 1, 15);
    assert_eq!(handled(&counter), 1, "what was there is served at the start");
    m.pci_write(4, 2);
    q.add(&m, &[BUFFER]);
    q.ring(&m);
    assert_eq!(handled(&counter), 1, "no access to memory without bus mastering");
    m.pci_write(4, 6);
    assert_eq!(handled(&counter), 2);
}

#[test]
fn event_index_suppresses_interrupts_and_doorbells() {
    let (m, _) = machine();
    let mut q = m.start(!0).remove(0);
    // The driver wants to know of the third completion.
    q.want_interrupt_at(&m, 2);
    for expected in [0, 0, 1, 0] {
        q.add(&m, &[BUFFER]);
        q.ring(&m);
        assert_eq!(m.messages.take().len(), expected);
        let avail_event = m.u16_at(q.base + 0x2004 + 8 * u64::from(q.size));
        assert_eq!(avail_event, q.avail, "the device wants the next doorbell");
    }
}

#[test]
fn without_event_index_a_waiting_queue_wants_no_doorbell() {
    let (m, counter) = machine();
    let mut q = m.start(PLAIN).remove(0);
    counter.waiting.store(true, Ordering::Relaxed);
    q.add(&m, &[BUFFER]);
    q.ring(&m);
    assert_eq!(m.u16_at(q.base + 0x2000), 1);
    counter.waiting.store(false, Ordering::Relaxed);
    counter.handle.get().unwrap().kick(0);
    assert_eq!(q.used(&m), [(0, 64)]);
    assert_eq!(m.u16_at(q.base + 0x2000), 0);
}

#[test]
fn more_requests_than_the_ring_has_slots_go_round() {
    let (m, counter) = machine();
    let mut q = m.start(!0).remove(0);
    for _ in 0..70_000u32 / 8 {
        for _ in 0..8 {
            q.add(&m, &[BUFFER]);
        }
        q.ring(&m);
    }
    assert_eq!(handled(&counter), 70_000);
    assert!(!m.needs_reset());
}

#[test]
fn a_reset_forgets_everything() {
    let (m, counter) = machine();
    let fresh = m.device.save();
    let mut q = m.start(!0).remove(0);
    q.add(&m, &[BUFFER]);
    q.ring(&m);
    assert_ne!(m.device.save(), fresh);
    m.set_common(0x14, 1, 0);
    assert_eq!(m.status(), 0);
    assert_eq!(m.device.save(), fresh);
    q.add(&m, &[BUFFER]);
    q.ring(&m);
    assert_eq!(handled(&counter), 0);
    m.start(!0);
    m.device.reset();
    assert_eq!(m.device.save(), fresh);
}

#[test]
fn one_queue_can_be_reset_while_the_others_go_on() {
    let (m, counter) = machine();
    let mut queues = m.start(PLAIN);
    queues[0].add(&m, &[BUFFER]);
    queues[0].ring(&m);
    m.set_common(0x16, 2, 0);
    m.set_common(0x3a, 2, 1);
    assert_eq!((m.common(0x3a, 2), m.common(0x1c, 2), m.common(0x18, 2)), (0, 0, 64));
    queues[0].add(&m, &[BUFFER]);
    queues[0].ring(&m);
    queues[1].add(&m, &[BUFFER]);
    queues[1].ring(&m);
    assert_eq!(handled(&counter), 2);
    let mut again = m.enable(0, 8);
    again.add(&m, &[BUFFER]);
    again.ring(&m);
    assert_eq!(again.used(&m), [(0, 64)]);
}

#[test]
fn an_enabled_queue_does_not_move() {
    let (m, _) = machine();
    m.start(PLAIN);
    m.set_common(0x16, 2, 0);
    m.set_common(0x20, 8, 0);
    m.set_common(0x18, 2, 8);
    assert_eq!((m.common(0x20, 8), m.common(0x18, 2)), (RINGS, u64::from(RING_SIZE)));
}

#[test]
fn queues_that_are_not_in_ram_or_misaligned_break_the_device() {
    for (register, address) in [
        (0x20, RAM_SIZE - 64),
        (0x28, RAM_SIZE - 2),
        (0x30, !3),
        (0x20, RINGS + 8),
        (0x28, RINGS + 1),
        (0x30, RINGS + 2),
        (0x28, RAM_SIZE),
    ] {
        let (m, _) = machine();
        m.negotiate(!0);
        m.set_common(0x18, 2, 16);
        for at in [0x20, 0x28, 0x30] {
            m.set_common(at, 8, RINGS);
        }
        m.set_common(register, 8, address);
        m.set_common(0x1c, 2, 1);
        assert!(m.needs_reset(), "{register:#x} at {address:#x}");
        assert_eq!(m.common(0x1c, 2), 0);
        m.set_common(0x14, 1, 0);
        assert!(!m.needs_reset());
    }
}

#[test]
fn the_window_in_configuration_space_reaches_the_bar() {
    let (m, counter) = machine();
    let through = |offset: u32, length: u32| {
        m.pci_write(m.window + 4, 0);
        m.pci_write(m.window + 8, offset);
        m.pci_write(m.window + 12, length);
    };
    through(0x12, 2);
    assert_eq!(m.pci_read(m.window + 16) & 0xffff, 2);
    through(0x14, 1);
    m.pci_write(m.window + 16, 3);
    assert_eq!(m.status(), 3);
    let mut q = m.start(PLAIN).remove(0);
    q.add(&m, &[BUFFER]);
    through(0x3000, 2);
    m.pci_write(m.window + 16, 0);
    assert_eq!(handled(&counter), 1);
    // Outside, misaligned, and odd lengths do nothing.
    for (offset, length) in [(0x8000, 4), (u32::MAX, 4), (2, 4), (0, 3), (0, 0), (0x7ffe, 4)] {
        through(offset, length);
        m.pci_write(m.window + 16, 0);
        m.pci_read(m.window + 16);
    }
    m.pci_write(m.window + 4, 1); // another BAR_BASE
    assert_eq!(m.status(), 15);
}

#[test]
fn a_changed_configuration_has_a_new_generation() {
    let (m, counter) = machine();
    m.start(PLAIN);
    let before = m.common(0x15, 1);
    counter.handle.get().unwrap().config_changed();
    assert_eq!(m.common(0x15, 1), before + 1);
    assert_eq!(m.messages.take(), [0x40]);
    assert_eq!(m.read(m.isr, 1), 2);
}

/// Remembers what was attached.
#[derive(Default)]
struct Attached(Mutex<Vec<(u64, Arc<Event>)>>);

impl Doorbells for Attached {
    fn attach(&self, gpa: u64, event: &Arc<Event>) {
        lock(&self.0).push((gpa, event.clone()));
    }
    fn detach(&self, gpa: u64, event: &Arc<Event>) {
        let mut attached = lock(&self.0);
        let at = attached.iter().position(|(a, e)| *a == gpa && Arc::ptr_eq(e, event)).unwrap();
        attached.remove(at);
    }
}

#[test]
fn doorbells_are_offered_while_the_driver_is_ready_and_follow_the_bar() {
    let counter = Arc::new(Counter::default());
    let events = EventLoop::new().unwrap();
    let doorbells = Arc::new(Attached::default());
    let dispatch = Dispatch::Loops(vec![events.clone()]);
    let m = Machine::with(counter.clone(), dispatch, doorbells.clone());
    let at = || lock(&doorbells.0).iter().map(|(gpa, _)| *gpa).collect::<Vec<_>>();
    assert!(at().is_empty());
    let mut q = m.start(PLAIN).remove(0);
    assert_eq!(at(), [BAR_BASE + 0x3000, BAR_BASE + 0x3004]);
    m.pci_write(0x14, 1);
    assert_eq!(at(), [(1 << 32) + BAR_BASE + 0x3000, (1 << 32) + BAR_BASE + 0x3004]);
    // The kernel's way round the bus.
    q.add(&m, &[BUFFER]);
    lock(&doorbells.0)[0].1.signal();
    let thread = events.spawn("test").unwrap();
    let begin = std::time::Instant::now();
    while q.used(&m).is_empty() {
        assert!(begin.elapsed().as_secs() < 60);
    }
    drop(thread);
    m.pci_write(0x14, 0);
    m.set_common(0x14, 1, 0);
    assert!(at().is_empty());
}

#[test]
fn saved_transport_state_comes_back() {
    let (m, _) = machine();
    let mut q = m.start(!0).remove(0);
    q.want_interrupt_at(&m, 100);
    for _ in 0..20 {
        q.add(&m, &[BUFFER]);
        q.ring(&m);
    }
    m.set_common(0x16, 2, 1);
    let saved = m.device.save();
    let (new, counter) = machine();
    new.device.restore(&saved).unwrap();
    assert_eq!(new.device.save(), saved);
    assert_eq!((new.status(), handled(&counter)), (15, 20));
    // Its rings are in memory that was not copied: empty, and its own again after one turn.
    new.fill(q.base + 0x1002, &20u16.to_le_bytes());
    q.add(&new, &[BUFFER]);
    q.ring(&new);
    assert_eq!(handled(&counter), 21);
}

#[test]
fn impossible_state_is_refused_and_changes_nothing() {
    let (m, _) = machine();
    m.start(!0);
    let good = m.device.save();
    let (new, _) = machine();
    let before = new.device.save();
    for flip in 0..good.bytes.len() {
        for bits in [0xff, 1, 0x80] {
            let mut bad = good.clone();
            bad.bytes[flip] ^= bits;
            match new.device.restore(&bad) {
                Ok(()) => new.device.restore(&before).unwrap(),
                Err(_) => assert_eq!(new.device.save(), before, "byte {flip}"),
            }
        }
    }
}

#[test]
fn a_machine_that_is_dropped_is_gone() {
    let (m, counter) = machine();
    m.start(PLAIN);
    drop(m);
    assert_eq!(Arc::strong_count(&counter), 1);
}

#[test]
fn the_pin_is_driven_until_the_isr_is_read() {
    let (m, _) = machine();
    let wants_interrupt = || {
        let mut data = [0; 2];
        m.device.function().config_read(6, &mut data);
        data[0] & 8 != 0
    };
    let mut queues = m.start(PLAIN);
    assert!(!wants_interrupt());
    queues[1].add(&m, &[BUFFER]);
    queues[1].ring(&m);
    assert!(wants_interrupt());
    assert_eq!((m.read(m.isr, 1), wants_interrupt()), (1, false));
    queues[1].add(&m, &[BUFFER]);
    queues[1].ring(&m);
    m.device.reset();
    assert!(!wants_interrupt());
}
