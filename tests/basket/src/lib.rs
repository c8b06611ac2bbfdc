//! A basket of small programs: integers, floats, vectors, copies, system calls, pages, processes,
//! files, code that changes, CPython.
//!
//! The program `basket` runs them on the machine it is on, be it a guest or the host, and prints a
//! [`Line`] for each: how long one operation takes, and a sum of what a fixed number of operations
//! computed. Two machines that are right print the same sums. Each row is computed before it is
//! timed and again after, when an engine that translates has got to its best code.
//!
//! This library is what both sides must agree on: the lines.
//!
//! What this crate may not know: VMs. Whatever it needs from the machine is Linux and the files
//! that `guests::basket` puts together.

use std::fmt;
use std::str::FromStr;

/// Begins the line of a row.
pub const MARK: &str = "BASKET";
/// The line after the last row.
pub const END: &str = "BASKET-END";
/// Begins the line of a row that computed two different things from the same.
pub const WRONG: &str = "BASKET-WRONG";

/// Nanoseconds an operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// The smallest of all passes.
    pub smallest_ns: f64,
    /// Their median.
    pub median_ns: f64,
}

/// What is printed of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The row.
    pub name: String,
    /// Stands for everything it computed.
    pub sum: u64,
    /// How long it took, if that was asked for.
    pub timing: Option<Timing>,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MARK} {} {:016x}", self.name, self.sum)?;
        match self.timing {
            Some(timing) => write!(f, " {:.3} {:.3}", timing.smallest_ns, timing.median_ns),
            None => Ok(()),
        }
    }
}

/// The text is not the line of a row.
#[derive(Debug, PartialEq, Eq)]
pub struct NotALine;

impl FromStr for Line {
    type Err = NotALine;

    fn from_str(text: &str) -> Result<Self, NotALine> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (name, sum, times) = match words[..] {
            [MARK, name, sum] => (name, sum, None),
            [MARK, name, sum, smallest, median] => (name, sum, Some((smallest, median))),
            _ => return Err(NotALine),
        };
        let ns = |word: &str| word.parse::<f64>().map_err(|_| NotALine);
        let timing = match times {
            Some((smallest, median)) => {
                Some(Timing { smallest_ns: ns(smallest)?, median_ns: ns(median)? })
            }
            None => None,
        };
        let sum = u64::from_str_radix(sum, 16).map_err(|_| NotALine)?;
        Ok(Self { name: name.to_owned(), sum, timing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written() {
        let timing = Some(Timing { smallest_ns: 1.5, median_ns: 2.25 });
        for timing in [None, timing] {
            let line = Line { name: "sha256".to_owned(), sum: 0xfeed, timing };
            assert_eq!(line.to_string().parse(), Ok(line));
        }
    }

    #[test]
    fn what_else_a_console_prints_is_no_line() {
        for text in ["", "BASKET", "BASKET-END", "[ 1.0] BASKET a b", "BASKET a 1 2", "BASKET a z"]
        {
            assert_eq!(text.parse::<Line>(), Err(NotALine), "{text}");
        }
    }
}
