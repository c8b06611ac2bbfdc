//! Where everything is in the guest's physical memory and I/O ports: said once, for the board that
//! wires it, the tables that describe it and the loaders that must keep out of its way.
//!
//! ```text
//! 0                 RAM: boot data (see `low`), conventional memory
//! 0x000a_0000       the VGA's window; without one, a hole that is described to nobody, backed by
//!                   RAM so that probing it costs no exit
//! 0x000e_0000       ACPI and SMBIOS tables
//! 0x0010_0000       RAM, up to 0xb000_0000, or to 0x8000_0000 when there is more
//! 0xb000_0000       ECAM, where firmware puts it
//! 0xc000_0000       PCI window
//! 0xe000_0000       ECAM without firmware, one MiB a bus
//! 0xfec0_0000       IOAPIC, HPET, local APICs
//! 0xff00_0000       the test device's memory; firmware's flash, up to 4 GiB
//! 0x1_0000_0000     the rest of RAM
//! 0x80_0000_0000    64-bit PCI window
//! ```

use guest_memory::{Backing, FlatRange, FlatView, PAGE_SIZE, RamOffset};

/// A run of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first address.
    pub base: u64,
    /// How many.
    pub size: u64,
}

impl Span {
    /// `size` addresses from `base`.
    pub const fn new(base: u64, size: u64) -> Self {
        Self { base, size }
    }

    /// One past the last address.
    pub const fn end(&self) -> u64 {
        self.base + self.size
    }

    /// The last address.
    pub const fn last(&self) -> u64 {
        self.base + self.size - 1
    }

    /// An address is in both.
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.base < other.end() && other.base < self.end()
    }
}

/// Smallest guest: the tables and loaders need the first MiB, a kernel the second.
pub const RAM_BYTES_MIN: u64 = 2 << 20;
/// Largest guest: what fits below the 64-bit PCI window.
pub const RAM_BYTES_MAX: u64 = LOW_RAM_OF_MORE + (PCI_WINDOW_64.base - HIGH_RAM_BASE);
/// Where RAM below 4 GiB ends at the latest: SeaBIOS and OVMF put ECAM here, whatever RAM is there.
pub const LOW_RAM_MAX: u64 = 0xb000_0000;
/// Where it ends when there is RAM above 4 GiB, so that both parts can have large pages.
pub const LOW_RAM_OF_MORE: u64 = 0x8000_0000;
/// Where RAM goes on above the 32-bit hole.
pub const HIGH_RAM_BASE: u64 = 1 << 32;

/// End of conventional memory. The kilobyte up to 0xa0000 is where a BIOS keeps its data.
pub const CONVENTIONAL_END: u64 = 0x9_fc00;
/// ACPI tables; the RSDP is at its base, where systems look for it on 16-byte boundaries.
pub const ACPI: Span = Span::new(0xe_0000, 0x1_0000);
/// SMBIOS entry points and tables, in the segment where systems look for them.
pub const SMBIOS: Span = Span::new(0xf_0000, 0x1_0000);
/// Where memory above the first MiB begins.
pub const EXTENDED_BASE: u64 = 0x10_0000;

/// 32-bit BARs.
pub const PCI_WINDOW_32: Span = Span::new(0xc000_0000, 0x2000_0000);
/// 64-bit BARs. Fixed, so that it does not move with the memory's size.
pub const PCI_WINDOW_64: Span = Span::new(0x80_0000_0000, 0x80_0000_0000);
/// PCI buses.
pub const PCI_BUSES: u64 = 1;
/// Slots of PCI that disks and network cards come into and go from.
pub const PCI_HOTPLUG_SLOTS: std::ops::RangeInclusive<u32> = 1..=24;
/// PCI configuration space.
pub const ECAM: Span = Span::new(0xe000_0000, PCI_BUSES << 20);
/// What a VGA shows of itself in the first MiB, where the machine has one.
pub const VGA_WINDOW: Span = Span::new(0xa_0000, 0x2_0000);
/// IOAPIC registers.
pub const IOAPIC: Span = Span::new(0xfec0_0000, 0x1000);
/// HPET registers.
pub const HPET: Span = Span::new(0xfed0_0000, 0x400);
/// Local APICs: inside the socket, so nothing of the board's is here.
pub const LOCAL_APIC: Span = Span::new(0xfee0_0000, 0x10_0000);
/// The test device's memory.
pub const TESTDEV_RAM: Span = Span::new(0xff00_0000, 0x1_0000);

