//! Hostile peers: point them at a server, and see what it does.
//!
//! A [`Target`] is a server, a [`Conversation`] in its protocol, and the bounds of what may be
//! done to it. [`run`] does one [`Case`] to it and gives a [`CaseReport`]: what the server did with
//! the hostile connections, and how well it served others before, beside and after them.
//!
//! The server may be written in anything. For one that is not started by a test there is the
//! program `hostile`, which does the same from the command line.
//!
//! ```no_run
//! use std::time::Duration;
//! use protosocket_testkit::hostile::{self, Case, Conversation, Target};
//!
//! # async fn test() -> Result<(), Box<dyn std::error::Error>> {
//! let target = Target::new("127.0.0.1:9000".parse()?)?
//!     .conversation(Conversation::new().say("0 hello\r\n").hear("hello\r\n"))
//!     .patience(Duration::from_secs(130))?
//!     .strict(true);
//! for case in Case::all() {
//!     let report = hostile::run(case, &target).await;
//!     assert!(report.failures().is_empty(), "{report}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! On Linux, hostile peers of a server on an IPv4 loopback address come from 127.6.6.6, and the others
//! do not: a limit per address is met by whom it is for. Elsewhere all come from the same address, and
//! such a limit refuses the others too.
//!
//! # What is judged
//! A case fails when
//! - a probe is lost before, beside or after it: a probe connects, holds the conversation and
//!   closes;
//! - a neighbour, which was there before and holds the conversation again and again on one
//!   connection, is not answered or is thrown out (there is none if the server does not hold a
//!   second conversation on a connection);
//! - one of these waits for longer than [`Target::max_wait`], although it is served in the end;
//! - the server keeps its half of a connection beyond the patience after [`Case::Fin`];
//! - the server's process, if [one is named](Target::pid), ends, or its memory grows beyond
//!   [`Target::max_memory_growth`];
//! - and, if the target is [`strict`](Target::strict), the server keeps a connection beyond the
//!   patience that some deadline should have ended, or one that has sent the requests of
//!   [`Pipelining`](Case::Pipelining) without a byte of an answer.
//!
//! Strict, the connections of these cases must end: [`NeverSends`](Case::NeverSends),
//! [`Dribble`](Case::Dribble), [`NeverReads`](Case::NeverReads), [`ZeroWindow`](Case::ZeroWindow),
//! [`TinyWindow`](Case::TinyWindow), [`HalfOpen`](Case::HalfOpen),
//! [`ConnectFlood`](Case::ConnectFlood), [`TlsHalfHello`](Case::TlsHalfHello); and those of
//! [`Garbage`](Case::Garbage), [`GiantLength`](Case::GiantLength) and [`TlsHello`](Case::TlsHello)
//! unless the server answered: then it took what came for a request, and may wait for the next.
//!
//! Several cases together are judged by [`memory_kept`]: a little that each of them leaves behind.
//!
//! A case is skipped, and has not passed, when no hostile peer was let in, or when this process ran
//! out of files or ports: then it says nothing about the server.
//!
//! The rest is only reported: whether a connection was closed or reset and after how long, how
//! much was answered, how long probes took.

mod attack;

mod case;
pub use case::{Case, Garbage, Length};

mod conversation;
pub use conversation::Conversation;

mod payload;

mod peer;

mod probe;
pub use probe::{Neighbour, ProbeOutcome, ProbeSummary};

mod report;
pub use report::{CaseReport, Failure, Memory, ServerDid, Verdict, memory_kept};

mod run;
pub use run::{probe, run};

mod system;

mod target;
pub use target::{Target, TargetError};
