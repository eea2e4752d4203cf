//! Headers as values: what is read is what was written, and what is wrong has its error.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use bytes::Bytes;
use protosocket::{
    PeerAddress,
    proxy::{Addresses, ProxyError, ProxyHeader, Ssl, SslClient, Tlv, TlvType, UnixAddress},
};

/// A limit that none of these reaches.
const LONG: usize = ProxyHeader::LONGEST;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

pub(crate) fn tcp(source: &str, destination: &str) -> Addresses {
    let parse = |text: &str| text.parse::<SocketAddr>().expect("it is an address");
    Addresses::tcp(parse(source), parse(destination)).expect("they are of one family")
}

fn tcp4() -> Addresses {
    tcp("192.0.2.1:40000", "198.51.100.2:443")
}

fn tcp6() -> Addresses {
    tcp("[2001:db8::1]:40000", "[2001:db8::2]:443")
}

fn unix(source: &'static [u8], destination: &'static [u8]) -> Addresses {
    Addresses::Unix {
        source: UnixAddress::new(source).expect("it is short"),
        destination: UnixAddress::new(destination).expect("it is short"),
    }
}

/// A header of version 2 from its bytes: command, family and transport, and what is announced.
fn v2(command: u8, transport: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len())
        .expect("it is short")
        .to_be_bytes();
    [SIGNATURE, &[0x20 | command, transport], &length, body].concat()
}

const INET: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 2, 0x9c, 0x40, 1, 0xbb];

fn with_tlvs(tlvs: &[u8]) -> Vec<u8> {
    v2(1, 0x11, &[INET, tlvs].concat())
}

/// The header that these bytes are, at whatever length more is known to be needed.
pub(crate) fn parse(bytes: &[u8]) -> Result<ProxyHeader, ProxyError> {
    let mut certain = None;
    for end in 0..=bytes.len() {
        match ProxyHeader::parse(&bytes[..end], LONG) {
            Ok(None) => assert!(certain.is_none(), "it is decided, and then it is not"),
            Ok(Some((header, length))) => {
                assert_eq!((length, end), (bytes.len(), bytes.len()), "it ends early");
                certain = Some(Ok(header));
            }
            Err(error) => {
                // An error is final: more bytes do not change it.
                if let Some(earlier) = &certain {
                    assert_eq!(earlier, &Err(error.clone()), "at {end}");
                }
                certain = Some(Err(error));
            }
        }
    }
    certain.expect("it is a whole header, or none")
}

fn every_header() -> Vec<ProxyHeader> {
    let ssl = Ssl {
        client: SslClient(SslClient::SSL | SslClient::CERT_CONN),
        verify: 0,
        tlvs: vec![
            Tlv::new(TlvType::SSL_VERSION, "TLSv1.3"),
            Tlv::new(TlvType::SSL_CN, "example.com"),
            Tlv::new(TlvType::SSL_CIPHER, "TLS_AES_128_GCM_SHA256"),
            Tlv::new(TlvType(0x2f), "unheard of"),
        ],
    };
    vec![
        ProxyHeader::local(),
        ProxyHeader::proxy(Addresses::Unknown),
        ProxyHeader::proxy(tcp4()),
        ProxyHeader::proxy(tcp6()),
        ProxyHeader::proxy(unix(b"", b"/run/a.sock")),
        ProxyHeader::proxy(unix(b"\0abstract", b"/x")),
        ProxyHeader::proxy(Addresses::Unknown).with_checksum(),
        ProxyHeader::proxy(tcp6())
            .with_tlv(TlvType::ALPN, "h2")
            .with_tlv(TlvType::AUTHORITY, "example.com")
            .with_tlv(TlvType::UNIQUE_ID, vec![7; 128])
            .with_tlv(TlvType::NETNS, "blue")
            .with_tlv(TlvType(0xea), vec![0; 3000])
            .with_tlv(TlvType(0xe0), "")
            .with_ssl(&ssl)
            .with_checksum(),
    ]
}

