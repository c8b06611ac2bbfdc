//! Which entries for stores lead to a page, so that they can be dropped when it is to be watched.

/// Links kept, before all entries are dropped together.
const LINKS_MAX: usize = 1 << 20;
const NONE: u32 = 0;

struct Link {
    entry: u64,
    page: u32,
    /// Number of the next one of the page, from one on.
    after: u32,
}

/// By page of guest memory, the addresses of entries that were filled with it.
pub(crate) struct Stores {
    /// By page, the number of the first link, from one on. Takes no memory where nothing was stored.
    first: Vec<u32>,
    links: Vec<Link>,
}

impl Stores {
    /// None yet, of so many pages.
    pub(crate) fn new(pages: usize) -> Self {
        Self { first: vec![NONE; pages], links: Vec::new() }
    }

    /// An entry leads to this page now. False when the table is full: everything is to be dropped,
    /// and the table cleared.
    pub(crate) fn add(&mut self, page: u32, entry: u64) -> bool {
        if self.links.len() >= LINKS_MAX {
            return false;
        }
        let first = &mut self.first[page as usize];
        if let Some(last) = (*first as usize).checked_sub(1).and_then(|i| self.links.get(i))
            && last.entry == entry
        {
            return true;
        }
        self.links.push(Link { entry, page, after: *first });
        *first = self.links.len() as u32;
        true
    }

    /// The entries that may lead to this page; forgets them.
    pub(crate) fn take(&mut self, page: u32) -> impl Iterator<Item = u64> + '_ {
        let mut next = std::mem::replace(&mut self.first[page as usize], NONE);
        std::iter::from_fn(move || {
            let link = self.links.get((next as usize).checked_sub(1)?)?;
            next = link.after;
            Some(link.entry)
        })
    }

    /// Bytes of memory its links take.
    pub(crate) fn bytes(&self) -> usize {
        self.links.capacity() * size_of::<Link>()
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        for link in self.links.drain(..) {
            self.first[link.page as usize] = NONE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_taken_once_by_page() {
        let mut stores = Stores::new(3);
        for (page, entry) in [(1, 10), (2, 20), (1, 11), (1, 11)] {
            assert!(stores.add(page, entry));
        }
        assert_eq!(stores.take(1).collect::<Vec<_>>(), [11, 10]);
        assert_eq!(stores.take(1).count(), 0);
        stores.clear();
        assert!(stores.add(2, 21));
        assert_eq!(stores.take(2).collect::<Vec<_>>(), [21]);
    }
}