/// What loaders put into conventional memory. Kernels have read it before they reuse it.
pub mod low {
    use super::Span;

    /// All of it. The first page is left to what a BIOS keeps there, and zero.
    pub const BOOT_DATA: Span = Span::new(0x1000, 0x2_0000 - 0x1000);
    /// Global descriptor table.
    pub const GDT: u64 = 0x1000;
    /// What the protocol hands over: `hvm_start_info` or Multiboot information.
    pub const START_INFO: u64 = 0x2000;
    /// Linux's `boot_params`, one page.
    pub const BOOT_PARAMS: u64 = 0x3000;
    /// Page tables, six pages.
    pub const PAGE_TABLES: u64 = 0x4000;
    /// Memory map and module list.
    pub const LISTS: Span = Span::new(0xa000, 0x6000);
    /// Command lines, each ended by a NUL.
    pub const STRINGS: Span = Span::new(0x1_0000, 0x1_0000);
}

/// What goes into SLP_TYP to turn the machine off.
pub const SLEEP_TYPE_S5: u8 = 5;

/// I/O ports.
pub mod port {
    use super::Span;

    /// The two PICs' command and mask registers.
    pub const PIC: [Span; 2] = [Span::new(0x20, 2), Span::new(0xa0, 2)];
    /// The PICs' edge and level registers.
    pub const ELCR: Span = Span::new(0x4d0, 2);
    /// Timer counters and mode.
    pub const PIT: Span = Span::new(0x40, 4);
    /// Keyboard controller, data.
    pub const I8042_DATA: Span = Span::new(0x60, 1);
    /// System control port B: speaker, and the gate of timer counter 2.
    pub const PORT_B: Span = Span::new(0x61, 1);
    /// Keyboard controller, command.
    pub const I8042_COMMAND: Span = Span::new(0x64, 1);
    /// Real-time clock and CMOS.
    pub const RTC: Span = Span::new(0x70, 4);
    /// Diagnostic codes: written, never answered.
    pub const POST: Span = Span::new(0x80, 1);
    /// QEMU's debug exit.
    pub const DEBUG_EXIT: Span = Span::new(0xf4, 4);
    /// The DISPI registers of the display adapter: index, and value at either of two.
    pub const DISPI: Span = Span::new(0x1ce, 4);
    /// The VGA's registers, CRTC and status of colour modes among them.
    pub const VGA: Span = Span::new(0x3c0, 0x20);
    /// The first serial port.
    pub const COM1: Span = Span::new(0x3f8, 8);
    /// What firmware and test guests ask for the machine's size.
    pub const FW_CFG: Span = Span::new(0x510, 12);
    /// ACPI fixed hardware, all of it.
    pub const PM: Span = Span::new(0x600, 0x80);
    /// PM1a event and enable registers.
    pub const PM1A_EVENT: Span = Span::new(0x600, 4);
    /// PM1a control register.
    pub const PM1A_CONTROL: Span = Span::new(0x604, 2);
    /// The PM timer.
    pub const PM_TIMER: Span = Span::new(0x608, 4);
    /// General-purpose events.
    pub const GPE0: Span = Span::new(0x620, 4);
    /// The hot-plug controller.
    pub const HOTPLUG: Span = Span::new(0x700, 0x20);
    /// PCI configuration address and data.
    pub const PCI_CONFIG: Span = Span::new(0xcf8, 8);
    /// Reset control, inside of [`PCI_CONFIG`]'s address register.
    pub const RESET_CONTROL: Span = Span::new(0xcf9, 1);
    /// I/O BARs.
    pub const PCI_WINDOW: Span = Span::new(0xd00, 0xf300);
}

