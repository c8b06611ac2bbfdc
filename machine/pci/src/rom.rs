//! The expansion ROM (PCI Local Bus 3.0, 6.2.5.2 and 6.3).

use bus::BusDevice;

/// An image, as the guest reads it.
pub(crate) struct Rom(Vec<u8>);

impl Rom {
    /// The smallest that the register can say.
    const SIZE_MIN: usize = 2048;

    /// The image, made as long as a register can say. What follows it reads as erased.
    pub(crate) fn new(mut image: Vec<u8>) -> Self {
        image.resize(image.len().next_power_of_two().max(Self::SIZE_MIN), 0xff);
        Self(image)
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.0.len() as u64
    }
}

impl BusDevice for Rom {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let from = usize::try_from(offset).ok().and_then(|at| self.0.get(at..));
        if let Some(bytes) = from.and_then(|rest| rest.get(..data.len())) {
            data.copy_from_slice(bytes);
        }
    }

    fn write(&self, _offset: u64, _data: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bus::{AddressSpace, Device};

    use crate::{Function, FunctionSpec, Inert, Spaces};

    const ROM_BAR: usize = 0x30;

    fn function(image: Vec<u8>) -> (Arc<AddressSpace>, Arc<Function>) {
        let memory = AddressSpace::new();
        let spaces = Spaces { memory: memory.clone(), io: AddressSpace::new() };
        let spec = FunctionSpec { rom: Some(image), ..FunctionSpec::default() };
        (memory, Function::new(&spec, &spaces, Arc::new(Inert)))
    }

    fn register(function: &Function) -> u32 {
        let mut data = [0; 4];
        function.config_read(ROM_BAR, &mut data);
        u32::from_le_bytes(data)
    }

    fn read(memory: &AddressSpace, address: u64) -> [u8; 2] {
        let mut data = [0; 2];
        memory.read(address, &mut data);
        data
    }

    #[test]
    fn the_register_tells_the_size_rounded_up_to_what_it_can_say() {
        for (length, sized) in [(1, 0xffff_f801), (2049, 0xffff_f001), (0x9000, 0xffff_0001)] {
            let (_, function) = function(vec![0; length]);
            assert_eq!(register(&function), 0);
            function.config_write(ROM_BAR, &[0xff; 4]);
            assert_eq!(register(&function), sized, "{length}");
        }
    }

    #[test]
    fn it_is_read_only_while_both_enables_are_set() {
        let (memory, function) = function(vec![0x55, 0xaa, 3]);
        function.config_write(ROM_BAR, &0xfeb0_0001_u32.to_le_bytes());
        assert_eq!(read(&memory, 0xfeb0_0000), [0xff, 0xff]);
        function.config_write(4, &[2, 0]);
        assert_eq!(read(&memory, 0xfeb0_0000), [0x55, 0xaa]);
        memory.write(0xfeb0_0000, &[1, 2]);
        assert_eq!(read(&memory, 0xfeb0_0000), [0x55, 0xaa]);
        assert_eq!(read(&memory, 0xfeb0_0002), [3, 0xff]);
        function.config_write(ROM_BAR, &0xfeb0_0000_u32.to_le_bytes());
        assert_eq!(read(&memory, 0xfeb0_0000), [0xff, 0xff]);
    }

    #[test]
    fn a_restored_function_shows_its_rom_where_it_was() {
        let (_, saved) = function(vec![0x55, 0xaa]);
        saved.config_write(ROM_BAR, &0xfeb0_0001_u32.to_le_bytes());
        saved.config_write(4, &[2, 0]);
        let (memory, restored) = function(vec![0x55, 0xaa]);
        restored.restore(&saved.save()).unwrap();
        assert_eq!(read(&memory, 0xfeb0_0000), [0x55, 0xaa]);
        restored.reset();
        assert_eq!(read(&memory, 0xfeb0_0000), [0xff, 0xff]);
    }
}
