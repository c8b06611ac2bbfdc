//! From guest addresses to translated code.

use std::sync::atomic::Ordering;

use guest_memory::{PAGE_SIZE, RamOffset};
use x86_decode::native::NativeDecoder;
use x86_decode::{DecodeError, INSN_SIZE_MAX};
use x86_exec::{Access, Privilege};

use super::{By, Found, FullVcpu, Onward, PAGE_MASK, RECENT, Recent, memory_at};
use crate::cache::{Cache, Key, Mode, Site};
use crate::exits::Also;
use crate::translate::Source;

impl FullVcpu {
    /// Goes on at the unit at `rip`, and tells of it unless the cache was cleared since
    /// `generation`.
    pub(super) fn find_for(
        &mut self,
        rip: u64,
        by: By,
        generation: u64,
        tell: impl FnOnce(&mut Self, Found, &mut Cache),
    ) -> Onward {
        let kicked = self.views.context().jump_mask.load(Ordering::SeqCst) == 0;
        if kicked {
            self.exits().also(Also::Kicked);
        }
        if kicked || self.soft.slot().mail.any() || self.has_commands() {
            return Onward::Guest(rip);
        }
        let Some(found) = self.unit(rip, Mode::empty(), by) else {
            return Onward::Interpret(rip);
        };
        let complex = self.complex.clone();
        let mut cache = complex.open_cache();
        if cache.generation == found.generation && generation == found.generation {
            tell(self, found, &mut cache);
        }
        drop(cache);
        self.enter_at(rip, found)
    }

    /// Goes on at a unit, which is at `rip`.
    fn enter_at(&mut self, rip: u64, found: Found) -> Onward {
        self.views.context().code_page = found.mode.jump_address(rip & !PAGE_MASK);
        Onward::Host(found.target)
    }

    /// Goes on at the unit at the site's address that needs no stack window, by a jump from now on.
    pub(super) fn find_careful(&mut self, site: &Site, generation: u64) -> Onward {
        let Some(found) = self.unit(site.rip, Mode::NO_WINDOW, By::Other) else {
            return Onward::Interpret(site.rip);
        };
        let complex = self.complex.clone();
        let cache = complex.open_cache();
        let current = cache.generation == found.generation && generation == found.generation;
        // What is linked to by a jump by address would come back by way of the unit with a window.
        if current && found.link == found.body && found.may_follow(site.host, &cache) {
            cache.link(site.host, found.body);
        }
        drop(cache);
        self.enter_at(site.rip, found)
    }

    /// Jumps by address to `rip` find the unit from now on.
    pub(super) fn keep_jump(&mut self, rip: u64, found: Found, cache: &mut Cache) {
        if found.mode.intersects(Mode::LOCAL | Mode::NO_WINDOW) {
            return;
        }
        let (user, entry) = (found.mode.contains(Mode::USER), cache.memory.address(found.entry));
        if user && !found.crosses {
            self.keep_jumps_beside(rip, found, cache);
        }
        self.views.set_jump(found.mode.jump_address(rip), user, entry, found.crosses);
        if !user && rip >> 63 != 0 {
            self.views.set_other_jump(rip, cache.memory.address(found.body));
        }
    }

    /// What was jumped to in a page before will be again, wherever the page is: when it is new to
    /// the address space, all of that is kept at once.
    fn keep_jumps_beside(&mut self, rip: u64, found: Found, cache: &mut Cache) {
        let offset = rip & PAGE_MASK;
        let key = Key { rip: offset, page: found.page, second: None, mode: found.mode };
        if !self.views.has_jumps_to(rip) {
            for (other, entry) in cache.jumps_beside(&key) {
                let at = rip & !PAGE_MASK | other;
                let at = found.mode.jump_address(at);
                self.views.set_jump(at, true, cache.memory.address(entry), false);
            }
        }
        cache.note_jump(&key);
    }

    pub(super) fn find(&mut self, rip: u64, extra: Mode) -> Onward {
        self.rip = rip;
        let found = self.unit(rip, extra, By::Other);
        found.map_or(Onward::Interpret(rip), |found| self.enter_at(rip, found))
    }

    /// The unit at `rip`, translated now if need be; none where code cannot be fetched.
    pub(super) fn unit(&mut self, rip: u64, extra: Mode, by: By) -> Option<Found> {
        let wanted = self.mode() | extra;
        let whose = match wanted & (Mode::USER | Mode::COMPAT) {
            Mode::USER => 0,
            whose if whose.is_empty() => 1,
            _ => 2,
        };
        let own = &mut self.jump_modes[whose];
        let jumps_for = wanted & (Mode::NO_VECTOR | Mode::NO_FS | Mode::NO_GS);
        if std::mem::replace(own, jumps_for) != jumps_for {
            self.views.flush_jumps();
        }
        let slot = rip as usize % RECENT;
        // Before the unit is looked for: a change after this makes it look again.
        let changes = self.complex.changes.load(Ordering::SeqCst);
        if let Some(recent) = self.recent[slot]
            && (recent.rip, recent.wanted) == (rip, wanted)
            && (recent.changes, recent.stamp) == (changes, self.code_stamp(recent.found.mode))
        {
            return Some(recent.found);
        }
        let found = self.unit_slow(rip, wanted, by)?;
        if wanted.contains(Mode::USER) {
            if self.recent_pages.is_full() {
                self.user_code_moves(0, u64::MAX);
            }
            for page in [rip >> 12, (rip >> 12) + 1] {
                self.recent_pages.add(page);
            }
        }
        let stamp = self.code_stamp(found.mode);
        self.recent[slot] = Some(Recent { rip, stamp, changes, wanted, found });
        Some(found)
    }

