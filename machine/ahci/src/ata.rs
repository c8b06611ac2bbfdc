//! What an ATA disk does with a command (ACS-3), as far as it needs no port.

use storage::{Disk, SECTOR_SIZE};

use crate::spec::ata::*;
use crate::spec::{ER_ABRT, ER_IDNF};
use crate::state::PortState;

/// Most blocks of ranges in one DATA SET MANAGEMENT: said in IDENTIFY, and a bound on what is read.
pub(crate) const TRIM_BLOCKS_MAX: u32 = 8;
/// Most sectors of READ and WRITE MULTIPLE.
const MULTIPLE_MAX: u8 = 16;
const MODEL: &str = "TRINE DISK";
const FIRMWARE: &str = "1.0";

/// A register FIS from the host (Serial ATA 10.5.5), and its command's parts.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a>(pub(crate) &'a [u8; 64]);

impl Frame<'_> {
    pub(crate) fn command(&self) -> u8 {
        self.0[2]
    }

    pub(crate) fn features(&self) -> u16 {
        u16::from_le_bytes([self.0[3], self.0[11]])
    }

    pub(crate) fn count(&self) -> u16 {
        u16::from_le_bytes([self.0[12], self.0[13]])
    }

    fn lba48(&self) -> u64 {
        let f = self.0;
        u64::from_le_bytes([f[4], f[5], f[6], f[8], f[9], f[10], 0, 0])
    }

    fn lba28(&self) -> u64 {
        let f = self.0;
        u64::from(u32::from_le_bytes([f[4], f[5], f[6], f[7] & 0xf]))
    }

    /// Where and how much: a count of 0 is the most there is.
    fn range(&self, wide: bool) -> (u64, u64) {
        let sectors = |count: u64, most: u64| if count == 0 { most } else { count };
        if wide {
            (self.lba48(), sectors(self.count().into(), 1 << 16))
        } else {
            (self.lba28(), sectors(u64::from(self.0[12]), 1 << 8))
        }
    }
}

/// What is to be done for a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Nothing more.
    Done,
    /// These bytes go to the guest.
    Data(Vec<u8>),
    /// The disk fills memory: offset and bytes.
    Read { offset: u64, size_bytes: u64, tag: Option<u8>, pio: bool },
    /// The disk takes memory.
    Write { offset: u64, size_bytes: u64, tag: Option<u8>, durable: bool },
    /// The disk's cache is written out.
    Flush,
    /// So many blocks of ranges come from the guest, to be discarded.
    Trim(u32),
    /// The device is as after power-up, and shows its signature.
    Reset,
    /// The error register.
    Fail(u8),
}

