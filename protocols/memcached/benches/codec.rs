//! What a request and a response cost the codecs, each way.

use std::hint::black_box;

use bytes::Bytes;
use criterion::Criterion;
use protosocket::{Decoded, Decoder, Encoder, Input, SendBuffer};
use protosocket_memcached::{
    Expiration, Key, Request, RequestDecoder, RequestEncoder, Response, ResponseDecoder,
    ResponseEncoder, Retrieve, Store, StoreMode, Value,
};

/// Of a value, in bytes.
const SIZES: [usize; 3] = [8, 64, 1024];

/// Messages in a row: as many as a connection decodes between two writes.
const ROW: usize = 512;

fn encode<E>(criterion: &mut Criterion, name: &str, message: E::Message)
where
    E: Encoder<Message: Clone> + Default,
{
    criterion.bench_function(&format!("encode/{name}"), |bencher| {
        let (mut encoder, mut output) = (E::default(), SendBuffer::new());
        bencher.iter(|| {
            let encoded = output.encode(&mut encoder, black_box(message.clone()));
            encoded.expect("the message is valid");
            if output.unsent_messages() == ROW {
                output.advance(output.unsent_bytes());
            }
        });
    });
}

fn decode<E, D>(criterion: &mut Criterion, name: &str, message: E::Message)
where
    E: Encoder<Message: Clone> + Default,
    D: Decoder + Default,
{
    let mut output = SendBuffer::new();
    for _ in 0..ROW {
        let encoded = output.encode(&mut E::default(), message.clone());
        encoded.expect("the message is valid");
    }
    let row = output.contiguous().clone();
    criterion.bench_function(&format!("decode/{name}/{ROW} in a row"), |bencher| {
        let mut decoder = D::default();
        bencher.iter(|| {
            let mut input = Input::from_slice(&row);
            while !input.is_empty() {
                let decoded = decoder.decode(&mut input);
                assert!(matches!(black_box(decoded), Ok(Decoded::Message(_))));
            }
        });
    });
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let key = || Key::try_from("benchmark:key").expect("it is a key");
    let get = Request::Retrieve(Retrieve {
        keys: key().into(),
        with_cas: false,
        touch: None,
    });
    encode::<RequestEncoder>(&mut criterion, "get", get.clone());
    decode::<RequestEncoder, RequestDecoder>(&mut criterion, "get", get);
    for size in SIZES {
        let value = Bytes::from(vec![b'x'; size]);
        let set = Request::Store(Store {
            mode: StoreMode::Set,
            key: key(),
            flags: 0,
            expiration: Expiration::NEVER,
            value: value.clone(),
            noreply: false,
        });
        let item = Response::Value(Value {
            key: key(),
            flags: 0,
            value,
            cas: None,
        });
        let (set_name, item_name) = (format!("set/{size}"), format!("value/{size}"));
        encode::<RequestEncoder>(&mut criterion, &set_name, set.clone());
        decode::<RequestEncoder, RequestDecoder>(&mut criterion, &set_name, set);
        encode::<ResponseEncoder>(&mut criterion, &item_name, item.clone());
        decode::<ResponseEncoder, ResponseDecoder>(&mut criterion, &item_name, item);
    }
    criterion.final_summary();
}
