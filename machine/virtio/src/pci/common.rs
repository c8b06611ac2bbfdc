//! The common configuration (4.1.4.3): negotiation and queue set-up.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use virtio_queue::QueueState;

use super::spec::*;
use crate::ring::Ring;
use crate::runner::{Runner, lock};
use crate::spec::{NO_VECTOR, features, status};
use crate::{Broken, VirtioDevice};

/// What the driver has said of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueSetup {
    pub(crate) size: u16,
    pub(crate) enabled: bool,
    pub(crate) desc: u64,
    pub(crate) driver: u64,
    pub(crate) device: u64,
}

/// The registers that are not the runner's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Common {
    pub(crate) device_feature_select: u32,
    pub(crate) driver_feature_select: u32,
    pub(crate) driver_features: u64,
    pub(crate) queue_select: u16,
    pub(crate) queues: Vec<QueueSetup>,
}

/// What follows from a write, outside of these registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Nothing,
    /// The driver is ready: doorbells can be attached.
    Started,
    /// The device was reset.
    Reset,
}

impl Common {
    pub(crate) fn at_reset(device: &dyn VirtioDevice) -> Self {
        let queue =
            |size: &u16| QueueSetup { size: *size, enabled: false, desc: 0, driver: 0, device: 0 };
        Self {
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            queue_select: 0,
            queues: device.queue_sizes().iter().map(queue).collect(),
        }
    }

    fn selected(&self) -> Option<&QueueSetup> {
        self.queues.get(usize::from(self.queue_select))
    }

    /// The value of a register, and its size; `None` where none begins.
    pub(crate) fn read(&self, runner: &Runner, offset: u64) -> Option<(u64, usize)> {
        let select = usize::from(self.queue_select);
        let queue = self.selected();
        let slot = runner.slots.get(select);
        let vector = |v: &std::sync::atomic::AtomicU16| u64::from(v.load(Ordering::Acquire));
        let address = |f: fn(&QueueSetup) -> u64| queue.map_or(0, f);
        Some(match offset {
            DEVICE_FEATURE_SELECT => (self.device_feature_select.into(), 4),
            DEVICE_FEATURE => (half(offered(runner), self.device_feature_select), 4),
            DRIVER_FEATURE_SELECT => (self.driver_feature_select.into(), 4),
            DRIVER_FEATURE => (half(self.driver_features, self.driver_feature_select), 4),
            CONFIG_MSIX_VECTOR => (vector(&runner.config_vector), 2),
            NUM_QUEUES => (self.queues.len() as u64, 2),
            DEVICE_STATUS => (runner.status.load(Ordering::SeqCst).into(), 1),
            CONFIG_GENERATION => (runner.config_generation.load(Ordering::Acquire).into(), 1),
            QUEUE_SELECT => (self.queue_select.into(), 2),
            QUEUE_SIZE => (queue.map_or(0, |q| q.size.into()), 2),
            QUEUE_MSIX_VECTOR => (slot.map_or(NO_VECTOR.into(), |s| vector(&s.vector)), 2),
            QUEUE_ENABLE => (queue.map_or(0, |q| q.enabled.into()), 2),
            QUEUE_NOTIFY_OFF | QUEUE_NOTIFY_DATA => (queue.map_or(0, |_| select as u64), 2),
            QUEUE_DESC => (address(|q| q.desc), 8),
            QUEUE_DRIVER => (address(|q| q.driver), 8),
            QUEUE_DEVICE => (address(|q| q.device), 8),
            // The high halves; a driver may use two accesses for an address.
            0x24 => (address(|q| q.desc >> 32), 4),
            0x2c => (address(|q| q.driver >> 32), 4),
            0x34 => (address(|q| q.device >> 32), 4),
            // A reset is over before the write that asks for it returns.
            QUEUE_RESET => (0, 2),
            _ => return None,
        })
    }

    /// Writes a register. Accesses of another size than the register's are ignored (4.1.3.1).
    pub(crate) fn write(&mut self, runner: &Arc<Runner>, offset: u64, data: &[u8]) -> Effect {
        let mut bytes = [0; 8];
        if data.len() > bytes.len() {
            return Effect::Nothing;
        }
        bytes[..data.len()].copy_from_slice(data);
        let value = u64::from_le_bytes(bytes);
        let word = value as u32; // of a 4-byte access; smaller ones likewise below
        match (offset, data.len()) {
            (DEVICE_FEATURE_SELECT, 4) => self.device_feature_select = word,
            (DRIVER_FEATURE_SELECT, 4) => self.driver_feature_select = word,
            (DRIVER_FEATURE, 4) => self.set_driver_feature(runner, word),
            (CONFIG_MSIX_VECTOR, 2) => {
                runner.config_vector.store(known_vector(runner, value as u16), Ordering::Release);
            }
            (DEVICE_STATUS, 1) => return self.set_status(runner, value as u8),
            (QUEUE_SELECT, 2) => self.queue_select = value as u16,
            (QUEUE_MSIX_VECTOR, 2) => {
                if let Some(slot) = runner.slots.get(usize::from(self.queue_select)) {
                    slot.vector.store(known_vector(runner, value as u16), Ordering::Release);
                }
            }
            (QUEUE_ENABLE, 2) if value == 1 => self.enable_queue(runner),
            (QUEUE_RESET, 2) if value == 1 => self.reset_queue(runner),
            _ => self.set_up_queue(runner, offset, value, data.len()),
        }
        Effect::Nothing
    }

