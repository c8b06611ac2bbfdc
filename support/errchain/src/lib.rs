//! Prints an error with all of its causes, once, at the edge of the program.
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

#[cfg(test)]
mod tests {
    use super::*;

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
