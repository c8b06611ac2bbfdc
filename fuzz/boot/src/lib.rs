//! What the fuzz targets share: an image, loaded into a small guest's memory.

use std::cell::LazyCell;
use std::io::Cursor;
use std::sync::Arc;

use boot::layout::Layout;
use boot::{Image, Images, Module};
use guest_memory::{GuestMemory, RamOffset};

const RAM_BYTES: u64 = 4 << 20;

thread_local! {
    /// One memory for all inputs: what was there before is as good as anything.
    static MEMORY: LazyCell<(Layout, Arc<GuestMemory>)> = const { LazyCell::new(|| {
        let layout = Layout::new(RAM_BYTES).unwrap();
        let memory = GuestMemory::new(&[("ram", RAM_BYTES)]).unwrap();
        memory.set_view(layout.view(RamOffset(0)));
        (layout, memory)
    }) };
}

/// Loads `kernel` with an initrd and a module. That it is refused is as good as that it is loaded.
pub fn load(kernel: Vec<u8>) {
    let image = |name: &str, bytes| Image::new(name, Cursor::new(bytes));
    let mut images = Images {
        kernel: image("kernel", kernel),
        initrd: Some(image("initrd", vec![0x5a; 5000])),
        cmdline: "console=ttyS0".into(),
        modules: vec![Module { image: image("module", vec![0xa5; 5000]), args: "a b".into() }],
    };
    MEMORY.with(|machine| {
        let _ = boot::load(&machine.1.dma(), &machine.0, &mut images);
        // Kernels that take no modules, or no initrd, are refused with them.
        images.modules.clear();
        let _ = boot::load(&machine.1.dma(), &machine.0, &mut images);
        images.initrd = None;
        let _ = boot::load(&machine.1.dma(), &machine.0, &mut images);
    });
}

/// `data`, with `bytes` in their place at `at`.
pub fn with(data: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = data.to_vec();
    image.resize(image.len().max(at + bytes.len()), 0);
    image[at..at + bytes.len()].copy_from_slice(bytes);
    image
}
