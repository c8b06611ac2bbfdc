//! Command lines side by side in conventional memory.

use crate::error::BootError;
use crate::guest::Guest;
use crate::layout::low;

/// The strings so far.
pub(crate) struct Strings {
    end: u64,
}

impl Strings {
    pub(crate) fn new() -> Self {
        Self { end: low::STRINGS.base }
    }

    /// Writes one, with its NUL; returns its address.
    pub(crate) fn add(&mut self, guest: &Guest<'_>, string: &[u8]) -> Result<u64, BootError> {
        let left = (low::STRINGS.end() - self.end) as usize;
        if string.len() > left {
            return Err(BootError::CmdlineTooLong {
                size_bytes: string.len() - 1,
                max_bytes: left.saturating_sub(1),
            });
        }
        let at = self.end;
        guest.write(at, string);
        self.end += string.len() as u64;
        Ok(at)
    }
}
