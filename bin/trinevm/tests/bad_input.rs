//! What is wrong is said in one line, with a status that is not zero, and leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod rig;

use std::path::Path;
use std::process::{Command, Stdio};

use rig::{Rig, finish};

/// Runs with these arguments; returns the line and the status.
fn refused(args: &[&str]) -> (String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trinevm"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = finish(&mut command);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.stdout.is_empty(), "{args:?}");
    // The choice of an engine may have been said before.
    let lines: Vec<_> = said.lines().filter(|line| !line.contains(": engine emu: ")).collect();
    assert_eq!(lines.len(), 1, "{args:?}: {said}");
    assert!(lines[0].starts_with("trinevm: "), "{said}");
    (lines[0].to_owned(), output.status.code().unwrap())
}

struct Files {
    rig: Rig,
    kernel: String,
}

impl Files {
    fn new() -> Self {
        let rig = Rig::new();
        let kernel = rig.file("kernel", &tinyguest::multiboot(&tinyguest::power_off()));
        Self { kernel: kernel.display().to_string(), rig }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        self.rig.file(name, bytes).display().to_string()
    }

    /// Expects a status of 2 and these words for a good kernel with `args`.
    fn refuses(&self, args: &[&str], words: &str) {
        let before = self.rig.files();
        let all = [&["--engine", "emu", "--kernel", &self.kernel], args].concat();
        let (line, status) = refused(&all);
        assert!(line.contains(words), "{args:?}: {line}");
        assert_eq!(status, 2, "{line}");
        assert_eq!(self.rig.files(), before);
    }

    /// The same for another kernel.
    fn refuses_kernel(&self, kernel: &str, words: &str) {
        let (line, status) = refused(&["--engine", "emu", "--kernel", kernel]);
        assert!(line.contains(words) && line.contains(kernel), "{line}");
        assert_eq!(status, 2, "{line}");
    }
}

#[test]
fn kernels_that_are_none() {
    let files = Files::new();
    let folder = files.rig.0.path().display().to_string();
    files.refuses_kernel("/nonexistent/vmlinuz", "check the path: No such file");
    files.refuses_kernel(&folder, "not a file");
    files.refuses_kernel("/dev/zero", "not a file");
    files.refuses_kernel(&files.file("empty", b""), "empty");
    files.refuses_kernel(&files.file("text", b"#!/bin/sh\nexit 0\n"), "is not a kernel");
    let mut arm = vec![0; 64];
    arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
    files.refuses_kernel(&files.file("arm", &arm), "ARM");
    let whole = std::fs::read(&files.kernel).unwrap();
    files.refuses_kernel(&files.file("cut", &whole[..40]), "truncated");
    let fifo = files.rig.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    files.refuses_kernel(&fifo.display().to_string(), "not a file");
}

#[test]
fn files_beside_the_kernel() {
    let files = Files::new();
    files.refuses(
        &["--initrd", "/nonexistent/initrd"],
        "initrd /nonexistent/initrd; check the path: No such file",
    );
    files.refuses(
        &["--module", "/nonexistent/m with args"],
        "module /nonexistent/m; check the path: No such file",
    );
    files.refuses(&["--disk", "/nonexistent/disk"], "does not exist");
    files.refuses(&["--disk", "/dev/null"], "neither a file nor a block device");
    let odd = files.file("odd", &[0; 100]);
    files.refuses(&["--disk", &odd], "multiple of 512");
    let disk = files.file("disk", &[0; 1024]);
    files.refuses(&["--disk", &disk, "--disk", &disk], "in use");
    files.refuses(
        &["--serial", "file=/nonexistent/log"],
        "/nonexistent/log; check the path: No such file",
    );
}

#[test]
fn numbers_that_no_vm_can_have() {
    let files = Files::new();
    files.refuses(&["--cpus", "0"], "1 to 32");
    files.refuses(&["--cpus", "33"], "1 to 32");
    for cpus in ["-1", "1.5", "many", "4294967296"] {
        files.refuses(&["--cpus", cpus], "1 to 32");
    }
    files.refuses(&["--memory", "0M"], "needs memory");
    files.refuses(&["--memory", "512"], "512M");
    files.refuses(&["--memory", "1M"], "between");
    files.refuses(&["--memory", "99999999999999999999G"], "number");
    let (line, status) =
        refused(&["--engine", "emu", "--kernel", &files.kernel, "--memory", "400G"]);
    assert!(line.contains("409600 MiB of memory, but the host has"), "{line}");
    assert_eq!(status, 4);
}

#[test]
fn memory_that_the_host_refuses() {
    let files = Files::new();
    let limited = Command::new("sh")
        .args(["-c", "ulimit -v 400000; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_trinevm")])
        .args(["--engine", "emu", "--memory", "1G", "--kernel", &files.kernel])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(limited.stderr).unwrap();
    assert_eq!(limited.status.code(), Some(4), "{said}");
    assert!(said.contains("no memory for the VM") && said.lines().count() == 1, "{said}");
}

#[test]
fn options_that_contradict_each_other_or_do_not_exist() {
    let files = Files::new();
    files.refuses(&["--console", "stdio"], "say --serial none");
    files.refuses(&["--cpu", "host"], "no CPU profile 'host': give portable");
    files.refuses(&["--cpu", "portable,-wings"], "there are pae, sep, sse3");
    files.refuses(&["--cpu", "portable,xsave"], "write -FEATURE");
    files.refuses(&["--serial", "pty"], "stdio, file=PATH or none");
    files.refuses(&["--wings", "2"], "--wings");
    let kernel = ["--kernel", &files.kernel];
    let (line, _) = refused(&[&kernel[..], &["--engine", "hw", "--deterministic"]].concat());
    assert!(line.contains("--engine emu"), "{line}");
    let (line, _) = refused(&[&kernel[..], &["--engine", "warp"]].concat());
    assert!(line.contains("engines are hw, emu and full"), "{line}");
    let (line, _) = refused(&[]);
    assert!(line.contains("--kernel"), "{line}");
}

#[test]
fn a_control_path_that_is_taken_or_nowhere() {
    let files = Files::new();
    let taken = files.file("taken", b"precious");
    files.refuses(&["--control", &taken], "in use");
    assert_eq!(std::fs::read(Path::new(&taken)).unwrap(), b"precious");
    files.refuses(&["--control", "/nonexistent/vm.sock"], "/nonexistent/vm.sock");
    // A socket that was made before something else failed is taken away again.
    let path = files.rig.path("vm.sock").display().to_string();
    files.refuses(&["--control", &path, "--disk", "/nonexistent/disk"], "does not exist");
}
