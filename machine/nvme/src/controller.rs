//! The controller: registers, queues, its place on PCI, and its interrupts.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use bus::{BusDevice, Device, MsiSink, Saved, Section, SectionError};
use evloop::EventLoop;
use guest_memory::{DmaMemory, GuestMemory};
use pci::{
    Bar, BarKind, Function, FunctionDevice, FunctionSpec, Identity, Intx, Msix, MsixPlace, Spaces,
};
use storage::{Disk, Done, Lane};
use vm_memory::{Bytes, GuestAddress};

use crate::admin;
use crate::io::{self, Job};
use crate::spec::*;
use crate::state::{Cq, SavedState, Sq, State};

const BAR: usize = 0;
/// Features with a value that can be read back.
pub(crate) const FEATURES: usize = 0x0c;

/// Fixed configuration of a controller.
#[derive(Clone)]
pub struct NvmeConfig {
    /// The namespace.
    pub disk: Arc<dyn Disk>,
    /// Its serial number; 20 bytes at most are kept.
    pub serial: String,
    /// Pairs of I/O queues: as many as the guest has vCPUs, or fewer; at least one.
    pub queues: u16,
}

/// What connects the controller with the machine.
#[derive(Clone)]
pub struct NvmeWiring {
    /// Guest memory.
    pub memory: Arc<GuestMemory>,
    /// Where the BAR is mapped.
    pub spaces: Spaces,
    /// Where interrupts go.
    pub msi: Arc<dyn MsiSink>,
    /// Loops to wait for the host on; without any, commands are done inside the doorbell.
    pub event_loops: Vec<EventLoop>,
}

/// An NVMe controller on PCI.
pub struct Nvme {
    function: Arc<Function>,
    core: Arc<Core>,
}

struct Core {
    // Fixed configuration.
    config: NvmeConfig,
    // Wiring.
    memory: Arc<GuestMemory>,
    msix: Arc<Msix>,
    intx: Arc<Intx>,
    /// One for each I/O submission queue.
    lanes: OnceLock<Vec<Lane<Box<Job>>>>,
    /// How often queues were to be looked at since somebody began to.
    turns: AtomicU32,
    // State.
    inside: Mutex<Inside>,
    bus_master: AtomicBool,
    paused: AtomicBool,
}

/// What is behind the lock.
pub(crate) struct Inside {
    pub(crate) state: State,
    /// Commands in flight, by submission queue.
    pub(crate) in_flight: Vec<u32>,
    /// Jobs that are not in use.
    #[expect(clippy::vec_box, reason = "jobs go in and out of lanes, and are large")]
    spare: Vec<Box<Job>>,
}

/// What follows from a register write, without the lock.
enum Effect {
    Nothing,
    Run,
    /// The controller is turned off.
    Disable,
    /// What the disk has is to survive.
    Shutdown,
}

impl Nvme {
    /// A controller.
    ///
    /// # Panics
    /// When there are no queues or more than 64: the board's mistake.
    pub fn new(config: NvmeConfig, wiring: &NvmeWiring) -> Arc<Self> {
        assert!((1..=64).contains(&config.queues), "{} pairs of queues", config.queues);
        let vectors = config.queues + 1; // one for the admin queue
        let (msix, intx) = (Msix::new(vectors, wiring.msi.clone()), Intx::new());
        let core = Arc::new(Core {
            inside: Mutex::new(Inside::at_reset(config.queues)),
            config,
            memory: wiring.memory.clone(),
            msix: msix.clone(),
            intx: intx.clone(),
            lanes: OnceLock::new(),
            turns: AtomicU32::new(0),
            bus_master: AtomicBool::new(false),
            paused: AtomicBool::new(false),
        });
        let lane = |n: usize| {
            let weak = Arc::downgrade(&core);
            let of = wiring.event_loops.get(n % wiring.event_loops.len().max(1));
            Lane::new(core.config.disk.clone(), of, move |done| {
                if let Some(core) = Weak::upgrade(&weak) {
                    core.finish(done);
                }
            })
        };
        let lanes = (0..usize::from(core.config.queues)).map(lane).collect();
        assert!(core.lanes.set(lanes).is_ok(), "lanes are made once");
        let spec = FunctionSpec {
            identity: Identity {
                vendor_id: 0x1b36,
                device_id: 0x0010,
                class: 0x01_0802,
                revision: 2,
                subsystem_vendor_id: 0x1af4,
                subsystem_id: 0x1100,
            },
            bars: vec![Bar {
                index: BAR,
                kind: BarKind::Memory64,
                size_bytes: BAR_SIZE,
                device: core.clone(),
            }],
            msix: Some(MsixPlace {
                msix,
                bar: BAR,
                table: MSIX_TABLE as u32,
                pending: MSIX_PENDING as u32,
            }),
            intx: Some(intx),
            ..FunctionSpec::default()
        };
        let function = Function::new(&spec, &wiring.spaces, core.clone());
        Arc::new(Self { function, core })
    }

