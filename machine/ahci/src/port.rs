//! A port: takes commands off its list, and tells what became of them.

use std::io;
use std::sync::Arc;

use guest_memory::{Access, DmaMemory, Lease};
use storage::{Disk, Transfer, Work};
use vm_memory::{Bytes, GuestAddress};

use crate::ata::{self, Command, Frame};
use crate::atapi::{self, Packet, READ_ERROR};
use crate::hba::Drive;
use crate::memory::Header;
use crate::spec::ata as ata_commands;
use crate::spec::*;
use crate::state::PortState;

/// What a command is to the disk.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Action {
    #[default]
    Flush,
    Read(u64),
    /// Durable if true.
    Write(u64, bool),
    Trim,
}

/// A command on its way to the disk. Used again for others, so that its memory is.
#[derive(Default)]
pub(crate) struct Job {
    action: Action,
    lease: Lease,
    /// Of a trim: offsets and sizes.
    ranges: Vec<(u64, u64)>,
    slot: u32,
    header: Option<Header>,
    /// The tag of a queued command.
    tag: Option<u8>,
    pio: bool,
    packet: bool,
}

impl Work for Box<Job> {
    fn transfer(&self) -> Option<Transfer<'_>> {
        match self.action {
            Action::Flush => Some(Transfer::Flush),
            Action::Read(offset) => Some(Transfer::Read(offset, self.lease.buffers())),
            Action::Write(offset, durable) => {
                Some(Transfer::Write(offset, self.lease.buffers(), durable))
            }
            Action::Trim => None,
        }
    }

    fn perform(&self, disk: &dyn Disk) -> io::Result<()> {
        self.ranges.iter().try_for_each(|(offset, size)| disk.discard(*offset, *size))
    }
}

/// A port: its state, and what is in flight.
#[derive(Default)]
pub(crate) struct Port {
    pub(crate) state: PortState,
    /// Slots that are in flight, as bits.
    running: u32,
    /// What is in flight is one command that is not queued.
    exclusive: bool,
    /// Jobs that are not in use.
    #[expect(clippy::vec_box, reason = "jobs go in and out of lanes, and are large")]
    spare: Vec<Box<Job>>,
}

/// How a command that is not queued ends: what goes into the task file.
struct Ending {
    status: u8,
    error: u8,
    pio: bool,
    packet: bool,
}

const GOOD: u8 = ST_DRDY | ST_DSC;

impl Port {
    /// The device as after power-up, and its link up. What the driver has set stays.
    pub(crate) fn reset_device(&mut self, drive: Option<&Drive>) {
        let state = &mut self.state;
        state.halted = false;
        state.resetting = false;
        state.multiple = 16;
        state.write_through = false;
        (state.lba, state.count) = (1, 1);
        (state.tfd, state.sig) = match drive {
            None => (TFD_NONE, SIG_NONE),
            Some(Drive::Disk { .. }) => (0x0100 | u32::from(GOOD), SIG_ATA),
            Some(Drive::Cdrom { .. }) => (0x0100, SIG_ATAPI),
        };
        state.signature_waits = drive.is_some();
    }

    /// Nothing of the list is left, and nothing is in flight.
    pub(crate) fn clear_list(&mut self) {
        let state = &mut self.state;
        (state.ci, state.sact, state.halted) = (0, 0, false);
        (self.running, self.exclusive) = (0, false);
    }

    /// Begins what can begin. Interrupts are left in the port's register.
    pub(crate) fn run(
        &mut self,
        memory: &Arc<DmaMemory>,
        drive: Option<&Drive>,
        push: &mut dyn FnMut(Box<Job>),
    ) {
        self.show_signature(memory);
        for slot in 0..u32::BITS {
            let waits = self.state.ci & !self.running & 1 << slot != 0;
            let may = self.state.cmd & CMD_CR != 0 && !self.state.halted && !self.exclusive;
            if waits && may {
                self.begin(slot, memory, drive, push);
            }
        }
    }

    /// Something of the list waits to begin.
    pub(crate) fn has_more(&self) -> bool {
        self.state.ci & !self.running != 0
    }

