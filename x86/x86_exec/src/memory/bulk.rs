//! Structures of many bytes, and runs for string instructions.

use x86_mmu::Access;
use x86_state::SegReg;

use super::slow::Target;
use crate::{Cpu, Env, Fault, HostAddr, Mode};

/// Largest structure an instruction accesses as a whole: it touches two pages at most.
pub const STRUCTURE_MAX: usize = 4096;

/// Memory inside of one page and its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Where it starts.
    pub at: HostAddr,
    /// How many bytes, at least 1, may be accessed from there without another look.
    pub size: usize,
}

impl<E: Env> Cpu<E> {
    /// Reads a structure of at most [`STRUCTURE_MAX`] bytes. All of it is checked first.
    ///
    /// # Errors
    /// The exception; `data` is unchanged.
    pub fn read_bytes(&mut self, seg: SegReg, offset: u64, data: &mut [u8]) -> Result<(), Fault> {
        assert!(data.len() <= STRUCTURE_MAX);
        let place = self.operand(seg, offset, data.len(), Access::Read)?;
        self.place_bytes_read(&place, data);
        Ok(())
    }

    /// Writes a structure of at most [`STRUCTURE_MAX`] bytes: all of it, or nothing.
    ///
    /// # Errors
    /// The exception.
    pub fn write_bytes(&mut self, seg: SegReg, offset: u64, data: &[u8]) -> Result<(), Fault> {
        assert!(data.len() <= STRUCTURE_MAX);
        let place = self.operand(seg, offset, data.len(), Access::Write)?;
        self.place_bytes_write(&place, data);
        Ok(())
    }

    /// Checks that a structure of at most [`STRUCTURE_MAX`] bytes can be accessed.
    ///
    /// # Errors
    /// The exception.
    pub fn probe(
        &mut self,
        seg: SegReg,
        offset: u64,
        size: usize,
        access: Access,
    ) -> Result<(), Fault> {
        assert!(size <= STRUCTURE_MAX);
        self.operand(seg, offset, size, access).map(|_| ())
    }

    /// Bytes from `offset` upwards that can be read directly. `None` when each element must be
    /// read by [`Cpu::read`]: not memory, or something looks at each access.
    ///
    /// # Errors
    /// The exception that reading the byte at `offset` raises.
    pub fn host_for_read(&mut self, seg: SegReg, offset: u64) -> Result<Option<Run>, Fault> {
        self.run_of(seg, offset, Access::Read)
    }

    /// Bytes from `offset` upwards that can be written directly, by [`Env::write`], or with
    /// [`Env::mark_written`] after. `None` when each element must be written by [`Cpu::write`].
    ///
    /// # Errors
    /// The exception that writing the byte at `offset` raises.
    pub fn host_for_write(&mut self, seg: SegReg, offset: u64) -> Result<Option<Run>, Fault> {
        self.run_of(seg, offset, Access::Write)
    }

    fn run_of(&mut self, seg: SegReg, offset: u64, access: Access) -> Result<Option<Run>, Fault> {
        if self.alignment_checked || self.data_breakpoints != 0 {
            return Ok(None);
        }
        let linear = self.linear(seg, offset, 1, access)?;
        let hit = match access {
            Access::Write => self.mmu.hit_write(linear, 1),
            Access::Read | Access::Execute => self.mmu.hit_read(linear, 1),
        };
        let at = match hit {
            Some(at) => HostAddr(at),
            None => match self.translate(linear, access, self.mmu.privilege())? {
                Target::Ram(at) => at,
                Target::Rom(at, _) if access == Access::Read => at,
                Target::Rom(..) | Target::Bus(_) => return Ok(None),
            },
        };
        let size = (0x1000 - (linear & 0xfff)).min(self.room(seg, offset));
        Ok(Some(Run { at, size: size as usize }))
    }

    /// Bytes from a valid offset to the end of its segment.
    fn room(&self, seg: SegReg, offset: u64) -> u64 {
        let segment = &self.segments[seg as usize];
        match self.mode {
            Mode::Long64 => u64::MAX,
            Mode::Real | Mode::Virtual8086 => u64::from(segment.limit) + 1 - offset,
            _ => super::slow::last_offset(segment) + 1 - offset,
        }
    }
}
