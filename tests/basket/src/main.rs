//! The program of the basket. `basket` runs every row on the machine it is on.

mod measure;
mod random;
mod rows;

use std::path::PathBuf;
use std::time::Duration;

use basket::{END, Line, WRONG};
use clap::Parser;

use measure::{Effort, time};
use rows::{Place, Row};

/// As the only argument: end at once. It is what the row `fork_exec` starts.
const NOTHING: &str = "--nothing";

/// Runs small programs; prints how long an operation takes, and a sum of what was computed.
#[derive(Parser)]
struct Options {
    /// Folder with bin/busybox and CPython
    #[arg(long, default_value = "/")]
    root: PathBuf,
    /// Folder for files, in memory
    #[arg(long, default_value = "/tmp")]
    scratch: PathBuf,
    /// Only the rows of disks, with this one; what is on it is lost
    #[arg(long)]
    disk: Option<PathBuf>,
    /// Only rows whose names contain this
    #[arg(long, default_value = "")]
    rows: String,
    /// Compute only, without measuring
    #[arg(long)]
    check: bool,
    /// Timed passes of a row
    #[arg(long, default_value_t = 5)]
    passes: u32,
    /// How long a pass takes, in milliseconds
    #[arg(long, default_value_t = 40)]
    pass_ms: u64,
    /// After so many milliseconds, a row begins no further pass
    #[arg(long, default_value_t = 1000)]
    row_ms: u64,
}

fn main() -> anyhow::Result<()> {
    if std::env::args().nth(1).as_deref() == Some(NOTHING) {
        return Ok(());
    }
    let options = Options::parse();
    rows::process::stay_on_one_cpu()?;
    let of_disks = options.disk.is_some();
    let place = Place { root: options.root, scratch: options.scratch, disk: options.disk };
    let effort = (!options.check).then(|| Effort {
        passes: options.passes,
        pass: Duration::from_millis(options.pass_ms),
        row: Duration::from_millis(options.row_ms),
    });
    let wanted = |row: &&Row| row.name.contains(&options.rows);
    for row in rows::ALL.iter().filter(wanted).filter(|row| row.of_disks() == of_disks) {
        run(row, &place, effort.as_ref())?;
    }
    if !of_disks {
        rows::python::run(&place, effort.as_ref(), &options.rows)?;
    }
    println!("{END}");
    Ok(())
}

/// Computes, measures, and computes again.
fn run(row: &Row, place: &Place, effort: Option<&Effort>) -> anyhow::Result<()> {
    let Some(mut work) = (row.make)(place)? else { return Ok(()) };
    let sum = work(row.rounds);
    let timing = effort.map(|effort| time(&mut work, row.operations, effort));
    drop(work);
    if let (Some(_), Some(mut again)) = (timing, (row.make)(place)?) {
        let then = again(row.rounds);
        if then != sum {
            println!("{WRONG} {} {sum:016x} and then {then:016x}", row.name);
        }
    }
    println!("{}", Line { name: row.name.to_owned(), sum, timing });
    Ok(())
}