#[test]
fn what_is_written_is_read_whole_and_nothing_of_it_in_part() {
    for header in every_header() {
        let bytes = header.to_v2().expect("it fits");
        assert_eq!(parse(&bytes), Ok(header.clone()));
        let more = [&bytes, &b"more"[..]].concat();
        let parsed = ProxyHeader::parse(&more, LONG);
        assert_eq!(parsed, Ok(Some((header, bytes.len()))));
    }
    for addresses in [Addresses::Unknown, tcp4(), tcp6()] {
        let header = ProxyHeader::proxy(addresses);
        let bytes = header.to_v1().expect("it fits");
        assert_eq!(parse(&bytes), Ok(header.clone()));
        let more = [&bytes, &b"\r\n"[..]].concat();
        let parsed = ProxyHeader::parse(&more, LONG);
        assert_eq!(parsed, Ok(Some((header, bytes.len()))));
    }
}

#[test]
fn headers_are_as_the_specification_says() {
    let tcp4 = ProxyHeader::proxy(tcp4());
    let line = b"PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\r\n";
    assert_eq!(tcp4.to_v1().expect("it fits"), &line[..]);
    assert_eq!(tcp4.to_v2().expect("it fits"), v2(1, 0x11, INET));
    let tcp6 = ProxyHeader::proxy(tcp6());
    let line = b"PROXY TCP6 2001:db8::1 2001:db8::2 40000 443\r\n";
    assert_eq!(tcp6.to_v1().expect("it fits"), &line[..]);
    let unknown = ProxyHeader::proxy(unix(b"/a", b"/b"));
    assert_eq!(unknown.to_v1().expect("it fits"), &b"PROXY UNKNOWN\r\n"[..]);
    assert_eq!(
        ProxyHeader::local().to_v2().expect("it fits"),
        v2(0, 0, b"")
    );

    // §2.2.3, computed by a program of its own: the checksum is not the last value.
    let bytes = with_tlvs(b"\x03\0\x04\0\0\0\0\x05\0\x03abc");
    let error = parse(&bytes).expect_err("the checksum is missing");
    assert_eq!(
        error,
        ProxyError::Checksum {
            announced: 0,
            computed: CHECKSUM,
        }
    );
    let mut bytes = bytes;
    bytes[31..35].copy_from_slice(&CHECKSUM.to_be_bytes());
    let header = parse(&bytes).expect("the checksum is right");
    assert!(header.has_checksum());
    assert_eq!(header.unique_id(), Some(&b"abc"[..]));
}

const CHECKSUM: u32 = 0xd7293bbb;

#[test]
fn what_a_header_says_can_be_asked_for() {
    let header = every_header().pop().expect("there are some");
    let bytes = header.to_v2().expect("it fits");
    let header = parse(&bytes).expect("it is right");
    assert!(!header.is_local() && header.has_checksum());
    let client = "[2001:db8::1]:40000".parse::<SocketAddr>();
    assert_eq!(header.client(), Some(client.expect("it is one").into()));
    let server = "[2001:db8::2]:443".parse::<SocketAddr>();
    let destination = header.addresses().destination();
    assert_eq!(destination, Some(server.expect("it is one").into()));
    assert_eq!(header.alpn(), Some(&b"h2"[..]));
    assert_eq!(header.authority(), Some("example.com"));
    assert_eq!(header.unique_id(), Some(&[7; 128][..]));
    assert_eq!(header.tlv(TlvType(0xea)).map(Bytes::len), Some(3000));
    assert_eq!(header.tlv(TlvType::NOOP), None);
    let ssl = header.ssl().expect("it is there");
    assert_eq!(ssl.version(), Some("TLSv1.3"));
    assert_eq!(ssl.common_name(), Some("example.com"));
    assert_eq!(ssl.cipher(), Some("TLS_AES_128_GCM_SHA256"));
    assert!(ssl.client.has(SslClient::SSL) && ssl.is_verified());
    assert!(!ssl.client.has(SslClient::CERT_SESS));
    let unix = ProxyHeader::proxy(unix(b"\0abstract", b"/x"));
    assert_eq!(unix.client(), Some(PeerAddress::Unix(None)));
    let path = PeerAddress::Unix(Some("/x".into()));
    assert_eq!(unix.addresses().destination(), Some(path));
    assert_eq!(TlvType(0xea).to_string(), "TLV 0xea");
}

