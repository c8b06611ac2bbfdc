//! Each end of a run has its exit status, and standard streams of every kind do.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod rig;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rig::{LONG, Rig, finish, until, wait};
use vmm_rpc::{Client, EngineName, Reply, Request, RunState, Status};

fn ended(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_guest_that_powers_off_ends_with_zero_and_its_last_words_are_shown() {
    let rig = Rig::new();
    let guest = tinyguest::printing("hello\n", &tinyguest::power_off());
    assert_eq!(ended(&finish(&mut rig.vm(&guest))), (Some(0), "hello\n".into()));
}

#[test]
fn resets_and_triple_faults_have_statuses_of_their_own() {
    let rig = Rig::new();
    assert_eq!(finish(&mut rig.vm(&tinyguest::reset())).status.code(), Some(8));
    assert_eq!(finish(&mut rig.vm(&tinyguest::triple_fault())).status.code(), Some(10));
}

#[test]
fn a_debug_exit_is_odd_and_only_there_when_asked_for() {
    let rig = Rig::new();
    for (value, status) in [(0, 1), (1, 3), (0x2a, 0x55), (0x80, 1)] {
        let output = finish(rig.vm(&tinyguest::debug_exit(value)).arg("--debug-exit"));
        assert_eq!(output.status.code(), Some(status), "{value}");
    }
    let guest = [tinyguest::debug_exit(1)[..10].to_vec(), tinyguest::power_off()].concat();
    assert_eq!(finish(&mut rig.vm(&guest)).status.code(), Some(0));
}

#[test]
fn test_guests_read_the_number_of_cpus_and_the_size_of_memory() {
    let rig = Rig::new();
    let output = finish(rig.vm(&tinyguest::fw_cfg()).args(["--testdev", "--cpus", "3"]));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, [&3u16.to_le_bytes()[..], &(16u64 << 20).to_le_bytes()].concat());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the host's clock is what is compared with")]
fn the_clock_tells_todays_year_and_in_deterministic_runs_1970() {
    let rig = Rig::new();
    let year = |command: &mut Command| {
        let bcd = finish(command).stdout;
        format!("{:02x}{:02x}", bcd[0], bcd[1]).parse::<u64>().unwrap()
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let about = 1970 + now * 400 / (146_097 * 86_400);
    assert!(year(&mut rig.vm(&tinyguest::year())).abs_diff(about) <= 1);
    assert_eq!(year(rig.vm(&tinyguest::year()).arg("--deterministic")), 1970);
}

#[test]
fn a_vm_that_restarts_boots_its_kernel_again() {
    let rig = Rig::new();
    let guest = tinyguest::printing("x", &tinyguest::reset());
    let (file, control) = (rig.path("serial"), rig.path("vm.sock"));
    let mut command = rig.vm(&guest);
    command.args(["--on-reset", "restart"]).arg("--control").arg(&control);
    command.arg(format!("--serial=file={}", file.display()));
    let mut child = command.spawn().unwrap();
    until("a third start", || {
        let printed = std::fs::read_to_string(&file).unwrap_or_default();
        printed.starts_with("xxx").then_some(())
    });
    let mut client = Client::connect(&control).unwrap();
    assert!(status(&mut client).resets >= 2);
    assert_eq!(client.ask(&Request::Quit).unwrap(), Reply::Done);
    assert_eq!(wait(&mut child).code(), Some(6));
}

#[test]
fn what_is_piped_in_reaches_the_guest_whole_from_pipes_and_from_files() {
    let rig = Rig::new();
    let text = "some words that do not fit into a FIFO of sixteen bytes";
    let expected: String = text.bytes().map(|byte| char::from(byte + 1)).collect();
    let bytes = format!("{text}!");

    let file = File::open(rig.file("input", bytes.as_bytes())).unwrap();
    let output = finish(rig.vm(&tinyguest::echo()).stdin(file));
    assert_eq!(ended(&output), (Some(0), expected.clone()));

    let mut child = rig.vm(&tinyguest::echo()).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes.as_bytes()).unwrap();
    wait(&mut child);
    assert_eq!(ended(&child.wait_with_output().unwrap()), (Some(0), expected));
}

fn status(client: &mut Client) -> Status {
    match client.ask(&Request::Status).unwrap() {
        Reply::Status(status) => *status,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reader_that_takes_nothing_holds_neither_the_vm_nor_its_end() {
    let rig = Rig::new();
    let control = rig.path("vm.sock");
    let mut child = rig.vm(&tinyguest::babble()).arg("--control").arg(&control).spawn().unwrap();
    let mut client = until("the control socket", || Client::connect(&control).ok());
    until("lost output", || (status(&mut client).console_lost_bytes > 0).then_some(()));
    let begin = Instant::now();
    assert_eq!(client.ask(&Request::Quit).unwrap(), Reply::Done);
    assert_eq!(wait(&mut child).code(), Some(6));
    assert!(begin.elapsed() < LONG / 2);
    assert!(!control.exists());
}

#[test]
fn a_vm_that_moves_while_it_works_loses_and_repeats_nothing() {
    let rig = Rig::new();
    let control = rig.path("vm.sock");
    let mut command = rig.vm(&tinyguest::echo());
    command.stdin(Stdio::piped()).arg("--control").arg(&control);
    let mut child = command.spawn().unwrap();
    let mut client = until("the control socket", || Client::connect(&control).ok());
    let sent: Vec<u8> = (0..30_000u32).map(|n| b'0' + (n % 64) as u8).collect();
    let expected: Vec<u8> = sent.iter().map(|byte| byte + 1).collect();
    let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let typing = std::thread::spawn(move || {
        for chunk in sent.chunks(100) {
            keyboard.write_all(chunk).unwrap();
        }
        keyboard
    });
    let reading = std::thread::spawn(move || {
        let mut got = Vec::new();
        screen.read_to_end(&mut got).map(|_| got).unwrap()
    });
    let mut moves = 0;
    while moves < 20 || !typing.is_finished() {
        let reply = client.ask(&Request::Move { engine: EngineName::Emu }).unwrap();
        assert!(matches!(reply, Reply::Moved(_)), "{reply:?}");
        moves += 1;
    }
    typing.join().unwrap().write_all(b"!").unwrap();
    assert_eq!(wait(&mut child).code(), Some(0));
    assert!(reading.join().unwrap() == expected, "after {moves} moves");
}

#[test]
fn a_reader_that_has_gone_is_no_reason_to_end() {
    let rig = Rig::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let guest = tinyguest::printing("nobody listens", &tinyguest::power_off());
    assert_eq!(finish(rig.vm(&guest).stdout(writer)).status.code(), Some(0));
}

#[test]
fn a_running_vm_answers_on_its_control_socket() {
    let rig = Rig::new();
    let control = rig.path("vm.sock");
    let mut command = rig.vm(&tinyguest::idle());
    let mut child = command.args(["--cpus", "2"]).arg("--control").arg(&control).spawn().unwrap();
    let mut client = until("the control socket", || Client::connect(&control).ok());
    let first = status(&mut client);
    assert_eq!((first.engine, first.state, first.vcpus), (EngineName::Emu, RunState::Running, 2));
    assert_eq!((first.memory_bytes, first.pid), (16 << 20, child.id()));
    assert_eq!(client.ask(&Request::Pause).unwrap(), Reply::Done);
    assert_eq!(status(&mut client).state, RunState::Paused);
    assert_eq!(client.ask(&Request::Resume).unwrap(), Reply::Done);
    let reply = client.ask(&Request::Move { engine: EngineName::Emu }).unwrap();
    assert!(matches!(reply, Reply::Moved(moved) if moved.to == EngineName::Emu), "{reply:?}");
    assert_eq!(client.ask(&Request::PowerButton).unwrap(), Reply::Done);
    assert_eq!(client.ask(&Request::Reset).unwrap(), Reply::Done);
    let last = status(&mut client);
    assert_eq!((last.resets, last.moves, last.state), (1, 1, RunState::Running));
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&child),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert_eq!(wait(&mut child).signal(), Some(rustix::process::Signal::TERM.as_raw()));
    assert_eq!(rig.files(), ["kernel"]);
}
