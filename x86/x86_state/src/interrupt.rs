//! Vectors, exceptions and the interrupt messages that cross the socket.

/// An interrupt vector.
pub type Vector = u8;

/// Which vCPU of the VM: also its initial APIC ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VcpuId(pub u32);

/// A message-signalled interrupt, as it is on the bus (SDM vol. 3A, 11.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Msi {
    /// Address: 0xfeexxxxx.
    pub address: u64,
    /// Data: vector, delivery mode, level and trigger mode.
    pub data: u32,
}

/// How an interrupt message is delivered (SDM vol. 3A, 11.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum DeliveryMode {
    /// To all destinations.
    Fixed = 0,
    /// To the least busy of the destinations.
    LowestPriority = 1,
    /// System management.
    Smi = 2,
    /// Non-maskable.
    Nmi = 4,
    /// INIT.
    Init = 5,
    /// Start-up.
    StartUp = 6,
    /// As if from the PIC.
    ExtInt = 7,
}

impl DeliveryMode {
    /// From the three bits of a message or redirection entry; 3 is reserved.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            7 => Self::ExtInt,
            _ => return None,
        })
    }
}

impl Msi {
    /// The 8-bit destination APIC ID.
    pub const fn destination(&self) -> u8 {
        (self.address >> 12) as u8
    }

    /// Destination bits 8..=14, carried in address bits 5..=11 (extended destination ID).
    pub const fn destination_ext(&self) -> u32 {
        self.destination() as u32 | (((self.address >> 5) & 0x7f) as u32) << 8
    }

    /// Logical destination mode.
    pub const fn logical(&self) -> bool {
        self.address & 4 != 0
    }

    /// Redirection hint: deliver to the lowest priority of the destinations.
    pub const fn redirection_hint(&self) -> bool {
        self.address & 8 != 0
    }

    /// The vector.
    pub const fn vector(&self) -> Vector {
        self.data as u8
    }

    /// The delivery mode; `None` when reserved.
    pub const fn delivery_mode(&self) -> Option<DeliveryMode> {
        DeliveryMode::from_bits((self.data >> 8) as u8)
    }

    /// Level triggered (bit 15): its EOI is broadcast.
    pub const fn level_triggered(&self) -> bool {
        self.data & (1 << 15) != 0
    }
}

/// An exception, by its vector (SDM vol. 3A, table 6-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the variants are the SDM's mnemonics")]
pub enum Exception {
    De = 0,
    Db = 1,
    Nmi = 2,
    Bp = 3,
    Of = 4,
    Br = 5,
    Ud = 6,
    Nm = 7,
    Df = 8,
    Ts = 10,
    Np = 11,
    Ss = 12,
    Gp = 13,
    Pf = 14,
    Mf = 16,
    Ac = 17,
    Mc = 18,
    Xm = 19,
}

impl Exception {
    /// Pushes an error code.
    pub const fn has_error_code(self) -> bool {
        matches!(self, Self::Df | Self::Ts | Self::Np | Self::Ss | Self::Gp | Self::Pf | Self::Ac)
    }

    /// From a vector; `None` when the vector names no exception.
    pub const fn from_vector(vector: Vector) -> Option<Self> {
        Some(match vector {
            0 => Self::De,
            1 => Self::Db,
            2 => Self::Nmi,
            3 => Self::Bp,
            4 => Self::Of,
            5 => Self::Br,
            6 => Self::Ud,
            7 => Self::Nm,
            8 => Self::Df,
            10 => Self::Ts,
            11 => Self::Np,
            12 => Self::Ss,
            13 => Self::Gp,
            14 => Self::Pf,
            16 => Self::Mf,
            17 => Self::Ac,
            18 => Self::Mc,
            19 => Self::Xm,
            _ => return None,
        })
    }
}
