//! Code that is written and called, and data beside code.
//!
//! UNSAFETY: calls what it has written into memory that is executable: a few bytes of code that
//! follow the C ABI and touch nothing but the mapping they are in.
#![allow(unsafe_code, reason = "calling memory as code is what is measured")]

use super::pages::Mapping;
use super::{Made, Place, mix};

const PAGE_BYTES: usize = 4096;
/// `mov eax, imm32; ret`.
const RETURN: [u8; 6] = [0xb8, 0, 0, 0, 0, 0xc3];
/// `add dword ptr [rip + 2041], 3; mov eax, [rip + 2035]; ret`: both at 2048 from the beginning.
const COUNT: [u8; 14] = [0x83, 0x05, 0xf9, 7, 0, 0, 3, 0x8b, 0x05, 0xf3, 7, 0, 0, 0xc3];

fn executable() -> std::io::Result<Mapping> {
    Mapping::new(PAGE_BYTES, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC)
}

fn write(mapping: &Mapping, code: &[u8]) {
    // SAFETY: the code is shorter than the page, and nobody runs it now.
    unsafe { mapping.at(0).copy_from_nonoverlapping(code.as_ptr(), code.len()) };
}

fn call(mapping: &Mapping) -> u32 {
    // SAFETY: code of ours is there, a C function without arguments that returns a number.
    unsafe {
        let function: extern "C" fn() -> u32 = std::mem::transmute(mapping.at(0));
        function()
    }
}

/// Six bytes of code, written and called.
pub fn written(_: &Place) -> Made {
    let mapping = executable()?;
    Ok(Some(Box::new(move |rounds| {
        let mut sum = 0;
        for round in 0..rounds {
            let mut code = RETURN;
            code[1..5].copy_from_slice(&(round as u32).to_le_bytes());
            write(&mapping, &code);
            sum = mix(sum, u64::from(call(&mapping)));
        }
        sum
    })))
}

/// Code that counts in the page it is in.
pub fn data(_: &Place) -> Made {
    let mapping = executable()?;
    write(&mapping, &COUNT);
    Ok(Some(Box::new(move |rounds| {
        (0..rounds).fold(0, |sum, _| mix(sum, u64::from(call(&mapping))))
    })))
}
