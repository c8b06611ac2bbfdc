//! Which device is where, and what its lines are wired to.

use std::sync::Arc;

use boot::layout::{self, Layout, Span, irq, port};
use boot::{Described, Screen};
use bus::{AddressSpace, BusDevice, Device, Line};
use chipset::{
    DebugCon, DebugExit, Flash, FwCfg, FwCfgItems, Hotplug, HotplugConfig, Hpet, I8042, IoApic,
    IrqLines, Pic, Pit, Pm, PortRange, PowerEvent, PowerSink, ResetControl, Rtc, RtcConfig,
    TestDevice, TimerWidth, Uart, map_ports,
};
use display::{Vga, VgaConfig};
use engine::IndexRegister;
use guest_memory::{Backing, GuestMemory, RamOffset};
use machine_clock::MachineClock;
use pci::{
    AttributeSink, ConfigPorts, DevFn, Ecam, Function, NoRoom, PciBus, Pin, PirqRouter, Spaces,
    Windows, host_bridge, lpc_bridge,
};
use virtio::{
    Balloon, Console, Doorbells, Entropy, Input, InputKind, Ports, VirtioDevice, VirtioPci, Vsock,
    Wiring,
};

use super::clock_part::ClockPart;
use super::controllers::{self, Controller};
use super::firmware::{self, Shadow};
use super::memory_map::{MemoryMap, Piece};
use super::pages::TestPages;
use super::slots::{Effects, Slots};
use super::{MORE_RAM, VRAM};
use crate::event::{MachineEvent, MachineOwner};
use crate::sections::{INTERRUPT_CONTROLLER, Parts};
use crate::socket::Socket;
use crate::spec::{BuildError, DisplaySpec, FirmwareSpec, MachineSpec, NetModel};

/// Places on the PCI bus. Disks come right after the host bridge, network cards from the other end.
pub(super) const HOST_BRIDGE: DevFn = DevFn::new(0, 0);
pub(super) const FIRST_DISK: u8 = 1;
pub(super) const FIRST_NET: u8 = 24;
const VSOCK: DevFn = DevFn::new(25, 0);
const BALLOON: DevFn = DevFn::new(26, 0);
const PORTS: DevFn = DevFn::new(27, 0);
/// The display, and what a user has at hand with it.
const DISPLAY: DevFn = DevFn::new(28, 0);
const TABLET: DevFn = DevFn::new(28, 1);
const KEYBOARD: DevFn = DevFn::new(28, 2);
const CONSOLE: DevFn = DevFn::new(29, 0);
const ENTROPY: DevFn = DevFn::new(30, 0);
pub(super) const LPC_BRIDGE: DevFn = DevFn::new(31, 0);

/// More queues than this gain a disk nothing and cost the guest's start.
pub(super) const DISK_QUEUES_MAX: u32 = 4;

/// Where the power-management ports are in a machine without an LPC bridge.
const PM_PORTS: [PortRange; 1] =
    [PortRange { base: port::PM.base, size: port::PM.size, offset: 0 }];

/// Whose writes can wait: the RTC's and the IOAPIC's, and diagnostic codes, which nobody reads. Not
/// PCI's, which has the reset control in it.
const INDEX_REGISTERS: [IndexRegister; 3] = [
    IndexRegister::Port(port::RTC.base as u16),
    IndexRegister::Port(port::POST.base as u16),
    IndexRegister::Mmio(layout::IOAPIC.base),
];

/// What a machine's parts are connected with.
pub(super) struct Board {
    pub(super) ports: Arc<AddressSpace>,
    pub(super) mmio: Arc<AddressSpace>,
    pub(super) pic: Arc<Pic>,
    pub(super) ioapic: Arc<IoApic>,
    pub(super) pm: Arc<Pm>,
    pub(super) i8042: Arc<I8042>,
    pub(super) uart: Arc<Uart>,
    pub(super) display: Option<Arc<Vga>>,
    pub(super) tablet: Option<Arc<Input>>,
    pub(super) keyboard: Option<Arc<Input>>,
    /// The display's function, and the mode that it begins in.
    screen: Option<(Arc<Function>, (u16, u16))>,
    pub(super) console: Option<Arc<Console>>,
    pub(super) balloon: Option<Arc<Balloon>>,
    pub(super) serial_ports: Option<Arc<Ports>>,
    pub(super) pci: Arc<PciBus>,
    /// Where interrupt pins of functions lead, in a machine with an LPC bridge.
    pirqs: Option<Arc<PirqRouter>>,
    /// Those that stay.
    pub(super) virtio: Vec<Arc<VirtioPci>>,
    /// What can come and go.
    pub(super) slots: Arc<Slots>,
    pub(super) hotplug: Option<Arc<Hotplug>>,
    /// Disk controllers and network cards that are not virtio's, and where they are.
    pub(super) controllers: Vec<(DevFn, Controller)>,
    pub(super) parts: Arc<Parts>,
    pub(super) has_firmware: bool,
    map: Arc<MemoryMap>,
}

