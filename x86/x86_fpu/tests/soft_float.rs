//! x87 arithmetic beside LLVM's soft floats, which share no code with the host's FPU.

use rustc_apfloat::ieee::{Double, Single, X87DoubleExtended};
use rustc_apfloat::{Float, FloatConvert, Round, Status, StatusAnd};
use x86_fpu::x87::{self, DE, EXCEPTIONS, IE, OE, Outcome, PE, UE, ZE};

const ROUNDINGS: [(u16, Round); 4] = [
    (0x000, Round::NearestTiesToEven),
    (0x400, Round::TowardNegative),
    (0x800, Round::TowardPositive),
    (0xc00, Round::TowardZero),
];
/// All masked, 64 bits of significand.
const CONTROL: u16 = 0x37f;

/// The largest numbers of the three formats, and their signs.
const LARGEST: [(u128, u128); 3] = [
    (0x7ffe_ffff_ffff_ffff_ffff, 1 << 79),
    (0x7fef_ffff_ffff_ffff, 1 << 63),
    (0x7f7f_ffff, 1 << 31),
];

/// Every class of number, its neighbours, and some in between.
fn numbers() -> Vec<u128> {
    let mut numbers = Vec::new();
    for exponent in [
        0u128, 1, 2, 62, 63, 0x3bff, 0x3f80, 0x3ffe, 0x3fff, 0x4000, 0x403e, 0x43ff, 0x7ffd, 0x7ffe,
    ] {
        for fraction in
            [0u128, 1, 0x7ff, 0x400, 0xff_ffff_ffff, 0x5555_5555_5555_5555, (1 << 63) - 1]
        {
            let integer = if exponent == 0 { 0 } else { 1 << 63 };
            for sign in [0u128, 1] {
                numbers.push(sign << 79 | exponent << 64 | integer | fraction);
            }
        }
    }
    numbers.extend([0x7fff_8000_0000_0000_0000, 0xffff_8000_0000_0000_0000]);
    numbers
}

fn is_denormal(number: u128) -> bool {
    number >> 64 & 0x7fff == 0 && number as u64 != 0
}

/// The oracle's flags as FSW has them.
fn flags(status: Status) -> u16 {
    [
        (Status::INVALID_OP, IE),
        (Status::DIV_BY_ZERO, ZE),
        (Status::OVERFLOW, OE),
        (Status::UNDERFLOW, UE),
        (Status::INEXACT, PE),
    ]
    .iter()
    .filter(|(theirs, _)| status.contains(*theirs))
    .fold(0, |flags, (_, ours)| flags | ours)
}

fn compare(what: &str, ours: Outcome, theirs: &StatusAnd<u128>, is_nan: bool) {
    if is_nan {
        assert_eq!(ours.value, x87::INDEFINITE, "{what}");
    } else {
        assert_eq!(ours.value, theirs.value, "{what}: {:x}, not {:x}", ours.value, theirs.value);
    }
    let mut raised = ours.status & EXCEPTIONS & !DE;
    // The oracle does not call it an overflow when rounding ends at the largest number.
    if LARGEST.iter().any(|(largest, sign)| ours.value & !sign == *largest) && raised == OE | PE {
        raised = PE;
    }
    // Nor an underflow when a tiny result is rounded to the smallest normal number.
    if ours.value & !(1 << 79) == 0x0001_8000_0000_0000_0000 && raised == UE | PE {
        raised = PE;
    }
    assert_eq!(raised, flags(theirs.status), "{what}: exceptions");
}

type Ours = fn(u16, u128, u128) -> Outcome;
type Theirs = fn(X87DoubleExtended, X87DoubleExtended, Round) -> StatusAnd<X87DoubleExtended>;