    /// After a reset, the device's first frame waits until it can be received (10.4.1).
    fn show_signature(&mut self, memory: &DmaMemory) {
        if self.state.signature_waits && self.state.cmd & CMD_FR != 0 {
            self.state.signature_waits = false;
            self.post_d2h(memory, false, 0);
        }
    }

    fn begin(
        &mut self,
        slot: u32,
        memory: &Arc<DmaMemory>,
        drive: Option<&Drive>,
        push: &mut dyn FnMut(Box<Job>),
    ) {
        self.state.cmd = self.state.cmd & !(0x1f << CMD_CCS_SHIFT) | slot << CMD_CCS_SHIFT;
        let read = Header::read(memory, self.state.clb, slot)
            .and_then(|header| Some((header, header.frame(memory)?)));
        let Some((header, frame)) = read else {
            // A list where no RAM is: the port stops, as for any error it cannot name.
            return self.end(memory, slot, None, 0, Ending::failed(ER_ABRT));
        };
        let Some(drive) = drive.filter(|_| frame[0] == FIS_H2D) else {
            self.state.ci &= !(1 << slot);
            return;
        };
        if frame[1] & FIS_COMMAND == 0 {
            return self.control(slot, &header, frame[15], memory, drive);
        }
        let mut job = self.spare.pop().unwrap_or_default();
        (job.slot, job.header) = (slot, Some(header));
        (job.tag, job.pio, job.packet) = (None, false, false);
        let decoded = self.decode(&frame, &header, memory, drive);
        job.packet = frame[2] == ata_commands::PACKET;
        let queued = matches!(
            decoded,
            Command::Read { tag: Some(_), .. } | Command::Write { tag: Some(_), .. }
        );
        if !queued && self.running != 0 {
            // It waits until the queue is empty.
            self.spare.push(job);
            return;
        }
        match self.prepare(decoded, &mut job, memory, drive) {
            Ok(()) => {
                self.running |= 1 << slot;
                self.exclusive = !queued;
                if queued {
                    // The device has taken it: the slot's bit is told by SACT from here on.
                    self.state.ci &= !(1 << slot);
                    self.state.sact |= 1 << slot;
                } else {
                    self.state.tfd = self.state.tfd & !0xff | 0x80;
                }
                push(job);
            }
            Err((size_bytes, ending)) => {
                self.spare.push(job);
                if queued {
                    return self.end_queued(memory, slot, ending.error);
                }
                self.end(memory, slot, Some(header), size_bytes, ending);
            }
        }
    }

    /// What the device does with a command, packets included.
    fn decode(
        &mut self,
        frame: &[u8; 64],
        header: &Header,
        memory: &DmaMemory,
        drive: &Drive,
    ) -> Command {
        let state = &mut self.state;
        (state.lba, state.count) = (0, 0);
        match drive {
            Drive::Disk { disk, serial } => ata::decode(Frame(frame), state, &**disk, serial),
            Drive::Cdrom { disk, serial } => match frame[2] {
                ata_commands::PACKET => {
                    let Some(cdb) = header.packet(memory) else { return Command::Fail(ER_ABRT) };
                    match atapi::decode(&cdb, &mut state.cd, disk.as_deref()) {
                        Packet::Done => Command::Done,
                        Packet::Data(bytes) => Command::Data(bytes),
                        Packet::Read { offset, size_bytes } => {
                            Command::Read { offset, size_bytes, tag: None, pio: false }
                        }
                        Packet::Check => Command::Fail(state.cd.sense.0 << 4),
                    }
                }
                ata_commands::IDENTIFY_PACKET => Command::Data(atapi::identify(serial)),
                ata_commands::DEVICE_RESET | ata_commands::EXECUTE_DIAGNOSTIC => Command::Reset,
                ata_commands::SET_FEATURES
                | ata_commands::STANDBY_IMMEDIATE
                | ata_commands::IDLE_IMMEDIATE
                | ata_commands::CHECK_POWER => Command::Done,
                _ => {
                    // Also to IDENTIFY DEVICE: it shows the signature (7.12.4 of ACS-3).
                    (state.lba, state.count) = (0xeb_1401, 1);
                    Command::Fail(ER_ABRT)
                }
            },
        }
    }

