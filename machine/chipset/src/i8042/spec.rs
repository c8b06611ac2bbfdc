//! The PS/2 keyboard controller and its commands (IBM PS/2 Hardware Interface Technical
//! Reference, 1990: "Keyboard and Auxiliary Device Controller").

use crate::PortRange;

/// Where a PC has it.
pub const PORTS: &[PortRange] = &[
    PortRange { base: 0x60, size: 1, offset: DATA },
    PortRange { base: 0x64, size: 1, offset: STATUS_COMMAND },
];

/// Offset of the data port.
pub const DATA: u64 = 0;
/// Offset of the status (read) and command (write) port.
pub const STATUS_COMMAND: u64 = 1;

/// Status: output buffer full.
pub const STR_OBF: u8 = 0x01;
/// Status: the self-test has passed.
pub const STR_SYS: u8 = 0x04;
/// Status: the last write was a command.
pub const STR_CMD: u8 = 0x08;
/// Status: not locked by a key.
pub const STR_KEYLOCK: u8 = 0x10;
/// Status: the output buffer's byte is the mouse's.
pub const STR_AUX_OBF: u8 = 0x20;

/// Command byte: keyboard interrupt.
pub const CTR_KBD_INT: u8 = 0x01;
/// Command byte: mouse interrupt.
pub const CTR_AUX_INT: u8 = 0x02;
/// Command byte: system flag.
pub const CTR_SYS: u8 = 0x04;
/// Command byte: keyboard off.
pub const CTR_KBD_DISABLED: u8 = 0x10;
/// Command byte: mouse off.
pub const CTR_AUX_DISABLED: u8 = 0x20;
/// Command byte: scan codes are translated from set 2 to set 1.
pub const CTR_XLATE: u8 = 0x40;
/// The command byte as firmware leaves it: kernels that are booted without one rely on it.
pub const CTR_AT_RESET: u8 = CTR_KBD_INT | CTR_SYS | CTR_AUX_DISABLED | CTR_XLATE;

/// Read the command byte, or with the low bits other controller RAM.
pub const CMD_READ_RAM: u8 = 0x20;
/// Write the command byte, or with the low bits other controller RAM.
pub const CMD_WRITE_RAM: u8 = 0x60;
/// Disable the mouse.
pub const CMD_AUX_DISABLE: u8 = 0xa7;
/// Enable the mouse.
pub const CMD_AUX_ENABLE: u8 = 0xa8;
/// Test the mouse's lines.
pub const CMD_AUX_TEST: u8 = 0xa9;
/// Self-test.
pub const CMD_SELF_TEST: u8 = 0xaa;
/// Test the keyboard's lines.
pub const CMD_KBD_TEST: u8 = 0xab;
/// Disable the keyboard.
pub const CMD_KBD_DISABLE: u8 = 0xad;
/// Enable the keyboard.
pub const CMD_KBD_ENABLE: u8 = 0xae;
/// Read the input port.
pub const CMD_READ_INPUT: u8 = 0xc0;
/// Read the output port.
pub const CMD_READ_OUTPUT: u8 = 0xd0;
/// Write the output port.
pub const CMD_WRITE_OUTPUT: u8 = 0xd1;
/// The next byte comes back as if from the keyboard.
pub const CMD_KBD_LOOP: u8 = 0xd2;
/// The next byte comes back as if from the mouse.
pub const CMD_AUX_LOOP: u8 = 0xd3;
/// The next byte goes to the mouse.
pub const CMD_AUX_SEND: u8 = 0xd4;
/// The first of the commands that pulse the output port's bits that are clear in their low four.
pub const CMD_PULSE: u8 = 0xf0;

/// The self-test's result.
pub const SELF_TEST_PASSED: u8 = 0x55;
/// Output port: not in reset.
pub const OUT_NO_RESET: u8 = 0x01;
/// Output port: A20 is open, as always.
pub const OUT_A20: u8 = 0x02;
/// Output port: keyboard's byte in the output buffer.
pub const OUT_KBD_OBF: u8 = 0x10;
/// Output port: mouse's byte in the output buffer.
pub const OUT_AUX_OBF: u8 = 0x20;

/// A device acknowledges.
pub const ACK: u8 = 0xfa;
/// A device wants the byte again.
pub const NAK: u8 = 0xfe;
/// A device's self-test has passed.
pub const BAT_PASSED: u8 = 0xaa;
/// Set-2 prefix of a released key.
pub const BREAK: u8 = 0xf0;
/// Prefix of the keys added to the PC's first 83.
pub const EXTENDED: u8 = 0xe0;
/// Set-1 bit of a released key.
pub const RELEASED: u8 = 0x80;