#[test]
fn sums_products_and_quotients_are_those_of_a_soft_float() {
    let operations: [(&str, Ours, Theirs); 4] = [
        ("+", x87::fadd, |a, b, round| a.add_r(b, round)),
        ("-", x87::fsub, |a, b, round| a.sub_r(b, round)),
        ("*", x87::fmul, |a, b, round| a.mul_r(b, round)),
        ("/", x87::fdiv, |a, b, round| a.div_r(b, round)),
    ];
    let numbers = numbers();
    for (name, ours, theirs) in operations {
        for (rounding, round) in ROUNDINGS {
            for &a in &numbers {
                for &b in &numbers {
                    let [x, y] = [a, b].map(X87DoubleExtended::from_bits);
                    let theirs = theirs(x, y, round);
                    let is_nan = theirs.value.is_nan();
                    let theirs = theirs.map(Float::to_bits);
                    let ours = ours(CONTROL | rounding, a, b);
                    let what = format!("{a:020x} {name} {b:020x}, {round:?}");
                    compare(&what, ours, &theirs, is_nan);
                    if !is_nan && ours.status & ZE == 0 {
                        let denormal = is_denormal(a) || is_denormal(b);
                        assert_eq!(ours.status & DE != 0, denormal, "{what}: DE");
                    }
                }
            }
        }
    }
}

fn narrowed<T: Float>(a: u128, round: Round) -> StatusAnd<u128>
where
    X87DoubleExtended: FloatConvert<T>,
{
    let mut loses = false;
    X87DoubleExtended::from_bits(a).convert_r(round, &mut loses).map(T::to_bits)
}

#[test]
fn stores_round_as_a_soft_float_does() {
    for (rounding, round) in ROUNDINGS {
        for a in numbers() {
            let what = format!("{a:020x}, {round:?}");
            let control = CONTROL | rounding;
            compare(&what, x87::fst_m32(control, a), &narrowed::<Single>(a, round), false);
            compare(&what, x87::fst_m64(control, a), &narrowed::<Double>(a, round), false);
        }
    }
}

#[test]
fn integers_are_those_of_a_soft_float() {
    for (rounding, round) in ROUNDINGS {
        for a in numbers() {
            let what = format!("{a:020x}, {round:?}");
            let number = X87DoubleExtended::from_bits(a);
            let rounded = x87::frndint(CONTROL | rounding, a).value;
            assert_eq!(rounded, number.round_to_integral(round).value.to_bits(), "{what}");
            let mut exact = false;
            let whole = number.to_i128_r(64, round, &mut exact);
            let ours = x87::fist_m64(CONTROL | rounding, a);
            if whole.status.contains(Status::INVALID_OP) {
                assert_eq!((ours.value, ours.status & IE), (1 << 63, IE), "{what}");
            } else {
                assert_eq!(ours.value as i64 as i128, whole.value, "{what}");
                assert_eq!(ours.status & PE != 0, !exact, "{what}: PE");
            }
        }
    }
}

#[test]
fn precision_control_rounds_to_the_significand_of_a_double() {
    type Theirs = fn(Double, Double, Round) -> StatusAnd<Double>;
    let operations: [(&str, Ours, Theirs); 4] = [
        ("+", x87::fadd, |a, b, round| a.add_r(b, round)),
        ("-", x87::fsub, |a, b, round| a.sub_r(b, round)),
        ("*", x87::fmul, |a, b, round| a.mul_r(b, round)),
        ("/", x87::fdiv, |a, b, round| a.div_r(b, round)),
    ];
    // Far from the bounds of a double's exponent, which precision control does not touch.
    let numbers = [1.0, -1.0, 3.0, 0.1, -1e-30, 1e30, 123_456_789.123_456_79, 7.0 / 3.0];
    for (name, ours, theirs) in operations {
        for (rounding, round) in ROUNDINGS {
            for a in numbers {
                for b in numbers {
                    let load = |x: f64| x87::fld_m64(CONTROL, x.to_bits().into()).value;
                    let control = CONTROL & !0x300 | 0x200 | rounding;
                    let ours = ours(control, load(a), load(b));
                    let [x, y] = [a, b].map(|x| Double::from_bits(x.to_bits().into()));
                    let theirs = theirs(x, y, round);
                    let what = format!("{a} {name} {b}, {round:?}");
                    let wanted = load(f64::from_bits(theirs.value.to_bits() as u64));
                    assert_eq!(ours.value, wanted, "{what}");
                    assert_eq!(ours.status & EXCEPTIONS, flags(theirs.status), "{what}");
                }
            }
        }
    }
}