    /// Makes a job of a command, or says how it has ended already.
    fn prepare(
        &mut self,
        command: Command,
        job: &mut Job,
        memory: &Arc<DmaMemory>,
        drive: &Drive,
    ) -> Result<(), (u64, Ending)> {
        let failed = |error| (0, Ending::failed(error).of_packet(job.packet));
        let Some(header) = job.header else { return Err(failed(ER_ABRT)) };
        let done = (0, Ending::good(false).of_packet(job.packet));
        match command {
            Command::Done => return Err(done),
            Command::Fail(error) => return Err(failed(error)),
            Command::Reset => {
                self.reset_device(Some(drive));
                self.state.signature_waits = false;
                return Err((0, Ending { error: 1, ..Ending::good(false) }));
            }
            Command::Data(bytes) => {
                let Some(size) = header.put(memory, &bytes) else { return Err(failed(ER_ABRT)) };
                return Err((size, Ending::good(!job.packet).of_packet(job.packet)));
            }
            Command::Flush => job.action = Action::Flush,
            Command::Read { offset, size_bytes, tag, pio } => {
                let leased = header.lease(&mut job.lease, memory, Access::Write, size_bytes);
                leased.ok_or_else(|| failed(ER_ABRT))?;
                (job.action, job.tag, job.pio) = (Action::Read(offset), tag, pio);
            }
            Command::Write { offset, size_bytes, tag, durable } => {
                let leased = header.lease(&mut job.lease, memory, Access::Read, size_bytes);
                leased.ok_or_else(|| failed(ER_ABRT))?;
                let durable = durable || self.state.write_through;
                (job.action, job.tag) = (Action::Write(offset, durable), tag);
            }
            Command::Trim(blocks) => {
                let mut data = vec![0; blocks as usize * 512];
                header.get(memory, &mut data).ok_or_else(|| failed(ER_ABRT))?;
                job.ranges.clear();
                for entry in data.as_chunks::<8>().0 {
                    let entry = u64::from_le_bytes(*entry);
                    let (lba, sectors) = (entry & 0xffff_ffff_ffff, entry >> 48);
                    if sectors > 0 {
                        job.ranges.push((lba * 512, sectors * 512));
                    }
                }
                job.action = Action::Trim;
            }
        }
        Ok(())
    }

    /// A frame that writes the device control register: software reset (11.4 of Serial ATA).
    fn control(
        &mut self,
        slot: u32,
        header: &Header,
        control: u8,
        memory: &DmaMemory,
        drive: &Drive,
    ) {
        let asserted = control & SRST != 0;
        if self.state.resetting && !asserted {
            self.reset_device(Some(drive));
            self.state.signature_waits = false;
            self.post_d2h(memory, false, 0);
        }
        self.state.resetting = asserted;
        if asserted && !header.clears_busy() {
            self.state.tfd |= 0x80;
        }
        self.state.ci &= !(1 << slot);
    }

    /// A job has come back from the disk.
    pub(crate) fn finish(
        &mut self,
        mut job: Box<Job>,
        result: &io::Result<()>,
        memory: &DmaMemory,
    ) {
        let size_bytes = job.lease.size_bytes() as u64;
        job.lease.end();
        let slot = job.slot;
        // What a reset has forgotten is not told.
        if self.running & 1 << slot != 0 {
            self.running &= !(1 << slot);
            if job.tag.is_some() {
                let error = if result.is_ok() { 0 } else { ER_UNC };
                self.end_queued(memory, slot, error);
            } else {
                self.exclusive = false;
                let ending = match (result, job.packet) {
                    (Ok(()), packet) => Ending::good(job.pio).of_packet(packet),
                    (Err(_), true) => {
                        self.state.cd.sense = READ_ERROR;
                        Ending::failed(READ_ERROR.0 << 4).of_packet(true)
                    }
                    (Err(_), false) => Ending::failed(ER_UNC),
                };
                self.end(memory, slot, job.header, size_bytes, ending);
            }
        }
        self.spare.push(job);
    }

