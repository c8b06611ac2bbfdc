//! Room for more: the oldest generation is dropped, and what often runs of it is translated again.
//!
//! What is left must not lead there. Links into it are found by looking at every jump that can be linked, which
//! takes milliseconds and happens once in so many million bytes of code.

use std::collections::hash_map::Entry;

use super::{Cache, SITES_MAX, generation_of, number, send_on, unlink};
use crate::code::Place;

impl Cache {
    /// Has room for another unit, if that takes no more than going on in a generation that is empty.
    pub(crate) fn has_room(&mut self) -> bool {
        let current = self.memory.current();
        if self.memory.has_room() && self.generations[current].sites.len() < SITES_MAX {
            return true;
        }
        let next = self.memory.following();
        let is_empty = self.generations[next].units.is_empty();
        if is_empty {
            self.memory.begin(next);
        }
        is_empty
    }

    /// Drops the oldest generation, and goes on in its place. Returns the pages that have no units any
    /// more. No vCPU may be in translated code, or go there by what it knows.
    pub(crate) fn drop_oldest(&mut self) -> Vec<u32> {
        let oldest = self.memory.following();
        let gone = std::mem::take(&mut self.generations[oldest]);
        let mut pages = Vec::new();
        for (index, unit) in gone.units.iter().enumerate() {
            let id = number(oldest, index);
            if self.keys.get(&unit.key) == Some(&id) {
                self.keys.remove(&unit.key);
            }
            pages.extend([Some(unit.key.page), unit.key.second].into_iter().flatten());
        }
        self.undo_links_to(oldest);
        pages.sort_unstable();
        pages.dedup();
        pages.retain(|page| self.forget_units_of(*page, oldest));
        self.kernel_pages.retain(|_, page| self.pages.contains_key(page));
        self.memory.begin(oldest);
        self.closing = false;
        self.generation += 1;
        pages
    }

    /// A page's units of a generation are no more. True, when it has no others.
    fn forget_units_of(&mut self, page: u32, gone: usize) -> bool {
        let Entry::Occupied(mut own) = self.pages.entry(page) else { return false };
        let units = own.get_mut();
        units.ids.retain(|id| generation_of(*id) != gone);
        units.jumps.retain(|id| generation_of(*id) != gone);
        let none = units.ids.is_empty();
        if none {
            own.remove();
        }
        none
    }

    /// Jumps of other generations that lead into this one leave again; so do retired units that were
    /// replaced by one of it.
    fn undo_links_to(&mut self, gone: usize) {
        self.inner_links.retain(|id, links| {
            links.retain(|site| generation_of(*site) != gone);
            generation_of(*id) != gone && !links.is_empty()
        });
        let leads_there = |distance_at: Place, distance: u32| {
            self.memory.generation_of(distance.wrapping_add(distance_at + 4)) == Some(gone)
        };
        for own in &self.generations {
            for site in own.sites.iter().filter(|site| site.has_link()) {
                if leads_there(site.host, self.memory.read4(site.host)) {
                    unlink(&self.memory, site);
                }
            }
            for unit in own.units.iter().filter(|unit| self.is_sent_on(unit.body)) {
                if leads_there(unit.body + 1, self.memory.read4(unit.body + 1)) {
                    send_on(&self.memory, unit.body, unit.retired_exit);
                }
            }
        }
    }

    /// The body's first instruction has become a jump: the unit was retired.
    fn is_sent_on(&self, body: Place) -> bool {
        self.memory.read4(body) as u8 == 0xe9
    }
}
