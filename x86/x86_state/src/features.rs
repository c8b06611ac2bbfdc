//! Features a profile may do without, by the names Linux has for them in `/proc/cpuinfo`.

use std::fmt;
use std::str::FromStr;

bitflags::bitflags! {
    /// Features of a CPU. All others of a profile it always has.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct CpuFeatures: u32 {
        /// Physical address extension.
        const PAE = 1 << 0;
        /// SYSENTER and SYSEXIT.
        const SEP = 1 << 1;
        /// SSE3.
        const SSE3 = 1 << 2;
        /// Supplemental SSE3.
        const SSSE3 = 1 << 3;
        /// CMPXCHG16B.
        const CX16 = 1 << 4;
        /// Process-context identifiers.
        const PCID = 1 << 5;
        /// SSE4.1.
        const SSE4_1 = 1 << 6;
        /// SSE4.2.
        const SSE4_2 = 1 << 7;
        /// POPCNT.
        const POPCNT = 1 << 8;
        /// The local APIC's timer counts to a time of the TSC.
        const TSC_DEADLINE = 1 << 9;
        /// XSAVE, XRSTOR and XCR0.
        const XSAVE = 1 << 10;
        /// RDRAND.
        const RDRAND = 1 << 11;
        /// RDFSBASE and the like.
        const FSGSBASE = 1 << 12;
        /// IA32_TSC_ADJUST.
        const TSC_ADJUST = 1 << 13;
        /// No execution of user pages by the supervisor.
        const SMEP = 1 << 14;
        /// INVPCID.
        const INVPCID = 1 << 15;
        /// No access to user pages by the supervisor.
        const SMAP = 1 << 16;
        /// SGDT and the like not for users.
        const UMIP = 1 << 17;
        /// Pages without execution.
        const NX = 1 << 18;
        /// Pages of 1 GiB.
        const PDPE1GB = 1 << 19;
        /// RDTSCP.
        const RDTSCP = 1 << 20;
        /// 64-bit mode, with SYSCALL.
        const LM = 1 << 21;
    }
}

/// EAX, EBX, ECX and EDX.
const EBX: usize = 1;
const ECX: usize = 2;
const EDX: usize = 3;

/// What there is to say about a feature.
pub(crate) struct Row {
    name: &'static str,
    feature: CpuFeatures,
    /// Where CPUID tells it: leaf, whose sub-leaf is zero; register; bits.
    pub(crate) leaf: u32,
    pub(crate) register: usize,
    pub(crate) bits: u32,
    /// It cannot be without these.
    needs: CpuFeatures,
}

const fn row(name: &'static str, feature: CpuFeatures, place: (u32, usize, u32)) -> Row {
    let (leaf, register, bit) = place;
    Row { name, feature, leaf, register, bits: 1 << bit, needs: CpuFeatures::empty() }
}

impl Row {
    const fn needs(self, needs: CpuFeatures) -> Self {
        Self { needs, ..self }
    }

    const fn and_bit(self, bit: u32) -> Self {
        Self { bits: self.bits | 1 << bit, ..self }
    }
}

const ROWS: [Row; 22] = {
    use CpuFeatures as F;
    const EXTENDED: u32 = 0x8000_0001;
    [
        row("pae", F::PAE, (1, EDX, 6)),
        row("sep", F::SEP, (1, EDX, 11)),
        row("sse3", F::SSE3, (1, ECX, 0)),
        row("ssse3", F::SSSE3, (1, ECX, 9)).needs(F::SSE3),
        row("cx16", F::CX16, (1, ECX, 13)).needs(F::LM),
        row("pcid", F::PCID, (1, ECX, 17)).needs(F::LM),
        row("sse4_1", F::SSE4_1, (1, ECX, 19)).needs(F::SSSE3),
        row("sse4_2", F::SSE4_2, (1, ECX, 20)).needs(F::SSE4_1),
        row("popcnt", F::POPCNT, (1, ECX, 23)),
        row("tsc_deadline_timer", F::TSC_DEADLINE, (1, ECX, 24)),
        row("xsave", F::XSAVE, (1, ECX, 26)),
        row("rdrand", F::RDRAND, (1, ECX, 30)),
        row("fsgsbase", F::FSGSBASE, (7, EBX, 0)).needs(F::LM),
        row("tsc_adjust", F::TSC_ADJUST, (7, EBX, 1)),
        row("smep", F::SMEP, (7, EBX, 7)),
        row("invpcid", F::INVPCID, (7, EBX, 10)).needs(F::PCID),
        row("smap", F::SMAP, (7, EBX, 20)),
        row("umip", F::UMIP, (7, ECX, 2)),
        row("nx", F::NX, (EXTENDED, EDX, 20)).needs(F::PAE),
        row("pdpe1gb", F::PDPE1GB, (EXTENDED, EDX, 26)).needs(F::LM),
        row("rdtscp", F::RDTSCP, (EXTENDED, EDX, 27)),
        // SYSCALL, on a CPU of this vendor, is 64-bit mode's.
        row("lm", F::LM, (EXTENDED, EDX, 29)).needs(F::PAE).and_bit(11),
    ]
};

