//! Random instructions of ring 0 in 64-bit mode, on our engines and on QEMU's TCG.
//!
//! `SYSTEM_GUESTS` sets the number of guests, `SYSTEM_SEED` where they begin.

use iced_x86::code_asm::*;
use system::{Asm, Long, Oracle, Random, setting};

const CASES: usize = 400;
const LENGTH: usize = 20;
const REGISTERS: [AsmRegister64; 10] = [rax, rbx, rcx, rdx, rsi, r8, r9, r10, r11, r12];

/// Instructions on registers, none of which leaves a flag undefined.
fn computes(a: &mut CodeAssembler, random: &mut Random) -> Asm {
    let (x, y) = (random.pick(&REGISTERS), random.pick(&REGISTERS));
    match random.below(16) {
        0 => a.add(x, y),
        1 => a.sbb(x, y),
        2 => a.adc(x, random.number() as i32),
        3 => a.cmp(x, y),
        4 => a.inc(x),
        5 => a.neg(x),
        6 => a.xadd(x, y),
        7 => a.cmpxchg(x, y),
        8 => a.cmovb(x, y),
        9 => a.setle(al),
        10 => a.bswap(x),
        11 => a.mov(x, random.number()),
        12 => a.shl(x, 0),
        13 => a.rcl(x, 1),
        14 => a.xchg(x, y),
        _ => a.cqo(),
    }
}

/// Instructions on memory, flags and what only ring 0 may see.
fn controls(a: &mut CodeAssembler, random: &mut Random) -> Asm {
    let x = random.pick(&REGISTERS);
    let at = Long::DATA + 0x100 + random.below(0x600);
    match random.below(18) {
        0 => a.mov(qword_ptr(at), x),
        1 => a.mov(x, qword_ptr(at)),
        2 => a.lock().add(qword_ptr(at), x),
        3 => {
            a.push(x)?;
            a.pop(random.pick(&REGISTERS))
        }
        4 => {
            a.push((random.number() & 0x24_4cd5) as i32)?;
            a.popfq()
        }
        5 => {
            a.pushfq()?;
            a.pop(x)
        }
        6 | 7 => {
            a.mov(x, random.pick(&[cr0, cr3]))?;
            // They leave the arithmetic flags undefined (SDM vol. 2B, MOV to and from control registers).
            a.add(x, x)
        }
        8 => {
            a.mov(x, random.number())?;
            a.mov(dr0, x)?;
            a.mov(random.pick(&REGISTERS), dr0)
        }
        9 => {
            a.mov(ebx, (random.below(28) * 8) as u32)?;
            a.verr(ebx)
        }
        10 => {
            a.mov(ebx, random.pick(&[0x10u32, 0x20, 0x33, 0x23, 0xa0, 0x40]))?;
            a.mov(fs, ebx)
        }
        11 => {
            a.mov(edi, Long::DATA as u32 + 0x100)?;
            a.mov(ecx, random.below(64) as u32)?;
            a.rep().stosb()
        }
        12 => {
            a.mov(edi, Long::DATA as u32 + 0x100)?;
            a.mov(ecx, random.below(64) as u32)?;
            a.repne().scasw()
        }
        13 => a.str(x),
        14 => a.smsw(x),
        15 => {
            a.swapgs()?;
            a.swapgs()
        }
        16 => {
            // A page that is now there and now not.
            let entry = random.pick(&[0, Long::DATA | 1, Long::DATA | 3, Long::DATA | 3]);
            a.mov(dword_ptr(Long::TEST_ENTRY), entry as i32)?;
            a.invlpg(byte_ptr(Long::TEST))?;
            a.mov(byte_ptr(Long::TEST + 0x180), bl)
        }
        _ => {
            // Code that changes what it is about to run: `mov bl, number; ret`.
            let code = Long::DATA + 0x900;
            a.mov(dword_ptr(code), (0xc3_00b3 | random.below(256) << 8) as i32)?;
            a.mov(ebx, code as u32)?;
            a.call(rbx)
        }
    }
}

fn guest(seed: u64) -> Long {
    let mut random = Random(seed);
    let mut guest = Long::default();
    for case in 0..CASES {
        guest.ring0(format!("seed {seed}, case {case}"), |a| {
            for _ in 0..LENGTH {
                if random.below(2) == 0 {
                    computes(a, &mut random)?;
                } else {
                    controls(a, &mut random)?;
                }
            }
            Ok(())
        });
    }
    guest
}

#[test]
fn random_instructions_do_the_same() {
    let (guests, seed) = (setting("SYSTEM_GUESTS", 4), setting("SYSTEM_SEED", 1));
    let guests = (seed..seed + guests).map(|seed| guest(seed).finish());
    system::check(Oracle::Tcg, guests, &Long::LAYOUT, &[]);
}
