//! The disk (5.2): requests of a queue go down its lane and come back when they are done.

mod request;
mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use bus::{Section, SectionError};
use storage::{Disk, DiskOptions, Lane, OpenError, SECTOR_SIZE};

use crate::runner::lock;
use crate::{Broken, Chain, DeviceType, Handle, Outcome, VirtioDevice};
use request::Pending;
use spec::*;
use state::BlockState;

/// Descriptors of a queue. With the header and the status that leaves [`DATA_MAX`] for data.
const QUEUE_SIZE: u16 = 512;
/// Most data descriptors of one request. 1 MiB of scattered pages needs 256: with fewer it would
/// be two requests.
const DATA_MAX: u32 = QUEUE_SIZE as u32 - 2;

/// Fixed configuration of a disk.
#[derive(Debug, Clone)]
pub struct BlockConfig {
    /// What the guest sees as the disk's serial number; 20 bytes at most are kept.
    pub serial: String,
    /// Request queues: as many as the guest has vCPUs, or fewer; at least one.
    pub queues: u16,
}

/// What a disk has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockCounters {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Discards and write-zeroes.
    pub discards: u64,
    /// Requests of any kind that failed: the guest's mistakes and the host's errors.
    pub failed: u64,
}

/// A disk.
pub struct Block {
    // Fixed configuration.
    config: [u8; CONFIG_SIZE],
    serial: [u8; ID_SIZE],
    queue_sizes: Vec<u16>,
    read_only: bool,
    // Wiring.
    disk: Arc<dyn Disk>,
    /// One for each queue.
    lanes: OnceLock<Box<[Lane<Box<Pending>>]>>,
    handle: OnceLock<Handle>,
    me: Weak<Self>,
    // State.
    /// Requests that are not in use.
    ///
    /// *Lock*: a leaf.
    #[expect(clippy::vec_box, reason = "requests go in and out of lanes, and are large")]
    spare: Mutex<Vec<Box<Pending>>>,
    features: AtomicU64,
    /// The writeback field of the configuration.
    writeback: AtomicBool,
    // Counters.
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    reads: AtomicU64,
    writes: AtomicU64,
    flushes: AtomicU64,
    discards: AtomicU64,
    failed: AtomicU64,
}

impl Block {
    /// How large the disk is.
    pub fn size_bytes(&self) -> u64 {
        self.disk.info().size_bytes
    }

    /// Makes the disk larger, and tells the driver (5.2.5.2).
    ///
    /// # Errors
    /// When it cannot be.
    pub fn grow(&self, size_bytes: u64) -> std::io::Result<()> {
        self.disk.grow(size_bytes)?;
        if let Some(handle) = self.handle.get() {
            handle.config_changed();
        }
        Ok(())
    }

    /// Goes on in a new layer of the disk.
    ///
    /// # Errors
    /// As [`Disk::lay`].
    pub fn lay(&self, over: &DiskOptions, files: Vec<File>) -> Result<(), OpenError> {
        self.disk.lay(over, files)
    }

    /// A disk over `disk`.
    ///
    /// # Panics
    /// When there are no queues: the board's mistake.
    pub fn new(disk: Arc<dyn Disk>, config: &BlockConfig) -> Arc<Self> {
        assert!(config.queues > 0, "a disk without queues");
        let info = disk.info();
        let mut serial = [0; ID_SIZE];
        for (to, byte) in serial.iter_mut().zip(config.serial.bytes()) {
            *to = byte;
        }
        let mut bytes = [0; CONFIG_SIZE];
        let mut set = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        let block_sectors = info.block_size / SECTOR_SIZE as u32;
        set(SEG_MAX, &DATA_MAX.to_le_bytes());
        set(BLK_SIZE, &info.block_size.to_le_bytes());
        set(NUM_QUEUES, &config.queues.to_le_bytes());
        set(MAX_DISCARD_SECTORS, &SEGMENT_SECTORS_MAX.to_le_bytes());
        set(MAX_DISCARD_SEG, &SEGMENTS_MAX.to_le_bytes());
        set(DISCARD_SECTOR_ALIGNMENT, &block_sectors.max(1).to_le_bytes());
        set(MAX_WRITE_ZEROES_SECTORS, &SEGMENT_SECTORS_MAX.to_le_bytes());
        set(MAX_WRITE_ZEROES_SEG, &SEGMENTS_MAX.to_le_bytes());
        set(WRITE_ZEROES_MAY_UNMAP, &[1]);
        Arc::new_cyclic(|me| Self {
            config: bytes,
            serial,
            queue_sizes: vec![QUEUE_SIZE; usize::from(config.queues)],
            read_only: info.read_only,
            disk,
            lanes: OnceLock::new(),
            handle: OnceLock::new(),
            me: me.clone(),
            spare: Mutex::default(),
            features: AtomicU64::new(0),
            writeback: AtomicBool::new(true),
            counters: Counters::default(),
        })
    }

