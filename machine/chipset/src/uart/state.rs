//! The UART's state, and its saved form.

use std::collections::VecDeque;

use bus::{Saved, SectionError, saved_form};

use super::spec::*;

/// What changes while the guest runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub ier: u8,
    pub fcr: u8,
    pub lcr: u8,
    pub mcr: u8,
    pub scr: u8,
    pub divisor: u16,
    /// Delta bits of MSR.
    pub modem_deltas: u8,
    pub overrun: bool,
    /// The THRE interrupt is due, if enabled.
    pub thre_due: bool,
    pub received: VecDeque<u8>,
    /// When a byte last came or was read, for the character timeout.
    pub touched_ns: u64,
    /// The character timeout has come.
    pub timed_out: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            scr: 0,
            divisor: 1,
            modem_deltas: 0,
            overrun: false,
            thre_due: false,
            received: VecDeque::with_capacity(FIFO_SIZE),
            touched_ns: 0,
            timed_out: false,
        }
    }
}

saved_form! {
    /// Saved form.
    pub(super) struct SavedUart: State {
        #[n(0)] ier: u8, loaded ier & 0x0f;
        #[n(1)] fcr: u8, loaded fcr & FCR_KEPT;
        #[n(2)] lcr: u8;
        #[n(3)] mcr: u8, loaded mcr & MCR_MASK;
        #[n(4)] scr: u8;
        #[n(5)] divisor: u16;
        #[n(6)] modem_deltas: u8, loaded modem_deltas & 0x0f;
        #[n(7)] overrun: bool;
        #[n(8)] thre_due: bool;
        #[cbor(n(9), with = "minicbor::bytes")]
        received: Vec<u8>, saved received.into(), loaded fifo_of(received)?;
        #[n(10)] touched_ns: u64;
        #[n(11)] timed_out: bool;
    }
}

impl Saved for SavedUart {
    const KIND: &'static str = "uart";
    const VERSION: u16 = 1;
}

fn fifo_of(received: Vec<u8>) -> Result<VecDeque<u8>, SectionError> {
    if received.len() > FIFO_SIZE {
        let reason = format!("{} bytes in a FIFO of {FIFO_SIZE}", received.len());
        return Err(SectionError::Impossible { kind: SavedUart::KIND, reason });
    }
    Ok(received.into())
}
