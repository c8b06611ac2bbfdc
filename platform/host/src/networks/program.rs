//! Programs of the host, which are asked with a text and answer soon.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// None of them waits for anybody.
const LIMIT: Duration = Duration::from_secs(10);
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Where a program is.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| PathBuf::from(folder).join(name)).find(|path| path.is_file())
}

/// Runs a program with this input.
///
/// # Errors
/// What it says, when it fails.
pub(crate) fn run(name: &str, arguments: &[&str], input: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot run {name}: {error}");
    let path = find(name).ok_or_else(|| format!("{name} is missing: install it"))?;
    let mut child = Command::new(path)
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends before it has read all says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let stderr = child.stderr.take();
    // Read on a thread: a program that says much waits for its reader.
    let reader = thread::spawn(move || {
        let mut said = String::new();
        let _ = stderr.map(|stderr| stderr.take(16 << 10).read_to_string(&mut said));
        said
    });
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if begin.elapsed() > LIMIT {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("{name} does not end"));
        }
        thread::sleep(Duration::from_millis(1));
    };
    let said = reader.join().unwrap_or_default();
    let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
    if status.success() { Ok(()) } else { Err(format!("{name} failed: {}", first.trim())) }
}
