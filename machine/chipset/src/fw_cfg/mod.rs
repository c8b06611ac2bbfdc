//! The firmware configuration interface (QEMU, docs/specs/fw_cfg): numbered items and named
//! files, read through a port or by DMA. No item can be written.
//!
//! *Locks*: the device's, then whatever makes an item's bytes looks at: PCI functions.

mod items;
pub mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bus::{BusDevice, Device, Section, SectionError};
use guest_memory::{DmaMemory, GuestMemory};
use vm_memory::{Bytes, GuestAddress};

use crate::lock;
use crate::ports::read_bytes;
use spec::*;
use state::{SavedFwCfg, State};

use items::Item;
pub use items::{Build, FwCfgError, FwCfgItems};
pub use spec::PORTS;

/// The device.
pub struct FwCfg {
    // Fixed configuration.
    items: BTreeMap<u16, Item>,
    // Wiring.
    memory: Arc<GuestMemory>,
    // State.
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    state: State,
    /// The selected item's bytes, when they were made for this selection.
    built: Option<Vec<u8>>,
}

/// A DMA went wrong: the guest's mistake, and its error bit.
struct DmaFailed;

impl From<vm_memory::GuestMemoryError> for DmaFailed {
    fn from(_: vm_memory::GuestMemoryError) -> Self {
        Self
    }
}

impl FwCfg {
    /// An interface to `items`, with DMA to `memory`.
    pub fn new(memory: Arc<GuestMemory>, items: FwCfgItems) -> Arc<Self> {
        Arc::new(Self { items: items.into_items(), memory, inner: Mutex::default() })
    }

    /// What is left of the selected item.
    fn rest<'a>(&'a self, inner: &'a mut Inner) -> &'a [u8] {
        let Inner { state, built } = inner;
        let item = match self.items.get(&state.selected) {
            None => &[][..],
            Some(Item::Fixed(bytes)) => bytes,
            Some(Item::Built { size_bytes, build }) => built.get_or_insert_with(|| {
                let mut bytes = build();
                bytes.resize(*size_bytes, 0);
                bytes
            }),
        };
        item.get(state.offset as usize..).unwrap_or(&[])
    }

    fn next_byte(&self, inner: &mut Inner) -> u8 {
        let byte = self.rest(inner).first().copied().unwrap_or(0);
        inner.state.offset = inner.state.offset.saturating_add(1);
        byte
    }

    /// Runs the request at `gpa`: control, length (32 bits each) and address (64), big-endian.
    /// Control is overwritten with 0, or with the error bit.
    fn dma(&self, inner: &mut Inner, gpa: u64) {
        let memory = self.memory.dma();
        let done = match self.run_request(inner, &memory, gpa) {
            Ok(()) => 0,
            Err(DmaFailed) => DMA_ERROR,
        };
        // Where even this cannot be written, nobody waits for it.
        let _ = memory.write_slice(&done.to_be_bytes(), GuestAddress(gpa));
    }

    fn run_request(
        &self,
        inner: &mut Inner,
        memory: &DmaMemory,
        gpa: u64,
    ) -> Result<(), DmaFailed> {
        let mut request = [0; 16];
        memory.read_slice(&mut request, GuestAddress(gpa))?;
        let request = u128::from_be_bytes(request);
        let (control, length, address) =
            ((request >> 96) as u32, (request >> 64) as u32, request as u64);
        if control & DMA_SELECT != 0 {
            inner.select((control >> 16) as u16);
        }
        if control & DMA_READ != 0 {
            self.read_to(inner, memory, length, address)
        } else if control & DMA_WRITE != 0 {
            Err(DmaFailed)
        } else {
            if control & DMA_SKIP != 0 {
                inner.state.offset = inner.state.offset.saturating_add(length);
            }
            Ok(())
        }
    }

    fn read_to(
        &self,
        inner: &mut Inner,
        memory: &DmaMemory,
        length: u32,
        address: u64,
    ) -> Result<(), DmaFailed> {
        let rest = self.rest(inner);
        let from_item = rest.len().min(length as usize);
        let padding = u64::from(length) - from_item as u64;
        if padding > PADDING_MAX {
            return Err(DmaFailed);
        }
        memory.write_slice(&rest[..from_item], GuestAddress(address))?;
        let end = address.checked_add(from_item as u64).ok_or(DmaFailed)?;
        memory.write_slice(&vec![0; padding as usize], GuestAddress(end))?;
        inner.state.offset = inner.state.offset.saturating_add(length);
        Ok(())
    }
}

impl Inner {
    fn select(&mut self, key: u16) {
        self.state.selected = key & !KEY_WRITE_CHANNEL;
        self.state.offset = 0;
        self.built = None;
    }

    /// Bytes that were made are made again when they are read.
    fn replace(&mut self, state: State) {
        *self = Self { state, built: None };
    }
}

impl BusDevice for FwCfg {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let inner = &mut *lock(&self.inner);
        if offset == DATA {
            data.fill_with(|| self.next_byte(inner));
            return;
        }
        read_bytes(offset, data, |at| match at.checked_sub(DMA_HIGH) {
            Some(byte) => DMA_SIGNATURE.get(byte as usize).copied().unwrap_or(0),
            None => 0,
        });
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let inner = &mut *lock(&self.inner);
        match (offset, data) {
            (SELECTOR, [low, high]) => inner.select(u16::from_le_bytes([*low, *high])),
            (DMA_HIGH, &[a, b, c, d]) => inner.state.dma_high = u32::from_be_bytes([a, b, c, d]),
            (DMA_LOW, &[a, b, c, d]) => {
                let high = u64::from(std::mem::take(&mut inner.state.dma_high));
                self.dma(inner, high << 32 | u64::from(u32::from_be_bytes([a, b, c, d])));
            }
            (DMA_HIGH, &[a, b, c, d, e, f, g, h]) => {
                inner.state.dma_high = 0;
                self.dma(inner, u64::from_be_bytes([a, b, c, d, e, f, g, h]));
            }
            _ => {}
        }
    }
}

impl Device for FwCfg {
    fn reset(&self) {
        lock(&self.inner).replace(State::default());
    }

    fn save(&self) -> Section {
        Section::encode(&SavedFwCfg::from(lock(&self.inner).state))
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        lock(&self.inner).replace(section.decode::<SavedFwCfg>()?.into());
        Ok(())
    }
}
