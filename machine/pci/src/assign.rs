//! BAR addresses for a machine without firmware.

use std::ops::Range;

use crate::function::{BarKind, BarNeed};
use crate::{DevFn, PciBus};

/// Addresses BARs may have. The same ranges belong in the host bridge's `_CRS`.
#[derive(Debug, Clone)]
pub struct Windows {
    /// Memory below 4 GiB.
    pub memory32: Range<u64>,
    /// Memory for 64-bit BARs.
    pub memory64: Range<u64>,
    /// Ports.
    pub io: Range<u64>,
}

/// A window is too small.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no room for the {size_bytes:#x} bytes of BAR {bar} of PCI function {at}: use fewer devices"
)]
pub struct NoRoom {
    /// The function.
    pub at: DevFn,
    /// The BAR.
    pub bar: usize,
    /// Its size.
    pub size_bytes: u64,
}

impl PciBus {
    /// Gives every BAR an address, largest first so that none is wasted on alignment. Decoding
    /// stays off until the guest turns it on. To be called after each reset of a machine that
    /// boots without firmware.
    ///
    /// # Errors
    /// When a window is too small.
    pub fn assign_bars(&self, windows: &Windows) -> Result<(), NoRoom> {
        let mut needs: Vec<_> = self
            .functions()
            .into_iter()
            .flat_map(|(at, f)| f.bar_needs().into_iter().map(move |need| (at, f.clone(), need)))
            .collect();
        needs.sort_by_key(|(_, _, need)| std::cmp::Reverse(need.size_bytes));
        let Windows { mut memory32, mut memory64, mut io } = windows.clone();
        for (at, function, need) in needs {
            let window = match need.kind {
                BarKind::Io => &mut io,
                BarKind::Memory32 => &mut memory32,
                BarKind::Memory64 | BarKind::Memory64Prefetchable => &mut memory64,
            };
            let address = take(window, need).ok_or(NoRoom {
                at,
                bar: need.index,
                size_bytes: need.size_bytes,
            })?;
            function.set_bar(need, address);
        }
        Ok(())
    }
}

fn take(window: &mut Range<u64>, need: BarNeed) -> Option<u64> {
    let address = window.start.checked_next_multiple_of(need.size_bytes)?;
    let end = address.checked_add(need.size_bytes).filter(|end| *end <= window.end)?;
    window.start = end;
    Some(address)
}
