//! Requests from a driver's side, to a disk that is a file.

use std::fs::File;
use std::sync::Arc;

use bus::Device;
use evloop::EventLoop;
use storage::{Disk, RawDisk};

use super::spec::*;
use super::*;
use crate::spec::features;
use crate::testing::*;
use crate::{Dispatch, NoDoorbells};

const DISK_SIZE: u64 = 1 << 20;
const HEADER: u64 = BUFFERS;
const DATA: u64 = BUFFERS + 0x1000;
const STATUS: u64 = BUFFERS + 0x800;
const ALL: u64 = !0;

struct Bench {
    m: Machine,
    block: Arc<Block>,
    path: std::path::PathBuf,
    dir: tempfile::TempDir,
}

fn config(queues: u16) -> BlockConfig {
    BlockConfig { serial: "disk-0".into(), queues }
}

fn disk(dir: &tempfile::TempDir, read_only: bool) -> Arc<dyn Disk> {
    Arc::new(RawDisk::open(&dir.path().join("disk"), read_only).unwrap())
}

fn bench_with(read_only: bool, queues: u16, dispatch: Dispatch) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    File::create(&path).unwrap().set_len(DISK_SIZE).unwrap();
    let block = Block::new(disk(&dir, read_only), &config(queues));
    let m = Machine::with(block.clone(), dispatch, Arc::new(NoDoorbells));
    Bench { m, block, path, dir }
}

fn bench() -> Bench {
    bench_with(false, 1, Dispatch::Inline)
}

impl Bench {
    fn header(&self, kind: u32, sector: u64) {
        self.m.fill(HEADER, &kind.to_le_bytes());
        self.m.fill(HEADER + 8, &sector.to_le_bytes());
        self.m.fill(STATUS, &[0xee]);
    }

    /// Sends a request with this data between header and status; returns status and length.
    fn request(&self, q: &mut Queue, kind: u32, sector: u64, data: &[Desc]) -> (u8, u32) {
        self.header(kind, sector);
        let mut chain = vec![readable(HEADER, 16)];
        chain.extend(data);
        chain.push(writable(STATUS, 1));
        let head = q.add(&self.m, &chain);
        q.ring(&self.m);
        let used = q.used(&self.m);
        assert_eq!(used.len(), 1, "{:?}", self.m.device.broken());
        assert_eq!(used[0].0, u32::from(head));
        (self.m.bytes(STATUS, 1)[0], used[0].1)
    }
}

#[test]
fn sectors_written_through_the_queue_are_in_the_file_and_read_back() {
    let b = bench();
    let mut q = b.m.start(!features::EVENT_IDX).remove(0);
    let data: Vec<u8> = (0..4096u32).map(|i| (i * 7) as u8).collect();
    b.m.fill(DATA, &data);
    let write = [readable(DATA, 1000), readable(DATA + 1000, 3096)];
    assert_eq!(b.request(&mut q, T_OUT, 3, &write), (S_OK, 1));
    assert_eq!(std::fs::read(&b.path).unwrap()[3 * 512..][..4096], data);
    assert_eq!(b.request(&mut q, T_FLUSH, 0, &[]), (S_OK, 1));
    let read = [writable(DATA + 0x10000, 512), writable(DATA + 0x20000, 3584)];
    assert_eq!(b.request(&mut q, T_IN, 3, &read), (S_OK, 4097));
    assert_eq!(b.m.bytes(DATA + 0x10000, 512), data[..512]);
    assert_eq!(b.m.bytes(DATA + 0x20000, 3584), data[512..]);
    let counters = BlockCounters { reads: 1, writes: 1, flushes: 1, ..Default::default() };
    assert_eq!(b.block.counters(), counters);
    assert_eq!(b.m.messages.take(), [0x41; 3]);
}

#[test]
fn a_short_request_is_over_when_the_doorbell_is() {
    // Nobody runs this loop.
    let loops = vec![EventLoop::new().unwrap()];
    let b = bench_with(false, 1, Dispatch::Loops(loops));
    let mut q = b.m.start(!features::EVENT_IDX).remove(0);
    b.m.fill(DATA, &[7; 512]);
    assert_eq!(b.request(&mut q, T_OUT, 3, &[readable(DATA, 512)]), (S_OK, 1));
    assert_eq!(std::fs::read(&b.path).unwrap()[3 * 512..][..512], [7; 512]);
}

