//! The connection is cut at every byte of a mixed conversation, and each call has the right end.

use std::io;

use protosocket_rpc::client::{StreamingCompletion, UnaryCompletion};

use crate::common::*;

/// How a connection is cut.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Reset,
    End,
    Abort,
    Drop,
}

const CUTS: [Cut; 4] = [Cut::Reset, Cut::End, Cut::Abort, Cut::Drop];

impl Cut {
    /// Returns what is left of it.
    fn cut(self, mut called: Called) -> Option<Called> {
        match self {
            Self::Reset => called
                .connection
                .peer
                .fail_read(io::ErrorKind::ConnectionReset),
            Self::End => called.connection.peer.end(),
            Self::Abort => called.connection.handle.abort(),
            Self::Drop => return None,
        }
        called.settle();
        Some(called)
    }
}

enum Conversation {
    Unary(Caller<UnaryCompletion<Text, Text>>),
    Streaming(Caller<StreamingCompletion<Text, Text>>),
}

impl Conversation {
    fn end(&mut self) -> Vec<String> {
        match self {
            Self::Unary(caller) => vec![caller.end()],
            Self::Streaming(caller) => caller.take(),
        }
    }
}

/// Five unary calls and three streams between them.
fn begin(called: &Called) -> Vec<Conversation> {
    let texts = ["a", "bc", "", "d", "efg", "h", "ij", "k"];
    texts
        .iter()
        .enumerate()
        .map(|(position, text)| match position % 3 {
            1 => Conversation::Streaming(called.stream(text)),
            _ => Conversation::Unary(called.unary(text)),
        })
        .collect()
}

#[test]
fn cut_at_every_byte_of_the_requests() {
    let whole = {
        let mut called = Called::new();
        let _calls = begin(&called);
        called.settle();
        called.connection.peer.written()
    };
    let mut begins = vec![0];
    for message in decoded(&whole) {
        begins.push(begins.last().unwrap() + encoded([message]).len());
    }
    assert_eq!(begins.len(), 9);
    for taken in 0..=whole.len() {
        for max_write in [usize::MAX, 1] {
            // What is encoded when the server finishes sending is still being sent.
            for cut in [Cut::Reset, Cut::Abort, Cut::Drop] {
                let mut called = Called::new();
                let mut calls = begin(&called);
                called.connection.peer.set_window(taken);
                called.connection.peer.set_max_write(max_write);
                called.settle();
                let left = cut.cut(called);
                for (position, call) in calls.iter_mut().enumerate() {
                    let expected = match begins[position] < taken {
                        true => "connection_lost: maybe executed",
                        false => "connection_lost: never sent",
                    };
                    let end = call.end();
                    assert_eq!(end[0], expected, "call {position}, {taken} bytes, {cut:?}");
                }
                drop(left);
            }
        }
    }
}

#[test]
fn cut_at_every_byte_of_the_responses() {
    // For each call what comes, in one interleaved order.
    let script: [(usize, u8, &str); 14] = [
        (1, NORMAL, "item"),
        (0, NORMAL, "answer"),
        (4, NORMAL, ""),
        (1, NORMAL, "another"),
        (7, NORMAL, "first"),
        (2, NORMAL, "x"),
        (4, NORMAL, "second"),
        (1, END, ""),
        (3, CANCEL, ""),
        (7, CANCEL, ""),
        (5, NORMAL, "yes"),
        (4, END, ""),
        (6, END, ""),
        (6, NORMAL, "late"),
    ];
    let length = {
        let script = script.map(|(_, code, text)| Text::new(0, code, text));
        encoded(script).len()
    };
    for heard in 0..=length {
        for cut in CUTS {
            let mut called = Called::new();
            let mut calls = begin(&called);
            let ids: Vec<_> = called.heard().iter().map(|asked| asked.id).collect();
            let mut expected: Vec<Vec<String>> = vec![Vec::new(); calls.len()];
            let mut over = [false; 8];
            let mut sent = 0;
            for (call, code, text) in script {
                let message = Text::new(ids[call], code, text);
                let bytes = encoded([message]);
                let most = bytes.len().min(heard - sent);
                called.connection.peer.send(&bytes[..most]);
                sent += most;
                if most < bytes.len() {
                    break;
                }
                if over[call] {
                    continue;
                }
                let is_unary = call % 3 != 1;
                over[call] = is_unary || code != NORMAL;
                match (code, is_unary) {
                    (NORMAL, _) => expected[call].push(text.to_owned()),
                    (END, true) => expected[call].push("no_response".to_owned()),
                    (END, false) => expected[call].push("end".to_owned()),
                    _ => {
                        expected[call].push("cancelled_remotely".to_owned());
                        if !is_unary {
                            expected[call].push("end".to_owned());
                        }
                    }
                }
            }
            called.settle();
            let left = cut.cut(called);
            for (position, call) in calls.iter_mut().enumerate() {
                let mut expected = expected[position].clone();
                if !over[position] {
                    expected.push("connection_lost: maybe executed".to_owned());
                    if position % 3 == 1 {
                        expected.push("end".to_owned());
                    }
                }
                assert_eq!(
                    call.end(),
                    expected,
                    "call {position}, {heard} bytes, {cut:?}"
                );
            }
            if let Some(mut left) = left {
                // Its end is told of the peer that cut a message, not of one that finished.
                let reason = left.connection.reason();
                let whole = matches!(reason, "end_of_input" | "io" | "aborted");
                assert!(whole || reason == "decode", "{reason}");
            }
        }
    }
}
