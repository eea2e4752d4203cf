//! The binary header of version 2 (§2.2).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Addresses, ProxyError, ProxyHeader, Ssl, Tlv, TlvType, UnixAddress, crc32c::crc32c};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, length.
const HEAD: usize = 16;

const VERSION: u8 = 2;
const LOCAL: u8 = 0;
const PROXY: u8 = 1;

const UNSPECIFIED: u8 = 0;
const INET: u8 = 1;
const INET6: u8 = 2;
const UNIX: u8 = 3;

const STREAM: u8 = 1;
const DATAGRAM: u8 = 2;

const CHECKSUM: usize = size_of::<u32>();

/// LIMIT: §2.2.5.
const LONGEST_ID: usize = 128;

/// Whether these can be the first bytes of a header.
pub(super) fn begins(bytes: &[u8]) -> bool {
    let common = bytes.len().min(SIGNATURE.len());
    bytes[..common] == SIGNATURE[..common]
}

pub(super) fn parse(
    bytes: &[u8],
    max_header: usize,
) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
    let at = |index: usize| bytes.get(index).copied();
    // What is wrong is refused at its byte, without waiting for more.
    let Some(version) = at(12) else {
        return Ok(None);
    };
    let (version, command) = (version >> 4, version & 0xf);
    if version != VERSION {
        return Err(ProxyError::Version(version));
    }
    if command != LOCAL && command != PROXY {
        return Err(ProxyError::Command(command));
    }
    let Some(transport) = at(13) else {
        return Ok(None);
    };
    let (family, kind) = (transport >> 4, transport & 0xf);
    // Of a connection of the proxy's own, all else is to be discarded, what nobody knows included.
    if command == PROXY && (family > UNIX || kind > DATAGRAM) {
        return Err(ProxyError::Transport(transport));
    }
    let (Some(high), Some(low)) = (at(14), at(15)) else {
        return Ok(None);
    };
    let announced = usize::from(u16::from_be_bytes([high, low]));
    let length = HEAD + announced;
    if length > max_header {
        return Err(ProxyError::TooLong {
            announced: length,
            limit: max_header,
        });
    }
    let needed = match command {
        LOCAL => 0,
        _ => addresses_len(family),
    };
    if announced < needed {
        return Err(ProxyError::TooShort { announced, needed });
    }
    let Some(bytes) = bytes.get(..length) else {
        return Ok(None);
    };
    if command == LOCAL {
        return Ok(Some((ProxyHeader::local(), length)));
    }
    let mut header = ProxyHeader::proxy(Addresses::Unknown);
    let mut rest = Bytes::copy_from_slice(&bytes[HEAD..]);
    let addresses = rest.split_to(needed);
    if kind == STREAM {
        header.addresses = parse_addresses(family, addresses);
    }
    // Without a transport it is not said what the addresses are, nor where they end.
    if kind != UNSPECIFIED || family == UNSPECIFIED {
        parse_tlvs(&mut header, bytes, HEAD + needed, rest)?;
    }
    Ok(Some((header, length)))
}

fn addresses_len(family: u8) -> usize {
    match family {
        INET => 12,
        INET6 => 36,
        UNIX => 2 * UnixAddress::LENGTH,
        _ => 0,
    }
}

/// INVARIANT: there are as many bytes as the family needs.
fn parse_addresses(family: u8, mut bytes: Bytes) -> Addresses {
    match family {
        INET => {
            let [from, to] = [bytes.get_u32(), bytes.get_u32()].map(Ipv4Addr::from);
            Addresses::Tcp4 {
                source: SocketAddrV4::new(from, bytes.get_u16()),
                destination: SocketAddrV4::new(to, bytes.get_u16()),
            }
        }
        INET6 => {
            let [from, to] = [bytes.get_u128(), bytes.get_u128()].map(Ipv6Addr::from);
            Addresses::Tcp6 {
                source: SocketAddrV6::new(from, bytes.get_u16(), 0, 0),
                destination: SocketAddrV6::new(to, bytes.get_u16(), 0, 0),
            }
        }
        UNIX => {
            let from = UnixAddress::new(bytes.split_to(UnixAddress::LENGTH));
            match (from, UnixAddress::new(bytes)) {
                (Some(source), Some(destination)) => Addresses::Unix {
                    source,
                    destination,
                },
                _ => Addresses::Unknown,
            }
        }
        _ => Addresses::Unknown,
    }
}