/// Interrupt inputs of the IOAPIC; below 16, of the PICs too (where 0 is the timer and 2 the
/// cascade, so that the IOAPIC has the timer at 2).
pub mod irq {
    /// The PIT, at the PIC.
    pub const PIT: u32 = 0;
    /// The PIT, at the IOAPIC.
    pub const PIT_IOAPIC: u32 = 2;
    /// The keyboard.
    pub const KEYBOARD: u32 = 1;
    /// The first serial port.
    pub const COM1: u32 = 4;
    /// The real-time clock.
    pub const RTC: u32 = 8;
    /// ACPI's system control interrupt: level, active high.
    pub const SCI: u32 = 9;
    /// The mouse.
    pub const MOUSE: u32 = 12;
    /// PCI's PIRQ A; B to H follow.
    pub const PIRQ_A: u32 = 16;
    /// How many the IOAPIC has.
    pub const IOAPIC_INPUTS: u32 = 24;
    /// How many it has in a machine without legacy: those of ISA. Linux saves and restores
    /// every entry on its way to x2APIC, at eight accesses each.
    pub const IOAPIC_INPUTS_WITHOUT_LEGACY: u32 = 16;

    /// The PIRQ, from 0 for A, of an interrupt pin, from 0 for INTA, of a device on the bus: as
    /// firmware expects of a Q35. Devices 0 to 24 rotate through E to H. For 25 to 31 the root
    /// complex's registers would say; this machine has none, and they have what is in those
    /// registers after reset (ICH9 datasheet, 10.1.40).
    pub const fn pirq(device: u8, pin: usize) -> usize {
        match device {
            0..25 => 4 + (device as usize + pin) % 4,
            _ => pin % 4,
        }
    }
}

/// The memory size cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Too little or too much.
    #[error(
        "a VM cannot have {0} bytes of memory: give it between {min} MiB and {max} GiB",
        min = RAM_BYTES_MIN >> 20,
        max = RAM_BYTES_MAX >> 30
    )]
    Size(u64),
    /// Not whole pages.
    #[error("{0} bytes of memory are not whole pages of 4 KiB: give it whole MiB, as in 512M")]
    Alignment(u64),
}

/// Memory that comes does so in blocks, and in no smaller ones than Linux takes.
pub const BLOCK_BYTES_MIN: u64 = 128 << 20;
/// Blocks at most.
pub const BLOCKS_MAX: u64 = 32;
/// Where the first block may be: Linux takes none at other addresses.
const BLOCKS_ALIGN: u64 = 1 << 30;

/// Blocks of memory that can come to a machine, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// Where the first is.
    pub base: u64,
    /// How large each is.
    pub size: u64,
    /// How many.
    pub count: u32,
}

impl Blocks {
    /// All of them.
    pub const fn span(&self) -> Span {
        Span::new(self.base, self.size * self.count as u64)
    }

    /// One of them.
    pub const fn block(&self, number: u32) -> Span {
        Span::new(self.base + self.size * number as u64, self.size)
    }
}

/// What an E820 entry says of its range (ACPI 6.5, table 15.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum RangeKind {
    /// Free RAM.
    Usable = 1,
    /// Not to be used.
    Reserved = 2,
}

/// The memory of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    ram_bytes: u64,
}

impl Layout {
    /// For this much RAM.
    ///
    /// # Errors
    /// When no machine can have it.
    pub fn new(ram_bytes: u64) -> Result<Self, LayoutError> {
        if !ram_bytes.is_multiple_of(PAGE_SIZE) {
            return Err(LayoutError::Alignment(ram_bytes));
        }
        if !(RAM_BYTES_MIN..=RAM_BYTES_MAX).contains(&ram_bytes) {
            return Err(LayoutError::Size(ram_bytes));
        }
        Ok(Self { ram_bytes })
    }

