//! Bad inputs as data files, run against decoders, live servers and clients.
//!
//! A corpus file is TOML. Each case says what a peer sends, or does, and what must come of it:
//!
//! ```
//! use protosocket::LinesCodec;
//! use protosocket_testkit::corpus::Corpus;
//!
//! let text = r#"
//! [[case]]
//! id = "one_byte_above_the_limit"
//! rules = ["RFC 5321 4.5.3.1.4"]
//! why = "A line is refused at the limit, not when memory is."
//! input = ["ok\r\n", { repeat = "x", times = 65 }, "\n"]
//! messages = ["ok"]
//! end = "decode/too_large"
//! "#;
//! Corpus::parse("lines.toml", text)?
//!     .run_decoder(
//!         |_case| LinesCodec::new().max_length(64),
//!         |line| line.clone().into(),
//!     )
//!     .expect_all();
//! # Ok::<(), protosocket_testkit::corpus::CorpusError>(())
//! ```
//!
//! | key | what it says |
//! |---|---|
//! | `id` | the case's name in its file |
//! | `rules` | what it breaks: rows of the rule index, sections of an RFC, CVEs |
//! | `why` | for whoever reads the file |
//! | `input` | the bytes of a peer that sends them and finishes |
//! | `script` | instead of `input`, what a peer does on a socket, step by step |
//! | `cut` | `"reset"` or `"shut_down"`: run once for each prefix of `input`, cut off so |
//! | `messages` | the messages that are decoded: a list, their number, or `"any"` |
//! | `end` | how the connection ends, see [`end_name`](crate::end_name); several if the network decides |
//! | `says` | a part of what the reason tells people |
//! | `setting` | which variant of codec, server or client it is meant for; the test knows what it means |
//! | `limits` | deadlines (`"200 ms"`, `"2 s"`) and limits of the connection |
//! | `receive_buffer` | what the kernel takes for the hostile peer, in bytes |
//! | `without` | levels (`decoder`, `server`, `client`) at which it is not run, and why |
//!
//! `setting`, `limits` and `without` can stand at the top of a file, for all its cases. Bytes are a
//! text, `{ hex = "ff 00" }`, `{ repeat = …, times = 1000 }`, `{ garbage = 1000, seed = 1 }`,
//! `{ counting = 256 }`, or a list of these. Steps are `{ send = … }`,
//! `{ dribble = …, every = "5 ms" }`, `{ pause = "5 ms" }`, `{ read = 1000 }`,
//! `{ slow_read = 1, every = "5 ms" }`, `"read_end"`, `"never_read"`, `"shut_down"` and `"reset"`;
//! behind the last one a script waits for the end of the connection. A peer reads what comes in
//! passing; behind `"never_read"`, only what `read` and `read_end` ask for.
//!
//! The runners are [`Corpus::run_decoder`], [`Corpus::run_server`] and [`Corpus::run_client`]. The
//! latter two keep a canary beside every case, which must lose nothing and wait for no answer longer
//! than [`Corpus::longest_wait`]. All of them expect besides that no reason carries a control character of the peer's. A [`RuleIndex`]
//! says which case or test shows which rule, and finds those that nothing shows.

mod bytes;
mod case;
pub use case::{Case, Corpus, CorpusError, Level};

mod client;
pub use client::ClientSetup;

mod collect;
mod decoder;

mod expect;
mod heartbeat;
mod play;

mod report;
pub use report::Report;

mod rules;
pub use rules::{Proof, RuleIndex};

mod script;

mod server;
pub use server::ServerSetup;

mod toml_view;
