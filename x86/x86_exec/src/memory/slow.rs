//! What the hit path does not do.

use x86_mmu::{Access, Privilege, Translation};
use x86_state::{Exception, SegReg, Segment};

use super::{Tables, Word};
use crate::{Backing, Cpu, Env, Fault, HostAddr, Mode};

/// What is behind a piece of linear memory inside one page.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// Memory.
    Ram(HostAddr),
    /// Memory whose writes go to the bus, at this guest-physical address.
    Rom(HostAddr, u64),
    /// The bus, at this guest-physical address.
    Bus(u64),
}

/// Up to 16 bytes of linear memory that may be accessed: in one page or two.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    first: Target,
    first_size: usize,
    second: Option<Target>,
    size: usize,
}

impl Place {
    /// All of it is plain memory in one page.
    pub(super) fn ram(&self) -> Option<HostAddr> {
        match (self.first, self.second) {
            (Target::Ram(at), None) => Some(at),
            _ => None,
        }
    }
}

/// A canonical 48-bit address.
pub(crate) const fn is_canonical(linear: u64) -> bool {
    ((linear as i64) << 16 >> 16) as u64 == linear
}

impl<E: Env> Cpu<E> {
    /// Checks `size` bytes of a segment and gives their linear address (SDM vol. 3A, 5.3, 5.5).
    ///
    /// # Errors
    /// #GP(0), or #SS(0) in the stack segment.
    pub fn linear(
        &mut self,
        seg: SegReg,
        offset: u64,
        size: u64,
        access: Access,
    ) -> Result<u64, Fault> {
        let segment = self.segments[seg as usize];
        let linear = self.segment_base(seg as usize).wrapping_add(offset);
        let last = size.wrapping_sub(1);
        let valid = if self.mode.is_64() {
            is_canonical(linear) && is_canonical(linear.wrapping_add(last))
        } else {
            self.allows(&segment, access) && in_limit(&segment, offset, last)
        };
        if !valid {
            return Err(match seg {
                SegReg::Ss => self.raise_code(Exception::Ss, 0),
                _ => self.gp0(),
            });
        }
        Ok(if self.mode.is_64() { linear } else { linear & 0xffff_ffff })
    }

    fn allows(&self, segment: &Segment, access: Access) -> bool {
        if matches!(self.mode, Mode::Real | Mode::Virtual8086) {
            return true;
        }
        if segment.has(Segment::UNUSABLE) {
            return false;
        }
        match access {
            Access::Read => !segment.has(Segment::CODE) || segment.has(Segment::WRITABLE_READABLE),
            Access::Write => !segment.has(Segment::CODE) && segment.has(Segment::WRITABLE_READABLE),
            Access::Execute => true,
        }
    }

    /// Translates one address, and says what is there.
    ///
    /// # Errors
    /// The page fault.
    pub(crate) fn translate(
        &mut self,
        linear: u64,
        access: Access,
        privilege: Privilege,
    ) -> Result<Target, Fault> {
        let (found, backing) = self.walk(linear, access, privilege)?;
        let offset = found.gpa & 0xfff;
        Ok(match backing {
            Backing::Ram(host) => Target::Ram(HostAddr(host.0 + offset)),
            Backing::Rom(host) => Target::Rom(HostAddr(host.0 + offset), found.gpa),
            Backing::Bus => Target::Bus(found.gpa),
        })
    }

    /// Walks, says what is at the page, and keeps it in the TLB when that is memory.
    #[inline(always)]
    pub(super) fn walk(
        &mut self,
        linear: u64,
        access: Access,
        privilege: Privilege,
    ) -> Result<(Translation, Backing), Fault> {
        let paging = *self.mmu.paging();
        let found = x86_mmu::walk(&mut Tables(&mut self.env), &paging, linear, access, privilege);
        let found = match found {
            Ok(found) => found,
            Err(code) => return Err(self.page_fault(linear, code.0)),
        };
        let backing = self.env.backing(found.gpa & !0xfff);
        let (host, ram) = match backing {
            Backing::Ram(host) => (host, true),
            Backing::Rom(host) => (host, false),
            Backing::Bus => return Ok((found, backing)),
        };
        self.mmu.fill(linear, &found, x86_mmu::Rights { host: host.0, ram });
        Ok((found, backing))
    }

    /// Translates up to 16 bytes, both pages before either is touched.
    ///
    /// # Errors
    /// The page fault.
    pub(crate) fn place(
        &mut self,
        linear: u64,
        size: usize,
        access: Access,
        privilege: Privilege,
    ) -> Result<Place, Fault> {
        let first = self.translate(linear, access, privilege)?;
        let room = 0x1000 - (linear & 0xfff) as usize;
        if size <= room {
            return Ok(Place { first, first_size: size, second: None, size });
        }
        let next = self.wrap_linear(linear.wrapping_add(room as u64));
        let second = Some(self.translate(next, access, privilege)?);
        Ok(Place { first, first_size: room, second, size })
    }

