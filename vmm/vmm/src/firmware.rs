//! Firmware: where a host has it, and what may be given instead.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use board::{BootKind, FirmwareSpec, VariableStore, Variables};
use boot::{DirectBoot, Images};

use crate::{ConsoleSpec, VmError, VmSpec};

/// What a VM starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirmwareSource {
    /// `SeaBIOS`, as the host's distribution has it.
    Bios,
    /// OVMF, as the host's distribution has it.
    Uefi,
    /// This image.
    File(PathBuf),
}

/// Where distributions have `SeaBIOS`.
const BIOS: [&str; 2] = ["/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin"];
/// Where distributions have the VGA BIOS.
const VGA_ROM: [&str; 2] =
    ["/usr/share/seabios/vgabios-stdvga.bin", "/usr/share/qemu/vgabios-stdvga.bin"];
/// Where distributions have OVMF, and the variables of a new machine. Images that need system
/// management mode are not among them: no VM has it.
const UEFI: [(&str, &str); 4] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
];

const PAGE_SIZE: usize = 4096;
const IMAGE_SIZE_MIN: usize = 64 << 10;
/// Where a CPU begins: so far from the image's end.
const RESET_VECTOR_SIZE: usize = 16;
/// Header of a firmware volume (UEFI PI 1.8, volume 3, 3.2.1): the kind of its file system, its
/// length, and its signature; and the kind that variables are in.
const VOLUME_KIND: std::ops::Range<usize> = 16..32;
const VOLUME_LENGTH: std::ops::Range<usize> = 32..40;
const VOLUME_SIGNATURE: std::ops::Range<usize> = 40..44;
const VARIABLES_KIND: [u8; 16] = [
    0x8d, 0x2b, 0xf1, 0xff, 0x96, 0x76, 0x8b, 0x4c, 0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50,
];
/// The first serial port, for firmware that has no screen.
const COM1: u16 = 0x3f8;

/// Why firmware cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareError {
    /// The host's distribution has it, but the host has not.
    #[error(
        "{firmware} is not on this host: install the package '{package}', or name an image by --firmware FILE"
    )]
    Missing {
        /// Its name.
        firmware: &'static str,
        /// Debian's package.
        package: &'static str,
    },
    /// No image has such a size.
    #[error(
        "{} has {size_bytes} bytes, but firmware has 64 KiB to 8 MiB in whole pages of 4 KiB: it is \
         truncated, or no firmware", path.display()
    )]
    Size {
        /// The image.
        path: PathBuf,
        /// Its size.
        size_bytes: usize,
    },
    /// It holds nothing where a CPU begins.
    #[error("{} has no code at its end, where a CPU begins: it is no PC firmware", path.display())]
    NoResetVector {
        /// The image.
        path: PathBuf,
    },
    /// Not a variable store.
    #[error(
        "{} is no store of UEFI variables: give a copy of the file that belongs to the firmware, such as \
         OVMF_VARS_4M.fd, or a name where none is yet", path.display()
    )]
    NoVariables {
        /// The file.
        path: PathBuf,
    },
    /// A store of another firmware.
    #[error(
        "{} has {size_bytes} bytes, but this firmware's store of variables has {expected_bytes}: it is \
         truncated, or another firmware's", path.display()
    )]
    VariablesSize {
        /// The file.
        path: PathBuf,
        /// Its size.
        size_bytes: usize,
        /// What it must be.
        expected_bytes: usize,
    },
    /// Another VM has it.
    #[error("{} is in use: another VM keeps its variables there", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be made.
    #[error("cannot make {}: {source}", path.display())]
    Make {
        /// The file.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// Variables without a store.
    #[error("--uefi-vars goes with --firmware uefi, or with the image of such firmware")]
    NotUefi,
    /// Only UEFI starts kernels.
    #[error(
        "only UEFI firmware starts kernels: say --firmware uefi, or leave out --kernel or --firmware"
    )]
    KernelWithoutUefi,
    /// Neither firmware nor kernel, nor anything to boot from.
    #[error("there is nothing to boot: give --disk, --kernel or --firmware")]
    Nothing,
}

/// What a VM starts from: firmware where it is asked for, and where there is no kernel.
pub(crate) fn open(
    spec: &VmSpec,
    kernel: Option<&mut Images<File>>,
) -> Result<Option<FirmwareSpec>, VmError> {
    let source = match &spec.firmware {
        Some(source) => source.clone(),
        None if spec.uefi_vars.is_some() => FirmwareSource::Uefi,
        None if kernel.is_some() => return Ok(None),
        None if spec.disks.is_empty() && spec.cdroms.is_empty() && spec.nets.is_empty() => {
            return Err(FirmwareError::Nothing.into());
        }
        None => FirmwareSource::Bios,
    };
    let (path, template) = find(&source)?;
    let image = read_image(&path)?;
    let variables = match (&spec.uefi_vars, template) {
        (Some(_), _) if source == FirmwareSource::Bios => return Err(FirmwareError::NotUefi.into()),
        (Some(kept), template) => Some(keep(kept, template.as_deref())?),
        (None, Some(template)) => {
            Some(Variables { bytes: read_variables(&template)?, store: Arc::new(Forgotten) })
        }
        (None, None) => None,
    };
    let kernel = match kernel {
        Some(_) if variables.is_none() => return Err(FirmwareError::KernelWithoutUefi.into()),
        Some(images) => Some(DirectBoot::read(images).map_err(board::StartError::Boot)?),
        None => None,
    };
    check_size(&path, image.len() + variables.as_ref().map_or(0, |v| v.bytes.len()))?;
    let has_serial = spec.serial != ConsoleSpec::None && !spec.display;
    let serial_console = has_serial.then_some(COM1);
    let boot_order = spec.boot_order.clone();
    Ok(Some(FirmwareSpec { image, variables, boot_order, kernel, serial_console }))
}

