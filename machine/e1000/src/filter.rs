//! Which frames the guest is to see (3.2.1, 9.2).

use crate::spec::*;
use crate::state::State;

/// VLAN tag of a frame, if it has one.
pub(crate) fn tag(state: &State, frame: &[u8]) -> Option<u16> {
    let word = |at: usize| frame.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
    word(12).filter(|kind| u32::from(*kind) == state.get(VET) & 0xffff).and_then(|_| word(14))
}

/// Whether a frame with a whole header of Ethernet passes.
pub(crate) fn passes(state: &State, frame: &[u8]) -> bool {
    if let Some(tag) = tag(state, frame).filter(|_| state.has(RCTL, RCTL_VFE)) {
        let vlan = u64::from(tag & 0xfff);
        if state.get(VFTA + vlan / 32 * 4) >> (vlan % 32) & 1 == 0 {
            return false;
        }
    }
    let to = [frame[0], frame[1], frame[2], frame[3], frame[4], frame[5]];
    let mode = match to {
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => RCTL_BAM,
        [first, ..] if first & 1 != 0 => RCTL_MPE,
        _ => RCTL_UPE,
    };
    state.has(RCTL, mode) || is_exact(state, to) || (to[0] & 1 != 0 && is_hashed(state, to))
}

fn is_exact(state: &State, [a, b, c, d, e, f]: [u8; 6]) -> bool {
    let (low, high) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, 0, 0]));
    (RA..RA_END)
        .step_by(8)
        .any(|at| state.get(at) == low && state.get(at + 4) & (RAH_AV | 0xffff) == RAH_AV | high)
}

/// Twelve bits of the address say which bit of the table (13.5.1).
fn is_hashed(state: &State, to: [u8; 6]) -> bool {
    let shift = [4, 3, 2, 0][(state.get(RCTL) >> 12 & 3) as usize];
    let hash = u64::from(u16::from_le_bytes([to[4], to[5]]) >> shift & 0xfff);
    state.get(MTA + hash / 32 * 4) >> (hash % 32) & 1 != 0
}
