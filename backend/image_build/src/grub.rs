//! Where GRUB's BIOS loader has the numbers of the blocks it goes on with: what `grub-bios-setup`
//! would write, which wants a device to look at.

use crate::layout::{BIOS_SECTORS, BIOS_START, SECTOR};

/// Code of a master boot record; then come the disk's signature and partitions.
pub(crate) const BOOT_CODE_LEN: usize = 440;
/// In `boot.img`: the first sector of `core.img` (`GRUB_BOOT_MACHINE_KERNEL_SECTOR`).
const KERNEL_SECTOR: usize = 0x5c;
/// In `boot.img`: a jump that two NOPs turn into trust in the drive number the BIOS gives
/// (`GRUB_BOOT_MACHINE_DRIVE_CHECK`).
const DRIVE_CHECK: usize = 0x66;
/// At the end of the first sector of `core.img`: sector, count and segment of the rest
/// (`struct grub_pc_bios_boot_blocklist`).
const BLOCK_LIST: usize = 0x1f4;
/// Where the rest is loaded to: `GRUB_BOOT_MACHINE_KERNEL_SEG` and the sector that is there.
const SEGMENT: u16 = 0x820;

/// `boot.img`'s code, which goes on with `core.img` in the BIOS boot partition. None when it is no
/// `boot.img`.
pub(crate) fn boot_code(image: &[u8]) -> Option<[u8; BOOT_CODE_LEN]> {
    if image.len() != SECTOR as usize || !image.ends_with(&[0x55, 0xaa]) {
        return None;
    }
    let mut code: [u8; BOOT_CODE_LEN] = image[..BOOT_CODE_LEN].try_into().ok()?;
    code[KERNEL_SECTOR..][..8].copy_from_slice(&BIOS_START.to_le_bytes());
    code[DRIVE_CHECK..][..2].copy_from_slice(&[0x90, 0x90]);
    Some(code)
}

/// `core.img` as it lies in the BIOS boot partition. None when it has no room there.
pub(crate) fn core(image: &[u8]) -> Option<Vec<u8>> {
    let sectors = (image.len() as u64).div_ceil(SECTOR);
    if !(2..=BIOS_SECTORS).contains(&sectors) {
        return None;
    }
    let mut core = image.to_vec();
    let list = &mut core[BLOCK_LIST..];
    list[..8].copy_from_slice(&(BIOS_START + 1).to_le_bytes());
    list[8..10].copy_from_slice(&u16::try_from(sectors - 1).ok()?.to_le_bytes());
    list[10..12].copy_from_slice(&SEGMENT.to_le_bytes());
    Some(core)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_knows_where_the_next_is() {
        let mut image = vec![0; 512];
        image[510..].copy_from_slice(&[0x55, 0xaa]);
        let code = boot_code(&image).unwrap();
        assert_eq!(code[0x5c..0x64], 2048_u64.to_le_bytes());
        assert_eq!(code[0x66..0x68], [0x90, 0x90]);
        let core = core(&[0; 3 * 512 - 1]).unwrap();
        assert_eq!(core[0x1f4..0x1fc], 2049_u64.to_le_bytes());
        assert_eq!(core[0x1fc..0x200], [2, 0, 0x20, 0x08]);
    }

    #[test]
    fn what_is_no_loader_is_refused() {
        assert!(boot_code(&[0; 512]).is_none() && boot_code(&[0x55, 0xaa]).is_none());
        assert!(core(&[0; 512]).is_none() && core(&vec![0; (1 << 20) + 1]).is_none());
    }
}
