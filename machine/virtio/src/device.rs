//! What a virtio device is, apart from rings and transport.

use bus::{Section, SectionError};

use crate::{Chain, Handle};

/// Device types (5), those that exist here and those whose place is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum DeviceType {
    /// Network card.
    Net = 1,
    /// Disk.
    Block = 2,
    /// Console.
    Console = 3,
    /// Entropy source.
    Entropy = 4,
    /// Memory balloon.
    Balloon = 5,
    /// Keyboard or pointer.
    Input = 18,
    /// Socket.
    Vsock = 19,
}

impl DeviceType {
    /// PCI class code, so that lspci and drivers by class make sense of it.
    pub(crate) const fn pci_class(self) -> u32 {
        match self {
            Self::Net => 0x02_0000,
            Self::Block => 0x01_8000,
            Self::Console => 0x07_8000,
            Self::Input => 0x09_8000,
            Self::Entropy | Self::Balloon | Self::Vsock => 0x00_ff00,
        }
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is done; so many bytes were written to the front of its writable part.
    Done(u32),
    /// It cannot be served yet and stays first in its queue. The device will call
    /// [`Handle::kick`] when it can.
    Wait,
    /// It was taken, and the device will call [`Handle::complete`] when it is done.
    Pending,
    /// It is too small alone: it shall come again as one with the request after it. While there is
    /// none it stays first in its queue.
    More,
    /// It stays first in its queue and comes again soon, after others of the thread had their turn.
    Again,
}

/// The driver has broken a rule that leaves no sensible answer: the device needs a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the driver {0}")]
pub struct Broken(pub &'static str);

/// A virtio device.
///
/// Calls may come from any thread; [`VirtioDevice::handle`] comes for one queue at a time, but
/// for several queues at once. None may wait for the guest.
pub trait VirtioDevice: Send + Sync {
    /// Which type.
    fn device_type(&self) -> DeviceType;

    /// The device's own feature bits. The transport adds its own.
    fn features(&self) -> u64;

    /// The greatest size of each queue; powers of two.
    fn queue_sizes(&self) -> &[u16];

    /// Reads device configuration. `data` is zeroes on entry; what is not there stays so.
    fn config_read(&self, offset: u64, data: &mut [u8]);

    /// Writes device configuration.
    fn config_write(&self, _offset: u64, _data: &[u8]) {}

    /// Gives the device the way to its queues, once, before all else.
    fn attach(&self, _handle: Handle) {}

    /// The driver is ready and has accepted these features.
    fn start(&self, features: u64);

    /// Serves one request of `queue`.
    ///
    /// # Errors
    /// When there is no way to answer it.
    fn handle(&self, queue: usize, chain: &Chain<'_>) -> Result<Outcome, Broken>;

    /// Requests of `queue` are over so soon that a vCPU may serve them itself, instead of waking a thread.
    fn is_prompt(&self, _queue: usize) -> bool {
        false
    }

    /// Requests were taken for later: those of `queue` may begin. Called without locks, after each
    /// round.
    fn submit(&self, _queue: usize) {}

    /// Waits until no request of `queue` is pending. No more come meanwhile.
    fn drain(&self, _queue: usize) {}

    /// Back to the state after power-up. No request is being served.
    fn reset(&self);

    /// The state. No request is being served.
    fn save(&self) -> Section;

    /// Puts saved state into a built device.
    ///
    /// # Errors
    /// When the section is not such a device's, or says what cannot be. The device is then as it
    /// was.
    fn restore(&self, section: &Section) -> Result<(), SectionError>;
}
