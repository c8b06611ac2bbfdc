//! A conversation: synchronised, one command and its reply at a time.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};

use crate::line::{DELIMITER, Lines};
use crate::{AgentError, Channel, ChannelError, REPLY_MAX};

/// How long an agent may take to say that it is there. A guest may be interpreted, and busy.
const SYNC_LIMIT: Duration = Duration::from_secs(10);
/// Longest complaint that is passed on.
const COMPLAINT_MAX: usize = 512;

/// What a command allows its reply.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) time: Duration,
    pub(crate) bytes: usize,
}

impl Limits {
    pub(crate) const fn seconds(seconds: u64) -> Self {
        Self { time: Duration::from_secs(seconds), bytes: REPLY_MAX }
    }
}

/// The agent of a guest.
pub struct Agent<C> {
    channel: C,
    lines: Lines,
    /// What comes next is the reply to what is sent next.
    is_synchronised: bool,
    /// Of the last synchronisation.
    id: u64,
}

#[derive(Deserialize)]
struct Reply<T> {
    #[serde(rename = "return")]
    value: Option<T>,
    error: Option<Complaint>,
}

#[derive(Deserialize)]
struct Complaint {
    desc: String,
}

impl<C: Channel> Agent<C> {
    /// The agent at the other end of `channel`, if there is one. `seed` makes the first
    /// synchronisation unlike those of an earlier process.
    pub fn new(channel: C, seed: u32) -> Self {
        let id = u64::from(seed) << 16;
        Self { channel, lines: Lines::default(), is_synchronised: false, id }
    }

    #[cfg(test)]
    pub(crate) fn channel(&self) -> &C {
        &self.channel
    }

    /// Sends a command and waits for its reply.
    pub(crate) fn ask<T: DeserializeOwned>(
        &mut self,
        command: &str,
        arguments: Value,
        limits: Limits,
    ) -> Result<T, AgentError> {
        self.synchronise()?;
        // What fails below has left a reply, or half of one, on its way.
        self.is_synchronised = false;
        let until = Instant::now() + limits.time;
        self.send(command, arguments, until)?;
        let line = self.lines.next(&mut self.channel, limits.bytes, until)?;
        let reply: Reply<T> =
            serde_json::from_slice(&line).map_err(|e| AgentError::Nonsense(e.to_string()))?;
        self.is_synchronised = true;
        match reply {
            Reply { value: Some(value), .. } => Ok(value),
            Reply { error: Some(Complaint { desc }), .. } => {
                Err(AgentError::Refused(cut(&desc, COMPLAINT_MAX)))
            }
            _ => Err(AgentError::Nonsense("neither a value nor an error".to_owned())),
        }
    }

    /// The same for a command that an agent which does as it is told does not answer.
    pub(crate) fn tell(
        &mut self,
        command: &str,
        arguments: Value,
        limits: Limits,
    ) -> Result<(), AgentError> {
        match self.ask::<IgnoredAny>(command, arguments, limits) {
            Ok(_) | Err(AgentError::Channel(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn send(&mut self, command: &str, arguments: Value, until: Instant) -> Result<(), AgentError> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        Ok(self.channel.send(line.as_bytes(), until)?)
    }

    /// Begins a conversation, if none goes on.
    fn synchronise(&mut self) -> Result<(), AgentError> {
        if self.is_synchronised {
            return Ok(());
        }
        let until = Instant::now() + SYNC_LIMIT;
        self.channel.forget();
        self.lines.forget();
        self.id += 1;
        let id = self.id;
        // Half a command that the agent may still have is over with this byte.
        self.channel.send(&[DELIMITER], until)?;
        self.send("guest-sync-delimited", json!({ "id": id }), until)?;
        // Replies to what was asked before it may come first.
        while Instant::now() < until {
            let line = match self.lines.next(&mut self.channel, REPLY_MAX, until) {
                Err(AgentError::TooLong(_)) => {
                    self.lines.forget();
                    continue;
                }
                line => line?,
            };
            let mut parts = line.rsplitn(2, |byte| *byte == DELIMITER);
            let (reply, delimited) = (parts.next().unwrap_or_default(), parts.next().is_some());
            let reply = serde_json::from_slice::<Reply<u64>>(reply);
            if delimited && reply.is_ok_and(|reply| reply.value == Some(id)) {
                self.is_synchronised = true;
                return Ok(());
            }
        }
        Err(ChannelError::TooLate.into())
    }
}

/// The front of a text, up to so many bytes.
pub(crate) fn cut(text: &str, size_max: usize) -> String {
    let end = (0..=size_max.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or(0)].to_owned()
}
