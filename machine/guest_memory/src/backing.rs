//! The files that back guest memory: without a name, and with huge pages where the host has them.
//!
//! Huge pages make the difference between tens and tens of thousands of faults in a boot. Linux's
//! default (`shmem_enabled` is `never`) denies them to memfds, but not to a tmpfs mounted with
//! `huge=advise`. We mount one for each file, nowhere, so that it goes with the file. That takes
//! the right to mount; without it there are memfds, and the host's setting decides.
//!
//! Linux `Documentation/admin-guide/mm/transhuge.rst`, `Documentation/filesystems/tmpfs.rst`.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{
    MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create, openat,
};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

/// A file of `size` zero bytes that nobody can shrink but the holders of the descriptor.
pub(crate) fn file(name: &str, size: u64) -> io::Result<OwnedFd> {
    match tmpfs_file(size) {
        Ok(file) => Ok(file),
        // No right to mount, or a kernel before 5.2.
        Err(_) => memfd(name, size),
    }
}

fn tmpfs_file(size: u64) -> io::Result<OwnedFd> {
    let tmpfs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&tmpfs, "huge", "advise")?;
    fsconfig_set_string(&tmpfs, "size", size.to_string())?;
    fsconfig_create(&tmpfs)?;
    // Not NOEXEC: an engine may execute the guest's code where it is.
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID;
    let mount = fsmount(&tmpfs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    // EXCL: no link to it can be made later.
    let flags = OFlags::TMPFILE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    let file = openat(&mount, ".", flags, Mode::RUSR | Mode::WUSR)?;
    ftruncate(&file, size)?;
    Ok(file)
}

fn memfd(name: &str, size: u64) -> io::Result<OwnedFd> {
    let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, size)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use rustix::fs::fstat;

    use super::*;

    #[test]
    fn a_file_has_its_size_and_no_name() {
        for file in [file("ram", 3 << 12), memfd("ram", 3 << 12)] {
            let stat = fstat(file.unwrap()).unwrap();
            assert_eq!((stat.st_size, stat.st_nlink), (3 << 12, 0));
        }
    }
}
