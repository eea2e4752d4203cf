use protosocket_rpc::Message;
use tracing::Level;

use crate::{
    common::{NORMAL, Served, Text, UNSPEAKABLE, calls},
    log::{Log, SECRET},
};

/// Run `abuse` a hundred times on a connection that then ends, and expect that nobody who does not
/// ask hears of it.
#[track_caller]
fn quiet(abuse: impl Fn(&mut Served)) -> Log {
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.clone());
    let mut server = Served::limited(3);
    server.send_at_once(calls(1..=2, &format!("wait {SECRET}")));
    for _ in 0..100 {
        abuse(&mut server);
    }
    server.handle.abort();
    server.finish();
    drop(guard);
    for level in [Level::WARN, Level::INFO] {
        assert_eq!(log.count(level), 0, "{level}");
    }
    assert!(log.count(Level::DEBUG) > 0, "who wants to know can");
    assert_eq!(log.lines().leaks, [""; 0]);
    log
}

#[test]
fn d20_what_clients_do_is_no_warning_and_no_payload_is_logged() {
    let said = |id, code, what: &str| Text::new(id, code, format!("{what} {SECRET}"));
    let one = |message: Text| quiet(move |server| server.send_at_once([message.clone()]));
    let logs = [
        // An id in flight, and then a call with it.
        one(said(1, NORMAL, "wait")),
        one(said(3, 7, "wait")),
        one(said(3, NORMAL, "reject")),
        one(Text::new(3, NORMAL, format!("echo {UNSPEAKABLE}"))),
        one(Text::new(3, NORMAL, "code 9")),
        // Beyond the limit.
        quiet(|server| server.send_at_once(calls(3..=6, &format!("wait {SECRET}")))),
        quiet(|server| server.send_at_once((1..=9).map(Text::cancelled))),
        quiet(|server| server.send_at_once((1..=9).map(Text::ended))),
        // What cannot be decoded, which ends it.
        quiet(|server| server.peer.send([&[0, 8][..], SECRET.as_bytes()].concat())),
    ];
    for log in logs {
        assert_eq!(log.count(Level::ERROR), 0);
    }
}

#[test]
fn d20_a_request_that_panics_is_an_error_once_a_connection() {
    let log = quiet(|server| server.call(3, &format!("panic-poll {SECRET}")));
    assert_eq!(log.count(Level::ERROR), 1, "the bug is this program's");
}
