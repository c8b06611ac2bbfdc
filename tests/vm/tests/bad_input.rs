//! What cannot be run is refused by `trine run` in one line, with a status that is not zero, and
//! nothing is left behind. (What does not need Debian's kernel to show is in `bin/trinevm`.)

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context;
use guests::{Init, initrd, kernel};
use tempfile::TempDir;
use vm_tests::{text, trine};

/// Exit status for what the operator can mend by other options.
const STATUS_USAGE: i32 = 2;
/// Exit status for what the host cannot do.
const STATUS_HOST: i32 = 4;

/// A folder with Debian's kernel and its RAM disk.
struct Files {
    folder: TempDir,
    image: Vec<u8>,
}

impl Files {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let kernel = kernel("cloud")?;
        fs::copy(initrd(&kernel, &[], Init::PowerOff)?, folder.path().join("initrd"))?;
        fs::copy(&kernel.image, folder.path().join("vmlinuz"))?;
        Ok(Self { folder, image: fs::read(kernel.image)? })
    }

    fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(fs::write(self.folder.path().join(name), bytes)?)
    }

    fn sparse(&self, name: &str, size: u64) -> anyhow::Result<()> {
        Ok(File::create(self.folder.path().join(name))?.set_len(size)?)
    }

    fn names(&self) -> anyhow::Result<Vec<String>> {
        let entries = fs::read_dir(self.folder.path())?.collect::<Result<Vec<_>, _>>()?;
        let mut names: Vec<_> =
            entries.iter().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names)
    }

    /// Runs `trine run` in the folder, by a shell's command that ends in exec. There is a control
    /// socket, which must not be left.
    fn refused(&self, prepare: &str, options: &str) -> anyhow::Result<(String, i32)> {
        let before = self.names()?;
        let script = format!("{prepare} {} run --control socket {options}", text(&trine()?));
        let output = Command::new("sh")
            .args(["-c", &script])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8(output.stderr)?;
        assert!(output.stdout.is_empty(), "{options}");
        assert_eq!(said.lines().count(), 1, "{options}: {said}");
        assert_eq!(self.names()?, before, "{options}");
        assert!(!has_process_in(self.folder.path())?, "{options} leaves a process");
        Ok((said, output.status.code().context("ended by a signal")?))
    }

    /// For each: options, status and words of the line.
    fn refuses(&self, cases: &[(&str, i32, &str)]) -> anyhow::Result<()> {
        for (options, status, words) in cases {
            let (said, ended) = self.refused("exec", options)?;
            assert!(said.contains(words), "{options}: {said}");
            assert_eq!(ended, *status, "{options}: {said}");
        }
        Ok(())
    }
}

/// A process has the folder as its own.
fn has_process_in(folder: &Path) -> anyhow::Result<bool> {
    let folder = folder.canonicalize()?;
    let processes = fs::read_dir("/proc")?.flatten();
    Ok(processes.filter_map(|p| fs::read_link(p.path().join("cwd")).ok()).any(|cwd| cwd == folder))
}

