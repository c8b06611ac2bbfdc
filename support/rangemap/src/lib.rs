//! A map from disjoint half-open ranges of `u64` to values, for buses and memory views.
//!
//! *Invariant*: ranges are non-empty, sorted and never overlap.

/// Why a range was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// The range has no byte.
    #[error("range at {start:#x} is empty")]
    Empty {
        /// Its start.
        start: u64,
    },
    /// The range runs past the end of the space.
    #[error("range of {size:#x} bytes at {start:#x} runs past the end of the address space")]
    TooLong {
        /// Its start.
        start: u64,
        /// Its length in bytes.
        size: u64,
    },
    /// The range overlaps one that is there.
    #[error("range of {size:#x} bytes at {start:#x} overlaps the one at {other:#x}")]
    Overlap {
        /// Its start.
        start: u64,
        /// Its length in bytes.
        size: u64,
        /// Start of the range that is there.
        other: u64,
    },
}

/// The map.
#[derive(Debug, Clone)]
pub struct RangeMap<T> {
    /// `(start, last byte, value)`, sorted by start.
    entries: Vec<(u64, u64, T)>,
}

impl<T> Default for RangeMap<T> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<T> RangeMap<T> {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `size` bytes from `start`.
    ///
    /// # Errors
    /// When the range is empty, wraps, or overlaps another; the map is then unchanged.
    pub fn insert(&mut self, start: u64, size: u64, value: T) -> Result<(), RangeError> {
        if size == 0 {
            return Err(RangeError::Empty { start });
        }
        let last = start.checked_add(size - 1).ok_or(RangeError::TooLong { start, size })?;
        let at = self.entries.partition_point(|e| e.1 < start);
        match self.entries.get(at) {
            Some(next) if next.0 <= last => Err(RangeError::Overlap { start, size, other: next.0 }),
            _ => {
                self.entries.insert(at, (start, last, value));
                Ok(())
            }
        }
    }

    /// Takes out the range that starts at exactly `start`.
    pub fn remove(&mut self, start: u64) -> Option<T> {
        let at = self.entries.binary_search_by_key(&start, |e| e.0).ok()?;
        Some(self.entries.remove(at).2)
    }

    /// The range that holds `address`: its start and its value.
    pub fn get(&self, address: u64) -> Option<(u64, &T)> {
        let at = self.entries.partition_point(|e| e.1 < address);
        self.entries.get(at).filter(|e| e.0 <= address).map(|e| (e.0, &e.2))
    }

    /// The range that holds all of the `size` bytes from `address`.
    pub fn get_all(&self, address: u64, size: u64) -> Option<(u64, &T)> {
        let last = address.checked_add(size.checked_sub(1)?)?;
        let at = self.entries.partition_point(|e| e.1 < address);
        self.entries.get(at).filter(|e| e.0 <= address && last <= e.1).map(|e| (e.0, &e.2))
    }

    /// Start, size in bytes and value of each range, in order of addresses. The range that spans
    /// the whole space has no size that fits and cannot be made.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64, &T)> {
        self.entries.iter().map(|(start, last, value)| (*start, last - start + 1, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> RangeMap<char> {
        let mut m = RangeMap::new();
        m.insert(0x100, 0x10, 'b').unwrap();
        m.insert(0, 0x10, 'a').unwrap();
        m
    }

    #[test]
    fn ends_belong_to_the_range_and_neighbours_do_not() {
        let m = map();
        assert_eq!(m.get(0x100), Some((0x100, &'b')));
        assert_eq!(m.get(0x10f), Some((0x100, &'b')));
        assert_eq!(m.get(0x110), None);
        assert_eq!(m.get(0xff), None);
    }

    #[test]
    fn overlaps_are_refused_and_change_nothing() {
        let mut m = map();
        for (start, size) in [(0x10f, 1), (0xf0, 0x11), (0, u64::MAX)] {
            assert!(matches!(m.insert(start, size, 'x'), Err(RangeError::Overlap { .. })));
        }
        assert_eq!(m.iter().count(), 2);
        m.insert(0x10, 0xf0, 'c').unwrap();
    }

    #[test]
    fn the_last_byte_of_the_space_can_be_mapped() {
        let mut m = RangeMap::new();
        m.insert(u64::MAX, 1, ()).unwrap();
        assert!(m.get(u64::MAX).is_some());
        assert!(matches!(m.insert(u64::MAX, 2, ()), Err(RangeError::TooLong { .. })));
        assert!(matches!(m.insert(3, 0, ()), Err(RangeError::Empty { .. })));
    }

    #[test]
    fn an_access_across_the_end_is_not_inside() {
        let m = map();
        assert!(m.get_all(0x108, 8).is_some());
        assert!(m.get_all(0x109, 8).is_none());
        assert!(m.get_all(0x108, 0).is_none());
    }

    #[test]
    fn remove_wants_the_start() {
        let mut m = map();
        assert_eq!(m.remove(0x101), None);
        assert_eq!(m.remove(0x100), Some('b'));
        assert_eq!(m.get(0x100), None);
    }
}
