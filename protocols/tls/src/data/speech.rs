use std::fmt;

/// What a peer seems to speak that does not begin as TLS does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Speech {
    /// HTTP/1: a request or a response.
    Http,
    /// HTTP/2 without TLS: its connection preface.
    Http2,
    /// SSH.
    Ssh,
    /// A PROXY protocol header, version 1 or 2.
    ProxyHeader,
    /// The greeting of a server that lets its clients begin TLS later: SMTP, FTP, POP, IMAP.
    Greeting,
    /// SSL 2.0, or a ClientHello in its format.
    Ssl2,
    /// A record of TLS that cannot be the first one, of this content type (RFC 8446 section 5.1).
    TlsRecord(u8),
    /// Text of another kind.
    Text,
    /// Nothing that is known here.
    Unknown,
}

impl Speech {
    /// How many bytes of a beginning are looked at, at most.
    pub const ENOUGH: usize = 16;

    /// What `beginning`, the first bytes that a peer sent, look like. `None` if they may be the
    /// beginning of a TLS handshake, as no bytes at all may be.
    pub fn of(beginning: &[u8]) -> Option<Self> {
        let starts = |with: &str| beginning.starts_with(with.as_bytes());
        let starts_with_any = |words: &[&str]| words.iter().any(|word| starts(word));
        Some(match beginning {
            [] | [HANDSHAKE] | [HANDSHAKE, 3, ..] => return None,
            _ if starts(HTTP_2) => Self::Http2,
            _ if starts_with_any(HTTP) => Self::Http,
            _ if starts(SSH) => Self::Ssh,
            _ if starts_with_any(&PROXY) => Self::ProxyHeader,
            _ if starts_with_any(GREETINGS) => Self::Greeting,
            [0x14..=0x18, 3, ..] => Self::TlsRecord(beginning[0]),
            // A length with its highest bit set, and the type of a ClientHello.
            [0x80..=0xff, _, 1, ..] => Self::Ssl2,
            _ if beginning.iter().all(|byte| is_text(*byte)) => Self::Text,
            _ => Self::Unknown,
        })
    }
}

/// Whether `beginning`, which is no handshake, may with more bytes turn out to be something that has
/// a name.
pub(super) fn is_unfinished(beginning: &[u8]) -> bool {
    let words = HTTP.iter().chain(GREETINGS).chain(OTHERS);
    let mut words = words.map(|word| word.as_bytes());
    match beginning {
        [0x14..=0x18] | [0x80..=0xff] | [0x80..=0xff, _] => true,
        beginning => words.any(|word| word.len() > beginning.len() && word.starts_with(beginning)),
    }
}

/// The content type of handshake records.
pub(super) const HANDSHAKE: u8 = 0x16;

const HTTP: &[&str] = &[
    "GET ", "POST ", "HEAD ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ", "CONNECT ", "TRACE ",
    "HTTP/",
];

const HTTP_2: &str = "PRI * HTTP/2";
const SSH: &str = "SSH-";
const PROXY: [&str; 2] = ["PROXY ", "\r\n\r\n\0\r\nQUIT\n"];
const OTHERS: &[&str] = &[HTTP_2, SSH, PROXY[0], PROXY[1]];

const GREETINGS: &[&str] = &["220 ", "220-", "+OK ", "* OK "];

fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\r' | b'\n' | b' '..=b'~')
}

impl fmt::Display for Speech {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Http2 => "HTTP/2 without TLS",
            Self::Ssh => "SSH",
            Self::ProxyHeader => "a PROXY protocol header",
            Self::Greeting => "the greeting of a mail or file server",
            Self::Ssl2 => "SSL 2.0",
            Self::TlsRecord(0x15) => "a TLS alert",
            Self::TlsRecord(0x17) => "TLS application data",
            Self::TlsRecord(_) => "a TLS record that is no handshake",
            Self::Text => "plain text",
            Self::Unknown => "an unknown protocol",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Speech;

    #[test]
    fn l6_what_is_not_tls_is_named() {
        for (bytes, speech) in [
            (&b"GET / HTTP/1.1\r\n"[..], Speech::Http),
            (b"HTTP/1.1 400 Bad", Speech::Http),
            (b"PRI * HTTP/2.0\r\n", Speech::Http2),
            (b"SSH-2.0-OpenSSH", Speech::Ssh),
            (b"PROXY TCP4 1.2.3", Speech::ProxyHeader),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", Speech::ProxyHeader),
            (b"220 mail.example", Speech::Greeting),
            (b"\x15\x03\x01\0\x02\x02\x28", Speech::TlsRecord(0x15)),
            (b"\x17\x03\x03\0\x20", Speech::TlsRecord(0x17)),
            (b"\x80\x2e\x01\x03\x01", Speech::Ssl2),
            (b"*1\r\n$4\r\nPING\r\n", Speech::Text),
            (b"\x10\x0c\0\x04MQTT", Speech::Unknown),
            (b"\x16\x02\x00", Speech::Unknown),
        ] {
            assert_eq!(Speech::of(bytes), Some(speech), "{bytes:x?}");
        }
        for bytes in [&b""[..], b"\x16", b"\x16\x03", b"\x16\x03\x01\x02"] {
            assert_eq!(Speech::of(bytes), None, "{bytes:x?}");
        }
    }
}
