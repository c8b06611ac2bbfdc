//! Packets of any form, while programs of the host come, talk and go.

#![no_main]

use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use evloop::EventLoop;
use fuzz_devices::virtio_driver::drive;
use libfuzzer_sys::fuzz_target;
use virtio::Vsock;
use vsock::{CONNECTIONS_MAX, Host};

fuzz_target!(|data: &[u8]| {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let host = Host::new(3, &path).unwrap();
    let of = EventLoop::new().unwrap();
    host.serve(&of).unwrap();
    let served = of.spawn("sockets").unwrap();
    let listener = UnixListener::bind(folder.path().join("s_0")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let programs = RefCell::new(Vec::new());
    drive(Vsock::new(host.clone()), data, |input| {
        let mut programs = programs.borrow_mut();
        match input.u8() % 5 {
            0 => programs.extend(UnixStream::connect(&path)),
            1 => programs.extend(listener.accept().map(|(socket, _)| socket)),
            2 => drop(programs.pop()),
            3 => {
                if let Some(program) = programs.last_mut() {
                    let _ = program.set_nonblocking(true);
                    let _ = program.read(&mut [0; 4096]);
                }
            }
            _ => {
                if let Some(program) = programs.last_mut() {
                    let _ = program.set_nonblocking(true);
                    let _ = program.write_all(if input.u8() % 2 == 0 { b"CONNECT 7\n" } else { b"bytes" });
                }
            }
        }
        assert!(host.connections() <= CONNECTIONS_MAX);
    });
    drop(served);
});