/// What the disk does.
pub(crate) fn decode(
    frame: Frame<'_>,
    port: &mut PortState,
    disk: &dyn Disk,
    serial: &str,
) -> Command {
    let transfer = |wide, write: bool, pio, durable| {
        let (lba, sectors) = frame.range(wide);
        within(disk, lba, sectors).map_or(Command::Fail(ER_IDNF), |(offset, size_bytes)| {
            if write {
                Command::Write { offset, size_bytes, tag: None, durable }
            } else {
                Command::Read { offset, size_bytes, tag: None, pio }
            }
        })
    };
    match frame.command() {
        READ_DMA | READ_DMA_NORETRY => transfer(false, false, false, false),
        READ_DMA_EXT => transfer(true, false, false, false),
        READ_SECTORS | READ_SECTORS_NORETRY | READ_MULTIPLE => transfer(false, false, true, false),
        READ_SECTORS_EXT | READ_MULTIPLE_EXT => transfer(true, false, true, false),
        WRITE_DMA | WRITE_DMA_NORETRY => transfer(false, true, false, false),
        WRITE_DMA_EXT => transfer(true, true, false, false),
        WRITE_DMA_FUA_EXT => transfer(true, true, false, true),
        WRITE_SECTORS | WRITE_SECTORS_NORETRY | WRITE_MULTIPLE => {
            transfer(false, true, true, false)
        }
        WRITE_SECTORS_EXT | WRITE_MULTIPLE_EXT => transfer(true, true, true, false),
        READ_FPDMA_QUEUED | WRITE_FPDMA_QUEUED => queued(frame, disk),
        READ_VERIFY | READ_VERIFY_EXT => {
            let (lba, sectors) = frame.range(frame.command() == READ_VERIFY_EXT);
            within(disk, lba, sectors).map_or(Command::Fail(ER_IDNF), |_| Command::Done)
        }
        FLUSH | FLUSH_EXT => Command::Flush,
        DATA_SET_MANAGEMENT => trim(frame),
        IDENTIFY => Command::Data(identify(port, disk, serial)),
        READ_LOG_EXT | READ_LOG_DMA_EXT => read_log(frame, port),
        READ_NATIVE_MAX | READ_NATIVE_MAX_EXT => {
            let last = disk.info().size_bytes / SECTOR_SIZE - 1;
            let wide = frame.command() == READ_NATIVE_MAX_EXT;
            port.lba = if wide { last } else { last.min((1 << 28) - 1) };
            Command::Done
        }
        SET_FEATURES => set_features(frame, port),
        SET_MULTIPLE => {
            let sectors = frame.0[12];
            if sectors > MULTIPLE_MAX || !(sectors == 0 || sectors.is_power_of_two()) {
                return Command::Fail(ER_ABRT);
            }
            port.multiple = sectors;
            Command::Done
        }
        CHECK_POWER => {
            port.count = 0xff; // active
            Command::Done
        }
        EXECUTE_DIAGNOSTIC => Command::Reset,
        INITIALIZE_PARAMETERS
        | STANDBY_IMMEDIATE
        | IDLE_IMMEDIATE
        | STANDBY
        | IDLE
        | SLEEP
        | SECURITY_FREEZE => Command::Done,
        NOP => Command::Fail(ER_ABRT),
        _ => Command::Fail(ER_ABRT),
    }
}

fn within(disk: &dyn Disk, lba: u64, sectors: u64) -> Option<(u64, u64)> {
    let end = lba.checked_add(sectors)?.checked_mul(SECTOR_SIZE)?;
    (end <= disk.info().size_bytes).then_some((lba * SECTOR_SIZE, sectors * SECTOR_SIZE))
}

/// In queued commands the count is in the features, and the tag in the count.
fn queued(frame: Frame<'_>, disk: &dyn Disk) -> Command {
    let sectors = if frame.features() == 0 { 1 << 16 } else { frame.features().into() };
    let tag = Some(frame.0[12] >> 3);
    let durable = frame.0[7] & 1 << 7 != 0;
    match within(disk, frame.lba48(), sectors) {
        None => Command::Fail(ER_IDNF),
        Some((offset, size_bytes)) if frame.command() == READ_FPDMA_QUEUED => {
            Command::Read { offset, size_bytes, tag, pio: false }
        }
        Some((offset, size_bytes)) => Command::Write { offset, size_bytes, tag, durable },
    }
}

fn trim(frame: Frame<'_>) -> Command {
    let blocks = u32::from(frame.count());
    let is_trim = frame.features() & 1 != 0;
    if is_trim && (1..=TRIM_BLOCKS_MAX).contains(&blocks) {
        Command::Trim(blocks)
    } else {
        Command::Fail(ER_ABRT)
    }
}

/// Write cache and look-ahead are always on; transfer modes mean nothing here.
fn set_features(frame: Frame<'_>, port: &mut PortState) -> Command {
    match frame.features() as u8 {
        0x02 => port.write_through = false,
        0x82 => port.write_through = true,
        0x03 | 0x55 | 0xaa | 0x05 | 0x85 | 0x10 | 0x90 => {}
        _ => return Command::Fail(ER_ABRT),
    }
    Command::Done
}

