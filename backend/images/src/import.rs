//! How disks come in.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::error::host;
use crate::probe::probe;
use crate::{Format, Image, ImageError, Name, Partial, Progress, Store, convert, copy, ova};

/// Where a disk comes from.
pub enum Source<'a> {
    /// A file or block device.
    Path(&'a Path),
    /// Bytes, to their end.
    Stream(&'a mut dyn Read),
}

/// Brings a disk in. Its format is told by its bytes, or is the one given.
///
/// # Errors
/// When it is no disk that stands for itself, a converter is missing, the name is taken and is not
/// to be replaced, or the host refuses. Nothing is left behind then.
pub fn import(
    store: &Store,
    source: Source<'_>,
    name: &Name,
    format: Option<Format>,
    replace: bool,
    progress: Progress<'_>,
) -> Result<Image, ImageError> {
    if !replace && store.find(name).is_ok() {
        return Err(ImageError::Exists(name.to_string()));
    }
    let (disk, format, what) = match source {
        Source::Path(path) => {
            let what = path.display().to_string();
            let file = open(path)?;
            let format = probe(&file, &what, format)?;
            (raw(store, &file, &what, format, progress)?, format, what)
        }
        Source::Stream(stream) => {
            let spool = store.partial()?;
            copy::stream(stream, spool.file(), progress).map_err(host("write", spool.path()))?;
            let what = "the standard input".to_owned();
            match probe(spool.file(), &what, format)? {
                Format::Raw => (spool, Format::Raw, what),
                format => (raw(store, spool.file(), &what, format, progress)?, format, what),
            }
        }
    };
    disk.commit(name, &format!("{format} from {what}"), replace, progress)
}

/// A raw copy of a disk.
fn raw<'a>(
    store: &'a Store,
    from: &File,
    what: &str,
    format: Format,
    progress: Progress<'_>,
) -> Result<Partial<'a>, ImageError> {
    let to = store.partial()?;
    match format {
        Format::Raw if from.metadata().is_ok_and(|file| file.is_file()) => {
            copy::disk(from, to.file(), progress).map_err(host("copy to", to.path()))?;
        }
        // A block device has neither holes nor a length in its metadata.
        Format::Raw => {
            copy::stream(from, to.file(), progress).map_err(host("copy to", to.path()))?;
        }
        Format::Ova => {
            let disk = store.partial()?;
            ova::disk(from, what, disk.file(), progress)?;
            let what = format!("the disk in {what}");
            return match probe(disk.file(), &what, None)? {
                Format::Raw => Ok(disk),
                Format::Ova => Err(ImageError::Unfit { what, how: "an archive again" }),
                format => raw(store, disk.file(), &what, format, progress),
            };
        }
        format => convert::to_raw(from, what, format, to.path(), progress)?,
    }
    Ok(to)
}

fn open(path: &Path) -> Result<File, ImageError> {
    // Without NONBLOCK, opening a pipe would wait for its other end for ever.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    let file: File = opened.map_err(|error| host("open", path)(error.into()))?.into();
    let kind = file.metadata().map_err(host("open", path))?.file_type();
    let is_block = std::os::unix::fs::FileTypeExt::is_block_device(&kind);
    if kind.is_file() || is_block {
        return Ok(file);
    }
    let what = path.display().to_string();
    Err(ImageError::Unfit { what, how: "neither a file nor a block device; for a pipe, give '-'" })
}