/// What they are wired to outside.
pub(super) struct Outside<'a> {
    pub(super) memory: &'a Arc<GuestMemory>,
    pub(super) clock: &'a Arc<MachineClock>,
    pub(super) socket: &'a Arc<Socket>,
    pub(super) owner: &'a Arc<dyn MachineOwner>,
    pub(super) layout: Layout,
    pub(super) described: Described,
}

/// Devices that end runs tell the owner.
struct Power(Arc<dyn MachineOwner>);

impl PowerSink for Power {
    fn power(&self, event: PowerEvent) {
        self.0.event(match event {
            PowerEvent::PowerOff => MachineEvent::PowerOff,
            PowerEvent::Reset => MachineEvent::Reset,
            PowerEvent::DebugExit(status) => MachineEvent::DebugExit(status),
        });
    }
}

/// Where BARs go in a machine without firmware.
fn windows() -> Windows {
    let range = |span: layout::Span| span.base..span.end();
    Windows {
        memory32: range(layout::PCI_WINDOW_32),
        memory64: range(layout::PCI_WINDOW_64),
        io: range(port::PCI_WINDOW),
    }
}

impl Board {
    /// Wires the machine. The clock is the first part, because restored devices ask it for the
    /// time; the interrupt controllers are the last, because they keep their levels and edges
    /// whatever restored devices drive.
    pub(super) fn new(mut spec: MachineSpec, outside: &Outside<'_>) -> Result<Self, BuildError> {
        let (ports, mmio) = (AddressSpace::new(), AddressSpace::new());
        let pic = Pic::new(Line::new(outside.socket.clone(), 0));
        let inputs =
            if spec.legacy { irq::IOAPIC_INPUTS } else { irq::IOAPIC_INPUTS_WITHOUT_LEGACY };
        let (messages, routes) = (outside.socket.clone(), outside.socket.clone());
        let ioapic = IoApic::with_inputs(inputs as usize, messages, routes);
        let irqs = IrqLines::new(pic.clone(), ioapic.clone());
        let line = |irq| Line::new(irqs.clone(), irq);
        let power: Arc<dyn PowerSink> = Arc::new(Power(outside.owner.clone()));
        let clock = outside.clock;
        // The FADT says that the timer has 32 bits.
        let pm = Pm::new(clock, line(irq::SCI), power.clone(), TimerWidth::Bits32);
        let i8042 = I8042::new(line(irq::KEYBOARD), line(irq::MOUSE), power.clone());
        let uart = Uart::new(clock, line(irq::COM1), spec.serial.clone());

        let (pci, parts) = (PciBus::new(), Arc::<Parts>::default());
        let wiring = Wiring {
            memory: outside.memory.clone(),
            spaces: Spaces { memory: mmio.clone(), io: ports.clone() },
            msi: outside.socket.clone(),
            dispatch: spec.dispatch.clone(),
            doorbells: outside.socket.clone() as Arc<dyn Doorbells>,
        };
        let disk_queues = spec.profile.topology().cores.min(DISK_QUEUES_MAX) as u16;
        let mut board = Self {
            slots: Slots::new(disk_queues, &pci, &parts, wiring.clone()),
            hotplug: None,
            ports,
            mmio,
            pic: pic.clone(),
            ioapic: ioapic.clone(),
            pm: pm.clone(),
            i8042: i8042.clone(),
            uart: uart.clone(),
            display: None,
            tablet: None,
            keyboard: None,
            screen: None,
            console: None,
            balloon: None,
            serial_ports: None,
            pci,
            pirqs: spec.legacy.then(|| PirqRouter::new(irqs.for_pci(), irq::PIRQ_A)),
            virtio: Vec::new(),
            controllers: Vec::new(),
            parts,
            has_firmware: spec.firmware.is_some(),
            map: MemoryMap::new(outside.memory.clone(), outside.socket.clone()),
        };
        board.parts.push("clock", Arc::new(ClockPart(clock.clone())));
        board.add_timers(&irqs, outside, &spec)?;
        // With an LPC bridge, the ports are where its registers say.
        let legacy = spec.legacy;
        board.add_ports("pm", pm.clone(), if legacy { &[] } else { &PM_PORTS })?;
        if spec.hotplug.is_some() {
            board.add_hotplug(outside, pm.clone())?;
        }
        board.add_ports("i8042", i8042, if legacy { chipset::i8042::PORTS } else { &[] })?;
        board.add_port("com1", uart, port::COM1)?;
        board.add_power(&spec, power)?;
        board.add_fw_cfg(&mut spec, outside)?;
        if spec.testdev {
            let pages = TestPages::new(outside.memory.clone(), outside.socket.clone());
            let testdev = TestDevice::new(irqs.clone(), pages);
            board.add_ports("testdev", testdev, chipset::testdev::PORTS)?;
        }
        let firmware = spec.firmware.take();
        board.add_bridges(firmware.is_some(), outside, pm)?;
        if let Some(firmware) = firmware {
            board.add_flash(firmware, outside)?;
        }
        if let Some(display) = &spec.display {
            board.add_display(display, outside)?;
        }
        board.add_virtio(spec, &wiring, outside)?;
        board.add_pci_parts();
        board.add_ports(
            INTERRUPT_CONTROLLER,
            pic,
            if legacy { chipset::pic::PORTS } else { &[] },
        )?;
        board.add_mmio("ioapic", ioapic, layout::IOAPIC)?;
        INDEX_REGISTERS.into_iter().for_each(|register| outside.socket.hold_back(register));
        board.reset()?;
        Ok(board)
    }