/// The image, and the variables of a new machine.
fn find(source: &FirmwareSource) -> Result<(PathBuf, Option<PathBuf>), FirmwareError> {
    let missing = |firmware, package| FirmwareError::Missing { firmware, package };
    match source {
        FirmwareSource::File(path) => Ok((path.clone(), None)),
        FirmwareSource::Bios => {
            let found = BIOS.map(PathBuf::from).into_iter().find(|path| path.is_file());
            found.map(|path| (path, None)).ok_or_else(|| missing("SeaBIOS", "seabios"))
        }
        FirmwareSource::Uefi => {
            let pairs = UEFI.map(|(code, vars)| (PathBuf::from(code), PathBuf::from(vars)));
            let found = pairs.into_iter().find(|(code, vars)| code.is_file() && vars.is_file());
            found.map(|(code, vars)| (code, Some(vars))).ok_or_else(|| missing("OVMF", "ovmf"))
        }
    }
}

/// The display's option ROM, where the host has it. UEFI firmware needs none.
pub(crate) fn vga_rom() -> Option<Vec<u8>> {
    VGA_ROM.iter().find_map(|path| fs::read(path).ok())
}

fn check_size(path: &Path, size_bytes: usize) -> Result<(), FirmwareError> {
    let fits = (IMAGE_SIZE_MIN..=FirmwareSpec::SIZE_MAX).contains(&size_bytes);
    if fits && size_bytes.is_multiple_of(PAGE_SIZE) {
        return Ok(());
    }
    Err(FirmwareError::Size { path: path.to_owned(), size_bytes })
}

/// Bytes of a file that is looked at before it is opened: a FIFO would wait for a writer.
fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, VmError> {
    let failed = |source| VmError::File { what, path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(VmError::NotAFile { what, path: path.to_owned() });
    }
    let size_bytes = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    if size_bytes > FirmwareSpec::SIZE_MAX {
        return Err(FirmwareError::Size { path: path.to_owned(), size_bytes }.into());
    }
    fs::read(path).map_err(failed)
}

fn read_image(path: &Path) -> Result<Vec<u8>, VmError> {
    let image = read("firmware", path)?;
    check_size(path, image.len())?;
    let vector = &image[image.len() - RESET_VECTOR_SIZE..];
    if vector.iter().all(|byte| *byte == vector[0]) {
        return Err(FirmwareError::NoResetVector { path: path.to_owned() }.into());
    }
    Ok(image)
}

fn read_variables(path: &Path) -> Result<Vec<u8>, VmError> {
    let bytes = read("UEFI variables", path)?;
    let is_store = bytes.get(VOLUME_KIND) == Some(&VARIABLES_KIND)
        && bytes.get(VOLUME_SIGNATURE) == Some(b"_FVH");
    if !is_store {
        return Err(FirmwareError::NoVariables { path: path.to_owned() }.into());
    }
    let mut length = [0; 8];
    length.copy_from_slice(&bytes[VOLUME_LENGTH]);
    let expected_bytes = usize::try_from(u64::from_le_bytes(length)).unwrap_or(usize::MAX);
    if bytes.len() < expected_bytes || !bytes.len().is_multiple_of(PAGE_SIZE) {
        let (path, size_bytes) = (path.to_owned(), bytes.len());
        return Err(FirmwareError::VariablesSize { path, size_bytes, expected_bytes }.into());
    }
    Ok(bytes)
}

/// The variables in a file, which is made where there is none.
fn keep(path: &Path, template: Option<&Path>) -> Result<Variables, VmError> {
    let expected = template.map(read_variables).transpose()?;
    if let Some(new) = expected.as_ref().filter(|_| !path.exists()) {
        make(path, new).map_err(|source| FirmwareError::Make { path: path.to_owned(), source })?;
    }
    let bytes = read_variables(path)?;
    if let Some(expected) = expected.filter(|expected| expected.len() != bytes.len()) {
        let (path, size_bytes) = (path.to_owned(), bytes.len());
        let expected_bytes = expected.len();
        return Err(FirmwareError::VariablesSize { path, size_bytes, expected_bytes }.into());
    }
    let failed = |source| VmError::File { what: "UEFI variables", path: path.to_owned(), source };
    let file = fs::OpenOptions::new().write(true).open(path).map_err(failed)?;
    if file.try_lock().is_err() {
        return Err(FirmwareError::InUse { path: path.to_owned() }.into());
    }
    Ok(Variables { bytes, store: Arc::new(Kept(file)) })
}

