//! The bytes of garbage, giant lengths and handshakes.

use super::case::{Garbage, Length};
use crate::Random;

const GARBAGE: usize = 64 * 1024;
const ENDLESS_LINE: usize = 1024 * 1024;

/// What comes behind a giant length: too little.
const BEHIND_LENGTH: &[u8] = b"a few bytes of very many";

/// Bytes of this shape; a mutation of `request` is made of a request that is not empty.
pub(super) fn garbage(shape: Garbage, request: &[u8], random: &mut Random) -> Vec<u8> {
    match shape {
        Garbage::Random => random.bytes(GARBAGE),
        Garbage::Text => text(random),
        Garbage::Zeros => vec![0; GARBAGE],
        Garbage::Ones => vec![0xff; GARBAGE],
        Garbage::EmptyLines => vec![b'\n'; GARBAGE],
        Garbage::EndlessLine => vec![b'a'; ENDLESS_LINE],
        Garbage::Mutated => mutated(request, random),
    }
}

fn text(random: &mut Random) -> Vec<u8> {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789$*:;,=-";
    let mut text = Vec::with_capacity(GARBAGE);
    while text.len() < GARBAGE {
        for _ in 0..random.within(1..12) {
            text.push(*random.one_of(LETTERS));
        }
        text.extend(random.one_of(&[" ", " ", " ", "\n", "\r\n"]).as_bytes());
    }
    text
}

fn mutated(request: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = request.to_vec();
    for _ in 0..random.within(1..5) {
        if bytes.is_empty() {
            break;
        }
        let at = random.below(bytes.len());
        match random.below(4) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => drop(bytes.remove(at)),
            _ => bytes.insert(at, bytes[at]),
        }
    }
    bytes
}

/// The announcement of a giant message in this framing, and the beginning of the message.
pub(super) fn giant_length(framing: Length) -> Vec<u8> {
    let announced: &[u8] = match framing {
        Length::U32 => &u32::MAX.to_be_bytes(),
        Length::I32BigEndian => &i32::MAX.to_be_bytes(),
        Length::I32LittleEndian => &i32::MAX.to_le_bytes(),
        Length::U64 => &u64::MAX.to_be_bytes(),
        Length::Varint => &[0xff; 10],
        Length::Resp => b"*2147483647\r\n$2147483647\r\n",
    };
    [announced, BEHIND_LENGTH].concat()
}

/// A TLS record with a ClientHello that servers of TLS 1.2 and 1.3 answer.
pub(super) fn client_hello(random: &mut Random) -> Vec<u8> {
    // RFC 8446 §4.2: type, length and content of each extension.
    let extension = |kind: u16, content: &[u8]| {
        let length = length(content);
        [&kind.to_be_bytes(), &length.to_be_bytes(), content].concat()
    };
    let mut key_share = vec![0x00, 0x24, 0x00, 0x1d, 0x00, 0x20];
    key_share.extend(random.bytes(32));
    let extensions = [
        // supported_groups: x25519, secp256r1
        extension(10, &[0x00, 0x04, 0x00, 0x1d, 0x00, 0x17]),
        // ec_point_formats: uncompressed
        extension(11, &[0x01, 0x00]),
        // signature_algorithms: ECDSA and RSA-PSS with SHA-256, RSA-PKCS1 with SHA-256, Ed25519
        extension(
            13,
            &[0x00, 0x08, 0x04, 0x03, 0x08, 0x04, 0x04, 0x01, 0x08, 0x07],
        ),
        // supported_versions: 1.3, 1.2
        extension(43, &[0x04, 0x03, 0x04, 0x03, 0x03]),
        // key_share: x25519
        extension(51, &key_share),
    ]
    .concat();

    // RFC 8446 §4.1.2
    let mut hello = vec![0x03, 0x03];
    hello.extend(random.bytes(32));
    hello.push(32);
    hello.extend(random.bytes(32));
    let suites = [
        0x13, 0x01, 0x13, 0x03, 0xc0, 0x2b, 0xc0, 0x2f, 0xcc, 0xa9, 0xcc, 0xa8,
    ];
    hello.extend(length(&suites).to_be_bytes());
    hello.extend(suites);
    hello.extend([0x01, 0x00]);
    hello.extend(length(&extensions).to_be_bytes());
    hello.extend(extensions);

    // RFC 8446 §4 and §5.1: a handshake message in a record.
    let mut message = vec![0x01, 0x00];
    message.extend(length(&hello).to_be_bytes());
    message.extend(hello);
    let mut record = vec![0x16, 0x03, 0x01];
    record.extend(length(&message).to_be_bytes());
    record.extend(message);
    record
}

fn length(bytes: &[u8]) -> u16 {
    u16::try_from(bytes.len()).expect("a hello is a few hundred bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_what_they_say() {
        let make = |shape| garbage(shape, b"GET\r\n", &mut Random::new(3));
        assert_eq!(make(Garbage::Random).len(), GARBAGE);
        assert_ne!(make(Garbage::Random)[..64], [0; 64]);
        assert!(make(Garbage::Text).is_ascii());
        assert!(!make(Garbage::EndlessLine).contains(&b'\n'));
        assert_eq!(make(Garbage::Random), make(Garbage::Random), "seeded");
        let mut random = Random::new(5);
        let changed = (0..100)
            .filter(|_| mutated(b"GET\r\n", &mut random) != b"GET\r\n")
            .count();
        assert!(changed > 80, "{changed}");
        mutated(b"1", &mut random);
    }

    #[test]
    fn a_hello_announces_its_own_length() {
        let hello = client_hello(&mut Random::new(1));
        let announced = usize::from(u16::from_be_bytes([hello[3], hello[4]]));
        assert_eq!(announced, hello.len() - 5);
        assert_eq!(hello[..3], [0x16, 0x03, 0x01]);
    }
}
