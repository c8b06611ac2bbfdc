//! Whether requests are done on the spot.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What is in the host's page cache takes a fraction of this, a medium behind it more.
const AT_HAND: Duration = Duration::from_micros(200);
/// Bytes that may take as long again.
const BYTES: u32 = 1 << 20;
/// Requests that others do after one that took long.
const OTHERS: u32 = 64;

/// Lost by a request that takes long: then others wait for the host instead, until it may have what
/// is asked for at hand again.
#[derive(Default)]
pub(super) struct Patience(AtomicU32);

impl Patience {
    /// There is some.
    pub(super) fn lasts(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// There is some for the next request; if not, that is one of those that others do.
    pub(super) fn for_next(&self) -> bool {
        let less = |left: u32| left.checked_sub(1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err()
    }

    /// A request of this size took so long.
    pub(super) fn took(&self, elapsed: Duration, size_bytes: u64) {
        let size_bytes = u32::try_from(size_bytes).unwrap_or(u32::MAX);
        if elapsed > AT_HAND.saturating_mul(1 + size_bytes / (BYTES / 4)) {
            self.0.store(OTHERS, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_request_that_took_long_others_do_some() {
        let patience = Patience::default();
        patience.took(AT_HAND, 4096);
        assert!(patience.lasts() && patience.for_next());
        patience.took(AT_HAND * 2, 4096);
        assert!(!patience.lasts());
        assert_eq!((0..).take_while(|_| !patience.for_next()).count(), OTHERS as usize);
        assert!(patience.lasts());
    }

    #[test]
    fn large_requests_may_take_longer() {
        let patience = Patience::default();
        patience.took(AT_HAND * 4, 1 << 20);
        assert!(patience.lasts());
    }
}
