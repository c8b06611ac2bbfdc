use std::io::{Cursor, Write};

use guest_memory::{GuestMemory, RamOffset};
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::layout::low;

type Bytes_ = Vec<u8>;

/// One program header's worth of file.
struct Part {
    kind: u32,
    vaddr: u64,
    paddr: u64,
    bytes: Bytes_,
    memory_size: u64,
}

fn load_part(paddr: u64, bytes: &[u8], memory_size: u64) -> Part {
    Part { kind: 1, vaddr: paddr, paddr, bytes: bytes.to_vec(), memory_size }
}

fn pvh_note(entry: u32) -> Part {
    let mut bytes = Vec::new();
    for word in [4, 4, 18, u32::from_le_bytes(*b"Xen\0"), entry] {
        bytes.extend(word.to_le_bytes());
    }
    Part { kind: 4, vaddr: 0, paddr: 0, bytes, memory_size: 0 }
}

fn elf64(entry: u64, parts: &[Part]) -> Bytes_ {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    file.extend(entry.to_le_bytes());
    file.extend(64u64.to_le_bytes());
    file.resize(54, 0);
    file.extend([56, 0, parts.len() as u8, 0]);
    file.resize(64, 0);
    let mut offset = (64 + 56 * parts.len()) as u64;
    for part in parts {
        file.extend(part.kind.to_le_bytes());
        file.extend(7u32.to_le_bytes());
        for word in [
            offset,
            part.vaddr,
            part.paddr,
            part.bytes.len() as u64,
            part.memory_size.max(part.bytes.len() as u64),
            4,
        ] {
            file.extend(word.to_le_bytes());
        }
        offset += part.bytes.len() as u64;
    }
    parts.iter().for_each(|part| file.extend(&part.bytes));
    file
}

fn elf32(entry: u32, parts: &[Part]) -> Bytes_ {
    let mut file = b"\x7fELF\x01\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2, 0, 3, 0, 1, 0, 0, 0]);
    file.extend(entry.to_le_bytes());
    file.extend(52u32.to_le_bytes());
    file.resize(42, 0);
    file.extend([32, 0, parts.len() as u8, 0]);
    file.resize(52, 0);
    let mut offset = 52 + 32 * parts.len();
    for part in parts {
        for word in [
            part.kind,
            offset as u32,
            part.vaddr as u32,
            part.paddr as u32,
            part.bytes.len() as u32,
            (part.memory_size as u32).max(part.bytes.len() as u32),
            7,
            4,
        ] {
            file.extend(word.to_le_bytes());
        }
        offset += part.bytes.len();
    }
    parts.iter().for_each(|part| file.extend(&part.bytes));
    file
}

fn multiboot_header(flags: u32, addresses: &[u32]) -> Bytes_ {
    let magic = 0x1bad_b002u32;
    let checksum = 0u32.wrapping_sub(magic).wrapping_sub(flags);
    let words = [magic, flags, checksum].into_iter().chain(addresses.iter().copied());
    words.flat_map(u32::to_le_bytes).collect()
}

fn vmlinux() -> Bytes_ {
    let mut text = load_part(0x100_0000, b"kernel text", 0x2000);
    text.vaddr = 0xffff_ffff_8100_0000;
    elf64(0x100_0004, &[text, load_part(0x120_0000, &[0xaa; 600_000], 0x10_0000)])
}

