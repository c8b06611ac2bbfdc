//! An agent in the form of a script, and hostile ones.

use std::collections::VecDeque;

use serde_json::{Value, json};
use vmm_rpc::{AgentReply, Data, Ended, Stream};

use super::*;

/// What the agent says to a command.
type Answer = Box<dyn FnMut(&Value) -> Vec<u8>>;

/// An agent that is asked where it would be sent to.
struct Scripted {
    half: Vec<u8>,
    coming: VecDeque<u8>,
    answer: Answer,
    syncs: usize,
}

impl Channel for Scripted {
    fn forget(&mut self) {
        self.coming.clear();
    }

    fn send(&mut self, bytes: &[u8], _until: Instant) -> Result<(), ChannelError> {
        for byte in bytes {
            match byte {
                0xff => self.half.clear(),
                b'\n' => {
                    let asked: Value = serde_json::from_slice(&self.half).unwrap();
                    self.half.clear();
                    if asked["execute"] == "guest-sync-delimited" {
                        self.syncs += 1;
                        let id = &asked["arguments"]["id"];
                        self.coming.push_back(0xff);
                        self.coming.extend(format!("{{\"return\": {id}}}\n").bytes());
                    } else {
                        self.coming.extend((self.answer)(&asked));
                    }
                }
                byte => self.half.push(*byte),
            }
        }
        Ok(())
    }

    fn receive(&mut self, into: &mut [u8], _until: Instant) -> Result<usize, ChannelError> {
        let size = into.len().min(self.coming.len());
        into.iter_mut().zip(self.coming.drain(..size)).for_each(|(to, byte)| *to = byte);
        if size == 0 { Err(ChannelError::TooLate) } else { Ok(size) }
    }
}

fn agent(answer: impl FnMut(&Value) -> Vec<u8> + 'static) -> Agent<Scripted> {
    let (half, coming) = Default::default();
    Agent::new(Scripted { half, coming, answer: Box::new(answer), syncs: 0 }, 7)
}

fn value(value: &Value) -> Vec<u8> {
    format!("{}\n", json!({ "return": value })).into_bytes()
}

fn serve(agent: &mut Agent<Scripted>, request: &AgentRequest) -> Result<AgentReply, AgentError> {
    agent.serve(request, &mut |_| ())
}

#[test]
fn a_conversation_is_synchronised_once() {
    let mut agent = agent(|asked| {
        assert_eq!(asked["execute"], "guest-ping");
        value(&json!({}))
    });
    for _ in 0..3 {
        assert_eq!(serve(&mut agent, &AgentRequest::Ping).unwrap(), AgentReply::Done);
    }
    assert_eq!(agent.channel().syncs, 1);
}

