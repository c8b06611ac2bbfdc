//! Counted clock: one vCPU runs at a time, in a fixed order, so that two runs are identical.
//!
//! Nobody's turn is skipped: a vCPU that is not in `run` keeps the others waiting, because how soon
//! its thread gets there is the host's doing. Once all have left, the first vCPU begins again, in
//! this engine as in one that takes over the saved state.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use engine_soft::Alarm;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seat {
    /// Not in `run`.
    Away,
    /// Wants its turn.
    Ready,
    /// Had nothing to do in its last turn before this time, or for ever.
    Idle(Option<u64>),
}

struct Table {
    seats: Vec<Seat>,
    turn: usize,
    /// Someone got mail since everyone was found idle.
    mail: bool,
}

impl Table {
    fn advance(&mut self) {
        self.turn = (self.turn + 1) % self.seats.len();
    }
}

/// Whose turn it is.
pub(crate) struct Turns {
    table: Mutex<Table>,
    changed: Condvar,
}

impl Turns {
    pub(crate) fn new(vcpus: usize) -> Self {
        let table = Table { seats: vec![Seat::Away; vcpus], turn: 0, mail: false };
        Self { table: Mutex::new(table), changed: Condvar::new() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn of `vcpu`; false when it is to leave first.
    pub(crate) fn wait(&self, vcpu: usize, leaves: impl Fn() -> bool) -> bool {
        let mut table = self.table();
        if table.seats[vcpu] == Seat::Away {
            table.seats[vcpu] = Seat::Ready;
        }
        while table.turn != vcpu && !leaves() {
            table = self.changed.wait(table).unwrap_or_else(PoisonError::into_inner);
        }
        table.turn == vcpu
    }

    /// Ends the turn of `vcpu`, which has more to do.
    pub(crate) fn pass(&self, vcpu: usize) {
        let mut table = self.table();
        table.seats[vcpu] = Seat::Ready;
        table.advance();
        drop(table);
        self.changed.notify_all();
    }

    /// Ends the turn of `vcpu`, which has nothing to do before `deadline_ns`. When that is so of
    /// everyone, it keeps its turn, and is told the earliest deadline.
    pub(crate) fn idle(&self, vcpu: usize, deadline_ns: Option<u64>) -> Option<Option<u64>> {
        let mut table = self.table();
        table.seats[vcpu] = Seat::Idle(deadline_ns);
        let deadlines: Option<Vec<Option<u64>>> = table
            .seats
            .iter()
            .map(|seat| if let Seat::Idle(deadline) = seat { Some(*deadline) } else { None })
            .collect();
        if let Some(deadlines) = deadlines {
            return Some(deadlines.into_iter().flatten().min());
        }
        table.advance();
        drop(table);
        self.changed.notify_all();
        None
    }

    /// Time has moved, or mail has come: everyone is to look again, beginning after `vcpu`.
    pub(crate) fn everyone_looks(&self, vcpu: usize) {
        let mut table = self.table();
        for seat in table.seats.iter_mut().filter(|seat| **seat != Seat::Away) {
            *seat = Seat::Ready;
        }
        table.turn = vcpu;
        table.mail = false;
        table.advance();
        drop(table);
        self.changed.notify_all();
    }

    /// Sleeps until someone has mail.
    pub(crate) fn sleep(&self) {
        let mut table = self.table();
        while !table.mail {
            table = self.changed.wait(table).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// `vcpu` leaves `run`.
    pub(crate) fn leave(&self, vcpu: usize) {
        let mut table = self.table();
        table.seats[vcpu] = Seat::Away;
        if table.seats.iter().all(|seat| *seat == Seat::Away) {
            table.turn = 0;
        }
        drop(table);
        self.changed.notify_all();
    }
}

impl Alarm for Turns {
    /// Someone has mail.
    fn ring(&self) {
        self.table().mail = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_early_waits_for_the_first() {
        let turns = Turns::new(2);
        assert!(!turns.wait(1, || true), "it is not its turn, so it can only leave");
        assert!(turns.wait(0, || false));
        turns.pass(0);
        assert!(turns.wait(1, || false));
    }

    #[test]
    fn an_absent_vcpu_is_neither_skipped_nor_idle() {
        let turns = Turns::new(2);
        assert!(turns.wait(0, || false));
        assert_eq!(turns.idle(0, Some(7)), None);
        assert!(!turns.wait(0, || true));
        assert!(turns.wait(1, || false));
        assert_eq!(turns.idle(1, None), Some(Some(7)));
    }

    #[test]
    fn the_first_begins_again_once_all_have_left() {
        let turns = Turns::new(2);
        assert!(!turns.wait(1, || true));
        assert!(turns.wait(0, || false));
        turns.pass(0);
        turns.leave(0);
        assert!(turns.wait(1, || false), "one that left does not change whose turn it is");
        turns.leave(1);
        assert!(turns.wait(0, || false));
    }
}
