//! A screen that is on when a system is entered, as firmware would leave one.
//!
//! Linux `include/uapi/linux/screen_info.h` and `zero-page.rst`.

use crate::entry::Entry;
use crate::guest::{Blob, Guest};

/// `orig_video_isVGA`: a linear frame buffer.
const VIDEO_TYPE_VLFB: u8 = 0x23;
const COLUMNS: usize = 0x07;
const ROWS: usize = 0x0e;
const IS_VGA: usize = 0x0f;
const CHARACTER_HEIGHT: usize = 0x10;
const WIDTH: usize = 0x12;
const HEIGHT: usize = 0x14;
const DEPTH: usize = 0x16;
const BASE: usize = 0x18;
/// In units of 64 KiB.
const SIZE: usize = 0x1c;
const LINE_LENGTH: usize = 0x24;
/// Bits and position of red, green, blue and the rest.
const COLORS: usize = 0x26;
const PAGES: usize = 0x32;
const SCREEN_INFO_SIZE: usize = 0x40;
const XRGB8888: [u8; 8] = [8, 16, 8, 8, 8, 0, 8, 24];

/// A linear frame buffer with 32 bits a pixel: red, green and blue from bit 16, 8 and 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Screen {
    /// Where it is.
    pub gpa: u32,
    /// Bytes of its memory, of which the picture is the beginning.
    pub size_bytes: u32,
    /// Pixels of a line.
    pub width: u16,
    /// Lines.
    pub height: u16,
}

/// Tells a system that was loaded of its screen. Only Linux listens.
pub(crate) fn write(guest: &Guest<'_>, entry: Entry, screen: Screen) {
    let Entry::Long { rsi, .. } = entry else { return };
    let mut info = Blob::zeroed(SCREEN_INFO_SIZE);
    info.put(COLUMNS, &[80]);
    info.put(ROWS, &[25]);
    info.put(IS_VGA, &[VIDEO_TYPE_VLFB]);
    info.put(CHARACTER_HEIGHT, &[16, 0]);
    info.put(WIDTH, &screen.width.to_le_bytes());
    info.put(HEIGHT, &screen.height.to_le_bytes());
    info.put(DEPTH, &[32, 0]);
    info.put32(BASE, screen.gpa);
    info.put32(SIZE, screen.size_bytes >> 16);
    info.put(LINE_LENGTH, &(screen.width * 4).to_le_bytes());
    info.put(COLORS, &XRGB8888);
    info.put(PAGES, &[1, 0]);
    guest.write(rsi, &info.0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Layout, low};
    use guest_memory::{GuestMemory, RamOffset};

    #[test]
    fn linux_finds_the_screen_in_its_zero_page() {
        let layout = Layout::new(2 << 20).unwrap();
        let memory = GuestMemory::new(&[("ram", 2 << 20)]).unwrap();
        memory.set_view(layout.view(RamOffset(0)));
        let screen = Screen { gpa: 0xc000_0000, size_bytes: 16 << 20, width: 1024, height: 768 };
        let entry = Entry::Long { rip: 0x10_0000, rsi: low::BOOT_PARAMS };
        write(&Guest::new(&memory.dma(), &layout), entry, screen);
        let mut info = [0; SCREEN_INFO_SIZE];
        memory.read(RamOffset(low::BOOT_PARAMS), &mut info);
        assert_eq!(info[IS_VGA], VIDEO_TYPE_VLFB);
        assert_eq!(info[BASE..BASE + 8], [0, 0, 0, 0xc0, 0, 1, 0, 0]);
        assert_eq!(info[LINE_LENGTH..LINE_LENGTH + 2], 4096u16.to_le_bytes());
    }
}
