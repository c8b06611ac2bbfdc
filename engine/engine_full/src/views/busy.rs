//! Address spaces that are busy, and the mirrors they get.

use std::io;
use std::time::{Duration, Instant};

use guest_memory::GuestMemory;

use super::{Mirror, Selector, Space, Views, forget_jumps};

/// Calls for mappings in the mirrors of all vCPUs together, at most: a call may cut a mapping in three.
const MAPPINGS_MAX: usize = 24_000;

/// The same, where the host allows a process fewer mappings than usual.
pub(super) fn mappings_max() -> usize {
    let allowed = std::fs::read_to_string("/proc/sys/vm/max_map_count");
    let allowed = allowed.ok().and_then(|text| text.trim().parse::<usize>().ok());
    allowed.map_or(MAPPINGS_MAX, |allowed| MAPPINGS_MAX.min(allowed / 3))
}
impl Views {
    /// GS and FS base of user code.
    pub(crate) fn user_bases(&self) -> [u64; 2] {
        let space = &self.spaces[self.current];
        space.mirror.as_ref().map_or_else(|| space.view.bases(), Mirror::bases)
    }

    /// Where the lower half's entries for loads and for stores are, as numbers of entries.
    pub(crate) fn arrays(&self, selector: Selector) -> [u64; 2] {
        self.bases(selector).map(|base| base / 8)
    }

    /// The address space in force has been so until now.
    pub(crate) fn note_time(&mut self) {
        let now = Instant::now();
        self.spaces[self.current].busy += now - self.since;
        self.since = now;
    }

    /// Nothing has been in force until now.
    pub(crate) fn skip_time(&mut self) {
        self.since = Instant::now();
    }

    /// The address space in force has been so for longer than this, and has no mirror.
    pub(crate) fn wants_mirror(&mut self, after: Duration) -> bool {
        if self.has_mirror() {
            return false;
        }
        self.note_time();
        self.spaces[self.current].busy >= after
    }

    /// The address space in force has a mirror.
    pub(crate) fn has_mirror(&self) -> bool {
        self.spaces[self.current].mirror.is_some()
    }

    fn mappings_left(&self) -> usize {
        let made = self.spaces.iter().filter_map(|space| space.mirror.as_ref());
        self.mappings_max.saturating_sub(made.map(|mirror| mirror.mappings).sum())
    }

    /// Gives the address space in force a mirror of what it has entries for. User code of it goes by
    /// that from now on: none may be on its way.
    ///
    /// # Errors
    /// When the host refuses: it has none then.
    pub(crate) fn make_mirror(&mut self, memory: &GuestMemory) -> io::Result<()> {
        let calls = self.mappings_left();
        let space = &mut self.spaces[self.current];
        let mut mirror = Mirror::new(&self.context_file, self.miss)?;
        mirror.map_all(&space.halves, memory, calls);
        forget_jumps(space, self.miss);
        space.mirror = Some(mirror);
        Ok(())
    }

    /// The address space in force has no mirror any more. None of its code may be on its way.
    pub(crate) fn drop_mirror(&mut self) {
        let space = &mut self.spaces[self.current];
        space.begin(space.root, self.miss);
    }

    /// Has the mirror have the page of this address, if it may be read. False, when that cannot be.
    pub(crate) fn mirror_page(&mut self, linear: u64, memory: &GuestMemory) -> bool {
        let left = self.mappings_left();
        let Space { halves, mirror, .. } = &mut self.spaces[self.current];
        let Some(mirror) = mirror.as_mut().filter(|_| left >= 3) else { return false };
        mirror.map_one(linear >> 12, halves, memory)
    }

    /// The page beside that of this address was in the mirror when it was known.
    pub(crate) fn was_mirrored(&self, linear: u64) -> bool {
        let Space { halves, mirror, .. } = &self.spaces[self.current];
        let page = linear >> 12;
        let mapped = mirror.as_ref().is_some_and(|mirror| mirror.has_mapped(page));
        mapped && halves[0].get(page).is_none()
    }

    /// The guest's page that an access to this host address was for, by way of the page beside.
    pub(crate) fn page_beside(&self, address: u64) -> Option<u64> {
        let page = self.spaces[self.current].mirror.as_ref()?.page_beside(address)?;
        Some(page << 12)
    }

    /// Whoever accesses this page from the one beside is to look at it.
    pub(crate) fn block_mirror(&mut self, linear: u64) {
        let Space { halves, mirror, .. } = &mut self.spaces[self.current];
        if let Some(mirror) = mirror {
            mirror.block(linear >> 12, halves);
        }
    }
}
