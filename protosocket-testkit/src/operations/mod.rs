//! Runs that are generated from bytes, and what must hold in each of them.
//!
//! Each function here takes bytes, makes decisions from them, and panics when something does not
//! hold: what a fuzzer wants. The same functions run over kept inputs and over random ones in plain
//! tests ([`replay`]). [`decoder`] and [`codec`] take any codec, and [`Choices`] makes more such
//! functions, for a reactor or a machine:
//!
//! ```
//! use protosocket::LinesCodec;
//! use protosocket_testkit::{for_each_seed, operations};
//!
//! for_each_seed(0..100, |random| {
//!     let bytes = random.bytes(100);
//!     operations::codec(&bytes, LinesCodec::new);
//! });
//! ```

mod channel;
pub use channel::channel;

mod choices;
pub use choices::Choices;

mod connection;
pub use connection::{connection, contract};

mod decoder;
pub use decoder::{codec, decoder};

mod machine;
pub use machine::machine;

mod proxy_header;
pub use proxy_header::proxy_header;

mod ready_made;
pub use ready_made::{length_delimited, lines, tokio_codecs};

mod replay;
pub use replay::replay;