#[test]
fn what_is_right_is_taken_in_each_of_its_forms() {
    let any = |addresses: Addresses| Ok(ProxyHeader::proxy(addresses));
    let of = |source: &str, destination: &str| any(tcp(source, destination));
    let lines: [(&[u8], _); 8] = [
        (b"PROXY UNKNOWN\r\n", any(Addresses::Unknown)),
        (
            b"PROXY UNKNOWN ffff::1 whatever \xff\0\r 1\r\n",
            any(Addresses::Unknown),
        ),
        (
            b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            of("255.255.255.255:65535", "255.255.255.255:65535"),
        ),
        (
            b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n",
            of("0.0.0.0:0", "0.0.0.0:0"),
        ),
        (b"PROXY TCP6 :: ::1 1 10\r\n", of("[::]:1", "[::1]:10")),
        (
            b"PROXY TCP6 FFFF::aBcD ::1 1 10\r\n",
            of("[ffff::abcd]:1", "[::1]:10"),
        ),
        (
            b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 10\r\n",
            of("[::ffff:192.0.2.1]:1", "[::1]:10"),
        ),
        (
            b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ::1 1 10\r\n",
            of("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:1", "[::1]:10"),
        ),
    ];
    for (bytes, header) in lines {
        assert_eq!(parse(bytes), header, "{}", bytes.escape_ascii());
    }
    let long = [b"PROXY UNKNOWN ", &[b'x'; 91][..], b"\r\n"].concat();
    assert_eq!(long.len(), 107);
    assert_eq!(parse(&long), any(Addresses::Unknown));

    let binary = [
        // What LOCAL comes with is to be discarded, whatever it is.
        (v2(0, 0x11, INET), Ok(ProxyHeader::local())),
        (v2(0, 0x11, b"short"), Ok(ProxyHeader::local())),
        (v2(0, 0, b"\x03\xff\xff"), Ok(ProxyHeader::local())),
        (v2(0, 0xff, INET), Ok(ProxyHeader::local())),
        // Addresses of no transport, and of datagrams, are none of a stream.
        (v2(1, 0, b""), any(Addresses::Unknown)),
        (v2(1, 0x01, b""), any(Addresses::Unknown)),
        (v2(1, 0x10, &[INET, b"x"].concat()), any(Addresses::Unknown)),
        (v2(1, 0x12, INET), any(Addresses::Unknown)),
        (v2(1, 0x32, &[0; 216]), any(Addresses::Unknown)),
        (v2(1, 0x31, &[0; 216]), any(unix(b"", b""))),
        // Padding is not kept.
        (with_tlvs(b"\x04\0\0\x04\0\x02\0\0"), any(tcp4())),
    ];
    for (bytes, header) in binary {
        assert_eq!(parse(&bytes), header, "{}", bytes.escape_ascii());
    }
    let datagram = v2(1, 0x12, &[INET, b"\x02\0\x01a"].concat());
    assert_eq!(
        parse(&datagram).expect("it is right").authority(),
        Some("a")
    );
}

