//! Saved form of a virtio device: the transport, its queues, and the device's own section.

use std::sync::atomic::Ordering;

use minicbor::{Decode, Encode};
use statecodec::{Saved, Section, SectionError};

use super::Transport;
use super::common::{Common, QueueSetup, impossible, offered, queue_state};
use crate::ring::Ring;
use crate::runner::lock;
use crate::spec::{NO_VECTOR, features, status};

/// Version 1.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct VirtioPciState {
    #[n(0)]
    status: u8,
    #[n(1)]
    isr: u8,
    #[n(2)]
    config_vector: u16,
    #[n(3)]
    config_generation: u8,
    #[n(4)]
    device_feature_select: u32,
    #[n(5)]
    driver_feature_select: u32,
    #[n(6)]
    driver_features: u64,
    #[n(7)]
    queue_select: u16,
    #[n(8)]
    queues: Vec<QueueSaved>,
    #[n(9)]
    device: Section,
}

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct QueueSaved {
    #[n(0)]
    size: u16,
    #[n(1)]
    enabled: bool,
    #[n(2)]
    desc: u64,
    #[n(3)]
    driver: u64,
    #[n(4)]
    device: u64,
    #[n(5)]
    vector: u16,
    #[n(6)]
    next_avail: u16,
    #[n(7)]
    next_used: u16,
}

impl Saved for VirtioPciState {
    const KIND: &'static str = "virtio-pci";
    const VERSION: u16 = 1;
}

impl VirtioPciState {
    pub(super) fn of(transport: &Transport) -> Self {
        let runner = &transport.runner;
        let Common {
            device_feature_select,
            driver_feature_select,
            driver_features,
            queue_select,
            queues,
        } = lock(&transport.common).clone();
        let queue = |(queue, slot): (QueueSetup, &crate::runner::Slot)| {
            let QueueSetup { size, enabled, desc, driver, device } = queue;
            let at = lock(&slot.ring).as_ref().map(|ring| ring.state());
            QueueSaved {
                size,
                enabled,
                desc,
                driver,
                device,
                vector: slot.vector.load(Ordering::Acquire),
                next_avail: at.map_or(0, |s| s.next_avail),
                next_used: at.map_or(0, |s| s.next_used),
            }
        };
        Self {
            status: runner.status.load(Ordering::SeqCst),
            isr: runner.isr.load(Ordering::Acquire),
            config_vector: runner.config_vector.load(Ordering::Acquire),
            config_generation: runner.config_generation.load(Ordering::Acquire),
            device_feature_select,
            driver_feature_select,
            driver_features,
            queue_select,
            queues: queues.into_iter().zip(&runner.slots).map(queue).collect(),
            device: runner.device.save(),
        }
    }

    /// Checks all before it changes anything.
    pub(super) fn put_into(self, transport: &Transport) -> Result<(), SectionError> {
        let runner = &transport.runner;
        let refuse = |reason: String| SectionError::Impossible { kind: Self::KIND, reason };
        let common = Common {
            device_feature_select: self.device_feature_select,
            driver_feature_select: self.driver_feature_select,
            driver_features: self.driver_features,
            queue_select: self.queue_select,
            queues: self.queues.iter().map(QueueSaved::setup).collect(),
        };
        let sizes = runner.device.queue_sizes();
        if let Some(reason) = impossible(&common, sizes) {
            return Err(refuse(reason.to_string()));
        }
        let agreed = self.status & status::FEATURES_OK != 0;
        let unknown = self.driver_features & !offered(runner);
        if agreed && (unknown != 0 || self.driver_features & features::VERSION_1 == 0) {
            return Err(refuse(format!("features {:#x} were never offered", self.driver_features)));
        }
        let known = |vector: u16| vector == NO_VECTOR || vector < runner.msix.vectors();
        if !known(self.config_vector) || !self.queues.iter().all(|q| known(q.vector)) {
            return Err(refuse("it uses interrupt vectors that are not there".into()));
        }
        let mut rings = Vec::new();
        for (queue, max_size) in self.queues.iter().zip(sizes) {
            let at = (queue.next_avail, queue.next_used);
            let state = queue_state(&queue.setup(), *max_size, self.driver_features, at);
            let ring = queue.enabled.then(|| Ring::new(state)).transpose();
            rings.push(ring.map_err(|broken| refuse(broken.to_string()))?);
        }
        runner.device.restore(&self.device)?;
        *lock(&transport.common) = common;
        for ((slot, ring), queue) in runner.slots.iter().zip(rings).zip(&self.queues) {
            *lock(&slot.ring) = ring;
            slot.vector.store(queue.vector, Ordering::Release);
        }
        runner.status.store(self.status, Ordering::SeqCst);
        runner.isr.store(self.isr, Ordering::Release);
        runner.drive_pin();
        runner.config_vector.store(self.config_vector, Ordering::Release);
        runner.config_generation.store(self.config_generation, Ordering::Release);
        Ok(())
    }
}

impl QueueSaved {
    fn setup(&self) -> QueueSetup {
        let Self { size, enabled, desc, driver, device, .. } = *self;
        QueueSetup { size, enabled, desc, driver, device }
    }
}