impl CpuFeatures {
    /// Where CPUID tells of these.
    pub(crate) fn rows(self) -> impl Iterator<Item = &'static Row> {
        ROWS.iter().filter(move |row| self.contains(row.feature))
    }

    /// These and all that cannot be without them.
    #[must_use]
    pub fn with_dependents(self) -> Self {
        // A feature may need one that is further down: until nothing is added.
        let (mut all, mut before) = (self, Self::empty());
        while all != before {
            before = all;
            for row in ROWS.iter().filter(|row| row.needs.intersects(before)) {
                all |= row.feature;
            }
        }
        all
    }

    /// The features that CPUID tells of with these bits of a register (0 is EAX, 3 is EDX) of a leaf,
    /// and the bits that tell of something a profile always has.
    pub fn told_by(leaf: u32, register: usize, bits: u32) -> (Self, u32) {
        let there =
            |row: &&Row| row.leaf == leaf && row.register == register && row.bits & bits != 0;
        ROWS.iter().filter(there).fold((Self::empty(), bits), |(features, rest), row| {
            (features | row.feature, rest & !row.bits)
        })
    }

    /// The feature of this name.
    fn named(name: &str) -> Option<Self> {
        ROWS.iter().find(|row| row.name == name).map(|row| row.feature)
    }
}

/// A CPU profile as an operator asks for it: `portable`, less some features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuModel {
    /// What the profile shall be without, and what cannot be without that.
    pub without: CpuFeatures,
}

impl fmt::Display for CpuModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("portable")?;
        self.without.rows().try_for_each(|row| write!(f, ",-{}", row.name))
    }
}

impl Default for CpuModel {
    fn default() -> Self {
        Self { without: CpuFeatures::empty() }
    }
}

/// What is wrong with the text of a [`CpuModel`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CpuModelError {
    /// There is no such profile.
    Profile(String),
    /// There is no such feature.
    Feature(String),
    /// The portable profile has nothing that could be added.
    Added(String),
}

impl fmt::Display for CpuModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Profile(name) => {
                write!(f, "there is no CPU profile '{name}': give portable[,-FEATURE]…")
            }
            Self::Added(name) => {
                write!(f, "'{name}' takes nothing away: write -FEATURE, as in portable,-xsave")
            }
            Self::Feature(name) => {
                let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
                let names = names.join(", ");
                write!(f, "there is no CPU feature '{name}' to take away: there are {names}")
            }
        }
    }
}

impl std::error::Error for CpuModelError {}

impl FromStr for CpuModel {
    type Err = CpuModelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(',');
        let profile = parts.next().unwrap_or_default();
        if profile != "portable" {
            return Err(CpuModelError::Profile(profile.to_owned()));
        }
        let mut without = CpuFeatures::empty();
        for part in parts {
            let name = part.strip_prefix('-').ok_or(CpuModelError::Added(part.to_owned()))?;
            without |= CpuFeatures::named(name).ok_or(CpuModelError::Feature(name.to_owned()))?;
        }
        Ok(Self { without: without.with_dependents() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_without_a_feature_goes_with_it() {
        let model: CpuModel = "portable,-pae,-sse3".parse().unwrap();
        let gone = model.without;
        assert!(gone.contains(CpuFeatures::LM | CpuFeatures::NX | CpuFeatures::INVPCID));
        assert!(gone.contains(CpuFeatures::SSE4_2) && !gone.contains(CpuFeatures::POPCNT));
        assert_eq!("portable".parse(), Ok(CpuModel::default()));
    }

    #[test]
    fn a_model_is_written_as_it_is_read() {
        let model: CpuModel = "portable,-smap,-xsave".parse().unwrap();
        assert_eq!(model.to_string(), "portable,-xsave,-smap");
        assert_eq!(model.to_string().parse(), Ok(model));
    }

    #[test]
    fn bits_of_cpuid_have_features_or_are_left_over() {
        let told = CpuFeatures::told_by(1, ECX, 1 | 1 << 9 | 1 << 31);
        assert_eq!(told, (CpuFeatures::SSE3 | CpuFeatures::SSSE3, 1 << 31));
        assert_eq!(CpuFeatures::told_by(2, ECX, 1), (CpuFeatures::empty(), 1));
    }

    #[test]
    fn what_is_no_profile_or_feature_is_said() {
        let said = |text: &str| text.parse::<CpuModel>().unwrap_err().to_string();
        assert!(said("host").contains("no CPU profile 'host'"));
        assert!(said("").contains("give portable"));
        assert!(said("portable,xsave").contains("write -FEATURE"));
        let unknown = said("portable,-mmx2");
        assert!(unknown.contains("no CPU feature 'mmx2'") && unknown.contains("pae, sep, sse3"));
    }

    #[test]
    fn rows_are_in_the_order_of_their_bits() {
        for (n, row) in ROWS.iter().enumerate() {
            assert_eq!(row.feature.bits(), 1 << n, "{}", row.name);
        }
    }
}
