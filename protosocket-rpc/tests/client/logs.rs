//! What a client logs of that which nobody else hears of.

use protosocket_testkit::Setup;
use tracing::Level;

use crate::{
    brittle::{Brittle, BrittleCodec, connection_with},
    log::{Log, SECRET},
};

#[test]
fn d20_cancels_that_cannot_be_encoded_are_one_warning() {
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.clone());
    let codec = BrittleCodec {
        never_cancels: true,
    };
    let (client, mut connection) = connection_with(Setup::default(), codec);
    let calls: Vec<_> = (0..10)
        .map(|_| {
            client
                .send_unary(Brittle::request(SECRET))
                .expect("it lives")
        })
        .collect();
    connection.settle();
    let written = connection.peer.written().len();
    drop(calls);
    connection.settle();
    assert!(
        !connection.is_ended(),
        "nobody waits for these calls, that is all"
    );
    assert_eq!(connection.peer.written().len(), written);
    drop(guard);
    assert_eq!(log.count(Level::WARN), 1);
    assert_eq!(log.count(Level::ERROR), 0);
    assert!(log.count(Level::DEBUG) >= 9, "who wants to know can");
    assert_eq!(log.lines().leaks, [""; 0]);
}
