//! Prints an error with all of its causes, once, at the edge of the program, in one line.
//!
//! Messages in this project never contain their source (see CONTRIBUTING), so the chain
//! `a: b: c` is the whole story and tells nothing twice.

use std::error::Error;
use std::fmt;

/// Shows `error` and its sources, outermost first, separated by colons.
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// The first paragraph of what a parser of command lines says, which tells what is wrong, as one
/// line.
pub fn first_paragraph(message: &str) -> String {
    let paragraph = message.split("\n\n").next().unwrap_or_default();
    let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{} (--help lists all options)", line.strip_prefix("error: ").unwrap_or(&line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usage_error_becomes_one_line() {
        let message = "error: one thing is wrong:\n  --this\n\nUsage: program\n\nTry '--help'.\n";
        let line = "one thing is wrong: --this (--help lists all options)";
        assert_eq!(first_paragraph(message), line);
    }

    #[derive(Debug)]
    struct Outer(std::fmt::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("cannot format the disk")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn every_cause_is_shown_once() {
        let shown = Chain(&Outer(fmt::Error)).to_string();
        assert_eq!(shown, format!("cannot format the disk: {}", fmt::Error));
    }
}
