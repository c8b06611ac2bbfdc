//! The entropy source (5.4).

mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use bus::{Section, SectionError};

use crate::runner::lock;
use crate::{Broken, Chain, DeviceType, Outcome, VirtioDevice};
use state::EntropyState;

/// Descriptors of the queue.
const QUEUE_SIZE: u16 = 64;
/// Most bytes of one request; the rest of a longer buffer is left alone, as 5.4.6.1 allows.
/// Without it a guest makes the host draw 4 GiB of random numbers with one descriptor.
const REQUEST_MAX: u64 = 64 << 10;
/// Bytes drawn at once: the kernel gives so many without being interrupted.
const PIECE: usize = 256;

/// Where random bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntropySource {
    /// The host's kernel.
    Host,
    /// This number: the same bytes in each run, for runs that must repeat. Not for secrets.
    Seeded(u64),
}

/// An entropy source.
pub struct Entropy {
    // Fixed configuration.
    source: EntropySource,
    // State.
    seed: Mutex<u64>,
}

impl Entropy {
    /// A device that gives bytes of `source`.
    pub fn new(source: EntropySource) -> Arc<Self> {
        Arc::new(Self { source, seed: Mutex::new(first_seed(source)) })
    }

    /// Fills `piece`; false when the host has nothing to give.
    fn fill(&self, piece: &mut [u8]) -> bool {
        match self.source {
            EntropySource::Host => {
                let flags = rustix::rand::GetRandomFlags::empty();
                rustix::io::retry_on_intr(|| rustix::rand::getrandom(&mut *piece, flags))
                    == Ok(piece.len())
            }
            EntropySource::Seeded(_) => {
                let mut seed = lock(&self.seed);
                for word in piece.chunks_mut(8) {
                    word.copy_from_slice(&split_mix(&mut seed).to_le_bytes()[..word.len()]);
                }
                true
            }
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): every seed is a good one.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

fn first_seed(source: EntropySource) -> u64 {
    if let EntropySource::Seeded(seed) = source { seed } else { 0 }
}

impl VirtioDevice for Entropy {
    fn device_type(&self) -> DeviceType {
        DeviceType::Entropy
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn config_read(&self, _offset: u64, _data: &mut [u8]) {}

    fn start(&self, _features: u64) {}

    fn handle(&self, _queue: usize, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        let wanted = chain.writable.size().min(REQUEST_MAX);
        let mut done = 0;
        while done < wanted {
            let size = (wanted - done).min(PIECE as u64);
            let mut piece = [0; PIECE];
            let piece = &mut piece[..size as usize];
            if !self.fill(piece) {
                break;
            }
            let wild = |_| Broken("gave the entropy source a buffer that is not RAM");
            chain.writable.write(done, piece).map_err(wild)?;
            done += size;
        }
        Ok(Outcome::Done(done as u32)) // at most REQUEST_MAX
    }

    fn reset(&self) {
        *lock(&self.seed) = first_seed(self.source);
    }

    fn save(&self) -> Section {
        Section::encode(&EntropyState { seed: *lock(&self.seed) })
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        let EntropyState { seed } = section.decode()?;
        *lock(&self.seed) = seed;
        Ok(())
    }
}
