//! Commands of the admin queue (5).

use guest_memory::DmaMemory;
use vm_memory::{Bytes, GuestAddress};

use crate::controller::{Command, FEATURES, Inside, NvmeConfig};
use crate::prp;
use crate::spec::*;
use crate::state::{Cq, Sq};

/// What is told of a command that has ended: status and result.
type Ended = Result<u32, Status>;

/// Does what is asked for; `None` when its end comes later, or never.
pub(crate) fn perform(
    command: &Command<'_>,
    inside: &mut Inside,
    memory: &DmaMemory,
    config: &NvmeConfig,
) -> Option<(Status, u32)> {
    let ended = match command.opcode() {
        _ if !command.is_plain() => Err(INVALID_FIELD),
        admin::CREATE_CQ => create_cq(command, inside),
        admin::CREATE_SQ => create_sq(command, inside),
        admin::DELETE_CQ => delete_cq(command, inside),
        admin::DELETE_SQ => delete_sq(command, inside).transpose()?,
        admin::IDENTIFY => identify(command, config).and_then(|page| put(command, memory, &page)),
        admin::GET_LOG_PAGE => log_page(command).and_then(|page| put_log(command, memory, &page)),
        admin::SET_FEATURES => set_feature(command, inside, config),
        admin::GET_FEATURES => get_feature(command, inside, config),
        // What is in flight ends soon: nothing is ever aborted.
        admin::ABORT => Ok(1),
        admin::ASYNC_EVENT_REQUEST if inside.state.events.len() >= EVENTS_MAX => {
            Err(EVENTS_EXCEEDED)
        }
        admin::ASYNC_EVENT_REQUEST => {
            inside.state.events.push(command.cid());
            return None;
        }
        _ => Err(INVALID_OPCODE),
    };
    Some(ended.map_or_else(|status| (status, 0), |result| (SUCCESS, result)))
}

/// Identifier and number of entries of a queue to be made.
fn queue(command: &Command<'_>, count: usize) -> Result<(usize, u32), Status> {
    let (id, entries) = ((command.dword(10) & 0xffff) as usize, (command.dword(10) >> 16) + 1);
    if id == 0 || id >= count {
        return Err(QUEUE_ID_INVALID);
    }
    if !(2..=ENTRIES_MAX).contains(&entries) {
        return Err(QUEUE_SIZE_INVALID);
    }
    // Contiguous ones only, as CAP says.
    if command.dword(11) & 1 == 0 {
        return Err(INVALID_FIELD);
    }
    Ok((id, entries))
}

fn create_cq(command: &Command<'_>, inside: &mut Inside) -> Ended {
    let (id, entries) = queue(command, inside.state.cqs.len())?;
    let vector = (command.dword(11) >> 16) as u16;
    if inside.state.cqs[id].entries > 0 {
        return Err(QUEUE_ID_INVALID);
    }
    if usize::from(vector) >= inside.state.cqs.len() {
        return Err(VECTOR_INVALID);
    }
    let base = command.qword(6);
    if !base.is_multiple_of(PAGE) {
        return Err(PRP_OFFSET_INVALID);
    }
    let vector = (command.dword(11) & 2 != 0).then_some(vector);
    inside.state.cqs[id] = Cq { base, entries, phase: true, vector, ..Cq::default() };
    Ok(0)
}

fn create_sq(command: &Command<'_>, inside: &mut Inside) -> Ended {
    let (id, entries) = queue(command, inside.state.sqs.len())?;
    let cq = (command.dword(11) >> 16) as u16;
    if inside.state.sqs[id].entries > 0 {
        return Err(QUEUE_ID_INVALID);
    }
    let exists = inside.state.cqs.get(usize::from(cq)).is_some_and(|queue| queue.entries > 0);
    if cq == 0 || !exists {
        return Err(CQ_INVALID);
    }
    let base = command.qword(6);
    if !base.is_multiple_of(PAGE) {
        return Err(PRP_OFFSET_INVALID);
    }
    inside.state.sqs[id] = Sq { base, entries, cq, ..Sq::default() };
    Ok(0)
}

fn delete_cq(command: &Command<'_>, inside: &mut Inside) -> Ended {
    let id = (command.dword(10) & 0xffff) as usize;
    let exists = inside.state.cqs.get(id).is_some_and(|queue| queue.entries > 0);
    if id == 0 || !exists {
        return Err(QUEUE_ID_INVALID);
    }
    if inside.state.sqs.iter().any(|sq| sq.entries > 0 && usize::from(sq.cq) == id) {
        return Err(QUEUE_DELETION_INVALID);
    }
    inside.state.cqs[id] = Cq::default();
    Ok(0)
}

/// While commands of the queue are in flight, its end waits for theirs.
fn delete_sq(command: &Command<'_>, inside: &mut Inside) -> Result<Option<u32>, Status> {
    let id = (command.dword(10) & 0xffff) as usize;
    let Some(sq) = inside
        .state
        .sqs
        .get_mut(id)
        .filter(|sq| id != 0 && sq.entries > 0 && sq.deleting.is_none())
    else {
        return Err(QUEUE_ID_INVALID);
    };
    if inside.in_flight[id] > 0 {
        sq.deleting = Some(command.cid());
        return Ok(None);
    }
    *sq = Sq::default();
    Ok(Some(0))
}

fn put(command: &Command<'_>, memory: &DmaMemory, data: &[u8]) -> Ended {
    let (prp1, prp2) = command.prps();
    let mut left = data;
    prp::ranges(memory, prp1, prp2, data.len() as u64, |gpa, size| {
        let (now, rest) = left.split_at_checked(size)?;
        left = rest;
        memory.write_slice(now, GuestAddress(gpa)).ok()
    })?;
    Ok(0)
}

