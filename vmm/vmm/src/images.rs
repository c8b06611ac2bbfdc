//! What the guest starts from: files, opened once and loaded at every start.

use std::fs::File;
use std::path::Path;

use boot::{Image, Images, Module};

use crate::{VmError, VmSpec};

/// Opens the images of `spec`.
///
/// # Errors
/// When one is not there or is no file.
pub(crate) fn open(spec: &VmSpec) -> Result<Images<File>, VmError> {
    let initrd = spec.initrd.as_deref().map(|path| image("initrd", path)).transpose()?;
    let module = |spec: &crate::ModuleSpec| {
        Ok(Module { image: image("module", &spec.path)?, args: spec.args.clone() })
    };
    Ok(Images {
        kernel: image("kernel", &spec.kernel)?,
        initrd,
        cmdline: spec.cmdline.clone(),
        modules: spec.modules.iter().map(module).collect::<Result<_, VmError>>()?,
    })
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
