//! Saved form of an input device.

use bus::{Saved, SectionError, saved_form};

use super::spec::EVENT_SIZE;
use super::{EVENTS_MAX, Event, State};

saved_form! {
    /// Version 1.
    pub(super) struct InputState: State {
        #[n(0)] select: u8;
        #[n(1)] subsel: u8;
        #[n(2)] driven: bool;
        #[n(3)] leds: u8, loaded leds & 7;
        #[cbor(n(4), with = "minicbor::bytes")] events: Vec<u8>,
            saved events.iter().flat_map(Event::bytes).collect(), loaded events_of(&events)?;
    }
}

impl Saved for InputState {
    const KIND: &'static str = "virtio-input";
    const VERSION: u16 = 1;
}

fn events_of(bytes: &[u8]) -> Result<std::collections::VecDeque<Event>, SectionError> {
    let (events, rest) = bytes.as_chunks::<EVENT_SIZE>();
    if events.len() > EVENTS_MAX || !rest.is_empty() {
        let reason = format!("{} bytes of events", bytes.len());
        return Err(SectionError::Impossible { kind: InputState::KIND, reason });
    }
    Ok(events.iter().map(Event::of).collect())
}
