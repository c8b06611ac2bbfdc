//! Other formats, through `qemu-img`: a program of its own, so that its mistakes are not ours.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::error::host;
use crate::{Format, Image, ImageError, Progress, copy, ova};

/// Of what the converter says, so much is passed on.
const SAID_LEN_MAX: u64 = 4096;

/// Converts the disk in `from`, which is of this format, to a raw one in the file `to`.
pub(crate) fn to_raw(
    from: &File,
    what: &str,
    format: Format,
    to: &Path,
    progress: Progress<'_>,
) -> Result<(), ImageError> {
    let failed = host("convert to", to);
    ova::rewind(from).map_err(&failed)?;
    let from = from.try_clone().map_err(&failed)?;
    qemu_img(from, what, format, Format::Raw, to, progress)
}

/// Copies an image's disk into a new file.
///
/// # Errors
/// When the file is there, the format needs a converter that is not, or the host refuses.
pub fn export(
    image: &Image,
    to: &Path,
    format: Format,
    progress: Progress<'_>,
) -> Result<(), ImageError> {
    let failed = host("write", to);
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
    let made = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .tempfile_in(folder.unwrap_or(Path::new(".")));
    let partial = made.map_err(&failed)?;
    let from = File::open(&image.path).map_err(host("open", &image.path))?;
    match format {
        Format::Raw => copy::disk(&from, partial.as_file(), progress).map_err(&failed)?,
        Format::Ova => {
            let how = "not to be written as an OVA: give raw, qcow2, vmdk or vhdx";
            return Err(ImageError::Unfit { what: image.name.to_string(), how });
        }
        format => {
            let path = std::path::absolute(partial.path()).map_err(&failed)?;
            qemu_img(from, image.name.as_ref(), Format::Raw, format, &path, progress)?;
        }
    }
    partial.as_file().sync_all().map_err(&failed)?;
    partial.persist_noclobber(to).map_err(|error| failed(error.error))?;
    Ok(())
}

/// The input is its standard input: the file that was looked at, whatever a path leads to by now,
/// and no name from which it could guess protocols or other files.
fn qemu_img(
    from: File,
    what: &str,
    format: Format,
    to_format: Format,
    to: &Path,
    progress: Progress<'_>,
) -> Result<(), ImageError> {
    let other = if format == Format::Raw { to_format } else { format };
    let size_hint = from.metadata().map_or(0, |file| file.len());
    let mut command = Command::new("qemu-img");
    command
        .args(["convert", "-p", "-f", &format.to_string(), "-O", &to_format.to_string()])
        .args(if to_format == Format::Qcow2 { &["-c"][..] } else { &[] })
        .arg("/dev/stdin")
        .arg(to)
        .stdin(from)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ImageError::NoConverter { format: other });
        }
        child => child.map_err(host("run qemu-img for", to))?,
    };
    let said = child.stderr.take().map(|errors| {
        thread::spawn(move || {
            let mut said = Vec::new();
            let _ = errors.take(SAID_LEN_MAX).read_to_end(&mut said);
            String::from_utf8_lossy(&said).trim().replace('\n', "; ")
        })
    });
    if let Some(out) = child.stdout.take() {
        follow(out, size_hint, progress);
    }
    let status = child.wait().map_err(host("run qemu-img for", to))?;
    let said = said.and_then(|reader| reader.join().ok()).unwrap_or_default();
    if status.success() {
        return Ok(());
    }
    // Whatever is there is not what was asked for.
    let _ = fs::OpenOptions::new().write(true).truncate(true).open(to);
    if said.contains("No space left") {
        return Err(ImageError::Full { path: to.to_owned() });
    }
    let said = if said.is_empty() { status.to_string() } else { said };
    Err(ImageError::Converter { what: what.to_owned(), said })
}

/// It prints `(12.34/100%)` again and again.
fn follow(mut out: impl Read, size: u64, progress: Progress<'_>) {
    let mut buffer = [0; 256];
    while let Ok(count @ 1..) = out.read(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
        let percent = text.rsplit('(').next().and_then(|text| text.split('/').next());
        if let Some(percent) = percent.and_then(|percent| percent.trim().parse::<f64>().ok()) {
            progress((size as f64 * percent / 100.0) as u64, Some(size));
        }
    }
}
