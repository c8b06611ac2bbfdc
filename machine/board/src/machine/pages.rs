//! Taking a page away from under an engine and putting it back, for the test device.

use std::sync::{Arc, Mutex, PoisonError};

use boot::layout::TESTDEV_RAM;
use chipset::PageUnmapSink;
use guest_memory::{FlatView, GuestMemory, PAGE_SIZE};

use super::memory_map as cut;
use crate::socket::Socket;

/// The test device's way to the memory map.
pub(super) struct TestPages {
    memory: Arc<GuestMemory>,
    socket: Arc<Socket>,
    /// Two changes of the map at once would mix them up.
    changing: Mutex<()>,
}

impl TestPages {
    pub(super) fn new(memory: Arc<GuestMemory>, socket: Arc<Socket>) -> Arc<Self> {
        Arc::new(Self { memory, socket, changing: Mutex::new(()) })
    }

    fn show(&self, view: FlatView) {
        // What devices reach stays: they have no translation to lose.
        self.socket.set_memory_or_fail(Arc::new(view));
    }
}

impl PageUnmapSink for TestPages {
    fn unmap_page(&self, gpa: u64) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = self.memory.view();
        let page = gpa & !(PAGE_SIZE - 1);
        if whole.find(page).is_none() || page == TESTDEV_RAM.base {
            return;
        }
        self.show(without(&whole, page));
        self.show((*whole).clone());
    }
}

/// The view without one page.
fn without(view: &FlatView, page: u64) -> FlatView {
    let mut rest = FlatView::new();
    for range in view.iter() {
        for piece in cut::without(range, page, page + PAGE_SIZE) {
            let inserted = rest.insert(piece);
            assert!(inserted.is_ok(), "pieces of a view do not overlap");
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use guest_memory::{Backing, FlatRange, RamOffset};

    use super::*;

    #[test]
    fn a_page_is_cut_out_of_the_middle_and_off_both_ends() {
        let mut view = FlatView::new();
        let range =
            FlatRange { gpa: 0x4000, size: 0x3000, at: RamOffset(0x1000), backing: Backing::Ram };
        view.insert(range).unwrap();
        for page in [0x4000, 0x5000, 0x6000] {
            let rest = without(&view, page);
            assert_eq!(rest.lookup(page), None);
            for other in [0x4000, 0x5000, 0x6000].into_iter().filter(|other| *other != page) {
                assert_eq!(rest.lookup(other), view.lookup(other));
            }
        }
        assert_eq!(without(&view, 0x7000).iter().count(), 1);
    }
}