    /// What it has done.
    pub fn counters(&self) -> BlockCounters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { reads, writes, flushes, discards, failed } = &self.counters;
        BlockCounters {
            reads: get(reads),
            writes: get(writes),
            flushes: get(flushes),
            discards: get(discards),
            failed: get(failed),
        }
    }

    fn lanes(&self) -> &[Lane<Box<Pending>>] {
        self.lanes.get().map_or(&[], |lanes| lanes)
    }

    /// Writes are flushed one by one: for a driver that cannot flush (5.2.5.2), or asks for it.
    fn write_through(&self) -> bool {
        let features = self.features.load(Ordering::Acquire);
        let chosen = features & F_CONFIG_WCE != 0 && !self.writeback.load(Ordering::Acquire);
        features & F_FLUSH == 0 || chosen
    }
}

impl VirtioDevice for Block {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }

    fn features(&self) -> u64 {
        let changes = F_FLUSH | F_CONFIG_WCE | F_DISCARD | F_WRITE_ZEROES;
        F_SEG_MAX | F_BLK_SIZE | F_MQ | if self.read_only { F_RO } else { changes }
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        let mut config = self.config;
        let sectors = self.size_bytes() / SECTOR_SIZE;
        config[CAPACITY..CAPACITY + 8].copy_from_slice(&sectors.to_le_bytes());
        config[WRITEBACK] = self.writeback.load(Ordering::Acquire).into();
        let from = usize::try_from(offset).ok().and_then(|at| config.get(at..)).unwrap_or_default();
        for (to, byte) in data.iter_mut().zip(from) {
            *to = *byte;
        }
    }

    fn config_write(&self, offset: u64, data: &[u8]) {
        if let (true, [value]) = (offset == WRITEBACK as u64, data) {
            self.writeback.store(*value != 0, Ordering::Release);
        }
    }

    fn start(&self, features: u64) {
        self.features.store(features, Ordering::Release);
    }

    fn attach(&self, handle: Handle) {
        let lane = |queue| {
            let (me, handle) = (self.me.clone(), handle.clone());
            let of = handle.event_loop(queue);
            Lane::new(self.disk.clone(), of.as_ref(), move |done| {
                if let Some(block) = me.upgrade() {
                    block.finish(queue, done, &handle);
                }
            })
        };
        let lanes = (0..self.queue_sizes.len()).map(lane).collect();
        let attached = self.lanes.set(lanes).is_ok() && self.handle.set(handle).is_ok();
        assert!(attached, "a disk is attached once");
    }

    fn handle(&self, queue: usize, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        self.serve(queue, chain)
    }

    fn is_prompt(&self, queue: usize) -> bool {
        self.lanes()[queue].is_prompt()
    }

    fn submit(&self, queue: usize) {
        self.lanes()[queue].submit();
    }

    fn drain(&self, queue: usize) {
        self.lanes()[queue].drain();
    }

    fn reset(&self) {
        self.features.store(0, Ordering::Release);
        self.writeback.store(true, Ordering::Release);
    }

    fn save(&self) -> Section {
        Section::encode(&BlockState {
            features: self.features.load(Ordering::Acquire),
            writeback: self.writeback.load(Ordering::Acquire),
            size_bytes: self.disk.info().size_bytes,
        })
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        let BlockState { features, writeback, size_bytes } = section.decode()?;
        let now = self.disk.info().size_bytes;
        if size_bytes != now {
            return Err(BlockState::impossible(format!(
                "the disk had {size_bytes} bytes and has {now}: use the one it was saved with"
            )));
        }
        self.features.store(features, Ordering::Release);
        self.writeback.store(writeback, Ordering::Release);
        Ok(())
    }
}
