//! Commands from a driver's side, to a disk that is a file.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bus::{AddressSpace, Device, MsiSink};
use evloop::{EventLoop, LoopThread};
use guest_memory::{Backing, FlatRange, FlatView, GuestMemory, RamOffset};
use pci::{ConfigPorts, DevFn, PciBus, Spaces};
use storage::RawDisk;
use vm_memory::{Bytes, GuestAddress};
use x86_state::Msi;

use super::*;
use crate::spec::{admin, *};

const RAM: u64 = 16 << 20;
const BAR: u64 = 0xc000_0000;
/// Submission and completion queues by their identifiers, a page each.
const SQS: u64 = 0x1_0000;
const CQS: u64 = 0x2_0000;
const DATA: u64 = 0x10_0000;
const LISTS: u64 = 0x8_0000;
const DISK_SIZE: u64 = 4 << 20;
const ENTRIES: u32 = 64;

#[derive(Default)]
struct Messages(Mutex<u32>);

impl MsiSink for Messages {
    fn send_msi(&self, _msi: Msi) {
        *self.0.lock().unwrap() += 1;
    }
}

struct Rig {
    memory: Arc<GuestMemory>,
    spaces: Spaces,
    nvme: Arc<Nvme>,
    messages: Arc<Messages>,
    path: PathBuf,
    /// Tail of the submission and head of the completion queue, by identifier.
    at: Mutex<[(u32, u32, bool); 3]>,
    _dir: tempfile::TempDir,
    _bus: Arc<PciBus>,
    _thread: Option<LoopThread>,
}

fn rig(on_loop: bool) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    File::create(&path).unwrap().set_len(DISK_SIZE).unwrap();
    let memory = GuestMemory::new(&[("ram", RAM)]).unwrap();
    let mut view = FlatView::new();
    let range = FlatRange { gpa: 0, size: RAM, at: RamOffset(0), backing: Backing::Ram };
    view.insert(range).unwrap();
    memory.set_view(view);
    let spaces = Spaces { memory: AddressSpace::new(), io: AddressSpace::new() };
    let messages = Arc::new(Messages::default());
    let of = on_loop.then(|| EventLoop::new().unwrap());
    let thread = of.as_ref().map(|of| of.spawn("nvme").unwrap());
    let wiring = NvmeWiring {
        memory: memory.clone(),
        spaces: spaces.clone(),
        msi: messages.clone(),
        event_loops: of.into_iter().collect(),
    };
    let disk = Arc::new(RawDisk::open(&path, false).unwrap());
    let nvme = Nvme::new(NvmeConfig { disk, serial: "disk-0".into(), queues: 2 }, &wiring);
    let bus = PciBus::new();
    bus.add(DevFn::new(1, 0), nvme.function().clone()).unwrap();
    spaces.io.map(ConfigPorts::BASE, ConfigPorts::SIZE, ConfigPorts::new(&bus, None)).unwrap();
    let at = Mutex::new([(0, 0, true); 3]);
    let rig =
        Rig { memory, spaces, nvme, messages, path, at, _dir: dir, _bus: bus, _thread: thread };
    rig.config(0x10, BAR as u32);
    rig.config(0x04, 6);
    rig.config(0x40, 1 << 31); // MSI-X is the first capability
    for vector in 0..3u64 {
        rig.write(MSIX_TABLE + 16 * vector, 0xfee0_0000);
        rig.write(MSIX_TABLE + 16 * vector + 12, 0);
    }
    rig
}

impl Rig {
    fn config(&self, register: u32, value: u32) {
        self.spaces.io.write(0xcf8, &(0x8000_0800 | register).to_le_bytes());
        self.spaces.io.write(0xcfc, &value.to_le_bytes());
    }