    /// The function to plug into a bus. It is saved, restored and reset apart from the device.
    pub fn function(&self) -> &Arc<Function> {
        &self.function
    }

    /// Ends service: when it returns, nothing is in flight and guest memory is left alone.
    pub fn pause(&self) {
        self.core.paused.store(true, Ordering::SeqCst);
        drop(self.core.inside());
        self.core.drain();
    }

    /// Begins service again. Also to be called after a restore.
    pub fn resume(&self) {
        self.core.paused.store(false, Ordering::SeqCst);
        self.core.run();
    }
}

impl Inside {
    fn at_reset(queues: u16) -> Self {
        let count = usize::from(queues) + 1;
        let state = State {
            sqs: vec![Sq::default(); count],
            cqs: vec![Cq::default(); count],
            features: vec![0; FEATURES],
            ..State::default()
        };
        let mut inside = Self { state, in_flight: vec![0; count], spare: Vec::new() };
        inside.state.features[6] = 1; // the write cache is on
        inside
    }

    /// Turns the controller on with the admin queues that the registers name (7.6.1).
    fn enable(&mut self) {
        let state = &mut self.state;
        let (sq_entries, cq_entries) = ((state.aqa & 0xfff) + 1, (state.aqa >> 16 & 0xfff) + 1);
        let possible = sq_entries >= 2 && cq_entries >= 2 && state.cc & CC_CHOICES == 0;
        if !possible {
            state.csts |= CSTS_CFS;
            return;
        }
        state.sqs[0] = Sq { base: state.asq, entries: sq_entries, ..Sq::default() };
        state.cqs[0] = Cq {
            base: state.acq,
            entries: cq_entries,
            phase: true,
            vector: Some(0),
            ..Cq::default()
        };
        state.csts |= CSTS_RDY;
    }

    /// The pin is to be driven: a queue that wants interrupts has completions that the driver has
    /// not seen (7.5.1).
    fn wants_interrupt(&self) -> bool {
        let State { cqs, intm, .. } = &self.state;
        let wants = |cq: &Cq| {
            let unmasked = |vector: u16| vector < 32 && intm >> vector & 1 == 0;
            cq.entries > 0 && cq.head != cq.tail && cq.vector.is_some_and(unmasked)
        };
        cqs.iter().any(wants)
    }

    /// There is room for the completion of another command, those in flight counted.
    fn has_room(&self, cq: u16) -> bool {
        let Some(queue) = self.state.cqs.get(usize::from(cq)) else { return false };
        let sqs = self.state.sqs.iter().zip(&self.in_flight);
        let owed: u32 = sqs.filter(|(sq, _)| sq.cq == cq).map(|(_, count)| *count).sum();
        // Event requests stay without a completion, and deletions wait for theirs.
        let used = (queue.tail + queue.entries).wrapping_sub(queue.head) % queue.entries.max(1);
        used + owed + 1 < queue.entries
    }

    /// Takes the next command of a queue.
    fn fetch(&mut self, sq: usize, memory: &DmaMemory) -> Option<[u8; SQE_SIZE as usize]> {
        let queue = self.state.sqs.get(sq)?;
        if queue.head == queue.tail || queue.deleting.is_some() || !self.has_room(queue.cq) {
            return None;
        }
        let at = queue.base.checked_add(u64::from(queue.head) * SQE_SIZE);
        let mut bytes = [0; SQE_SIZE as usize];
        let read = at.map(|at| memory.read_slice(&mut bytes, GuestAddress(at)));
        let queue = self.state.sqs.get_mut(sq)?;
        if !matches!(read, Some(Ok(()))) {
            // A queue where no RAM is: the controller stops (9.5).
            self.state.csts |= CSTS_CFS;
            return None;
        }
        queue.head = (queue.head + 1) % queue.entries;
        Some(bytes)
    }

