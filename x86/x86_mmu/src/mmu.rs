//! The TLB, and the registers it depends on.
//!
//! One direct-mapped table of 4 KiB pieces. Each entry has three tags (read, write, fetch) over
//! one host address; a tag is the 52-bit page number, whether the page is the user's, and the
//! number of the *space* it was filled in. So a change of CPL, of RFLAGS.AC or of PCID changes
//! what is compared, and drops nothing.
//!
//! The upper half of linear addresses has a space of its own, which outlives loads of CR3: kernels
//! live there and map themselves global. Its few entries that are not global are remembered one
//! by one, and dropped when CR3 is loaded.

use crate::{Access, Flush, Flushes, Format, Paging, Privilege, Translation};

const ENTRIES: usize = 1024;
const PAGE_BITS: u64 = (1 << 52) - 1;
const USER_BIT: u64 = 1 << 52;
const SPACE_SHIFT: u32 = 53;
const SPACE_MAX: u16 = (1 << (64 - SPACE_SHIFT)) - 1;
/// PCIDs whose space is remembered; Linux uses six at a time.
const PCIDS: usize = 8;
/// A filter's false hits cost a mirror 2 MiB: Linux maps all of memory by such pages.
const LARGE_WORDS: usize = 256;
const HUGE_WORDS: usize = 16;
/// Entries of the upper half that are not global, before all of them are dropped together.
const UPPER_LOCAL_MAX: usize = 64;

/// What may be done with a page that was filled, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// Host address of the page's first byte, opaque.
    pub host: u64,
    /// Stores go to the host address too (RAM, not ROM).
    pub ram: bool,
}

/// A tag of zero matches nothing, since no space has the number zero.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(32))]
struct Entry {
    read: u64,
    write: u64,
    fetch: u64,
    host: u64,
}

/// TLB and what the walker needs of the control registers.
#[derive(Debug)]
pub struct Mmu {
    entries: Box<[Entry; ENTRIES]>,
    /// What of `page ^ tag` counts for loads and stores.
    data_mask: u64,
    /// What must come out, by bit 63 of the linear address.
    data_key: [u64; 2],
    fetch_mask: u64,
    fetch_key: [u64; 2],
    paging: Paging,
    privilege: Privilege,
    /// Spaces of the lower and the upper half.
    spaces: [u16; 2],
    space_last: u16,
    pcid: u16,
    /// Spaces of the lower half under other PCIDs.
    pcids: [Option<(u16, u16)>; PCIDS],
    pcid_next: usize,
    upper_local: Vec<u16>,
    upper_local_overflow: bool,
    /// Regions of 2 MiB of which a piece of a large page was filled.
    large: LargeFilter<LARGE_WORDS>,
    /// Regions of 1 GiB of which a piece of a page larger than 2 MiB was filled.
    huge: LargeFilter<HUGE_WORDS>,
    /// Page shifts of the pieces, where they are larger than 12.
    shifts: Box<[u8; ENTRIES]>,
    generation: u64,
    /// There while somebody watches.
    flushes: Option<Box<Flushes>>,
}

/// A Bloom filter with one hash function, of a power of two of words.
#[derive(Debug)]
struct LargeFilter<const WORDS: usize>(Box<[u64; WORDS]>);

impl<const WORDS: usize> LargeFilter<WORDS> {
    fn new() -> Self {
        Self(Box::new([0; WORDS]))
    }
    fn place(region: u64) -> (usize, u64) {
        let hash = region.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        ((hash >> 6) as usize % WORDS, 1 << (hash & 63))
    }
    fn insert(&mut self, region: u64) {
        let (word, bit) = Self::place(region);
        self.0[word] |= bit;
    }
    fn may_contain(&self, region: u64) -> bool {
        let (word, bit) = Self::place(region);
        self.0[word] & bit != 0
    }
}

impl Default for Mmu {
    fn default() -> Self {
        let mut mmu = Self {
            entries: Box::new([Entry::default(); ENTRIES]),
            data_mask: 0,
            data_key: [0; 2],
            fetch_mask: 0,
            fetch_key: [0; 2],
            paging: Paging::default(),
            privilege: Privilege::Supervisor,
            spaces: [1, 2],
            space_last: 2,
            pcid: 0,
            pcids: [None; PCIDS],
            pcid_next: 0,
            upper_local: Vec::with_capacity(UPPER_LOCAL_MAX),
            upper_local_overflow: false,
            large: LargeFilter::new(),
            huge: LargeFilter::new(),
            shifts: Box::new([12; ENTRIES]),
            generation: 0,
            flushes: None,
        };
        mmu.update_keys();
        mmu
    }
}

#[inline(always)]
fn index(linear: u64) -> usize {
    (linear >> 12) as usize % ENTRIES
}

macro_rules! hit {
    ($(#[$doc:meta])* $name:ident, $tag:ident, $mask:ident, $key:ident) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name(&self, linear: u64, size: u64) -> Option<u64> {
            let entry = &self.entries[index(linear)];
            // The page of the last byte: an access that crosses a page never hits.
            let page = linear.wrapping_add(size - 1) >> 12;
            if (page ^ entry.$tag) & self.$mask == self.$key[(linear >> 63) as usize] {
                Some(entry.host.wrapping_add(linear & 0xfff))
            } else {
                None
            }
        }
    };
}