    /// Linear addresses have 32 bits outside of 64-bit code.
    pub(crate) fn wrap_linear(&self, linear: u64) -> u64 {
        if self.mode.is_long() { linear } else { linear & 0xffff_ffff }
    }

    fn target_read(&mut self, target: Target, data: &mut [u8]) {
        match target {
            Target::Ram(at) | Target::Rom(at, _) => self.env.read(at, data),
            Target::Bus(gpa) => self.env.mmio_read(gpa, data),
        }
    }

    fn target_write(&mut self, target: Target, data: &[u8]) {
        match target {
            Target::Ram(at) => self.code_written |= self.env.write(at, data),
            Target::Rom(_, gpa) | Target::Bus(gpa) => self.env.mmio_write(gpa, data),
        }
    }

    pub(super) fn place_bytes_read(&mut self, place: &Place, data: &mut [u8]) {
        let (first, second) = data.split_at_mut(place.first_size);
        self.target_read(place.first, first);
        if let Some(target) = place.second {
            self.target_read(target, second);
        }
    }

    pub(super) fn place_bytes_write(&mut self, place: &Place, data: &[u8]) {
        let (first, second) = data.split_at(place.first_size);
        self.target_write(place.first, first);
        if let Some(target) = place.second {
            self.target_write(target, second);
        }
    }

    /// Reads a word of the place's size.
    pub(super) fn place_read(&mut self, place: &Place) -> u64 {
        // One access of the word's size where the page is one: other CPUs must not see halves.
        if let (Target::Ram(at) | Target::Rom(at, _), None) = (place.first, place.second) {
            match place.size {
                1 => return self.env.load8(at).into(),
                2 => return self.env.load16(at).into(),
                4 => return self.env.load32(at).into(),
                8 => return self.env.load64(at),
                _ => {}
            }
        }
        let mut bytes = [0; 8];
        self.place_bytes_read(place, &mut bytes[..place.size]);
        u64::from_le_bytes(bytes)
    }

    /// Writes a word of the place's size.
    pub(super) fn place_write(&mut self, place: &Place, value: u64) {
        if let Some(at) = place.ram() {
            match place.size {
                1 => self.env.store8(at, value as u8),
                2 => self.env.store16(at, value as u16),
                4 => self.env.store32(at, value as u32),
                _ => self.env.store64(at, value),
            }
            self.stored(at, place.size);
            return;
        }
        self.place_bytes_write(place, &value.to_le_bytes()[..place.size]);
    }

