//! What the card remembers, and its saved form.

use bus::{Saved, SectionError, saved_form};
use net::{FRAME_MAX, HEADER_SIZE};

use crate::eeprom::Microwire;
use crate::phy;
use crate::spec::*;

/// Registers, and what has been begun.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// Registers by their offsets, a word each.
    pub(crate) registers: Vec<u32>,
    pub(crate) phy: Vec<u16>,
    pub(crate) eeprom: Microwire,
    /// What IODATA leads to.
    pub(crate) io_address: u32,
    /// Of packets that are sent whole, and of those that are cut (3.3.5).
    pub(crate) contexts: Vec<Context>,
    pub(crate) sending: Sending,
}

/// A packet whose last descriptor has not come.
#[derive(Debug, Clone)]
pub(crate) struct Sending {
    /// Room for a header, and what has come of it.
    pub(crate) frame: Vec<u8>,
    /// It has become too long, or is in memory that is not there.
    pub(crate) lost: bool,
    /// All of it is there, and waits for the network.
    pub(crate) whole: bool,
    /// Options and command of its first descriptor.
    pub(crate) options: u8,
    pub(crate) command: u8,
}

impl Default for Sending {
    fn default() -> Self {
        Self { frame: vec![0; HEADER_SIZE], lost: false, whole: false, options: 0, command: 0 }
    }
}

impl Sending {
    /// For the next packet, in the same memory.
    pub(crate) fn clear(&mut self) {
        self.frame.truncate(HEADER_SIZE);
        self.frame.fill(0);
        (self.lost, self.whole) = (false, false);
    }
}

/// Where a packet's checksums are and how it is cut: a context descriptor.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Context {
    pub(crate) ipcss: u8,
    pub(crate) ipcso: u8,
    pub(crate) ipcse: u16,
    pub(crate) tucss: u8,
    pub(crate) tucso: u8,
    pub(crate) tucse: u16,
    pub(crate) tucmd: u8,
    pub(crate) hdrlen: u8,
    pub(crate) mss: u16,
}

impl State {
    /// After power-up, with this address.
    pub(crate) fn at_reset(mac: [u8; 6]) -> Self {
        let mut state = Self {
            registers: vec![0; (REGISTERS_END / 4) as usize],
            phy: phy::AT_RESET.to_vec(),
            eeprom: Microwire::default(),
            io_address: 0,
            contexts: vec![Context::default(); 2],
            sending: Sending::default(),
        };
        let [a, b, c, d, e, f] = mac;
        for (at, value) in [
            (CTRL, CTRL_FD | CTRL_SLU | CTRL_SPEED_1000),
            (VET, 0x8100),
            (LEDCTL, 0x0706_8302),
            (PBA, 0x0010_0030), // 48 KiB for receiving, 16 KiB for sending
            (RXDCTL, 0x0001_0000),
            (RXCSUM, RXCSUM_IPOFLD | RXCSUM_TUOFLD),
            (RA, u32::from_le_bytes([a, b, c, d])),
            (RA + 4, RAH_AV | u32::from_le_bytes([e, f, 0, 0])),
        ] {
            *state.register(at) = value;
        }
        state
    }

    /// A register's value.
    pub(crate) fn get(&self, at: u64) -> u32 {
        self.registers.get((at / 4) as usize).copied().unwrap_or_default()
    }

    /// A register, one of spec's.
    pub(crate) fn register(&mut self, at: u64) -> &mut u32 {
        &mut self.registers[(at / 4) as usize]
    }

    pub(crate) fn has(&self, at: u64, bits: u32) -> bool {
        self.get(at) & bits != 0
    }

    /// Something has happened that the driver may want to hear of.
    pub(crate) fn raise(&mut self, causes: u32) {
        *self.register(ICR) |= causes;
    }

    pub(crate) fn wants_interrupt(&self) -> bool {
        self.get(ICR) & self.get(IMS) != 0
    }

    /// Counts frames. Counters stay at their end (13.7).
    pub(crate) fn count(&mut self, at: u64) {
        let counter = self.register(at);
        *counter = counter.saturating_add(1);
    }

    /// Counts bytes, in two registers.
    pub(crate) fn count_bytes(&mut self, at: u64, size: usize) {
        let sum = u64::from(self.get(at + 4)) << 32 | u64::from(self.get(at));
        let sum = sum.saturating_add(size as u64);
        (*self.register(at), *self.register(at + 4)) = (sum as u32, (sum >> 32) as u32);
    }

