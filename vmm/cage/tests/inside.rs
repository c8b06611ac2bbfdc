//! From inside the cage: what a process that has been taken over tries. Each attempt is made in a process of its own, by
//! threads that were there before the cage was closed and by vCPUs' threads; without the cage, it succeeds.
//!
//! UNSAFETY: an intruder makes system calls.
#![allow(unsafe_code, reason = "an intruder makes system calls")]

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;

use cage::{Cage, Needs, VcpuFilter};

/// What is tried, and whether only root can.
const ATTEMPTS: &[(&str, bool)] = &[
    ("open", false),
    ("create", false),
    ("remove", false),
    ("rename", false),
    ("list", false),
    ("look", false),
    ("connect-tcp", false),
    ("connect-unix", false),
    ("listen", false),
    ("execute", false),
    ("fork", false),
    ("trace", true),
    ("read-another", true),
    ("signal", false),
    ("ring", false),
    ("code", false),
    ("unshare", true),
    ("chroot", true),
    ("mount", true),
    ("capability", true),
    ("become-root", true),
];

/// What the child is told: attempt, who tries, a folder, a port, and a process.
const TOLD: &str = "CAGE_TEST";

fn ok(result: libc::c_long) -> bool {
    result >= 0
}

/// The child's. `true` when it succeeds.
fn attempt(what: &str, folder: &Path, port: u16, parent: libc::pid_t) -> bool {
    let call = |number, arguments: [usize; 6]| {
        let [a, b, c, d, e, f] = arguments;
        // SAFETY: what is passed lives over the call.
        ok(unsafe { libc::syscall(number, a, b, c, d, e, f) })
    };
    match what {
        "open" => File::open("/etc/passwd").is_ok(),
        "create" => File::create(folder.join("new")).is_ok(),
        "remove" => fs::remove_file(folder.join("victim")).is_ok(),
        "rename" => fs::rename(folder.join("victim"), folder.join("moved")).is_ok(),
        "list" => fs::read_dir("/").is_ok(),
        "look" => fs::metadata("/etc/passwd").is_ok(),
        "connect-tcp" => TcpStream::connect(("127.0.0.1", port)).is_ok(),
        "connect-unix" => UnixStream::connect(folder.join("socket")).is_ok(),
        "listen" => TcpListener::bind("127.0.0.1:0").is_ok(),
        "execute" => Command::new("/bin/true").status().is_ok(),
        "fork" => {
            // SAFETY: the new process does nothing but end.
            match unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } {
                // SAFETY: it ends without a word.
                0 => unsafe { libc::_exit(0) },
                result => ok(result),
            }
        }
        "trace" => {
            call(libc::SYS_ptrace, [libc::PTRACE_SEIZE as usize, parent as usize, 0, 0, 0, 0])
        }
        "read-another" => call(libc::SYS_process_vm_readv, [parent as usize, 0, 0, 0, 0, 0]),
        "signal" => call(libc::SYS_kill, [parent as usize, 0, 0, 0, 0, 0]),
        "ring" => {
            let parameters = [0u32; 30];
            call(libc::SYS_io_uring_setup, [1, parameters.as_ptr() as usize, 0, 0, 0, 0])
        }
        "code" => {
            let all = (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) as usize;
            let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
            call(libc::SYS_mmap, [0, 4096, all, flags, usize::MAX, 0])
        }
        "unshare" => call(libc::SYS_unshare, [libc::CLONE_NEWUTS as usize, 0, 0, 0, 0, 0]),
        "chroot" => call(libc::SYS_chroot, [c"/".as_ptr() as usize, 0, 0, 0, 0, 0]),
        "mount" => {
            let (none, kind) = (c"none".as_ptr() as usize, c"tmpfs".as_ptr() as usize);
            call(libc::SYS_mount, [none, c"/mnt".as_ptr() as usize, kind, 0, 0, 0])
                && call(libc::SYS_umount2, [c"/mnt".as_ptr() as usize, 0, 0, 0, 0, 0])
        }
        "capability" => {
            // To change the owner of a file that is open takes CAP_CHOWN; here it is one's own credentials.
            call(libc::SYS_setresgid, [1, 1, 1, 0, 0, 0])
        }
        "become-root" => call(libc::SYS_setresuid, [0, 0, 0, 0, 0, 0]),
        _ => panic!("nobody knows how to {what}"),
    }
}