fn bzimage(payload: &[u8]) -> Bytes_ {
    let mut file = vec![0; 3 * 512];
    file[0x1f1] = 1; // one sector of setup after the boot sector
    file[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    file[0x201] = 0x66;
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
    file[0x22c..0x230].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    file[0x236] = 1;
    file[0x238..0x23c].copy_from_slice(&2047u32.to_le_bytes());
    file[0x248..0x24c].copy_from_slice(&512u32.to_le_bytes());
    file[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    file.extend(payload);
    file
}

/// As Linux's build does it: the unpacked size follows the stream.
pub(crate) fn with_trailer(mut packed: Bytes_, unpacked: &[u8]) -> Bytes_ {
    packed.extend((unpacked.len() as u32).to_le_bytes());
    packed
}

pub(crate) fn gzip(data: &[u8]) -> Bytes_ {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn xz(data: &[u8]) -> Bytes_ {
    let mut options = lzma_rust2::XzOptions::with_preset(1);
    options.set_block_size(None);
    let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn lzma(data: &[u8]) -> Bytes_ {
    let options = lzma_rust2::LzmaOptions::with_preset(1);
    let mut encoder = lzma_rust2::LzmaWriter::new_use_header(Vec::new(), &options, None).unwrap();
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn bzip2(data: &[u8]) -> Bytes_ {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn lz4(data: &[u8]) -> Bytes_ {
    let mut packed = 0x184c_2102u32.to_le_bytes().to_vec();
    for block in data.chunks(8 << 20) {
        let block = lz4_flex::block::compress(block);
        packed.extend((block.len() as u32).to_le_bytes());
        packed.extend(block);
    }
    packed
}

struct Vm {
    memory: std::sync::Arc<GuestMemory>,
    layout: Layout,
}

impl Vm {
    fn new(mib: u64) -> Self {
        let layout = Layout::new(mib << 20).unwrap();
        let memory = GuestMemory::new(&[("ram", mib << 20)]).unwrap();
        memory.set_view(layout.view(RamOffset(0)));
        Self { memory, layout }
    }

    fn load(&self, images: &mut Images<Cursor<Bytes_>>) -> Result<Entry, BootError> {
        load(&self.memory.dma(), &self.layout, images)
    }

    fn bytes<const N: usize>(&self, gpa: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory.dma().read_slice(&mut bytes, GuestAddress(gpa)).unwrap();
        bytes
    }

    fn word(&self, gpa: u64) -> u32 {
        u32::from_le_bytes(self.bytes(gpa))
    }

    fn long(&self, gpa: u64) -> u64 {
        u64::from_le_bytes(self.bytes(gpa))
    }

    fn string(&self, gpa: u64) -> String {
        let bytes: [u8; 64] = self.bytes(gpa);
        String::from_utf8(bytes.into_iter().take_while(|b| *b != 0).collect()).unwrap()
    }
}

fn image(name: &str, bytes: impl Into<Bytes_>) -> Image<Cursor<Bytes_>> {
    Image::new(name, Cursor::new(bytes.into()))
}

fn images(kernel: Bytes_) -> Images<Cursor<Bytes_>> {
    let modules = Vec::new();
    Images { kernel: image("kernel", kernel), initrd: None, cmdline: "a=b quiet".into(), modules }
}

fn refusal(kernel: impl Into<Bytes_>) -> String {
    Vm::new(64).load(&mut images(kernel.into())).unwrap_err().to_string()
}

#[test]
fn a_bzimage_of_any_compression_is_entered_at_64_bits() {
    let kernel = vmlinux();
    let zstd = zstd::encode_all(&kernel[..], 1).unwrap();
    let payloads = [
        gzip(&kernel),
        with_trailer(xz(&kernel), &kernel),
        with_trailer(lzma(&kernel), &kernel),
        with_trailer(bzip2(&kernel), &kernel),
        with_trailer(lz4(&kernel), &kernel),
        with_trailer(zstd, &kernel),
    ];
    for payload in payloads {
        let vm = Vm::new(64);
        let mut images = images(bzimage(&payload));
        images.initrd = Some(image("initrd", vec![7; 5000]));
        let entry = vm.load(&mut images).unwrap();
        assert_eq!(entry, Entry::Long { rip: 0x100_0004, rsi: low::BOOT_PARAMS });
        assert_eq!(&vm.bytes::<11>(0x100_0000), b"kernel text");
        assert_eq!(vm.bytes::<4>(0x120_0000 + 599_997), [0xaa, 0xaa, 0xaa, 0]);

        let params = low::BOOT_PARAMS;
        assert_eq!(vm.bytes::<4>(params + 0x202), *b"HdrS");
        assert_eq!(vm.bytes::<1>(params + 0x210), [0xff]);
        assert_eq!(vm.string(u64::from(vm.word(params + 0x228))), "a=b quiet");
        assert_eq!(vm.long(params + 0x70), layout::ACPI.base);
        let initrd = u64::from(vm.word(params + 0x218));
        assert_eq!((initrd, vm.word(params + 0x21c)), ((64 << 20) - 0x2000, 5000));
        assert_eq!(vm.bytes::<3>(initrd + 4998), [7, 7, 0]);
        assert_eq!(vm.bytes::<1>(params + 0x1e8), [vm.layout.ranges().len() as u8]);
        assert_eq!(vm.long(params + 0x2d0 + 8), layout::CONVENTIONAL_END);
        // The identity map: 0xc012_3456 is in the page directory's entry of 0xc000_0000.
        let directory = vm.long(low::PAGE_TABLES + 0x1000 + 3 * 8) & !0xfff;
        assert_eq!(vm.long(directory), 0xc000_0083);
    }
}

#[test]
fn a_bzimage_without_a_64_bit_entry_is_entered_at_32_bits() {
    let vm = Vm::new(64);
    let kernel = elf32(0x100_0004, &[load_part(0x100_0000, b"code", 0x1000)]);
    let mut i386 = bzimage(&gzip(&kernel));
    i386[0x236] = 0;
    let entry = vm.load(&mut images(i386)).unwrap();
    let esi = low::BOOT_PARAMS as u32;
    assert_eq!(entry, Entry::Protected { eip: 0x100_0004, eax: 0, ebx: 0, esi });
    assert_eq!(&vm.bytes::<4>(0x100_0000), b"code");
    assert_eq!(vm.bytes::<2>(low::BOOT_PARAMS + 0x1fe), [0x55, 0xaa]);
}

#[test]
fn a_vmlinux_without_a_note_is_entered_at_64_bits() {
    let vm = Vm::new(64);
    let entry = vm.load(&mut images(vmlinux())).unwrap();
    assert_eq!(entry, Entry::Long { rip: 0x100_0004, rsi: low::BOOT_PARAMS });
    assert_eq!(vm.bytes::<2>(low::BOOT_PARAMS + 0x1fe), [0x55, 0xaa]);
}

#[test]
fn a_pvh_kernel_gets_start_info() {
    let vm = Vm::new(4096);
    let kernel = elf64(0, &[load_part(0x20_0000, b"code", 0x1000), pvh_note(0x20_0002)]);
    let mut images = images(kernel);
    images.initrd = Some(image("initrd", "initrd"));
    images.modules = vec![Module { image: image("m", "module"), args: "x y".into() }];
    let entry = vm.load(&mut images).unwrap();
    let ebx = low::START_INFO as u32;
    assert_eq!(entry, Entry::Protected { eip: 0x20_0002, eax: 0, ebx, esi: 0 });
    let info = low::START_INFO;
    assert_eq!((vm.word(info), vm.word(info + 4), vm.word(info + 12)), (0x336e_c578, 1, 2));
    assert_eq!(vm.string(vm.long(info + 24)), "a=b quiet");
    assert_eq!(vm.long(info + 32), layout::ACPI.base);
    let list = vm.long(info + 16);
    assert_eq!(&vm.bytes::<6>(vm.long(list)), b"initrd");
    assert_eq!((vm.long(list + 8), vm.long(list + 16)), (6, 0));
    assert_eq!(&vm.bytes::<6>(vm.long(list + 32)), b"module");
    assert_eq!(vm.string(vm.long(list + 48)), "x y");
    let entries = vm.word(info + 48);
    let last = vm.long(info + 40) + 24 * u64::from(entries - 1);
    assert_eq!((vm.long(last), vm.long(last + 8), vm.word(last + 16)), (1 << 32, 2 << 30, 1));
}

#[test]
fn a_multiboot_elf_gets_its_information() {
    let vm = Vm::new(4096);
    let text = [multiboot_header(3, &[]), b"code".to_vec()].concat();
    let mut images = images(elf32(0x10_000c, &[load_part(0x10_0000, &text, 0x2000)]));
    images.modules = vec![
        Module { image: image("one", "first"), args: String::new() },
        Module { image: image("two", "second"), args: "with args".into() },
    ];
    let entry = vm.load(&mut images).unwrap();
    let ebx = low::START_INFO as u32;
    assert_eq!(entry, Entry::Protected { eip: 0x10_000c, eax: 0x2bad_b002, ebx, esi: 0 });
    let info = low::START_INFO;
    assert_eq!(vm.word(info), 1 | 4 | 8 | 0x40 | 0x200);
    assert_eq!((vm.word(info + 4), vm.word(info + 8)), (639, (2 << 20) - 1024));
    assert_eq!(vm.string(u64::from(vm.word(info + 16))), "kernel a=b quiet");
    assert_eq!(vm.word(info + 20), 2);
    let modules = u64::from(vm.word(info + 24));
    assert_eq!((vm.word(modules), vm.word(modules + 4)), (0x10_2000, 0x10_2005));
    assert_eq!(vm.word(modules + 16), 0x10_3000);
    assert_eq!(&vm.bytes::<6>(0x10_3000), b"second");
    assert_eq!(vm.string(u64::from(vm.word(modules + 8))), "one");
    assert_eq!(vm.string(u64::from(vm.word(modules + 24))), "two with args");
    assert_eq!(vm.string(u64::from(vm.word(info + 64))), "trine");

    let (start, size) = (u64::from(vm.word(info + 48)), u64::from(vm.word(info + 44)));
    let mut at = start;
    let mut above = false;
    while at < start + size {
        above |= vm.long(at + 4) == 1 << 32 && vm.long(at + 12) == 2 << 30;
        at += u64::from(vm.word(at)) + 4;
    }
    assert_eq!(at, start + size);
    assert!(above, "memory above 4 GiB is in the map");
}

#[test]
fn a_multiboot_kernel_says_where_it_wants_to_be() {
    let vm = Vm::new(2);
    let mut kernel = vec![0x90; 16];
    kernel.extend(multiboot_header(1 << 16, &[0x10_0010, 0x10_0008, 0, 0x10_4000, 0x10_0030]));
    kernel.extend([1, 2, 3, 4]);
    let entry = vm.load(&mut images(kernel)).unwrap();
    assert!(matches!(entry, Entry::Protected { eip: 0x10_0030, .. }));
    assert_eq!(vm.word(0x10_0008), 0x9090_9090);
    assert_eq!(vm.word(0x10_0010), 0x1bad_b002);
    assert_eq!(vm.word(0x10_0030), 0x0403_0201);
}

#[test]
fn what_is_no_kernel_is_said_to_be_none() {
    assert!(refusal("").contains("kernel is not a kernel: it is empty;"));
    assert!(refusal("#!/bin/sh\n").contains("its format is unknown"));
    assert!(refusal(gzip(b"x")).contains("it is a compressed file"));
    let program = elf64(0x40_0000, &[load_part(0x40_0000, b"code", 0)]);
    assert!(refusal(program).contains("neither a PVH note nor a Multiboot header"));
    let mut object = vmlinux();
    object[16] = 1;
    assert!(refusal(object).contains("no executable"));
}

#[test]
fn other_architectures_are_named() {
    let mut arm = vec![0; 64];
    arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
    assert!(refusal(arm).contains("a kernel for 64-bit ARM, but"));
    let mut risc = vmlinux();
    risc[18] = 243;
    assert!(refusal(risc).contains("a kernel for RISC-V, but"));
    let mut i386 = bzimage(&gzip(&vmlinux()));
    i386[0x236] = 0;
    assert!(refusal(i386).contains("32 bits"));
}

#[test]
fn cut_files_are_refused_wherever_they_are_cut() {
    let bz = bzimage(&with_trailer(xz(&vmlinux()), &vmlinux()));
    let text = [multiboot_header(3, &[]), b"code".to_vec()].concat();
    let files = [
        vmlinux(),
        bz,
        elf64(0, &[load_part(0x20_0000, b"code", 0x1000), pvh_note(0x20_0002)]),
        elf32(0x10_000c, &[load_part(0x10_0000, &text, 0x2000)]),
    ];
    for file in files {
        Vm::new(64).load(&mut images(file.clone())).unwrap();
        for size in (0..file.len()).step_by(file.len() / 40 + 1) {
            assert!(!refusal(&file[..size]).is_empty());
        }
    }
    assert!(refusal(&vmlinux()[..5000]).contains("truncated: a segment runs past its 5000 bytes"));
}

#[test]
fn images_that_do_not_fit_are_refused() {
    let big = elf64(0, &[load_part(0x20_0000, b"code", 1 << 30), pvh_note(0x20_0000)]);
    assert!(refusal(big).contains("needs 1073741824 bytes at 0x200000"));
    let low = elf64(0, &[load_part(0x1000, b"code", 0), pvh_note(0x1000)]);
    assert!(refusal(low).contains("which are not free memory"));
    let wrap = elf64(0, &[load_part(u64::MAX - 2, b"code", 0), pvh_note(0)]);
    assert!(refusal(wrap).contains("which are not free memory"));
    let mut images = images(vmlinux());
    images.initrd = Some(image("initrd", vec![1; 50 << 20]));
    let error = Vm::new(64).load(&mut images).unwrap_err().to_string();
    assert_eq!(error, "there is no room for initrd of 52428800 bytes: give the VM more memory");
}

#[test]
fn command_lines_are_checked() {
    let mut long = images(vmlinux());
    long.cmdline = "x".repeat(2048);
    let error = Vm::new(64).load(&mut long).unwrap_err();
    assert!(matches!(error, BootError::CmdlineTooLong { size_bytes: 2048, max_bytes: 2047 }));
    let mut nul = images(vmlinux());
    nul.cmdline = "a\0b".into();
    assert!(matches!(Vm::new(64).load(&mut nul).unwrap_err(), BootError::Nul(_)));
}

#[test]
fn each_protocol_refuses_the_others_files() {
    let text = multiboot_header(0, &[]);
    let mut kernel = images(elf32(0x10_0000, &[load_part(0x10_0000, &text, 0)]));
    kernel.initrd = Some(image("initrd", "x"));
    let error = Vm::new(64).load(&mut kernel).unwrap_err();
    assert!(matches!(error, BootError::InitrdForMultiboot { .. }));
    let mut kernel = images(vmlinux());
    kernel.modules = vec![Module { image: image("m", "x"), args: String::new() }];
    let error = Vm::new(64).load(&mut kernel).unwrap_err();
    assert!(matches!(error, BootError::ModulesForLinux { .. }));
}

#[test]
fn a_payload_that_lies_is_refused() {
    assert!(refusal(bzimage(b"\x89LZO\0\r\n\x1a\n1234567")).contains("compressed with LZO"));
    assert!(refusal(bzimage(b"garbage garbage garbage")).contains("in no known format"));
    assert!(
        refusal(bzimage(&gzip(b"no ELF at all, but long enough to be read as a header......")))
            .contains("cannot be decompressed")
    );
    let mut bad = with_trailer(lz4(&vmlinux()), &vmlinux());
    bad[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(refusal(bzimage(&bad)).contains("the LZ4 data in kernel cannot be decompressed"));
}

/// A bzImage with the checksum Linux's build puts at its end.
fn summed_bzimage(payload: &[u8], version: &[u8], kind: u16) -> Bytes_ {
    let mut file = bzimage(payload);
    file[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
    file[0x300..0x300 + version.len()].copy_from_slice(version);
    file[0x3c..0x40].copy_from_slice(&0x40u32.to_le_bytes());
    file[0x40..0x44].copy_from_slice(b"PE\0\0");
    file[0x40 + 24..][..2].copy_from_slice(&kind.to_le_bytes());
    file.resize((file.len() + 4).next_multiple_of(512) - 4, 0);
    let paragraphs = (file.len() + 4 - 1024) / 16;
    file[0x1f4..0x1f8].copy_from_slice(&(paragraphs as u32).to_le_bytes());
    let mut crc = flate2::Crc::new();
    crc.update(&file);
    file.extend((!crc.sum()).to_le_bytes());
    file
}

#[test]
fn a_flipped_bit_in_a_kernel_is_found_by_its_checksum() {
    const VERSION: &[u8] = b"6.1.0-56-amd64 (x@y) #1";
    let payload = with_trailer(lz4(&vmlinux()), &vmlinux());
    let good = summed_bzimage(&payload, VERSION, 0x20b);
    Vm::new(64).load(&mut images(good.clone())).unwrap();
    let damaged = |mut file: Bytes_| {
        let at = 1024 + 512 + payload.len() / 2;
        file[at] ^= 4;
        file
    };
    assert!(refusal(damaged(good.clone())).contains("its checksum does not match"));
    assert!(refusal(&good[..good.len() - 1]).contains("truncated: its kernel runs past its"));

    // 64-bit kernels have other headers than 32-bit ones.
    for (kind, certificates) in [(0x20bu16, 24 + 112 + 32), (0x10b, 24 + 96 + 32)] {
        let mut signed = summed_bzimage(&payload, VERSION, kind);
        signed[0x40 + 24 + 64..][..4].copy_from_slice(b"sum.");
        signed[0x40 + certificates..][..8].copy_from_slice(b"position");
        signed.extend(b"signature");
        Vm::new(64).load(&mut images(signed.clone())).unwrap();
        assert!(refusal(damaged(signed)).contains("its checksum does not match"));
    }
}

#[test]
fn a_payload_s_own_checksum_is_looked_at() {
    let kernel = vmlinux();
    let mut zstd = zstd::Encoder::new(Vec::new(), 1).unwrap();
    zstd.include_checksum(true).unwrap();
    zstd.write_all(&kernel).unwrap();
    let (gzip, xz, bzip2) = (gzip(&kernel), xz(&kernel), bzip2(&kernel));
    let payloads = [
        (gzip.len() - 8, gzip),
        (xz.len() - 20, with_trailer(xz, &kernel)),
        (bzip2.len() - 3, with_trailer(bzip2, &kernel)),
    ];
    let zstd = zstd.finish().unwrap();
    for (at, mut payload) in payloads.into_iter().chain([(zstd.len() - 1, zstd)]) {
        payload[at] ^= 0x40;
        let said = refusal(bzimage(&payload));
        assert!(said.contains("cannot be decompressed"), "{said}");
    }
}

/// Damage of every byte that is something, and of many that are nothing: an error or an entry, never a
/// panic, never a hang.
#[test]
fn damaged_images_never_panic() {
    let text = [multiboot_header(0x1_0003, &[0x10_0000, 0x10_0000, 0, 0, 0x10_0000]), vec![0; 64]]
        .concat();
    let small = elf64(0x100_0000, &[load_part(0x100_0000, &[1; 300], 0x1000)]);
    let files = [
        elf64(0, &[load_part(0x20_0000, b"code", 0x1000), pvh_note(0x20_0002)]),
        elf32(0x10_0000, &[load_part(0x10_0000, &text, 0x2000)]),
        text,
        bzimage(&with_trailer(lz4(&small), &small)),
        bzimage(&with_trailer(zstd::encode_all(&small[..], 1).unwrap(), &small)),
        bzimage(&with_trailer(xz(&small), &small)),
        bzimage(&gzip(&small)),
    ];
    let vm = Vm::new(64);
    for file in files {
        for at in (0..file.len()).filter(|at| file[*at] != 0 || at % 11 == 0) {
            for value in [0x00, 0x7f, 0xff] {
                let mut damaged = file.clone();
                damaged[at] = value;
                let _ = vm.load(&mut images(damaged));
            }
        }
    }
}

#[test]
fn multiboot_kernels_read_no_tables_and_others_do() {
    let reads =
        |bytes: Bytes_| reads_tables(&mut Image::new("kernel", Cursor::new(bytes))).unwrap();
    let header = [0x1bad_b002u32, 0, 0u32.wrapping_sub(0x1bad_b002)];
    let header: Bytes_ = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    assert!(!reads(header.clone()));
    assert!(!reads(elf32(0x10_0000, &[load_part(0x10_0000, &header, 0)])));
    assert!(reads(elf64(0x10_0000, &[load_part(0x10_0000, &header, 0), pvh_note(0x10_0000)])));
    assert!(reads(vec![0; 64]));
}