#[test]
fn how_a_request_is_cut_into_descriptors_means_nothing() {
    let b = bench();
    let mut q = b.m.start(ALL).remove(0);
    b.m.fill(DATA, &[5; 512]);
    // Half of the header, then the rest of it together with the data.
    b.header(T_OUT, 1);
    b.m.fill(DATA - 8, &1u64.to_le_bytes());
    q.add(&b.m, &[readable(HEADER, 8), readable(DATA - 8, 520), writable(STATUS, 1)]);
    q.ring(&b.m);
    assert_eq!(b.m.bytes(STATUS, 1), [S_OK]);
    // Data and status in one descriptor, after an empty one.
    b.header(T_IN, 1);
    let chain = [readable(HEADER, 16), writable(0, 0), writable(DATA + 0x1000, 513)];
    q.add(&b.m, &chain);
    q.ring(&b.m);
    assert_eq!(q.used(&b.m).len(), 2);
    assert_eq!(b.m.bytes(DATA + 0x1000, 512), [5; 512]);
    assert_eq!(b.m.bytes(DATA + 0x1200, 1), [S_OK]);
}

#[test]
fn an_indirect_table_is_one_request() {
    let b = bench();
    let mut q = b.m.start(ALL).remove(0);
    b.header(T_IN, 0);
    let table = BUFFERS + 0x4000;
    let descs = [readable(HEADER, 16), writable(DATA, 512), writable(STATUS, 1)];
    for (i, desc) in descs.iter().enumerate() {
        let flags = desc.flags | if i < 2 { NEXT } else { 0 };
        let desc = Desc { flags, next: i as u16 + 1, ..*desc };
        b.m.fill(table + 16 * i as u64, &desc.bytes());
    }
    q.add(&b.m, &[Desc { gpa: table, size: 48, flags: INDIRECT, next: 0 }]);
    q.ring(&b.m);
    assert_eq!(q.used(&b.m), [(0, 513)]);
    assert_eq!(b.m.bytes(STATUS, 1), [S_OK]);
}

#[test]
fn requests_that_cannot_be_fail_and_the_device_goes_on() {
    let b = bench();
    let mut q = b.m.start(ALL).remove(0);
    let sectors = DISK_SIZE / 512;
    for sector in [sectors, sectors - 1, u64::MAX, u64::MAX / 512 + 1] {
        assert_eq!(b.request(&mut q, T_IN, sector, &[writable(DATA, 1024)]), (S_IOERR, 0));
        assert_eq!(b.request(&mut q, T_OUT, sector, &[readable(DATA, 1024)]), (S_IOERR, 0));
    }
    assert_eq!(b.request(&mut q, T_IN, 0, &[writable(DATA, 511)]), (S_IOERR, 0));
    assert_eq!(b.request(&mut q, T_OUT, 0, &[readable(DATA, 513)]), (S_IOERR, 0));
    // Data that is nowhere, half nowhere, and at the end of everything.
    for gpa in [RAM_SIZE, RAM_SIZE - 256, u64::MAX - 100] {
        assert_eq!(b.request(&mut q, T_IN, 0, &[writable(gpa, 512)]), (S_IOERR, 0));
        assert_eq!(b.request(&mut q, T_OUT, 0, &[readable(gpa, 512)]), (S_IOERR, 0));
    }
    assert_eq!(b.request(&mut q, 99, 0, &[]), (S_UNSUPP, 0));
    assert_eq!(b.request(&mut q, T_IN, 0, &[]), (S_OK, 1));
    assert_eq!(b.request(&mut q, T_IN, sectors - 1, &[writable(HIGH_RAM, 512)]), (S_OK, 513));
    assert!(!b.m.needs_reset());
    assert_eq!(b.block.counters().failed, 17);
}