    /// Tells the driver how a command has ended.
    pub(crate) fn complete(
        &mut self,
        memory: &DmaMemory,
        msix: &Msix,
        (sq, cid): (u16, u16),
        status: Status,
        result: u32,
    ) {
        let Some((cq, head)) = self.state.sqs.get(usize::from(sq)).map(|q| (q.cq, q.head)) else {
            return;
        };
        let Some(queue) = self.state.cqs.get_mut(usize::from(cq)).filter(|q| q.entries > 0) else {
            return;
        };
        let status = if status == SUCCESS { status } else { status | DNR };
        let mut entry = [0; CQE_SIZE as usize];
        entry[..4].copy_from_slice(&result.to_le_bytes());
        entry[8..10].copy_from_slice(&(head as u16).to_le_bytes());
        entry[10..12].copy_from_slice(&sq.to_le_bytes());
        entry[12..14].copy_from_slice(&cid.to_le_bytes());
        entry[14..].copy_from_slice(&(status << 1 | u16::from(queue.phase)).to_le_bytes());
        let at = queue.base.wrapping_add(u64::from(queue.tail) * CQE_SIZE);
        // The phase goes last: until it is right, the driver does not look at the rest.
        let written = memory
            .write_slice(&entry[..12], GuestAddress(at))
            .and_then(|()| memory.write_slice(&entry[12..], GuestAddress(at.wrapping_add(12))));
        if written.is_err() {
            self.state.csts |= CSTS_CFS;
        }
        queue.tail += 1;
        if queue.tail >= queue.entries {
            (queue.tail, queue.phase) = (0, !queue.phase);
        }
        if let Some(vector) = queue.vector {
            msix.notify(vector);
        }
    }

    fn read(&self, offset: u64) -> u32 {
        let state = &self.state;
        let half = |value: u64, at: u64| (value >> (8 * (offset - at))) as u32;
        match offset {
            CAP | 0x04 => half(CAP_VALUE, CAP),
            VS => VS_VALUE,
            INTMS | INTMC => state.intm,
            CC => state.cc,
            CSTS => state.csts,
            AQA => state.aqa,
            ASQ | 0x2c => half(state.asq, ASQ),
            ACQ | 0x34 => half(state.acq, ACQ),
            _ => 0,
        }
    }

    fn write(&mut self, offset: u64, value: u32) -> Effect {
        let state = &mut self.state;
        let low = |old: u64| old & !0xffff_ffff | u64::from(value & !0xfff);
        let high = |old: u64| old & 0xffff_ffff | u64::from(value) << 32;
        match offset {
            INTMS => state.intm |= value,
            INTMC => state.intm &= !value,
            CC => return self.write_cc(value),
            AQA => state.aqa = value & 0x0fff_0fff,
            ASQ => state.asq = low(state.asq),
            0x2c => state.asq = high(state.asq),
            ACQ => state.acq = low(state.acq),
            0x34 => state.acq = high(state.acq),
            DOORBELLS.. => return self.doorbell((offset - DOORBELLS) / 4, value),
            _ => {}
        }
        Effect::Nothing
    }

    fn write_cc(&mut self, value: u32) -> Effect {
        let was = self.state.cc;
        self.state.cc = value & CC_WRITABLE;
        let (on, was_on) = (value & CC_EN != 0, was & CC_EN != 0);
        if was_on && !on {
            return Effect::Disable;
        }
        if on && !was_on {
            self.enable();
        }
        if value & CC_SHN != 0 && was & CC_SHN == 0 {
            return Effect::Shutdown;
        }
        if value & CC_SHN == 0 {
            self.state.csts &= !(3 << 2);
        }
        Effect::Nothing
    }

