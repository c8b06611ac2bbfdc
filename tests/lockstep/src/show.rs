//! A divergence, for people.

use std::fmt::Write;

use engine_full::Divergence;
use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};

/// Position, way and differences, with the instructions disassembled.
pub fn show(divergence: &Divergence) -> String {
    let Divergence { stretch, instructions, from, to, differences, trail } = divergence;
    let mut text = format!(
        "stretch {stretch}, after {instructions} instructions, from {from:#x} to {to:#x}\n\
         the interpreter's last instructions:\n"
    );
    let mut formatter = IntelFormatter::new();
    for (rip, bytes) in trail {
        let mut shown = String::new();
        let insn = Decoder::with_ip(64, bytes, *rip, DecoderOptions::NONE).decode();
        formatter.format(&insn, &mut shown);
        let _ = writeln!(text, "  {rip:#018x}  {shown}");
    }
    for difference in differences {
        let (what, translated) = (&difference.what, difference.translated);
        let interpreted = difference.interpreted;
        let _ = writeln!(text, "{what}: translated {translated:#x}, interpreted {interpreted:#x}");
    }
    text
}
