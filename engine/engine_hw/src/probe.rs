//! Does this host's KVM run ring-0 code at hardware speed?
//!
//! That `/dev/kvm` exists proves nothing: there are KVMs that run a guest's user code on the CPU
//! and interpret its kernel. The probe measures: a loop at ring 0 in long mode, in growing rounds,
//! until a round is long enough to tell.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use guest_memory::{GuestMemory, PAGE_SIZE, RamOffset};
use kvm_bindings::{kvm_regs, kvm_segment};
use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::host::Host;
use crate::raw;

/// What [`HwEngine::probe`](crate::HwEngine::probe) found.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// Guest code runs on the CPU.
    Usable {
        /// Million instructions a second at ring 0.
        mips: f64,
    },
    /// The kernel of a guest would be interpreted.
    Emulated {
        /// Million instructions a second at ring 0.
        mips: f64,
    },
    /// There is no KVM that could be measured.
    Absent(
        /// Why, and what to do.
        String,
    ),
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usable { mips } => write!(f, "hardware virtualization, {mips:.0} MIPS at ring 0"),
            Self::Emulated { mips } => {
                write!(f, "a KVM that interprets ring-0 code, {mips:.1} MIPS")
            }
            Self::Absent(reason) => f.write_str(reason),
        }
    }
}

/// Interpreters do 1 to 50; the slowest real CPU in guest mode does hundreds, and so does a nested
/// one under binary translation.
const USABLE_MIPS: f64 = 60.0;
/// Iterations of the first round, whose length is taken for the cost of entry and exit.
const FIRST: u64 = 500;
/// Each round has this many times the iterations of the one before.
const GROWTH: u64 = 4;
/// A round as long as this beyond the first says enough.
const ENOUGH: Duration = Duration::from_micros(500);
/// Of rounds, so that a clock that stands cannot hold us: 500 × 4⁹ iterations are 130 million.
const ROUNDS_MAX: u32 = 9;

/// DEC RCX; JNZ back; HLT.
const CODE: u64 = 0x0000_f4fb_75c9_ff48;
const CODE_AT: u64 = 0x4000;
const TABLES_AT: [u64; 3] = [0x1000, 0x2000, 0x3000];
const MEMORY_SIZE: u64 = 0x8000;

/// Measures. Takes a few milliseconds.
pub(crate) fn probe(host: &Host) -> Probe {
    if let Err(reason) = host.check_capabilities() {
        return Probe::Absent(reason);
    }
    match measure(host) {
        Ok(mips) if mips >= USABLE_MIPS => Probe::Usable { mips },
        Ok(mips) => Probe::Emulated { mips },
        Err(e) => Probe::Absent(format!("KVM does not run a guest of six instructions: {e}")),
    }
}

fn measure(host: &Host) -> io::Result<f64> {
    let memory = GuestMemory::new(&[("probe", MEMORY_SIZE)]).map_err(io::Error::other)?;
    const { assert!(MEMORY_SIZE.is_multiple_of(PAGE_SIZE)) };
    let present_writable = 3;
    memory.store(RamOffset(TABLES_AT[0]), TABLES_AT[1] | present_writable);
    memory.store(RamOffset(TABLES_AT[1]), TABLES_AT[2] | present_writable);
    memory.store(RamOffset(TABLES_AT[2]), 0x80 | present_writable); // 2 MiB from zero
    memory.store(RamOffset(CODE_AT), CODE);
    // Without an irqchip, so that HLT is an exit.
    let vm = host.new_vm()?;
    raw::set_slot(&vm, &memory, 0, 0, 0, (RamOffset(0), MEMORY_SIZE))?;
    let mut vcpu = vm.create_vcpu(0)?;
    enter_long_mode(&vcpu)?;
    let first = round(&mut vcpu, FIRST)?;
    let mut iterations = FIRST;
    for _ in 0..ROUNDS_MAX {
        iterations *= GROWTH;
        let took = round(&mut vcpu, iterations)?.saturating_sub(first);
        if took >= ENOUGH {
            return Ok(2.0 * (iterations - FIRST) as f64 / took.as_secs_f64() / 1e6);
        }
    }
    Err(io::Error::other("the clock stands still"))
}

fn enter_long_mode(vcpu: &VcpuFd) -> io::Result<()> {
    let mut sregs = vcpu.get_sregs()?;
    let data = kvm_segment {
        limit: 0xffff_ffff,
        selector: 0x10,
        type_: 3,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.cs = kvm_segment { selector: 8, type_: 11, db: 0, l: 1, ..data };
    sregs.cr3 = TABLES_AT[0];
    sregs.cr4 = 0x20; // PAE
    sregs.cr0 = 0x8000_0011; // PG, ET, PE
    sregs.efer = 0x500; // LMA, LME
    Ok(vcpu.set_sregs(&sregs)?)
}

/// How long so many iterations take.
fn round(vcpu: &mut VcpuFd, iterations: u64) -> io::Result<Duration> {
    let regs = kvm_regs { rip: CODE_AT, rcx: iterations, rflags: 2, ..Default::default() };
    vcpu.set_regs(&regs)?;
    let start = Instant::now();
    loop {
        match vcpu.run() {
            Ok(VcpuExit::Hlt) => return Ok(start.elapsed()),
            Err(e) if e.errno() == libc::EINTR => {}
            Ok(other) => return Err(io::Error::other(format!("{other:?}"))),
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_is_quick_and_says_what_it_found() {
        let start = Instant::now();
        let found = crate::HwEngine::new().probe().clone();
        println!("{found} in {:?}", start.elapsed());
        if let Probe::Usable { mips } | Probe::Emulated { mips } = found {
            assert!(mips > 0.05);
        }
        assert!(start.elapsed() < Duration::from_secs(2));
    }
}
