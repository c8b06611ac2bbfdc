//! Bochs as an oracle: without firmware, started in a ROM of ours that goes to the guest.
//!
//! Follows Bochs's user manual, section 4.3 ("bochsrc").

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use iced_x86::code_asm::*;

use crate::Asm;
use crate::image::{GDT, IMAGE_END, Image, LOAD_AT, descriptor};

pub(crate) const PROGRAM: &str = "bochs";

/// The ROM ends at 4 GiB; where things are in it.
const ROM: u64 = 0xffff_0000;
const ROM_SIZE: usize = 0x1_0000;
const TABLE: usize = 0x80;
const TABLE_POINTER: usize = 0x70;
const BEGIN: usize = 0x100;
const PROTECTED: usize = 0x200;
/// What Bochs gives memory away by.
const BLOCK: usize = 128 << 10;
const RESET: usize = 0xfff0;

/// Held while Bochs runs. Of two that start at once, both may bind the first free port of its RFB
/// display, the only display without a terminal, and one then ends when it cannot listen there.
pub(crate) fn alone() -> File {
    let lock = File::create(std::env::temp_dir().join("trine-tests-bochs.lock"));
    let lock = lock.expect("a folder for temporary files");
    lock.lock().expect("a lock");
    lock
}

/// What runs the guest in `dir`.
pub(crate) fn command(dir: &Path, serial: &Path) -> Command {
    let path = |name: &str| dir.join(name);
    fs::write(path("rom"), rom()).expect("room for a ROM");
    fs::write(path("vga"), [0; 512]).expect("room for a ROM");
    fs::write(path("debugger"), "c\n").expect("room for a command");
    let settings = [
        format!("romimage: file={}, address={ROM:#x}", path("rom").display()),
        format!("vgaromimage: file={}", path("vga").display()),
        format!("optramimage1: file={}, address={LOAD_AT:#x}", path("guest").display()),
        "memory: guest=64, host=64".into(),
        // The least there is: the serial port is as fast as the CPU is slow.
        "cpu: model=broadwell_ult, count=1, ips=1000000, reset_on_triple_fault=0".into(),
        "clock: sync=none".into(),
        "display_library: rfb, options=\"timeout=0\"".into(),
        "sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy".into(),
        "plugin_ctrl: sb16=0, es1370=0, ne2k=0, e1000=0, usb_uhci=0, voodoo=0, speaker=0".into(),
        format!("com1: enabled=1, mode=file, dev={}", serial.display()),
        format!("log: {}", path("log").display()),
        "panic: action=fatal".into(),
        "error: action=ignore".into(),
    ];
    fs::write(path("bochsrc"), settings.join("\n")).expect("room for settings");
    let mut command = Command::new(PROGRAM);
    command.current_dir(dir).args(["-q", "-f", "bochsrc", "-rc", "debugger"]);
    command
}

fn rom() -> Vec<u8> {
    let mut rom = vec![0x90; ROM_SIZE];
    let mut put = |at: usize, bytes: &[u8]| rom[at..at + bytes.len()].copy_from_slice(bytes);
    let flat = u64::from(u32::MAX) >> 12;
    for (index, attr) in [0xc09b, 0xc093].into_iter().enumerate() {
        put(TABLE + 8 + index * 8, &descriptor(0, flat, attr).to_le_bytes());
    }
    put(TABLE, &[0; 8]);
    put(TABLE_POINTER, &23u16.to_le_bytes());
    put(TABLE_POINTER + 2, &(ROM as u32 + TABLE as u32).to_le_bytes());
    put(BEGIN, &code(16, BEGIN, begin));
    put(PROTECTED, &code(32, PROTECTED, protected));
    put(RESET, &[0xe9]); // JMP
    put(RESET + 1, &(BEGIN as u16).wrapping_sub(RESET as u16 + 3).to_le_bytes());
    rom
}

fn code(bits: u32, at: usize, make: fn(&mut CodeAssembler) -> Asm) -> Vec<u8> {
    let mut asm = CodeAssembler::new(bits).expect("a width there is");
    make(&mut asm).and_then(|()| asm.assemble(at as u64)).expect("code that can be encoded")
}

/// A20, 115,200 bit/s of 8 bits, and protected mode.
fn begin(a: &mut CodeAssembler) -> Asm {
    for (port, value) in [(0x92, 2), (0x3fb, 0x83), (0x3f8, 1), (0x3f9, 0), (0x3fb, 3)] {
        a.mov(dx, port)?;
        a.mov(al, value)?;
        a.out(dx, al)?;
    }
    a.db(&[0x2e, 0x66, 0x0f, 0x01, 0x16, TABLE_POINTER as u8, 0])?; // LGDT CS:[..]
    a.mov(eax, cr0)?;
    a.or(al, 1)?;
    a.mov(cr0, eax)?;
    a.db(&[0x66, 0xea])?;
    a.dd(&[ROM as u32 + PROTECTED as u32])?;
    a.dw(&[8])
}

/// What a Multiboot loader leaves. Bochs reads the image in one piece into memory it gives away by
/// blocks, so these are asked for in their order.
fn protected(a: &mut CodeAssembler) -> Asm {
    a.mov(eax, 0x10)?;
    for segment in [ds, es, fs, gs, ss] {
        a.mov(segment, eax)?;
    }
    a.mov(esp, GDT as u32)?;
    for block in (LOAD_AT..IMAGE_END).step_by(BLOCK) {
        a.mov(eax, dword_ptr(block as u32))?;
    }
    a.mov(eax, Image::entry() as u32)?;
    a.jmp(eax)
}
