//! Which pages of a sparse array are there, and which have entries.

/// Pages of a sparse array.
pub(crate) struct Resident {
    /// A bit a page: translated code may have touched it since all were given back.
    there: Box<[u64]>,
    count: usize,
    /// A bit a page: it may have entries that are not zero.
    filled: Box<[u64]>,
    list: Vec<u32>,
}

fn place(index: usize) -> (usize, u64) {
    (index / 64, 1 << (index % 64))
}

impl Resident {
    /// Of `pages` pages, none there.
    pub(crate) fn new(pages: usize) -> Self {
        let zeros = || vec![0; pages.div_ceil(64)].into_boxed_slice();
        Self { there: zeros(), count: 0, filled: zeros(), list: Vec::new() }
    }

    /// The page is there, and when `filled` has entries. Returns how many are there.
    pub(crate) fn note(&mut self, index: usize, filled: bool) -> usize {
        let (word, bit) = place(index);
        if self.there[word] & bit == 0 {
            self.there[word] |= bit;
            self.count += 1;
        }
        if filled && self.filled[word] & bit == 0 {
            self.filled[word] |= bit;
            self.list.push(index as u32);
        }
        self.count
    }

    /// Pages that may be there.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The page has entries.
    pub(crate) fn contains(&self, index: usize) -> bool {
        let (word, bit) = place(index);
        self.filled[word] & bit != 0
    }

    /// The pages that have entries, which are to be zeroed.
    pub(crate) fn take_filled(&mut self) -> Vec<u32> {
        let list = std::mem::take(&mut self.list);
        for index in &list {
            let (word, bit) = place(*index as usize);
            self.filled[word] &= !bit;
        }
        list
    }

    /// All were given back.
    pub(crate) fn clear(&mut self) {
        // New ones, for these take no memory before they are used.
        *self = Self::new(self.there.len() * 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_counted_once_and_taken_once() {
        let mut pages = Resident::new(1000);
        assert_eq!(pages.note(7, false), 1);
        assert_eq!(pages.note(7, true), 1);
        assert_eq!(pages.note(999, true), 2);
        assert!(pages.contains(7) && !pages.contains(8));
        assert_eq!(pages.take_filled(), [7, 999]);
        assert!(!pages.contains(7) && pages.take_filled().is_empty());
        pages.clear();
        assert_eq!(pages.note(5, false), 1);
    }
}
