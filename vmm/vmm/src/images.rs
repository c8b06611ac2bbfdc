//! What the guest starts from: files, opened once and loaded at every start.

use std::fs::File;
use std::panic::resume_unwind;
use std::path::Path;
use std::thread::{self, JoinHandle};

use board::StartError;
use boot::{BootError, Image, Images, Module};

use crate::{VmError, VmSpec};

/// Opens the images of `spec`, if it has a kernel.
///
/// # Errors
/// When one is not there or is no file.
pub(crate) fn open(spec: &VmSpec) -> Result<Option<Images<File>>, VmError> {
    let Some(kernel) = &spec.kernel else { return Ok(None) };
    let initrd = spec.initrd.as_deref().map(|path| image("initrd", path)).transpose()?;
    let module = |spec: &crate::ModuleSpec| {
        Ok(Module { image: image("module", &spec.path)?, args: spec.args.clone() })
    };
    Ok(Some(Images {
        kernel: image("kernel", kernel)?,
        initrd,
        cmdline: spec.cmdline.clone(),
        modules: spec.modules.iter().map(module).collect::<Result<_, VmError>>()?,
    }))
}

/// The look through an initrd, which takes a while: beside the rest of a launch.
pub(crate) struct InitrdCheck(Option<JoinHandle<Result<(), BootError>>>);

impl InitrdCheck {
    /// Begins it.
    ///
    /// # Errors
    /// When the initrd is not there or is no file, or there can be no thread.
    pub(crate) fn begin(spec: &VmSpec) -> Result<Self, VmError> {
        let Some(path) = &spec.initrd else { return Ok(Self(None)) };
        let memory_bytes = spec.memory_bytes;
        // With a position of its own in the file.
        let mut initrd = image("initrd", path)?;
        let thread = thread::Builder::new().name("initrd".into());
        let check = thread.spawn(move || boot::check_initrd(&mut initrd, memory_bytes));
        let refused = |source| VmError::NoThread { name: "the initrd", source };
        check.map(|check| Self(Some(check))).map_err(refused)
    }

    /// Waits for it.
    ///
    /// # Errors
    /// When no guest can use the initrd.
    pub(crate) fn finish(self) -> Result<(), VmError> {
        let Some(check) = self.0 else { return Ok(()) };
        let checked = check.join().unwrap_or_else(|panic| resume_unwind(panic));
        checked.map_err(|error| VmError::Start(StartError::Boot(error)))
    }
}

fn image(what: &'static str, path: &Path) -> Result<Image<File>, VmError> {
    let failed = |source| VmError::File { what, path: path.to_owned(), source };
    // Looked at before it is opened: opening a FIFO would wait for a writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(VmError::NotAFile { what, path: path.to_owned() });
    }
    let file = File::open(path).map_err(failed)?;
    Ok(Image::new(path.display().to_string(), file))
}
