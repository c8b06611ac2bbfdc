//! What a viewer has on its screen, and what of it is no longer so.

use crate::Picture;

/// Side of a tile: also that of ZRLE's.
const TILE: usize = 64;
/// Widest rectangle: Tight's viewers take 2048.
const RECT_WIDTH_MAX: usize = 1024;

/// A part of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rect {
    pub x: usize,
    pub y: usize,
    pub width: usize,
    pub height: usize,
}

impl Rect {
    /// Its lines.
    pub fn lines<'a>(&self, picture: &'a Picture) -> impl Iterator<Item = &'a [u32]> + use<'a> {
        let Self { x, y, width, height } = *self;
        let lines = picture.pixels.chunks_exact(picture.width.max(1)).skip(y).take(height);
        lines.map(move |line| &line[x..x + width])
    }
}

/// The viewer's screen.
#[derive(Default)]
pub(crate) struct Shown {
    picture: Picture,
    /// Tiles it must be sent, whatever it has.
    stale: Vec<bool>,
}

impl Shown {
    pub fn size(&self) -> (usize, usize) {
        (self.picture.width, self.picture.height)
    }

    /// The viewer's screen has this size from now on, and nothing on it.
    pub fn resize(&mut self, width: usize, height: usize) {
        self.picture = Picture { width, height, pixels: vec![0; width * height] };
        self.stale = vec![true; width.div_ceil(TILE) * height.div_ceil(TILE)];
    }

    /// The viewer has forgotten a part.
    pub fn forget(&mut self, [x, y, width, height]: [u16; 4]) {
        let columns = self.picture.width.div_ceil(TILE);
        let end = |from: u16, size: u16| (usize::from(from) + usize::from(size)).div_ceil(TILE);
        for (tile, stale) in self.stale.iter_mut().enumerate() {
            let (column, row) = (tile % columns, tile / columns);
            let across = (usize::from(x) / TILE..end(x, width)).contains(&column);
            let down = (usize::from(y) / TILE..end(y, height)).contains(&row);
            *stale |= across && down;
        }
    }

    /// The parts of `now` that the viewer does not have; it will. Both have the same size.
    pub fn update(&mut self, now: &Picture) -> Vec<Rect> {
        let mut rects = Vec::new();
        let (width, height) = self.size();
        let columns = width.div_ceil(TILE);
        for row in 0..height.div_ceil(TILE) {
            let mut run: Option<Rect> = None;
            for column in 0..columns {
                let tile = Rect {
                    x: column * TILE,
                    y: row * TILE,
                    width: TILE.min(width - column * TILE),
                    height: TILE.min(height - row * TILE),
                };
                let stale = std::mem::take(&mut self.stale[row * columns + column]);
                let changed = if stale { Some(tile) } else { self.difference(now, tile) };
                run = match (run, changed) {
                    (Some(run), Some(changed)) if reaches(&run, &changed) => {
                        Some(around(&run, &changed))
                    }
                    (run, changed) => {
                        rects.extend(run);
                        changed
                    }
                };
            }
            rects.extend(run);
        }
        for rect in &rects {
            let lines =
                rect.lines(now).zip(self.picture.pixels.chunks_exact_mut(width).skip(rect.y));
            lines.for_each(|(from, to)| to[rect.x..rect.x + rect.width].copy_from_slice(from));
        }
        rects
    }

    /// The smallest part of a tile with all that has changed.
    fn difference(&self, now: &Picture, tile: Rect) -> Option<Rect> {
        let mut found: Option<Rect> = None;
        for (y, (old, new)) in tile.lines(&self.picture).zip(tile.lines(now)).enumerate() {
            if old == new {
                continue;
            }
            let differs = |(a, b): (&u32, &u32)| a != b;
            let first = old.iter().zip(new).position(differs)?;
            let last = old.iter().zip(new).rposition(differs)?;
            let line =
                Rect { x: tile.x + first, y: tile.y + y, width: last - first + 1, height: 1 };
            found = Some(found.map_or(line, |found| around(&found, &line)));
        }
        found
    }
}

/// Two parts of neighbouring tiles are as well sent as one.
fn reaches(run: &Rect, next: &Rect) -> bool {
    let gap = next.x.saturating_sub(run.x + run.width);
    gap < TILE / 4 && next.x + next.width - run.x <= RECT_WIDTH_MAX
}

fn around(one: &Rect, two: &Rect) -> Rect {
    let (x, y) = (one.x.min(two.x), one.y.min(two.y));
    let right = (one.x + one.width).max(two.x + two.width);
    let bottom = (one.y + one.height).max(two.y + two.height);
    Rect { x, y, width: right - x, height: bottom - y }
}

/// The picture as a viewer sees it whose screen cannot change its size: cut off, or with black.
pub(crate) fn fitted(picture: &Picture, (width, height): (usize, usize)) -> Picture {
    let mut pixels = vec![0; width * height];
    let copied = picture.width.min(width);
    if copied > 0 {
        let lines = picture.pixels.chunks_exact(picture.width).zip(pixels.chunks_exact_mut(width));
        lines.for_each(|(from, to)| to[..copied].copy_from_slice(&from[..copied]));
    }
    Picture { width, height, pixels }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: usize, height: usize) -> Picture {
        Picture { width, height, pixels: vec![0; width * height] }
    }

    #[test]
    fn only_what_has_changed_is_sent_and_only_once() {
        let mut shown = Shown::default();
        shown.resize(200, 100);
        let mut now = picture(200, 100);
        let all: usize = shown.update(&now).iter().map(|r| r.width * r.height).sum();
        assert_eq!(all, 200 * 100);
        assert!(shown.update(&now).is_empty());
        now.pixels[70 * 200 + 130] = 1;
        now.pixels[72 * 200 + 133] = 1;
        assert_eq!(shown.update(&now), [Rect { x: 130, y: 70, width: 4, height: 3 }]);
        assert!(shown.update(&now).is_empty());
        shown.forget([0, 0, 1, 1]);
        assert_eq!(shown.update(&now), [Rect { x: 0, y: 0, width: 64, height: 64 }]);
        shown.forget([u16::MAX; 4]);
        assert!(shown.update(&now).is_empty());
    }

    #[test]
    fn neighbouring_changes_are_one_rectangle_and_far_ones_are_two() {
        let mut shown = Shown::default();
        shown.resize(256, 64);
        let mut now = picture(256, 64);
        shown.update(&now);
        (now.pixels[60], now.pixels[66], now.pixels[250]) = (1, 1, 1);
        let found: Vec<_> = shown.update(&now).iter().map(|r| (r.x, r.width)).collect();
        assert_eq!(found, [(60, 7), (250, 1)]);
    }

    #[test]
    fn a_screen_of_another_size_is_cut_off_or_filled_up() {
        let mut large = picture(3, 2);
        large.pixels = vec![1, 2, 3, 4, 5, 6];
        assert_eq!(fitted(&large, (2, 3)).pixels, [1, 2, 4, 5, 0, 0]);
        assert_eq!(fitted(&picture(0, 0), (1, 1)).pixels, [0]);
    }
}
