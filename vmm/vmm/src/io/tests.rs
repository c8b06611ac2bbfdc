//! Real descriptors, real time.

use std::sync::mpsc::channel;

use vmm_rpc::{Client, Request};

use super::*;
use crate::inbox::Mail;

const LONG: Duration = Duration::from_secs(60);

#[test]
fn timers_fire_while_the_clock_runs_and_wait_while_it_stands() {
    let clock = MachineClock::new(TimeSource::Host);
    let mut io = Io::new().unwrap();
    io.serve_clock(&clock).unwrap();
    let _thread = io.start("test").unwrap();
    let (sender, receiver) = channel();
    let now = clock.clone();
    let timer = clock.timer(move || sender.send(now.now_ns()).unwrap());
    timer.set(Some(2_000_000));
    assert!(receiver.recv_timeout(Duration::from_millis(20)).is_err());
    clock.start();
    assert!(receiver.recv_timeout(LONG).unwrap() >= 2_000_000);
    timer.set(Some(clock.now_ns() + 3_600_000_000_000));
    timer.set(Some(clock.now_ns() + 1_000_000));
    receiver.recv_timeout(LONG).unwrap();
    timer.set(Some(0));
    receiver.recv_timeout(LONG).unwrap();
}

#[test]
fn clients_are_served_through_the_inbox_and_the_path_goes_with_the_thread() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vm.sock");
    let inbox = Arc::new(Inbox::default());
    let mut io = Io::new().unwrap();
    io.serve_control(Listener::bind(&path).unwrap(), &inbox, "test").unwrap();
    let thread = io.start("test").unwrap();
    let answering = {
        let inbox = inbox.clone();
        std::thread::spawn(move || {
            for _ in 0..40 {
                match inbox.wait() {
                    Mail::Request(Request::Pause, mut answer) => answer(Reply::Done.into()),
                    _ => panic!("nobody asked for it"),
                }
            }
        })
    };
    // More clients than are taken in at a time, but one after the other.
    for _ in 0..20 {
        let mut client = Client::connect(&path).unwrap();
        assert_eq!(client.ask(&Request::Pause).unwrap(), Reply::Done);
        assert_eq!(client.ask(&Request::Pause).unwrap(), Reply::Done);
    }
    answering.join().unwrap();
    drop(thread);
    assert!(!path.exists());
}

#[test]
fn one_client_too_many_is_turned_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vm.sock");
    let inbox = Arc::new(Inbox::default());
    let mut io = Io::new().unwrap();
    io.serve_control(Listener::bind(&path).unwrap(), &inbox, "test").unwrap();
    let _thread = io.start("test").unwrap();
    let _clients: Vec<_> = (0..CLIENTS_MAX).map(|_| Client::connect(&path).unwrap()).collect();
    let mut late = Client::connect(&path).unwrap();
    assert!(late.ask(&Request::Pause).is_err());
}
