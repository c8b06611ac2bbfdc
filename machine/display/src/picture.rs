//! What a monitor shows.

/// The largest picture: as much as 16 MiB hold with 32 bits a pixel.
pub const PIXELS_MAX: usize = 4 << 20;

/// Pixels, from the top left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Picture {
    /// Pixels of a line.
    pub width: usize,
    /// Lines.
    pub height: usize,
    /// Red, green, blue from bit 16, 8 and 0; `width * height` of them.
    pub pixels: Vec<u32>,
}

impl Picture {
    /// Makes it this large and black, in the memory it has.
    ///
    /// # Panics
    /// When it is larger than [`PIXELS_MAX`]: modes are checked where they are set.
    pub(crate) fn begin(&mut self, width: usize, height: usize) {
        assert!(width * height <= PIXELS_MAX, "a picture of {width}x{height}");
        (self.width, self.height) = (width, height);
        self.pixels.clear();
        self.pixels.resize(width * height, 0);
    }
}
