//! Operations on a daemon with real VMs while its host fails: whoever is killed, whatever is full, locked, cut off or
//! wrong about the time, no VM is lost, no operation is stuck and nothing is left behind.
//!
//! What is done, and what fails when, follows from a seed; how long things take does not. So a seed that finds something finds it
//! again often, not always.

mod daemon;
mod faults;
mod luck;
mod world;

use std::time::Duration;

use luck::Luck;
use world::World;

/// What is tried.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How many operations.
    pub operations: u64,
    /// Decides which, and what fails when.
    pub seed: u64,
    /// How long all of it may take to come to rest, once nothing fails any more.
    pub limit: Duration,
}

/// Between two looks at whether everything is as it should be, in operations.
const LOOK: u64 = 50;

/// Does it, and returns what happened, for people.
///
/// # Errors
/// When something is lost, stuck or left behind: what, with what was done last.
pub fn run(plan: &Plan) -> anyhow::Result<String> {
    let mut luck = Luck::new(plan.seed);
    let mut world = World::new(plan.limit)?;
    let done = (|| {
        for number in 1..=plan.operations {
            world.operate(&mut luck)?;
            world.fail(&mut luck)?;
            if number % LOOK == 0 && number != plan.operations {
                world.heal()?;
                world.come_to_rest()?;
            }
        }
        world.heal()?;
        world.come_to_rest()?;
        world.empty()
    })();
    done.map_err(|error: anyhow::Error| error.context(world.story(plan)))?;
    Ok(world.sums())
}
