use std::fmt;

/// What the first bytes of a stream look like.
///
/// Only protocols whose clients speak first, and always begin alike, can be told by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// TLS or SSL 3: a handshake record that begins with a ClientHello (RFC 8446 §4, §5.1).
    Tls,
    /// HTTP/2 with prior knowledge: the client's preface (RFC 9113 §3.4).
    Http2,
    /// HTTP/1: a method of RFC 9110 §9 or PATCH, a space, and the beginning of a request target
    /// (RFC 9112 §3.2). What follows a method of another name is its own business: give it as a
    /// [prefix](crate::Sniffer::prefix).
    Http1,
    /// RESP, the protocol of Redis: an array, as clients send commands. Inline commands are any
    /// words, so they are no sign of RESP: a port that takes them makes RESP its default.
    Resp,
    /// MQTT: a CONNECT with the protocol name of version 3.1, 3.1.1 or 5 (MQTT 5.0 §3.1.2.1).
    Mqtt,
    /// SSH: an identification string (RFC 4253 §4.2).
    Ssh,
    /// The PROXY protocol, version 1 or 2.
    Proxy,
    /// A protocol of the program's own, by the name that it was given.
    Named(&'static str),
}

impl Protocol {
    /// All that are known by their first bytes without being told.
    pub const KNOWN: [Self; 7] = [
        Self::Tls,
        Self::Http2,
        Self::Http1,
        Self::Resp,
        Self::Mqtt,
        Self::Ssh,
        Self::Proxy,
    ];
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls => "TLS",
            Self::Http2 => "HTTP/2",
            Self::Http1 => "HTTP/1.1",
            Self::Resp => "RESP",
            Self::Mqtt => "MQTT",
            Self::Ssh => "SSH",
            Self::Proxy => "the PROXY protocol",
            Self::Named(name) => name,
        })
    }
}

/// Whether bytes are the beginning of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    /// They are not, whatever follows.
    No,
    /// They may be: there are too few of them to tell.
    Maybe,
    /// They are, whatever follows.
    Yes,
}

