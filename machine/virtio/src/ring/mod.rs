//! One split virtqueue (2.7), over the `virtio-queue` crate, which walks descriptors and rings.
//!
//! That crate ends a broken chain as if it were whole. This module tells the difference.

use std::sync::atomic::Ordering;

use guest_memory::DmaMemory;
use virtio_queue::{Queue, QueueOwnedT, QueueState, QueueT};
use vm_memory::{Bytes, GuestAddress};

use crate::Broken;
use crate::chain::Gathered;
use crate::spec::CHAIN_MAX;

/// Flag of the available ring: do not interrupt (2.7.6).
const AVAIL_NO_INTERRUPT: u16 = 1;

/// A queue the driver has enabled.
pub(crate) struct Ring {
    queue: Queue,
    pub(crate) gathered: Gathered,
    /// Something was put into the used ring that the driver may have to be told of.
    added: bool,
}

impl Ring {
    /// A ring in this state.
    ///
    /// # Errors
    /// When size or alignment are impossible.
    pub(crate) fn new(state: QueueState) -> Result<Self, Broken> {
        let queue = Queue::try_from(state)
            .map_err(|_| Broken("gave a queue an impossible size or misaligned rings"))?;
        Ok(Self { queue, gathered: Gathered::default(), added: false })
    }

    pub(crate) fn state(&self) -> QueueState {
        self.queue.state()
    }

    /// All of its parts are RAM.
    pub(crate) fn check(&self, memory: &DmaMemory) -> Result<(), Broken> {
        let valid = self.queue.is_valid(memory);
        if valid { Ok(()) } else { Err(Broken("put a queue where no RAM is")) }
    }

    /// Takes the next request off the available ring and gathers its descriptors. Returns its
    /// head, for [`Ring::complete`].
    pub(crate) fn pop(&mut self, memory: &DmaMemory) -> Result<Option<u16>, Broken> {
        let Self { queue, gathered, .. } = self;
        let wild = Broken("put an available ring where no RAM is");
        let available = queue.avail_idx(memory, Ordering::Acquire).map_err(|_| wild)?;
        if available.0 == queue.next_avail() {
            return Ok(None);
        }
        let mut heads = queue
            .iter(memory)
            .map_err(|_| Broken("moved an available index by more than the queue's size"))?;
        let chain = heads.next().ok_or(wild)?;
        let head = chain.head_index();
        gathered.readable.clear();
        gathered.writable.clear();
        let (mut unfinished, mut count) = (true, 0);
        for descriptor in chain {
            count += 1;
            if count > CHAIN_MAX {
                return Err(Broken("made a request of too many descriptors"));
            }
            unfinished = descriptor.has_next();
            let range = (descriptor.addr().0, descriptor.len() as usize);
            if descriptor.is_write_only() {
                gathered.writable.push(range);
            } else if gathered.writable.is_empty() {
                gathered.readable.push(range);
            } else {
                // 2.7.4.2: readable descriptors come first.
                return Err(Broken("put a readable descriptor after a writable one"));
            }
        }
        if unfinished {
            return Err(Broken("made a descriptor chain with a loop or a wild link"));
        }
        Ok(Some(head))
    }

    /// Puts the request that was popped last back.
    pub(crate) fn put_back(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Gives a request back to the driver.
    pub(crate) fn complete(
        &mut self,
        memory: &DmaMemory,
        head: u16,
        written: u32,
    ) -> Result<(), Broken> {
        self.added = true;
        self.queue
            .add_used(memory, head, written)
            .map_err(|_| Broken("put a used ring where no RAM is"))
    }

    /// The driver need not ring while we look at the queue anyway.
    pub(crate) fn silence(&mut self, memory: &DmaMemory) -> Result<(), Broken> {
        self.queue
            .disable_notification(memory)
            .map_err(|_| Broken("put a used ring where no RAM is"))
    }

    /// The driver shall ring again; true when something came before it could know.
    pub(crate) fn listen(&mut self, memory: &DmaMemory) -> Result<bool, Broken> {
        self.queue
            .enable_notification(memory)
            .map_err(|_| Broken("put a queue's rings where no RAM is"))
    }

    /// The driver is to be interrupted for what was completed since this was last asked.
    pub(crate) fn must_interrupt(&mut self, memory: &DmaMemory) -> Result<bool, Broken> {
        if !std::mem::take(&mut self.added) {
            return Ok(false);
        }
        let fault = |_| Broken("put an available ring where no RAM is");
        let wanted = self.queue.needs_notification(memory).map_err(|_| fault(()))?;
        if !wanted || self.queue.event_idx_enabled() {
            return Ok(wanted);
        }
        let flags: u16 = memory
            .load(GuestAddress(self.queue.avail_ring()), Ordering::Relaxed)
            .map_err(|_| fault(()))?;
        Ok(u16::from_le(flags) & AVAIL_NO_INTERRUPT == 0)
    }
}

#[cfg(test)]
mod tests;
