//! A small qcow2 image, bent and cut as the input says, opened and written to.

#![no_main]

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;

use fuzz_devices::Input;
use libfuzzer_sys::fuzz_target;
use storage::{Disk, DiskOptions, Format};
use vm_memory::VolatileSlice;

/// 256 KiB in clusters of 512 bytes, some of them written.
const IMAGE: &[u8] = include_bytes!("../seeds/small.qcow2");

fn use_it(disk: &dyn Disk, input: &mut Input<'_>) {
    let size_bytes = disk.info().size_bytes;
    for _ in 0..32 {
        let at = input.number(3) * 512 % size_bytes.max(1);
        let mut data = [7; 2048];
        let size = data.len().min((size_bytes - at) as usize);
        let buffers = [VolatileSlice::from(&mut data[..size])];
        let _ = match input.u8() % 6 {
            0 | 1 => disk.read(at, &buffers),
            2 | 3 => disk.write(at, &buffers),
            4 => disk.discard(at, size as u64),
            _ => disk.write_zeroes(at, size as u64, at & 512 == 0),
        };
    }
    let _ = disk.flush();
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let mut image = IMAGE.to_vec();
    for _ in 0..input.u8() % 16 {
        // The header is small, and most of what matters is in it.
        let at = usize::from(input.u16()) % if input.u8() & 1 == 0 { 112 } else { image.len() };
        let bytes = input.bytes(8).to_vec();
        for (to, byte) in image[at..].iter_mut().zip(bytes) {
            *to = byte;
        }
    }
    if input.u8() & 3 == 0 {
        image.truncate(usize::from(input.u16()) % (image.len() + 1));
    }
    let memory = rustix::fs::memfd_create("image", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = File::from(memory);
    file.write_all(&image).unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let format = Some(Format::Qcow2);
    let read_only = input.u8() & 7 == 0;
    let options = DiskOptions { format, read_only, ..DiskOptions::new(path) };
    if let Ok(disk) = options.open() {
        use_it(&*disk, &mut input);
    }
});
