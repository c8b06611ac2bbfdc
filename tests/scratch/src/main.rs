use std::fs::File; use std::sync::Arc; use std::io::Write;
use board::*; use engine::*; use x86_state::*;
struct Out; impl chipset::ByteSink for Out { fn put(&self, b: u8) { let mut o = std::io::stdout().lock(); o.write_all(&[b]).unwrap(); if b==b'\n' {o.flush().unwrap();} } }
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let cpus: u32 = a[3].parse().unwrap();
    let mem: u64 = a[4].parse::<u64>().unwrap() << 20;
    let profile = CpuProfile::portable(Topology { cores: cpus }, 2_000_000).unwrap();
    let mut spec = MachineSpec::new(profile.clone(), mem);
    spec.serial = Arc::new(Out);
    if std::env::var("COUNTED").is_ok() { spec.time = machine_clock::TimeSource::Counted; }
    let log = EventLog::new();
    let machine = Machine::build(spec, log.clone()).unwrap();
    let image = |p: &str| boot::Image::new(p, File::open(p).unwrap());
    let mut images = boot::Images { kernel: image(&a[1]), initrd: Some(image(&a[2])), cmdline: a[5].clone(), modules: vec![] };
    let t = std::time::Instant::now();
    let state = machine.boot(&mut images).unwrap();
    eprintln!("loaded in {:?}", t.elapsed());
    let built = engine_emu::EmuEngine.build(&profile, &machine.engine_parts()).unwrap();
    machine.socket().plug(built.complex.clone()).unwrap();
    machine.clock().start();
    let m2 = machine.clone();
    std::thread::spawn(move || loop { std::thread::sleep(std::time::Duration::from_millis(1)); m2.clock().fire_due(); });
    let bus: Arc<dyn Bus> = machine.clone();
    let mut n = 0; 
    let handles: Vec<_> = built.vcpus.into_iter().map(|mut v| { let bus = bus.clone(); let s = if n == 0 { Some(state.clone()) } else { None }; n += 1; std::thread::spawn(move || { if let Some(s) = s { v.load(&s).unwrap(); } let e = v.run(&bus); (e, v.save().unwrap()) }) }).collect();
    let mut hs: Vec<_> = handles.into_iter().map(Some).collect();
    let start = std::time::Instant::now();
    let limit: u64 = std::env::var("LIMIT").map(|s| s.parse().unwrap()).unwrap_or(60);
    loop {
        std::thread::sleep(std::time::Duration::from_millis(50));
        for e in log.take() { eprintln!("event {e:?} after {:?}", start.elapsed()); std::process::exit(0); }
        let mut over = start.elapsed().as_secs() > limit;
        if over { for i in 0..cpus { built.complex.kick(VcpuId(i)); } }
        for h in hs.iter_mut() { if h.as_ref().is_some_and(|h| h.is_finished() || over) { let (e, s) = h.take().unwrap().join().unwrap(); eprintln!("{e:?} rip {:#x} cs {:?}\n{:x?}\ncr0 {:x} cr2 {:x} cr3 {:x} cr4 {:x} efer {:x} act {:?} apic {:x?}", s.regs.rip, s.segments[1], s.regs, s.cr0, s.cr2, s.cr3, s.cr4, s.efer, s.activity, s.apic.timer); over = true; } }
        if over { eprintln!("bus {:?}", machine.bus_counters()); std::process::exit(1); }
    }
}
