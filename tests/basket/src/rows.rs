//! The rows, one file for each kind.

pub mod code;
pub mod copies;
pub mod disk;
pub mod files;
pub mod float;
pub mod heap;
pub mod integer;
pub mod memory;
pub mod narrow;
pub mod pages;
pub mod process;
pub mod python;
pub mod system;
pub mod vector;

use std::path::PathBuf;

/// Files that rows need.
pub struct Place {
    /// The folder with `bin/busybox` and CPython.
    pub root: PathBuf,
    /// The folder for files of ours.
    pub scratch: PathBuf,
    /// A disk whose content may be lost.
    pub disk: Option<PathBuf>,
}

/// Runs so many rounds, and returns a sum of what they computed.
pub type Work = Box<dyn FnMut(u64) -> u64>;

/// What a row makes: nothing, where the machine has not what it needs.
pub type Made = anyhow::Result<Option<Work>>;

/// One program of the basket.
pub struct Row {
    /// What it is called in tables.
    pub name: &'static str,
    /// Operations in a round.
    pub operations: u64,
    /// Rounds that are computed for the sum.
    pub rounds: u64,
    /// Makes the work, always in the same state.
    pub make: fn(&Place) -> Made,
}

impl Row {
    /// It needs a disk.
    pub fn of_disks(&self) -> bool {
        self.name.starts_with("disk_")
    }
}

const fn row(name: &'static str, operations: u64, rounds: u64, make: fn(&Place) -> Made) -> Row {
    Row { name, operations, rounds, make }
}

/// All that are not Python, in the order of the tables.
pub const ALL: &[Row] = &[
    row("intmix", 1, 20, integer::intmix),
    row("sha256", 1, 500, integer::sha256),
    row("call", integer::CALLS, 5, integer::call),
    row("bytecode", integer::STEPS, 5, integer::bytecode),
    row("qsort", 1, 5, heap::qsort),
    row("malloc", heap::PAIRS, 50, heap::malloc),
    row("hash", integer::INSERTS, 5, integer::hash),
    row("strings", 1, 500, heap::strings),
    row("nbody", 1, 500, float::nbody),
    row("narrow", 1, 50, narrow::narrow),
    row("x87", 1, 50, float::x87),
    row("sse2", 1, 50, vector::sse2),
    row("avx2", 1, 50, vector::avx2),
    row("memcpy", 1, 50, copies::memcpy),
    row("rep_movsb", 1, 50, copies::rep_movsb),
    row("rep_stosq", 1, 50, copies::rep_stosq),
    row("triad", 1, 1, memory::triad),
    row("chase_16k", memory::STEPS, 2, |_| memory::chase(16 << 10)),
    row("chase_1m", memory::STEPS, 2, |_| memory::chase(1 << 20)),
    row("chase_32m", memory::STEPS, 2, |_| memory::chase(32 << 20)),
    row("getppid", 1, 100, system::getppid),
    row("clock_gettime", 1, 100, system::clock_gettime),
    row("stat", 1, 100, system::stat),
    row("signal", 1, 100, system::signal),
    row("page_fault", pages::PAGES as u64, 2, pages::fault),
    row("map_touch_unmap", 1, 20, pages::map_touch_unmap),
    row("pipe", 1, 20, process::pipe),
    row("fork", 1, 4, process::fork),
    row("fork_exec", 1, 2, process::fork_exec),
    row("pipeline", 1, 2, process::pipeline),
    row("files", 1, 20, files::files),
    row("code_written", 1, 100, code::written),
    row("data_by_code", 1, 100, code::data),
    row("lock_add", system::ADDS, 2, system::lock_add),
    row("disk_read", 1, 20, |place| {
        disk::disk(place, disk::Load { write: false, random: false, many: false })
    }),
    row("disk_read_random", 1, 20, |place| {
        disk::disk(place, disk::Load { write: false, random: true, many: false })
    }),
    row("disk_write", 1, 20, |place| {
        disk::disk(place, disk::Load { write: true, random: false, many: false })
    }),
    row("disk_write_random", 1, 20, |place| {
        disk::disk(place, disk::Load { write: true, random: true, many: false })
    }),
    row("disk_read_32", disk::MANY, 20, |place| {
        disk::disk(place, disk::Load { write: false, random: false, many: true })
    }),
    row("disk_read_random_32", disk::MANY, 20, |place| {
        disk::disk(place, disk::Load { write: false, random: true, many: true })
    }),
    row("disk_write_32", disk::MANY, 20, |place| {
        disk::disk(place, disk::Load { write: true, random: false, many: true })
    }),
    row("disk_write_random_32", disk::MANY, 20, |place| {
        disk::disk(place, disk::Load { write: true, random: true, many: true })
    }),
];

/// Mixes a value into a sum.
fn mix(sum: u64, value: u64) -> u64 {
    (sum ^ value).wrapping_mul(0x100_0000_01b3).rotate_left(23)
}
