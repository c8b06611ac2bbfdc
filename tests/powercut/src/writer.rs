//! The writer.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use storage::{Disk, DiskOptions};
use vm_memory::VolatileSlice;

use crate::{SLOT_BYTES, WORKERS, action, content, offset};

/// Writes to an image until it is killed, with rounds numbered from `first` on.
///
/// # Errors
/// When the disk fails.
pub fn write(image: &Path, first: u64) -> anyhow::Result<()> {
    let disk = DiskOptions::new(image).open()?;
    let work = |worker: u64| {
        let disk = disk.clone();
        std::thread::spawn(move || rounds(&disk, worker, first))
    };
    let threads: Vec<_> = (0..WORKERS).map(work).collect();
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
    }
    Ok(())
}

fn rounds(disk: &Arc<dyn Disk>, worker: u64, first: u64) -> anyhow::Result<()> {
    for round in first.. {
        let (slot, zero) = action(worker, round);
        let at = offset(worker, slot);
        if zero {
            disk.write_zeroes(at, SLOT_BYTES, round % 2 == 0)?;
        } else {
            let mut data = content(worker, round);
            disk.write(at, &[VolatileSlice::from(data.as_mut_slice())])?;
        }
        if round % 8 == worker {
            disk.flush()?;
            let line = format!("{worker} {round}\n");
            std::io::stdout().lock().write_all(line.as_bytes())?;
        }
    }
    Ok(())
}
