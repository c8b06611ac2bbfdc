//! Ports of the host that lead into the guest.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::str::FromStr;

use super::Listening;
use super::spec::{GUEST, is_guests};
use crate::{NetError, ParseError};

/// What is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// What is forwarded.
    pub protocol: Protocol,
    /// Where the host listens.
    pub host: SocketAddr,
    /// Where in the guest it leads.
    pub guest: SocketAddr,
}

impl FromStr for Forward {
    type Err = ParseError;

    /// As QEMU writes it: `tcp:127.0.0.1:2222-:22`. Without an address of the host that is its
    /// loopback, without the guest's the one DHCP gives.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = ParseError("not a forward: write it as tcp:127.0.0.1:2222-:22");
        let (protocol, rest) = text.split_once(':').ok_or(bad)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(bad),
        };
        let (host, guest) = rest.split_once('-').ok_or(bad)?;
        let host = endpoint(host, Ipv4Addr::LOCALHOST.into()).ok_or(bad)?;
        let guest = endpoint(guest, GUEST.into()).ok_or(bad)?;
        if guest.port() == 0 || !is_guests(guest.ip()) {
            return Err(ParseError("a forward leads to a port of the guest: as -:22"));
        }
        Ok(Self { protocol, host, guest })
    }
}

/// `ADDRESS:PORT`, `[ADDRESS]:PORT`, `:PORT`.
fn endpoint(text: &str, default: IpAddr) -> Option<SocketAddr> {
    match text.strip_prefix(':') {
        Some(port) => port.parse().ok().map(|port| SocketAddr::new(default, port)),
        None => text.parse().ok(),
    }
}

impl Forward {
    pub(super) fn open(&self, listening: &mut Listening) -> Result<(), NetError> {
        let failed = |source| NetError::Forward { at: self.host, source };
        match self.protocol {
            Protocol::Tcp => {
                let listener = TcpListener::bind(self.host).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                listening.tcp.push((listener, self.guest));
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind(self.host).map_err(failed)?;
                socket.set_nonblocking(true).map_err(failed)?;
                listening.udp.push((socket, self.guest));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_written_as_for_qemu() {
        let forward: Forward = "tcp:127.0.0.1:2222-:22".parse().unwrap();
        assert_eq!(forward.host, "127.0.0.1:2222".parse().unwrap());
        assert_eq!(forward.guest, "10.0.2.15:22".parse().unwrap());
        assert_eq!("tcp::2222-10.0.2.15:22".parse(), Ok(forward));
        let forward: Forward = "udp:[::1]:5353-[fec0::15]:53".parse().unwrap();
        assert_eq!((forward.protocol, forward.guest.port()), (Protocol::Udp, 53));
        for bad in
            ["", "tcp", "tcp:1-2", "sctp::1-:2", "tcp::1-:0", "tcp::99999-:1", "tcp::1-8.8.8.8:1"]
        {
            assert!(bad.parse::<Forward>().is_err(), "{bad}");
        }
    }
}
