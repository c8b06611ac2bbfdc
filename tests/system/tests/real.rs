//! Real mode on our engines, on QEMU's TCG and on Bochs.

use iced_x86::code_asm::*;
use system::{Asm, Oracle, Protected};

type Body = (&'static str, fn(&mut CodeAssembler) -> Asm);

const BODIES: &[Body] = &[
    ("nothing", |_| Ok(())),
    ("int3", |a| a.int3()),
    ("division by zero", |a| {
        a.xor(cx, cx)?;
        a.div(cx)
    }),
    ("ud2", |a| a.ud2()),
    ("push, pop", |a| {
        a.push(bx)?;
        a.push(ecx)?;
        a.pusha()?;
        a.pop(edx)
    }),
];

fn guest() -> Protected {
    let mut guest = Protected::default();
    for (name, body) in BODIES {
        guest.real(*name, body);
    }
    guest
}

#[test]
fn real_mode_does_what_tcg_does() {
    system::check(Oracle::Tcg, [guest().finish()], &Protected::LAYOUT, &[]);
}

#[test]
fn real_mode_does_what_bochs_does() {
    system::check(Oracle::Bochs, [guest().finish()], &Protected::LAYOUT, &[]);
}
