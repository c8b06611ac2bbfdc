//! Socket device (5.10).

/// Queues.
pub(super) const RECEIVE: usize = 0;
pub(super) const TRANSMIT: usize = 1;
#[cfg(test)]
pub(super) const EVENT: usize = 2;

/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`, all there is of `struct virtio_vsock_event`.
pub(super) const TRANSPORT_RESET: u32 = 0;
