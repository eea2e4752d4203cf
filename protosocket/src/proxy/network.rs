use std::{fmt, net::IpAddr, str::FromStr};

/// Addresses with the same first bits, such as `10.0.0.0/8`, `2001:db8::/32`, or one alone.
///
/// An IPv4 address is the same when it is written as IPv6 (`::ffff:10.0.0.1`), as a listener for
/// both sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// The addresses whose first `bits` bits are those of `address`. An IPv4 address that is written
    /// as IPv6 counts from the first bit of that, so that `::ffff:10.0.0.0/104` is `10.0.0.0/8`.
    ///
    /// # Errors
    /// More bits than an address has, or bits behind them that are set: a mistake more often than
    /// not.
    pub fn new(address: IpAddr, bits: u8) -> Result<Self, NetworkError> {
        let (address, bits) = match (address.to_canonical(), bits) {
            (IpAddr::V4(mapped), 96..=128) if address.is_ipv6() => (IpAddr::V4(mapped), bits - 96),
            _ => (address, bits),
        };
        let network = Self { address, bits };
        let longest = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        if bits > longest {
            return Err(NetworkError::Bits { bits, longest });
        }
        match network.masked(address) == bits_of(address) {
            true => Ok(network),
            false => Err(NetworkError::Host { address, bits }),
        }
    }

    /// Whether `address` is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (own, address) = (self.address, address.to_canonical());
        own.is_ipv4() == address.is_ipv4() && self.masked(address) == bits_of(own)
    }

    fn masked(&self, address: IpAddr) -> u128 {
        let mask = u128::MAX.checked_shl(128 - u32::from(self.bits));
        bits_of(address) & mask.unwrap_or(0)
    }
}

/// The bits of an address, the first of them on top.
fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// One address alone.
impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let bits = if address.is_ipv4() { 32 } else { 128 };
        Self { address, bits }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let syntax = || NetworkError::Syntax(text.to_owned());
        let address: IpAddr = address.parse().map_err(|_| syntax())?;
        match bits {
            Some(bits) => Self::new(address, bits.parse().map_err(|_| syntax())?),
            None => Ok(address.into()),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// Something is no [`Network`]: whoever wrote it is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// It is neither an address nor one with a number of bits.
    #[error("{0:?} is no network: an address, or one with a number of bits such as 10.0.0.0/8")]
    Syntax(String),
    /// It has more bits than an address has.
    #[error("a network of {bits} bits, and its addresses have {longest}")]
    Bits {
        /// What was said.
        bits: u8,
        /// What there are.
        longest: u8,
    },
    /// It has bits set that are not its own.
    #[error("{address}/{bits} has bits set behind the first {bits}")]
    Host {
        /// The address.
        address: IpAddr,
        /// Its bits.
        bits: u8,
    },
}