    /// The ring at `at`.
    pub(crate) fn ring(&self, at: u64) -> Ring {
        Ring {
            base: u64::from(self.get(at + BAH)) << 32 | u64::from(self.get(at + BAL)),
            entries: self.get(at + LEN) / DESCRIPTOR_SIZE as u32,
            head: self.get(at + HEAD),
            tail: self.get(at + TAIL),
        }
    }
}

/// A ring of descriptors, as the registers have it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ring {
    base: u64,
    pub(crate) entries: u32,
    pub(crate) head: u32,
    tail: u32,
}

impl Ring {
    /// How many descriptors are the card's. None when head or tail is outside.
    pub(crate) fn filled(&self) -> u32 {
        if self.head >= self.entries || self.tail >= self.entries {
            return 0;
        }
        (self.tail + self.entries - self.head) % self.entries
    }

    /// Where the next descriptor is.
    pub(crate) fn at(&self) -> u64 {
        self.base.wrapping_add(u64::from(self.head) * DESCRIPTOR_SIZE)
    }

    /// The card is done with the next descriptor.
    pub(crate) fn advance(&mut self) {
        self.head = if self.head + 1 >= self.entries { 0 } else { self.head + 1 };
    }
}

saved_form! {
    /// Version 1.
    pub(crate) struct SavedState: State {
        #[n(0)] registers: Vec<u32>, saved sparse(&registers), loaded dense(&registers)?;
        #[n(1)] phy: Vec<u16>, loaded sized(phy, phy::REGISTERS)?;
        #[n(2)] eeprom: SavedMicrowire, saved (&eeprom).into(), loaded read(eeprom.try_into()?)?;
        #[n(3)] io_address: u32;
        #[n(4)] contexts: Vec<SavedContext>,
            saved contexts.iter().map(SavedContext::from).collect(),
            loaded sized(
                contexts.into_iter().map(Context::try_from).collect::<Result<_, _>>()?,
                2,
            )?;
        #[n(5)] sending: SavedSending, saved (&sending).into(), loaded possible(sending.try_into()?)?;
    }
}

impl Saved for SavedState {
    const KIND: &'static str = "e1000";
    const VERSION: u16 = 1;
}

saved_form! {
    /// Version 1.
    pub(crate) struct SavedMicrowire: Microwire {
        #[n(0)] command: u32;
        #[n(1)] left: u8;
        #[n(2)] out: bool;
    }
}

saved_form! {
    /// Version 1.
    pub(crate) struct SavedSending: Sending {
        #[n(0)] frame: Vec<u8>;
        #[n(1)] lost: bool;
        #[n(2)] options: u8;
        #[n(3)] command: u8;
        #[n(4)] whole: bool;
    }
}

saved_form! {
    /// Version 1.
    pub(crate) struct SavedContext: Context {
        #[n(0)] ipcss: u8;
        #[n(1)] ipcso: u8;
        #[n(2)] ipcse: u16;
        #[n(3)] tucss: u8;
        #[n(4)] tucso: u8;
        #[n(5)] tucse: u16;
        #[n(6)] tucmd: u8;
        #[n(7)] hdrlen: u8;
        #[n(8)] mss: u16;
    }
}

fn impossible(reason: &str) -> SectionError {
    SectionError::Impossible { kind: SavedState::KIND, reason: reason.to_owned() }
}

/// Registers that are not zero: where, and what.
fn sparse(registers: &[u32]) -> Vec<u32> {
    let all = (0u32..).zip(registers).filter(|(_, value)| **value != 0);
    all.flat_map(|(at, value)| [at, *value]).collect()
}

fn dense(saved: &[u32]) -> Result<Vec<u32>, SectionError> {
    let mut registers = vec![0; (REGISTERS_END / 4) as usize];
    for [at, value] in saved.as_chunks::<2>().0 {
        let register = registers.get_mut(*at as usize);
        *register.ok_or_else(|| impossible("it has registers that the card has not"))? = *value;
    }
    Ok(registers)
}

fn sized<T>(values: Vec<T>, count: usize) -> Result<Vec<T>, SectionError> {
    let right = values.len() == count;
    right.then_some(values).ok_or_else(|| impossible("a table of it has another size"))
}

fn read(eeprom: Microwire) -> Result<Microwire, SectionError> {
    let right = eeprom.left <= 17;
    right.then_some(eeprom).ok_or_else(|| impossible("its EEPROM has longer words"))
}

fn possible(sending: Sending) -> Result<Sending, SectionError> {
    let right = (HEADER_SIZE..=FRAME_MAX).contains(&sending.frame.len());
    right.then_some(sending).ok_or_else(|| impossible("the frame it sends has another size"))
}