/// What `bytes`, the first of a stream, say about its being `protocol`.
pub(super) fn matches(protocol: Protocol, bytes: &[u8]) -> Match {
    match protocol {
        Protocol::Tls => tls(bytes),
        Protocol::Http2 => prefix(bytes, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        Protocol::Http1 => http1(bytes),
        Protocol::Resp => each(
            bytes,
            &[&|byte| byte == b'*', &|byte| byte.is_ascii_digit()],
        ),
        Protocol::Mqtt => mqtt(bytes),
        Protocol::Ssh => prefix(bytes, b"SSH-"),
        Protocol::Proxy => either(
            prefix(bytes, b"PROXY "),
            prefix(bytes, b"\r\n\r\n\0\r\nQUIT\n"),
        ),
        // Known by the prefix that the program gave, and by that alone.
        Protocol::Named(_) => Match::No,
    }
}

pub(super) fn prefix(bytes: &[u8], prefix: &[u8]) -> Match {
    let common = bytes.len().min(prefix.len());
    match (bytes[..common] == prefix[..common], common == prefix.len()) {
        (false, _) => Match::No,
        (true, false) => Match::Maybe,
        (true, true) => Match::Yes,
    }
}

fn either(one: Match, other: Match) -> Match {
    match (one, other) {
        (Match::Yes, _) | (_, Match::Yes) => Match::Yes,
        (Match::Maybe, _) | (_, Match::Maybe) => Match::Maybe,
        (Match::No, Match::No) => Match::No,
    }
}

type Condition<'a> = &'a dyn Fn(u8) -> bool;

/// Each of the first bytes is as its condition says.
fn each(bytes: &[u8], conditions: &[Condition<'_>]) -> Match {
    let mut pairs = bytes.iter().zip(conditions);
    if !pairs.all(|(byte, condition)| condition(*byte)) {
        Match::No
    } else if bytes.len() < conditions.len() {
        Match::Maybe
    } else {
        Match::Yes
    }
}

/// RFC 8446 §5.1: type, version, length, and what it contains. A handshake record is never empty,
/// and holds 2^14 bytes at the most.
fn tls(bytes: &[u8]) -> Match {
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    let length = |bytes: &[u8]| u16::from_be_bytes([bytes[3], bytes[4]]);
    if bytes.len() >= 5 && !(1..=1 << 14).contains(&length(bytes)) {
        return Match::No;
    }
    each(
        bytes,
        &[
            &|byte| byte == HANDSHAKE,
            &|major| major == 3,
            &|minor| minor <= 4,
            &|_| true,
            &|_| true,
            &|byte| byte == CLIENT_HELLO,
        ],
    )
}

fn http1(bytes: &[u8]) -> Match {
    const METHODS: [&[u8]; 9] = [
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"PUT ",
        b"DELETE ",
        b"CONNECT ",
        b"OPTIONS ",
        b"TRACE ",
        b"PATCH ",
    ];
    let mut of_all = Match::No;
    for method in METHODS {
        let mut of_this = prefix(bytes, method);
        if of_this == Match::Yes {
            of_this = target(method, &bytes[method.len()..]);
        }
        of_all = either(of_all, of_this);
    }
    of_all
}

/// RFC 9112 §3.2: a path, a URI, an authority for CONNECT, or an asterisk for OPTIONS. Without this
/// a line such as `GET key` of another protocol would be taken for HTTP.
fn target(method: &[u8], bytes: &[u8]) -> Match {
    if method == b"CONNECT " {
        return each(bytes, &[&|byte| byte.is_ascii_graphic()]);
    }
    let asterisk = match method {
        b"OPTIONS " => prefix(bytes, b"* "),
        _ => Match::No,
    };
    let lower: Vec<u8> = bytes.iter().take(8).map(u8::to_ascii_lowercase).collect();
    let uri = either(prefix(&lower, b"http://"), prefix(&lower, b"https://"));
    either(either(prefix(bytes, b"/"), asterisk), uri)
}

/// MQTT 5.0 §2.1 and §3.1: packet type and flags, a length of one to four bytes, and the name.
fn mqtt(bytes: &[u8]) -> Match {
    const CONNECT: u8 = 0x10;
    const LONGEST: usize = 4;
    let Some((CONNECT, rest)) = bytes.split_first().map(|(first, rest)| (*first, rest)) else {
        return match bytes {
            [] => Match::Maybe,
            _ => Match::No,
        };
    };
    let length = rest.iter().take(LONGEST).position(|byte| byte & 0x80 == 0);
    match length {
        Some(last) => {
            let name = &rest[last + 1..];
            either(prefix(name, b"\0\x04MQTT"), prefix(name, b"\0\x06MQIsdp"))
        }
        None if rest.len() < LONGEST => Match::Maybe,
        None => Match::No,
    }
}

#[cfg(test)]
mod tests {
    use super::{Match::*, *};

    /// Beginnings, and the byte with which they are told from all others.
    const BEGINNINGS: [(Protocol, &[u8], usize); 22] = [
        (Protocol::Tls, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 6),
        (Protocol::Tls, b"\x16\x03\x03\x00\x01\x01", 6),
        (Protocol::Tls, b"\x16\x03\x00\x40\x00\x01", 6),
        (Protocol::Http2, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0", 24),
        (Protocol::Http1, b"GET / HTTP/1.1\r\n", 5),
        (Protocol::Http1, b"HEAD /a", 6),
        (Protocol::Http1, b"POST /", 6),
        (Protocol::Http1, b"PUT http://a/", 11),
        (Protocol::Http1, b"GET HTTPS://a/", 12),
        (Protocol::Http1, b"DELETE /", 8),
        (Protocol::Http1, b"PATCH /", 7),
        (Protocol::Http1, b"TRACE /", 7),
        (Protocol::Http1, b"OPTIONS * HTTP/1.1", 10),
        (Protocol::Http1, b"CONNECT a:80 HTTP/1.1", 9),
        (Protocol::Resp, b"*1\r\n$4\r\nPING\r\n", 2),
        (Protocol::Mqtt, b"\x10\x0c\0\x04MQTT\x05", 8),
        (Protocol::Mqtt, b"\x10\xff\xff\xff\x7f\0\x04MQTT\x04", 11),
        (Protocol::Mqtt, b"\x10\x80\x01\0\x06MQIsdp\x03", 11),
        (Protocol::Ssh, b"SSH-2.0-OpenSSH_9.2\r\n", 4),
        (Protocol::Ssh, b"SSH-1.99-x\r\n", 4),
        (Protocol::Proxy, b"PROXY TCP4 127.0.0.1", 6),
        (Protocol::Proxy, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", 12),
    ];

    #[test]
    fn each_beginning_is_told_by_the_first_byte_that_tells_it() {
        for (protocol, bytes, told) in BEGINNINGS {
            for end in 0..=bytes.len() {
                let expected = if end < told { Maybe } else { Yes };
                let found = matches(protocol, &bytes[..end]);
                assert_eq!(found, expected, "{protocol}, {end} of {bytes:x?}");
            }
        }
    }

    #[test]
    fn no_beginning_is_that_of_two_protocols() {
        for (protocol, bytes, _) in BEGINNINGS {
            for other in Protocol::KNOWN {
                let expected = if other == protocol { Yes } else { No };
                assert_eq!(matches(other, bytes), expected, "{other}: {bytes:x?}");
            }
        }
    }

    #[test]
    fn a_beginning_with_any_byte_changed_is_another_or_none() {
        for (protocol, bytes, told) in BEGINNINGS {
            for at in 0..told {
                for wrong in 0..=u8::MAX {
                    let mut bytes = bytes.to_vec();
                    bytes[at] = wrong;
                    let known = Protocol::KNOWN.map(|known| matches(known, &bytes));
                    let yes = known.iter().filter(|known| **known == Yes).count();
                    assert!(yes <= 1, "{protocol}: {bytes:x?} is {known:?}");
                }
            }
        }
    }

    #[test]
    fn what_only_resembles_a_protocol_is_none() {
        let near: [&[u8]; 20] = [
            b"\x16\x03\x05\x02\x00\x01",         // there is no such version
            b"\x16\x02\x01\x02\x00\x01",         // nor this one
            b"\x16\x03\x01\x00\x00\x01",         // an empty record
            b"\x16\x03\x01\x40\x01\x01",         // a record of more than 2^14 bytes
            b"\x16\x03\x03\x02\x00\x02",         // a ServerHello
            b"\x15\x03\x03\x00\x02\x02",         // an alert
            b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", // half a preface
            b"PRI * HTTP/1.1\r\n",
            b"GET key\r\n", // a line that is no request
            b"GET  / HTTP/1.1",
            b"get / HTTP/1.1",
            b"GETX",
            b"POST *",
            b"OPTIONS *x",
            b"*x",
            b"\x10\x80\x80\x80\x80\x01\0\x04MQTT", // a length of five bytes
            b"\x10\x0c\0\x04MQTX",
            b"\x11\x0c\0\x04MQTT", // flags that are reserved
            b"SSH_",
            b"PROXYTCP4",
        ];
        for bytes in near {
            for protocol in Protocol::KNOWN {
                assert_eq!(matches(protocol, bytes), No, "{protocol}: {bytes:x?}");
            }
        }
    }
}