    /// All RAM.
    pub const fn ram_bytes(&self) -> u64 {
        self.ram_bytes
    }

    /// RAM below the 32-bit hole.
    pub fn low_ram(&self) -> Span {
        let all_low = self.ram_bytes <= LOW_RAM_MAX;
        Span::new(0, if all_low { self.ram_bytes } else { LOW_RAM_OF_MORE })
    }

    /// RAM above 4 GiB.
    pub fn high_ram(&self) -> Option<Span> {
        let size = self.ram_bytes - self.low_ram().size;
        (size > 0).then_some(Span::new(HIGH_RAM_BASE, size))
    }

    /// Blocks for so much RAM in all, or a little more; none where that is no more than there is.
    ///
    /// # Errors
    /// When no machine can have it.
    pub fn blocks(&self, most_bytes: u64) -> Result<Blocks, LayoutError> {
        let more = most_bytes.saturating_sub(self.ram_bytes);
        let size = more.div_ceil(BLOCKS_MAX).next_multiple_of(BLOCK_BYTES_MIN);
        let count = if more == 0 { 0 } else { more.div_ceil(size) as u32 };
        let end = self.high_ram().map_or(HIGH_RAM_BASE, |high| high.end());
        let blocks = Blocks { base: end.next_multiple_of(BLOCKS_ALIGN), size, count };
        let fits = most_bytes <= RAM_BYTES_MAX && blocks.span().end() <= PCI_WINDOW_64.base;
        if fits { Ok(blocks) } else { Err(LayoutError::Size(most_bytes)) }
    }

    /// What is where, for the guest, in order of addresses.
    pub fn ranges(&self) -> Vec<(Span, RangeKind)> {
        let low_end = self.low_ram().end();
        let mut ranges = vec![
            (Span::new(0, CONVENTIONAL_END), RangeKind::Usable),
            (Span::new(CONVENTIONAL_END, 0xa_0000 - CONVENTIONAL_END), RangeKind::Reserved),
            (Span::new(ACPI.base, EXTENDED_BASE - ACPI.base), RangeKind::Reserved),
            (Span::new(EXTENDED_BASE, low_end - EXTENDED_BASE), RangeKind::Usable),
            (ECAM, RangeKind::Reserved),
        ];
        ranges.extend(self.high_ram().map(|high| (high, RangeKind::Usable)));
        ranges
    }

