//! What SSE arithmetic raises when overflow or underflow is unmasked.
//!
//! Then a result counts as inexact, or not, as if the exponent had no bounds (SDM vol. 1, 4.9.1.4
//! and 4.9.1.5), which a run with masked exceptions does not tell. The x87, set to the precision of
//! the lanes, rounds just so: its exponents are wide enough for all results.

use crate::sse::{DAZ, FTZ, MASK_SHIFT, OE, PE, UE};
use crate::x87::{self, EXCEPTIONS, Outcome, fadd};

type Operation = fn(u16, u128, u128) -> Outcome;

/// The lanes an instruction computes.
#[derive(Clone, Copy)]
pub(crate) struct Lanes {
    count: u32,
    is_double: bool,
}

impl Lanes {
    pub(crate) const PS: Self = Self { count: 4, is_double: false };
    pub(crate) const SS: Self = Self { count: 1, is_double: false };
    pub(crate) const PD: Self = Self { count: 2, is_double: true };
    pub(crate) const SD: Self = Self { count: 1, is_double: true };

    const fn bits(self) -> u32 {
        if self.is_double { 64 } else { 32 }
    }

    const fn get(self, vector: u128, i: u32) -> u128 {
        (vector >> (self.bits() * i)) & ((1 << self.bits()) - 1)
    }

    const fn sign(self) -> u128 {
        1 << (self.bits() - 1)
    }

    /// The lane as the x87 has it; denormals are zeros with DAZ.
    fn load(self, mxcsr: u32, lane: u128) -> u128 {
        let exponent = if self.is_double { 0x7ff << 52 } else { 0xff << 23 };
        let lane = if mxcsr & DAZ != 0 && lane & exponent == 0 { lane & self.sign() } else { lane };
        let load = if self.is_double { x87::fld_m64 } else { x87::fld_m32 };
        load(EXCEPTIONS, lane).value
    }

    /// The smallest and the largest exponent of normal numbers, as the x87 counts them.
    const fn exponents(self) -> (u16, u16) {
        if self.is_double { (0x3fff - 1022, 0x3fff + 1023) } else { (0x3fff - 126, 0x3fff + 127) }
    }

    /// The control word: precision of the lanes, rounding of MXCSR.
    const fn control(self, mxcsr: u32) -> u16 {
        let precision = if self.is_double { 0x200 } else { 0 };
        EXCEPTIONS | precision | ((mxcsr >> 13 & 3) << 10) as u16
    }
}

/// What is raised after the computation of one lane.
fn lane(lanes: Lanes, mxcsr: u32, a: u128, b: u128, op: Operation) -> u32 {
    let control = lanes.control(mxcsr);
    let result = op(control, a, b);
    let exponent = (result.value >> 64) as u16 & 0x7fff;
    if exponent == 0x7fff || result.value as u64 == 0 {
        return 0;
    }
    let inexact = result.status & x87::PE != 0;
    let masked = |exception: u32| mxcsr >> MASK_SHIFT & exception != 0;
    let (smallest, largest) = lanes.exponents();
    let if_inexact = |inexact: bool| if inexact { PE } else { 0 };
    if exponent > largest {
        return OE | if_inexact(inexact || masked(OE));
    }
    if exponent >= smallest {
        return if_inexact(inexact);
    }
    if !masked(UE) {
        return UE | if_inexact(inexact);
    }
    let store = if lanes.is_double { x87::fst_m64 } else { x87::fst_m32 };
    let denormal = store(control, result.value);
    if inexact || denormal.status & x87::PE != 0 || mxcsr & FTZ != 0 { UE | PE } else { 0 }
}

/// For `op` on each lane of both operands.
pub(crate) fn after(lanes: Lanes, op: Operation) -> impl Fn(u32, u128, u128, u32) -> u32 {
    move |mxcsr, dst, src, _| {
        (0..lanes.count).fold(0, |raised, i| {
            let [a, b] = [dst, src].map(|vector| lanes.load(mxcsr, lanes.get(vector, i)));
            raised | lane(lanes, mxcsr, a, b, op)
        })
    }
}

/// ADDSUBPx: even lanes are subtracted.
pub(crate) fn after_addsub(lanes: Lanes) -> impl Fn(u32, u128, u128, u32) -> u32 {
    move |mxcsr, dst, src, raised| {
        let even = (0..lanes.count).step_by(2);
        let signs = even.fold(0, |signs, i| signs | lanes.sign() << (lanes.bits() * i));
        after(lanes, fadd)(mxcsr, dst, src ^ signs, raised)
    }
}

/// HADDPx and HSUBPx: even lanes of both with odd ones.
pub(crate) fn after_horizontal(
    lanes: Lanes,
    op: Operation,
) -> impl Fn(u32, u128, u128, u32) -> u32 {
    move |mxcsr, dst, src, raised| {
        let every_other = |first: u32| {
            let half = lanes.count / 2;
            (0..lanes.count).fold(0, |vector, i| {
                let from = if i < half { dst } else { src };
                let lane = lanes.get(from, 2 * (i % half) + first);
                vector | lane << (lanes.bits() * i)
            })
        };
        after(lanes, op)(mxcsr, every_other(0), every_other(1), raised)
    }
}

/// CVTPD2PS and CVTSD2SS.
pub(crate) fn after_narrowing(count: u32) -> impl Fn(u32, u128, u128, u32) -> u32 {
    move |mxcsr, _, src, _| {
        (0..count).fold(0, |raised, i| {
            let value = Lanes::PD.load(mxcsr, Lanes::PD.get(src, i));
            raised | lane(Lanes::PS, mxcsr, value, 0, fadd)
        })
    }
}