/// Runs in a process of its own, see [`TOLD`].
#[test]
#[ignore = "it is the process that the others start"]
fn inside() {
    let Ok(told) = std::env::var(TOLD) else { return };
    let words: Vec<_> = told.split(' ').collect();
    let (what, who, folder) = (words[0].to_owned(), words[1], PathBuf::from(words[2]));
    let (port, parent) = (words[3].parse().unwrap(), words[4].parse().unwrap());
    let needs = Needs::default();
    let (begin, begun) = channel();
    let (vcpu, filter) = (who == "vcpu", VcpuFilter::new(&needs).unwrap());
    let intruder = thread::spawn(move || {
        begun.recv().unwrap();
        if vcpu {
            filter.narrow().unwrap();
        }
        attempt(&what, &folder, port, parent)
    });
    if who != "free" {
        Cage { needs, user: None }.close().unwrap();
    }
    begin.send(()).unwrap();
    let succeeded = intruder.join().unwrap();
    std::process::exit(if succeeded { 3 } else { 4 });
}

fn run(what: &str, who: &str, port: u16) -> Option<i32> {
    let folder = tempfile::tempdir().expect("the host lets a test run");
    File::create(folder.path().join("victim")).expect("the host lets a test run");
    let _socket =
        UnixListener::bind(folder.path().join("socket")).expect("the host lets a test run");
    let told = format!("{what} {who} {} {port} {}", folder.path().display(), std::process::id());
    let us = std::env::current_exe().expect("the host lets a test run");
    let status = Command::new(us).args(["--ignored", "--exact", "inside"]).env(TOLD, told).output();
    status.expect("the host lets a test run").status.code()
}

fn is_root() -> bool {
    // SAFETY: it takes nothing.
    unsafe { libc::geteuid() == 0 }
}

#[test]
fn what_works_outside_is_refused_inside() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for (what, root) in ATTEMPTS {
        // Where the host itself refuses it, the cage is tried all the same.
        if !root || is_root() {
            assert_eq!(run(what, "free", port), Some(3), "{what}, without a cage");
        }
        for who in ["thread", "vcpu"] {
            let code = run(what, who, port);
            // No status: the kernel has killed it.
            assert!(matches!(code, Some(4) | None), "{what} by a {who}: {code:?}");
        }
    }
}

/// In a process of its own, because a cage is closed for good.
#[test]
#[ignore = "it is the process that another starts"]
fn at_work() {
    let mut file = tempfile::tempfile().unwrap();
    let level = Cage::default().close().unwrap();
    assert!(level.holds.iter().any(|line| line.contains("no capabilities")), "{level:?}");
    file.write_all(b"written").unwrap();
    file.rewind().unwrap();
    let mut text = String::new();
    thread::spawn(move || file.read_to_string(&mut text).map(|_| assert_eq!(text, "written")))
        .join()
        .unwrap()
        .unwrap();
    // Memory comes and goes.
    let much = vec![1u8; 64 << 20];
    assert_eq!(much.iter().step_by(4096).map(|byte| u64::from(*byte)).sum::<u64>(), 16384);
    std::process::exit(5);
}

#[test]
fn what_a_process_has_stays_usable() {
    let us = std::env::current_exe().unwrap();
    let output = Command::new(us).args(["--ignored", "--exact", "at_work", "--nocapture"]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
}

/// In a process of its own.
#[test]
#[ignore = "it is the process that another starts"]
fn as_another_user() {
    let Ok(told) = std::env::var(TOLD) else { return };
    let (begin, begun) = channel::<()>();
    let other = thread::spawn(move || {
        begun.recv().unwrap();
        // SAFETY: it takes nothing.
        unsafe { libc::geteuid() }
    });
    let user = 0x7000_0001;
    Cage { user: Some((user, told.into())), ..Cage::default() }.close().unwrap();
    begin.send(()).unwrap();
    assert_eq!(other.join().unwrap(), user);
    std::process::exit(6);
}

#[test]
fn root_becomes_a_user_in_an_empty_folder() {
    if !is_root() {
        eprintln!("not run: only root can");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let us = std::env::current_exe().unwrap();
    let mut command = Command::new(us);
    command.args(["--ignored", "--exact", "as_another_user", "--nocapture"]);
    let output = command.env(TOLD, folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(6), "{}", String::from_utf8_lossy(&output.stderr));
}