    /// Every part as after power-up. A new board goes through it too, so that none remembers the
    /// edges of being wired.
    pub(super) fn reset(&self) -> Result<(), NoRoom> {
        self.parts.reset();
        if self.has_firmware { Ok(()) } else { self.pci.assign_bars(&windows()) }
    }

    /// Timers ask for time only while they are heard. The HPET is between the others and the
    /// interrupt controllers, because it can replace them.
    fn add_timers(
        &mut self,
        irqs: &Arc<IrqLines>,
        outside: &Outside<'_>,
        spec: &MachineSpec,
    ) -> Result<(), BuildError> {
        let clock = outside.clock;
        let hpet = Hpet::new(clock, irqs.clone(), outside.socket.clone());
        let line = |irq| Line::new(hpet.clone(), irq);
        let heard = irqs.clone();
        let pit = Pit::new(clock, line(irq::PIT), Box::new(move || heard.is_heard(irq::PIT)));
        let told = Arc::downgrade(&pit);
        irqs.set_on_unmask(move || {
            if let Some(pit) = told.upgrade() {
                pit.unmasked();
            }
        });
        let sized = || boot::cmos(&outside.layout, outside.described.cpus);
        let config = RtcConfig {
            start_unix_s: spec.rtc_start_unix_s,
            cmos: spec.firmware.as_ref().map(|_| sized()).unwrap_or_default(),
        };
        let rtc = Rtc::new(clock, line(irq::RTC), &config);
        self.add_ports("pit", pit, chipset::pit::PORTS)?;
        self.add_ports("rtc", rtc, chipset::rtc::PORTS)?;
        self.add_mmio("hpet", hpet, layout::HPET)
    }

    /// What ends runs, and the PCI configuration ports that one of them sits in where they are.
    fn add_power(
        &mut self,
        spec: &MachineSpec,
        power: Arc<dyn PowerSink>,
    ) -> Result<(), BuildError> {
        let reset = ResetControl::new(power.clone());
        let config = ConfigPorts::new(&self.pci, Some(reset.clone()));
        self.add_port("pci-config", config, port::PCI_CONFIG)?;
        self.add_ports("reset-control", reset, &[chipset::reset_control::PORT_A])?;
        if spec.debug_exit {
            self.add_ports("debug-exit", DebugExit::new(power), chipset::debug_exit::PORTS)?;
        }
        Ok(())
    }

