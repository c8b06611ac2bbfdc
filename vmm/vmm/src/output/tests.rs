//! Readers that are quick, slow, and gone.

use std::io::Read;
use std::time::Instant;

use super::*;

const LONG: Duration = Duration::from_secs(60);

#[test]
fn everything_comes_through_in_order() {
    let (mut reader, writer) = io::pipe().unwrap();
    let output = Output::new(writer).unwrap();
    let sent: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    let expected = sent.clone();
    let reading = std::thread::spawn(move || {
        let mut got = vec![0; expected.len()];
        reader.read_exact(&mut got).unwrap();
        assert_eq!(got, expected);
    });
    sent.chunks(7).for_each(|chunk| output.put(chunk));
    assert!(output.flush(LONG));
    reading.join().unwrap();
    assert_eq!(output.lost_bytes(), 0);
}

#[test]
fn a_reader_who_takes_nothing_costs_one_wait_and_then_bytes() {
    let (mut reader, writer) = io::pipe().unwrap();
    let output = Output::new(writer).unwrap();
    let begin = Instant::now();
    // The pipe and the buffer hold 64 KiB each.
    (0..1000).for_each(|_| output.put(&[b'x'; 1000]));
    // A wait for each would take a minute and a half.
    assert!(begin.elapsed() < LONG, "{:?}", begin.elapsed());
    assert!(output.lost_bytes() > 800_000);
    assert!(!output.flush(Duration::from_millis(1)));
    // When the reader takes something, output goes on.
    let mut some = [0; 100_000];
    reader.read_exact(&mut some).unwrap();
    let begin = Instant::now();
    while output.0.lock().stalled {
        assert!(begin.elapsed() < LONG);
        std::thread::yield_now();
    }
    let lost = output.lost_bytes();
    output.put(b"again");
    assert_eq!(output.lost_bytes(), lost);
}

#[test]
fn a_reader_who_has_gone_is_not_waited_for() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let output = Output::new(writer).unwrap();
    output.put(b"first");
    assert!(!output.flush(LONG));
    let begin = Instant::now();
    (0..1000).for_each(|_| output.put(&[b'x'; 1000]));
    assert!(begin.elapsed() < LONG);
    assert_eq!(output.lost_bytes(), 1_000_005);
}
