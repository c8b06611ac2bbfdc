//! Registers of the 16550A (National Semiconductor PC16550D, June 1995).

/// Ports of the device.
pub const SIZE: u64 = 8;
/// Receiver and transmitter FIFO.
pub const FIFO_SIZE: usize = 16;
/// Frequency of the crystal; the baud rate is this by 16 by the divisor.
pub const CRYSTAL_HZ: u64 = 1_843_200;

/// Receiver Buffer (read), Transmitter Holding (write); Divisor Latch low with DLAB.
pub const RBR_THR_DLL: u64 = 0;
/// Interrupt Enable; Divisor Latch high with DLAB.
pub const IER_DLM: u64 = 1;
/// Interrupt Identification (read), FIFO Control (write).
pub const IIR_FCR: u64 = 2;
/// Line Control.
pub const LCR: u64 = 3;
/// Modem Control.
pub const MCR: u64 = 4;
/// Line Status.
pub const LSR: u64 = 5;
/// Modem Status.
pub const MSR: u64 = 6;
/// Scratch.
pub const SCR: u64 = 7;

/// Received data available.
pub const IER_ERBFI: u8 = 0x01;
/// Transmitter holding register empty.
pub const IER_ETBEI: u8 = 0x02;
/// Receiver line status.
pub const IER_ELSI: u8 = 0x04;
/// Modem status.
pub const IER_EDSSI: u8 = 0x08;

/// No interrupt pending.
pub const IIR_NONE: u8 = 0x01;
/// Modem status: the lowest priority.
pub const IIR_MODEM: u8 = 0x00;
/// Transmitter holding register empty.
pub const IIR_THRE: u8 = 0x02;
/// Received data available.
pub const IIR_DATA: u8 = 0x04;
/// Character timeout.
pub const IIR_TIMEOUT: u8 = 0x0c;
/// Receiver line status: the highest priority.
pub const IIR_LINE: u8 = 0x06;
/// FIFOs are on.
pub const IIR_FIFOS: u8 = 0xc0;

/// FIFOs on.
pub const FCR_ENABLE: u8 = 0x01;
/// Clear the receiver FIFO.
pub const FCR_CLEAR_RX: u8 = 0x02;
/// What of FCR is kept: enable and trigger level.
pub const FCR_KEPT: u8 = 0xc1;
/// Receiver trigger levels, by FCR bits 6 and 7.
pub const TRIGGERS: [usize; 4] = [1, 4, 8, 14];

/// Word length is 5 plus these bits.
pub const LCR_WLS: u8 = 0x03;
/// Two stop bits.
pub const LCR_STB: u8 = 0x04;
/// A parity bit.
pub const LCR_PEN: u8 = 0x08;
/// Divisor latch access.
pub const LCR_DLAB: u8 = 0x80;

/// Data terminal ready.
pub const MCR_DTR: u8 = 0x01;
/// Request to send.
pub const MCR_RTS: u8 = 0x02;
/// Output 1.
pub const MCR_OUT1: u8 = 0x04;
/// Output 2.
pub const MCR_OUT2: u8 = 0x08;
/// Loopback.
pub const MCR_LOOP: u8 = 0x10;
/// Bits that exist.
pub const MCR_MASK: u8 = 0x1f;

/// Data ready.
pub const LSR_DR: u8 = 0x01;
/// Overrun.
pub const LSR_OE: u8 = 0x02;
/// Transmitter holding register empty.
pub const LSR_THRE: u8 = 0x20;
/// Transmitter empty.
pub const LSR_TEMT: u8 = 0x40;

/// Trailing edge of ring indicator; the other deltas are bits 0, 1 and 3.
pub const MSR_TERI: u8 = 0x04;
/// Clear to send.
pub const MSR_CTS: u8 = 0x10;
/// Data set ready.
pub const MSR_DSR: u8 = 0x20;
/// Ring indicator.
pub const MSR_RI: u8 = 0x40;
/// Data carrier detect.
pub const MSR_DCD: u8 = 0x80;
