//! How a run begins.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use protosocket::{Limits, SendLimits, channel};

use super::{Hold, Seen, Setting, World, wire::Wire};
use crate::{Setup, operations::Choices};

impl Setting {
    fn new(choices: &mut Choices<'_>) -> Self {
        let client = choices.flag();
        let send = SendLimits {
            bulk_bytes: choices.one_of(&[1 << 20, 1, 100, 5000, 40_000]),
            bulk_messages: choices.one_of(&[4096, 1, 2, 50]),
            control_bytes: choices.one_of(&[64 << 10, 1, 100, 5000]),
        };
        let max_message_size = choices.one_of(&[32 << 20, 4, 100, 5000, 70_000]);
        let receive_chunk = choices.one_of(&[256 << 10, 1, 20_000]);
        let base = match client {
            true => Limits::client(),
            false => Limits::server(),
        };
        let max_age = choices.one_of(&[None, None, None, Some(Duration::from_secs(50))]);
        let limits = base
            .send_limits(send)
            .max_message_size(max_message_size)
            .receive_chunk(receive_chunk)
            .max_age(max_age);
        Self {
            limits,
            send,
            max_message_size,
            receive_chunk,
            capacity: choices.one_of(&[1024, 1, 2, 5, 40]),
            client,
            ages: max_age.is_some(),
            unread: 0,
        }
    }
}

impl World {
    pub(super) fn new(choices: &mut Choices<'_>) -> Self {
        let mut setting = Setting::new(choices);
        let unread_size = choices.one_of(&[0, 0, 0, 3, 30]);
        let unread = Bytes::copy_from_slice(choices.bytes(unread_size));
        setting.unread = unread.len();
        let hold = Hold::new();
        hold.state().accepted.push(Default::default());
        let codec = Wire::new(setting.max_message_size);
        let progress = codec.progress();
        let (sender, receiver) = channel(setting.capacity);
        let setup = Setup {
            limits: setting.limits.clone(),
            client: setting.client,
            unread: unread.clone(),
            ..Setup::default()
        };
        let peer = setup.peer.clone();
        Self {
            driven: setup.drive(codec, hold.subject(), receiver),
            peer,
            hold,
            progress,
            handed: unread.len(),
            script: unread.into(),
            setting,
            has_ended_input: false,
            reads_slowly: false,
            can_fail: false,
            shutdown_fails: false,
            transients: 0,
            has_drained: false,
            has_aborted: false,
            time_has_passed: false,
            lines: vec![(Rc::new(sender), 0)],
            weak: Vec::new(),
            sending: Vec::new(),
            seen: Seen::default(),
        }
    }
}
