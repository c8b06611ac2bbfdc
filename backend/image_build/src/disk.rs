//! The parts of the disk around its root file system.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::{GptConfig, partition_types};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use uuid::Uuid;

use crate::grub;
use crate::layout::{BIOS_SECTORS, BIOS_START, ESP_SECTORS, ESP_START, Layout, SECTOR};
use crate::root::{Efi, Identity};

/// Bytes copied at once.
const CHUNK: usize = 1 << 20;

/// Copies what is not a hole.
pub(crate) fn copy_sparse(from: &File, to: &File) -> io::Result<()> {
    to.set_len(from.metadata()?.len())?;
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    loop {
        let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => return Ok(()),
            start => start?,
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
        at = start;
        while at < end {
            let part = &mut buffer[..CHUNK.min((end - at) as usize)];
            from.read_exact_at(part, at)?;
            if part.iter().any(|byte| *byte != 0) {
                to.write_all_at(part, at)?;
            }
            at += part.len() as u64;
        }
    }
}

/// Writes the partition table.
pub(crate) fn partition(file: &File, layout: &Layout, identity: &Identity) -> io::Result<()> {
    let mut device = file.try_clone()?;
    // As UEFI 5.2.3 has it: all of the disk, or what 32 bits can say of it.
    let sectors = u32::try_from(layout.size_bytes / SECTOR - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(sectors).overwrite_lba0(&mut device).map_err(io::Error::other)?;
    let config = GptConfig::new().writable(true).logical_block_size(LogicalBlockSize::Lb512);
    let mut table = config
        .create_from_device(device, Some(Uuid::from_bytes(identity.uuid("disk"))))
        .map_err(io::Error::other)?;
    let partitions = [
        ("bios", BIOS_START, BIOS_SECTORS, partition_types::BIOS),
        ("esp", ESP_START, ESP_SECTORS, partition_types::EFI),
        ("root", layout.root_start, layout.root_sectors, partition_types::LINUX_ROOT_X64),
    ];
    for (number, (name, start, sectors, kind)) in (1..).zip(partitions) {
        table.add_partition_at(name, number, start, sectors, kind, 0).map_err(io::Error::other)?;
    }
    let mut parts = table.partitions().clone();
    for part in parts.values_mut() {
        part.part_guid = Uuid::from_bytes(identity.uuid(&part.name));
    }
    table.update_partitions(parts).map_err(io::Error::other)?;
    table.write().map(drop).map_err(io::Error::other)
}

/// Writes GRUB's loader for BIOSes.
pub(crate) fn embed(file: &File, boot_img: &[u8], core_img: &[u8]) -> io::Result<()> {
    let unfit = |what: &str| io::Error::other(format!("GRUB's {what} is not of the known form"));
    let code = grub::boot_code(boot_img).ok_or_else(|| unfit("boot.img"))?;
    let core = grub::core(core_img).ok_or_else(|| unfit("core.img"))?;
    file.write_all_at(&code, 0)?;
    file.write_all_at(&core, BIOS_START * SECTOR)
}

/// Writes the EFI system partition: Debian's signed first loader where firmware looks on any
/// disk, and behind it GRUB, whose signed form looks for its configuration in `EFI/debian`.
pub(crate) fn boot_partition(
    file: &File,
    layout: &Layout,
    efi: &Efi,
    identity: &Identity,
) -> io::Result<()> {
    let config = format!(
        "search --no-floppy --set=root --fs-uuid {}\n\
         set prefix=($root)/boot/grub\n\
         configfile $prefix/grub.cfg\n",
        Uuid::from_bytes(identity.uuid("root-fs"))
    );
    let [a, b, c, d, ..] = identity.uuid("esp-fs");
    let volume = fatimage::Volume {
        label: "EFI",
        id: u32::from_le_bytes([a, b, c, d]),
        size_bytes: (ESP_SECTORS * SECTOR) as usize,
    };
    let system = fatimage::build(
        &volume,
        &[
            ("EFI/BOOT/BOOTX64.EFI", &efi.shim),
            ("EFI/BOOT/mmx64.efi", &efi.mok_manager),
            ("EFI/BOOT/grubx64.efi", &efi.grub),
            ("EFI/debian/grub.cfg", config.as_bytes()),
        ],
    )?;
    debug_assert!(layout.root_start >= ESP_START + ESP_SECTORS);
    for (number, part) in system.chunks(CHUNK).enumerate() {
        if part.iter().any(|byte| *byte != 0) {
            file.write_all_at(part, ESP_START * SECTOR + (number * CHUNK) as u64)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_three_partitions_that_another_reader_finds() {
        let layout = Layout::of(2 << 30);
        let file = tempfile::tempfile().unwrap();
        file.set_len(layout.size_bytes).unwrap();
        let identity = Identity::of("packages");
        partition(&file, &layout, &identity).unwrap();
        let table = GptConfig::new().open_from_device(file.try_clone().unwrap()).unwrap();
        let names: Vec<&str> = table.partitions().values().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["bios", "esp", "root"]);
        let root = &table.partitions()[&3];
        assert_eq!(root.last_lba + 1 + 2048, layout.size_bytes / SECTOR);
        assert_eq!(root.part_guid, Uuid::from_bytes(identity.uuid("root")));
    }

    #[test]
    fn the_loader_leaves_the_partition_table_alone() {
        let layout = Layout::of(2 << 30);
        let file = tempfile::tempfile().unwrap();
        file.set_len(layout.size_bytes).unwrap();
        partition(&file, &layout, &Identity::of("packages")).unwrap();
        let mut boot = vec![0x11; 512];
        boot[510..].copy_from_slice(&[0x55, 0xaa]);
        embed(&file, &boot, &[0x22; 2000]).unwrap();
        let table = GptConfig::new().open_from_device(file.try_clone().unwrap()).unwrap();
        assert_eq!(table.partitions().len(), 3);
        let mut sector = [0; 512];
        file.read_exact_at(&mut sector, 0).unwrap();
        // One protective entry (UEFI 5.2.3) behind the code.
        assert_eq!((sector[0], sector[0x1be + 4]), (0x11, 0xee));
    }

    #[test]
    fn a_copy_has_the_same_bytes_and_holes() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.set_len(64 << 20).unwrap();
        from.write_all_at(b"in the middle", (32 << 20) - 3).unwrap();
        copy_sparse(&from, &to).unwrap();
        let mut text = [0; 13];
        to.read_exact_at(&mut text, (32 << 20) - 3).unwrap();
        assert_eq!(&text, b"in the middle");
        assert_eq!(to.metadata().unwrap().len(), 64 << 20);
        assert!(std::os::unix::fs::MetadataExt::blocks(&to.metadata().unwrap()) * 512 <= 4 << 20);
    }
}
