//! Lanes of every kind over real files.
//!
//! UNSAFETY: requests own their memory by a raw pointer, as the queue's do by a lease.

use std::fs::File;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::*;
use crate::{DiskOptions, RawDisk};

const SIZE: u64 = 1 << 20;

struct Job {
    write: bool,
    offset: u64,
    data: Vec<VolatileSlice<'static>>,
    bytes: *mut Vec<u8>,
}

// SAFETY: the vector is the job's own.
#[allow(unsafe_code, reason = "a request that owns its memory")]
unsafe impl Send for Job {}

#[allow(unsafe_code, reason = "as above")]
impl Job {
    fn new(write: bool, offset: u64, bytes: Vec<u8>) -> Self {
        let bytes = Box::into_raw(Box::new(bytes));
        // SAFETY: freed with the job only, by `Drop`.
        let data = unsafe { VolatileSlice::new((*bytes).as_mut_ptr(), (&*bytes).len()) };
        Self { write, offset, data: vec![data], bytes }
    }

    fn bytes(&self) -> Vec<u8> {
        // SAFETY: nobody writes to it once the job is back.
        unsafe { (*self.bytes).clone() }
    }
}

#[allow(unsafe_code, reason = "as above")]
impl Drop for Job {
    fn drop(&mut self) {
        // SAFETY: made by `new` from a box.
        drop(unsafe { Box::from_raw(self.bytes) });
    }
}

impl Work for Job {
    fn transfer(&self) -> Option<Transfer<'_>> {
        Some(match (self.offset, self.write) {
            (u64::MAX, _) => Transfer::Flush,
            (offset, true) => Transfer::Write(offset, &self.data, offset % 1024 == 0),
            (offset, false) => Transfer::Read(offset, &self.data),
        })
    }

    fn perform(&self, disk: &dyn Disk) -> io::Result<()> {
        disk.flush()
    }
}

struct Rig {
    _dir: tempfile::TempDir,
    lane: Lane<Job>,
    back: Receiver<(Job, io::Result<()>)>,
    _thread: evloop::LoopThread,
}

fn rig(kind: Kind, options: &str) -> Option<Rig> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    File::create(&path).unwrap().set_len(SIZE).unwrap();
    let of = EventLoop::new().unwrap();
    let thread = of.spawn("lane").unwrap();
    let (to, back): (Sender<(Job, io::Result<()>)>, _) = channel();
    let done = move |done: &mut Done<Job>| done.drain(..).for_each(|d| to.send(d).unwrap());
    let disk: Arc<dyn Disk> = match kind {
        // Without a file to give to the kernel.
        Kind::Threads => {
            let text = format!("{},discard=ignore{options}", path.display());
            text.parse::<DiskOptions>().unwrap().open().unwrap()
        }
        _ => Arc::new(RawDisk::open(&path, false).unwrap()),
    };
    let lane = Lane::new(disk, Some(&of).filter(|_| kind != Kind::Inline), done);
    // A host may forbid io_uring.
    (lane.kind() == kind).then_some(Rig { _dir: dir, lane, back, _thread: thread })
}

const KINDS: [Kind; 3] = [Kind::Inline, Kind::Threads, Kind::Uring];

#[test]
fn what_many_requests_write_at_once_is_what_many_read() {
    for rig in KINDS.into_iter().filter_map(|kind| rig(kind, "")) {
        let offsets = || (0..SIZE).step_by(2048);
        for offset in offsets() {
            rig.lane.push(Job::new(true, offset, vec![(offset / 2048) as u8; 2048]));
        }
        rig.lane.submit();
        rig.lane.drain();
        assert!(rig.back.try_iter().all(|(_, result)| result.is_ok()));
        rig.lane.push(Job::new(false, u64::MAX, vec![]));
        offsets().for_each(|offset| rig.lane.push(Job::new(false, offset, vec![0xaa; 2048])));
        rig.lane.submit();
        for _ in 0..=SIZE / 2048 {
            let (job, result) = rig.back.recv_timeout(Duration::from_secs(60)).unwrap();
            result.unwrap();
            if job.offset != u64::MAX {
                assert_eq!(job.bytes(), vec![(job.offset / 2048) as u8; 2048]);
            }
        }
    }
}

#[test]
fn a_write_that_the_host_has_room_for_is_done_by_who_submits_it() {
    for rig in KINDS.into_iter().filter_map(|kind| rig(kind, "")) {
        rig.lane.push(Job::new(true, 512, vec![7; 2048]));
        rig.lane.submit();
        rig.back.try_recv().unwrap().1.unwrap();
    }
}

#[test]
fn requests_the_disk_refuses_come_back_with_its_reason() {
    for rig in KINDS.into_iter().filter_map(|kind| rig(kind, "")) {
        rig.lane.push(Job::new(true, SIZE - 512, vec![0; 1024]));
        rig.lane.push(Job::new(false, u64::MAX - 1, vec![0; 1024]));
        rig.lane.submit();
        for _ in 0..2 {
            let (_, result) = rig.back.recv_timeout(Duration::from_secs(60)).unwrap();
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}

#[test]
fn draining_does_not_wait_for_limits() {
    let rig = rig(Kind::Threads, ",iops=1").unwrap();
    for offset in (0..SIZE).step_by(4096) {
        rig.lane.push(Job::new(false, offset, vec![0; 512]));
    }
    rig.lane.submit();
    let start = Instant::now();
    rig.lane.drain();
    assert!(start.elapsed() < Duration::from_secs(60));
    assert_eq!(rig.back.try_iter().count() as u64, SIZE / 4096);
}