#[test]
fn a_refusal_is_passed_on_and_the_conversation_goes_on() {
    let mut agent =
        agent(|_| b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n".into());
    for _ in 0..2 {
        let refused = serve(&mut agent, &AgentRequest::Freeze);
        assert!(matches!(refused, Err(AgentError::Refused(why)) if why == "no"));
    }
    assert_eq!(agent.channel().syncs, 1);
}

#[test]
fn what_makes_no_sense_ends_the_conversation_and_a_new_one_begins() {
    static DEEP: [u8; 10_000] = [b'['; 10_000];
    let replies: [&[u8]; 6] =
        [b"", b"{}", b"\xff\xfe", b"{\"return\": \"x\"}", &DEEP, b"{\"return\": 1e999}"];
    for reply in replies {
        let mut first = true;
        let mut agent = agent(move |_| {
            if std::mem::take(&mut first) { [reply, b"\n"].concat() } else { value(&json!(3)) }
        });
        assert!(serve(&mut agent, &AgentRequest::Freeze).is_err(), "{reply:?}");
        let frozen = serve(&mut agent, &AgentRequest::Freeze).unwrap();
        assert_eq!(frozen, AgentReply::Filesystems { filesystems: 3 });
    }
}

#[test]
fn late_replies_are_not_taken_for_those_of_the_next_command() {
    let mut late = Vec::new();
    let mut agent = agent(move |asked| match asked["execute"].as_str() {
        Some("guest-fsfreeze-freeze") => {
            late = value(&json!(1));
            Vec::new()
        }
        _ => std::mem::take(&mut late).into_iter().chain(value(&json!({}))).collect(),
    });
    assert!(matches!(serve(&mut agent, &AgentRequest::Freeze), Err(AgentError::Channel(_))));
    let _ = serve(&mut agent, &AgentRequest::Ping);
    assert_eq!(agent.channel().syncs, 2);
}

#[test]
fn replies_without_an_end_are_given_up() {
    let mut agent = agent(|_| vec![b'x'; REPLY_MAX * 2]);
    assert!(matches!(serve(&mut agent, &AgentRequest::Ping), Err(AgentError::TooLong(_))));
}

#[test]
fn output_comes_in_pieces_before_the_exit_status() {
    let mut agent = agent(|asked| match asked["execute"].as_str() {
        Some("guest-exec") => {
            assert_eq!(asked["arguments"]["arg"], json!(["-c", "true"]));
            assert_eq!(asked["arguments"]["input-data"], "aGk=");
            value(&json!({ "pid": 42 }))
        }
        _ => {
            assert_eq!(asked["arguments"]["pid"], 42);
            let out = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, [b'o'; 40_000]);
            value(&json!({ "exited": true, "exitcode": 3, "out-data": out, "err-data": "ZQ==" }))
        }
    });
    let exec = AgentRequest::Exec {
        path: "/bin/sh".into(),
        arguments: vec!["-c".into(), "true".into()],
        input: Some(Data(b"hi".to_vec())),
    };
    assert_eq!(serve(&mut agent, &exec).unwrap(), AgentReply::Started { pid: 42 });
    let mut pieces = Vec::new();
    let mut output = |reply| {
        let AgentReply::Output { stream, data } = reply else { panic!("{reply:?}") };
        pieces.push((stream, data.0.len()));
    };
    let ended = agent.serve(&AgentRequest::ExecStatus { pid: 42 }, &mut output).unwrap();
    let expected = Ended { exit_code: Some(3), signal: None, is_cut: false };
    assert_eq!(ended, AgentReply::Ended(expected));
    assert_eq!(
        pieces,
        [(Stream::Out, 32 << 10), (Stream::Out, 40_000 - (32 << 10)), (Stream::Error, 1)]
    );
}

#[test]
fn what_a_guest_says_of_itself_fits_into_a_message() {
    let mut agent = agent(|_| {
        let many: Vec<_> = (0..500)
            .map(|_| {
                let addresses = vec![json!({ "ip-address": "é".repeat(100), "prefix": 64 }); 30];
                json!({ "name": "n".repeat(500), "ip-addresses": addresses })
            })
            .collect();
        let mut reply = value(&json!(many));
        reply.truncate(REPLY_MAX * 4);
        reply
    });
    // 500 interfaces are too long a reply; of fewer, what fits is kept.
    assert!(matches!(serve(&mut agent, &AgentRequest::Network), Err(AgentError::TooLong(_))));
    let mut agent = self::agent(|_| {
        let addresses = vec![json!({ "ip-address": "é".repeat(100), "prefix": 64 }); 30];
        value(&json!(vec![json!({ "name": "n".repeat(500), "ip-addresses": addresses }); 100]))
    });
    let reply = serve(&mut agent, &AgentRequest::Network).unwrap();
    let size = serde_json::to_vec(&vmm_rpc::Reply::Agent(reply)).unwrap().len();
    assert!(size < vmm_rpc::MESSAGE_SIZE_MAX, "{size}");
}

#[test]
fn an_agent_that_shuts_down_says_nothing() {
    let mut agent = agent(|_| Vec::new());
    let request = AgentRequest::Shutdown { reboot: false };
    assert_eq!(serve(&mut agent, &request).unwrap(), AgentReply::Done);
}
