//! Model-specific registers: which the guest reaches, and what the constant ones hold.
//!
//! The filter denies by default, and what it denies comes to user space, which answers for the
//! registers that are constants of the profile and has #GP raised for all others. Constants are
//! not left to the kernel: whether it keeps them depends on its version and the host's vendor
//! (IA32_ARCH_CAPABILITIES on AMD, for one).

use kvm_ioctls::{MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd};
use x86_state::{CpuProfile, Msrs, MtrrState, msr};

/// Architectural MSRs, and those that SYSCALL brought: first number and how many.
/// The kernel exempts the x2APIC's own from filters.
const WINDOWS: [(u32, u32); 2] = [(0, 0x1000), (0xc000_0000, 0x200)];

/// Installs the profile's filter.
pub(crate) fn set_filter(vm: &VmFd, profile: &CpuProfile) -> Result<(), kvm_ioctls::Error> {
    let bitmaps = WINDOWS.map(|(base, count)| bitmap(profile, base, count));
    let ranges: Vec<_> = WINDOWS
        .iter()
        .zip(&bitmaps)
        .map(|(&(base, msr_count), bitmap)| MsrFilterRange {
            flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
            base,
            msr_count,
            bitmap,
        })
        .collect();
    vm.set_msr_filter(MsrFilterDefaultAction::DENY, &ranges)
}

fn bitmap(profile: &CpuProfile, base: u32, count: u32) -> Vec<u8> {
    let mut bitmap = vec![0; count as usize / 8];
    for i in 0..count {
        if profile.allows_msr(base + i) && read_constant(profile, base + i).is_none() {
            bitmap[i as usize / 8] |= 1 << (i % 8);
        }
    }
    bitmap
}

/// RDMSR of a register that is not in the kernel; `None` raises #GP.
pub(crate) fn read_constant(profile: &CpuProfile, number: u32) -> Option<u64> {
    match number {
        msr::IA32_ARCH_CAPABILITIES => Some(profile.arch_capabilities()),
        msr::IA32_BIOS_SIGN_ID => Some(msr::MICROCODE_REVISION),
        msr::IA32_MTRRCAP => Some(msr::MTRRCAP),
        msr::IA32_MCG_CAP => Some(msr::MCG_CAP),
        msr::IA32_PLATFORM_ID | msr::IA32_MCG_STATUS => Some(0),
        _ => None,
    }
}

/// WRMSR of a register that is not in the kernel; false raises #GP.
pub(crate) fn write_is_ignored(number: u32) -> bool {
    // Software writes zero before CPUID, to have the revision loaded (SDM vol. 3A, 10.11.7.1).
    matches!(number, msr::IA32_BIOS_SIGN_ID | msr::IA32_MCG_STATUS)
}

/// The registers of a vCPU that are saved and loaded by number: those the guest reaches. Others
/// have no value, and the kernel may refuse to be told one.
pub(crate) fn numbered<'a>(msrs: &'a mut Msrs, profile: &CpuProfile) -> Vec<(u32, &'a mut u64)> {
    let Msrs {
        star,
        lstar,
        cstar,
        fmask,
        kernel_gs_base,
        sysenter_cs,
        sysenter_esp,
        sysenter_eip,
        tsc_aux,
        tsc_adjust,
        pat,
        misc_enable,
        mtrr: MtrrState { def_type, fixed, variable },
    } = msrs;
    let mut list = vec![
        (msr::IA32_STAR, star),
        (msr::IA32_LSTAR, lstar),
        (msr::IA32_CSTAR, cstar),
        (msr::IA32_FMASK, fmask),
        (msr::IA32_KERNEL_GS_BASE, kernel_gs_base),
        (msr::IA32_SYSENTER_CS, sysenter_cs),
        (msr::IA32_SYSENTER_ESP, sysenter_esp),
        (msr::IA32_SYSENTER_EIP, sysenter_eip),
        (msr::IA32_TSC_AUX, tsc_aux),
        (msr::IA32_TSC_ADJUST, tsc_adjust),
        (msr::IA32_PAT, pat),
        (msr::IA32_MISC_ENABLE, misc_enable),
        (msr::IA32_MTRR_DEF_TYPE, def_type),
    ];
    list.extend(msr::IA32_MTRR_FIXED.into_iter().zip(fixed));
    for (number, (base, mask)) in (msr::IA32_MTRR_PHYSBASE0..).step_by(2).zip(variable) {
        list.extend([(number, base), (number + 1, mask)]);
    }
    list.retain(|(number, _)| profile.allows_msr(*number));
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use x86_state::Topology;

    #[test]
    fn constants_and_unnamed_registers_are_denied_to_the_kernel() {
        let profile = CpuProfile::portable(Topology { cores: 1 }, 2_000_000).unwrap();
        let low = bitmap(&profile, 0, 0x1000);
        let allowed = |number: u32| low[number as usize / 8] & 1 << (number % 8) != 0;
        assert!(
            allowed(msr::IA32_TSC) && allowed(msr::IA32_PAT) && allowed(msr::IA32_TSC_DEADLINE)
        );
        assert!(!allowed(msr::IA32_ARCH_CAPABILITIES) && !allowed(msr::IA32_MTRRCAP));
        assert!(!allowed(0x34) && !allowed(0xce) && !allowed(msr::IA32_XSS));
    }

    #[test]
    fn every_saved_register_is_one_the_guest_reaches() {
        let profile = CpuProfile::portable(Topology { cores: 1 }, 2_000_000).unwrap();
        let mut msrs = Msrs::default();
        let list = numbered(&mut msrs, &profile);
        assert_eq!(list.len(), 40);
        let mut numbers: Vec<_> = list.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), list.len());
    }
}
