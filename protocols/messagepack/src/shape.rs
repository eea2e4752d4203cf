use std::fmt;

/// What a value may be at the most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) depth: u16,
    pub(crate) values: usize,
}

/// Why bytes are not one MessagePack value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadShape {
    Truncated,
    LeftOver(usize),
    Reserved,
    /// More values are announced than there are bytes.
    Hollow {
        announced: u64,
        left: usize,
    },
    TooDeep(u16),
    TooMany(usize),
}

/// Whether `bytes` are exactly one value within `bounds`.
///
/// Looked at before `serde` is: a type that is deserialized nests and reserves as the bytes say, and
/// ends where it likes to.
pub(crate) fn check(bytes: &[u8], bounds: Bounds) -> Result<(), BadShape> {
    let mut shape = Shape {
        rest: bytes,
        values_left: bounds.values,
        bounds,
    };
    shape.value(bounds.depth)?;
    match shape.rest.len() {
        0 => Ok(()),
        left => Err(BadShape::LeftOver(left)),
    }
}

struct Shape<'a> {
    rest: &'a [u8],
    values_left: usize,
    bounds: Bounds,
}

impl Shape<'_> {
    /// Step over one value, inside of which there may be so many levels of arrays and maps.
    fn value(&mut self, levels: u16) -> Result<(), BadShape> {
        // LIMIT: max_values.
        let Some(values_left) = self.values_left.checked_sub(1) else {
            return Err(BadShape::TooMany(self.bounds.values));
        };
        self.values_left = values_left;
        let [marker] = self.take()?;
        match marker {
            // Small numbers, nil, false, true.
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => Ok(()),
            0x80..=0x8f => self.values(u64::from(marker & 0x0f) * 2, levels),
            0x90..=0x9f => self.values(u64::from(marker & 0x0f), levels),
            0xa0..=0xbf => self.skip(usize::from(marker & 0x1f)),
            0xc1 => Err(BadShape::Reserved),
            // Binary and text, with their lengths.
            0xc4 | 0xd9 => self.u8().and_then(|length| self.skip(length as usize)),
            0xc5 | 0xda => self.u16().and_then(|length| self.skip(length as usize)),
            0xc6 | 0xdb => self.u32().and_then(|length| self.skip(length as usize)),
            // Extensions, whose type is one byte more.
            0xc7 => self.u8().and_then(|length| self.extension(length as usize)),
            0xc8 => self
                .u16()
                .and_then(|length| self.extension(length as usize)),
            0xc9 => self
                .u32()
                .and_then(|length| self.extension(length as usize)),
            0xd4..=0xd8 => self.extension(1 << (marker - 0xd4)),
            // Numbers of one, two, four and eight bytes.
            0xcc | 0xd0 => self.skip(1),
            0xcd | 0xd1 => self.skip(2),
            0xca | 0xce | 0xd2 => self.skip(4),
            0xcb | 0xcf | 0xd3 => self.skip(8),
            // Arrays and maps.
            0xdc => self.u16().and_then(|count| self.values(count, levels)),
            0xdd => self.u32().and_then(|count| self.values(count, levels)),
            0xde => self.u16().and_then(|count| self.values(count * 2, levels)),
            0xdf => self.u32().and_then(|count| self.values(count * 2, levels)),
        }
    }

    fn values(&mut self, count: u64, levels: u16) -> Result<(), BadShape> {
        // Whoever reserves by this number reserves for values that are there.
        if count > self.rest.len() as u64 {
            return Err(BadShape::Hollow {
                announced: count,
                left: self.rest.len(),
            });
        }
        // LIMIT: max_depth, which bounds this recursion too.
        let Some(levels) = levels.checked_sub(1) else {
            return Err(BadShape::TooDeep(self.bounds.depth));
        };
        for _ in 0..count {
            self.value(levels)?;
        }
        Ok(())
    }

    fn extension(&mut self, length: usize) -> Result<(), BadShape> {
        self.skip(1)?;
        self.skip(length)
    }

    fn skip(&mut self, count: usize) -> Result<(), BadShape> {
        self.rest = self.rest.get(count..).ok_or(BadShape::Truncated)?;
        Ok(())
    }

    fn u8(&mut self) -> Result<u64, BadShape> {
        self.take().map(|bytes| u64::from(u8::from_be_bytes(bytes)))
    }

    fn u16(&mut self) -> Result<u64, BadShape> {
        self.take()
            .map(|bytes| u64::from(u16::from_be_bytes(bytes)))
    }

    fn u32(&mut self) -> Result<u64, BadShape> {
        self.take()
            .map(|bytes| u64::from(u32::from_be_bytes(bytes)))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], BadShape> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(BadShape::Truncated)?;
        self.rest = rest;
        Ok(*bytes)
    }
}

