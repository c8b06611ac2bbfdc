//! The display adapter: a VGA with the Bochs extensions, as a PCI function.
//!
//! [`Vga`] has the registers and the 128 KiB window of IBM's VGA, the DISPI registers that set
//! linear modes, and a frame buffer that is a region of guest memory: the guest writes it at full
//! speed on every engine, and it is saved, moved and logged as RAM is. Its PCI identity, BARs and
//! registers are those of QEMU's "std" adapter, so that SeaBIOS's `vgabios-stdvga`, OVMF and
//! Linux's `bochs-drm` drive it. [`Vga::capture`] makes a [`Picture`] of what a monitor would show.
//!
//! *Invariants*: a picture has at most [`PIXELS_MAX`] pixels, whatever the registers say. A guest
//! access touches registers and video memory only. A picture is made without the registers' lock:
//! nobody who looks makes the guest wait.
//!
//! *Deviation*: video memory has the four planes side by side, a byte each in a double word, and
//! addresses count double words in every mode. On a VGA, doubleword and word modes leave holes. Who
//! writes in one mode and shows or reads in another sees the difference; nobody is known to.
//!
//! What this crate may not know: engines, windows, who looks.
//!
//! Follows IBM's "PS/2 Hardware Interface Technical Reference, Video Subsystem" (1992), QEMU's
//! `docs/specs/standard-vga.rst` and Bochs's "VBE DISPI interface".

mod picture;
mod vga;

pub use picture::{PIXELS_MAX, Picture};
pub use vga::{BAR_VRAM, Placed, VRAM_BYTES, Vga, VgaConfig};
