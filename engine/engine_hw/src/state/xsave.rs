//! The XSAVE image.

use kvm_bindings::kvm_xsave;
use x86_state::{
    XSAVE_HEADER_OFFSET, XSAVE_LEGACY_SIZE, XSAVE_SSE, XSAVE_X87, XsaveImage, bits::MXCSR_MASK,
};

/// Bytes 464 to 511 are free for software; the kernel leaves its own notes there.
const SOFTWARE: usize = 464;
/// ST0 to ST7: ten bytes in sixteen each.
const ST: usize = 32;
/// XMM0 to XMM15.
const XMM: usize = 160;
/// End of the XMM registers; what follows up to [`SOFTWARE`] is reserved.
const XMM_END: usize = 416;

/// From the kernel's image, which is in the standard format already. Canonical: components in
/// their initial state have its bytes, reserved bytes are zero, MXCSR_MASK (a constant of the
/// host's CPU) is the profile's.
pub(crate) fn image_from(xsave: &kvm_xsave, size: usize) -> XsaveImage {
    let mut image = XsaveImage::initial(size);
    let source: Vec<u8> = xsave.region.iter().flat_map(|word| word.to_le_bytes()).collect();
    let valid = source[XSAVE_HEADER_OFFSET];
    let bytes = image.bytes_mut();
    bytes[24..28].copy_from_slice(&source[24..28]); // MXCSR, which belongs to no component
    if valid & XSAVE_X87 as u8 != 0 {
        bytes[..24].copy_from_slice(&source[..24]);
        bytes[5] = 0; // the upper half of the abridged tag word is reserved
        for st in (ST..XMM).step_by(16) {
            bytes[st..st + 10].copy_from_slice(&source[st..st + 10]);
        }
    }
    if valid & XSAVE_SSE as u8 != 0 {
        bytes[XMM..XMM_END].copy_from_slice(&source[XMM..XMM_END]);
    }
    let header = XSAVE_HEADER_OFFSET;
    bytes[header] |= valid;
    bytes[header + 64..].copy_from_slice(&source[header + 64..size]);
    image
}

/// To the kernel.
pub(crate) fn image_to(image: &XsaveImage) -> kvm_xsave {
    let mut xsave = kvm_xsave::default();
    for (word, bytes) in xsave.region.iter_mut().zip(image.bytes().chunks_exact(4)) {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    debug_assert_eq!(xsave.region[7], MXCSR_MASK);
    debug_assert!(image.bytes()[SOFTWARE..XSAVE_LEGACY_SIZE].iter().all(|b| *b == 0));
    xsave
}
