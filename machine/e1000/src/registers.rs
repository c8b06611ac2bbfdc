//! What reads and writes of registers do (section 13).

use crate::eeprom;
use crate::phy;
use crate::spec::*;
use crate::state::State;

/// What follows from a write, without the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Nothing,
    /// The rings are to be looked at.
    Run,
    /// Everything but the transceiver is to begin anew.
    Reset,
}

/// Which bits of a plain register a driver can write.
fn writable(at: u64) -> u32 {
    match at {
        CTRL => !(CTRL_RST | CTRL_PHY_RST),
        CTRL_EXT | FCAL | FCAH | FCT | VET | ITR | RCTL | FCTTV | TXCW | TCTL | TIPG | AIT
        | LEDCTL | PBA | FCRTL | FCRTH | RDTR | RXDCTL | RADV | RSRPD | TXDMAC | TIDV | TXDCTL
        | TADV | TSPMT | RXCSUM | WUC | WUFC | MANC => !0,
        MTA..MTA_END | RA..RA_END | VFTA..VFTA_END => !0,
        RX_RING..0x2820 | TX_RING..0x3820 => match at & 0x1f {
            BAL => !0xf,
            BAH => !0,
            LEN => 0xf_ff80,
            HEAD | TAIL => 0xffff,
            _ => 0,
        },
        _ => 0,
    }
}

impl State {
    /// Reads a register. Some change by it.
    pub(crate) fn read(&mut self, at: u64) -> u32 {
        match at {
            STATUS => {
                let link = if self.has(CTRL, CTRL_SLU) { STATUS_LU } else { 0 };
                STATUS_FD | STATUS_SPEED_1000 | link
            }
            EECD => {
                let value = self.get(EECD);
                let granted = if value & EECD_REQ != 0 { EECD_GNT } else { 0 };
                let out = if self.eeprom.out { EECD_DO } else { 0 };
                value | granted | out | EECD_PRES
            }
            ICR | STATISTICS..STATISTICS_END => std::mem::take(self.register(at)),
            ICS | IMC => 0,
            _ => self.get(at),
        }
    }

    /// Writes a register of a card with this address.
    pub(crate) fn write(&mut self, at: u64, value: u32, mac: [u8; 6]) -> Effect {
        match at {
            CTRL => return self.write_ctrl(value),
            EECD => self.write_eecd(value, mac),
            EERD if value & EERD_START != 0 => {
                let word = eeprom::words(mac)[(value >> 8 & 63) as usize];
                *self.register(EERD) = u32::from(word) << 16 | value & 0xff00 | EERD_DONE;
            }
            MDIC => self.write_mdic(value),
            ICR => *self.register(ICR) &= !value,
            ICS => self.raise(value & CAUSES),
            IMS => *self.register(IMS) |= value & CAUSES,
            IMC => *self.register(IMS) &= !value,
            _ => {
                let mask = writable(at);
                if mask != 0 {
                    *self.register(at) = value & mask;
                }
                if matches!(at, RDT | TDT | RCTL | TCTL) {
                    return Effect::Run;
                }
            }
        }
        Effect::Nothing
    }

    fn write_ctrl(&mut self, value: u32) -> Effect {
        if value & CTRL_RST != 0 {
            return Effect::Reset;
        }
        if value & CTRL_PHY_RST != 0 {
            self.phy.copy_from_slice(&phy::AT_RESET);
        }
        let was = self.get(CTRL);
        *self.register(CTRL) = value & writable(CTRL);
        if (was ^ value) & CTRL_SLU != 0 || value & CTRL_PHY_RST != 0 {
            self.raise(LSC);
        }
        Effect::Nothing
    }

    fn write_eecd(&mut self, value: u32, mac: [u8; 6]) {
        let was = self.get(EECD);
        *self.register(EECD) = value & EECD_WRITABLE;
        if value & EECD_CS == 0 {
            self.eeprom.deselect();
        } else if value & EECD_SK != 0 && was & EECD_SK == 0 {
            self.eeprom.clock(value & EECD_DI != 0, &eeprom::words(mac));
        }
    }

    /// A cycle on the transceiver's bus, whose only device is 1.
    fn write_mdic(&mut self, value: u32) {
        let (register, device) = ((value >> 16 & 31) as usize, value >> 21 & 31);
        let mut result = value & !(MDIC_R | MDIC_E) | MDIC_R;
        match value & MDIC_OP {
            MDIC_READ if device == 1 => {
                result = result & !0xffff | u32::from(self.phy[register]);
            }
            MDIC_WRITE if device == 1 => {
                if phy::write(&mut self.phy, register, value as u16) && self.has(CTRL, CTRL_SLU) {
                    self.raise(LSC);
                }
            }
            _ => result |= MDIC_E,
        }
        *self.register(MDIC) = result;
        if value & MDIC_I != 0 {
            self.raise(MDAC);
        }
    }
}
