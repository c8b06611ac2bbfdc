//! The XSAVE image: x87, SSE and whatever further components a profile has.

/// Bytes of the legacy (FXSAVE) region.
pub const XSAVE_LEGACY_SIZE: usize = 512;
/// Offset of the 64-byte XSAVE header.
pub const XSAVE_HEADER_OFFSET: usize = 512;
/// XCR0 bit of x87.
pub const XSAVE_X87: u64 = 1 << 0;
/// XCR0 bit of SSE.
pub const XSAVE_SSE: u64 = 1 << 1;
/// XCR0 bit of AVX.
pub const XSAVE_AVX: u64 = 1 << 2;

/// An image in the standard (non-compacted) format of SDM vol. 1, 13.4.
///
/// As long as the profile's components need; 576 bytes for x87 and SSE. Canonical: XSTATE_BV has
/// the x87 and SSE bits set always (so their bytes count), XCOMP_BV is zero, MXCSR_MASK is
/// 0xffff, reserved bytes are zero, FIP and FDP are 64-bit with FCS and FDS dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct XsaveImage(Box<[u8]>);

impl XsaveImage {
    /// Initial state, in an image of `size` bytes.
    ///
    /// # Panics
    /// When `size` is smaller than legacy region and header together.
    pub fn initial(size: usize) -> Self {
        assert!(size >= XSAVE_HEADER_OFFSET + 64, "an XSAVE image has a header");
        let mut bytes = vec![0; size].into_boxed_slice();
        bytes[0..2].copy_from_slice(&crate::bits::FCW_INIT.to_le_bytes());
        bytes[24..28].copy_from_slice(&crate::bits::MXCSR_RESET.to_le_bytes());
        bytes[28..32].copy_from_slice(&crate::bits::MXCSR_MASK.to_le_bytes());
        bytes[XSAVE_HEADER_OFFSET] = (XSAVE_X87 | XSAVE_SSE) as u8;
        Self(bytes)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, to be changed. The caller keeps the image canonical.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl std::fmt::Debug for XsaveImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let used = self.0.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
        write!(f, "XsaveImage({} bytes: {:02x?})", self.0.len(), &self.0[..used])
    }
}
