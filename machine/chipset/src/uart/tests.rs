//! Register scripts.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::fakes::{Recorder, inb, outb};
use machine_clock::TimeSource;

const IRQ: u32 = 4;

struct Rig {
    clock: Arc<MachineClock>,
    wires: Arc<Recorder>,
    uart: Arc<Uart>,
}

fn rig() -> Rig {
    let clock = MachineClock::new(TimeSource::Counted);
    let wires = Recorder::new();
    let uart = Uart::new(&clock, wires.line(IRQ), wires.clone());
    Rig { clock, wires, uart }
}

/// FIFOs on, trigger at 14 bytes, receive interrupt enabled, 115200 8N1.
fn rig_with_fifos() -> Rig {
    let rig = rig();
    outb(&*rig.uart, LCR, 3);
    outb(&*rig.uart, IIR_FCR, 0xc7);
    outb(&*rig.uart, IER_DLM, IER_ERBFI);
    rig
}

#[test]
fn bytes_written_are_sent_and_the_transmitter_is_empty() {
    let rig = rig();
    rig.uart.write(RBR_THR_DLL, b"A");
    outb(&*rig.uart, RBR_THR_DLL, b'B');
    assert_eq!(rig.wires.take_bytes(), b"AB");
    assert_eq!(inb(&*rig.uart, LSR), LSR_THRE | LSR_TEMT);
    assert!(!rig.wires.level(IRQ));
}

#[test]
fn the_divisor_hides_behind_dlab() {
    let rig = rig();
    outb(&*rig.uart, LCR, LCR_DLAB | 3);
    rig.uart.write(RBR_THR_DLL, &[0x34, 0x12]);
    assert_eq!((inb(&*rig.uart, 0), inb(&*rig.uart, 1)), (0x34, 0x12));
    outb(&*rig.uart, LCR, 3);
    assert_eq!((inb(&*rig.uart, 0), inb(&*rig.uart, 1)), (0, 0));
    assert!(rig.wires.take_bytes().is_empty());
    outb(&*rig.uart, SCR, 0x5a);
    assert_eq!(inb(&*rig.uart, SCR), 0x5a);
}

#[test]
fn thre_interrupts_on_enable_and_again_after_each_byte() {
    let rig = rig();
    outb(&*rig.uart, IER_DLM, IER_ETBEI);
    assert!(rig.wires.level(IRQ));
    assert_eq!(inb(&*rig.uart, IIR_FCR), IIR_THRE);
    assert!(!rig.wires.level(IRQ));
    assert_eq!(inb(&*rig.uart, IIR_FCR), IIR_NONE);
    outb(&*rig.uart, RBR_THR_DLL, b'x');
    assert!(rig.wires.level(IRQ));
    // Enabling it once more, without an edge of the enable bit, is no new interrupt.
    inb(&*rig.uart, IIR_FCR);
    outb(&*rig.uart, IER_DLM, IER_ETBEI | IER_ERBFI);
    assert!(!rig.wires.level(IRQ));
    outb(&*rig.uart, IER_DLM, 0);
    outb(&*rig.uart, IER_DLM, IER_ETBEI);
    assert!(rig.wires.level(IRQ));
}

