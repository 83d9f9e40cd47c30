//! Who may talk to an input. In: the address of a peer. Out: whether it is one of those that were named.
//!
//! Nothing is lost here; who is not allowed is counted where it is turned away.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::RouterError;

/// Addresses that peers of an input may have: one (`10.1.2.3`, `::1`), or all that share a prefix (`10.0.0.0/8`,
/// `2001:db8::/32`).
///
/// IPv4 peers of a socket that listens on IPv6 (`::ffff:10.1.2.3`) count as what they are, so `10.0.0.0/8` holds for
/// them and `::/0` does not.
///
/// ```
/// use tracing_metlog::router::Network;
///
/// let network: Network = "10.0.0.0/8".parse()?;
/// assert!(network.contains("10.1.2.3".parse().unwrap()));
/// assert!(network.contains("::ffff:10.1.2.3".parse().unwrap()));
/// assert!(!network.contains("11.1.2.3".parse().unwrap()));
/// # Ok::<(), tracing_metlog::router::RouterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    first: IpAddr,
    prefix: u8,
}

impl Network {
    const ACCEPTED: &'static str =
        "an address (10.1.2.3, ::1) or a network whose bits behind the prefix are zero \
                                    (10.0.0.0/8, 2001:db8::/32)";

    /// Whether the address belongs to it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                leading(u32::from(first) ^ u32::from(address), 32, self.prefix)
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                leading(u128::from(first) ^ u128::from(address), 128, self.prefix)
            }
            _ => false,
        }
    }

    /// `None`: the prefix is too long, or there are bits behind it.
    fn new(first: IpAddr, prefix: u8) -> Option<Self> {
        let (bits, is_clear) = match first {
            IpAddr::V4(first) => (32, behind(u32::from(first).into(), 32, prefix)),
            IpAddr::V6(first) => (128, behind(u128::from(first), 128, prefix)),
        };
        if prefix > bits || !is_clear {
            return None;
        }
        // An IPv4 network may be written as a part of IPv6, and peers never are.
        match (first, first.to_canonical()) {
            (IpAddr::V6(_), canonical @ IpAddr::V4(_)) => {
                Some(Network { first: canonical, prefix: prefix.checked_sub(96)? })
            }
            _ => Some(Network { first, prefix }),
        }
    }
}

/// Whether the first `prefix` of so many bits are zero.
fn leading(bits: impl Into<u128>, width: u8, prefix: u8) -> bool {
    let shift = u32::from(width.saturating_sub(prefix));
    bits.into().checked_shr(shift).unwrap_or(0) == 0
}

/// Whether all bits but the first `prefix` are zero.
fn behind(bits: u128, width: u8, prefix: u8) -> bool {
    let mask = 1_u128.checked_shl(u32::from(width.saturating_sub(prefix))).map_or(u128::MAX, |bit| bit - 1);
    bits & mask == 0
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Network { first: address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for Network {
    type Err = RouterError;

    fn from_str(text: &str) -> Result<Self, RouterError> {
        let error = || RouterError::Config { value: text.to_owned(), accepted: Network::ACCEPTED };
        let Some((first, prefix)) = text.split_once('/') else {
            return text.parse::<IpAddr>().map(Network::from).map_err(|_| error());
        };
        let is_number = prefix.bytes().all(|byte| byte.is_ascii_digit());
        let first = first.parse().map_err(|_| error())?;
        let prefix = prefix.parse().ok().filter(|_| is_number).ok_or_else(error)?;
        Network::new(first, prefix).ok_or_else(error)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.first, self.prefix)
    }
}

/// Whether two addresses are likely to be one peer's: a host of IPv6 has a whole /64 to choose from.
pub(super) fn is_same_peer(one: IpAddr, other: IpAddr) -> bool {
    match (one.to_canonical(), other.to_canonical()) {
        (IpAddr::V6(one), IpAddr::V6(other)) => one.segments()[..4] == other.segments()[..4],
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        let network: Network = network.parse().expect(network);
        network.contains(address.parse().expect(address))
    }

    #[test]
    fn a_network_holds_the_addresses_of_its_prefix_and_no_other() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("192.0.2.128/25", "192.0.2.128", "192.0.2.127"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.0"),
            ("0.0.0.0/0", "255.1.2.3", "::1"),
            ("127.0.0.0/8", "::ffff:127.0.0.1", "::ffff:128.0.0.1"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.1.2.3"),
            ("::1", "::1", "::2"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
            ("::/0", "2001:db8::1", "::ffff:10.0.0.1"),
        ] {
            assert!(contains(network, inside), "{network} {inside}");
            assert!(!contains(network, outside), "{network} {outside}");
        }
    }

    #[test]
    fn what_is_no_network_is_an_error_that_says_what_is_accepted() {
        for text in [
            "",
            "/",
            "10.0.0.0/",
            "/8",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "10.0.0/8",
            "::1/64",
            "::/129",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "localhost",
            "10.0.0.0/8/8",
            "::ffff:0.0.0.0/95",
        ] {
            let error = text.parse::<Network>().expect_err(text).to_string();
            assert_eq!(error, format!("{text:?}: accepted is {}", Network::ACCEPTED));
        }
    }

    #[test]
    fn a_network_is_written_as_it_is_read() {
        for text in ["10.0.0.0/8", "::1/128", "2001:db8::/32", "0.0.0.0/0"] {
            assert_eq!(text.parse::<Network>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn a_host_of_ipv6_is_one_peer_whatever_address_of_its_64_bits_it_takes() {
        let same =
            |one: &str, other: &str| is_same_peer(one.parse().expect(one), other.parse().expect(other));
        assert!(same("2001:db8::1", "2001:db8::ffff:1") && !same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("10.0.0.1", "::ffff:10.0.0.1") && !same("10.0.0.1", "10.0.0.2"));
    }
}
