use std::{fmt, io, sync::Arc, time::Duration};

use protosocket::{Clock, Establisher, TokioClock, Transport};

use super::{
    Protocol, Sniff,
    protocol::{Match, matches, prefix},
};

/// LIMIT: bytes that are read to tell what a stream speaks. The longest beginning that is known is
/// the 24 bytes of HTTP/2; a program's own prefix may have as many as this.
pub(super) const MOST_BYTES: usize = 64;

/// Reads the first bytes of a stream to tell what its peer speaks.
///
/// An [`Establisher`] for a [`Layered`](protosocket::Layered) listener, whose streams
/// [say](super::Sniffed::protocol) what they speak and are read from their beginning. It decides as
/// soon as nothing else is possible, however the bytes arrive, and reads 64 of them at the most. A
/// peer that sends too few to decide has until the handshake's deadline.
///
/// ```
/// use protosocket_server::{Protocol, Sniffer};
///
/// // Takes TLS and RESP, and everything else for lines.
/// let any = Sniffer::new([Protocol::Tls, Protocol::Resp]).otherwise(Protocol::Named("lines"));
///
/// // Takes RESP only, inline commands included, and tells users of TLS that this is no TLS port.
/// let resp = Sniffer::expect(Protocol::Resp);
/// ```
#[derive(Debug, Clone)]
pub struct Sniffer {
    rules: Arc<Rules>,
}

#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// The first that fits is taken.
    taken: Vec<Candidate>,
    /// Those that are refused, by their names, if there is a default for the rest.
    refused: Vec<Protocol>,
    otherwise: Option<Protocol>,
    pub(super) silence: Option<Duration>,
    pub(super) clock: Arc<dyn Clock>,
}

#[derive(Debug, Clone)]
struct Candidate {
    protocol: Protocol,
    /// For those that are not known without being told.
    prefix: Option<&'static [u8]>,
}

impl Sniffer {
    /// Take these protocols, and refuse everything else with a [`WrongProtocol`] that names what
    /// it looks like.
    pub fn new(protocols: impl IntoIterator<Item = Protocol>) -> Self {
        let taken = protocols.into_iter().map(|protocol| Candidate {
            protocol,
            prefix: None,
        });
        Self {
            rules: Arc::new(Rules {
                taken: taken.collect(),
                refused: Vec::new(),
                otherwise: None,
                silence: None,
                clock: Arc::new(TokioClock),
            }),
        }
    }

    /// Take everything for `protocol`, but refuse what is known to be another, with a
    /// [`WrongProtocol`] that names it: for servers of one protocol whose users mistake the port.
    ///
    /// The PROXY protocol is refused too: it belongs into a
    /// [`ProxyAcceptor`](protosocket::proxy::ProxyAcceptor) below.
    pub fn expect(protocol: Protocol) -> Self {
        Self::new([protocol])
            .refuse(Protocol::KNOWN)
            .otherwise(protocol)
    }

    /// Take what begins with `prefix` for [`Protocol::Named`]`(name)`. Of several protocols that
    /// fit, the one that was given first is taken.
    ///
    /// # Panics
    /// If the prefix is empty, which everything begins with, or of more than 64 bytes.
    #[must_use]
    pub fn prefix(mut self, name: &'static str, prefix: &'static [u8]) -> Self {
        assert!(
            (1..=MOST_BYTES).contains(&prefix.len()),
            "the prefix of {name} has {} bytes, and may have 1 to {MOST_BYTES}",
            prefix.len()
        );
        self.rules_mut().taken.push(Candidate {
            protocol: Protocol::Named(name),
            prefix: Some(prefix),
        });
        self
    }

    /// Take what is none of the others for this protocol, such as
    /// [`Named`](Protocol::Named)`("lines")`.
    #[must_use]
    pub fn otherwise(mut self, protocol: Protocol) -> Self {
        self.rules_mut().otherwise = Some(protocol);
        self
    }

    /// Refuse these all the same, by their names, unless they are among those that are taken.
    #[must_use]
    pub fn refuse(mut self, protocols: impl IntoIterator<Item = Protocol>) -> Self {
        self.rules_mut().refused.extend(protocols);
        self
    }

