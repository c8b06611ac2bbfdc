//! Which frames a card receives, and the commands that change it (5.1.6.5.1, 5.1.6.5.2).

use net::Mac;

use super::spec::ctrl;
use crate::Span;

/// Addresses of each kind in a table. With more, all of the kind are received, as the
/// specification allows; it keeps a guest's table from growing without bound.
pub(super) const TABLE_MAX: usize = 64;

/// What is received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) mac: Mac,
    /// Bits by the number of the RX command.
    pub(super) modes: u8,
    pub(super) unicast: Table,
    pub(super) multicast: Table,
}

/// A table of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Table {
    pub(super) addresses: Vec<Mac>,
    pub(super) overflow: bool,
}

impl Table {
    fn has(&self, mac: Mac) -> bool {
        self.overflow || self.addresses.contains(&mac)
    }

    /// Reads a table at `at`: a count, and addresses. Returns where it ends.
    fn read(data: &Span<'_>, at: u64) -> Option<(Self, u64)> {
        let mut count = [0; 4];
        data.read(at, &mut count).ok()?;
        let count = u32::from_le_bytes(count);
        let end = at + 4 + u64::from(count) * 6;
        if end > data.size() {
            return None;
        }
        let overflow = count as usize > TABLE_MAX;
        let mut addresses = Vec::new();
        for index in 0..if overflow { 0 } else { u64::from(count) } {
            let mut mac = [0; 6];
            data.read(at + 4 + 6 * index, &mut mac).ok()?;
            addresses.push(Mac(mac));
        }
        Some((Self { addresses, overflow }, end))
    }
}

impl Filter {
    pub(super) fn new(mac: Mac) -> Self {
        Self { mac, modes: 0, unicast: Table::default(), multicast: Table::default() }
    }

    fn is(&self, mode: u8) -> bool {
        self.modes & 1 << mode != 0
    }

    /// Whether a frame to this address is received.
    pub(super) fn passes(&self, to: Mac) -> bool {
        if self.is(ctrl::RX_PROMISC) {
            return true;
        }
        if to == Mac::BROADCAST {
            return !self.is(ctrl::RX_NOBCAST);
        }
        if to.is_group() {
            let all = self.is(ctrl::RX_ALLMULTI);
            return all || !self.is(ctrl::RX_NOMULTI) && self.multicast.has(to);
        }
        let all = self.is(ctrl::RX_ALLUNI);
        to == self.mac || all || !self.is(ctrl::RX_NOUNI) && self.unicast.has(to)
    }

    /// An RX command: `data` begins after class and command.
    pub(super) fn set_mode(&mut self, command: u8, data: &Span<'_>, at: u64) -> Option<()> {
        let mut on = [0];
        data.read(at, &mut on).ok()?;
        if command > ctrl::RX_NOBCAST {
            return None;
        }
        let bit = 1 << command;
        self.modes = if on[0] != 0 { self.modes | bit } else { self.modes & !bit };
        Some(())
    }

    pub(super) fn set_tables(&mut self, data: &Span<'_>, at: u64) -> Option<()> {
        let (unicast, next) = Table::read(data, at)?;
        let (multicast, _) = Table::read(data, next)?;
        (self.unicast, self.multicast) = (unicast, multicast);
        Some(())
    }

    pub(super) fn set_mac(&mut self, data: &Span<'_>, at: u64) -> Option<()> {
        let mut mac = [0; 6];
        data.read(at, &mut mac).ok()?;
        if Mac(mac).is_group() {
            return None;
        }
        self.mac = Mac(mac);
        Some(())
    }
}
