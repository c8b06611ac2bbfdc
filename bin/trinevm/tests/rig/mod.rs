//! What the tests of the real program share.
#![allow(dead_code, reason = "each test program uses a part")]

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub const LONG: Duration = Duration::from_secs(60);

/// A folder for a test's files.
pub struct Rig(pub TempDir);

impl Rig {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// A small VM on the interpreter, with a kernel that runs `code`.
    pub fn vm(&self, code: &[u8]) -> Command {
        let kernel = self.file("kernel", &tinyguest::multiboot(code));
        let mut command = Command::new(env!("CARGO_BIN_EXE_trinevm"));
        command.args(["--engine", "emu", "--memory", "16M", "--kernel"]).arg(kernel);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Names of what is in the folder.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Runs to the end; panics when there is none.
pub fn finish(command: &mut Command) -> Output {
    let mut child = command.spawn().unwrap();
    wait(&mut child);
    child.wait_with_output().unwrap()
}

pub fn wait(child: &mut Child) -> ExitStatus {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begin.elapsed() > LONG {
            child.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Tries until it is so.
pub fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(begin.elapsed() < LONG, "{what} did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}
