//! Files in memory.

use std::fs::{self, File};
use std::io::{self, Read, Write};

use super::{Made, Place, mix};

const BYTES: usize = 4096;

/// Makes a file, writes it, reads it, removes it.
pub fn files(place: &Place) -> Made {
    let path = place.scratch.join(format!("basket-{}", std::process::id()));
    let mut content: Vec<u8> = (0..BYTES).map(|n| (n * 7) as u8).collect();
    let mut once = move |round: u64| -> io::Result<u64> {
        content[17] = round as u8;
        File::create_new(&path)?.write_all(&content)?;
        let mut read = [0; BYTES];
        File::open(&path)?.read_exact(&mut read)?;
        fs::remove_file(&path)?;
        assert!(read[..] == content[..], "a file is not as it was written");
        Ok(mix(u64::from(read[17]), u64::from(read[BYTES - 1])))
    };
    once(0)?;
    Ok(Some(Box::new(move |rounds| {
        (0..rounds).fold(0, |sum, round| mix(sum, once(round).unwrap_or(u64::MAX)))
    })))
}
