//! A journal of what was dropped, for whoever mirrors the TLB.

/// Entries of a journal, before everything counts as dropped.
const FLUSHES_MAX: usize = 32;

/// What was dropped at once.
///
/// Translations of the upper half that are not global belong to no PCID: each [`Flush::Root`], and
/// the [`Flush::Pcid`] of the PCID in force, drops all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// One page, of every PCID, global or not.
    Page {
        /// Its first byte: a canonical address.
        linear: u64,
        /// Its size: all of a large page goes, though only pieces of it were filled. Never too
        /// small; rarely too large.
        shift: u8,
    },
    /// The lower half of this PCID.
    Pcid(u16),
    /// CR3 was loaded: this PCID is in force now.
    Root {
        /// Which; always 0 without CR4.PCIDE.
        pcid: u16,
        /// What is known of its lower half still holds; else it was dropped.
        kept: bool,
    },
    /// Everything that is not global, and the lower half of every PCID.
    Local,
    /// Everything.
    All,
}

/// What was dropped since the last look, in order: see [`crate::Mmu::take_flushes`].
#[derive(Debug, Clone, Copy)]
pub struct Flushes {
    list: [Flush; FLUSHES_MAX],
    count: usize,
    pcid: u16,
}

impl Flushes {
    pub(crate) const fn none(pcid: u16) -> Self {
        Self { list: [Flush::All; FLUSHES_MAX], count: 0, pcid }
    }

    /// The PCID in force after all of them.
    pub const fn pcid(&self) -> u16 {
        self.pcid
    }

    /// In order.
    pub fn as_slice(&self) -> &[Flush] {
        &self.list[..self.count]
    }

    pub(crate) fn note(&mut self, flush: Flush) {
        if let Flush::Root { pcid, .. } = flush {
            self.pcid = pcid;
        }
        match self.list[..self.count] {
            // Nothing came between: there is nothing left to drop.
            [.., last] if last == Flush::All && !matches!(flush, Flush::Root { .. }) => {}
            _ if flush == Flush::All || self.count == FLUSHES_MAX => {
                self.list[0] = Flush::All;
                self.count = 1;
            }
            _ => {
                self.list[self.count] = flush;
                self.count += 1;
            }
        }
    }
}
