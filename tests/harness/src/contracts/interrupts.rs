//! Interrupts by every way they come.

use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use engine::{Exit, IoApicRoutes};
use rustix::event::{EventfdFlags, eventfd as make_eventfd};
use x86_state::{Activity, Gpr, Msi, VcpuId, VcpuState};

use crate::fake_bus::at;
use crate::{Machine, Subject, guest};

const PATIENCE: Duration = Duration::from_secs(60);

const fn to_apic(id: u8, data: u32) -> Msi {
    Msi { address: 0xfee0_0000 | (id as u64) << 12, data }
}

fn wait_for(what: &str, mut met: impl FnMut() -> bool) {
    let start = Instant::now();
    while !met() {
        assert!(start.elapsed() < PATIENCE, "no {what}");
        thread::sleep(Duration::from_micros(100));
    }
}

pub(super) fn a_message_wakes_halt(subject: &Subject) {
    let mut machine = Machine::about_to_run(subject, guest::halt(), |_| {});
    machine.run_while(|machine| {
        thread::sleep(Duration::from_millis(20));
        machine.complex.send_msi(to_apic(0, 0x41));
        wait_for("interrupt", || machine.read(Machine::DATA) == 1);
    });
}

pub(super) fn every_message_arrives(subject: &Subject) {
    let mut machine = Machine::about_to_run(subject, guest::halt(), |_| {});
    for n in 1..=300u64 {
        let vector = 0x30 + (n % 0xc0) as u32;
        let complex = machine.complex.clone();
        let sender = thread::spawn(move || complex.send_msi(to_apic(0, vector)));
        machine.run_until_done();
        sender.join().unwrap();
        // Its handler has counted; the guest stands after its OUT.
        assert_eq!(machine.read(Machine::DATA), n);
    }
}

pub(super) fn an_nmi_arrives(subject: &Subject) {
    let mut machine = Machine::about_to_run(subject, guest::halt(), |_| {});
    machine.complex.send_msi(to_apic(0, 0x400));
    machine.run_until_done();
    assert_eq!(machine.read(Machine::DATA), 1);
    assert!(machine.vcpus[0].save().unwrap().nmi_masked);
}

/// LINT0 takes the PIC's interrupts.
fn with_pic(state: &mut VcpuState) {
    state.apic.regs[0x35] = 0x700;
}

pub(super) fn the_pics_interrupt_is_acknowledged_once_and_delivered_once(subject: &Subject) {
    let mut machine = Machine::about_to_run(subject, guest::count_interrupts(), with_pic);
    machine.run_while(|machine| {
        for n in 1..=100 {
            machine.bus.raise(0x20 + (n % 8) as u8);
            wait_for("interrupt", || machine.read(Machine::DATA) == n);
        }
    });
    assert_eq!((machine.bus.acknowledged(), machine.read(Machine::DATA)), (100, 100));
    // Masked at LINT0, it waits without a sound.
    let mut state = machine.vcpus[0].save().unwrap();
    state.apic.regs[0x35] = 0x1_0700;
    machine.vcpus[0].load(&state).unwrap();
    machine.bus.raise(0x20);
    machine.run_while(|_| thread::sleep(Duration::from_millis(20)));
    assert_eq!((machine.bus.acknowledged(), machine.read(Machine::DATA)), (100, 100));
    // Asserted before the CPU that sleeps is loaded, it wakes it all the same.
    state.apic.regs[0x35] = 0x700;
    machine.vcpus[0].load(&state).unwrap();
    machine.run_while(|machine| {
        wait_for("interrupt", || machine.read(Machine::DATA) == 101);
    });
}

pub(super) fn an_acknowledged_interrupt_survives_kicks_and_loads(subject: &Subject) {
    const INTERRUPTS: u64 = 300;
    let mut machine = Machine::about_to_run(subject, guest::count_interrupts(), with_pic);
    let bus = machine.as_bus();
    let complex = machine.complex.clone();
    machine.bus.kick_every(1); // in the middle of the acknowledge
    for n in 1..=INTERRUPTS {
        machine.bus.raise(0x20);
        let start = Instant::now();
        while machine.read(Machine::DATA) < n {
            assert!(start.elapsed() < PATIENCE, "interrupt {n} is lost");
            assert_eq!(machine.vcpus[0].run(&bus).unwrap(), Exit::Kicked);
            let state = machine.vcpus[0].save().unwrap();
            machine.vcpus[0].load(&state).unwrap();
            let complex = complex.clone();
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(1));
                complex.kick(VcpuId(0));
            });
        }
        assert_eq!(machine.read(Machine::DATA), n, "an interrupt was delivered twice");
    }
}

