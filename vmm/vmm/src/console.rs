//! A console of the guest's: what it prints, and what is typed into it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use chipset::ByteSink;
use evloop::Event;

use crate::{ConsoleSpec, Output, VmError};

/// Types bytes into a device, and says how many it took.
type Typing = Box<dyn Fn(&[u8]) -> usize + Send + Sync>;

/// The host's end of a console.
pub struct Console {
    output: Option<Arc<Output>>,
    room: Arc<Event>,
    typing: Option<Typing>,
    is_stdio: bool,
}

impl Console {
    /// A console that goes where `spec` says, without a device yet.
    pub(crate) fn new(spec: &ConsoleSpec) -> Result<Self, VmError> {
        let refused = |operation| move |source| VmError::Host { operation, source };
        let output = match spec {
            ConsoleSpec::None => None,
            ConsoleSpec::Stdio => {
                let stdout = io::stdout().as_fd().try_clone_to_owned();
                let stdout = stdout.map_err(refused("use the standard output"))?;
                Some(Output::new(File::from(stdout))?)
            }
            ConsoleSpec::File(path) => {
                let file = File::create(path).map_err(|source| VmError::File {
                    what: "console output",
                    path: path.clone(),
                    source,
                })?;
                Some(Output::new(file)?)
            }
        };
        Ok(Self {
            output: output.map(Arc::new),
            room: Arc::new(Event::new().map_err(refused("make an event"))?),
            typing: None,
            is_stdio: *spec == ConsoleSpec::Stdio,
        })
    }

    /// It belongs to the process's standard streams.
    pub fn is_stdio(&self) -> bool {
        self.is_stdio
    }

    /// Types bytes into the guest, and says how many it took. After less than all,
    /// [`Console::room`] is signalled when there is room again.
    pub fn offer(&self, bytes: &[u8]) -> usize {
        self.typing.as_ref().map_or(bytes.len(), |typing| typing(bytes))
    }

    /// See [`Console::offer`].
    pub fn room(&self) -> &Arc<Event> {
        &self.room
    }

    /// What the guest prints.
    pub fn output(&self) -> Option<&Arc<Output>> {
        self.output.as_ref()
    }

    /// Connects the device that takes what is typed.
    pub(crate) fn set_typing(&mut self, typing: impl Fn(&[u8]) -> usize + Send + Sync + 'static) {
        self.typing = Some(Box::new(typing));
    }

    /// The UART's end of the output.
    pub(crate) fn sink(&self) -> Arc<dyn ByteSink> {
        Arc::new(Sink(self.output.clone()))
    }
}

struct Sink(Option<Arc<Output>>);

impl ByteSink for Sink {
    fn put(&self, byte: u8) {
        if let Some(output) = &self.0 {
            output.put(&[byte]);
        }
    }
}
