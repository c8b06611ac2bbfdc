//! Archives in the kernel's initramfs format ("newc", Documentation/driver-api/early-userspace).

use std::io::{self, Write};

/// File type and permission bits of an entry.
#[derive(Debug, Clone, Copy)]
pub struct Mode(u32);

impl Mode {
    /// A folder anyone may read.
    pub const DIRECTORY: Self = Self(0o040_755);
    /// A program.
    pub const PROGRAM: Self = Self(0o100_755);
    /// A file.
    pub const FILE: Self = Self(0o100_644);
    /// A symbolic link; its content is the target.
    pub const LINK: Self = Self(0o120_777);
}

/// Writes entries one by one.
pub struct Archive<W: Write> {
    out: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    /// Begins an archive.
    pub fn new(out: W) -> Self {
        Self { out, inode: 0 }
    }

    /// Adds an entry, named without a leading slash.
    pub fn add(&mut self, name: &str, mode: Mode, content: &[u8]) -> io::Result<()> {
        self.inode += 1;
        self.entry(name, mode.0, self.inode, content)
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, 0, &[])?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &str, mode: u32, inode: u32, content: &[u8]) -> io::Result<()> {
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let name_size = name.len() as u32 + 1;
        // inode, mode, uid, gid, links, mtime, size, device x4, name size, checksum
        let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(&[0])?;
        self.pad(header.len() + name.len() + 1)?;
        self.out.write_all(content)?;
        self.pad(content.len())
    }

    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..written.wrapping_neg() % 4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_begin_on_four_byte_boundaries() {
        let mut archive = Archive::new(Vec::new());
        archive.add("a", Mode::FILE, b"12345").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(&bytes[..6], b"070701");
        // header 110, name 2 = 112, content 5, padded to 8
        assert_eq!(&bytes[112..117], b"12345");
        assert_eq!(&bytes[120..126], b"070701");
        assert!(bytes.len().is_multiple_of(4));
    }
}