#[test]
fn a_request_without_header_or_status_breaks_the_device() {
    let cases: [&[Desc]; 5] = [
        &[readable(HEADER, 15), writable(STATUS, 1)],
        &[readable(HEADER, 16)],
        &[readable(HEADER, 16), writable(STATUS, 0)],
        &[readable(RAM_SIZE, 16), writable(STATUS, 1)],
        &[readable(HEADER, 16), writable(RAM_SIZE, 1)],
    ];
    for chain in cases {
        let b = bench();
        let mut q = b.m.start(ALL).remove(0);
        b.header(T_IN, 0);
        q.add(&b.m, chain);
        q.ring(&b.m);
        assert!(b.m.needs_reset(), "{chain:?}");
        assert!(q.used(&b.m).is_empty());
        assert_eq!(b.m.messages.take(), [0x40], "a configuration change is signalled");
        // A reset repairs it.
        let mut q = b.m.start(ALL).remove(0);
        assert_eq!(b.request(&mut q, T_IN, 0, &[writable(DATA, 512)]), (S_OK, 513));
    }
}

#[test]
fn the_id_is_the_serial() {
    let b = bench();
    let mut q = b.m.start(ALL).remove(0);
    b.m.fill(DATA, &[0xff; 32]);
    assert_eq!(b.request(&mut q, T_GET_ID, 0, &[writable(DATA, 20)]), (S_OK, 21));
    assert_eq!(&b.m.bytes(DATA, 21), b"disk-0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff");
}

fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

#[test]
fn zeroes_and_discards_change_their_ranges_only() {
    let b = bench();
    let mut q = b.m.start(ALL).remove(0);
    b.m.fill(DATA + 0x2000, &[9; 4096]);
    assert_eq!(b.request(&mut q, T_OUT, 0, &[readable(DATA + 0x2000, 4096)]).0, S_OK);
    let two = [segment(1, 2, 1), segment(5, 1, 0)].concat();
    b.m.fill(DATA, &two);
    assert_eq!(b.request(&mut q, T_WRITE_ZEROES, 0, &[readable(DATA, 32)]).0, S_OK);
    let file = std::fs::read(&b.path).unwrap();
    let expected = [9, 0, 0, 9, 9, 0, 9, 9];
    assert!(file.chunks(512).zip(expected).all(|(sector, byte)| sector == [byte; 512]));
    b.m.fill(DATA, &segment(0, 8, 0));
    assert_eq!(b.request(&mut q, T_DISCARD, 0, &[readable(DATA, 16)]).0, S_OK);
    assert_eq!(b.block.counters().discards, 2);
}

#[test]
fn impossible_ranges_change_nothing() {
    let b = bench();
    let mut q = b.m.start(ALL).remove(0);
    b.m.fill(DATA + 0x2000, &[9; 512]);
    assert_eq!(b.request(&mut q, T_OUT, 0, &[readable(DATA + 0x2000, 512)]).0, S_OK);
    let good = segment(0, 1, 0);
    let cases = [
        (T_WRITE_ZEROES, segment(DISK_SIZE / 512, 1, 0), S_IOERR),
        (T_WRITE_ZEROES, segment(u64::MAX, u32::MAX, 0), S_IOERR),
        (T_WRITE_ZEROES, segment(0, u32::MAX, 0), S_IOERR),
        (T_WRITE_ZEROES, segment(0, 1, 2), S_UNSUPP),
        (T_DISCARD, segment(0, 1, 1), S_UNSUPP),
        (T_DISCARD, vec![0; 15], S_IOERR),
    ];
    for (kind, bad, status) in cases {
        let both = [good.clone(), bad].concat();
        b.m.fill(DATA, &both);
        let got = b.request(&mut q, kind, 0, &[readable(DATA, both.len() as u32)]);
        assert_eq!(got, (status, 0), "{both:x?}");
    }
    let many = 16 * (SEGMENTS_MAX + 1);
    assert_eq!(b.request(&mut q, T_DISCARD, 0, &[readable(DATA, many)]).0, S_IOERR);
    assert_eq!(b.request(&mut q, T_DISCARD, 0, &[]).0, S_IOERR);
    assert_eq!(std::fs::read(&b.path).unwrap()[..512], [9; 512]);
}

