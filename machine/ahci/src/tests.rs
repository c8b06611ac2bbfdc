//! Commands from a driver's side, to drives that are files.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bus::{AddressSpace, Device, MsiSink};
use evloop::{EventLoop, LoopThread};
use guest_memory::{Backing, FlatRange, FlatView, GuestMemory, RamOffset};
use pci::{ConfigPorts, DevFn, PciBus, Spaces};
use storage::{DiskOptions, RawDisk};
use vm_memory::{Bytes, GuestAddress};
use x86_state::Msi;

use super::*;
use crate::spec::*;

const RAM: u64 = 16 << 20;
const ABAR: u64 = 0xc000_0000;
const LIST: u64 = 0x1_0000;
const FRAMES: u64 = 0x2_0000;
const TABLES: u64 = 0x3_0000;
const DATA: u64 = 0x10_0000;
const DISK_SIZE: u64 = 4 << 20;

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
    ahci: Arc<Ahci>,
    messages: Arc<Messages>,
    path: PathBuf,
    _dir: tempfile::TempDir,
    _bus: Arc<PciBus>,
    _thread: Option<LoopThread>,
}

/// Port 0 is a disk, port 1 a drive with a disc, port 2 an empty drive.
fn rig(on_loop: bool) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    File::create(&path).unwrap().set_len(DISK_SIZE).unwrap();
    let iso = dir.path().join("disc");
    let blocks: Vec<u8> = (0..64u32 * 2048).map(|at| (at / 2048) as u8).collect();
    std::fs::write(&iso, blocks).unwrap();
    let disc = DiskOptions { read_only: true, ..DiskOptions::new(iso) }.open().unwrap();
    let memory = GuestMemory::new(&[("ram", RAM)]).unwrap();
    let mut view = FlatView::new();
    let range = FlatRange { gpa: 0, size: RAM, at: RamOffset(0), backing: Backing::Ram };
    view.insert(range).unwrap();
    memory.set_view(view);
    let spaces = Spaces { memory: AddressSpace::new(), io: AddressSpace::new() };
    let messages = Arc::new(Messages::default());
    let of = on_loop.then(|| EventLoop::new().unwrap());
    let thread = of.as_ref().map(|of| of.spawn("ahci").unwrap());
    let wiring = AhciWiring {
        memory: memory.clone(),
        spaces: spaces.clone(),
        msi: messages.clone(),
        event_loop: of,
    };
    let serial = || "disk-0".to_owned();
    let drives = vec![
        Drive::Disk { disk: Arc::new(RawDisk::open(&path, false).unwrap()), serial: serial() },
        Drive::Cdrom { disk: Some(disc), serial: serial() },
        Drive::Cdrom { disk: None, serial: serial() },
    ];
    let ahci = Ahci::new(drives, &wiring);
    let bus = PciBus::new();
    bus.add(DevFn::new(1, 0), ahci.function().clone()).unwrap();
    spaces.io.map(ConfigPorts::BASE, ConfigPorts::SIZE, ConfigPorts::new(&bus, None)).unwrap();
    let rig = Rig { memory, spaces, ahci, messages, path, _dir: dir, _bus: bus, _thread: thread };
    rig.config(0x24, ABAR as u32);
    rig.config(0x04, 6);
    let msi = rig.config_read(0x34) as u8;
    rig.config(msi.into(), 1 << 16);
    rig.write(GHC, GHC_AE | GHC_IE);
    rig
}

struct Cmd<'a> {
    port: u64,
    slot: u32,
    frame: [u8; 16],
    packet: [u8; 16],
    data: &'a [(u64, u32)],
}

fn h2d(command: u8, lba: u64, count: u16) -> [u8; 16] {
    let l = lba.to_le_bytes();
    let [c0, c1] = count.to_le_bytes();
    [FIS_H2D, FIS_COMMAND, command, 0, l[0], l[1], l[2], 0x40, l[3], l[4], l[5], 0, c0, c1, 0, 0]
}