    /// Take a peer that has said nothing for that long for one of the
    /// [default](Self::otherwise) protocol, whose server speaks first. Without this, the peer must
    /// speak before the handshake's deadline.
    ///
    /// Clients of the other protocols must have been heard by then, over a network that may lose
    /// their first packet: a second is little, three outlast one retransmission.
    #[must_use]
    pub fn otherwise_after(mut self, silence: Duration) -> Self {
        self.rules_mut().silence = Some(silence);
        self
    }

    /// Take the time of [`otherwise_after`](Self::otherwise_after) from `clock`.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.rules_mut().clock = clock;
        self
    }

    fn rules_mut(&mut self) -> &mut Rules {
        Arc::make_mut(&mut self.rules)
    }
}

impl<S: Transport> Establisher<S> for Sniffer {
    type Stream = super::Sniffed<S>;
    type Establish = Sniff<S>;

    fn establish(&self, stream: S) -> Sniff<S> {
        Sniff::new(stream, self.rules.clone())
    }
}

impl Rules {
    /// What a stream speaks whose first bytes are these, or `None` if more of them are needed. If
    /// these are all, what they may be the beginning of is not what they are.
    ///
    /// # Errors
    /// The peer is to blame: it speaks what is not spoken here.
    pub(super) fn decide(
        &self,
        bytes: &[u8],
        are_all: bool,
    ) -> Result<Option<Protocol>, WrongProtocol> {
        for candidate in &self.taken {
            let fit = match candidate.prefix {
                Some(expected) => prefix(bytes, expected),
                None => matches(candidate.protocol, bytes),
            };
            match fit {
                Match::Yes => return Ok(Some(candidate.protocol)),
                Match::Maybe if !are_all => return Ok(None),
                Match::Maybe | Match::No => {}
            }
        }
        // Without a default everything else is refused, and wants to be called by its name.
        let refused = match self.otherwise {
            Some(_) => &self.refused[..],
            None => &Protocol::KNOWN,
        };
        let mut undecided = false;
        for protocol in refused {
            match matches(*protocol, bytes) {
                Match::Yes => return Err(self.wrong(Some(*protocol))),
                Match::Maybe => undecided = !are_all,
                Match::No => {}
            }
        }
        match (undecided, self.otherwise) {
            (true, _) => Ok(None),
            (false, Some(protocol)) => Ok(Some(protocol)),
            (false, None) => Err(self.wrong(None)),
        }
    }

    fn wrong(&self, found: Option<Protocol>) -> WrongProtocol {
        let mut expected: Vec<Protocol> = Vec::new();
        let taken = self.taken.iter().map(|candidate| candidate.protocol);
        for protocol in taken.chain(self.otherwise) {
            if !expected.contains(&protocol) {
                expected.push(protocol);
            }
        }
        WrongProtocol { expected, found }
    }
}

/// The peer speaks what is not spoken here.
///
/// It is the source of the [`io::Error`] with which a [`Sniffer`] refuses a stream, or
/// [`Routes`](crate::Routes) do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongProtocol {
    expected: Vec<Protocol>,
    found: Option<Protocol>,
}

impl WrongProtocol {
    /// It is known what the stream is, and nobody is for that.
    pub(crate) fn without_a_route() -> Self {
        Self {
            expected: Vec::new(),
            found: None,
        }
    }

    /// What the bytes look like, if they look like something.
    pub fn found(&self) -> Option<Protocol> {
        self.found
    }
}

impl fmt::Display for WrongProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.expected.is_empty() && self.found.is_none() {
            return f.write_str("no route of this port is for such a stream");
        }
        f.write_str("this port speaks ")?;
        for (number, protocol) in self.expected.iter().enumerate() {
            let separator = match number {
                0 => "",
                _ if number + 1 == self.expected.len() => " and ",
                _ => ", ",
            };
            write!(f, "{separator}{protocol}")?;
        }
        match self.found {
            Some(found) => write!(f, ", and what came looks like {found}"),
            None => f.write_str(", and what came looks like none of them"),
        }
    }
}

impl std::error::Error for WrongProtocol {}

impl From<WrongProtocol> for io::Error {
    fn from(error: WrongProtocol) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}
