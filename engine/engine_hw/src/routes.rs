//! The kernel's interrupt routing: IOAPIC inputs, whose EOIs it is to report, and eventfds.
//!
//! Each change of the table costs a grace period, so only changes that matter reach the kernel.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use engine::IoApicRoutes;
use kvm_bindings::{
    KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1,
    kvm_irq_routing_msi,
};
use kvm_ioctls::VmFd;
use x86_state::Msi;

use crate::raw;

/// Inputs of the IOAPIC: the kernel takes routes of lower numbers for them.
pub(crate) const IOAPIC_INPUTS: u32 = 24;
/// Routes the kernel has room for.
const ROUTES_MAX: u32 = 4096;

/// What the routing table holds.
#[derive(Default)]
pub(crate) struct Routing {
    /// By input. Level-triggered ones only: an edge has no EOI to report.
    inputs: BTreeMap<u32, Msi>,
    /// By the number of the eventfd: route and message.
    events: BTreeMap<RawFd, (u32, Msi)>,
}

impl Routing {
    /// Takes over the IOAPIC's table.
    pub(crate) fn set_inputs(&mut self, vm: &VmFd, routes: &IoApicRoutes) -> io::Result<()> {
        let before = self.inputs.clone();
        for (input, entry) in (0..IOAPIC_INPUTS).zip(&routes.entries) {
            match entry {
                Some(msi) if msi.level_triggered() => self.inputs.insert(input, *msi),
                Some(_) => self.inputs.remove(&input),
                // Masked, maybe while the interrupt is in service: its EOI is still awaited.
                None => continue,
            };
        }
        if self.inputs == before { Ok(()) } else { self.install(vm) }
    }

    /// Makes the eventfd send the message.
    pub(crate) fn attach(&mut self, vm: &VmFd, fd: BorrowedFd<'_>, msi: Msi) -> io::Result<()> {
        let key = fd.as_raw_fd();
        let known = self.events.get(&key).copied();
        if known.is_some_and(|(_, old)| old == msi) {
            return Ok(());
        }
        let gsi = known.map_or_else(|| self.free_route(), |(gsi, _)| Ok(gsi))?;
        self.events.insert(key, (gsi, msi));
        let attached = self.install(vm).and_then(|()| {
            let new = known.is_none();
            if new { Ok(vm.register_irqfd(&raw::event_of(fd)?, gsi)?) } else { Ok(()) }
        });
        if attached.is_err() {
            let _ = self.detach(vm, fd); // the first error is the one to tell
        }
        attached
    }

    /// Ends that. The route stays in the kernel's table until the next change, where nothing
    /// reaches it.
    pub(crate) fn detach(&mut self, vm: &VmFd, fd: BorrowedFd<'_>) -> io::Result<()> {
        match self.events.remove(&fd.as_raw_fd()) {
            Some((gsi, _)) => Ok(vm.unregister_irqfd(&raw::event_of(fd)?, gsi)?),
            None => Ok(()),
        }
    }

    fn free_route(&self) -> io::Result<u32> {
        (IOAPIC_INPUTS..ROUTES_MAX)
            .find(|gsi| !self.events.values().any(|(used, _)| used == gsi))
            .ok_or_else(|| io::Error::other("all interrupt routes are used"))
    }

    fn install(&self, vm: &VmFd) -> io::Result<()> {
        let inputs = self.inputs.iter().map(|(input, msi)| (*input, *msi));
        let entries: Vec<_> =
            inputs.chain(self.events.values().copied()).map(|(gsi, msi)| entry(gsi, msi)).collect();
        let table = KvmIrqRouting::from_entries(&entries)
            .map_err(|_| io::Error::other("the interrupt routes do not fit the kernel's table"))?;
        Ok(vm.set_gsi_routing(&table)?)
    }
}

fn entry(gsi: u32, msi: Msi) -> kvm_irq_routing_entry {
    let msi = kvm_irq_routing_msi {
        address_lo: msi.address as u32,
        address_hi: (msi.address >> 32) as u32,
        data: msi.data,
        ..Default::default()
    };
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        flags: 0,
        pad: 0,
        u: kvm_irq_routing_entry__bindgen_ty_1 { msi },
    }
}
