//! The lines of the console.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// How all lines begin.
pub const MARK: &str = "TRINE-GUEST-WORK";
/// How a line begins that says what is wrong.
pub const WRONG: &str = "TRINE-GUEST-WORK WRONG";
/// The last line, after which nothing works any more.
pub const END: &str = "TRINE-GUEST-WORK END";

/// What has been done so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Counts reports, from 1.
    pub number: u64,
    /// The guest's monotonic clock, in milliseconds.
    pub up_ms: u64,
    /// Steps that each worker has finished.
    pub counts: BTreeMap<String, u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{MARK} {} up_ms={}", self.number, self.up_ms);
        for (worker, count) in &self.counts {
            text.push_str(&format!(" {worker}={count}"));
        }
        write!(f, "{text} sum={:08x}", crc32c::crc32c(text.as_bytes()))
    }
}

impl FromStr for Report {
    type Err = String;

    /// Of a line that begins with [`MARK`].
    fn from_str(line: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{what}: {line}");
        let (text, sum) = line.rsplit_once(" sum=").ok_or_else(|| wrong("no checksum"))?;
        if u32::from_str_radix(sum, 16) != Ok(crc32c::crc32c(text.as_bytes())) {
            return Err(wrong("wrong checksum"));
        }
        let mut words = text.split(' ').skip(1);
        let number = words.next().and_then(|word| word.parse().ok());
        let mut report =
            Self { number: number.ok_or_else(|| wrong("no number"))?, ..Self::default() };
        for word in words {
            let (name, count) = word.split_once('=').ok_or_else(|| wrong("no count"))?;
            let count = count.parse().map_err(|_| wrong("no count"))?;
            match name {
                "up_ms" => report.up_ms = count,
                worker => drop(report.counts.insert(worker.to_owned(), count)),
            }
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written_and_a_changed_one_is_not() {
        let counts = [("disk0".to_owned(), 3), ("ticks".to_owned(), 99)].into();
        let report = Report { number: 7, up_ms: 1234, counts };
        let line = report.to_string();
        assert_eq!(line.parse(), Ok(report));
        for at in 0..line.len() {
            let missing = format!("{}{}", &line[..at], &line[at + 1..]);
            assert!(missing.parse::<Report>().is_err(), "{missing}");
        }
    }
}