pub(super) fn the_end_of_a_level_interrupt_reaches_the_bus(subject: &Subject) {
    let mut machine = Machine::about_to_run(subject, guest::halt(), |_| {});
    let (level, edge) = (to_apic(0, 0x8041), to_apic(0, 0x52));
    let mut entries = vec![None; 24];
    (entries[9], entries[4]) = (Some(level), Some(edge));
    machine.complex.set_ioapic_routes(&IoApicRoutes { entries: entries.clone() }).unwrap();
    machine.complex.send_msi(edge);
    machine.run_until_done();
    assert_eq!(machine.bus.take_eois(), []);
    machine.complex.send_msi(level);
    machine.run_until_done();
    assert_eq!(machine.bus.take_eois(), [0x41]);
    // Masked while in service: the IOAPIC still waits for the end.
    machine.complex.send_msi(level);
    entries[9] = None;
    machine.complex.set_ioapic_routes(&IoApicRoutes { entries }).unwrap();
    machine.run_until_done();
    assert_eq!(machine.bus.take_eois(), [0x41]);
}

pub(super) fn a_started_cpu_begins_at_its_vector(subject: &Subject) {
    let mut machine = Machine::new(subject, 2);
    machine.place(0, guest::start_other());
    for (i, chunk) in (0u64..).zip(guest::started().chunks(8)) {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        machine.write(0xf000 + i * 8, u64::from_le_bytes(bytes));
    }
    let first = machine.long_mode(0);
    machine.vcpus[0].load(&first).unwrap();
    let waiting = VcpuState::at_reset(&machine.profile, VcpuId(1));
    assert_eq!(waiting.activity, Activity::WaitForSipi);
    machine.vcpus[1].load(&waiting).unwrap();
    let mut other = machine.vcpus.remove(1);
    let bus = machine.as_bus();
    let complex = machine.complex.clone();
    let runner = thread::spawn(move || {
        assert_eq!(other.run(&bus).unwrap(), Exit::Kicked);
        other.save().unwrap()
    });
    let mut shown = Vec::new();
    // The other is done, which kicks the first.
    machine.run_until_done();
    shown.extend(machine.bus.take_shown());
    complex.kick(VcpuId(1));
    let state = runner.join().unwrap();
    assert_eq!(shown, [0x5a]);
    assert_eq!(state.segments[1].selector, 0xf00);
    assert_eq!(state.segments[1].base, 0xf000);
}

pub(super) fn kernel_paths_do_what_the_bus_does(subject: &Subject) {
    let doorbell_at = at::MMIO + 0x900;
    let mut machine = Machine::about_to_run(subject, guest::exchange(), |state| {
        state.regs.gpr[Gpr::Rsi as usize] = doorbell_at;
    });
    let complex = machine.complex.clone();
    let Some(paths) = complex.kernel_paths() else { return };
    let (doorbell, interrupt) = (eventfd(), eventfd());
    paths.attach_doorbell(doorbell_at, doorbell.as_fd()).unwrap();
    machine.run_until_done();
    assert_eq!(read_eventfd(&doorbell), 1);
    assert_eq!(machine.bus.unclaimed().get(&doorbell_at), Some(&2), "the two reads");
    paths.detach_doorbell(doorbell_at, doorbell.as_fd());

    machine.place(0, guest::halt());
    let state = machine.long_mode(0);
    machine.vcpus[0].load(&state).unwrap();
    for (n, vector) in [(1, 0x61), (2, 0x62)] {
        paths.attach_interrupt(interrupt.as_fd(), to_apic(0, vector)).unwrap();
        write_eventfd(&interrupt);
        machine.run_until_done();
        assert_eq!(machine.read(Machine::DATA), n);
    }
    paths.detach_interrupt(interrupt.as_fd());
    write_eventfd(&interrupt);
    machine.run_while(|_| thread::sleep(Duration::from_millis(10)));
    assert_eq!(machine.read(Machine::DATA), 2, "detached");
    assert_eq!(read_eventfd(&interrupt), 1, "what came while detached is still there");
}

fn eventfd() -> OwnedFd {
    make_eventfd(0, EventfdFlags::NONBLOCK).unwrap()
}

fn write_eventfd(event: &OwnedFd) {
    rustix::io::write(event, &1u64.to_ne_bytes()).unwrap();
}

fn read_eventfd(event: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    rustix::io::read(event, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
}
