//! Adds a file to `tests/state/golden` when today's program saves otherwise than it did for the newest.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use state_tests::golden;

fn main() {
    if let Some(newest) = golden::files().last() {
        let file = std::fs::read(newest).unwrap();
        if golden::again(&file) == file {
            println!("{} is what is saved today", newest.display());
            return;
        }
    }
    let path = golden::next_file();
    std::fs::write(&path, golden::make()).unwrap();
    println!("wrote {}", path.display());
}
