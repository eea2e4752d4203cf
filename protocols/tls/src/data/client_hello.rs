use super::{
    ProtocolVersion, Speech,
    speech::{HANDSHAKE, is_unfinished},
};

/// The largest ClientHello that is put together, in bytes without the headers of its records.
///
/// Those of browsers have up to 2 KiB. 64 KiB is where rustls stops as well, which has to be told
/// apart from less: a message of the handshake announces up to 16 MiB.
pub const MAX_CLIENT_HELLO: usize = 0xffff;

/// The first message of a TLS client (RFC 8446 section 4.1.2), as far as it tells where to.
///
/// Nothing of it is proven: anybody can send anything, and who has no TLS behind it as well
/// should use it for choosing a way, not for letting somebody in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    server_name: Option<String>,
    application_protocols: Vec<Vec<u8>>,
    versions: Vec<ProtocolVersion>,
}

/// What [`ClientHello::parse`] made of the bytes so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// The message is complete.
    ClientHello(ClientHello),
    /// At least so many bytes more are needed. Another try with less comes to the same.
    NeedMore(usize),
}

/// Bytes that are no ClientHello, whatever follows. The peer is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientHelloError {
    /// It is not TLS at all.
    #[error("this is not TLS: it looks like {0}")]
    NotTls(Speech),
    /// The handshake begins with another message than a ClientHello.
    #[error("the handshake begins with a message of type {0}, not with a ClientHello (1)")]
    NotClientHello(u8),
    /// It breaks a rule of RFC 8446.
    #[error("malformed ClientHello: {0}")]
    Malformed(&'static str),
    /// It announces more than [`MAX_CLIENT_HELLO`] bytes.
    #[error("a ClientHello of {0} bytes: at most {MAX_CLIENT_HELLO} are taken (MAX_CLIENT_HELLO)")]
    TooLong(usize),
}

impl ClientHello {
    /// Look for a ClientHello in `bytes`, what a client has sent from its first byte on: one or
    /// more records (RFC 8446 section 5.1), of which it may be spread over many.
    ///
    /// Nothing is kept between calls; what follows the message is not looked at.
    ///
    /// # Errors
    /// [`ClientHelloError`]: what it is instead, as soon as that has a name.
    pub fn parse(bytes: &[u8]) -> Result<Parsed, ClientHelloError> {
        let beginning = &bytes[..bytes.len().min(Speech::ENOUGH)];
        if let Some(speech) = Speech::of(beginning) {
            return match is_unfinished(beginning) {
                true => Ok(Parsed::NeedMore(1)),
                false => Err(ClientHelloError::NotTls(speech)),
            };
        }
        let mut rest = bytes;
        let mut message = Vec::new();
        loop {
            let [kind, major, _, high, low, body @ ..] = rest else {
                return Ok(Parsed::NeedMore(RECORD_HEADER - rest.len()));
            };
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            // RFC 8446 section 5.1: no other record, and no empty one, may stand between.
            match (*kind, *major, length) {
                (HANDSHAKE, 3, 1..=MAX_FRAGMENT) => {}
                (HANDSHAKE, 3, 0) => return malformed("an empty record"),
                (HANDSHAKE, 3, _) => return malformed("a record of more than 2^14 bytes"),
                _ => return malformed("another record amid the handshake message"),
            }
            message.extend_from_slice(&body[..length.min(body.len())]);
            let missing = match message[..] {
                [kind, ..] if kind != CLIENT_HELLO => {
                    return Err(ClientHelloError::NotClientHello(kind));
                }
                [_, a, b, c, ref hello @ ..] => {
                    let length = u32::from_be_bytes([0, a, b, c]) as usize;
                    // LIMIT: bytes of one message that are put together.
                    if length > MAX_CLIENT_HELLO {
                        return Err(ClientHelloError::TooLong(length));
                    }
                    if hello.len() >= length {
                        return Self::read(&hello[..length]).map(Parsed::ClientHello);
                    }
                    length - hello.len()
                }
                _ => MESSAGE_HEADER - message.len(),
            };
            if body.len() <= length {
                // What this record still owes, and what must then come in further ones.
                let owed = length - body.len();
                let further = match missing.saturating_sub(owed) {
                    0 => 0,
                    bytes => bytes + RECORD_HEADER * bytes.div_ceil(MAX_FRAGMENT),
                };
                return Ok(Parsed::NeedMore(missing.min(owed) + further));
            }
            rest = &body[length..];
        }
    }

    /// The name of the server that the client wants (RFC 6066 section 3, "SNI"), in lower case.
    ///
    /// It has the letters of a host name and is not empty; an address never is one.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The application protocols that the client offers (RFC 7301, "ALPN"), in its order.
    pub fn application_protocols(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.application_protocols.iter().map(Vec::as_slice)
    }

    /// The versions of TLS that the client offers, in its order. What it does not know may be
    /// there on purpose (RFC 8701).
    pub fn versions(&self) -> &[ProtocolVersion] {
        &self.versions
    }