    /// Ends a command that is not queued: its frames, its bit, and what the driver learns.
    fn end(
        &mut self,
        memory: &DmaMemory,
        slot: u32,
        header: Option<Header>,
        size_bytes: u64,
        ending: Ending,
    ) {
        let Ending { status, error, pio, packet } = ending;
        self.state.tfd = u32::from(status) | u32::from(error) << 8;
        let failed = status & ST_ERR != 0;
        if let Some(header) = header {
            header.transferred(memory, if failed { 0 } else { size_bytes });
        }
        if pio && !failed {
            self.post_pio_setup(memory, size_bytes);
        } else {
            // Interrupt reason of a packet: the command is complete.
            self.post_d2h(memory, true, if packet { 3 } else { 0 });
        }
        if failed {
            self.state.halted = true;
            self.state.is |= IS_TFES;
        } else {
            self.state.ci &= !(1 << slot);
        }
    }

    /// Ends a queued command by a set device bits frame (11.15 of Serial ATA).
    fn end_queued(&mut self, memory: &DmaMemory, slot: u32, error: u8) {
        let failed = error != 0;
        let status = if failed { GOOD | ST_ERR } else { GOOD };
        self.state.tfd = u32::from(status) | u32::from(error) << 8;
        let bit = 1u32 << slot;
        self.state.ci &= !bit;
        if failed {
            self.state.ncq_error = (slot as u8, error);
            self.state.sact |= bit;
            self.state.halted = true;
            self.state.is |= IS_TFES;
        } else {
            self.state.sact &= !bit;
        }
        let done = if failed { 0 } else { bit };
        let mut frame = [FIS_SDB, FIS_INTERRUPT, status & 0x77, error, 0, 0, 0, 0];
        frame[4..].copy_from_slice(&done.to_le_bytes());
        self.post(memory, RX_SDB, &frame);
        self.state.is |= IS_SDBS;
    }

    fn post_d2h(&mut self, memory: &DmaMemory, interrupt: bool, reason: u8) {
        let state = &self.state;
        let [status, error, ..] = state.tfd.to_le_bytes();
        let mut frame = [0; 20];
        frame[..4].copy_from_slice(&[
            FIS_D2H,
            if interrupt { FIS_INTERRUPT } else { 0 },
            status,
            error,
        ]);
        let signature = state.sig.to_le_bytes();
        let lba = if interrupt {
            state.lba.to_le_bytes()
        } else {
            [signature[1], signature[2], signature[3], 0, 0, 0, 0, 0]
        };
        frame[4..7].copy_from_slice(&lba[..3]);
        frame[8..11].copy_from_slice(&lba[3..6]);
        frame[12] = if interrupt { state.count | reason } else { 1 };
        self.post(memory, RX_D2H, &frame);
        if interrupt {
            self.state.is |= IS_DHRS;
        }
    }

    fn post_pio_setup(&mut self, memory: &DmaMemory, size_bytes: u64) {
        let mut frame = [0; 20];
        let [status, error, ..] = self.state.tfd.to_le_bytes();
        frame[..4].copy_from_slice(&[
            FIS_PIO_SETUP,
            FIS_INTERRUPT | FIS_DEVICE_TO_HOST,
            status | ST_DRQ,
            error,
        ]);
        frame[15] = status;
        frame[16..18].copy_from_slice(&(size_bytes.min(0xfffe) as u16).to_le_bytes());
        self.post(memory, RX_PIO_SETUP, &frame);
        self.state.is |= IS_PSS;
    }

    /// Writes a frame where the driver receives them. Where no RAM is, it is lost.
    fn post(&self, memory: &DmaMemory, at: u64, frame: &[u8]) {
        if self.state.cmd & CMD_FR != 0 {
            let _ = memory.write_slice(frame, GuestAddress(self.state.fb.wrapping_add(at)));
        }
    }
}

impl Ending {
    fn good(pio: bool) -> Self {
        Self { status: GOOD, error: 0, pio, packet: false }
    }

    fn failed(error: u8) -> Self {
        Self { status: ST_DRDY | ST_ERR, error, pio: false, packet: false }
    }

    fn of_packet(self, packet: bool) -> Self {
        Self { packet, ..self }
    }
}