#[test]
fn a_read_only_disk_says_so_and_cannot_be_changed() {
    let b = bench_with(true, 1, Dispatch::Inline);
    assert_eq!(b.m.offered() & (F_RO | F_FLUSH | F_DISCARD), F_RO);
    let mut q = b.m.start(ALL).remove(0);
    assert_eq!(b.request(&mut q, T_OUT, 0, &[readable(DATA, 512)]).0, S_IOERR);
    assert_eq!(b.request(&mut q, T_DISCARD, 0, &[readable(DATA, 16)]).0, S_UNSUPP);
    assert_eq!(b.request(&mut q, T_IN, 0, &[writable(DATA, 512)]).0, S_OK);
}

#[test]
fn configuration_describes_the_disk() {
    let b = bench_with(false, 4, Dispatch::Inline);
    b.m.start(ALL);
    let at = |offset: usize, size| b.m.read(b.m.config + offset as u64, size);
    assert_eq!(at(CAPACITY, 8), DISK_SIZE / 512);
    assert_eq!((at(SEG_MAX, 4), at(BLK_SIZE, 4), at(NUM_QUEUES, 2)), (510, 512, 4));
    assert_eq!(b.m.common(0x12, 2), 4);
    assert_eq!(at(WRITEBACK, 1), 1);
    assert_eq!(at(CONFIG_SIZE, 8), 0);
    b.m.write(b.m.config, 8, 0);
    assert_eq!(at(CAPACITY, 8), DISK_SIZE / 512);
}

/// Counts flushes.
struct Flushes(RawDisk, AtomicU64);

