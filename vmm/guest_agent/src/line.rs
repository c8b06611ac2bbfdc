//! Replies, which are lines, of a channel, which is bytes.

use std::time::Instant;

use crate::{AgentError, Channel};

/// Comes before a synchronising reply, and is part of no other.
pub(crate) const DELIMITER: u8 = 0xff;
/// Bytes taken off the channel at once.
const PIECE: usize = 4096;

/// What has come of the next lines.
#[derive(Default)]
pub(crate) struct Lines {
    pending: Vec<u8>,
    /// So much of it has no line end.
    searched: usize,
}

impl Lines {
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The next line, without its end.
    pub(crate) fn next(
        &mut self,
        channel: &mut impl Channel,
        longest: usize,
        until: Instant,
    ) -> Result<Vec<u8>, AgentError> {
        loop {
            let end = self.pending[self.searched..].iter().position(|byte| *byte == b'\n');
            if let Some(end) = end {
                let rest = self.pending.split_off(self.searched + end + 1);
                self.searched = 0;
                let mut line = std::mem::replace(&mut self.pending, rest);
                line.pop();
                return Ok(line);
            }
            self.searched = self.pending.len();
            if self.pending.len() > longest {
                return Err(AgentError::TooLong(longest));
            }
            let mut piece = [0; PIECE];
            let size = channel.receive(&mut piece, until)?;
            self.pending.extend(&piece[..size.min(PIECE)]);
        }
    }
}
