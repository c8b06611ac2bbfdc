//! The host's name server, and what is said when there is none.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

use super::spec::DNS_PORT;

const HEADER_SIZE: usize = 12;
/// Response; the server cannot answer (RFC 1035, 4.1.1).
const RESPONSE: u8 = 0x80;
const RECURSION_AVAILABLE: u8 = 0x80;
const SERVER_FAILURE: u8 = 2;

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// As long as it is read.
const RESOLV_CONF_MAX: usize = 64 << 10;

/// The file as it was first seen, for a process that can open it no more.
static KEPT: LazyLock<Option<File>> = LazyLock::new(|| File::open(RESOLV_CONF).ok());

/// Opens what a network will look at later, while the process still can.
pub fn keep_resolver() {
    LazyLock::force(&KEPT);
}

/// The first name server of the host, as it is now.
pub(super) fn resolver() -> Option<SocketAddr> {
    let text = fs::read(RESOLV_CONF).or_else(|error| {
        let file = KEPT.as_ref().ok_or(error)?;
        let mut bytes = vec![0; RESOLV_CONF_MAX];
        let size = file.read_at(&mut bytes, 0)?;
        bytes.truncate(size);
        io::Result::Ok(bytes)
    });
    parse(&String::from_utf8_lossy(&text.ok()?))
}

fn parse(text: &str) -> Option<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok())?
    };
    text.lines().find_map(address).map(|ip| SocketAddr::new(ip, DNS_PORT))
}

/// The answer to `query` where no server can be reached: the guest need not wait for one.
pub(super) fn failure(query: &[u8]) -> Option<Vec<u8>> {
    let header = query.get(..HEADER_SIZE)?;
    if header[2] & RESPONSE != 0 {
        return None;
    }
    // The question: labels up to an empty one, type and class.
    let mut end = HEADER_SIZE;
    loop {
        match *query.get(end)? {
            0 => break,
            length @ 1..=63 => end += 1 + usize::from(length),
            _ => return None,
        }
    }
    let mut answer = query.get(..end + 5)?.to_vec();
    answer[2] |= RESPONSE;
    answer[3] = RECURSION_AVAILABLE | SERVER_FAILURE;
    answer[4..HEADER_SIZE].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01\x03deb\x03org\0\0\x01\0\x01extra";

    #[test]
    fn a_failure_repeats_the_question_alone() {
        let expected = b"\x12\x34\x81\x82\0\x01\0\0\0\0\0\0\x03deb\x03org\0\0\x01\0\x01";
        assert_eq!(failure(QUERY).unwrap(), expected);
        for end in 0..QUERY.len() - 5 {
            assert_eq!(failure(&QUERY[..end]), None, "{end} bytes");
        }
        assert_eq!(failure(&failure(QUERY).unwrap()), None, "answers are not answered");
    }

    #[test]
    fn the_first_name_server_counts() {
        let text = "# nameserver 1.1.1.1\nsearch a\nnameserver 127.0.0.53\nnameserver 8.8.8.8\n";
        assert_eq!(parse(text), "127.0.0.53:53".parse().ok());
        assert_eq!(parse("nameserver\nnameserver fe80::1%eth0\n"), None);
    }
}