impl Disk for Flushes {
    fn info(&self) -> storage::DiskInfo {
        self.0.info()
    }
    fn read(&self, offset: u64, b: &[vm_memory::VolatileSlice<'_>]) -> std::io::Result<()> {
        self.0.read(offset, b)
    }
    fn write(&self, offset: u64, b: &[vm_memory::VolatileSlice<'_>]) -> std::io::Result<()> {
        self.0.write(offset, b)
    }
    fn flush(&self) -> std::io::Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Err(std::io::ErrorKind::Other.into())
    }
    fn discard(&self, offset: u64, size: u64) -> std::io::Result<()> {
        self.0.discard(offset, size)
    }
    fn write_zeroes(&self, offset: u64, size: u64, unmap: bool) -> std::io::Result<()> {
        self.0.write_zeroes(offset, size, unmap)
    }
}

#[test]
fn writes_are_flushed_for_drivers_that_cannot_or_ask_for_it() {
    let mut b = bench();
    drop(std::fs::remove_file(&b.path));
    File::create(&b.path).unwrap().set_len(DISK_SIZE).unwrap();
    let disk = Arc::new(Flushes(RawDisk::open(&b.path, false).unwrap(), AtomicU64::new(0)));
    b.m = Machine::new(Block::new(disk.clone(), &config(1)));
    let flushes = || disk.1.load(Ordering::Relaxed);
    let write = [readable(DATA, 512)];
    let mut q = b.m.start(ALL).remove(0);
    assert_eq!(b.request(&mut q, T_OUT, 0, &write).0, S_OK);
    assert_eq!(flushes(), 0);
    b.m.write(b.m.config + WRITEBACK as u64, 1, 0);
    // The back-end fails every flush, which the guest must learn.
    assert_eq!(b.request(&mut q, T_OUT, 0, &write).0, S_IOERR);
    assert_eq!(flushes(), 1);
    let mut q = b.m.start(!F_FLUSH).remove(0);
    assert_eq!(b.request(&mut q, T_OUT, 0, &write).0, S_IOERR);
    assert_eq!(flushes(), 2);
    assert_eq!(b.request(&mut q, T_FLUSH, 0, &[]).0, S_IOERR);
}

#[test]
fn a_saved_disk_goes_on_where_it_was() {
    let b = bench();
    let mut q = b.m.start(ALL).remove(0);
    for _ in 0..5 {
        b.request(&mut q, T_IN, 0, &[writable(DATA, 512)]);
    }
    b.m.write(b.m.config + WRITEBACK as u64, 1, 0);
    b.m.device.pause();
    b.header(T_IN, 0);
    q.add(&b.m, &[readable(HEADER, 16), writable(DATA, 512), writable(STATUS, 1)]);
    q.ring(&b.m);
    assert!(q.used(&b.m).is_empty(), "nothing happens while paused");
    let (saved, function) = (b.m.device.save(), b.m.device.function().save());
    // The same memory with another device and the same file.
    let Bench { m, block, path: _, dir } = b;
    let memory = m.memory.clone();
    drop((m, block));
    let new = Machine::new(Block::new(disk(&dir, false), &config(1)));
    new.device.pause();
    new.device.restore(&saved).unwrap();
    new.device.function().restore(&function).unwrap();
    assert_eq!(new.device.save(), saved);
    let copy = |from: &guest_memory::GuestMemory| {
        let mut bytes = vec![0; RAM_SIZE as usize];
        vm_memory::Bytes::read_slice(&*from.dma(), &mut bytes, vm_memory::GuestAddress(0)).unwrap();
        bytes
    };
    new.fill(0, &copy(&memory));
    new.device.resume();
    assert_eq!(q.used(&new).len(), 1);
    assert_eq!(new.bytes(STATUS, 1), [S_OK]);
}

#[test]
fn state_of_another_disk_is_refused() {
    let b = bench();
    b.m.start(ALL);
    let saved = b.m.device.save();
    let dir = tempfile::tempdir().unwrap();
    File::create(dir.path().join("disk")).unwrap().set_len(2 * DISK_SIZE).unwrap();
    let other = Machine::new(Block::new(disk(&dir, false), &config(1)));
    let before = other.device.save();
    assert!(other.device.restore(&saved).unwrap_err().to_string().contains("1048576 bytes"));
    assert_eq!(other.device.save(), before);
    let more = bench_with(false, 2, Dispatch::Inline);
    assert!(more.m.device.restore(&saved).is_err());
}

#[test]
fn queues_on_loops_are_served_at_once_and_pause_waits_for_them() {
    let loops = [(); 2].map(|()| EventLoop::new().unwrap());
    let threads = [0, 1].map(|i: usize| loops[i].spawn("disk").unwrap());
    let b = bench_with(false, 2, Dispatch::Loops(loops.to_vec()));
    let mut queues = b.m.start(!features::EVENT_IDX);
    let mut done = [0; 2];
    b.header(T_IN, 0);
    for _ in 0..200 {
        for q in &mut queues {
            q.add(&b.m, &[readable(HEADER, 16), writable(DATA, 512), writable(STATUS, 1)]);
            q.ring(&b.m);
        }
        let begin = std::time::Instant::now();
        let target = done.map(|d| d + 1);
        while done != target {
            for (q, done) in queues.iter_mut().zip(&mut done) {
                *done += q.used(&b.m).len();
            }
            assert!(begin.elapsed().as_secs() < 60, "lost: {done:?}");
        }
    }
    b.m.device.pause();
    b.m.messages.take();
    for q in &mut queues {
        q.add(&b.m, &[readable(HEADER, 16), writable(DATA, 512), writable(STATUS, 1)]);
        q.ring(&b.m);
    }
    std::thread::sleep(std::time::Duration::from_millis(5));
    assert!(queues.iter_mut().all(|q| q.used(&b.m).is_empty()));
    b.m.device.resume();
    let begin = std::time::Instant::now();
    let mut left = 2;
    while left > 0 {
        left -= queues.iter_mut().map(|q| q.used(&b.m).len()).sum::<usize>();
        assert!(begin.elapsed().as_secs() < 60);
    }
    drop(threads);
}

#[test]
fn a_disk_that_grows_tells_its_driver() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    File::create(&path).unwrap().set_len(DISK_SIZE).unwrap();
    let block = Block::new(Arc::new(RawDisk::open(&path, false).unwrap()), &config(1));
    let m = Machine::new(block.clone());
    m.start(ALL);
    let sectors = || {
        let mut bytes = [0; 8];
        block.config_read(0, &mut bytes);
        u64::from_le_bytes(bytes)
    };
    assert_eq!(sectors(), DISK_SIZE / 512);
    assert!(block.grow(DISK_SIZE - 512).is_err() && block.grow(DISK_SIZE + 1).is_err());
    block.grow(2 * DISK_SIZE).unwrap();
    assert_eq!((sectors(), m.messages.take().len()), (2 * DISK_SIZE / 512, 1));
}