#[test]
fn without_fifos_one_byte_is_taken_at_a_time() {
    let rig = rig();
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = calls.clone();
    rig.uart.set_on_room(move || {
        seen.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(rig.uart.receive(b"ab"), 1);
    assert_eq!(rig.uart.receive(b"b"), 0);
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    assert_eq!(inb(&*rig.uart, LSR) & LSR_DR, LSR_DR);
    assert_eq!(inb(&*rig.uart, RBR_THR_DLL), b'a');
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(rig.uart.receive(b"b"), 1);
    assert_eq!(inb(&*rig.uart, RBR_THR_DLL), b'b');
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[test]
fn the_fifo_interrupts_at_its_trigger_level() {
    let rig = rig_with_fifos();
    assert_eq!(rig.uart.receive(&[7; 13]), 13);
    assert_eq!(inb(&*rig.uart, IIR_FCR), IIR_FIFOS | IIR_NONE);
    assert_eq!(rig.uart.receive(&[7; 9]), 3);
    assert!(rig.wires.level(IRQ));
    assert_eq!(inb(&*rig.uart, IIR_FCR), IIR_FIFOS | IIR_DATA);
    for _ in 0..3 {
        inb(&*rig.uart, RBR_THR_DLL);
    }
    assert!(!rig.wires.level(IRQ));
}

#[test]
fn bytes_below_the_trigger_time_out_after_four_characters() {
    let rig = rig_with_fifos();
    rig.uart.receive(b"ab");
    let four_characters_ns = 4 * 10 * 1_000_000_000 / 115_200;
    rig.clock.advance_to(four_characters_ns - 10);
    assert!(!rig.wires.level(IRQ));
    rig.clock.advance_to(four_characters_ns + 10);
    assert!(rig.wires.level(IRQ));
    assert_eq!(inb(&*rig.uart, IIR_FCR), IIR_FIFOS | IIR_TIMEOUT);
    // Reading one byte restarts the time for the other.
    inb(&*rig.uart, RBR_THR_DLL);
    assert!(!rig.wires.level(IRQ));
    rig.clock.advance_to(3 * four_characters_ns);
    assert!(rig.wires.level(IRQ));
    inb(&*rig.uart, RBR_THR_DLL);
    assert!(!rig.wires.level(IRQ));
    assert_eq!(rig.clock.next_deadline_ns(), None);
}

#[test]
fn loopback_returns_bytes_and_modem_lines() {
    let rig = rig();
    outb(&*rig.uart, MCR, MCR_LOOP);
    assert_eq!(inb(&*rig.uart, MSR) & 0xf0, 0);
    outb(&*rig.uart, MCR, MCR_LOOP | MCR_RTS | MCR_OUT1);
    assert_eq!(inb(&*rig.uart, MSR), MSR_CTS | MSR_RI | 0x01);
    assert_eq!(inb(&*rig.uart, MSR), MSR_CTS | MSR_RI);
    outb(&*rig.uart, IER_DLM, IER_EDSSI);
    outb(&*rig.uart, MCR, MCR_LOOP | MCR_RTS);
    assert!(rig.wires.level(IRQ));
    assert_eq!(inb(&*rig.uart, IIR_FCR), IIR_MODEM);
    assert_eq!(inb(&*rig.uart, MSR), MSR_CTS | MSR_TERI);
    assert!(!rig.wires.level(IRQ));
    outb(&*rig.uart, RBR_THR_DLL, 0x42);
    assert_eq!(rig.uart.receive(b"no"), 0);
    assert_eq!(inb(&*rig.uart, RBR_THR_DLL), 0x42);
    assert!(rig.wires.take_bytes().is_empty());
}

#[test]
fn an_overrun_in_loopback_has_the_highest_priority() {
    let rig = rig();
    outb(&*rig.uart, MCR, MCR_LOOP);
    outb(&*rig.uart, IER_DLM, 0x0f);
    outb(&*rig.uart, RBR_THR_DLL, 1);
    outb(&*rig.uart, RBR_THR_DLL, 2);
    assert_eq!(inb(&*rig.uart, IIR_FCR), IIR_LINE);
    assert_eq!(inb(&*rig.uart, LSR), LSR_THRE | LSR_TEMT | LSR_DR | LSR_OE);
    assert_eq!(inb(&*rig.uart, IIR_FCR), IIR_DATA);
    assert_eq!(inb(&*rig.uart, RBR_THR_DLL), 2);
    assert_eq!(inb(&*rig.uart, IIR_FCR), IIR_THRE);
    assert_eq!(inb(&*rig.uart, IIR_FCR), IIR_MODEM);
    inb(&*rig.uart, MSR);
    assert_eq!(inb(&*rig.uart, IIR_FCR), IIR_NONE);
}

#[test]
fn restored_state_saves_equal_and_goes_on() {
    let old = rig_with_fifos();
    old.uart.receive(b"xy");
    let section = old.uart.save();
    let new = rig();
    new.uart.restore(&section).unwrap();
    assert_eq!(new.uart.save(), section);
    new.clock.advance_to(1_000_000);
    assert!(new.wires.level(IRQ));
    assert_eq!(inb(&*new.uart, RBR_THR_DLL), b'x');
    new.uart.reset();
    assert!(!new.wires.level(IRQ));
    assert_eq!(inb(&*new.uart, LSR) & LSR_DR, 0);
    assert_eq!(new.uart.save(), rig().uart.save());
}
