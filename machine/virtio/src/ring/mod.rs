//! One split virtqueue (2.7), over the `virtio-queue` crate, which walks descriptors and rings.
//!
//! That crate ends a broken chain as if it were whole. This module tells the difference.

use std::num::Wrapping;
use std::sync::atomic::{Ordering, fence};

use guest_memory::DmaMemory;
use virtio_queue::{Queue, QueueOwnedT, QueueState, QueueT};
use vm_memory::{Bytes, GuestAddress};

use crate::Broken;
use crate::chain::Gathered;
use crate::spec::CHAIN_MAX;

/// Flag of the available ring: do not interrupt (2.7.6).
const AVAIL_NO_INTERRUPT: u16 = 1;
/// The used ring: flags and index, then elements (2.7.8).
const USED_HEADER: u64 = 4;
const USED_ELEMENT: u64 = 8;

/// A queue the driver has enabled.
pub(crate) struct Ring {
    queue: Queue,
    /// The descriptors of the requests that are being looked at: one, or several as one.
    pub(crate) gathered: Gathered,
    /// Their heads, and how many bytes of each can be written.
    heads: Vec<(u16, u64)>,
    /// Put into the used ring since the driver was last thought of.
    added: Wrapping<u16>,
}

impl Ring {
    /// A ring in this state.
    ///
    /// # Errors
    /// When size or alignment are impossible.
    pub(crate) fn new(state: QueueState) -> Result<Self, Broken> {
        let queue = Queue::try_from(state)
            .map_err(|_| Broken("gave a queue an impossible size or misaligned rings"))?;
        let (gathered, heads) = Default::default();
        Ok(Self { queue, gathered, heads, added: Wrapping(0) })
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
    /// head.
    pub(crate) fn pop(&mut self, memory: &DmaMemory) -> Result<Option<u16>, Broken> {
        self.gathered.readable.clear();
        self.gathered.writable.clear();
        self.heads.clear();
        self.pop_more(memory)
    }

    /// Takes another, to be one request with those before it.
    pub(crate) fn pop_more(&mut self, memory: &DmaMemory) -> Result<Option<u16>, Broken> {
        let Self { queue, gathered, heads, .. } = self;
        let wild = Broken("put an available ring where no RAM is");
        let available = queue.avail_idx(memory, Ordering::Acquire).map_err(|_| wild)?;
        if available.0 == queue.next_avail() {
            return Ok(None);
        }
        let mut available_heads = queue
            .iter(memory)
            .map_err(|_| Broken("moved an available index by more than the queue's size"))?;
        let chain = available_heads.next().ok_or(wild)?;
        let head = chain.head_index();
        let first_writable = gathered.writable.len();
        let (mut unfinished, mut count) = (true, gathered.readable.len() + first_writable);
        for descriptor in chain {
            count += 1;
            if count > CHAIN_MAX {
                return Err(Broken("made a request of too many descriptors"));
            }
            unfinished = descriptor.has_next();
            let range = (descriptor.addr().0, descriptor.len() as usize);
            if descriptor.is_write_only() {
                gathered.writable.push(range);
            } else if gathered.writable.len() == first_writable {
                gathered.readable.push(range);
            } else {
                // 2.7.4.2: readable descriptors come first.
                return Err(Broken("put a readable descriptor after a writable one"));
            }
        }
        if unfinished {
            return Err(Broken("made a descriptor chain with a loop or a wild link"));
        }
        let writable = &gathered.writable[first_writable..];
        heads.push((head, writable.iter().map(|(_, size)| *size as u64).sum()));
        Ok(Some(head))
    }

    /// The request that is being looked at is kept by the device, which will complete it.
    pub(crate) fn keep(&mut self) {
        self.heads.clear();
    }

    /// Gives one that was kept back to the driver.
    pub(crate) fn complete_kept(
        &mut self,
        memory: &DmaMemory,
        head: u16,
        written: u32,
    ) -> Result<(), Broken> {
        self.added += 1;
        let wild = Broken("put a used ring where no RAM is");
        self.queue.add_used(memory, head, written).map_err(|_| wild)
    }

    /// The first of the requests that are being looked at.
    pub(crate) fn head(&self) -> u16 {
        self.heads.first().map_or(0, |(head, _)| *head)
    }

    /// How many requests are being looked at as one.
    pub(crate) fn requests(&self) -> u16 {
        self.heads.len() as u16 // at most the queue's size
    }

    /// Puts all requests that are being looked at back.
    pub(crate) fn put_back(&mut self) {
        for _ in self.heads.drain(..) {
            self.queue.go_to_previous_position();
        }
    }

    /// Gives the requests that are being looked at back to the driver, which sees all at once: so
    /// many bytes were written, from the front.
    pub(crate) fn complete(&mut self, memory: &DmaMemory, written: u32) -> Result<(), Broken> {
        let wild = Broken("put a used ring where no RAM is");
        let state = self.queue.state();
        let (count, mut left) = (self.heads.len() as u16, u64::from(written));
        for (index, (head, room)) in (0u16..).zip(self.heads.drain(..)) {
            let part = if index + 1 == count { left } else { left.min(room) };
            left -= part;
            self.added += 1;
            if index + 1 == count {
                // This one shows the others, too.
                self.queue.set_next_used(state.next_used.wrapping_add(index));
                return self.queue.add_used(memory, head, part as u32).map_err(|_| wild);
            }
            let at = u64::from(state.next_used.wrapping_add(index) % state.size);
            let element = [u32::from(head).to_le_bytes(), (part as u32).to_le_bytes()].concat();
            let gpa = state.used_ring.checked_add(USED_HEADER + USED_ELEMENT * at);
            let gpa = gpa.ok_or(wild)?;
            memory.write_slice(&element, GuestAddress(gpa)).map_err(|_| wild)?;
        }
        Ok(())
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
        let added = std::mem::take(&mut self.added);
        if added.0 == 0 {
            return Ok(false);
        }
        // 2.7.10: the index is written before what the driver wants is read.
        fence(Ordering::SeqCst);
        let QueueState { avail_ring, size, next_used, event_idx_enabled, .. } = self.queue.state();
        let offset = if event_idx_enabled { 4 + 2 * u64::from(size) } else { 0 };
        let wild = Broken("put an available ring where no RAM is");
        let gpa = avail_ring.checked_add(offset).ok_or(wild)?;
        let word: u16 = memory.load(GuestAddress(gpa), Ordering::Relaxed).map_err(|_| wild)?;
        let word = u16::from_le(word);
        if event_idx_enabled {
            let passed = Wrapping(next_used) - Wrapping(word) - Wrapping(1);
            return Ok(passed < added);
        }
        Ok(word & AVAIL_NO_INTERRUPT == 0)
    }
}

#[cfg(test)]
mod tests;
