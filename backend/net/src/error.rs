//! Why a network cannot be, and what to do.

use std::io;
use std::net::SocketAddr;

/// Why a network cannot be.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The host has no tun driver, or does not let us.
    #[error(
        "cannot open /dev/net/tun for {what}: load the module 'tun', be allowed to open the device, \
         or use --net user, which needs neither"
    )]
    Tun {
        /// What it was for.
        what: String,
        /// What the host says.
        source: io::Error,
    },
    /// The tap is not ours.
    #[error(
        "no permission to use tap '{name}': make it for this user with \
         'ip tuntap add dev {name} mode tap user $(id -un)', and 'ip link set {name} up'"
    )]
    TapPermission {
        /// Its name.
        name: String,
        /// What the host says.
        source: io::Error,
    },
    /// Another program has it, or it is of another kind.
    #[error(
        "tap '{name}' is in use or of another kind: stop the program that has it, or make one with \
         'ip tuntap add dev {name} mode tap{}'", if *multi { " multi_queue" } else { "" }
    )]
    TapBusy {
        /// Its name.
        name: String,
        /// It was to have several queues.
        multi: bool,
        /// What the host says.
        source: io::Error,
    },
    /// No such tap.
    #[error(
        "there is no tap '{name}': make it with 'ip tuntap add dev {name} mode tap user \
         $(id -un)', and 'ip link set {name} up'"
    )]
    NoTap {
        /// Its name.
        name: String,
    },
    /// No such bridge.
    #[error("there is no bridge '{name}': make it with 'ip link add {name} type bridge'")]
    NoBridge {
        /// Its name.
        name: String,
    },
    /// Only root may put a tap on a bridge.
    #[error(
        "no permission to put a tap on bridge '{name}': run as root, or as root make a tap with \
         'ip tuntap add dev tap0 mode tap user USER', 'ip link set tap0 master {name} up', and use \
         --net tap=tap0"
    )]
    BridgePermission {
        /// Its name.
        name: String,
        /// What the host says.
        source: io::Error,
    },
    /// A name no interface can have.
    #[error("'{0}' is no name of a network interface: 1 to 15 characters without '/' or blanks")]
    Name(String),
    /// A forward's address is taken.
    #[error("cannot listen on {at} for a forward: choose another port or address")]
    Forward {
        /// Where.
        at: SocketAddr,
        /// What the host says.
        source: io::Error,
    },
    /// Anything else.
    #[error("the host refuses to {operation}")]
    Host {
        /// What was tried.
        operation: &'static str,
        /// What it says.
        source: io::Error,
    },
}

impl NetError {
    /// What was asked for cannot be on this host as it is set up, whoever asks.
    pub fn is_usage(&self) -> bool {
        !matches!(self, Self::Host { .. })
    }
}

/// Why a text is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub &'static str);