/// Under its name the file is there whole or not at all.
fn make(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&partial)?;
    let made = file.write_all(bytes).and_then(|()| fs::rename(&partial, path));
    if made.is_err() {
        let _ = fs::remove_file(&partial);
    }
    made
}

/// Variables that go with the VM.
struct Forgotten;

impl VariableStore for Forgotten {
    fn change(&self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// Variables in a file.
struct Kept(File);

impl VariableStore for Kept {
    fn change(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
}

/// What to boot from, as an operator says it: `cdrom,disk`, or QEMU's letters, `dc`.
///
/// # Errors
/// When it is neither.
pub fn boot_order(text: &str) -> Result<Vec<BootKind>, String> {
    let word = |word: &str| match word {
        "disk" => Some(BootKind::Disk),
        "cdrom" => Some(BootKind::Cdrom),
        "net" => Some(BootKind::Net),
        _ => None,
    };
    let letter = |letter: char| match letter {
        'c' => Some(BootKind::Disk),
        'd' => Some(BootKind::Cdrom),
        'n' => Some(BootKind::Net),
        _ => None,
    };
    let order: Option<Vec<_>> = text.split(',').map(word).collect();
    let order = order.or_else(|| text.chars().map(letter).collect());
    let order = order.filter(|order| !order.is_empty());
    order.ok_or_else(|| "give disk, cdrom and net, with commas between them".to_owned())
}

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;

    fn store(size: usize) -> Vec<u8> {
        let mut bytes = vec![0xff; size];
        bytes[VOLUME_KIND].copy_from_slice(&VARIABLES_KIND);
        bytes[VOLUME_LENGTH].copy_from_slice(&(size as u64).to_le_bytes());
        bytes[VOLUME_SIGNATURE].copy_from_slice(b"_FVH");
        bytes
    }

    #[test]
    fn images_that_cannot_be_firmware_are_refused() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("image");
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read_image(&path).map(|image| image.len()).map_err(|error| error.to_string())
        };
        for size in [0, 100, 0x8000, 0x1_0001, (8 << 20) + 4096] {
            assert!(refused(&vec![1; size]).unwrap_err().contains("64 KiB to 8 MiB"), "{size}");
        }
        for byte in [0, 0xff] {
            assert!(refused(&[byte; 0x2_0000]).unwrap_err().contains("no code at its end"));
        }
        let mut image = vec![0; 0x2_0000];
        image[0x1_fff0] = 0xea;
        assert_eq!(refused(&image), Ok(0x2_0000));
        assert!(matches!(read_image(dir.path()), Err(VmError::NotAFile { .. })));
    }

    #[test]
    fn variables_are_made_from_the_template_kept_and_locked() {
        let dir = tempdir().unwrap();
        let (template, path) = (dir.path().join("template"), dir.path().join("vars"));
        fs::write(&template, store(0x4000)).unwrap();
        let first = keep(&path, Some(&template)).unwrap();
        assert_eq!(first.bytes, store(0x4000));
        first.store.change(0x1000, b"hello").unwrap();
        assert!(keep(&path, Some(&template)).err().unwrap().to_string().contains("in use"));
        drop(first);
        let second = keep(&path, Some(&template)).unwrap();
        assert_eq!(second.bytes[0x1000..0x1005], *b"hello");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn files_that_are_no_variables_or_anothers_are_refused() {
        let dir = tempdir().unwrap();
        let (template, path) = (dir.path().join("template"), dir.path().join("vars"));
        fs::write(&template, store(0x4000)).unwrap();
        for (bytes, expected) in [
            (vec![0; 0x4000], "no store of UEFI variables"),
            (b"short".to_vec(), "no store of UEFI variables"),
            (store(0x4000)[..0x3000].to_vec(), "truncated"),
            (store(0x8000), "another firmware's"),
        ] {
            fs::write(&path, bytes).unwrap();
            let error = keep(&path, Some(&template)).err().unwrap().to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        }
        let nowhere = dir.path().join("no/vars");
        assert!(keep(&nowhere, Some(&template)).err().unwrap().to_string().contains("cannot make"));
        assert!(matches!(keep(&nowhere, None), Err(VmError::File { .. })));
    }

    #[test]
    fn an_order_is_words_or_letters() {
        use BootKind::{Cdrom, Disk, Net};
        assert_eq!(boot_order("cdrom,disk"), Ok(vec![Cdrom, Disk]));
        assert_eq!(boot_order("net"), Ok(vec![Net]));
        assert_eq!(boot_order("dcn"), Ok(vec![Cdrom, Disk, Net]));
        for bad in ["", "floppy", "disk,", "a", "disk cdrom"] {
            assert!(boot_order(bad).is_err(), "{bad}");
        }
    }
}
