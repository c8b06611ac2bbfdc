//! A bzImage: set-up header, and a payload in one of the compressions, or none at all.

#![no_main]

use fuzz_boot::{load, with};
use libfuzzer_sys::fuzz_target;

const SETUP_SECTORS: usize = 0x1f1;
const BOOT_FLAG: usize = 0x1fe;
const MAGIC: usize = 0x202;
/// Where a payload begins with one sector of set-up.
const PAYLOAD: usize = 0x400;
const COMPRESSIONS: [&[u8]; 6] =
    [b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x02\x21\x4c\x18", b"\xfd7zXZ\0", b"\x5d\0\0", b"BZh"];

fuzz_target!(|data: &[u8]| {
    load(data.to_vec());
    let Some((choice, rest)) = data.split_first() else { return };
    let image = with(rest, BOOT_FLAG, &[0x55, 0xaa]);
    let image = with(&image, MAGIC, b"HdrS\x0f\x02");
    load(image.clone());
    // Most inputs get a payload that is found: set-up of one sector, 64-bit entry, and the bytes
    // from there on.
    let Some(magic) = COMPRESSIONS.get(usize::from(*choice) % 8) else { return };
    let image = with(&image, SETUP_SECTORS, &[1]);
    let image = with(&image, 0x236, &[1, 0]);
    let image = with(&image, PAYLOAD, magic);
    let size = (image.len() - PAYLOAD) as u32;
    let image = with(&image, 0x248, &[0; 4]);
    load(with(&image, 0x24c, &size.to_le_bytes()));
});