/// A queued command has its count in the features.
fn queued(command: u8, lba: u64, count: u8, tag: u8) -> [u8; 16] {
    let mut frame = h2d(command, lba, 0);
    (frame[3], frame[12]) = (count, tag << 3);
    frame
}

impl Rig {
    fn config(&self, register: u32, value: u32) {
        self.spaces.io.write(0xcf8, &(0x8000_0800 | register).to_le_bytes());
        self.spaces.io.write(0xcfc, &value.to_le_bytes());
    }

    fn config_read(&self, register: u32) -> u32 {
        self.spaces.io.write(0xcf8, &(0x8000_0800 | register).to_le_bytes());
        let mut data = [0; 4];
        self.spaces.io.read(0xcfc, &mut data);
        u32::from_le_bytes(data)
    }

    fn read(&self, register: u64) -> u32 {
        let mut data = [0; 4];
        self.spaces.memory.read(ABAR + register, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, register: u64, value: u32) {
        self.spaces.memory.write(ABAR + register, &value.to_le_bytes());
    }

    fn port(&self, port: u64, register: u64) -> u32 {
        self.read(PORTS + port * PORT_SIZE + register)
    }

    fn set(&self, port: u64, register: u64, value: u32) {
        self.write(PORTS + port * PORT_SIZE + register, value);
    }

    fn fill(&self, gpa: u64, bytes: &[u8]) {
        self.memory.dma().write_slice(bytes, GuestAddress(gpa)).unwrap();
    }

    fn bytes(&self, gpa: u64, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        self.memory.dma().read_slice(&mut bytes, GuestAddress(gpa)).unwrap();
        bytes
    }

    fn start(&self, port: u64) {
        self.set(port, PXCLB, LIST as u32 + port as u32 * 0x1000);
        self.set(port, PXFB, FRAMES as u32 + port as u32 * 0x1000);
        self.set(port, PXIE, IE_WRITABLE);
        self.set(port, PXCMD, CMD_FRE);
        self.set(port, PXCMD, CMD_FRE | CMD_ST);
    }

    fn put(&self, cmd: &Cmd<'_>) {
        let table = TABLES + (cmd.port * 32 + u64::from(cmd.slot)) * 0x400;
        let mut header = [0; 32];
        header[0] = 5;
        header[2..4].copy_from_slice(&(cmd.data.len() as u16).to_le_bytes());
        header[8..16].copy_from_slice(&table.to_le_bytes());
        self.fill(LIST + cmd.port * 0x1000 + u64::from(cmd.slot) * 32, &header);
        self.fill(table, &cmd.frame);
        self.fill(table + TABLE_ACMD, &cmd.packet);
        for (n, (gpa, size)) in (0u64..).zip(cmd.data) {
            let entry = [gpa.to_le_bytes(), (u64::from(size - 1) << 32).to_le_bytes()].concat();
            self.fill(table + TABLE_PRDT + 16 * n, &entry);
        }
    }

    fn wait(&self, what: &str, done: impl Fn() -> bool) {
        let begin = Instant::now();
        while !done() {
            assert!(begin.elapsed() < Duration::from_secs(60), "{what} does not come");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// One command, and the status it ends with.
    fn command(&self, port: u64, frame: [u8; 16], data: &[(u64, u32)]) -> u8 {
        self.put(&Cmd { port, slot: 3, frame, packet: [0; 16], data });
        self.issue(port)
    }

    fn issue(&self, port: u64) -> u8 {
        self.set(port, PXIS, !0);
        self.set(port, PXCI, 1 << 3);
        self.wait("an end", || self.port(port, PXIS) != 0);
        if self.port(port, PXIS) & IS_TFES != 0 {
            let tfd = self.port(port, PXTFD);
            self.set(port, PXCMD, CMD_FRE);
            self.set(port, PXCMD, CMD_FRE | CMD_ST);
            return tfd as u8;
        }
        assert_eq!(self.port(port, PXCI), 0);
        self.port(port, PXTFD) as u8
    }

    fn packet(&self, port: u64, cdb: &[u8], data: &[(u64, u32)]) -> u8 {
        let mut packet = [0; 16];
        packet[..cdb.len()].copy_from_slice(cdb);
        let frame = h2d(spec::ata::PACKET, 0, 0);
        self.put(&Cmd { port, slot: 3, frame, packet, data });
        self.issue(port)
    }
}

#[test]
fn drives_are_found_by_their_signatures() {
    let rig = rig(false);
    assert_eq!(rig.read(CAP) & 0x1f, 5);
    (0..4).for_each(|port| rig.start(port));
    let signatures = [0, 1, 2, 3].map(|port| rig.port(port, PXSIG));
    assert_eq!(signatures, [SIG_ATA, SIG_ATAPI, SIG_ATAPI, SIG_NONE]);
    assert_eq!([0, 3].map(|port| rig.port(port, PXSSTS) & 0xf), [3, 0]);
    // The first frame was received, and a link reset brings another.
    assert_eq!(rig.bytes(FRAMES + RX_D2H, 2), [FIS_D2H, 0]);
    rig.fill(FRAMES + RX_D2H, &[0; 20]);
    rig.set(0, PXSCTL, 1);
    assert_eq!(rig.port(0, PXTFD) & 0xff, TFD_NONE);
    rig.set(0, PXSCTL, 0);
    assert_eq!(rig.port(0, PXTFD) & 0x89, 0);
    assert_eq!(rig.bytes(FRAMES + RX_D2H, 1), [FIS_D2H]);
}

#[test]
fn a_disk_tells_who_it_is_and_reads_what_was_written() {
    for on_loop in [false, true] {
        let rig = rig(on_loop);
        rig.start(0);
        assert_eq!(rig.command(0, h2d(spec::ata::IDENTIFY, 0, 0), &[(DATA, 512)]) & 0x89, 0);
        let page = rig.bytes(DATA, 512);
        assert_eq!(&page[20..26], b"idks0-".map(|b| b).as_slice());
        assert_eq!(page.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        let sectors = u32::from_le_bytes([page[120], page[121], page[122], page[123]]);
        assert_eq!(u64::from(sectors), DISK_SIZE / 512);
        let data: Vec<u8> = (0..8192u32).map(|at| (at * 7) as u8).collect();
        rig.fill(DATA, &data);
        let parts = [(DATA, 1000), (DATA + 1000, 7192)];
        assert_eq!(rig.command(0, h2d(spec::ata::WRITE_DMA_EXT, 5, 16), &parts) & 0x89, 0);
        assert_eq!(std::fs::read(&rig.path).unwrap()[5 * 512..][..8192], data);
        for command in [spec::ata::READ_DMA_EXT, spec::ata::READ_SECTORS_EXT] {
            rig.fill(DATA, &[0; 8192]);
            assert_eq!(rig.command(0, h2d(command, 5, 16), &[(DATA, 8192)]) & 0x89, 0);
            assert_eq!(rig.bytes(DATA, 8192), data);
        }
        assert_eq!(rig.command(0, h2d(spec::ata::FLUSH_EXT, 0, 0), &[]) & 0x89, 0);
        assert!(*rig.messages.0.lock().unwrap() >= 1);
    }
}

#[test]
fn queued_commands_end_by_their_tags() {
    let rig = rig(true);
    rig.start(0);
    for slot in 0..32u8 {
        rig.fill(DATA + u64::from(slot) * 4096, &[slot + 1; 4096]);
        let frame = queued(spec::ata::WRITE_FPDMA_QUEUED, u64::from(slot) * 8, 8, slot);
        let data = [(DATA + u64::from(slot) * 4096, 4096)];
        rig.put(&Cmd { port: 0, slot: slot.into(), frame, packet: [0; 16], data: &data });
    }
    rig.set(0, PXSACT, !0);
    rig.set(0, PXCI, !0);
    rig.wait("all tags", || rig.port(0, PXSACT) == 0);
    assert_eq!((rig.port(0, PXCI), rig.port(0, PXIS) & IS_TFES), (0, 0));
    let file = std::fs::read(&rig.path).unwrap();
    assert!(file.chunks(4096).take(32).zip(1..).all(|(block, byte)| block == [byte; 4096]));
}

#[test]
fn what_cannot_be_done_is_an_error_and_the_port_goes_on_when_it_is_started_again() {
    let rig = rig(false);
    rig.start(0);
    let past = DISK_SIZE / 512;
    let reads = [
        (h2d(spec::ata::READ_DMA_EXT, past, 1), DATA, 512),
        (h2d(spec::ata::READ_DMA_EXT, u64::MAX >> 16, 0), DATA, 512),
        (h2d(spec::ata::READ_DMA_EXT, 0, 2), DATA, 512),
        (h2d(spec::ata::READ_DMA_EXT, 0, 1), RAM, 512),
        (h2d(spec::ata::READ_DMA_EXT, 0, 1), u64::MAX - 1, 512),
        (h2d(0xfe, 0, 1), DATA, 512),
        (h2d(spec::ata::IDENTIFY_PACKET, 0, 1), DATA, 512),
    ];
    for (frame, gpa, size) in reads {
        assert_eq!(rig.command(0, frame, &[(gpa, size)]) & ST_ERR, ST_ERR, "{frame:x?}");
    }
    assert_eq!(rig.command(0, h2d(spec::ata::READ_DMA_EXT, 0, 1), &[(DATA, 512)]) & ST_ERR, 0);
    // A list where no RAM is.
    rig.set(0, PXCLB, !0);
    rig.set(0, PXCLBU, !0);
    assert_eq!(rig.issue(0) & ST_ERR, ST_ERR);
}

#[test]
fn a_drive_reads_its_disc_and_tells_what_is_in_it() {
    let rig = rig(true);
    rig.start(1);
    rig.start(2);
    let d = [(DATA, 4096)];
    assert_eq!(rig.packet(1, &[0x25], &d) & ST_ERR, 0);
    assert_eq!(rig.bytes(DATA, 8), [0, 0, 0, 63, 0, 0, 8, 0]);
    assert_eq!(rig.packet(1, &[0x28, 0, 0, 0, 0, 7, 0, 0, 2], &d) & ST_ERR, 0);
    assert_eq!(rig.bytes(DATA, 4096), [[7; 2048], [8; 2048]].concat());
    assert_eq!(rig.packet(1, &[0x12, 0, 0, 0, 36], &d) & ST_ERR, 0);
    assert_eq!(rig.bytes(DATA, 2), [5, 0x80]);
    for cdb in [[0x43, 0, 0, 0, 0, 0, 0, 0, 32, 0], [0x46, 0, 0, 0, 0, 0, 0, 1, 0, 0]] {
        assert_eq!(rig.packet(1, &cdb, &d) & ST_ERR, 0, "{cdb:x?}");
    }
    assert_eq!(rig.packet(1, &[0x28, 0, 0, 0, 0, 63, 0, 0, 2], &d) & ST_ERR, ST_ERR);
    assert_eq!(rig.packet(1, &[0x03, 0, 0, 0, 18], &d) & ST_ERR, 0);
    let sense = rig.bytes(DATA, 18);
    assert_eq!((sense[2], sense[12]), (5, 0x21));
    // Nothing is in the other.
    assert_eq!(rig.packet(2, &[0x00], &[]) & ST_ERR, ST_ERR);
    assert_eq!(rig.packet(2, &[0x03, 0, 0, 0, 18], &d) & ST_ERR, 0);
    assert_eq!((rig.bytes(DATA, 18)[2], rig.bytes(DATA, 18)[12]), (2, 0x3a));
    assert_eq!(rig.packet(2, &[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8], &d) & ST_ERR, 0);
}

#[test]
fn a_locked_tray_stays_closed_and_a_new_disc_is_told_once() {
    let rig = rig(false);
    rig.start(1);
    assert_eq!(rig.packet(1, &[0x1e, 0, 0, 0, 1], &[]) & ST_ERR, 0);
    assert_eq!(rig.packet(1, &[0x1b, 0, 0, 0, 2], &[]) & ST_ERR, ST_ERR);
    assert_eq!(rig.packet(1, &[0x1e, 0, 0, 0, 0], &[]) & ST_ERR, 0);
    assert_eq!(rig.packet(1, &[0x1b, 0, 0, 0, 2], &[]) & ST_ERR, 0);
    assert_eq!(rig.packet(1, &[0x00], &[]) & ST_ERR, ST_ERR);
    assert_eq!(rig.packet(1, &[0x1b, 0, 0, 0, 3], &[]) & ST_ERR, 0);
    assert_eq!(rig.packet(1, &[0x00], &[]) & ST_ERR, ST_ERR);
    assert_eq!(rig.packet(1, &[0x00], &[]) & ST_ERR, 0);
}

#[test]
fn trims_are_bounded_and_discard() {
    let rig = rig(false);
    rig.start(0);
    std::fs::write(&rig.path, vec![7; DISK_SIZE as usize]).unwrap();
    let mut page = [0; 512];
    page[..8].copy_from_slice(&(8u64 | 8 << 48).to_le_bytes());
    rig.fill(DATA, &page);
    let mut frame = h2d(spec::ata::DATA_SET_MANAGEMENT, 0, 1);
    frame[3] = 1;
    assert_eq!(rig.command(0, frame, &[(DATA, 512)]) & ST_ERR, 0);
    frame[12] = 9;
    assert_eq!(rig.command(0, frame, &[(DATA, 512)]) & ST_ERR, ST_ERR);
}

#[test]
fn a_saved_controller_goes_on_where_it_was() {
    let rig = rig(true);
    rig.start(0);
    rig.ahci.pause();
    let frame = h2d(spec::ata::READ_DMA_EXT, 0, 1);
    rig.put(&Cmd { port: 0, slot: 3, frame, packet: [0; 16], data: &[(DATA, 512)] });
    rig.set(0, PXCI, 1 << 3);
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(rig.port(0, PXCI), 1 << 3, "nothing happens while paused");
    let saved = rig.ahci.save();
    rig.ahci.reset();
    assert_eq!(rig.port(0, PXCI), 0);
    rig.ahci.restore(&saved).unwrap();
    assert_eq!(rig.ahci.save(), saved);
    rig.ahci.resume();
    rig.wait("the command", || rig.port(0, PXCI) == 0);
}

/// The status register's bit: the device wants an interrupt by its pin.
fn wants_interrupt(rig: &Rig) -> bool {
    rig.config_read(4) >> 19 & 1 != 0
}

#[test]
fn the_pin_is_driven_from_a_command_s_end_until_the_driver_has_seen_it() {
    let rig = rig(false);
    rig.start(0);
    rig.set(0, PXIS, !0);
    rig.write(IS, !0);
    assert!(!wants_interrupt(&rig));
    rig.command(0, h2d(spec::ata::FLUSH_EXT, 0, 0), &[]);
    assert!(wants_interrupt(&rig));
    rig.write(GHC, GHC_AE);
    assert!(!wants_interrupt(&rig), "the controller's interrupts are off");
    rig.write(GHC, GHC_AE | GHC_IE);
    let (saved, other) = (rig.ahci.save(), self::rig(false));
    other.ahci.restore(&saved).unwrap();
    assert!(wants_interrupt(&other));
    rig.set(0, PXIS, !0);
    rig.write(IS, !0);
    assert!(!wants_interrupt(&rig));
    other.ahci.reset();
    assert!(!wants_interrupt(&other));
}
