//! A machine that stands still, outside of it.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use board::{NamedSection, RAM, restore_vcpu, save_vcpu};
use statecodec::Section;
use tempfile::NamedTempFile;
use x86_state::VcpuId;

use crate::Vm;

const CHUNK: usize = 4096;
const CPU: &str = "cpu/";

/// Everything of a machine.
pub struct Saved {
    sections: Vec<NamedSection>,
    vcpus: Vec<Section>,
    memory: Vec<u8>,
    disk: Vec<u8>,
    printed: Vec<u8>,
}

impl Saved {
    pub(crate) fn of(vm: &mut Vm) -> Self {
        vm.machine.pause_io();
        Self {
            sections: vm.machine.save(),
            vcpus: vm.vcpus.iter_mut().map(|vcpu| save_vcpu(&vcpu.save().unwrap())).collect(),
            memory: content(&vm.machine.memory().region(RAM).unwrap().file),
            disk: content(vm.disk.as_file()),
            printed: vm.serial.0.lock().unwrap().clone(),
        }
    }

    /// The devices' and the vCPUs' sections: a vCPU's path is `cpu/` and its number.
    pub fn sections(&self) -> Vec<NamedSection> {
        let vcpu = |(id, section): (usize, &Section)| NamedSection {
            path: format!("{CPU}{id}"),
            section: section.clone(),
        };
        let vcpus = self.vcpus.iter().enumerate().map(vcpu);
        self.sections.iter().cloned().chain(vcpus).collect()
    }

    /// The sections as a file.
    pub fn pack(&self) -> Vec<u8> {
        board::pack(&Vm::profile(self.vcpus.len() as u32), &self.sections())
    }

    /// A machine of so many CPUs with this file's state, but with memory and a disk that are all
    /// zero. It cannot go on; it can be looked at.
    pub fn unpack(cores: u32, file: &[u8]) -> Vm {
        let mut vm = Vm::new(cores);
        let sections = board::unpack(vm.machine.profile(), file).unwrap();
        let (vcpus, sections): (Vec<_>, _) =
            sections.into_iter().partition(|named| named.path.starts_with(CPU));
        vm.machine.pause_io();
        vm.machine.restore(&sections).unwrap();
        for ((id, vcpu), named) in (0..).map(VcpuId).zip(&mut vm.vcpus).zip(&vcpus) {
            vcpu.load(&restore_vcpu(&named.section, vm.machine.profile(), id).unwrap()).unwrap();
        }
        vm
    }

    /// Another machine that is the same.
    pub fn restore(&self) -> Vm {
        let mut disk = NamedTempFile::new().unwrap();
        disk.write_all(&self.disk).unwrap();
        let mut vm = Vm::with_disk(self.vcpus.len() as u32, disk);
        let memory = &vm.machine.memory().region(RAM).unwrap().file;
        let chunks = (0u64..).zip(self.memory.chunks(CHUNK));
        for (i, chunk) in chunks.filter(|(_, chunk)| *chunk != [0; CHUNK]) {
            memory.write_all_at(chunk, i * CHUNK as u64).unwrap();
        }
        vm.machine.pause_io();
        vm.machine.restore(&self.sections).unwrap();
        for ((id, vcpu), section) in (0..).map(VcpuId).zip(&mut vm.vcpus).zip(&self.vcpus) {
            vcpu.load(&restore_vcpu(section, vm.machine.profile(), id).unwrap()).unwrap();
        }
        vm.serial.0.lock().unwrap().clone_from(&self.printed);
        vm
    }

    /// Panics with the first difference.
    pub fn assert_same(&self, other: &Self) {
        let printed = |saved: &Self| String::from_utf8_lossy(&saved.printed).into_owned();
        assert_eq!(printed(self), printed(other));
        for (one, two) in self.sections.iter().zip(&other.sections) {
            assert_eq!(one, two, "{}", one.path);
        }
        assert_eq!(self.sections.len(), other.sections.len());
        assert_eq!(self.vcpus, other.vcpus);
        for (what, one, two) in
            [("memory", &self.memory, &other.memory), ("disk", &self.disk, &other.disk)]
        {
            let page = one.chunks(CHUNK).zip(two.chunks(CHUNK)).position(|(one, two)| one != two);
            assert_eq!(page, None, "a page of the {what} differs");
            assert_eq!(one.len(), two.len(), "{what}");
        }
    }
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}
