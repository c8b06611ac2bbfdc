//! Registers of two CPUs, compared. Arithmetic flags are not among them.

use engine_soft::SoftEnv;
use x86_exec::{Cpu, Fpu};

/// Names of the general registers, by encoding number.
const GPR: [&str; 16] = [
    "RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13",
    "R14", "R15",
];
const SEGMENTS: [&str; 6] = ["ES", "CS", "SS", "DS", "FS", "GS"];
/// Bits of RFLAGS that may be set, and those of arithmetic.
const RFLAGS: u32 = 0x3f_7fd7;
const ARITHMETIC: u32 = 0x8d5;
/// RF is for breakpoints, with which no code is translated; the other is always there.
const OF_NO_MEANING: u64 = 1 << 16 | 2;
/// C0 to C3 of the x87's status word: some instructions leave them undefined.
const CONDITION_BITS: u16 = 0x4700;

/// Something that is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// A register, or a place of memory.
    pub what: String,
    /// As translated code has left it.
    pub translated: u128,
    /// As the interpreter has.
    pub interpreted: u128,
}

type View = Cpu<SoftEnv>;

/// How many general registers differ: a first look.
pub(super) fn gprs(interpreted: &View, translated: &View) -> usize {
    let pairs = interpreted.gpr[..16].iter().zip(&translated.gpr[..16]);
    pairs.filter(|(one, other)| !is_alike((**one).into(), (**other).into())).count()
}

/// The same, but for what may be RFLAGS with flags that an instruction leaves undefined.
pub(super) fn is_alike(one: u128, other: u128) -> bool {
    let looks_so = |value: u32| value & !RFLAGS == 0 && value & 2 != 0;
    (0..4).map(|i| ((one >> (32 * i)) as u32, (other >> (32 * i)) as u32)).all(|(one, other)| {
        one == other || looks_so(one) && looks_so(other) && (one ^ other) & !ARITHMETIC == 0
    })
}

/// What differs.
pub(super) fn of(interpreted: &View, translated: &View) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut compare = |what: &dyn Fn() -> String, translated: u128, interpreted: u128| {
        if !is_alike(translated, interpreted) {
            found.push(Difference { what: what(), translated, interpreted });
        }
    };
    let (one, other) = (translated, interpreted);
    let pairs = |number: usize| (u128::from(one.gpr[number]), u128::from(other.gpr[number]));
    for (number, name) in GPR.iter().enumerate() {
        let (a, b) = pairs(number);
        compare(&|| (*name).to_owned(), a, b);
    }
    let words = |cpu: &View| {
        [
            ("RIP", cpu.rip),
            ("RFLAGS", cpu.system_flags & !OF_NO_MEANING),
            ("CPL", cpu.cpl.into()),
            ("CR2", cpu.cr2),
            ("interrupt shadow", cpu.shadow as u64),
            ("IA32_KERNEL_GS_BASE", cpu.msrs.kernel_gs_base),
            ("MXCSR", cpu.fpu.mxcsr.into()),
        ]
    };
    for ((name, a), (_, b)) in words(one).into_iter().zip(words(other)) {
        compare(&|| name.to_owned(), a.into(), b.into());
    }
    for (index, name) in SEGMENTS.iter().enumerate() {
        let segment = |cpu: &View| {
            let segment = cpu.segments[index].canonical();
            let visible = u64::from(segment.selector) | u64::from(segment.attr) << 16;
            u128::from(visible | u64::from(segment.limit) << 32) << 64 | u128::from(segment.base)
        };
        compare(&|| (*name).to_owned(), segment(one), segment(other));
    }
    for number in 0..16 {
        compare(&|| format!("XMM{number}"), one.fpu.xmm[number], other.fpu.xmm[number]);
    }
    let control = |fpu: &Fpu| {
        let status = (fpu.fsw & !CONDITION_BITS) | u16::from(fpu.top) << 11;
        u128::from(fpu.fcw) | u128::from(status) << 16 | u128::from(fpu.in_use) << 32
    };
    compare(&|| "x87 control".to_owned(), control(&one.fpu), control(&other.fpu));
    for number in 0..8 {
        compare(&|| format!("x87 R{number}"), one.fpu.st[number], other.fpu.st[number]);
    }
    found
}
