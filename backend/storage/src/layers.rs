//! Layers of qcow2 disks as things of their own: made empty, and merged.

use std::cmp::min;
use std::fs::File;
use std::io;
use std::path::Path;

use imago::file::File as ImagoFile;
use imago::format::builder::FormatCreateBuilder;
use imago::format::drivers::ShallowMapping;
use imago::qcow2::Qcow2;

use crate::open::Files;
use crate::qcow2::{Access, Layer, storage};
use crate::{DiskOptions, Format, OpenError};

/// What a header says that its layer stands on. Nobody goes by it: who opens a disk names all of its files.
const BELOW: &str = "the layer below";
/// As the library makes them.
const CLUSTER: u64 = 64 << 10;

/// Makes an empty layer: of a disk of zeroes, or, over something, of one that is like that. The file is made, and on
/// the medium when this returns.
///
/// # Errors
/// When there is such a file, or the host refuses.
pub fn create_layer(path: &Path, size_bytes: u64, over: Option<Format>) -> io::Result<()> {
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    let synced = file.try_clone()?;
    let file = storage(file, path, true, false)?;
    let mut builder = Qcow2::<ImagoFile>::create_builder(file).size(size_bytes);
    if let Some(format) = over {
        let format = match format {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
        };
        builder = builder.backing(BELOW.to_owned(), format.to_owned());
    }
    builder.create()?;
    synced.sync_all()
}

/// Writes into a new file what the disk's first layer and the one below it have together. That file can stand in
/// the place of both. `progress` is told the bytes done, and can end it by saying no.
///
/// # Errors
/// When a layer is not what it must be or is being written, or the host refuses.
pub fn merge_layers(
    disk: &DiskOptions,
    to: &Path,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<(), OpenError> {
    let options = DiskOptions { read_only: true, ..disk.clone() };
    let top = options.chain(false, &Files::HOST, None)?.open(&disk.path, false, false);
    let failed = |source| OpenError::Host { path: to.to_owned(), source };
    let top = top.map_err(|source| OpenError::Host { path: disk.path.clone(), source })?;
    // What is below both, if anything is.
    let over = disk.backing.get(1).map(|(_, format)| format.unwrap_or(Format::Qcow2));
    create_layer(to, top.size(), over).map_err(failed)?;
    let mut merge = || {
        let file = File::options().read(true).write(true).open(to)?;
        let merged = Layer::Qcow2(file, None).open(to, true, false)?;
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        while at < top.size() {
            let (found, size) = content(&top, at, top.size() - at)?;
            // Never stand still, whatever a damaged layer says.
            let end = min(at + size.max(1), top.size()).next_multiple_of(CLUSTER).min(top.size());
            match found {
                Content::Below => {}
                Content::Zeroes => merged.write_zeroes(at, end - at)?,
                Content::Data => copy(&top, &merged, at, end, &mut buffer)?,
            }
            at = end;
            if !progress(at) {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        merged.flush()?;
        merged.sync()
    };
    merge().map_err(failed)
}

/// What two layers have at a place.
enum Content {
    Below,
    Zeroes,
    Data,
}

fn content(top: &Access, at: u64, size: u64) -> io::Result<(Content, u64)> {
    let (mut layer, mut at, mut size) = (top, at, size);
    for is_last in [false, true] {
        let (mapping, found) = layer.get_shallow_mapping(at, size)?;
        let content = match mapping {
            ShallowMapping::Indirect { layer: below, offset, .. } if !is_last => {
                (layer, at, size) = (below, offset, found);
                continue;
            }
            ShallowMapping::Indirect { .. } | ShallowMapping::Zero { explicit: false, .. } => {
                Content::Below
            }
            ShallowMapping::Zero { .. } => Content::Zeroes,
            ShallowMapping::Eof { .. } => return Ok((Content::Below, size)),
            _ => Content::Data,
        };
        return Ok((content, found));
    }
    Ok((Content::Below, size))
}

fn copy(from: &Access, to: &Access, at: u64, end: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut at = at;
    while at < end {
        let part = min(end - at, buffer.len() as u64) as usize;
        from.read(&mut buffer[..part], at)?;
        to.write(&buffer[..part], at)?;
        at += part as u64;
    }
    Ok(())
}
