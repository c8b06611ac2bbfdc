//! Pipes, files and a fake guest.

use std::io::{PipeWriter, Seek, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use evloop::LoopThread;

use super::*;

/// A guest that has as much room as the test gives it.
struct Guest {
    got: Mutex<Vec<u8>>,
    room: AtomicUsize,
    event: Arc<Event>,
}

impl Guest {
    fn new(room: usize) -> Arc<Self> {
        let event = Arc::new(Event::new().unwrap());
        Arc::new(Self { got: Mutex::default(), room: AtomicUsize::new(room), event })
    }

    fn input(
        self: &Arc<Self>,
        of: &EventLoop,
        source: impl Into<OwnedFd>,
        obey: Option<Obey>,
    ) -> Input {
        let guest = self.clone();
        let offer: Offer = Box::new(move |bytes| {
            let room = guest.room.load(Ordering::SeqCst);
            let taken = bytes.len().min(room);
            guest.room.store(room - taken, Ordering::SeqCst);
            guest.got.lock().unwrap().extend(&bytes[..taken]);
            taken
        });
        Input::new(of, File::from(source.into()), self.event.clone(), offer, obey).unwrap()
    }

    fn give_room(&self, bytes: usize) {
        self.room.store(bytes, Ordering::SeqCst);
        self.event.signal();
    }

    fn wait_for(&self, length: usize) -> Vec<u8> {
        let begin = Instant::now();
        loop {
            let got = self.got.lock().unwrap().clone();
            if got.len() >= length {
                return got;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{} of {length}", got.len());
            std::thread::yield_now();
        }
    }
}

fn looping() -> (EventLoop, LoopThread) {
    let of = EventLoop::new().unwrap();
    let thread = of.spawn("test").unwrap();
    (of, thread)
}

fn pipe() -> (OwnedFd, PipeWriter) {
    let (reader, writer) = io::pipe().unwrap();
    (reader.into(), writer)
}

#[test]
fn a_pipe_is_read_at_the_guests_pace_and_nothing_is_lost() {
    let (of, _thread) = looping();
    let guest = Guest::new(3);
    let (reader, mut writer) = pipe();
    let input = guest.input(&of, reader, None);
    let sent: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
    writer.write_all(&sent).unwrap();
    drop(writer);
    let mut expected = 3;
    while expected < sent.len() {
        guest.wait_for(expected);
        assert!(lock(&input._state).waiting.len() <= CHUNK_BYTES);
        guest.give_room(1000);
        expected = sent.len().min(expected + 1000);
    }
    assert_eq!(guest.wait_for(sent.len()), sent);
}

#[test]
fn a_file_is_read_to_its_end_though_nobody_can_wait_for_it() {
    let (of, _thread) = looping();
    let guest = Guest::new(600);
    let mut file = tempfile::tempfile().unwrap();
    let sent: Vec<u8> = (0..2000u32).map(|n| n as u8).collect();
    file.write_all(&sent).unwrap();
    file.rewind().unwrap();
    let _input = guest.input(&of, file, None);
    guest.wait_for(600);
    guest.give_room(100_000);
    assert_eq!(guest.wait_for(2000), sent);
}

#[test]
fn an_escape_works_when_the_guest_takes_nothing() {
    let (of, _thread) = looping();
    let guest = Guest::new(0);
    let (reader, mut writer) = pipe();
    let (sender, receiver) = std::sync::mpsc::channel();
    let obey: Obey = Box::new(move |typed| sender.send(typed).unwrap());
    let input = guest.input(&of, reader, Some(obey));
    writer.write_all(&[b'a'; 10_000]).unwrap();
    writer.write_all(b"\x01x").unwrap();
    assert_eq!(receiver.recv_timeout(Duration::from_secs(60)).unwrap(), Typed::Quit);
    assert_eq!(lock(&input._state).waiting.len(), WAITING_MAX);
    guest.give_room(usize::MAX);
    assert_eq!(guest.wait_for(WAITING_MAX), vec![b'a'; WAITING_MAX]);
}
