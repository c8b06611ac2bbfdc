//! Scalar floats: SSE2 by the compiler, x87 by hand.
//!
//! UNSAFETY: assembly that uses the x87 stack and leaves it empty.
#![allow(unsafe_code, reason = "the compiler makes no x87 code")]

use std::arch::asm;
use std::hint::black_box;

use super::{Made, Place, mix};

#[derive(Clone, Copy)]
struct Body {
    at: [f64; 3],
    speed: [f64; 3],
    mass: f64,
}

/// A step of five bodies that attract each other.
pub fn nbody(_: &Place) -> Made {
    let body = |n: usize| {
        let n = n as f64;
        Body {
            at: [n * 1.5, 0.3 - n * 0.7, n * n * 0.11],
            speed: [0.02 * n, 0.05, -0.01 * n],
            mass: 1.0 / (n * n * 3.0 + 0.1),
        }
    };
    let mut bodies: [Body; 5] = std::array::from_fn(body);
    Ok(Some(Box::new(move |rounds| {
        for _ in 0..rounds {
            step(black_box(&mut bodies));
        }
        let numbers = bodies.iter().flat_map(|body| body.at.into_iter().chain(body.speed));
        numbers.fold(0, |sum, number| mix(sum, number.to_bits()))
    })))
}

fn step(bodies: &mut [Body; 5]) {
    const DT: f64 = 0.001;
    for first in 0..bodies.len() {
        for second in first + 1..bodies.len() {
            let (a, b) = (bodies[first], bodies[second]);
            let way: [f64; 3] = std::array::from_fn(|axis| a.at[axis] - b.at[axis]);
            let square = way[0] * way[0] + way[1] * way[1] + way[2] * way[2] + 0.01;
            let force = DT / (square * square.sqrt());
            for (axis, way) in way.into_iter().enumerate() {
                bodies[first].speed[axis] -= way * b.mass * force;
                bodies[second].speed[axis] += way * a.mass * force;
            }
        }
    }
    for body in bodies {
        for axis in 0..3 {
            body.at[axis] += DT * body.speed[axis];
        }
    }
}

/// 64 steps of x = x - x²/8 + 3/8 in 80 bits, and a root and a quotient.
pub fn x87(_: &Place) -> Made {
    let mut x = 0.25f64;
    Ok(Some(Box::new(move |rounds| {
        let mut sum = 0;
        for _ in 0..rounds {
            x = x87_steps(x);
            sum = mix(sum, x.to_bits());
        }
        sum
    })))
}

fn x87_steps(mut x: f64) -> f64 {
    let (factor, term) = (0.125f64, 0.375f64);
    // SAFETY: three values at most are on the stack, which is empty before (the ABI) and after.
    unsafe {
        asm!(
            "fld qword ptr [{term}]",
            "fld qword ptr [{factor}]",
            "fld qword ptr [{x}]",
            "2:",
            "fld st(0)",
            "fmul st(0), st(0)",
            "fmul st(0), st(2)",
            "fsubp st(1), st(0)",
            "fadd st(0), st(2)",
            "dec {n:e}",
            "jnz 2b",
            "fsqrt",
            "fdiv st(0), st(1)",
            "fmul st(0), st(1)",
            "fstp qword ptr [{x}]",
            "fstp st(0)",
            "fstp st(0)",
            term = in(reg) &raw const term,
            factor = in(reg) &raw const factor,
            x = in(reg) &raw mut x,
            n = inout(reg) 64 => _,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            options(nostack)
        );
    }
    x
}
