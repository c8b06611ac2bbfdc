//! The saved form of a CPU profile. State is good only for CPUs like those it was saved of.

use minicbor::{Decode, Encode};
use statecodec::{Saved, Section, SectionError};
use x86_state::{CpuProfile, CpuidLeaf, ProfileClass, VcpuId};

/// Why state cannot be used with a profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileMismatch {
    /// It does not say which CPUs it is of.
    #[error("the saved state does not say which CPUs it is of")]
    Section(#[source] SectionError),
    /// It is of others.
    #[error(
        "the saved state is of other CPUs: {what} is {saved} there, but {here} in this VM; start \
         the VM as the saved one was started"
    )]
    Differs {
        /// What is different.
        what: String,
        /// As saved.
        saved: String,
        /// As it is in this VM.
        here: String,
    },
}

/// Saves a profile.
pub(crate) fn save_profile(profile: &CpuProfile) -> Section {
    Section::encode(&SavedProfile::from(profile))
}

/// Whether state that was saved with a profile can be used with this one.
pub(crate) fn check_profile(
    section: &Section,
    profile: &CpuProfile,
) -> Result<(), ProfileMismatch> {
    let saved = section.decode::<SavedProfile>().map_err(ProfileMismatch::Section)?;
    saved.compare(&SavedProfile::from(profile))
}

#[derive(Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct SavedProfile {
    /// 0 portable, 1 pinned.
    #[n(0)]
    class: u8,
    #[n(1)]
    cores: u32,
    #[n(2)]
    tsc_khz: u32,
    #[n(3)]
    physical_bits: u8,
    #[n(4)]
    xcr0_mask: u64,
    #[n(5)]
    arch_capabilities: u64,
    #[n(6)]
    leaves: Vec<SavedLeaf>,
}

impl Saved for SavedProfile {
    const KIND: &'static str = "cpu-profile";
    const VERSION: u16 = 1;
}

/// A row of the CPUID table, without what differs between vCPUs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct SavedLeaf {
    #[n(0)]
    leaf: u32,
    #[n(1)]
    subleaf: Option<u32>,
    #[n(2)]
    value: [u32; 4],
}

impl From<&CpuProfile> for SavedProfile {
    fn from(profile: &CpuProfile) -> Self {
        let leaf = |CpuidLeaf { leaf, subleaf, value }| SavedLeaf { leaf, subleaf, value };
        Self {
            class: match profile.class() {
                ProfileClass::Portable => 0,
                ProfileClass::Pinned => 1,
            },
            cores: profile.topology().cores,
            tsc_khz: profile.tsc_khz(),
            physical_bits: profile.physical_bits(),
            xcr0_mask: profile.xcr0_mask(),
            arch_capabilities: profile.arch_capabilities(),
            // The first vCPU's own bits are all zero.
            leaves: profile.leaves_for(VcpuId(0)).map(leaf).collect(),
        }
    }
}

impl SavedProfile {
    /// Finds the first difference, the one that explains the others first.
    fn compare(&self, here: &Self) -> Result<(), ProfileMismatch> {
        let Self { class, cores, tsc_khz, physical_bits, xcr0_mask, arch_capabilities, leaves } =
            self;
        same("the number of CPUs", cores, &here.cores, u32::to_string)?;
        same("the TSC's rate", tsc_khz, &here.tsc_khz, |khz| format!("{khz} kHz"))?;
        same("the profile's class", class, &here.class, |class| {
            if *class == 0 { "portable" } else { "pinned" }.to_owned()
        })?;
        same("the width of addresses", physical_bits, &here.physical_bits, |n| {
            format!("{n} bits")
        })?;
        let hex = |word: &u64| format!("{word:#x}");
        same("XCR0's mask", xcr0_mask, &here.xcr0_mask, hex)?;
        same("IA32_ARCH_CAPABILITIES", arch_capabilities, &here.arch_capabilities, hex)?;
        same("the number of CPUID leaves", &leaves.len(), &here.leaves.len(), usize::to_string)?;
        for (saved, here) in leaves.iter().zip(&here.leaves) {
            let what = format!("CPUID leaf {:#x}", here.leaf);
            same(&what, saved, here, |SavedLeaf { leaf, subleaf, value }| {
                format!("{leaf:#x}.{:x} {value:x?}", subleaf.unwrap_or(0))
            })?;
        }
        Ok(())
    }
}

fn same<T: PartialEq>(
    what: &str,
    saved: &T,
    here: &T,
    show: impl Fn(&T) -> String,
) -> Result<(), ProfileMismatch> {
    if saved == here {
        return Ok(());
    }
    let (saved, here) = (show(saved), show(here));
    Err(ProfileMismatch::Differs { what: what.to_owned(), saved, here })
}

#[cfg(test)]
mod tests {
    use x86_state::Topology;

    use super::*;

    fn profile(cores: u32, tsc_khz: u32) -> CpuProfile {
        CpuProfile::portable(Topology { cores }, tsc_khz).unwrap()
    }

    #[test]
    fn a_profile_is_itself_and_no_other_says_what_differs() {
        let saved = save_profile(&profile(2, 1_000_000));
        check_profile(&saved, &profile(2, 1_000_000)).unwrap();
        for (other, what) in [
            (profile(4, 1_000_000), "the number of CPUs is 2 there, but 4 in this VM"),
            (profile(2, 2_400_000), "the TSC's rate is 1000000 kHz there, but 2400000 kHz"),
            (profile(2, 1_000_000).without_pcid(), "CPUID leaf 0x1 is 0x1.0 ["),
        ] {
            let error = check_profile(&saved, &other).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        let other = Section { kind: "vcpu".into(), ..saved };
        assert!(check_profile(&other, &profile(2, 1_000_000)).is_err());
    }
}