#[test]
fn what_is_wrong_with_a_line_is_said() {
    use ProxyError::{Address, BareLineFeed, Family, Fields, LineTooLong, Missing, Port};
    let source = Address("source");
    let destination = Address("destination");
    let lines: [(&[u8], ProxyError); 44] = [
        (b"GET / HTTP/1.1\r\n", Missing),
        (b"PROXX TCP4", Missing),
        (b"PROXYTCP4", Missing),
        (b"proxy TCP4", Missing),
        (b" PROXY", Missing),
        (b"PROXY\tTCP4", Missing),
        (b"PROXY \r\n", Family),
        (b"PROXY  TCP4 1.1.1.1 1.1.1.1 1 1\r\n", Family),
        (b"PROXY TCP5 1.1.1.1 1.1.1.1 1 1\r\n", Family),
        (b"PROXY tcp4 1.1.1.1 1.1.1.1 1 1\r\n", Family),
        (b"PROXY UDP4 1.1.1.1 1.1.1.1 1 1\r\n", Family),
        (b"PROXY UNKNOWNS\r\n", Family),
        (b"PROXY UNKNOWN\n", BareLineFeed),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n", BareLineFeed),
        (b"PROXY TCP4\r\n", Fields),
        (b"PROXY TCP4 \r\n", Fields),
        (b"PROXY TCP4 1.1.1.1\r\n", Fields),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n", Fields),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 \r\n", Fields),
        (b"PROXY TCP4 1.1.1.1  1.1.1.1 1 1\r\n", Fields),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1 1\r\n", Fields),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n", Fields),
        (b"PROXY TCP4 \xff.1.1.1 1.1.1.1 1 1\r\n", Fields),
        (b"PROXY TCP4 1.1.1.256 1.1.1.1 1 1\r\n", source.clone()),
        (b"PROXY TCP4 1.1.1 1.1.1.1 1 1\r\n", source.clone()),
        (b"PROXY TCP4 01.1.1.1 1.1.1.1 1 1\r\n", source.clone()),
        (b"PROXY TCP4 0x1.1.1.1 1.1.1.1 1 1\r\n", source.clone()),
        (b"PROXY TCP4 ::1 ::1 1 1\r\n", source.clone()),
        (b"PROXY TCP4 1.1.1.1 ::1 1 1\r\n", destination.clone()),
        (b"PROXY TCP4 a.example b.example 1 1\r\n", source.clone()),
        (b"PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n", source.clone()),
        (b"PROXY TCP6 ::1 1.1.1.1 1 1\r\n", destination),
        (b"PROXY TCP6 ::1%1 ::1 1 1\r\n", source.clone()),
        (b"PROXY TCP6 [::1] ::1 1 1\r\n", source.clone()),
        (b"PROXY TCP6 1::1::1 ::1 1 1\r\n", source.clone()),
        (b"PROXY TCP6 12345::1 ::1 1 1\r\n", source.clone()),
        (b"PROXY TCP6 1:2:3:4:5:6:7 ::1 1 1\r\n", source),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 65536 1\r\n", Port("source")),
        (
            b"PROXY TCP4 1.1.1.1 1.1.1.1 1 99999999999999999999\r\n",
            Port("destination"),
        ),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n", Port("source")),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 00\r\n", Port("destination")),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n", Port("source")),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 -1 1\r\n", Port("source")),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\r\n", Port("destination")),
    ];
    for (bytes, error) in lines {
        assert_eq!(parse(bytes), Err(error), "{}", bytes.escape_ascii());
    }
    // LIMIT: 107 bytes, whatever follows.
    let long = [b"PROXY UNKNOWN ", &[b'x'; 92][..], b"\r\n"].concat();
    assert_eq!(parse(&long), Err(LineTooLong));
    let endless = [b"PROXY TCP4 ", &[b'1'; 10_000][..]].concat();
    assert_eq!(parse(&endless), Err(LineTooLong));
}

#[test]
fn what_is_wrong_with_a_binary_header_is_said() {
    let length = |kind, length, expected| ProxyError::TlvLength {
        kind,
        length,
        expected,
    };
    let short = |announced, needed| ProxyError::TooShort { announced, needed };
    let id = [&b"\x05\0\x81"[..], &[7; 129]].concat();
    let summed = ProxyHeader::proxy(tcp4()).with_checksum().to_v2();
    let sum = summed.expect("it fits")[28..].to_vec();
    let wrong = [
        (b"\r\n\r\n\0\r\nQUIT\r\n\r\n".to_vec(), ProxyError::Missing),
        ([SIGNATURE, b"\x11"].concat(), ProxyError::Version(1)),
        ([SIGNATURE, b"\x31"].concat(), ProxyError::Version(3)),
        ([SIGNATURE, b"\x01"].concat(), ProxyError::Version(0)),
        ([SIGNATURE, b"\x22"].concat(), ProxyError::Command(2)),
        ([SIGNATURE, b"\x2f"].concat(), ProxyError::Command(15)),
        (
            [SIGNATURE, b"\x21\x41"].concat(),
            ProxyError::Transport(0x41),
        ),
        (
            [SIGNATURE, b"\x21\x13"].concat(),
            ProxyError::Transport(0x13),
        ),
        (
            [SIGNATURE, b"\x21\xff"].concat(),
            ProxyError::Transport(0xff),
        ),
        (v2(1, 0x11, b""), short(0, 12)),
        (v2(1, 0x11, &INET[..11]), short(11, 12)),
        (v2(1, 0x21, INET), short(12, 36)),
        (v2(1, 0x31, &[0; 215]), short(215, 216)),
        (with_tlvs(b"\x01"), ProxyError::TlvHeader(1)),
        (with_tlvs(b"\x01\0"), ProxyError::TlvHeader(2)),
        (
            with_tlvs(b"\x01\0\x02a"),
            ProxyError::TlvTruncated(TlvType::ALPN),
        ),
        (
            with_tlvs(b"\x99\xff\xffabc"),
            ProxyError::TlvTruncated(TlvType(0x99)),
        ),
        (with_tlvs(b"\x03\0\x03abc"), length(TlvType::CRC32C, 3, "4")),
        (
            with_tlvs(b"\x03\0\x05abcde"),
            length(TlvType::CRC32C, 5, "4"),
        ),
        (with_tlvs(&id), length(TlvType::UNIQUE_ID, 129, "up to 128")),
        (with_tlvs(b"\x02\0\x01\xff"), ProxyError::Authority),
        (
            with_tlvs(b"\x20\0\x04abcd"),
            length(TlvType::SSL, 4, "5 or more"),
        ),
        (
            with_tlvs(b"\x20\0\x06\x01\0\0\0\0x"),
            ProxyError::TlvHeader(1),
        ),
        (
            with_tlvs(b"\x20\0\x0f\x01\0\0\0\0\x21\0\x09TLSv1.3"),
            ProxyError::TlvTruncated(TlvType::SSL_VERSION),
        ),
    ];
    for (bytes, error) in wrong {
        assert_eq!(parse(&bytes), Err(error), "{}", bytes.escape_ascii());
    }
    let twice = with_tlvs(&[sum.clone(), sum].concat());
    assert_eq!(parse(&twice), Err(ProxyError::TlvTwice(TlvType::CRC32C)));
}

