//! What the controller remembers, and its saved form.

use bus::{Saved, saved_form};

/// Registers, queues and features.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    pub(crate) cc: u32,
    pub(crate) csts: u32,
    pub(crate) aqa: u32,
    pub(crate) asq: u64,
    pub(crate) acq: u64,
    /// Vectors whose interrupts by pin are masked.
    pub(crate) intm: u32,
    /// By their identifiers; the first are the admin queues.
    pub(crate) sqs: Vec<Sq>,
    pub(crate) cqs: Vec<Cq>,
    /// Identifiers of the asynchronous event requests that wait.
    pub(crate) events: Vec<u16>,
    /// Values of features, by their identifiers.
    pub(crate) features: Vec<u32>,
}

/// A submission queue; one without entries is not there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sq {
    pub(crate) base: u64,
    pub(crate) entries: u32,
    pub(crate) head: u32,
    pub(crate) tail: u32,
    pub(crate) cq: u16,
    /// The command that deletes it, while others are in flight.
    pub(crate) deleting: Option<u16>,
}

/// A completion queue; one without entries is not there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cq {
    pub(crate) base: u64,
    pub(crate) entries: u32,
    pub(crate) head: u32,
    pub(crate) tail: u32,
    pub(crate) phase: bool,
    pub(crate) vector: Option<u16>,
}

saved_form! {
    /// Version 1.
    pub(crate) struct SavedState: State {
        #[n(0)] cc: u32;
        #[n(1)] csts: u32;
        #[n(2)] aqa: u32;
        #[n(3)] asq: u64;
        #[n(4)] acq: u64;
        #[n(5)] sqs: Vec<SavedSq>, saved sqs.iter().map(SavedSq::from).collect(),
            loaded sqs.into_iter().map(Sq::try_from).collect::<Result<_, _>>()?;
        #[n(6)] cqs: Vec<SavedCq>, saved cqs.iter().map(SavedCq::from).collect(),
            loaded cqs.into_iter().map(Cq::try_from).collect::<Result<_, _>>()?;
        #[n(7)] events: Vec<u16>;
        #[n(8)] features: Vec<u32>;
        #[n(9)] intm: Option<u32>, saved Some(intm), loaded intm.unwrap_or_default();
    }
}

impl Saved for SavedState {
    const KIND: &'static str = "nvme";
    const VERSION: u16 = 1;
}

saved_form! {
    /// Version 1.
    pub(crate) struct SavedSq: Sq {
        #[n(0)] base: u64;
        #[n(1)] entries: u32;
        #[n(2)] head: u32;
        #[n(3)] tail: u32;
        #[n(4)] cq: u16;
        #[n(5)] deleting: Option<u16>;
    }
}

saved_form! {
    /// Version 1.
    pub(crate) struct SavedCq: Cq {
        #[n(0)] base: u64;
        #[n(1)] entries: u32;
        #[n(2)] head: u32;
        #[n(3)] tail: u32;
        #[n(4)] phase: bool;
        #[n(5)] vector: Option<u16>;
    }
}
