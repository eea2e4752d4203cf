//! ClientHellos made by hand, right or wrong.

/// What a ClientHello is made of.
pub(crate) struct Hello {
    extensions: Vec<u8>,
}

impl Hello {
    pub(crate) fn new() -> Self {
        Self {
            extensions: Vec::new(),
        }
    }

    pub(crate) fn extension(mut self, kind: u16, data: &[u8]) -> Self {
        self.extensions.extend(kind.to_be_bytes());
        self.extensions.extend(with_length_u16(data));
        self
    }

    pub(crate) fn server_name(self, name: &[u8]) -> Self {
        let entry = [&[0][..], &with_length_u16(name)].concat();
        self.extension(0, &with_length_u16(&entry))
    }

    pub(crate) fn protocols(self, protocols: &[&[u8]]) -> Self {
        let list: Vec<u8> = protocols.iter().flat_map(|it| with_length_u8(it)).collect();
        self.extension(16, &with_length_u16(&list))
    }

    pub(crate) fn versions(self, versions: &[u16]) -> Self {
        let list: Vec<u8> = versions.iter().flat_map(|it| it.to_be_bytes()).collect();
        self.extension(43, &with_length_u8(&list))
    }

    /// Fill it up with padding (RFC 7685) to so many bytes, its header of four not counted, as
    /// many as an extension has of its own.
    pub(crate) fn padded_to(self, length: usize) -> Self {
        let without = self.message().len();
        // An extension has at most 64 KiB: two of them reach any length that matters.
        let mut missing = length - without;
        let mut hello = self;
        if missing > 40_000 {
            hello = hello.extension(21, &vec![0; 30_000]);
            missing -= 30_004;
        }
        hello.extension(21, &vec![0; missing])
    }

    /// The handshake message.
    pub(crate) fn message(&self) -> Vec<u8> {
        header(&[self.body(), with_length_u16(&self.extensions)].concat())
    }

    pub(crate) fn message_without_extensions(&self) -> Vec<u8> {
        header(&self.body())
    }

    /// Version, random, session id, one cipher suite, no compression.
    fn body(&self) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
        body
    }
}

fn header(body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    [&[1, length[1], length[2], length[3]][..], body].concat()
}

/// `message` in records of at most `fragment` bytes.
pub(crate) fn in_records(message: &[u8], fragment: usize) -> Vec<u8> {
    let record = |bytes: &[u8]| [&[0x16, 3, 1][..], &with_length_u16(bytes)].concat();
    message.chunks(fragment).flat_map(record).collect()
}

fn with_length_u8(bytes: &[u8]) -> Vec<u8> {
    [&[bytes.len() as u8][..], bytes].concat()
}

fn with_length_u16(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}