#[test]
fn each_bit_that_is_wrong_is_found_by_the_checksum() {
    let header = ProxyHeader::proxy(tcp4())
        .with_tlv(TlvType::AUTHORITY, "example.com")
        .with_checksum();
    let bytes = header.to_v2().expect("it fits");
    // What is before is found by what it means.
    for at in 16..bytes.len() {
        for bit in 0..8 {
            let mut wrong = bytes.to_vec();
            wrong[at] ^= 1 << bit;
            match ProxyHeader::parse(&wrong, LONG) {
                Err(_) => {}
                // A checksum that is called something else is none.
                Ok(Some((header, _))) => assert!(!header.has_checksum(), "{at}"),
                Ok(None) => panic!("the length is as it was"),
            }
        }
    }
}

#[test]
fn a_header_beyond_the_limit_is_refused_before_it_comes() {
    for (announced, max_header, is_taken) in [
        (65_535_u16, 65_551, true),
        (65_535, 65_550, false),
        (4080, 4096, true),
        (4081, 4096, false),
        (12, 0, false),
    ] {
        let head = [SIGNATURE, b"\x21\x11", &announced.to_be_bytes()].concat();
        let error = ProxyError::TooLong {
            announced: 16 + usize::from(announced),
            limit: max_header,
        };
        let expected = if is_taken { Ok(None) } else { Err(error) };
        assert_eq!(
            ProxyHeader::parse(&head, max_header),
            expected,
            "{announced}"
        );
    }
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let addresses = || ProxyHeader::proxy(tcp4());
    for (header, what) in [
        (ProxyHeader::local(), "LOCAL"),
        (addresses().with_tlv(TlvType::ALPN, "h2"), "TLVs"),
        (addresses().with_checksum(), "a checksum"),
    ] {
        assert_eq!(header.to_v1(), Err(ProxyError::NotInVersion1(what)));
    }
    let most = usize::from(u16::MAX) - 12 - 3;
    let longest = addresses().with_tlv(TlvType(0xe0), vec![1; most]);
    let bytes = longest.to_v2().expect("it just fits");
    assert_eq!(bytes.len(), ProxyHeader::LONGEST);
    let parsed = ProxyHeader::parse(&bytes, LONG);
    assert_eq!(parsed, Ok(Some((longest, bytes.len()))));
    for more in [1, 100_000] {
        let too_long = addresses().with_tlv(TlvType(0xe0), vec![1; most + more]);
        let error = too_long.to_v2();
        assert_eq!(error, Err(ProxyError::CannotSend(65_551 + more)));
    }
    let v4: SocketAddrV4 = "192.0.2.1:1".parse().expect("it is one");
    let v6: SocketAddrV6 = "[::1]:1".parse().expect("it is one");
    assert_eq!(Addresses::tcp(v4.into(), v6.into()), None);
    assert_eq!(UnixAddress::new(vec![1; 109]), None);
    let zeros = UnixAddress::new(vec![0; 109]).expect("zeros do not count");
    assert_eq!(zeros.as_bytes(), b"");
}
