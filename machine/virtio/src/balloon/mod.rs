//! The memory balloon (5.5): what of its memory a guest does without goes back to the host.
//!
//! There are three ways: the host asks for pages and the guest gives some up (inflating); the guest
//! reports pages as they become free; and the host asks for all that are free now (hinting). What
//! comes by any of them is given to the host's kernel at once, and is zero when the guest uses it
//! again. Deflating needs nothing of us.
//!
//! PAGE_POISON is not offered: guests that fill free pages with a pattern then report none.

mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use bus::{Section, SectionError};
use guest_memory::GuestMemory;

use crate::chain::Span;
use crate::runner::lock;
use crate::{Broken, Chain, DeviceType, Handle, Outcome, VirtioDevice};
use spec::*;
use state::BalloonState;

/// Descriptors of a queue.
const QUEUE_SIZE: u16 = 128;
/// Page numbers taken of one request; Linux sends 256. One request could otherwise hold back a pause
/// for a billion of them.
const PAGES_MAX: usize = 4096;
/// Statistics taken of one request; there are sixteen.
const STATS_MAX: usize = 64;

/// What a guest says of its memory; `None` where it says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Bytes swapped in, ever.
    pub swapped_in_bytes: Option<u64>,
    /// Bytes swapped out, ever.
    pub swapped_out_bytes: Option<u64>,
    /// Page faults that took a disk, ever.
    pub major_faults: Option<u64>,
    /// Page faults that took none, ever.
    pub minor_faults: Option<u64>,
    /// Bytes nobody uses.
    pub free_bytes: Option<u64>,
    /// Bytes there are.
    pub total_bytes: Option<u64>,
    /// Bytes programs could have without swapping.
    pub available_bytes: Option<u64>,
    /// Bytes that are copies of what is on disks.
    pub cache_bytes: Option<u64>,
}

/// A balloon.
pub struct Balloon {
    // Wiring.
    memory: Arc<GuestMemory>,
    handle: OnceLock<Handle>,
    // State.
    state: Mutex<State>,
    // Counters.
    released_bytes: AtomicU64,
}

struct State {
    /// Pages the guest shall do without.
    target: u32,
    /// Pages it says it does without.
    actual: u32,
    hint: u32,
    hinting: bool,
    next_hint: u32,
    stats: MemoryStats,
    /// The driver shall have its buffer back, to fill it anew.
    stats_wanted: bool,
}

impl State {
    const fn at_reset() -> Self {
        Self {
            target: 0,
            actual: 0,
            hint: HINT_STOP,
            hinting: false,
            next_hint: HINT_FIRST,
            stats: MemoryStats {
                swapped_in_bytes: None,
                swapped_out_bytes: None,
                major_faults: None,
                minor_faults: None,
                free_bytes: None,
                total_bytes: None,
                available_bytes: None,
                cache_bytes: None,
            },
            stats_wanted: false,
        }
    }
}

impl Balloon {
    /// A balloon without air.
    pub fn new(memory: Arc<GuestMemory>) -> Arc<Self> {
        let (handle, state) = (OnceLock::new(), Mutex::new(State::at_reset()));
        Arc::new(Self { memory, handle, state, released_bytes: AtomicU64::new(0) })
    }

    /// Asks the guest to do without so many bytes.
    pub fn set_target(&self, bytes: u64) {
        lock(&self.state).target = u32::try_from(bytes / PAGE_SIZE).unwrap_or(u32::MAX);
        self.config_changed();
    }

    /// Bytes the guest is to do without, and those it says it does.
    pub fn size(&self) -> (u64, u64) {
        let state = lock(&self.state);
        (u64::from(state.target) * PAGE_SIZE, u64::from(state.actual) * PAGE_SIZE)
    }

    /// Asks the guest for all pages that are free now.
    pub fn reclaim(&self) {
        let mut state = lock(&self.state);
        state.hint = state.next_hint;
        state.next_hint = state.next_hint.wrapping_add(1).max(HINT_FIRST);
        state.hinting = false;
        drop(state);
        self.config_changed();
    }

    /// What the guest has said of its memory last. It is asked to say it again.
    pub fn stats(&self) -> MemoryStats {
        let mut state = lock(&self.state);
        state.stats_wanted = true;
        let stats = state.stats;
        drop(state);
        if let Some(handle) = self.handle.get() {
            handle.kick(STATS);
        }
        stats
    }

    /// Bytes given to the host, ever. The guest may have taken them back since.
    pub fn released_bytes(&self) -> u64 {
        self.released_bytes.load(Ordering::Relaxed)
    }

    fn config_changed(&self) {
        if let Some(handle) = self.handle.get() {
            handle.config_changed();
        }
    }

    fn release(&self, gpa: u64, size: u64) {
        // A host that refuses goes on keeping the memory: nothing is lost.
        let released = self.memory.release(gpa, size).unwrap_or(0);
        self.released_bytes.fetch_add(released, Ordering::Relaxed);
    }

