//! A client and a server in one thread; the server's side never blocks.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::thread;

use super::*;
use crate::packet::send_message;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
};

fn wait<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    for _ in 0..5000 {
        if let Some(value) = attempt() {
            return value;
        }
        thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("it did not come");
}

fn receive(peer: &Peer) -> Received {
    wait(|| match peer.receive() {
        Received::Nothing => None,
        other => Some(other),
    })
}

#[test]
fn a_request_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vm.sock");
    let listener = Listener::bind(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let asking = {
        let path = path.clone();
        thread::spawn(move || {
            let mut client = Client::connect(&path).unwrap();
            let hello = client.hello().clone();
            (hello, client.ask(&Request::Move { engine: EngineName::Emu }).unwrap())
        })
    };
    let peer = wait(|| listener.accept("test 1").unwrap());
    assert_eq!(receive(&peer), Received::Request(Request::Move { engine: EngineName::Emu }));
    let moved = Moved { from: EngineName::Hw, to: EngineName::Emu, stopped_us: 7 };
    peer.reply(&Reply::Moved(moved).into()).unwrap();
    let (hello, reply) = asking.join().unwrap();
    assert_eq!(hello, Hello { program: "test 1".into(), protocol: PROTOCOL });
    assert_eq!(reply, Reply::Moved(moved));
    assert_eq!(receive(&peer), Received::Closed);
}

#[test]
fn the_path_goes_with_its_listener_but_not_with_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vm.sock");
    let first = Listener::bind(&path).unwrap();
    assert!(matches!(Listener::bind(&path), Err(RpcError::InUse { .. })));
    fs::remove_file(&path).unwrap();
    let second = Listener::bind(&path).unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
}

#[test]
fn an_abandoned_socket_is_replaced_and_a_file_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vm.sock");
    let other = UnixListener::bind(&path).unwrap();
    assert!(matches!(Listener::bind(&path), Err(RpcError::InUse { .. })));
    drop(other);
    assert!(path.exists());
    drop(Listener::bind(&path).unwrap());
    fs::write(&path, "precious").unwrap();
    assert!(matches!(Listener::bind(&path), Err(RpcError::InUse { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn nonsense_is_told_from_requests_and_does_not_end_the_conversation() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vm.sock");
    let listener = Listener::bind(&path).unwrap();
    let raw = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .unwrap();
    connect(&raw, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    let peer = wait(|| listener.accept("test").unwrap());
    let long = vec![b' '; MESSAGE_SIZE_MAX + 1];
    for bytes in [&b"{"[..], b"\"fly\"", b"{\"move\":{}}", b"{\"move\":{\"engine\":\"x\"}}", &long]
    {
        rustix::net::send(&raw, bytes, SendFlags::empty()).unwrap();
        assert!(matches!(receive(&peer), Received::Bad(_)), "{}", bytes.len());
    }
    send_message(&raw, &Request::Pause, &[], SendFlags::empty()).unwrap();
    assert_eq!(receive(&peer), Received::Request(Request::Pause));
}

#[test]
fn a_client_that_takes_no_answers_cannot_hold_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vm.sock");
    let listener = Listener::bind(&path).unwrap();
    let raw = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .unwrap();
    connect(&raw, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    let peer = wait(|| listener.accept("test").unwrap());
    let failed = (0..100_000).find(|_| peer.reply(&Reply::Done.into()).is_err());
    assert!(failed.is_some());
}

#[test]
fn nobody_at_the_path_is_said_so() {
    let error = Client::connect("/nonexistent/vm.sock".as_ref()).err().unwrap();
    assert!(matches!(error, RpcError::NoVm { .. }), "{error}");
}

#[test]
fn a_vm_that_does_not_answer_is_not_waited_for_beyond_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vm.sock");
    let listener = Listener::bind(&path).unwrap();
    let limit = Some(std::time::Duration::from_millis(50));
    // Nobody greets.
    let error = Client::connect_within(&path, limit).err().unwrap();
    assert!(matches!(error, RpcError::Socket(_)), "{error}");
    drop(listener);
}