    /// The guest's view of its RAM, whose backing begins at `at`.
    pub fn view(&self, at: RamOffset) -> FlatView {
        let mut view = FlatView::new();
        let mut offset = at.0;
        for span in std::iter::once(self.low_ram()).chain(self.high_ram()) {
            let range = FlatRange {
                gpa: span.base,
                size: span.size,
                at: RamOffset(offset),
                backing: Backing::Ram,
            };
            let inserted = view.insert(range);
            assert!(inserted.is_ok(), "low and high RAM are disjoint");
            offset += span.size;
        }
        view
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [u64; 11] = [
        2 << 20,
        16 << 20,
        128 << 20,
        LOW_RAM_MAX,
        LOW_RAM_MAX + 4096,
        (3 << 30) - 4096,
        3 << 30,
        (3 << 30) + 4096,
        4 << 30,
        64 << 30,
        RAM_BYTES_MAX,
    ];

    fn mmio() -> [Span; 7] {
        [PCI_WINDOW_32, PCI_WINDOW_64, ECAM, IOAPIC, HPET, LOCAL_APIC, TESTDEV_RAM]
    }

    #[test]
    fn nothing_overlaps_whatever_the_memory_size() {
        for size in SIZES {
            let layout = Layout::new(size).unwrap();
            let all: Vec<_> =
                std::iter::once(layout.low_ram()).chain(layout.high_ram()).chain(mmio()).collect();
            for (i, a) in all.iter().enumerate() {
                for b in &all[i + 1..] {
                    assert!(!a.overlaps(b), "{a:x?} and {b:x?} at {size:#x}");
                }
            }
        }
    }

    #[test]
    fn all_ram_is_in_the_view_and_the_map_is_sorted() {
        for size in SIZES {
            let layout = Layout::new(size).unwrap();
            let view = layout.view(RamOffset(0x1000));
            assert_eq!(view.iter().map(|r| r.size).sum::<u64>(), size);
            assert_eq!(view.lookup(0), Some((RamOffset(0x1000), Backing::Ram)));
            assert_eq!(view.lookup(LOW_RAM_MAX), None);
            let ranges = layout.ranges();
            assert!(ranges.windows(2).all(|w| w[0].0.end() <= w[1].0.base), "{ranges:x?}");
            let usable = ranges.iter().filter(|r| r.1 == RangeKind::Usable);
            assert!(usable.clone().all(|r| view.lookup(r.0.last()).is_some()));
            let hidden = EXTENDED_BASE - CONVENTIONAL_END;
            assert_eq!(usable.map(|r| r.0.size).sum::<u64>(), size - hidden);
        }
    }

    #[test]
    fn blocks_lie_above_all_ram_and_hold_what_is_asked_for() {
        for size in &SIZES[..SIZES.len() - 1] {
            let layout = Layout::new(*size).unwrap();
            for most in [*size, size + 4096, 2 * size, RAM_BYTES_MAX - (8 << 30)] {
                let blocks = layout.blocks(most.max(*size)).unwrap();
                let more = blocks.span();
                assert!(size + more.size >= most && more.size < most + (BLOCKS_MAX << 28));
                assert!(u64::from(blocks.count) <= BLOCKS_MAX);
                assert!(layout.high_ram().is_none_or(|high| high.end() <= more.base));
                assert!(mmio().iter().all(|at| !at.overlaps(&more)), "{more:x?}");
                assert!(blocks.size.is_multiple_of(BLOCK_BYTES_MIN));
            }
        }
        let layout = Layout::new(2 << 20).unwrap();
        assert!(layout.blocks(RAM_BYTES_MAX + 4096).is_err());
    }

    #[test]
    fn ports_do_not_overlap() {
        use port::*;
        let all = [
            PIC[0],
            PIC[1],
            ELCR,
            PIT,
            I8042_DATA,
            PORT_B,
            I8042_COMMAND,
            RTC,
            POST,
            DEBUG_EXIT,
            DISPI,
            VGA,
            COM1,
            FW_CFG,
            PM,
            HOTPLUG,
            PCI_CONFIG,
            PCI_WINDOW,
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| !a.overlaps(b)), "{a:x?}");
        }
        assert_eq!(PCI_WINDOW.end(), 0x1_0000);
    }

    #[test]
    fn devices_rotate_through_four_pirqs_and_the_last_seven_have_the_others() {
        use irq::pirq;
        assert_eq!([pirq(0, 0), pirq(1, 0), pirq(3, 0), pirq(4, 0), pirq(24, 1)], [4, 5, 7, 4, 5]);
        assert_eq!([pirq(25, 0), pirq(28, 1), pirq(31, 3)], [0, 1, 3]);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert_eq!(Layout::new(0), Err(LayoutError::Size(0)));
        assert_eq!(Layout::new((1 << 20) + 1), Err(LayoutError::Alignment((1 << 20) + 1)));
        assert_eq!(Layout::new(1 << 20), Err(LayoutError::Size(1 << 20)));
        let error = Layout::new(RAM_BYTES_MAX + 4096).unwrap_err().to_string();
        assert!(error.contains("between 2 MiB and 510 GiB"), "{error}");
    }
}