    fn read(&self, register: u64) -> u32 {
        let mut data = [0; 4];
        self.spaces.memory.read(BAR + register, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, register: u64, value: u32) {
        self.spaces.memory.write(BAR + register, &value.to_le_bytes());
    }

    fn fill(&self, gpa: u64, bytes: &[u8]) {
        self.memory.dma().write_slice(bytes, GuestAddress(gpa)).unwrap();
    }

    fn bytes(&self, gpa: u64, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        self.memory.dma().read_slice(&mut bytes, GuestAddress(gpa)).unwrap();
        bytes
    }

    /// On, with one pair of I/O queues.
    fn start(&self) {
        *self.at.lock().unwrap() = [(0, 0, true); 3];
        self.fill(CQS, &[0; 0x3000]);
        self.write(AQA, (ENTRIES - 1) << 16 | (ENTRIES - 1));
        self.write(ASQ, SQS as u32);
        self.write(ACQ, CQS as u32);
        self.write(CC, 0x0046_0001);
        assert_eq!(self.read(CSTS), CSTS_RDY);
        assert_eq!(
            self.admin(admin::CREATE_CQ, CQS + 0x1000, [(ENTRIES - 1) << 16 | 1, 0x1_0003]),
            0
        );
        assert_eq!(
            self.admin(admin::CREATE_SQ, SQS + 0x1000, [(ENTRIES - 1) << 16 | 1, 0x1_0001]),
            0
        );
    }

    fn put(&self, queue: u64, opcode: u8, cid: u16, prps: (u64, u64), dwords: [u32; 4]) {
        let mut entry = [0; 64];
        entry[0] = opcode;
        entry[2..4].copy_from_slice(&cid.to_le_bytes());
        entry[4] = if queue == 0 { 0 } else { 1 };
        entry[24..32].copy_from_slice(&prps.0.to_le_bytes());
        entry[32..40].copy_from_slice(&prps.1.to_le_bytes());
        for (n, dword) in dwords.iter().enumerate() {
            entry[40 + 4 * n..44 + 4 * n].copy_from_slice(&dword.to_le_bytes());
        }
        let tail = &mut self.at.lock().unwrap()[queue as usize].0;
        self.fill(SQS + queue * 0x1000 + u64::from(*tail) * 64, &entry);
        *tail = (*tail + 1) % ENTRIES;
    }

    fn ring(&self, queue: u64) {
        let tail = self.at.lock().unwrap()[queue as usize].0;
        self.write(DOORBELLS + 8 * queue, tail);
    }

    /// The next completion: identifier and status.
    fn end(&self, queue: u64) -> (u16, Status) {
        let (head, phase) = {
            let at = self.at.lock().unwrap()[queue as usize];
            (at.1, at.2)
        };
        let begin = Instant::now();
        loop {
            let entry = self.bytes(CQS + queue * 0x1000 + u64::from(head) * 16, 16);
            let word = u16::from_le_bytes([entry[14], entry[15]]);
            if (word & 1 == 1) == phase {
                let at = &mut self.at.lock().unwrap()[queue as usize];
                at.1 = (head + 1) % ENTRIES;
                at.2 = phase ^ (at.1 == 0);
                self.write(DOORBELLS + 8 * queue + 4, at.1);
                return (u16::from_le_bytes([entry[12], entry[13]]), word >> 1 & 0x7ff);
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "no completion");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn admin(&self, opcode: u8, prp: u64, [d10, d11]: [u32; 2]) -> Status {
        self.put(0, opcode, 7, (prp, 0), [d10, d11, 0, 0]);
        self.ring(0);
        self.end(0).1
    }

    fn io(&self, opcode: u8, prps: (u64, u64), lba: u32, blocks: u32) -> Status {
        self.put(1, opcode, 9, prps, [lba, 0, blocks.wrapping_sub(1) & 0xffff, 0]);
        self.ring(1);
        self.end(1).1
    }
}

#[test]
fn a_driver_finds_the_namespace_and_reads_what_it_wrote() {
    for on_loop in [false, true] {
        let rig = rig(on_loop);
        rig.start();
        assert_eq!(rig.admin(admin::IDENTIFY, DATA, [1, 0]), 0);
        assert_eq!(rig.bytes(DATA + 4, 6), b"disk-0");
        let data: Vec<u8> = (0..65536u32).map(|at| ((at * 7) >> 3) as u8).collect();
        rig.fill(DATA + 512, &data);
        // 64 KiB from the middle of a page on: a list of 16 pages after the first.
        for page in 0..16u64 {
            rig.fill(LISTS + 8 * page, &(DATA + 4096 * (page + 1)).to_le_bytes());
        }
        assert_eq!(rig.io(nvm::WRITE, (DATA + 512, LISTS), 3, 128), 0);
        assert_eq!(std::fs::read(&rig.path).unwrap()[1536..][..65536], data);
        assert_eq!(rig.io(nvm::FLUSH, (0, 0), 0, 1), 0);
        rig.fill(DATA, &[0; 70000]);
        assert_eq!(rig.io(nvm::READ, (DATA + 512, LISTS), 3, 128), 0);
        assert_eq!(rig.bytes(DATA + 512, 65536), data);
        assert_eq!(rig.io(nvm::WRITE_ZEROES, (0, 0), 3, 1), 0);
        assert_eq!(std::fs::read(&rig.path).unwrap()[1536..2048], [0; 512]);
        assert!(*rig.messages.0.lock().unwrap() >= 5);
    }
}

#[test]
fn many_commands_at_once_end_each_by_its_identifier() {
    let rig = rig(true);
    rig.start();
    for round in 0..4u32 {
        for cid in 0..50u16 {
            let gpa = DATA + u64::from(cid) * 4096;
            rig.fill(gpa, &[cid as u8 + round as u8; 4096]);
            rig.put(1, nvm::WRITE, cid, (gpa, 0), [u32::from(cid) * 8, 0, 7, 0]);
        }
        rig.ring(1);
        let mut ends: Vec<_> = (0..50).map(|_| rig.end(1)).collect();
        ends.sort_unstable();
        assert!(ends.iter().zip(0..50).all(|(end, cid)| *end == (cid, 0)), "{ends:?}");
    }
    let file = std::fs::read(&rig.path).unwrap();
    assert!(file.chunks(4096).take(50).zip(3..).all(|(block, byte)| block == [byte; 4096]));
}

#[test]
fn what_cannot_be_done_has_its_status() {
    let rig = rig(false);
    rig.start();
    let past = (DISK_SIZE / 512) as u32;
    assert_eq!(rig.io(nvm::READ, (DATA, 0), past, 1), LBA_OUT_OF_RANGE);
    assert_eq!(rig.io(nvm::READ, (RAM, 0), 0, 1), DATA_TRANSFER_ERROR);
    assert_eq!(rig.io(nvm::READ, (u64::MAX - 600, 0), 0, 1), DATA_TRANSFER_ERROR);
    assert_eq!(rig.io(nvm::READ, (DATA, DATA + 1), 0, 9), PRP_OFFSET_INVALID);
    assert_eq!(rig.io(nvm::READ, (DATA, 4), 0, 64), PRP_OFFSET_INVALID);
    assert_eq!(rig.io(nvm::READ, (DATA, 0), 0, 2048), INVALID_FIELD);
    assert_eq!(rig.io(0x7f, (DATA, 0), 0, 1), INVALID_OPCODE);
    // A list that begins with the last word of a page and goes on in itself.
    rig.fill(LISTS + 0xff8, &(LISTS + 0xff8).to_le_bytes());
    assert_eq!(rig.io(nvm::READ, (DATA, LISTS + 0xff8), 0, 64), PRP_OFFSET_INVALID);
    assert_eq!(rig.admin(admin::CREATE_SQ, SQS, [(ENTRIES - 1) << 16 | 9, 1]), QUEUE_ID_INVALID);
    assert_eq!(rig.admin(admin::DELETE_CQ, 0, [1, 0]), QUEUE_DELETION_INVALID);
    assert_eq!(rig.admin(admin::DELETE_SQ, 0, [1, 0]), 0);
    assert_eq!(rig.admin(admin::DELETE_CQ, 0, [1, 0]), 0);
    assert_eq!(rig.admin(0xc0, 0, [0, 0]), INVALID_OPCODE);
    // Queues where no RAM is stop the controller, and a reset brings it back.
    rig.write(CC, 0);
    rig.write(ASQ, 0xf000_0000);
    rig.write(CC, 0x0046_0001);
    rig.write(DOORBELLS, 1);
    assert_eq!(rig.read(CSTS) & CSTS_CFS, CSTS_CFS);
    rig.write(CC, 0);
    rig.start();
    assert_eq!(rig.io(nvm::READ, (DATA, 0), 0, 1), 0);
}

#[test]
fn a_saved_controller_goes_on_where_it_was() {
    let rig = rig(true);
    rig.start();
    rig.nvme.pause();
    rig.put(1, nvm::READ, 5, (DATA, 0), [0, 0, 0, 0]);
    rig.ring(1);
    let saved = rig.nvme.save();
    rig.nvme.reset();
    assert_eq!(rig.read(CSTS), 0);
    rig.nvme.restore(&saved).unwrap();
    assert_eq!(rig.nvme.save(), saved);
    rig.nvme.resume();
    assert_eq!(rig.end(1), (5, 0));
}

/// The status register's bit: the device wants an interrupt by its pin.
fn wants_interrupt(rig: &Rig) -> bool {
    rig.spaces.io.write(0xcf8, &0x8000_0804u32.to_le_bytes());
    let mut data = [0; 4];
    rig.spaces.io.read(0xcfc, &mut data);
    u32::from_le_bytes(data) >> 19 & 1 != 0
}

#[test]
fn the_pin_is_driven_while_completions_are_unseen_and_their_vector_unmasked() {
    let rig = rig(false);
    rig.start();
    assert!(!wants_interrupt(&rig));
    rig.put(1, nvm::FLUSH, 9, (0, 0), [0; 4]);
    rig.ring(1);
    assert!(wants_interrupt(&rig));
    rig.write(INTMS, 2); // the queue's vector is 1
    assert_eq!((rig.read(INTMS), rig.read(INTMC)), (2, 2));
    assert!(!wants_interrupt(&rig));
    rig.write(INTMC, 2);
    assert!(wants_interrupt(&rig));
    let (saved, other) = (rig.nvme.save(), self::rig(false));
    other.nvme.restore(&saved).unwrap();
    assert!(wants_interrupt(&other));
    assert_eq!(rig.end(1), (9, 0));
    assert!(!wants_interrupt(&rig));
    other.nvme.reset();
    assert!(!wants_interrupt(&other));
}
