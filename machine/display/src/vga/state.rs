//! The adapter's registers, and their saved form. Video memory is saved with guest memory.

use bus::{Saved, SectionError, saved_form};

use super::dispi::Dispi;
use super::spec::*;

/// What changes while the guest runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub misc: u8,
    pub feature: u8,
    pub sequencer_index: u8,
    pub sequencer: [u8; 5],
    pub graphics_index: u8,
    pub graphics: [u8; 9],
    pub crtc_index: u8,
    pub crtc: [u8; CRTC_COUNT],
    /// With [`ATTRIBUTE_SHOW`].
    pub attribute_index: u8,
    pub attribute: [u8; ATTRIBUTE_COUNT],
    /// The next write to the attribute controller is data.
    pub attribute_data: bool,
    /// Red, green and blue of 256 colours.
    pub dac: Box<[[u8; 3]; 256]>,
    pub dac_mask: u8,
    pub dac_read_index: u8,
    pub dac_write_index: u8,
    /// 0 to 2: which component is next.
    pub dac_component: u8,
    /// The DAC was last set to be read.
    pub dac_reading: bool,
    /// The four planes as last read.
    pub latch: u32,
    pub dispi: Dispi,
}

impl Default for State {
    fn default() -> Self {
        let mut attribute = [0; ATTRIBUTE_COUNT];
        // The VGA does not say what it has at power-up; GRUB's image for QEMU wants all planes.
        attribute[ATTRIBUTE_PLANES] = 0xf;
        Self {
            misc: 0,
            feature: 0,
            sequencer_index: 0,
            sequencer: [0; 5],
            graphics_index: 0,
            graphics: [0; 9],
            crtc_index: 0,
            crtc: [0; CRTC_COUNT],
            attribute_index: 0,
            attribute,
            attribute_data: false,
            dac: Box::new([[0; 3]; 256]),
            dac_mask: 0xff,
            dac_read_index: 0,
            dac_write_index: 0,
            dac_component: 0,
            dac_reading: false,
            latch: 0,
            dispi: Dispi::at_reset(),
        }
    }
}

saved_form! {
    /// Version 1.
    pub(super) struct SavedVga: State {
        #[n(0)] misc: u8;
        #[n(1)] feature: u8;
        #[n(2)] sequencer_index: u8;
        #[cbor(n(3), with = "minicbor::bytes")] sequencer: Vec<u8>,
            saved sequencer.into(), loaded bytes("sequencer", sequencer)?;
        #[n(4)] graphics_index: u8;
        #[cbor(n(5), with = "minicbor::bytes")] graphics: Vec<u8>,
            saved graphics.into(), loaded bytes("graphics controller", graphics)?;
        #[n(6)] crtc_index: u8;
        #[cbor(n(7), with = "minicbor::bytes")] crtc: Vec<u8>,
            saved crtc.into(), loaded bytes("CRTC", crtc)?;
        #[n(8)] attribute_index: u8, loaded attribute_index & 0x3f;
        #[cbor(n(9), with = "minicbor::bytes")] attribute: Vec<u8>,
            saved attribute.into(), loaded bytes("attribute controller", attribute)?;
        #[n(10)] attribute_data: bool;
        #[cbor(n(11), with = "minicbor::bytes")] dac: Vec<u8>,
            saved dac.concat(), loaded colors(dac)?;
        #[n(12)] dac_mask: u8;
        #[n(13)] dac_read_index: u8;
        #[n(14)] dac_write_index: u8;
        #[n(15)] dac_component: u8, loaded dac_component % 3;
        #[n(16)] dac_reading: bool;
        #[n(17)] latch: u32;
        #[n(18)] dispi: SavedDispi, saved SavedDispi::from(&dispi), loaded dispi.try_into()?;
    }
}

impl Saved for SavedVga {
    const KIND: &'static str = "vga";
    const VERSION: u16 = 1;
}

saved_form! {
    struct SavedDispi: Dispi {
        #[n(0)] index: u16;
        #[n(1)] id: u16;
        #[n(2)] xres: u16;
        #[n(3)] yres: u16;
        #[n(4)] bpp: u16;
        #[n(5)] enable: u16;
        #[n(6)] bank: u16;
        #[n(7)] virt_width: u16;
        #[n(8)] x_offset: u16;
        #[n(9)] y_offset: u16;
    }
}

fn impossible(what: &str, len: usize) -> SectionError {
    let reason = format!("{len} bytes in the {what}");
    SectionError::Impossible { kind: SavedVga::KIND, reason }
}

fn bytes<const N: usize>(what: &str, bytes: Vec<u8>) -> Result<[u8; N], SectionError> {
    <[u8; N]>::try_from(bytes).map_err(|bytes| impossible(what, bytes.len()))
}

fn colors(bytes: Vec<u8>) -> Result<Box<[[u8; 3]; 256]>, SectionError> {
    let (colors, rest) = bytes.as_chunks::<3>();
    let exact = <[[u8; 3]; 256]>::try_from(colors).ok().filter(|_| rest.is_empty());
    exact.map(Box::new).ok_or_else(|| impossible("DAC", bytes.len()))
}