    /// Read the body of the message.
    fn read(body: &[u8]) -> Result<Self, ClientHelloError> {
        let mut reader = Reader(body);
        let legacy_version = ProtocolVersion(reader.u16("the version")?);
        reader.take(32, "the random")?;
        let session_id = reader.with_length_u8("the session id")?;
        if session_id.0.len() > 32 {
            return malformed("a session id of more than 32 bytes");
        }
        let suites = reader.with_length_u16("the cipher suites")?;
        if suites.0.is_empty() || suites.0.len() % 2 == 1 {
            return malformed("cipher suites of no, or an odd number of bytes");
        }
        if reader
            .with_length_u8("the compression methods")?
            .0
            .is_empty()
        {
            return malformed("no compression method");
        }
        let mut hello = Self {
            server_name: None,
            application_protocols: Vec::new(),
            versions: Vec::new(),
        };
        // A client of TLS 1.2 may leave the extensions out.
        if !reader.0.is_empty() {
            let mut extensions = reader.with_length_u16("the extensions")?;
            let mut seen = Vec::new();
            while !extensions.0.is_empty() {
                let kind = extensions.u16("an extension")?;
                let data = extensions.with_length_u16("an extension")?;
                if [SERVER_NAME, ALPN, SUPPORTED_VERSIONS].contains(&kind) {
                    if seen.contains(&kind) {
                        return malformed("an extension that comes twice");
                    }
                    seen.push(kind);
                }
                match kind {
                    SERVER_NAME => hello.server_name = read_server_name(data)?,
                    ALPN => hello.application_protocols = read_protocols(data)?,
                    SUPPORTED_VERSIONS => hello.versions = read_versions(data)?,
                    _ => {}
                }
            }
            if !reader.0.is_empty() {
                return malformed("bytes behind the extensions");
            }
        }
        if hello.versions.is_empty() {
            hello.versions.push(legacy_version);
        }
        Ok(hello)
    }
}

const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;
const CLIENT_HELLO: u8 = 1;
/// Bytes of one record of plaintext (RFC 8446 section 5.1).
const MAX_FRAGMENT: usize = 1 << 14;

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

fn malformed<T>(what: &'static str) -> Result<T, ClientHelloError> {
    Err(ClientHelloError::Malformed(what))
}

/// RFC 6066 section 3: a list in which only host names are defined, and only one of them.
fn read_server_name(mut data: Reader<'_>) -> Result<Option<String>, ClientHelloError> {
    let mut list = data.with_length_u16("the server names")?;
    let mut found = None;
    while !list.0.is_empty() {
        let kind = list.take(1, "a server name")?[0];
        let name = list.with_length_u16("a server name")?.0;
        if kind != 0 {
            continue;
        }
        if found.is_some() {
            return malformed("two server names");
        }
        let is_host_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        if name.is_empty() || name.len() > 253 || !name.iter().all(is_host_byte) {
            return malformed("a server name that is no host name");
        }
        let name: String = name
            .iter()
            .map(|byte| byte.to_ascii_lowercase() as char)
            .collect();
        if name.parse::<std::net::IpAddr>().is_ok() {
            return malformed("a server name that is an address");
        }
        found = Some(name);
    }
    Ok(found)
}

/// RFC 7301 section 3.1.
fn read_protocols(mut data: Reader<'_>) -> Result<Vec<Vec<u8>>, ClientHelloError> {
    let mut list = data.with_length_u16("the application protocols")?;
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        let protocol = list.with_length_u8("an application protocol")?.0;
        if protocol.is_empty() {
            return malformed("an application protocol of no bytes");
        }
        protocols.push(protocol.to_vec());
    }
    match protocols.is_empty() {
        true => malformed("an empty list of application protocols"),
        false => Ok(protocols),
    }
}

/// RFC 8446 section 4.2.1.
fn read_versions(mut data: Reader<'_>) -> Result<Vec<ProtocolVersion>, ClientHelloError> {
    let list = data.with_length_u8("the supported versions")?.0;
    if list.is_empty() || list.len() % 2 == 1 {
        return malformed("supported versions of no, or an odd number of bytes");
    }
    let number = |pair: &[u8]| ProtocolVersion(u16::from_be_bytes([pair[0], pair[1]]));
    Ok(list.chunks_exact(2).map(number).collect())
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], ClientHelloError> {
        match self.0.split_at_checked(count) {
            Some((taken, rest)) => {
                self.0 = rest;
                Ok(taken)
            }
            None => malformed(what),
        }
    }

    fn u16(&mut self, what: &'static str) -> Result<u16, ClientHelloError> {
        let bytes = self.take(2, what)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn with_length_u8(&mut self, what: &'static str) -> Result<Self, ClientHelloError> {
        let length = self.take(1, what)?[0];
        self.take(length.into(), what).map(Self)
    }

    fn with_length_u16(&mut self, what: &'static str) -> Result<Self, ClientHelloError> {
        let length = self.u16(what)?;
        self.take(length.into(), what).map(Self)
    }
}
