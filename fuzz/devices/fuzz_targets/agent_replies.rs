//! Whatever a guest says where its agent should answer.

#![no_main]

use std::time::Instant;

use guest_agent::{Agent, AgentRequest, Channel, ChannelError};
use libfuzzer_sys::fuzz_target;

/// Answers a synchronisation as it should be, and everything else with the input.
struct Guest<'a> {
    input: &'a [u8],
    coming: Vec<u8>,
}

impl Channel for Guest<'_> {
    fn forget(&mut self) {
        self.coming.clear();
    }

    fn send(&mut self, bytes: &[u8], _until: Instant) -> Result<(), ChannelError> {
        let text = String::from_utf8_lossy(bytes);
        if let Some(id) = text.split("\"id\":").nth(1).and_then(|rest| rest.split('}').next()) {
            self.coming.extend(b"\xff");
            self.coming.extend(format!("{{\"return\": {id}}}\n").bytes());
        } else if bytes.len() > 1 {
            let end = self.input.iter().position(|byte| *byte == b'\n');
            let (line, rest) = self.input.split_at(end.map_or(self.input.len(), |end| end + 1));
            self.input = rest;
            self.coming.extend(line);
        }
        Ok(())
    }

    fn receive(&mut self, into: &mut [u8], _until: Instant) -> Result<usize, ChannelError> {
        let size = into.len().min(self.coming.len());
        into[..size].copy_from_slice(&self.coming[..size]);
        self.coming.drain(..size);
        if size == 0 { Err(ChannelError::TooLate) } else { Ok(size) }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, input)) = data.split_first() else { return };
    let request = match kind % 7 {
        0 => AgentRequest::Info,
        1 => AgentRequest::Network,
        2 => AgentRequest::ExecStatus { pid: 1 },
        3 => AgentRequest::FileRead { handle: 1 },
        4 => AgentRequest::Freeze,
        5 => AgentRequest::FileOpen { path: "/".into(), write: false },
        _ => AgentRequest::Ping,
    };
    let mut agent = Agent::new(Guest { input, coming: Vec::new() }, 1);
    let fits = |reply| {
        let message = serde_json::to_vec(&vmm_rpc::Reply::Agent(reply)).unwrap();
        assert!(message.len() <= vmm_rpc::MESSAGE_SIZE_MAX);
    };
    for _ in 0..3 {
        if let Ok(reply) = agent.serve(&request, &mut |output| fits(output)) {
            fits(reply);
        }
    }
});
