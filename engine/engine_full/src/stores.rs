//! Which entries for stores lead to a page, so that they can be dropped when it is to be watched.

use std::collections::HashMap;

/// Links kept, before all entries are dropped together.
const LINKS_MAX: usize = 1 << 20;
const NONE: u32 = u32::MAX;

/// By page of guest memory, the addresses of entries that were filled with it.
#[derive(Default)]
pub(crate) struct Stores {
    first: HashMap<u32, u32>,
    links: Vec<(u64, u32)>,
}

impl Stores {
    /// An entry leads to this page now. False when the table is full: everything is to be dropped,
    /// and the table cleared.
    pub(crate) fn add(&mut self, page: u32, entry: u64) -> bool {
        if self.links.len() >= LINKS_MAX {
            return false;
        }
        let link = self.links.len() as u32;
        let before = self.first.insert(page, link).unwrap_or(NONE);
        self.links.push((entry, before));
        true
    }

    /// The entries that may lead to this page; forgets them.
    pub(crate) fn take(&mut self, page: u32) -> impl Iterator<Item = u64> + '_ {
        let mut next = self.first.remove(&page).unwrap_or(NONE);
        std::iter::from_fn(move || {
            let (entry, after) = *self.links.get(next as usize)?;
            next = after;
            Some(entry)
        })
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.first.clear();
        self.links.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_taken_once_by_page() {
        let mut stores = Stores::default();
        for (page, entry) in [(1, 10), (2, 20), (1, 11)] {
            assert!(stores.add(page, entry));
        }
        assert_eq!(stores.take(1).collect::<Vec<_>>(), [11, 10]);
        assert_eq!(stores.take(1).count(), 0);
        assert_eq!(stores.take(2).collect::<Vec<_>>(), [20]);
    }
}
