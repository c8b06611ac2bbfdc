//! What is where on the disk.

/// Bytes of the unit of these numbers.
pub(crate) const SECTOR: u64 = 512;
const MIB: u64 = (1 << 20) / SECTOR;
/// Where GRUB's `core.img` is: what a BIOS boot partition is for.
pub(crate) const BIOS_START: u64 = MIB;
/// Its sectors.
pub(crate) const BIOS_SECTORS: u64 = MIB;
/// Where the EFI system partition is.
pub(crate) const ESP_START: u64 = BIOS_START + BIOS_SECTORS;
/// Its sectors: firmware updates and other boot loaders have room.
pub(crate) const ESP_SECTORS: u64 = 64 * MIB;
const ROOT_START: u64 = ESP_START + ESP_SECTORS;

/// The rest, which depends on the disk's size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    /// Bytes of the disk.
    pub size_bytes: u64,
    /// First sector of the root partition, the last one, so that it can grow.
    pub root_start: u64,
    /// Its sectors.
    pub root_sectors: u64,
}

impl Layout {
    /// Of a disk of so many bytes. The last MiB has the backup of the partition table.
    pub fn of(size_bytes: u64) -> Self {
        let root_sectors = size_bytes / SECTOR - ROOT_START - MIB;
        Self { size_bytes, root_start: ROOT_START, root_sectors }
    }
}
