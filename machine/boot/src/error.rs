//! Why a guest cannot be booted. All of it is the operator's to mend.

use std::io;

/// Why a guest cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The host cannot read the file.
    #[error("{name} cannot be read")]
    Read {
        /// The file.
        name: String,
        /// What the host says.
        source: io::Error,
    },
    /// The file ends too early.
    #[error("{name} is truncated: {part} runs past its {size_bytes} bytes")]
    Truncated {
        /// The file.
        name: String,
        /// What is not all there.
        part: &'static str,
        /// The file's size.
        size_bytes: u64,
    },
    /// The file is something else.
    #[error(
        "{name} is not a kernel: {reason}; give a Linux bzImage or vmlinux, or a PVH or Multiboot kernel"
    )]
    NotAKernel {
        /// The file.
        name: String,
        /// What it looks like.
        reason: &'static str,
    },
    /// Firmware starts no such kernel.
    #[error(
        "{name} is not a Linux bzImage, which is all that firmware starts: leave out --firmware"
    )]
    NotForFirmware {
        /// The file.
        name: String,
    },
    /// A kernel for other machines.
    #[error("{name} is a kernel for {found}, but the VM is an x86-64 machine")]
    Architecture {
        /// The file.
        name: String,
        /// What it is for.
        found: &'static str,
    },
    /// The file is something else.
    #[error(
        "{name} is not an initrd: {found}; give a cpio archive of the newc format, packed or not"
    )]
    NotAnInitrd {
        /// The file.
        name: String,
        /// What it looks like.
        found: &'static str,
    },
    /// An initrd for other machines.
    #[error(
        "{name} is an initrd for {found}, as its {program} says, but the VM is an x86-64 machine"
    )]
    ForeignInitrd {
        /// The file.
        name: String,
        /// The program in it that is for another machine.
        program: String,
        /// What it is for.
        found: &'static str,
    },
    /// An initrd that the guest's memory cannot hold.
    #[error("{name} unpacks to more than the VM has memory: give the VM more memory")]
    UnpacksTooLarge {
        /// The file.
        name: String,
    },
    /// The kernel's headers contradict themselves, or ask for what no VM has.
    #[error("{name} is damaged: {reason}")]
    Malformed {
        /// The file.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The kernel was packed in a way this program cannot unpack.
    #[error(
        "{name} is compressed with {found}, which is not supported: give it uncompressed, as vmlinux"
    )]
    Compression {
        /// The file.
        name: String,
        /// How.
        found: &'static str,
    },
    /// The kernel's compressed part is damaged.
    #[error("the {format} data in {name} cannot be decompressed")]
    Decompress {
        /// The file.
        name: String,
        /// How it is compressed.
        format: &'static str,
        /// What the decompressor says.
        source: io::Error,
    },
    /// A 64-bit kernel on a 32-bit CPU.
    #[error(
        "the kernel is entered in 64-bit mode, which the CPU profile does not have: keep its lm and pae"
    )]
    NoLongMode,
    /// It does not fit where it must be.
    #[error(
        "{what} needs {size_bytes} bytes at {base:#x}, which are not free memory: give the VM more memory"
    )]
    DoesNotFit {
        /// What.
        what: String,
        /// Where it must be.
        base: u64,
        /// How long it is.
        size_bytes: u64,
    },
    /// It does not fit anywhere.
    #[error("there is no room for {what} of {size_bytes} bytes: give the VM more memory")]
    NoRoom {
        /// What.
        what: String,
        /// How long it is.
        size_bytes: u64,
    },
    /// The kernel would cut it off.
    #[error("the command line has {size_bytes} bytes, but this kernel takes at most {max_bytes}")]
    CmdlineTooLong {
        /// Its length.
        size_bytes: usize,
        /// The most there can be.
        max_bytes: usize,
    },
    /// The kernel would see only a part of it.
    #[error("{0} contains a NUL byte")]
    Nul(&'static str),
    /// The protocol has no initrd.
    #[error("{name} is a Multiboot kernel, which takes modules and no initrd: give it as a module")]
    InitrdForMultiboot {
        /// The kernel.
        name: String,
    },
    /// The protocol has no modules.
    #[error("{name} is a Linux kernel, which takes an initrd and no modules")]
    ModulesForLinux {
        /// The kernel.
        name: String,
    },
    /// More than can be listed.
    #[error("{count} modules given, but there can be at most {max}")]
    TooManyModules {
        /// How many.
        count: usize,
        /// The most there can be.
        max: usize,
    },
    /// An empty file.
    #[error("{name} is empty")]
    Empty {
        /// The file.
        name: String,
    },
}