#[test]
fn kernels_that_are_cut_too_large_or_for_another_cpu() -> anyhow::Result<()> {
    let files = Files::new()?;
    for (name, size) in [("cut200", 200), ("cut600", 600), ("cut100k", 100_000)] {
        files.write(name, &files.image[..size])?;
    }
    let mut flipped = files.image.clone();
    flipped[5 << 20] ^= 1;
    files.write("flipped", &flipped)?;
    files.write("cut-last", &files.image[..files.image.len() * 9 / 10])?;
    files.sparse("huge", 3 << 30)?;
    let mut arm = vec![0; 4096];
    arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
    files.write("arm", &arm)?;
    let mut elf = vec![0; 4096];
    elf[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0");
    files.write("elf-arm", &elf)?;
    files.refuses(&[
        ("--engine emu --kernel cut200", STATUS_USAGE, "cut200 is not a kernel"),
        ("--engine emu --kernel cut600", STATUS_USAGE, "cut600 is damaged"),
        ("--engine emu --kernel cut100k", STATUS_USAGE, "cut100k is truncated"),
        ("--engine emu --kernel cut-last", STATUS_USAGE, "cut-last is truncated"),
        ("--engine emu --kernel flipped", STATUS_USAGE, "flipped is damaged: its checksum"),
        ("--engine emu --kernel huge", STATUS_USAGE, "huge is not a kernel"),
        ("--engine emu --kernel arm", STATUS_USAGE, "64-bit ARM, but the VM is an x86-64"),
        ("--engine emu --kernel elf-arm", STATUS_USAGE, "64-bit ARM, but the VM is an x86-64"),
        ("--engine emu --kernel initrd", STATUS_USAGE, "initrd is not a kernel"),
        ("--engine emu --kernel none", STATUS_USAGE, "none; check the path"),
        ("--engine emu --kernel vmlinuz --cpu portable,-pae", STATUS_USAGE, "keep its lm and pae"),
        ("--engine emu --kernel vmlinuz --memory 16M", STATUS_USAGE, "more memory"),
    ])
}

#[test]
fn initrds_and_disks_that_are_none() -> anyhow::Result<()> {
    let files = Files::new()?;
    files.write("empty", b"")?;
    files.sparse("huge", 3 << 30)?;
    files.sparse("odd", 1000)?;
    files.sparse("zeros", 5000)?;
    let initrd = fs::read(files.folder.path().join("initrd"))?;
    files.write("cut", &initrd[..initrd.len() * 2 / 3])?;
    files.write("cut.gz", &[&b"\x1f\x8b\x08\0\0\0\0\0\0\x03"[..], &[0xab; 10]].concat())?;
    let numbers = [1, 0o100_755, 0, 0, 1, 0, 64, 0, 0, 0, 0, 7, 0];
    let mut arm = b"070701".to_vec();
    arm.extend(numbers.iter().flat_map(|n| format!("{n:08x}").into_bytes()));
    arm.extend(b"bin/sh\0\0\0\0\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0");
    arm.resize(arm.len() + 64, 0);
    files.write("arm", &arm)?;
    files.sparse("disk", 1 << 20)?;
    files.write("image", b"QFI\xfb\0\0\0\x03")?;
    let with = |rest: &str| format!("--engine emu --kernel vmlinuz {rest}");
    let cases = [
        ("--initrd none", "initrd none; check the path"),
        ("--initrd empty", "empty is empty"),
        ("--initrd huge", "no room for huge of 3221225472 bytes: give the VM more memory"),
        ("--initrd /dev/zero", "is not a file"),
        ("--initrd .", "is not a file"),
        ("--initrd zeros", "zeros is not an initrd: there is nothing in it but zeros"),
        ("--initrd vmlinuz", "vmlinuz is not an initrd: it is a Linux kernel"),
        ("--initrd cut", "cut is truncated: its archive runs past its"),
        ("--initrd cut.gz", "the gzip data in cut.gz cannot be decompressed"),
        ("--initrd arm", "arm is an initrd for 64-bit ARM, as its bin/sh says"),
        ("--disk none", "'none' does not exist: check the path"),
        ("--disk empty", "multiple of 512"),
        ("--disk odd", "multiple of 512"),
        ("--disk .", "is a directory"),
        ("--disk disk --disk disk", "in use by another VM"),
        ("--disk image", "begins as a qcow2 image: say ',format=raw'"),
        ("--disk image,format=qcow2", "cannot use disk 'image' as a qcow2 image"),
        ("--disk disk,format=vmdk", "raw or qcow2"),
        ("--disk disk,backing=image", "stands on nothing"),
    ];
    for (rest, words) in cases {
        files.refuses(&[(&with(rest), STATUS_USAGE, words)])?;
    }
    Ok(())
}

#[test]
fn numbers_of_cpus_and_bytes_that_no_vm_has() -> anyhow::Result<()> {
    let files = Files::new()?;
    let with = |rest: &str| format!("--engine emu --kernel vmlinuz {rest}");
    for cpus in ["0", "33", "-1", "1.5", "99999999999"] {
        files.refuses(&[(&with(&format!("--cpus {cpus}")), STATUS_USAGE, "1 to 32")])?;
    }
    files.refuses(&[
        (&with("--memory 0M"), STATUS_USAGE, "try 512M"),
        (&with("--memory 1M"), STATUS_USAGE, "between 2 MiB and 510 GiB"),
        (&with("--memory 5001K"), STATUS_USAGE, "whole MiB"),
        (&with("--memory 500T"), STATUS_HOST, "give it less"),
    ])
}

#[test]
fn hosts_without_memory_or_kvm() -> anyhow::Result<()> {
    let files = Files::new()?;
    let options = "--engine emu --memory 1G --kernel vmlinuz";
    let (said, status) = files.refused("ulimit -v 400000; exec", options)?;
    assert!(said.contains("no memory for the VM"), "{said}");
    assert_eq!(status, STATUS_HOST);
    // In a namespace of its own, a process can have another /dev.
    let hide = "exec unshare --user --map-root-user --mount \
                sh -c 'mount -t tmpfs none /dev && exec \"$0\" \"$@\"'";
    let hidden = Command::new("sh").args(["-c", &format!("{hide} true")]).output()?;
    if !hidden.status.success() {
        println!("NOT RUN: without KVM: {}", String::from_utf8_lossy(&hidden.stderr));
        return Ok(());
    }
    let (said, status) = files.refused(hide, "--engine hw --kernel vmlinuz")?;
    assert!(said.contains("no /dev/kvm"), "{said}");
    assert_eq!(status, STATUS_HOST);
    Ok(())
}
