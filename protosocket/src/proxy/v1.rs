//! The line of version 1 (§2.1).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use bytes::Bytes;

use super::{Addresses, ProxyError, ProxyHeader};

const BEGINNING: &[u8] = b"PROXY ";

/// The longest line, its end included.
const LONGEST: usize = 107;

/// Whether these can be the first bytes of a line.
pub(super) fn begins(bytes: &[u8]) -> bool {
    let common = bytes.len().min(BEGINNING.len());
    bytes[..common] == BEGINNING[..common]
}

pub(super) fn parse(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
    // LIMIT: what is longer is no line, whether its end comes or not.
    let line = &bytes[..bytes.len().min(LONGEST)];
    let Some(feed) = line.iter().position(|byte| *byte == b'\n') else {
        return match line.len() < LONGEST {
            true => Ok(None),
            false => Err(ProxyError::LineTooLong),
        };
    };
    let line = (bytes[..feed].strip_suffix(b"\r")).ok_or(ProxyError::BareLineFeed)?;
    let fields = line.strip_prefix(BEGINNING).ok_or(ProxyError::Family)?;
    // What is no text is no address either.
    let addresses = std::str::from_utf8(fields).map_or_else(|_| parse_bytes(fields), parse_text)?;
    Ok(Some((ProxyHeader::proxy(addresses), feed + 1)))
}

/// Fields that are no text: whatever stands behind UNKNOWN is ignored.
fn parse_bytes(fields: &[u8]) -> Result<Addresses, ProxyError> {
    match fields.starts_with(b"UNKNOWN ") {
        true => Ok(Addresses::Unknown),
        false => Err(ProxyError::Fields),
    }
}

fn parse_text(fields: &str) -> Result<Addresses, ProxyError> {
    let (family, rest) = match fields.split_once(' ') {
        Some((family, rest)) => (family, Some(rest)),
        None => (fields, None),
    };
    match (family, rest) {
        ("UNKNOWN", _) => Ok(Addresses::Unknown),
        ("TCP4", rest) => {
            let [source, destination, from, to] = four(rest)?;
            let ip = |text: &str, name| {
                (text.parse::<Ipv4Addr>()).map_err(|_| ProxyError::Address(name))
            };
            Ok(Addresses::Tcp4 {
                source: SocketAddrV4::new(ip(source, "source")?, port(from, "source")?),
                destination: SocketAddrV4::new(
                    ip(destination, "destination")?,
                    port(to, "destination")?,
                ),
            })
        }
        ("TCP6", rest) => {
            let [source, destination, from, to] = four(rest)?;
            let ip = |text: &str, name| {
                (text.parse::<Ipv6Addr>()).map_err(|_| ProxyError::Address(name))
            };
            Ok(Addresses::Tcp6 {
                source: SocketAddrV6::new(ip(source, "source")?, port(from, "source")?, 0, 0),
                destination: SocketAddrV6::new(
                    ip(destination, "destination")?,
                    port(to, "destination")?,
                    0,
                    0,
                ),
            })
        }
        _ => Err(ProxyError::Family),
    }
}

fn four(fields: Option<&str>) -> Result<[&str; 4], ProxyError> {
    let mut fields = fields.ok_or(ProxyError::Fields)?.split(' ');
    let mut next = || fields.next().filter(|field| !field.is_empty());
    let four = [next(), next(), next(), next()];
    let [Some(a), Some(b), Some(c), Some(d)] = four else {
        return Err(ProxyError::Fields);
    };
    match fields.next() {
        None => Ok([a, b, c, d]),
        Some(_) => Err(ProxyError::Fields),
    }
}

/// Digits alone, without leading zeros.
fn port(text: &str, name: &'static str) -> Result<u16, ProxyError> {
    let is_canonical = text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    let port = text.parse().ok().filter(|_| is_canonical);
    port.ok_or(ProxyError::Port(name))
}

pub(super) fn write(header: &ProxyHeader) -> Result<Bytes, ProxyError> {
    if header.is_local {
        return Err(ProxyError::NotInVersion1("LOCAL"));
    }
    if !header.tlvs.is_empty() {
        return Err(ProxyError::NotInVersion1("TLVs"));
    }
    if header.has_checksum {
        return Err(ProxyError::NotInVersion1("a checksum"));
    }
    let line = match &header.addresses {
        Addresses::Tcp4 {
            source: from,
            destination: to,
        } => format!(
            "PROXY TCP4 {} {} {} {}\r\n",
            from.ip(),
            to.ip(),
            from.port(),
            to.port()
        ),
        Addresses::Tcp6 {
            source: from,
            destination: to,
        } => format!(
            "PROXY TCP6 {} {} {} {}\r\n",
            from.ip(),
            to.ip(),
            from.port(),
            to.port()
        ),
        Addresses::Unix { .. } | Addresses::Unknown => "PROXY UNKNOWN\r\n".to_owned(),
    };
    Ok(line.into())
}