    /// Values that are no index of the queue are the driver's mistake, and are forgotten.
    fn doorbell(&mut self, index: u64, value: u32) -> Effect {
        let queue = (index / 2) as usize;
        let value = value & 0xffff;
        if index.is_multiple_of(2) {
            if let Some(sq) = self.state.sqs.get_mut(queue).filter(|q| value < q.entries) {
                sq.tail = value;
            }
        } else if let Some(cq) = self.state.cqs.get_mut(queue).filter(|q| value < q.entries) {
            cq.head = value;
        }
        Effect::Run
    }
}

impl Core {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lanes(&self) -> &[Lane<Box<Job>>] {
        self.lanes.get().map_or(&[], |lanes| lanes)
    }

    fn drain(&self) {
        self.lanes().iter().for_each(Lane::drain);
    }

    fn drive_pin(&self) {
        self.intx.update(|| self.inside().wants_interrupt());
    }

    /// Has all queues looked at. Commands may end meanwhile and make room for others: whoever began
    /// to look goes on, so that nobody calls himself.
    fn run(&self) {
        if self.turns.fetch_add(1, Ordering::SeqCst) != 0 {
            return;
        }
        let mut seen = 1;
        loop {
            self.turn();
            match self.turns.compare_exchange(seen, 0, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    fn may_run(&self, inside: &Inside) -> bool {
        inside.state.csts & (CSTS_RDY | CSTS_CFS) == CSTS_RDY
            && inside.state.cc & CC_EN != 0
            && self.bus_master.load(Ordering::SeqCst)
            && !self.paused.load(Ordering::SeqCst)
    }

    fn turn(&self) {
        let memory = self.memory.dma();
        let mut guard = self.inside();
        let inside = &mut *guard;
        for sq in 0..inside.state.sqs.len() {
            while self.may_run(inside) {
                let Some(entry) = inside.fetch(sq, &memory) else { break };
                let command = Command { entry: &entry, sq: sq as u16 };
                if sq == 0 {
                    let config = &self.config;
                    if let Some((status, result)) =
                        admin::perform(&command, inside, &memory, config)
                    {
                        let of = (0, command.cid());
                        inside.complete(&memory, &self.msix, of, status, result);
                    }
                    continue;
                }
                let mut job = inside.spare.pop().unwrap_or_default();
                match io::prepare(&command, &mut job, &memory, &*self.config.disk) {
                    Ok(()) => {
                        inside.in_flight[sq] += 1;
                        self.lanes()[sq - 1].push(job);
                    }
                    Err(status) => {
                        job.release();
                        inside.spare.push(job);
                        let of = (command.sq, command.cid());
                        inside.complete(&memory, &self.msix, of, status, 0);
                    }
                }
            }
        }
        drop(guard);
        self.drive_pin();
        self.lanes().iter().for_each(Lane::submit);
    }

    fn finish(&self, done: &mut Done<Box<Job>>) {
        let memory = self.memory.dma();
        let mut inside = self.inside();
        for (mut job, result) in done.drain(..) {
            job.release();
            let (sq, cid) = job.of();
            let index = usize::from(sq);
            inside.in_flight[index] = inside.in_flight[index].saturating_sub(1);
            let status = result.map_or_else(|error| job.status_of(&error), |()| SUCCESS);
            inside.spare.push(job);
            inside.complete(&memory, &self.msix, (sq, cid), status, 0);
            if let (0, Some(by)) = (inside.in_flight[index], inside.state.sqs[index].deleting) {
                inside.state.sqs[index] = Sq::default();
                inside.complete(&memory, &self.msix, (0, by), SUCCESS, 0);
            }
        }
        drop(inside);
        self.drive_pin();
        self.run();
    }

    /// Off: what was asked for is over when this returns.
    fn disable(&self) {
        self.inside().state.csts &= !CSTS_RDY;
        self.drain();
        let mut inside = self.inside();
        let fresh = Inside::at_reset(self.config.queues);
        let State { cc, aqa, asq, acq, .. } = inside.state;
        inside.state = State { cc, aqa, asq, acq, ..fresh.state };
        inside.in_flight = fresh.in_flight;
    }

    fn follow(&self, effect: Effect) {
        match effect {
            Effect::Nothing => {}
            Effect::Run => self.run(),
            Effect::Disable => self.disable(),
            Effect::Shutdown => {
                self.drain();
                // A disk that cannot is told by the next flush of whoever uses it.
                let _ = self.config.disk.flush();
                self.inside().state.csts |= CSTS_SHST_DONE;
            }
        }
    }
}

/// A command as it came.
pub(crate) struct Command<'a> {
    pub(crate) entry: &'a [u8; SQE_SIZE as usize],
    pub(crate) sq: u16,
}

impl Command<'_> {
    /// A dword.
    pub(crate) fn dword(&self, n: usize) -> u32 {
        let e = &self.entry[4 * n..];
        u32::from_le_bytes([e[0], e[1], e[2], e[3]])
    }

    /// Two dwords.
    pub(crate) fn qword(&self, n: usize) -> u64 {
        u64::from(self.dword(n)) | u64::from(self.dword(n + 1)) << 32
    }

    pub(crate) fn opcode(&self) -> u8 {
        self.entry[0]
    }

    pub(crate) fn cid(&self) -> u16 {
        u16::from_le_bytes([self.entry[2], self.entry[3]])
    }

    pub(crate) fn namespace(&self) -> u32 {
        self.dword(1)
    }

    /// Fused commands and scatter-gather lists are not there.
    pub(crate) fn is_plain(&self) -> bool {
        self.entry[1] & 0xc3 == 0
    }

    /// Both PRP entries.
    pub(crate) fn prps(&self) -> (u64, u64) {
        (self.qword(6), self.qword(8))
    }
}

impl BusDevice for Core {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match offset {
            MSIX_TABLE..MSIX_PENDING => self.msix.read_table(offset - MSIX_TABLE, data),
            MSIX_PENDING.. => self.msix.read_pending(offset - MSIX_PENDING, data),
            _ => {
                let inside = self.inside();
                for (n, byte) in (0u64..).zip(data) {
                    let at = offset + n;
                    *byte = inside.read(at & !3).to_le_bytes()[(at & 3) as usize];
                }
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if (MSIX_TABLE..MSIX_PENDING).contains(&offset) {
            return self.msix.write_table(offset - MSIX_TABLE, data);
        }
        if !offset.is_multiple_of(4) {
            return;
        }
        for (n, word) in (0u64..).zip(data.as_chunks::<4>().0) {
            let effect = self.inside().write(offset + 4 * n, u32::from_le_bytes(*word));
            self.follow(effect);
            self.drive_pin();
        }
    }
}

impl FunctionDevice for Core {
    fn bus_master_set(&self, on: bool) {
        self.bus_master.store(on, Ordering::SeqCst);
        if on {
            self.run();
        }
    }
}

impl Device for Nvme {
    fn reset(&self) {
        self.core.inside().state.csts = 0;
        self.core.drain();
        let spare = std::mem::take(&mut self.core.inside().spare);
        *self.core.inside() = Inside { spare, ..Inside::at_reset(self.core.config.queues) };
        self.core.drive_pin();
    }

    fn save(&self) -> Section {
        Section::encode(&SavedState::from(&self.core.inside().state))
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        let state: State = section.decode::<SavedState>()?.try_into()?;
        let count = usize::from(self.core.config.queues) + 1;
        let sqs = state.sqs.iter().map(|q| (q.entries, q.head, q.tail));
        let cqs = state.cqs.iter().map(|q| (q.entries, q.head, q.tail));
        let inside = |(entries, head, tail): (u32, u32, u32)| {
            entries <= 4096
                && head <= entries.saturating_sub(1)
                && tail <= entries.saturating_sub(1)
        };
        let possible = state.sqs.len() == count
            && state.cqs.len() == count
            && state.features.len() == FEATURES
            && state.events.len() <= EVENTS_MAX
            && sqs.chain(cqs).all(inside)
            && state.sqs.iter().all(|sq| usize::from(sq.cq) < count);
        if !possible {
            let reason = "its queues are those of another controller".to_owned();
            return Err(SectionError::Impossible { kind: SavedState::KIND, reason });
        }
        let mut inside = self.core.inside();
        inside.state = state;
        inside.in_flight = vec![0; count];
        drop(inside);
        self.core.drive_pin();
        Ok(())
    }
}