impl fmt::Display for BadShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("they end inside it"),
            Self::LeftOver(1) => f.write_str("one byte is left over behind it"),
            Self::LeftOver(left) => write!(f, "{left} bytes are left over behind it"),
            Self::Reserved => f.write_str("0xc1 begins no value"),
            Self::Hollow { announced, left } => write!(
                f,
                "an array or map announces {announced} values, and {left} bytes are left"
            ),
            Self::TooDeep(depth) => write!(
                f,
                "arrays and maps nest deeper than {depth} levels, the limit (max_depth)"
            ),
            Self::TooMany(values) => {
                write!(
                    f,
                    "it holds more than {values} values, the limit (max_values)"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        depth: 3,
        values: 1000,
    };

    #[test]
    fn every_marker_has_its_size() {
        // Marker, what follows it.
        let sizes: &[(u8, &[u8], usize)] = &[
            (0x00, &[], 0),
            (0x7f, &[], 0),
            (0xe0, &[], 0),
            (0xff, &[], 0),
            (0xc0, &[], 0),
            (0xc2, &[], 0),
            (0xc3, &[], 0),
            (0x80, &[], 0),
            (0x82, &[], 4),
            (0x8f, &[], 30),
            (0x90, &[], 0),
            (0x9f, &[], 15),
            (0xa0, &[], 0),
            (0xbf, &[], 31),
            (0xc4, &[200], 200),
            (0xc5, &[1, 0], 256),
            (0xc6, &[0, 0, 1, 0], 256),
            (0xc7, &[7], 8),
            (0xc8, &[1, 0], 257),
            (0xc9, &[0, 0, 1, 0], 257),
            (0xca, &[], 4),
            (0xcb, &[], 8),
            (0xcc, &[], 1),
            (0xcd, &[], 2),
            (0xce, &[], 4),
            (0xcf, &[], 8),
            (0xd0, &[], 1),
            (0xd1, &[], 2),
            (0xd2, &[], 4),
            (0xd3, &[], 8),
            (0xd4, &[], 2),
            (0xd5, &[], 3),
            (0xd6, &[], 5),
            (0xd7, &[], 9),
            (0xd8, &[], 17),
            (0xd9, &[200], 200),
            (0xda, &[1, 0], 256),
            (0xdb, &[0, 0, 1, 0], 256),
            (0xdc, &[1, 0], 256),
            (0xdd, &[0, 0, 1, 0], 256),
            (0xde, &[1, 0], 512),
            (0xdf, &[0, 0, 1, 0], 512),
        ];
        for &(marker, prefix, size) in sizes {
            let mut bytes = vec![marker];
            bytes.extend_from_slice(prefix);
            bytes.resize(bytes.len() + size, 0);
            assert_eq!(check(&bytes, BOUNDS), Ok(()), "{marker:#04x}");
            for cut in 0..bytes.len() {
                let result = check(&bytes[..cut], BOUNDS);
                assert!(
                    matches!(result, Err(BadShape::Truncated | BadShape::Hollow { .. })),
                    "{marker:#04x} of {cut} bytes: {result:?}"
                );
            }
            bytes.push(0);
            assert_eq!(check(&bytes, BOUNDS), Err(BadShape::LeftOver(1)));
        }
        assert_eq!(check(&[0xc1], BOUNDS), Err(BadShape::Reserved));
        assert_eq!(check(&[], BOUNDS), Err(BadShape::Truncated));
    }

    #[test]
    fn levels_and_values_are_counted() {
        let check = |bytes: &[u8]| check(bytes, BOUNDS);
        assert_eq!(check(&[0x91, 0x81, 0, 0x91, 0]), Ok(()));
        assert_eq!(
            check(&[0x91, 0x81, 0, 0x91, 0x90]),
            Err(BadShape::TooDeep(3))
        );
        let mut bytes = vec![0xdc, 0x03, 0xe7];
        bytes.resize(3 + 999, 0);
        assert_eq!(check(&bytes), Ok(()));
        bytes[2] += 1;
        bytes.push(0);
        assert_eq!(check(&bytes), Err(BadShape::TooMany(1000)));
    }

    #[test]
    fn what_is_announced_must_be_there() {
        for bytes in [
            &[0xdd, 0xff, 0xff, 0xff, 0xff, 0][..],
            &[0xdf, 0xff, 0xff, 0xff, 0xff, 0],
            &[0xdf, 0x80, 0, 0, 0, 0],
            &[0x92, 0],
            &[0x81, 0],
        ] {
            let result = check(bytes, BOUNDS);
            assert!(
                matches!(result, Err(BadShape::Hollow { left: 1, .. })),
                "{result:?}"
            );
        }
    }
}