impl Mmu {
    hit! {
        /// Where to load `size` bytes (at least 1) from, when that is known.
        hit_read, read, data_mask, data_key
    }
    hit! {
        /// Where to store `size` bytes (at least 1), when that is known.
        hit_write, write, data_mask, data_key
    }
    hit! {
        /// Where to fetch `size` bytes (at least 1) from, when that is known.
        hit_fetch, fetch, fetch_mask, fetch_key
    }

    /// Where to access `size` bytes (at least 1) on behalf of another than the instruction that
    /// runs, when that is known.
    pub fn hit_as(
        &self,
        linear: u64,
        size: u64,
        access: Access,
        privilege: Privilege,
    ) -> Option<u64> {
        let entry = &self.entries[index(linear)];
        let tag = match access {
            Access::Read => entry.read,
            Access::Write => entry.write,
            Access::Execute => entry.fetch,
        };
        let page = linear.wrapping_add(size - 1) >> 12;
        let space = u64::from(self.spaces[(linear >> 63) as usize]) << SPACE_SHIFT;
        let user = tag & USER_BIT != 0;
        let allowed = match (privilege, access) {
            (Privilege::User, _) => user,
            (_, Access::Execute) => !(user && self.paging.smep),
            (Privilege::SupervisorAc, _) => true,
            (Privilege::Supervisor, _) => !(user && self.paging.smap),
        };
        let same = (page ^ tag ^ space) & !USER_BIT == 0;
        (same && allowed).then(|| entry.host.wrapping_add(linear & 0xfff))
    }

    /// The registers in force.
    pub fn paging(&self) -> &Paging {
        &self.paging
    }

    /// Grows whenever a translation may have become another: what is derived from one is good
    /// while this stays the same.
    #[inline(always)]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Begins or ends a journal of what is dropped. It begins with [`Flush::All`].
    pub fn watch_flushes(&mut self, on: bool) {
        self.flushes = on.then(|| Box::new(Flushes::none(self.pcid)));
        self.note(Flush::All);
    }

    /// What was dropped since the last call; nothing while nobody watches. A mirror that drops as
    /// much holds nothing that an invalidation has ended, as long as all it holds was given to
    /// [`Mmu::fill`] first. There is none while [`Mmu::generation`] stays the same.
    pub fn take_flushes(&mut self) -> Flushes {
        let none = Flushes::none(self.pcid);
        self.flushes.as_deref_mut().map_or(none, |flushes| std::mem::replace(flushes, none))
    }

    fn note(&mut self, flush: Flush) {
        if let Some(flushes) = &mut self.flushes {
            flushes.note(flush);
        }
    }

    /// On whose behalf the current instruction accesses memory.
    pub fn set_privilege(&mut self, privilege: Privilege) {
        if privilege != self.privilege {
            self.privilege = privilege;
            self.update_keys();
        }
    }

    /// That privilege.
    pub fn privilege(&self) -> Privilege {
        self.privilege
    }

    /// New control registers, with the same CR3 or none of its translations kept. Everything is
    /// dropped unless nothing changed.
    pub fn set_paging(&mut self, paging: Paging) {
        if paging != self.paging {
            self.paging = paging;
            self.flush();
        }
    }

    /// CR3 was loaded: `root` and `pdptes` of `paging` are new. `keep`: with CR4.PCIDE, bit 63 of
    /// what was loaded, which keeps the translations of `pcid`.
    pub fn load_root(&mut self, paging: Paging, pcid: u16, keep: bool) {
        self.paging = paging;
        self.generation += 1;
        self.drop_upper_local();
        self.pcid = pcid;
        let kept = self.forget(pcid).filter(|_| keep);
        match kept {
            Some(space) => self.spaces[0] = space,
            None => self.new_space(0),
        }
        self.remember(pcid, self.spaces[0]);
        self.note(Flush::Root { pcid, kept: kept.is_some() });
        self.update_keys();
    }

    /// INVLPG, and INVPCID for one address: drops this page's translations, of every PCID.
    pub fn invalidate(&mut self, linear: u64) {
        self.generation += 1;
        self.entries[index(linear)] = Entry::default();
        let shift = self.page_shift_max(linear);
        if shift > 12 {
            self.invalidate_large(linear);
        }
        if self.flushes.is_some() && (linear as i64) << 16 >> 16 == linear as i64 {
            self.note(Flush::Page { linear: linear >> shift << shift, shift });
        }
    }

    /// The largest page that is known to be, or to have been, around this address.
    fn page_shift_max(&self, linear: u64) -> u8 {
        match (self.huge.may_contain(linear >> 30), self.paging.format) {
            (true, Format::Bits32) => 22,
            (true, _) => 30,
            (false, _) if self.large.may_contain(linear >> 21) => 21,
            (false, _) => 12,
        }
    }

