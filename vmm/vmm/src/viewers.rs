//! Letting viewers in.

use std::fs;
use std::sync::Arc;

use rfb::{Listening, Server};

use crate::{Desk, ViewerSpec, VmError};

/// What viewers see as the name of the VM.
const NAME: &str = "Trine";

/// Listens at all places of `specs`.
pub(crate) fn open(specs: &[ViewerSpec], desk: &Arc<Desk>) -> Result<Vec<Server>, VmError> {
    let open_one = |spec: &ViewerSpec| {
        let password = spec.password_file.as_ref().map(|path| {
            let text = fs::read_to_string(path).map_err(|source| VmError::File {
                what: "password file",
                path: path.clone(),
                source,
            })?;
            let first = text.lines().next().unwrap_or_default().to_owned();
            if first.is_empty() { Err(VmError::NoPassword(path.clone())) } else { Ok(first) }
        });
        let listening = Listening { place: spec.place.clone(), password: password.transpose()? };
        Ok(Server::start(NAME, &listening, desk.clone())?)
    };
    specs.iter().map(open_one).collect()
}
