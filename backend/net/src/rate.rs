//! Rates, as token buckets.

use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::ParseError;

/// Burst of a rate that names none: what it lets through in this time.
const BURST_MS: u64 = 100;
/// No burst is smaller: the longest frame must fit, or it never passes.
const BURST_BYTES_MIN: u64 = crate::FRAME_MAX as u64;

/// A limit on bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Bytes each second; not 0.
    pub bytes_per_s: u64,
}

impl FromStr for Rate {
    type Err = ParseError;

    /// Bits a second, as networks count: `10M`, `1G`, `500k`.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = ParseError("not a rate: give bits a second, as 10M or 1G");
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit: u64 = match unit {
            "k" | "K" => 1_000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            _ => return Err(bad),
        };
        let bits = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).ok_or(bad)?;
        if bits < 8_000 {
            return Err(ParseError("no VM can work at this rate: give 8k or more"));
        }
        Ok(Self { bytes_per_s: bits / 8 })
    }
}

/// Lets bytes through at a rate, with bursts.
#[derive(Debug)]
pub struct TokenBucket {
    // Fixed configuration.
    bytes_per_s: u64,
    burst_bytes: u64,
    // State.
    tokens: u64,
    filled: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(rate: Rate, now: Instant) -> Self {
        let bytes_per_s = rate.bytes_per_s.max(1);
        let burst_bytes = (bytes_per_s / 1000 * BURST_MS).max(BURST_BYTES_MIN);
        Self { bytes_per_s, burst_bytes, tokens: burst_bytes, filled: now }
    }

    /// Whether anything may pass now; if not, when to ask again.
    ///
    /// # Errors
    /// The time to wait.
    pub fn may_pass(&mut self, now: Instant) -> Result<(), Duration> {
        let elapsed_ns = now.saturating_duration_since(self.filled).as_nanos();
        let gained = elapsed_ns * u128::from(self.bytes_per_s) / 1_000_000_000;
        // Time too short for a byte is left for the next time.
        if gained > 0 {
            let tokens = u128::from(self.tokens) + gained;
            self.tokens = u64::try_from(tokens).unwrap_or(u64::MAX).min(self.burst_bytes);
            self.filled = now;
        }
        // A frame passes when a whole one could: so none waits with the bucket nearly full.
        let missing = BURST_BYTES_MIN.min(self.burst_bytes).saturating_sub(self.tokens);
        if missing == 0 {
            return Ok(());
        }
        let wait_ns = u128::from(missing) * 1_000_000_000 / u128::from(self.bytes_per_s);
        Err(Duration::from_nanos(u64::try_from(wait_ns).unwrap_or(u64::MAX)).max(TICK))
    }

    /// So many bytes have passed.
    pub fn pass(&mut self, size_bytes: usize) {
        self.tokens = self.tokens.saturating_sub(size_bytes as u64);
    }
}

/// Nobody is called more often than this.
const TICK: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_through_its_rate_after_its_burst() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(Rate { bytes_per_s: 1_000_000 }, start);
        let (mut passed, mut now) = (0u64, start);
        while now < start + Duration::from_secs(10) {
            match bucket.may_pass(now) {
                Ok(()) => {
                    bucket.pass(1500);
                    passed += 1500;
                }
                Err(wait) => now += wait,
            }
        }
        let expected = 10_000_000 + 100_000;
        assert!((expected - 70_000..expected + 70_000).contains(&passed), "{passed}");
    }

    #[test]
    fn rates_are_bits_a_second_with_a_unit() {
        assert_eq!("8M".parse(), Ok(Rate { bytes_per_s: 1_000_000 }));
        assert_eq!("1G".parse(), Ok(Rate { bytes_per_s: 125_000_000 }));
        for bad in ["", "M", "10", "0M", "1k", "-1M", "99999999999999999999G"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }
}
