//! Bad inputs as data files, run against decoders, live servers and clients.

mod bytes;
mod case;
pub use case::{Case, Corpus, CorpusError, Level};

mod client;
pub use client::ClientSetup;

mod collect;
mod decoder;

mod endings;
pub use endings::{Ending, Endings, end_name};

mod expect;
pub use expect::Messages;

mod play;

mod report;
pub use report::Report;

mod rules;
pub use rules::{Proof, RuleIndex};

mod script;
pub use script::Step;

mod server;
pub use server::ServerSetup;

mod toml_view;
