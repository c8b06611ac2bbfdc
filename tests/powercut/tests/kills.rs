//! A few kills; `cargo run --release -p powercut -- 200` for many.

use std::path::Path;
use std::process::Command;

#[test]
fn an_image_is_sound_and_has_what_was_flushed_whenever_its_writer_is_killed() {
    if Command::new("qemu-img").arg("--version").output().is_err() {
        eprintln!("not run: there is no qemu-img");
        return;
    }
    let summary = powercut::run(Path::new(env!("CARGO_BIN_EXE_powercut")), 8, 7).unwrap();
    assert_eq!(summary.kills, 8);
    assert!(summary.flushed > 0, "{summary:?}");
}
