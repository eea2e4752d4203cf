use protosocket_testkit::Setup;

use crate::common::{BARE, Served, Text, calls, encoded, limit};

/// How many answers have been sent when `wanted` was.
fn answers_until(server: &mut Served, wanted: &str) -> usize {
    let said = server.said();
    let at = said.iter().position(|said| said == wanted);
    at.unwrap_or_else(|| panic!("{wanted} is not among {} answers", said.len()))
}

#[test]
fn d29_streams_that_are_always_ready_take_turns() {
    let mut server = Served::new();
    server.send_at_once(calls(1..=3, "count 50"));
    let answers = server.answers();
    assert_eq!(answers.len(), 3 * 51);
    let mut sent = [0_i32; 3];
    for answer in &answers {
        sent[answer.id as usize - 1] += 1;
        let ahead = sent.iter().max().zip(sent.iter().min());
        assert!(
            ahead.is_some_and(|(most, least)| most - least <= 2),
            "{sent:?}"
        );
    }
}

#[test]
fn d29_a_call_that_is_woken_waits_for_one_turn_of_each_stream() {
    // Room for the answers of a few turns, so that streams are cut off in the middle.
    let mut server = Served::with(Setup::bulk(10 * BARE), limit(100));
    server.peer.set_window(0);
    let waiting = Text::new(100, 0, "wait");
    server.send_at_once([waiting].into_iter().chain(calls(1..=3, "count 1000")));
    server.stage.give(100, "here");
    server.peer.set_window(usize::MAX);
    server.peer.open_window(0);
    server.settle();
    let at = answers_until(&mut server, "100:here");
    assert!(at < 10 * 2, "it is answer {at}");
}

#[test]
fn d29_a_stream_that_wakes_itself_gets_no_more_turns_than_others() {
    let mut server = Served::new();
    server.send_at_once([Text::new(1, 0, "eager 50"), Text::new(2, 0, "count 50")]);
    let mut ids = server.answers().into_iter().map(|answer| answer.id);
    // The first is alone when it comes.
    assert_eq!(ids.next(), Some(1));
    let ids: Vec<_> = ids.collect();
    assert!(ids[..100].chunks(2).all(|turn| turn == [1, 2]), "{ids:?}");
}

#[test]
fn rpcs_that_get_nowhere_do_not_hold_the_thread() {
    let mut server = Served::new();
    server
        .peer
        .send(encoded(calls(1..=2, &format!("yield {}", u64::MAX))));
    server.poll_once();
    server.stage.take_polls();
    server.poll_once();
    let polls = server.stage.take_polls().len();
    assert!((1..=4096).contains(&polls), "{polls} polls in one");
    assert!(server.is_woken(), "they are polled again");
    // Nor do they keep others from being served.
    server.peer.send(encoded(calls([3], "echo hi")));
    server.poll_once();
    assert_eq!(server.said(), ["3:hi"]);
}