    /// A unit of this mode is where it was as long as this stays the same.
    fn code_stamp(&self, mode: Mode) -> u64 {
        match (mode.contains(Mode::USER), mode.contains(Mode::LOCAL)) {
            (true, _) => self.code_moves[0],
            (false, false) => self.code_moves[1],
            // Any change of address space is theirs.
            (false, true) => self.soft.cpu.mmu.generation(),
        }
    }

    /// The user's pages from this one on may be others.
    pub(super) fn user_code_moves(&mut self, first: u64, count: u64) {
        if self.recent_pages.has_any(first, count) {
            self.recent_pages.clear();
            self.code_moves[0] += 1;
        }
    }

    fn unit_slow(&mut self, rip: u64, wanted: Mode, by: By) -> Option<Found> {
        let user = wanted.contains(Mode::USER);
        let privilege = if user { Privilege::User } else { Privilege::Supervisor };
        let place = self.soft.cpu.page(rip, Access::Execute, privilege).ok()?;
        let at = memory_at(&place)?;
        let page = (at >> 12) as u32;
        let mut global = place.global;
        let mut second = None;
        if self.crosses(at | rip & PAGE_MASK, wanted) {
            let beyond = (rip | PAGE_MASK).wrapping_add(1);
            if wanted.contains(Mode::COMPAT) && beyond >> 32 != 0 {
                return None;
            }
            let place = self.soft.cpu.page(beyond, Access::Execute, privilege).ok()?;
            global &= place.global;
            second = Some((memory_at(&place)? >> 12) as u32);
        }
        let mut mode = wanted;
        mode.set(Mode::LOCAL, !user && (!global || rip >> 63 == 0));
        let key = Key { rip: if user { rip & PAGE_MASK } else { rip }, page, second, mode };
        loop {
            let mut cache = self.complex.open_cache();
            if let Some(unit) = cache.find(&key) {
                return Some(Found {
                    key,
                    mode,
                    entry: unit.entry,
                    body: unit.body,
                    link: unit.link,
                    page,
                    crosses: second.is_some(),
                    target: cache.memory.address(unit.body),
                    generation: cache.generation,
                });
            }
            let room = cache.has_room();
            drop(cache);
            if room {
                self.translate(&key, by);
            } else {
                self.complex.make_room();
            }
        }
    }

    /// The instruction there is on two pages.
    pub(super) fn crosses(&self, at: u64, mode: Mode) -> bool {
        let left = PAGE_SIZE - (at & PAGE_MASK);
        if left >= INSN_SIZE_MAX as u64 {
            return false;
        }
        let mut bytes = [0; INSN_SIZE_MAX];
        let bytes = &mut bytes[..left as usize];
        self.complex.soft.memory.read(RamOffset(at), bytes);
        NativeDecoder::new(mode.code_bits(), bytes)
            .next_insn()
            .is_err_and(|e| e == DecodeError::Truncated)
    }

    /// Keeps a translation, unless there is no room any more.
    fn translate(&mut self, key: &Key, by: By) {
        let memory = &self.complex.soft.memory;
        let bits = memory.bits();
        let pages = || std::iter::once(key.page).chain(key.second);
        // In this order: what is read is no older than the generation, nor than the mark.
        let generations = || pages().map(|page| u64::from(bits.code_generation(page as usize)));
        let before: u64 = generations().sum();
        for page in pages() {
            bits.mark_code(page as usize, 0, PAGE_MASK);
        }
        // All of the page was marked before it was read: as long as its generation is the same,
        // nobody has written to it.
        if self.page_read != Some((key.page, key.second, before)) {
            let (first, beyond) = self.page.split_at_mut(PAGE_SIZE as usize);
            memory.read(RamOffset(u64::from(key.page) << 12), first);
            if let Some(second) = key.second {
                memory.read(RamOffset(u64::from(second) << 12), beyond);
            }
            self.page_read = Some((key.page, key.second, before));
        }
        let end = if key.second.is_some() { self.page.len() } else { PAGE_SIZE as usize };
        let bytes = &self.page[..end];
        let features = self.complex.soft.profile.features();
        let (jumped_to, frame) = match by {
            By::Jump => (true, None),
            By::Link(frame) => (false, frame),
            By::Other => (false, None),
        };
        let source = Source { rip: key.rip, bytes, features, mode: key.mode, jumped_to, frame };
        let mut cache = self.complex.open_cache();
        if !cache.has_room() {
            // Another vCPU was faster.
            return;
        }
        self.translator.translate(key, &source, &mut cache);
        if generations().sum::<u64>() != before {
            // Written since it was read: nobody has seen the unit yet.
            self.complex.retire(&mut cache, key.page, u64::MAX);
        }
    }
}
