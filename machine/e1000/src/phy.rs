//! The transceiver (13.4.6 and IEEE 802.3, clause 22): Marvell's 88E1011 with a partner that does
//! everything.

pub(crate) const REGISTERS: usize = 32;

pub(crate) const BMCR: usize = 0;
const BMCR_RESET: u16 = 1 << 15;
const BMCR_RESTART: u16 = 1 << 9;

/// After a reset, all has been negotiated.
pub(crate) const AT_RESET: [u16; REGISTERS] = {
    let mut phy = [0; REGISTERS];
    phy[BMCR] = 0x1140;
    phy[1] = 0x796d; // negotiated, link up, extended status
    phy[2] = 0x0141;
    phy[3] = 0x0c20;
    phy[4] = 0x0de1;
    phy[5] = 0x45e1;
    phy[6] = 0x0001;
    phy[9] = 0x0e00;
    phy[10] = 0x3c00;
    phy[15] = 0x3000;
    phy[16] = 0x0360;
    phy[17] = 0xac08; // 1 Gbit/s, full duplex, link up
    phy[20] = 0x0d60;
    phy
};

/// Writes a register. True when the link has come anew.
pub(crate) fn write(phy: &mut [u16], register: usize, value: u16) -> bool {
    match register {
        BMCR if value & BMCR_RESET != 0 => phy.copy_from_slice(&AT_RESET),
        BMCR => phy[BMCR] = value & !BMCR_RESTART,
        4 | 7 | 9 | 16 | 18 | 20 | 22.. => phy[register] = value,
        _ => {}
    }
    register == BMCR && value & (BMCR_RESET | BMCR_RESTART) != 0
}