    /// All checks of an operand: segment, alignment, pages, breakpoints.
    pub(super) fn operand(
        &mut self,
        seg: SegReg,
        offset: u64,
        size: usize,
        access: Access,
    ) -> Result<Place, Fault> {
        let linear = self.linear(seg, offset, size as u64, access)?;
        if self.alignment_checked && size <= 8 && linear & (size as u64 - 1) != 0 {
            return Err(self.raise_code(Exception::Ac, 0));
        }
        let place = self.place(linear, size, access, self.mmu.privilege())?;
        if self.data_breakpoints != 0 {
            self.note_data_breakpoints(linear, size as u64, access == Access::Write);
        }
        Ok(place)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn read_slow<T: Word>(&mut self, seg: SegReg, offset: u64) -> Result<T, Fault> {
        let place = self.operand(seg, offset, T::SIZE, Access::Read)?;
        Ok(T::from_u64(self.place_read(&place)))
    }

    #[cold]
    #[inline(never)]
    pub(super) fn write_slow<T: Word>(
        &mut self,
        seg: SegReg,
        offset: u64,
        value: T,
    ) -> Result<(), Fault> {
        let place = self.operand(seg, offset, T::SIZE, Access::Write)?;
        self.place_write(&place, value.to_u64());
        Ok(())
    }

    #[cold]
    #[inline(never)]
    pub(super) fn place_for_modify(
        &mut self,
        seg: SegReg,
        offset: u64,
        size: usize,
    ) -> Result<Place, Fault> {
        self.operand(seg, offset, size, Access::Write)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn read_u128_slow(
        &mut self,
        seg: SegReg,
        offset: u64,
        aligned: bool,
    ) -> Result<u128, Fault> {
        self.check_aligned(seg, offset, aligned)?;
        let place = self.operand(seg, offset, 16, Access::Read)?;
        let mut bytes = [0; 16];
        self.place_bytes_read(&place, &mut bytes);
        Ok(u128::from_le_bytes(bytes))
    }

    #[cold]
    #[inline(never)]
    pub(super) fn write_u128_slow(
        &mut self,
        seg: SegReg,
        offset: u64,
        value: u128,
        aligned: bool,
    ) -> Result<(), Fault> {
        self.check_aligned(seg, offset, aligned)?;
        let place = self.operand(seg, offset, 16, Access::Write)?;
        self.place_bytes_write(&place, &value.to_le_bytes());
        Ok(())
    }

    fn check_aligned(&mut self, seg: SegReg, offset: u64, aligned: bool) -> Result<(), Fault> {
        if aligned && self.segment_base(seg as usize).wrapping_add(offset) & 15 != 0 {
            return Err(self.gp0());
        }
        Ok(())
    }

    /// LOCK CMPXCHG16B: returns what was there. #GP(0) when not aligned.
    ///
    /// # Errors
    /// The exception.
    pub fn cmpxchg_u128(
        &mut self,
        seg: SegReg,
        offset: u64,
        old: u128,
        new: u128,
    ) -> Result<u128, Fault> {
        self.check_aligned(seg, offset, true)?;
        let place = self.operand(seg, offset, 16, Access::Write)?;
        if let Some(at) = place.ram() {
            let seen = self.env.cmpxchg128(at, old, new);
            self.stored(at, 16);
            return Ok(seen);
        }
        let mut bytes = [0; 16];
        self.place_bytes_read(&place, &mut bytes);
        let seen = u128::from_le_bytes(bytes);
        let value = if seen == old { new } else { seen };
        self.place_bytes_write(&place, &value.to_le_bytes());
        Ok(seen)
    }

    /// Reads at a linear address, on behalf of `privilege`. No segment, no alignment check.
    ///
    /// # Errors
    /// The page fault.
    pub fn read_linear<T: Word>(&mut self, linear: u64, privilege: Privilege) -> Result<T, Fault> {
        let linear = self.wrap_linear(linear);
        if let Some(at) = self.mmu.hit_as(linear, T::SIZE as u64, Access::Read, privilege) {
            return Ok(T::load(&self.env, HostAddr(at)));
        }
        let place = self.place(linear, T::SIZE, Access::Read, privilege)?;
        Ok(T::from_u64(self.place_read(&place)))
    }

    /// Writes at a linear address, on behalf of `privilege`.
    ///
    /// # Errors
    /// The page fault.
    pub fn write_linear<T: Word>(
        &mut self,
        linear: u64,
        value: T,
        privilege: Privilege,
    ) -> Result<(), Fault> {
        let linear = self.wrap_linear(linear);
        if let Some(at) = self.mmu.hit_as(linear, T::SIZE as u64, Access::Write, privilege) {
            T::store(&self.env, HostAddr(at), value);
            self.stored(HostAddr(at), T::SIZE);
            return Ok(());
        }
        let place = self.place(linear, T::SIZE, Access::Write, privilege)?;
        self.place_write(&place, value.to_u64());
        Ok(())
    }

    /// Replaces bits of a descriptor-table word, atomically.
    ///
    /// # Errors
    /// The page fault.
    pub(crate) fn change_linear32(
        &mut self,
        linear: u64,
        clear: u32,
        set: u32,
    ) -> Result<(), Fault> {
        let linear = self.wrap_linear(linear);
        let place = self.place(linear, 4, Access::Write, Privilege::Supervisor)?;
        let Some(at) = place.ram() else {
            self.env.stop_others();
            let old = self.place_read(&place);
            self.place_write(&place, old & !u64::from(clear) | u64::from(set));
            self.env.let_others_go();
            return Ok(());
        };
        let mut old = self.env.load32(at);
        loop {
            let seen = self.env.cmpxchg32(at, old, old & !clear | set);
            if seen == old {
                break;
            }
            old = seen;
        }
        self.stored(at, 4);
        Ok(())
    }

    /// `size` bytes at a linear address can be accessed on behalf of `privilege`.
    ///
    /// # Errors
    /// The page fault.
    pub(crate) fn probe_linear(
        &mut self,
        linear: u64,
        size: usize,
        access: Access,
        privilege: Privilege,
    ) -> Result<(), Fault> {
        let linear = self.wrap_linear(linear);
        self.place(linear, size, access, privilege).map(|_| ())
    }
}

/// Offsets `offset..=offset + last` are inside of the segment.
pub(crate) fn in_limit(segment: &Segment, offset: u64, last: u64) -> bool {
    let above_start = !expands_down(segment) || offset > u64::from(segment.limit);
    let end = offset.checked_add(last);
    above_start && end.is_some_and(|end| end <= last_offset(segment))
}

fn expands_down(segment: &Segment) -> bool {
    !segment.has(Segment::CODE) && segment.has(Segment::S | Segment::DOWN_CONFORMING)
}

/// The last offset in a segment (SDM vol. 3A, 5.3).
pub(super) fn last_offset(segment: &Segment) -> u64 {
    match expands_down(segment) {
        false => segment.limit.into(),
        true if segment.has(Segment::DB) => 0xffff_ffff,
        true => 0xffff,
    }
}