/// The part of a log page that is asked for: dwords from an offset.
fn put_log(command: &Command<'_>, memory: &DmaMemory, page: &[u8]) -> Ended {
    let dwords = u64::from(command.dword(10) >> 16) | u64::from(command.dword(11) & 0xffff) << 16;
    let (size, offset) = ((dwords + 1) * 4, command.qword(12));
    let rest = usize::try_from(offset).ok().and_then(|at| page.get(at..)).ok_or(INVALID_FIELD)?;
    // Beyond the page, nothing is said.
    let size = usize::try_from(size).unwrap_or(usize::MAX).min(rest.len());
    if size == 0 { Ok(0) } else { put(command, memory, &rest[..size]) }
}

fn log_page(command: &Command<'_>) -> Result<Vec<u8>, Status> {
    match command.dword(10) & 0xff {
        // No errors are kept.
        0x01 => Ok(vec![0; 64]),
        // SMART: healthy, at room temperature, all spare blocks there.
        0x02 => {
            let mut page = vec![0; 512];
            page[1..3].copy_from_slice(&300u16.to_le_bytes());
            (page[3], page[4]) = (100, 10);
            Ok(page)
        }
        // Firmware slots: the first is active.
        0x03 => {
            let mut page = vec![0; 512];
            page[0] = 1;
            page[8..16].copy_from_slice(b"1.0     ");
            Ok(page)
        }
        _ => Err(LOG_PAGE_INVALID),
    }
}

fn set_feature(command: &Command<'_>, inside: &mut Inside, config: &NvmeConfig) -> Ended {
    let (id, value) = ((command.dword(10) & 0xff) as usize, command.dword(11));
    match id {
        7 => return Ok(queues(config)),
        1 | 2 | 4 | 5 | 6 | 8 | 9 | 10 | 11 if id < FEATURES => inside.state.features[id] = value,
        _ => return Err(INVALID_FIELD),
    }
    Ok(0)
}

fn get_feature(command: &Command<'_>, inside: &Inside, config: &NvmeConfig) -> Ended {
    match (command.dword(10) & 0xff) as usize {
        7 => Ok(queues(config)),
        id @ (1 | 2 | 4 | 5 | 6 | 8 | 9 | 10 | 11) => {
            inside.state.features.get(id).copied().ok_or(INVALID_FIELD)
        }
        _ => Err(INVALID_FIELD),
    }
}

/// Numbers of I/O queues, less one each.
fn queues(config: &NvmeConfig) -> u32 {
    let count = u32::from(config.queues) - 1;
    count | count << 16
}

fn identify(command: &Command<'_>, config: &NvmeConfig) -> Result<Vec<u8>, Status> {
    let namespace = command.namespace();
    match command.dword(10) & 0xff {
        0 if namespace == NAMESPACE => Ok(namespace_page(config)),
        0 if namespace == NAMESPACES_ALL => Err(INVALID_NAMESPACE),
        0 => Ok(vec![0; PAGE as usize]),
        1 => Ok(controller_page(config)),
        2 => {
            let mut page = vec![0; PAGE as usize];
            if namespace < NAMESPACE {
                page[..4].copy_from_slice(&NAMESPACE.to_le_bytes());
            }
            Ok(page)
        }
        3 if namespace == NAMESPACE => {
            // One descriptor: a UUID (type 3) made of the serial number.
            let mut page = vec![0; PAGE as usize];
            (page[0], page[1]) = (3, 16);
            text(&mut page[4..20], &config.serial);
            Ok(page)
        }
        3 => Err(INVALID_NAMESPACE),
        _ => Err(INVALID_FIELD),
    }
}

fn text(to: &mut [u8], text: &str) {
    to.fill(b' ');
    to.iter_mut().zip(text.bytes()).for_each(|(to, byte)| *to = byte);
}

fn namespace_page(config: &NvmeConfig) -> Vec<u8> {
    let mut page = vec![0; PAGE as usize];
    let blocks = config.disk.info().size_bytes / BLOCK;
    for at in [0, 8, 16] {
        page[at..at + 8].copy_from_slice(&blocks.to_le_bytes());
    }
    page[99] = u8::from(config.disk.info().read_only); // NSATTR: write protected
    page[130] = BLOCK.trailing_zeros() as u8;
    page
}

fn controller_page(config: &NvmeConfig) -> Vec<u8> {
    let mut page = vec![0; PAGE as usize];
    page[..2].copy_from_slice(&0x1b36u16.to_le_bytes());
    page[2..4].copy_from_slice(&0x1af4u16.to_le_bytes());
    text(&mut page[4..24], &config.serial);
    text(&mut page[24..64], "TRINE NVMe");
    text(&mut page[64..72], "1.0");
    page[77] = MDTS;
    page[80..84].copy_from_slice(&VS_VALUE.to_le_bytes());
    page[111] = 1; // an I/O controller
    page[258] = 3; // aborts at a time, less one
    page[259] = EVENTS_MAX as u8 - 1;
    page[260] = 3; // one firmware slot, which cannot be written
    page[266..268].copy_from_slice(&343u16.to_le_bytes());
    page[268..270].copy_from_slice(&373u16.to_le_bytes());
    (page[512], page[513]) = (0x66, 0x44); // sizes of queue entries
    page[516..520].copy_from_slice(&1u32.to_le_bytes());
    page[520] = 1 << 2 | 1 << 3; // DATASET MANAGEMENT and WRITE ZEROES
    page[525] = 1; // there is a write cache
    let name = format!("nqn.2014.08.org.nvmexpress:1b361af4{:20}TRINE NVMe", config.serial);
    page[768..1024].iter_mut().zip(name.bytes()).for_each(|(to, byte)| *to = byte);
    page
}
