//! FAT file systems in memory, from a list of files: what firmware boots from, and what guests
//! read their first configuration from.
//!
//! The same files give the same bytes: times are the format's zero, the volume's ID is the
//! caller's. The file system is FAT12, 16 or 32 as its size has it (Microsoft FAT32
//! specification, "FAT type determination").

use std::io::{self, Cursor, Write};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions, format_volume};

/// What a volume label has room for.
pub const LABEL_LEN: usize = 11;

/// What a volume is called.
#[derive(Debug, Clone, Copy)]
pub struct Volume<'a> {
    /// Its label: upper case, [`LABEL_LEN`] bytes at most; what is beyond is cut off.
    pub label: &'a str,
    /// Its ID.
    pub id: u32,
    /// Bytes of the whole, which are a multiple of 512.
    pub size_bytes: usize,
}

/// A file system with these files; names may have folders in them, which are made.
///
/// # Errors
/// When the files are too large for the volume, or one cannot have its name.
pub fn build(volume: &Volume<'_>, files: &[(&str, &[u8])]) -> io::Result<Vec<u8>> {
    let mut label = [b' '; LABEL_LEN];
    for (to, from) in label.iter_mut().zip(volume.label.bytes()) {
        *to = from;
    }
    let mut bytes = vec![0; volume.size_bytes];
    let options = FormatVolumeOptions::new().volume_label(label).volume_id(volume.id);
    format_volume(Cursor::new(&mut bytes[..]), options)?;
    let system = FileSystem::new(Cursor::new(&mut bytes[..]), FsOptions::new())?;
    for (name, content) in files {
        let root = system.root_dir();
        for (end, _) in name.match_indices('/') {
            root.create_dir(&name[..end])?;
        }
        root.create_file(name)?.write_all(content)?;
    }
    system.unmount()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const SMALL: Volume<'_> = Volume { label: "CIDATA", id: 7, size_bytes: 1 << 20 };

    fn read(image: &mut [u8], name: &str) -> Vec<u8> {
        let system = FileSystem::new(Cursor::new(image), FsOptions::new()).unwrap();
        let mut content = Vec::new();
        system.root_dir().open_file(name).unwrap().read_to_end(&mut content).unwrap();
        content
    }

    #[test]
    fn files_are_found_under_their_names_and_folders() {
        let long = vec![b'x'; 100_000];
        let files: [(&str, &[u8]); 3] =
            [("user-data", b"#cloud-config\n"), ("EFI/BOOT/BOOTX64.EFI", &long), ("empty", b"")];
        let mut image = build(&SMALL, &files).unwrap();
        for (name, content) in files {
            assert_eq!(read(&mut image, name), content, "{name}");
        }
        let system = FileSystem::new(Cursor::new(&mut image[..]), FsOptions::new()).unwrap();
        assert_eq!(system.read_volume_label_from_root_dir().unwrap().unwrap().trim(), "CIDATA");
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let files: [(&str, &[u8]); 1] = [("a/b", b"c")];
        assert_eq!(build(&SMALL, &files).unwrap(), build(&SMALL, &files).unwrap());
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        assert!(build(&SMALL, &[("large", &vec![1; 2 << 20])]).is_err());
        assert!(build(&SMALL, &[("a:b", b"")]).is_err());
    }
}