/// What follows the addresses, from `offset` in the header on.
fn parse_tlvs(
    header: &mut ProxyHeader,
    bytes: &[u8],
    mut offset: usize,
    rest: Bytes,
) -> Result<(), ProxyError> {
    let mut checksum = None;
    for tlv in Tlv::parse_all(rest)? {
        let value = offset + tlv.written_len() - tlv.value.len();
        offset += tlv.written_len();
        let wrong = |expected| ProxyError::TlvLength {
            kind: tlv.kind,
            length: tlv.value.len(),
            expected,
        };
        match tlv.kind {
            TlvType::CRC32C => {
                let announced = (&tlv.value[..]).try_into().map_err(|_| wrong("4"))?;
                if checksum.replace((value, announced)).is_some() {
                    return Err(ProxyError::TlvTwice(tlv.kind));
                }
                continue;
            }
            TlvType::NOOP => continue,
            TlvType::UNIQUE_ID if tlv.value.len() > LONGEST_ID => return Err(wrong("up to 128")),
            TlvType::AUTHORITY if std::str::from_utf8(&tlv.value).is_err() => {
                return Err(ProxyError::Authority);
            }
            TlvType::SSL => {
                Ssl::parse(&tlv.value)?;
            }
            _ => {}
        }
        header.tlvs.push(tlv);
    }
    if let Some((at, announced)) = checksum {
        check(bytes, at, u32::from_be_bytes(announced))?;
        header.has_checksum = true;
    }
    Ok(())
}

/// §2.2.3: the checksum is that of the header with zeros in its place.
fn check(bytes: &[u8], at: usize, announced: u32) -> Result<(), ProxyError> {
    let computed = crc32c(&[&bytes[..at], &[0; CHECKSUM], &bytes[at + CHECKSUM..]]);
    match announced == computed {
        true => Ok(()),
        false => Err(ProxyError::Checksum {
            announced,
            computed,
        }),
    }
}

pub(super) fn write(header: &ProxyHeader) -> Result<Bytes, ProxyError> {
    let (family, kind) = match (&header.addresses, header.is_local) {
        (Addresses::Unknown, _) | (_, true) => (UNSPECIFIED, UNSPECIFIED),
        (Addresses::Tcp4 { .. }, _) => (INET, STREAM),
        (Addresses::Tcp6 { .. }, _) => (INET6, STREAM),
        (Addresses::Unix { .. }, _) => (UNIX, STREAM),
    };
    let checksum = Tlv::new(TlvType::CRC32C, &[0; CHECKSUM][..]);
    let checksum = header.has_checksum.then_some(&checksum);
    let tlvs = || header.tlvs.iter().chain(checksum);
    let length = addresses_len(family) + tlvs().map(Tlv::written_len).sum::<usize>();
    let Ok(announced) = u16::try_from(length) else {
        return Err(ProxyError::CannotSend(HEAD + length));
    };
    let mut output = BytesMut::with_capacity(HEAD + length);
    output.put_slice(&SIGNATURE);
    let command = if header.is_local { LOCAL } else { PROXY };
    output.put_u8(VERSION << 4 | command);
    output.put_u8(family << 4 | kind);
    output.put_u16(announced);
    write_addresses(header, &mut output);
    tlvs().for_each(|tlv| tlv.write(&mut output));
    if header.has_checksum {
        let sum = crc32c(&[&output]);
        let at = output.len() - CHECKSUM;
        output[at..].copy_from_slice(&sum.to_be_bytes());
    }
    Ok(output.freeze())
}

fn write_addresses(header: &ProxyHeader, output: &mut BytesMut) {
    match &header.addresses {
        _ if header.is_local => {}
        Addresses::Unknown => {}
        Addresses::Tcp4 {
            source,
            destination,
        } => {
            output.put_slice(&source.ip().octets());
            output.put_slice(&destination.ip().octets());
            output.put_u16(source.port());
            output.put_u16(destination.port());
        }
        Addresses::Tcp6 {
            source,
            destination,
        } => {
            output.put_slice(&source.ip().octets());
            output.put_slice(&destination.ip().octets());
            output.put_u16(source.port());
            output.put_u16(destination.port());
        }
        Addresses::Unix {
            source,
            destination,
        } => {
            for address in [source, destination] {
                output.put_slice(address.as_bytes());
                output.put_bytes(0, UnixAddress::LENGTH - address.as_bytes().len());
            }
        }
    }
}