fn read_log(frame: Frame<'_>, port: &PortState) -> Command {
    let (address, pages) = (frame.0[4], usize::from(frame.count()));
    if pages != 1 {
        return Command::Fail(ER_ABRT);
    }
    let mut page = vec![0; 512];
    match address {
        0 => {
            page[0] = 1;
            page[2 * usize::from(LOG_NCQ_ERROR)] = 1;
        }
        LOG_NCQ_ERROR => {
            let (tag, error) = port.ncq_error;
            page[0] = tag;
            page[2] = crate::spec::ST_ERR | crate::spec::ST_DRDY;
            page[3] = error;
            page[511] = checksum(&page);
        }
        _ => return Command::Fail(ER_ABRT),
    }
    Command::Data(page)
}

/// All bytes of a page add up to zero.
fn checksum(page: &[u8]) -> u8 {
    page.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

/// Words of an IDENTIFY page.
pub(crate) struct Words([u16; 256]);

impl Words {
    pub(crate) fn new(words: &[(usize, u16)]) -> Self {
        let mut page = [0; 256];
        words.iter().for_each(|(at, word)| page[*at] = *word);
        Self(page)
    }

    /// Text has the first of two characters in the high byte.
    pub(crate) fn text(&mut self, at: usize, words: usize, text: &str) {
        let mut bytes = text.bytes().chain(std::iter::repeat(b' '));
        for word in &mut self.0[at..at + words] {
            let mut next = || u16::from(bytes.next().unwrap_or(b' '));
            *word = next() << 8 | next();
        }
    }

    fn number(&mut self, at: usize, words: usize, number: u64) {
        for (n, word) in self.0[at..at + words].iter_mut().enumerate() {
            *word = (number >> (16 * n)) as u16;
        }
    }

    pub(crate) fn page(self) -> Vec<u8> {
        let mut page: Vec<u8> = self.0.iter().flat_map(|word| word.to_le_bytes()).collect();
        page[510] = 0xa5;
        page[511] = 0;
        page[511] = checksum(&page);
        page
    }
}

fn identify(port: &PortState, disk: &dyn Disk, serial: &str) -> Vec<u8> {
    let sectors = disk.info().size_bytes / SECTOR_SIZE;
    let cache = if port.write_through { 0 } else { 1 << 5 };
    let mut words = Words::new(&[
        (0, 0x0040),
        (1, (sectors / (16 * 63)).min(16383) as u16),
        (3, 16),
        (6, 63),
        (47, 0x8000 | u16::from(MULTIPLE_MAX)),
        (49, 0x0f00), // LBA, DMA, IORDY
        (50, 0x4000),
        (53, 0x0006),
        (59, if port.multiple == 0 { 0 } else { 0x0100 | u16::from(port.multiple) }),
        (63, 0x0007), // multiword DMA 0 to 2
        (64, 0x0003), // PIO 3 and 4
        (65, 120),
        (66, 120),
        (67, 120),
        (68, 120),
        (75, 31),     // NCQ: 32 commands
        (76, 0x0106), // NCQ, 1.5 and 3 Gbit/s
        (80, 0x01f0), // ATA-4 to ATA8-ACS
        (82, 0x0060), // write cache, look-ahead
        (83, 0x7400), // 48-bit addresses, both flushes
        (84, 0x4040), // WRITE DMA FUA EXT
        (85, 0x0040 | cache),
        (86, 0x3400),
        (87, 0x4040),
        (88, 0x203f), // Ultra DMA 0 to 5, 5 chosen
        (105, TRIM_BLOCKS_MAX as u16),
        (106, 0x4000),
        (119, 0x4000),
        (120, 0x4000),
        (169, 0x0001), // TRIM
        (217, 0x0001), // no rotation
        (222, 0x101f), // Serial ATA
    ]);
    words.text(10, 10, serial);
    words.text(23, 4, FIRMWARE);
    words.text(27, 20, MODEL);
    words.number(60, 2, sectors.min((1 << 28) - 1));
    words.number(100, 4, sectors);
    words.page()
}
