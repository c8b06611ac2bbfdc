//! Whoever is killed, whatever fails: VMs, operations and the host stay in order. `kills --operations 500`, the program
//! beside these tests, tries more.

use std::time::Duration;

use vm_tests::kills::{Plan, run};

#[test]
fn whatever_fails_no_vm_is_lost_no_operation_stuck_and_nothing_left() -> anyhow::Result<()> {
    let plan = Plan { operations: 60, seed: 5, limit: Duration::from_secs(120) };
    println!("{}", run(&plan)?);
    Ok(())
}