    fn add_pci_parts(&mut self) {
        for (at, function) in self.pci.functions() {
            self.parts.push(format!("pci/{at}"), function);
        }
        self.add_controller_parts();
        for (at, device) in self.virtio_places() {
            self.parts.push(format!("pci/{at}/virtio"), device);
        }
    }

    /// Maps a device at one range of ports and adds it to the parts.
    fn add_port<D: BusDevice + Device + 'static>(
        &mut self,
        name: &'static str,
        device: Arc<D>,
        span: layout::Span,
    ) -> Result<(), BuildError> {
        self.add_ports(name, device, &[PortRange { base: span.base, size: span.size, offset: 0 }])
    }

    /// Maps a device at its ports and adds it to the parts.
    fn add_ports<D: BusDevice + Device + 'static>(
        &mut self,
        name: &'static str,
        device: Arc<D>,
        ports: &[PortRange],
    ) -> Result<(), BuildError> {
        map_ports(&self.ports, &device, ports)
            .map_err(|source| BuildError::Mapping { device: name, source })?;
        self.parts.push(name, device);
        Ok(())
    }

    /// Maps a device in memory and adds it to the parts.
    fn add_mmio<D: BusDevice + Device + 'static>(
        &mut self,
        name: &'static str,
        device: Arc<D>,
        span: layout::Span,
    ) -> Result<(), BuildError> {
        let mapped = self.mmio.map(span.base, span.size, device.clone());
        mapped.map_err(|source| BuildError::Mapping { device: name, source })?;
        self.parts.push(name, device);
        Ok(())
    }

    pub(super) fn spaces(&self) -> Spaces {
        Spaces { memory: self.mmio.clone(), io: self.ports.clone() }
    }

    /// What firmware and test guests ask for, and where firmware says what it does.
    fn add_fw_cfg(
        &mut self,
        spec: &mut MachineSpec,
        outside: &Outside<'_>,
    ) -> Result<(), BuildError> {
        let mut items = FwCfgItems::new(outside.described.cpus as u16, spec.memory_bytes);
        if let Some(hotplug) = self.hotplug.clone() {
            items.set_cpus(move || hotplug.cpus() as u16); // 32 at most
        }
        let kinds = spec.firmware.as_ref().map(|firmware| firmware.boot_order.clone());
        let order = firmware::boot_order(&kinds.unwrap_or_default(), spec);
        if let Some(firmware) = &mut spec.firmware {
            let Outside { layout, described, .. } = *outside;
            firmware::add_items(&mut items, firmware, &order, layout, described, &self.pci);
        }
        let fw_cfg = FwCfg::new(outside.memory.clone(), items);
        self.add_ports("fw-cfg", fw_cfg, chipset::fw_cfg::PORTS)?;
        if let Some(sink) = spec.debugcon.take() {
            self.add_ports("debugcon", DebugCon::new(sink), chipset::debugcon::PORTS)?;
        }
        Ok(())
    }

    /// The bridges as functions are for firmware and old systems. To others the tables say where
    /// ECAM is, and that there is a host bridge. Firmware sets ECAM and the power-management ports
    /// up; without, they are there.
    fn add_bridges(
        &self,
        firmware: bool,
        outside: &Outside<'_>,
        pm: Arc<Pm>,
    ) -> Result<(), BuildError> {
        let Some(pirqs) = self.pirqs.clone() else {
            let mapped = self.mmio.map(layout::ECAM.base, Ecam::SIZE, Ecam::new(&self.pci));
            return mapped.map_err(|source| BuildError::Mapping { device: "ecam", source });
        };
        let (mut shadow, mut ecam, mut pm_base) = (None, None, None);
        if firmware {
            let memory = Shadow::new(&self.map, outside.memory);
            let mapped = self.mmio.map(firmware::SHADOW, firmware::SHADOW_SIZE, memory.clone());
            mapped.map_err(|source| BuildError::Mapping { device: "shadow RAM", source })?;
            shadow = Some(memory as Arc<dyn AttributeSink>);
        } else {
            (ecam, pm_base) = (Some(layout::ECAM.base), Some(port::PM.base as u16));
        }
        let host = host_bridge(&self.pci, self.mmio.clone(), ecam, shadow);
        self.plug(HOST_BRIDGE, host);
        self.plug(LPC_BRIDGE, lpc_bridge(&self.spaces(), pm, pm_base, pirqs));
        Ok(())
    }

    /// The image, which is only read, and flash for the variables.
    fn add_flash(&mut self, spec: FirmwareSpec, outside: &Outside<'_>) -> Result<(), BuildError> {
        let store = spec.variables.map(|variables| variables.store);
        let Some((place, array, base)) = firmware::show_image(&self.map, outside.memory, store)
        else {
            return Ok(());
        };
        let flash = Flash::new(outside.memory.clone(), array, place);
        self.add_mmio("flash", flash, layout::Span::new(base, array.size_bytes))
    }

    pub(super) fn plug(&self, at: DevFn, function: Arc<Function>) {
        if let Some(pirqs) = &self.pirqs {
            let pin = Pin::of(at);
            let pirq = irq::pirq(at.device(), pin.index());
            function.connect_intx(pin, pirqs.line(at, pirq));
        }
        let plugged = self.pci.add(at, function);
        assert!(plugged.is_ok(), "two functions at {at}");
    }

    /// The display adapter. Its window lies over RAM, and its frame buffer is shown where the guest
    /// wants it among PCI's addresses; elsewhere accesses go to the bus.
    fn add_display(&mut self, spec: &DisplaySpec, outside: &Outside<'_>) -> Result<(), BuildError> {
        let region = outside.memory.region(VRAM);
        let Some(vram) = region.map(|region| region.at) else {
            panic!("a machine with a display has memory for it");
        };
        let map = &self.map;
        let Span { base: gpa, size } = layout::VGA_WINDOW;
        map.overlay().set(vec![Piece { gpa, size, memory: None }]);
        let (buffer, low_ram) = (map.overlay(), outside.layout.low_ram());
        let placed = move |base: Option<u64>| {
            let span = base.map(|base| Span::new(base, display::VRAM_BYTES));
            let free = span.filter(|s| s.base >= low_ram.end() && s.end() <= layout::IOAPIC.base);
            let piece = |span: Span| Piece {
                gpa: span.base,
                size: span.size,
                memory: Some((vram, Backing::Ram)),
            };
            buffer.set(free.map(piece).into_iter().collect());
        };
        let vga = Vga::new(VgaConfig {
            memory: outside.memory.clone(),
            vram,
            clock: outside.clock.clone(),
            placed: Box::new(placed),
        });
        let ports = Vga::PORTS.map(|(base, size)| PortRange { base, size, offset: base });
        self.add_ports("vga", vga.clone(), &ports)?;
        let dispi = self.ports.map(port::DISPI.base, port::DISPI.size, vga.dispi());
        let window = self.mmio.map(gpa, size, vga.window());
        dispi.and(window).map_err(|source| BuildError::Mapping { device: "vga", source })?;
        let function = vga.function(spec.rom.clone(), spec.registers, &self.spaces());
        self.plug(DISPLAY, function.clone());
        self.screen = spec.mode.map(|mode| (function, mode));
        self.display = Some(vga);
        Ok(())
    }

    /// Does what firmware would for a system that it starts, where the machine has a mode to begin
    /// with.
    pub(super) fn turn_screen_on(&self) -> Option<Screen> {
        let ((function, (width, height)), vga) = (self.screen.as_ref()?, self.display.as_ref()?);
        vga.set_mode(*width, *height);
        function.config_write(pci::spec::COMMAND, &pci::spec::COMMAND_MEMORY.to_le_bytes());
        let gpa = u32::try_from(function.bar_base(display::BAR_VRAM)?).ok()?;
        let size_bytes = display::VRAM_BYTES as u32;
        Some(Screen { gpa, size_bytes, width: *width, height: *height })
    }

    /// What comes and goes. Memory that has come lies where nothing else is.
    fn add_hotplug(&mut self, outside: &Outside<'_>, pm: Arc<Pm>) -> Result<(), BuildError> {
        let Some(room) = outside.described.room else { return Ok(()) };
        let config = HotplugConfig {
            cpus: outside.described.cpus,
            cpus_max: room.cpus,
            blocks_max: room.blocks.count,
        };
        let effects = Effects {
            slots: Arc::downgrade(&self.slots),
            blocks: room.blocks,
            memory: outside.memory.region(MORE_RAM).map_or(RamOffset(0), |region| region.at),
            overlay: self.map.overlay(),
        };
        let hotplug = Hotplug::new(config, pm, Box::new(effects));
        self.hotplug = Some(hotplug.clone());
        self.add_port("hotplug", hotplug, port::HOTPLUG)
    }

    fn add_virtio(
        &mut self,
        mut spec: MachineSpec,
        wiring: &Wiring,
        outside: &Outside<'_>,
    ) -> Result<(), BuildError> {
        if spec.disks.len() > MachineSpec::DISKS_MAX {
            return Err(BuildError::Disks(spec.disks.len()));
        }
        let (disks, nets) = (spec.disks.len(), spec.nets.len());
        let controllers = controllers::places(&spec);
        if disks + controllers + nets > MachineSpec::DISKS_MAX {
            return Err(BuildError::Places { disks: disks + controllers, nets });
        }
        // Below the assertion above: places on a bus of 32.
        self.add_controllers(&mut spec, outside, FIRST_DISK + disks as u8);
        for (device, disk) in (FIRST_DISK..).zip(spec.disks) {
            let added = self.slots.add_disk(disk, Some(DevFn::new(device, 0)));
            self.removable(added.map_err(BuildError::Plug)?.at);
        }
        for (index, net) in (0u8..).zip(spec.nets) {
            let at = DevFn::new(FIRST_NET - index, 0);
            if net.model == NetModel::E1000 {
                self.add_e1000(net, outside, &spec.dispatch, (at, index.into()))?;
                continue;
            }
            let added = self.slots.add_net(net, format!("net{index}"), Some(at));
            self.removable(added.map_err(BuildError::Plug)?.at);
        }
        if self.display.is_some() {
            let tablet = Input::new(InputKind::Tablet);
            self.add_device(TABLET, tablet.clone(), wiring)?;
            let keyboard = Input::new(InputKind::Keyboard);
            self.add_device(KEYBOARD, keyboard.clone(), wiring)?;
            (self.tablet, self.keyboard) = (Some(tablet), Some(keyboard));
        }
        if let Some(config) = spec.console {
            let console = Console::new(config);
            self.add_device(CONSOLE, console.clone(), wiring)?;
            self.console = Some(console);
        }
        if !spec.ports.is_empty() {
            let ports = Ports::new(spec.ports);
            self.add_device(PORTS, ports.clone(), wiring)?;
            self.serial_ports = Some(ports);
        }
        if spec.balloon {
            let balloon = Balloon::new(outside.memory.clone());
            self.add_device(BALLOON, balloon.clone(), wiring)?;
            self.balloon = Some(balloon);
        }
        if let Some(host) = spec.vsock {
            self.add_device(VSOCK, Vsock::new(host), wiring)?;
        }
        if let Some(source) = spec.entropy {
            self.add_device(ENTROPY, Entropy::new(source), wiring)?;
        }
        Ok(())
    }

    fn removable(&self, at: DevFn) {
        if let Some(hotplug) = &self.hotplug {
            hotplug.set_removable(at.device());
        }
    }

    fn add_device(
        &mut self,
        at: DevFn,
        device: Arc<dyn VirtioDevice>,
        wiring: &Wiring,
    ) -> Result<(), BuildError> {
        let device = VirtioPci::new(device, wiring).map_err(BuildError::Event)?;
        self.plug(at, device.function().clone());
        self.virtio.push(device);
        Ok(())
    }

    /// Virtio devices by their places on the bus.
    fn virtio_places(&self) -> Vec<(DevFn, Arc<VirtioPci>)> {
        let functions = self.pci.functions();
        let place = |device: &Arc<VirtioPci>| {
            let found = functions.iter().find(|(_, f)| Arc::ptr_eq(f, device.function()));
            found.map(|(at, _)| (*at, device.clone()))
        };
        let slots = self.slots.taken();
        let cards = slots.iter().map(|slot| (slot.at, slot.device().clone()));
        let mut places: Vec<_> = self.virtio.iter().filter_map(place).chain(cards).collect();
        places.sort_by_key(|(at, _)| *at);
        places
    }
}
