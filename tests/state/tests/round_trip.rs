//! A machine that was saved and restored goes on exactly as the one that it was.

use guest_work::MARK;
use state_tests::Vm;

/// Machine time within which the guest begins to work with its disk, and between two looks at it.
const BOOT_MS_MAX: usize = 3_000;
const LOOK_MS: usize = 200;
/// Long enough for the disk, the serial port and all timers to be used.
const GOES_ON_MS: u64 = 100;

fn goes_on_as_it_would_have(cores: u32) {
    let mut original = Vm::new(cores);
    original.boot();
    let first = format!("{MARK} 1 ");
    let works = (0..BOOT_MS_MAX).step_by(LOOK_MS).any(|_| {
        original.run_ms(LOOK_MS as u64);
        original.printed().contains(&first)
    });
    let early = original.printed();
    assert!(works, "it did not begin to work:\n{early}");

    let mut restored = original.save().restore();
    original.run_ms(GOES_ON_MS);
    restored.run_ms(GOES_ON_MS);
    let (one, two) = (original.save(), restored.save());
    assert!(original.printed().len() > early.len(), "it did not go on:\n{early}");
    one.assert_same(&two);
}

#[test]
fn one_cpu_goes_on_as_it_would_have() {
    goes_on_as_it_would_have(1);
}

#[test]
fn two_cpus_go_on_as_they_would_have() {
    goes_on_as_it_would_have(2);
}