    /// Sizes and addresses, which are fixed once the queue is enabled (4.1.4.3.2).
    fn set_up_queue(&mut self, runner: &Runner, offset: u64, value: u64, size: usize) {
        let select = usize::from(self.queue_select);
        let Some(queue) = self.queues.get_mut(select).filter(|q| !q.enabled) else { return };
        let max = runner.device.queue_sizes()[select];
        let low = |old: u64| old & !0xffff_ffff | value;
        let high = |old: u64| old & 0xffff_ffff | value << 32;
        match (offset, size) {
            (QUEUE_SIZE, 2) => {
                let wanted = value as u16; // of a 2-byte access
                if wanted.is_power_of_two() && wanted <= max {
                    queue.size = wanted;
                }
            }
            (QUEUE_DESC, 8) => queue.desc = value,
            (QUEUE_DRIVER, 8) => queue.driver = value,
            (QUEUE_DEVICE, 8) => queue.device = value,
            (QUEUE_DESC, 4) => queue.desc = low(queue.desc),
            (QUEUE_DRIVER, 4) => queue.driver = low(queue.driver),
            (QUEUE_DEVICE, 4) => queue.device = low(queue.device),
            (0x24, 4) => queue.desc = high(queue.desc),
            (0x2c, 4) => queue.driver = high(queue.driver),
            (0x34, 4) => queue.device = high(queue.device),
            _ => {}
        }
    }

    fn set_driver_feature(&mut self, runner: &Runner, word: u32) {
        let agreed = runner.status.load(Ordering::SeqCst) & status::FEATURES_OK != 0;
        match self.driver_feature_select {
            _ if agreed => {}
            0 => self.driver_features = self.driver_features & !0xffff_ffff | u64::from(word),
            1 => {
                self.driver_features = self.driver_features & 0xffff_ffff | u64::from(word) << 32;
            }
            _ => {}
        }
    }

    /// Bits can only be added; 0 resets (2.1).
    fn set_status(&mut self, runner: &Arc<Runner>, value: u8) -> Effect {
        if value == 0 {
            runner.reset();
            *self = Self::at_reset(&*runner.device);
            return Effect::Reset;
        }
        let old = runner.status.load(Ordering::SeqCst);
        let mut new = value & !old & !status::DEVICE_NEEDS_RESET;
        let known = self.driver_features & !offered(runner) == 0;
        if !known || self.driver_features & features::VERSION_1 == 0 {
            new &= !status::FEATURES_OK;
        }
        if (old | new) & status::FEATURES_OK == 0 {
            new &= !status::DRIVER_OK;
        }
        let start = new & status::DRIVER_OK != 0;
        if start {
            runner.device.start(self.driver_features);
        }
        runner.status.fetch_or(new, Ordering::SeqCst);
        if start { Effect::Started } else { Effect::Nothing }
    }

    fn enable_queue(&mut self, runner: &Runner) {
        let select = usize::from(self.queue_select);
        let agreed = runner.status.load(Ordering::SeqCst) & status::FEATURES_OK != 0;
        let Some(queue) = self.queues.get(select).filter(|q| agreed && !q.enabled) else { return };
        let max_size = runner.device.queue_sizes()[select];
        let state = queue_state(queue, max_size, self.driver_features, (0, 0));
        match Ring::new(state).and_then(|ring| ring.check(&runner.memory.dma()).map(|()| ring)) {
            Ok(ring) => {
                *lock(&runner.slots[select].ring) = Some(ring);
                self.queues[select].enabled = true;
            }
            Err(broken) => runner.needs_reset(broken),
        }
    }

    /// 2.6.1: only with the feature, and only an enabled queue.
    fn reset_queue(&mut self, runner: &Runner) {
        let select = usize::from(self.queue_select);
        let may = self.driver_features & features::RING_RESET != 0;
        if may && self.queues.get(select).is_some_and(|q| q.enabled) {
            runner.close(select);
            runner.slots[select].vector.store(NO_VECTOR, Ordering::Release);
            self.queues[select] = Self::at_reset(&*runner.device).queues[select];
        }
    }
}

/// A queue as the `virtio-queue` crate wants it; `at` are the next available and used indices.
pub(crate) fn queue_state(
    queue: &QueueSetup,
    max_size: u16,
    driver_features: u64,
    at: (u16, u16),
) -> QueueState {
    QueueState {
        max_size,
        next_avail: at.0,
        next_used: at.1,
        event_idx_enabled: driver_features & features::EVENT_IDX != 0,
        size: queue.size,
        ready: true,
        desc_table: queue.desc,
        avail_ring: queue.driver,
        used_ring: queue.device,
    }
}

/// All feature bits on offer.
pub(crate) fn offered(runner: &Runner) -> u64 {
    runner.device.features() | features::TRANSPORT
}

fn half(value: u64, select: u32) -> u64 {
    match select {
        0 => value & 0xffff_ffff,
        1 => value >> 32,
        _ => 0,
    }
}

/// 4.1.5.1.2: a vector that is not there reads back as none.
fn known_vector(runner: &Runner, vector: u16) -> u16 {
    if vector < runner.msix.vectors() { vector } else { NO_VECTOR }
}

/// The reason a saved register set is refused, if it is.
pub(crate) fn impossible(common: &Common, sizes: &[u16]) -> Option<Broken> {
    if common.queues.len() != sizes.len() {
        return Some(Broken("has another number of queues"));
    }
    let fits =
        |(queue, max): (&QueueSetup, &u16)| queue.size.is_power_of_two() && queue.size <= *max;
    (!common.queues.iter().zip(sizes).all(fits)).then_some(Broken("has queues of other sizes"))
}