    /// Pages by their numbers.
    fn inflate(&self, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        let count = (chain.readable.size() / 4).min(PAGES_MAX as u64) as usize;
        let mut bytes = vec![0; count * 4];
        let wild = |_| Broken("sent page numbers that are not in RAM");
        chain.readable.read(0, &mut bytes).map_err(wild)?;
        let number = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let mut pages: Vec<u32> = bytes.chunks_exact(4).map(number).collect();
        pages.sort_unstable();
        pages.dedup();
        for run in pages.chunk_by(|a, b| a.wrapping_add(1) == *b) {
            self.release(u64::from(run[0]) * PAGE_SIZE, run.len() as u64 * PAGE_SIZE);
        }
        Ok(Outcome::Done(0))
    }

    fn release_all(&self, span: &Span<'_>) {
        span.ranges().for_each(|(gpa, size)| self.release(gpa, size));
    }

    /// A command's ID, or free pages between two of those.
    fn hinted(&self, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        if chain.readable.size() >= 4 {
            let mut id = [0; 4];
            let wild = |_| Broken("sent a command's ID that is not in RAM");
            chain.readable.read(0, &mut id).map_err(wild)?;
            let mut state = lock(&self.state);
            let was_hinting = state.hinting;
            state.hinting = state.hint >= HINT_FIRST && u32::from_le_bytes(id) == state.hint;
            let is_done = was_hinting && !state.hinting;
            if is_done {
                // The driver has its pages back when it sees that.
                state.hint = HINT_DONE;
            }
            drop(state);
            if is_done {
                self.config_changed();
            }
        } else if lock(&self.state).hinting {
            self.release_all(&chain.writable);
        }
        Ok(Outcome::Done(0))
    }

    /// The buffer stays here until statistics are wanted: that it comes back is how the driver is
    /// asked.
    fn take_stats(&self, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        let count = (chain.readable.size() as usize / STAT_SIZE).min(STATS_MAX);
        let mut bytes = vec![0; count * STAT_SIZE];
        let wild = |_| Broken("sent statistics that are not in RAM");
        chain.readable.read(0, &mut bytes).map_err(wild)?;
        let mut state = lock(&self.state);
        for stat in bytes.chunks_exact(STAT_SIZE) {
            state.stats.set(stat);
        }
        let wanted = std::mem::take(&mut state.stats_wanted);
        Ok(if wanted { Outcome::Done(0) } else { Outcome::Wait })
    }
}

impl MemoryStats {
    /// Takes one as the driver sends it. Tags that are not known are passed over.
    fn set(&mut self, stat: &[u8]) {
        let Some((tag, value)) = stat.split_first_chunk::<2>() else { return };
        let Ok(value) = value.try_into().map(u64::from_le_bytes) else { return };
        let place = match u16::from_le_bytes(*tag) {
            0 => &mut self.swapped_in_bytes,
            1 => &mut self.swapped_out_bytes,
            2 => &mut self.major_faults,
            3 => &mut self.minor_faults,
            4 => &mut self.free_bytes,
            5 => &mut self.total_bytes,
            6 => &mut self.available_bytes,
            7 => &mut self.cache_bytes,
            _ => return,
        };
        // A driver says all ones for what it does not know.
        *place = (value != u64::MAX).then_some(value);
    }
}

impl VirtioDevice for Balloon {
    fn device_type(&self) -> DeviceType {
        DeviceType::Balloon
    }

    fn features(&self) -> u64 {
        F_STATS_VQ | F_DEFLATE_ON_OOM | F_FREE_PAGE_HINT | F_PAGE_REPORTING
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE; REPORTING + 1]
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        let State { target, actual, hint, .. } = &*lock(&self.state);
        let mut config = [0; CONFIG_SIZE];
        for (to, from) in config.chunks_exact_mut(4).zip([target, actual, hint]) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        let from = usize::try_from(offset).ok().and_then(|at| config.get(at..)).unwrap_or_default();
        for (to, byte) in data.iter_mut().zip(from) {
            *to = *byte;
        }
    }

    fn config_write(&self, offset: u64, data: &[u8]) {
        if let (ACTUAL, Ok(value)) = (offset, data.try_into()) {
            lock(&self.state).actual = u32::from_le_bytes(value);
        }
    }

    fn attach(&self, handle: Handle) {
        let attached = self.handle.set(handle);
        assert!(attached.is_ok(), "a balloon is attached once");
    }

    fn start(&self, _features: u64) {}

    fn handle(&self, queue: usize, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        match queue {
            INFLATE => self.inflate(chain),
            DEFLATE => Ok(Outcome::Done(0)),
            STATS => self.take_stats(chain),
            FREE_PAGES => self.hinted(chain),
            _ => {
                self.release_all(&chain.writable);
                Ok(Outcome::Done(0))
            }
        }
    }

    fn reset(&self) {
        let state = &mut *lock(&self.state);
        // What the host has asked for outlives the driver; what the driver has given does not.
        let target = state.target;
        *state = State { target, ..State::at_reset() };
    }

    fn save(&self) -> Section {
        let State { target, actual, hint, hinting, next_hint, stats: _, stats_wanted: _ } =
            *lock(&self.state);
        Section::encode(&BalloonState { target, actual, hint, hinting, next_hint })
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        let BalloonState { target, actual, hint, hinting, next_hint } = section.decode()?;
        let next_hint = next_hint.max(HINT_FIRST);
        *lock(&self.state) =
            State { target, actual, hint, hinting, next_hint, ..State::at_reset() };
        Ok(())
    }
}
