//! What a CD-ROM drive does with a packet: MMC-6 and SPC-3, as far as firmware, installers and
//! stock kernels ask.

use storage::Disk;

use crate::ata::Words;
use crate::state::Cd;

/// Bytes of a block of data.
pub(crate) const BLOCK: u64 = 2048;

/// What is to be done for a packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    /// Nothing more.
    Done,
    /// These bytes, as many as the guest has asked for.
    Data(Vec<u8>),
    /// The disc fills memory: offset and bytes.
    Read { offset: u64, size_bytes: u64 },
    /// There is a reason in the drive's sense data.
    Check,
}

/// Sense key, additional sense code and qualifier.
pub(crate) type Sense = (u8, u8, u8);
const NO_SENSE: Sense = (0, 0, 0);
const NO_MEDIUM: Sense = (2, 0x3a, 0);
pub(crate) const READ_ERROR: Sense = (3, 0x11, 0);
const INVALID_COMMAND: Sense = (5, 0x20, 0);
const OUT_OF_RANGE: Sense = (5, 0x21, 0);
const INVALID_FIELD: Sense = (5, 0x24, 0);
const REMOVAL_PREVENTED: Sense = (5, 0x53, 2);
const MEDIUM_CHANGED: Sense = (6, 0x28, 0);

const TEST_UNIT_READY: u8 = 0x00;
const REQUEST_SENSE: u8 = 0x03;
const INQUIRY: u8 = 0x12;
const START_STOP: u8 = 0x1b;
const PREVENT_ALLOW: u8 = 0x1e;
const READ_CAPACITY: u8 = 0x25;
const READ_10: u8 = 0x28;
const SEEK_10: u8 = 0x2b;
const READ_TOC: u8 = 0x43;
const GET_CONFIGURATION: u8 = 0x46;
const GET_EVENT_STATUS: u8 = 0x4a;
const READ_DISC_INFORMATION: u8 = 0x51;
const READ_TRACK_INFORMATION: u8 = 0x52;
const MODE_SENSE_10: u8 = 0x5a;
const READ_12: u8 = 0xa8;
const SET_CD_SPEED: u8 = 0xbb;
const MECHANISM_STATUS: u8 = 0xbd;
const READ_CD: u8 = 0xbe;

/// Lead-out of a disc in a table of contents.
const LEAD_OUT: u8 = 0xaa;
/// Profiles: CD-ROM up to this many blocks, DVD-ROM above.
const CD_BLOCKS_MAX: u64 = 450_000;
const PROFILE_CD: u16 = 0x08;
const PROFILE_DVD: u16 = 0x10;

fn u16_at(cdb: &[u8; 16], at: usize) -> u16 {
    u16::from_be_bytes([cdb[at], cdb[at + 1]])
}

fn u32_at(cdb: &[u8; 16], at: usize) -> u32 {
    u32::from_be_bytes([cdb[at], cdb[at + 1], cdb[at + 2], cdb[at + 3]])
}

fn cut(mut bytes: Vec<u8>, allocation: usize) -> Packet {
    bytes.truncate(allocation);
    Packet::Data(bytes)
}