    #[cold]
    fn invalidate_large(&mut self, linear: u64) {
        for (entry, shift) in self.entries.iter_mut().zip(self.shifts.iter()) {
            // Every entry that is filled has its read tag.
            if ((entry.read & PAGE_BITS) << 12 ^ linear) >> shift == 0 {
                *entry = Entry::default();
            }
        }
    }

    /// INVPCID for one PCID: its translations that are not global.
    pub fn invalidate_pcid(&mut self, pcid: u16) {
        self.generation += 1;
        self.forget(pcid);
        if pcid == self.pcid {
            self.drop_upper_local();
            self.new_space(0);
            self.remember(pcid, self.spaces[0]);
            self.update_keys();
        }
        self.note(Flush::Pcid(pcid));
    }

    /// INVPCID for all that is not global, of every PCID.
    pub fn flush_local(&mut self) {
        self.generation += 1;
        self.drop_upper_local();
        self.pcids = [None; PCIDS];
        self.new_space(0);
        self.remember(self.pcid, self.spaces[0]);
        self.update_keys();
        self.note(Flush::Local);
    }

    /// Drops everything, global or not.
    pub fn flush(&mut self) {
        self.generation += 1;
        self.restart();
        self.update_keys();
    }

    /// Keeps what a walk found. `host` is where the page is.
    pub fn fill(&mut self, linear: u64, found: &Translation, at: Rights) {
        let upper = linear >> 63;
        let slot = index(linear);
        let space = u64::from(self.spaces[upper as usize]) << SPACE_SHIFT;
        let tag = linear >> 12 | space;
        let user = if found.user { USER_BIT } else { 0 };
        let write = match (found.writable, found.dirty && at.ram) {
            (_, false) => 0,
            (true, true) => tag | user,
            // Only the supervisor may, while CR0.WP is clear. SMAP would need to know that the
            // page is the user's, whom this tag must not let in: such a page is walked each time.
            (false, true) if self.paging.wp || found.user && self.paging.smap => 0,
            (false, true) => tag,
        };
        self.entries[slot] = Entry {
            read: tag | user,
            write,
            fetch: if found.executable { tag | user } else { 0 },
            host: at.host,
        };
        self.shifts[slot] = found.page_shift;
        if found.page_shift > 12 {
            self.large.insert(linear >> 21);
            if found.page_shift > 21 {
                // 4 MiB pages too: a region of theirs is inside of one of these.
                self.huge.insert(linear >> 30);
            }
        }
        if upper != 0 && !found.global && self.paging.format != Format::Off {
            if self.upper_local.len() < UPPER_LOCAL_MAX {
                self.upper_local.push(slot as u16);
            } else {
                self.upper_local_overflow = true;
            }
        }
    }

    fn drop_upper_local(&mut self) {
        for slot in self.upper_local.drain(..) {
            self.entries[usize::from(slot)] = Entry::default();
        }
        if self.upper_local_overflow {
            self.upper_local_overflow = false;
            self.new_space(1);
        }
    }

    /// Gives a half a space in which nothing was filled yet.
    fn new_space(&mut self, half: usize) {
        if self.space_last == SPACE_MAX {
            self.restart();
        } else {
            self.space_last += 1;
            self.spaces[half] = self.space_last;
        }
    }

    fn restart(&mut self) {
        self.entries.fill(Entry::default());
        self.shifts.fill(12);
        self.large.0.fill(0);
        self.huge.0.fill(0);
        self.upper_local.clear();
        self.upper_local_overflow = false;
        self.pcids = [None; PCIDS];
        self.spaces = [1, 2];
        self.space_last = 2;
        self.note(Flush::All);
    }

    fn forget(&mut self, pcid: u16) -> Option<u16> {
        let slot = self.pcids.iter_mut().find(|s| s.is_some_and(|(p, _)| p == pcid))?;
        slot.take().map(|(_, space)| space)
    }

    fn remember(&mut self, pcid: u16, space: u16) {
        let free = self.pcids.iter().position(Option::is_none);
        let slot = free.unwrap_or_else(|| {
            self.pcid_next = (self.pcid_next + 1) % PCIDS;
            self.pcid_next
        });
        self.pcids[slot] = Some((pcid, space));
    }

    fn update_keys(&mut self) {
        let counts = PAGE_BITS | u64::from(SPACE_MAX) << SPACE_SHIFT;
        let (data_user, fetch_user) = match self.privilege {
            Privilege::User => (Some(true), Some(true)),
            Privilege::SupervisorAc => (None, self.paging.smep.then_some(false)),
            Privilege::Supervisor => {
                (self.paging.smap.then_some(false), self.paging.smep.then_some(false))
            }
        };
        let mask = |user: Option<bool>| if user.is_some() { counts | USER_BIT } else { counts };
        let key = |user: Option<bool>| {
            let bit = if user == Some(true) { USER_BIT } else { 0 };
            self.spaces.map(|space| u64::from(space) << SPACE_SHIFT | bit)
        };
        self.data_mask = mask(data_user);
        self.data_key = key(data_user);
        self.fetch_mask = mask(fetch_user);
        self.fetch_key = key(fetch_user);
    }
}
