//! The root file system of the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use guests::{Archive, Mode, host};

/// An archive, and which folders it has.
pub(crate) struct Tree {
    pub(crate) archive: Archive<Vec<u8>>,
    made: Vec<PathBuf>,
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self { archive: Archive::new(Vec::new()), made: Vec::new() }
    }

    pub(crate) fn folder(&mut self, path: &Path) -> anyhow::Result<()> {
        if path.as_os_str().is_empty() || self.made.iter().any(|made| made == path) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.folder(parent)?;
        }
        self.made.push(path.to_owned());
        Ok(self.archive.add(&path.to_string_lossy(), Mode::DIRECTORY, &[])?)
    }

    /// Copies a file to a path, unless something is there.
    pub(crate) fn copy(&mut self, from: &Path, to: &Path) -> anyhow::Result<()> {
        let to = to.strip_prefix("/").unwrap_or(to);
        if self.made.iter().any(|made| made == to) {
            return Ok(());
        }
        self.folder(to.parent().unwrap_or(Path::new("")))?;
        self.made.push(to.to_owned());
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        Ok(self.archive.add(&to.to_string_lossy(), Mode::PROGRAM, &content)?)
    }

    /// Copies a file, and the shared libraries it needs if it is a program.
    pub(crate) fn program(&mut self, from: &Path, to: &Path) -> anyhow::Result<()> {
        self.copy(from, to)?;
        // Fails for what is no program, and for what is linked statically.
        let listed = host::output(Command::new("ldd").arg(from)).unwrap_or_default();
        for library in libraries(&listed) {
            self.copy(Path::new(library), Path::new(library))?;
        }
        Ok(())
    }
}

/// The paths in ldd's lines: "name => path (address)", and "path (address)" for the loader.
fn libraries(listed: &str) -> impl Iterator<Item = &str> {
    listed.lines().filter_map(|line| {
        let path = line.rsplit("=> ").next()?.trim().split(" (").next()?;
        path.starts_with('/').then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_the_paths_ldd_lists() {
        let listed = "\tlinux-vdso.so.1 (0x7ffc)\n\tlibc.so.6 => /lib/libc.so.6 (0x7f)\n\t/lib64/ld.so (0x7f)\n";
        assert_eq!(libraries(listed).collect::<Vec<_>>(), ["/lib/libc.so.6", "/lib64/ld.so"]);
    }
}