/// Fills in a length of what follows it.
fn with_length(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = (bytes.len() - 2) as u16; // built here, and short
    bytes[..2].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// What the drive does. `disk` is what it has been given, whether or not it is in.
pub(crate) fn decode(cdb: &[u8; 16], cd: &mut Cd, disk: Option<&dyn Disk>) -> Packet {
    let disc = disk.filter(|_| !cd.ejected);
    let result = perform(cdb, cd, disc);
    if cdb[0] != REQUEST_SENSE {
        cd.sense = result.as_ref().err().copied().unwrap_or(NO_SENSE);
    }
    result.unwrap_or(Packet::Check)
}

fn perform(cdb: &[u8; 16], cd: &mut Cd, disc: Option<&dyn Disk>) -> Result<Packet, Sense> {
    let harmless = matches!(
        cdb[0],
        REQUEST_SENSE | INQUIRY | GET_CONFIGURATION | GET_EVENT_STATUS | MECHANISM_STATUS
    );
    // A disc that is new is told once, before anything else about it.
    if cd.changed && !harmless {
        cd.changed = false;
        if disc.is_some() {
            return Err(MEDIUM_CHANGED);
        }
    }
    let medium = || disc.ok_or(NO_MEDIUM);
    Ok(match cdb[0] {
        TEST_UNIT_READY => medium().map(|_| Packet::Done)?,
        REQUEST_SENSE => {
            let (key, code, qualifier) = std::mem::replace(&mut cd.sense, NO_SENSE);
            let mut bytes = vec![0; 18];
            (bytes[0], bytes[2], bytes[7], bytes[12], bytes[13]) = (0x70, key, 10, code, qualifier);
            cut(bytes, cdb[4].into())
        }
        INQUIRY if cdb[1] & 1 != 0 => return Err(INVALID_FIELD),
        INQUIRY => cut(inquiry(), u16_at(cdb, 3).into()),
        START_STOP => start_stop(cdb, cd)?,
        PREVENT_ALLOW => {
            cd.locked = cdb[4] & 1 != 0;
            Packet::Done
        }
        READ_CAPACITY => {
            let last = (blocks(medium()?) - 1).min(u32::MAX.into()) as u32;
            Packet::Data([last.to_be_bytes(), (BLOCK as u32).to_be_bytes()].concat())
        }
        READ_10 => read(medium()?, u32_at(cdb, 2), u16_at(cdb, 7).into())?,
        READ_12 => read(medium()?, u32_at(cdb, 2), u32_at(cdb, 6))?,
        READ_CD => read_cd(cdb, medium()?)?,
        SEEK_10 => within(medium()?, u32_at(cdb, 2), 0).map(|_| Packet::Done)?,
        READ_TOC => cut(toc(cdb, medium()?)?, u16_at(cdb, 7).into()),
        GET_CONFIGURATION => cut(configuration(cdb, disc), u16_at(cdb, 7).into()),
        GET_EVENT_STATUS => event_status(cdb, cd, disc)?,
        READ_DISC_INFORMATION => {
            medium()?;
            let mut bytes = vec![0; 34];
            bytes[2..7].copy_from_slice(&[0x0e, 1, 1, 1, 1]); // finished; one session, one track
            bytes[7] = 0x20;
            cut(with_length(bytes), u16_at(cdb, 7).into())
        }
        READ_TRACK_INFORMATION => {
            let disc = medium()?;
            let mut bytes = vec![0; 36];
            (bytes[2], bytes[3], bytes[5], bytes[6]) = (1, 1, 4, 1);
            let blocks = blocks(disc).min(u32::MAX.into()) as u32;
            bytes[24..28].copy_from_slice(&blocks.to_be_bytes());
            cut(with_length(bytes), u16_at(cdb, 7).into())
        }
        MODE_SENSE_10 => cut(mode_sense(cdb, cd)?, u16_at(cdb, 7).into()),
        MECHANISM_STATUS => cut(vec![0; 8], u16_at(cdb, 8).into()),
        SET_CD_SPEED => Packet::Done,
        _ => return Err(INVALID_COMMAND),
    })
}

fn blocks(disc: &dyn Disk) -> u64 {
    (disc.info().size_bytes / BLOCK).max(1)
}

fn within(disc: &dyn Disk, lba: u32, count: u32) -> Result<(u64, u64), Sense> {
    let (lba, count) = (u64::from(lba), u64::from(count));
    if lba + count > disc.info().size_bytes / BLOCK {
        return Err(OUT_OF_RANGE);
    }
    Ok((lba * BLOCK, count * BLOCK))
}

fn read(disc: &dyn Disk, lba: u32, count: u32) -> Result<Packet, Sense> {
    let (offset, size_bytes) = within(disc, lba, count)?;
    Ok(if count == 0 { Packet::Done } else { Packet::Read { offset, size_bytes } })
}

/// User data only, which is what players of data discs ask for.
fn read_cd(cdb: &[u8; 16], disc: &dyn Disk) -> Result<Packet, Sense> {
    let count = u32_at(cdb, 5) & 0xff_ffff;
    match cdb[9] & 0xf8 {
        0 => Ok(Packet::Done),
        0x10 => read(disc, u32_at(cdb, 2), u32::from_be_bytes([0, cdb[6], cdb[7], cdb[8]])),
        _ if count == 0 => Ok(Packet::Done),
        _ => Err(INVALID_FIELD),
    }
}

fn inquiry() -> Vec<u8> {
    let mut bytes = vec![0x05, 0x80, 0x05, 0x32, 31, 0, 0, 0];
    bytes.extend(b"TRINE   ");
    bytes.extend(b"CD-ROM          ");
    bytes.extend(b"1.0 ");
    bytes
}

fn start_stop(cdb: &[u8; 16], cd: &mut Cd) -> Result<Packet, Sense> {
    let (start, load_eject) = (cdb[4] & 1 != 0, cdb[4] & 2 != 0);
    match (load_eject, start) {
        (true, false) if cd.locked => return Err(REMOVAL_PREVENTED),
        (true, false) => cd.ejected = true,
        (true, true) if cd.ejected => (cd.ejected, cd.changed, cd.inserted) = (false, true, true),
        _ => {}
    }
    Ok(Packet::Done)
}

/// Minutes, seconds and frames of a block.
fn msf(lba: u32) -> [u8; 4] {
    let frames = lba.saturating_add(150);
    [0, (frames / 75 / 60).min(255) as u8, (frames / 75 % 60) as u8, (frames % 75) as u8]
}

fn toc(cdb: &[u8; 16], disc: &dyn Disk) -> Result<Vec<u8>, Sense> {
    let address = |lba: u32| if cdb[1] & 2 != 0 { msf(lba) } else { lba.to_be_bytes() };
    let end = blocks(disc).min(u32::MAX.into()) as u32;
    // Old drivers have the format in the last byte.
    let format = if cdb[2] & 0xf == 0 { cdb[9] >> 6 } else { cdb[2] & 0xf };
    let mut bytes = vec![0, 0, 1, 1];
    match (format, cdb[6]) {
        (0, 0..=1 | LEAD_OUT) => {
            if cdb[6] <= 1 {
                bytes.extend([0, 0x14, 1, 0]);
                bytes.extend(address(0));
            }
            bytes.extend([0, 0x14, LEAD_OUT, 0]);
            bytes.extend(address(end));
        }
        (1, _) => {
            bytes.extend([0, 0x14, 1, 0]);
            bytes.extend(address(0));
        }
        (2, _) => {
            for (point, at) in
                [(0xa0, [0, 1, 0, 0]), (0xa1, [0, 1, 0, 0]), (0xa2, msf(end)), (1, msf(0))]
            {
                bytes.extend([1, 0x14, 0, point, 0, 0, 0]);
                bytes.extend(at);
            }
        }
        _ => return Err(INVALID_FIELD),
    }
    Ok(with_length(bytes))
}

fn configuration(cdb: &[u8; 16], disc: Option<&dyn Disk>) -> Vec<u8> {
    let current =
        disc.map_or(0, |disc| if blocks(disc) > CD_BLOCKS_MAX { PROFILE_DVD } else { PROFILE_CD });
    let mut bytes = vec![0; 8];
    bytes[6..8].copy_from_slice(&current.to_be_bytes());
    let (only, from) = (cdb[1] & 3 == 2, u16_at(cdb, 2));
    let mut feature = |code: u16, now: bool, version: u8, data: &[u8]| {
        if if only { code == from } else { code >= from } {
            bytes.extend(code.to_be_bytes());
            bytes.extend([version << 2 | 2 | u8::from(now), data.len() as u8]);
            bytes.extend(data);
        }
    };
    let profile = |profile: u16| {
        let [a, b] = profile.to_be_bytes();
        [a, b, u8::from(profile == current), 0]
    };
    feature(0, true, 0, &[profile(PROFILE_DVD), profile(PROFILE_CD)].concat());
    feature(1, true, 2, &[0, 0, 0, 8, 1, 0, 0, 0]); // core: ATAPI over Serial ATA
    feature(3, true, 0, &[0x29, 0, 0, 0]); // removable: tray, can be ejected and locked
    let readable = [0, 0, 8, 0, 0, 1, 0, 0];
    feature(0x10, disc.is_some(), 0, &readable); // random readable
    feature(0x1e, current == PROFILE_CD, 2, &[0; 4]);
    feature(0x1f, current == PROFILE_DVD, 0, &[]);
    let length = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// Polled only, and media events only.
fn event_status(cdb: &[u8; 16], cd: &mut Cd, disc: Option<&dyn Disk>) -> Result<Packet, Sense> {
    if cdb[1] & 1 == 0 {
        return Err(INVALID_FIELD);
    }
    const MEDIA: u8 = 1 << 4;
    let bytes = if cdb[4] & MEDIA == 0 {
        vec![0, 2, 0x80, MEDIA]
    } else {
        let event = if std::mem::take(&mut cd.inserted) && disc.is_some() { 2 } else { 0 };
        let status = u8::from(cd.ejected) | u8::from(disc.is_some()) << 1;
        vec![0, 6, 4, MEDIA, event, status, 0, 0]
    };
    Ok(cut(bytes, u16_at(cdb, 7).into()))
}

fn mode_sense(cdb: &[u8; 16], cd: &Cd) -> Result<Vec<u8>, Sense> {
    let recovery = [0x01, 0x06, 0, 5, 0, 0, 0, 0];
    // Reads CD-R and CD-RW; tray loading; can be locked and ejected.
    let mut capabilities = [0; 22];
    (capabilities[0], capabilities[1], capabilities[2]) = (0x2a, 20, 0x3b);
    capabilities[6] = 0x29 | u8::from(cd.locked) << 1;
    capabilities[8..10].copy_from_slice(&5632u16.to_be_bytes());
    capabilities[14..16].copy_from_slice(&5632u16.to_be_bytes());
    let mut bytes = vec![0, 0, if cd.ejected { 0x70 } else { 0x01 }, 0, 0, 0, 0, 0];
    match cdb[2] & 0x3f {
        0x01 => bytes.extend(recovery),
        0x2a => bytes.extend(capabilities),
        0x3f => bytes.extend(recovery.into_iter().chain(capabilities)),
        _ => return Err(INVALID_FIELD),
    }
    Ok(with_length(bytes))
}

/// IDENTIFY PACKET DEVICE.
pub(crate) fn identify(serial: &str) -> Vec<u8> {
    let mut words = Words::new(&[
        (0, 0x85c0), // CD-ROM, removable, packets of 12 bytes, ready at once
        (49, 0x0f00),
        (53, 0x0006),
        (63, 0x0007),
        (64, 0x0003),
        (65, 120),
        (66, 120),
        (67, 120),
        (68, 120),
        (76, 0x0006),
        (80, 0x01f0),
        (82, 0x4210), // packets, DEVICE RESET, NOP
        (83, 0x4000),
        (84, 0x4000),
        (85, 0x4210),
        (87, 0x4000),
        (88, 0x203f),
        (222, 0x101f),
    ]);
    words.text(10, 10, serial);
    words.text(23, 4, "1.0");
    words.text(27, 20, "TRINE CD-ROM");
    words.page()
}
