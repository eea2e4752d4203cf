use std::borrow::Cow;

use protosocket::DecodeError;

use super::line::{number, signed};
use crate::{
    Arithmetic, Key, KeyError, Request, Retrieve, StoreMode,
    codec::Refused,
    data::{ErrorReply, Expiration, Keys},
};

/// The words of a command line that is not a retrieval: the longest has seven.
const MAX_WORDS: usize = 8;

/// What a command line asks for.
#[derive(Debug)]
pub(super) enum Line {
    /// A request that is complete with it.
    Whole(Request),
    /// Items, whose keys are what the line has from this byte on.
    Retrieve {
        keys: usize,
        with_cas: bool,
        touch: Option<Expiration>,
    },
    /// An item follows.
    Store(StoreLine),
    /// It is refused, and its data block stepped over if it has one.
    Refused { refused: Refused, data: Option<u64> },
}

/// The command line in front of an item.
#[derive(Debug)]
pub(super) struct StoreLine {
    pub(super) mode: StoreMode,
    pub(super) key: Key,
    pub(super) flags: u32,
    pub(super) expiration: Expiration,
    pub(super) length: u64,
    pub(super) noreply: bool,
}

/// Whether a line that begins so may be as long as its keys want.
pub(super) fn is_retrieval(line: &[u8]) -> bool {
    let line = line.trim_ascii_start();
    [&b"get "[..], b"gets ", b"gat ", b"gats "]
        .iter()
        .any(|verb| line.starts_with(verb))
}

/// Understand a line, without its ending.
///
/// # Errors
/// The client is to blame, and what follows cannot be told from data: the line announces a data block
/// whose end is unknown, or is of another protocol.
pub(super) fn parse(line: &[u8]) -> Result<Line, DecodeError> {
    let (words, count) = split(line);
    let Some((verb, arguments)) = words[..count.min(MAX_WORDS)].split_first() else {
        return Ok(Line::refused(ErrorReply::Unknown, false));
    };
    let mode = match *verb {
        b"get" => return Ok(retrieve(line, verb, None, false)),
        b"gets" => return Ok(retrieve(line, verb, None, true)),
        b"gat" => return Ok(touched(line, verb, arguments, false)),
        b"gats" => return Ok(touched(line, verb, arguments, true)),
        b"set" => StoreMode::Set,
        b"add" => StoreMode::Add,
        b"replace" => StoreMode::Replace,
        b"append" => StoreMode::Append,
        b"prepend" => StoreMode::Prepend,
        b"cas" => StoreMode::Cas(0),
        b"GET" | b"POST" | b"PUT" | b"HEAD" | b"DELETE" | b"OPTIONS" | b"PATCH" | b"CONNECT"
        | b"Host:" => {
            // A browser can be made to send this, with commands in its body.
            return Err(DecodeError::malformed(
                "this is memcached's text protocol, and what came looks like HTTP",
            ));
        }
        b"ms" => return meta_set(arguments),
        _ => return Ok(whole(verb, arguments)),
    };
    store(mode, arguments, count)
}

/// The first words of a line, and how many it has, as far as that matters.
fn split(line: &[u8]) -> ([&[u8]; MAX_WORDS], usize) {
    let mut words = [&[][..]; MAX_WORDS];
    let mut count = 0;
    for word in crate::data::words(line).take(MAX_WORDS + 1) {
        if let Some(place) = words.get_mut(count) {
            *place = word;
        }
        count += 1;
    }
    (words, count)
}

fn retrieve(line: &[u8], last: &[u8], touch: Option<Expiration>, with_cas: bool) -> Line {
    Line::Retrieve {
        keys: end_of(line, last),
        with_cas,
        touch,
    }
}

fn touched(line: &[u8], verb: &[u8], arguments: &[&[u8]], with_cas: bool) -> Line {
    let Some(word) = arguments.first() else {
        return Line::refused(usage(verb, "<exptime> <key>*"), false);
    };
    match signed(word) {
        Some(time) => retrieve(line, word, Some(Expiration::from_wire(time)), with_cas),
        None => Line::refused(ErrorReply::client("invalid exptime argument"), false),
    }
}

/// Where a word of the line ends in it.
fn end_of(line: &[u8], word: &[u8]) -> usize {
    // INVARIANT: `word` is a slice of `line`, so its distance is within.
    word.as_ptr().addr() - line.as_ptr().addr() + word.len()
}

/// The line of a retrieval whose keys are known.
pub(super) fn of_keys(
    keys: Result<Keys, KeyError>,
    with_cas: bool,
    touch: Option<Expiration>,
) -> Result<Request, Refused> {
    match keys {
        Ok(keys) => Ok(Request::Retrieve(Retrieve {
            keys,
            with_cas,
            touch,
        })),
        Err(error) => Err(Refused {
            error: bad_key(error),
            noreply: false,
        }),
    }
}

fn store(mut mode: StoreMode, arguments: &[&[u8]], count: usize) -> Result<Line, DecodeError> {
    let with_unique = matches!(mode, StoreMode::Cas(_));
    let fields = 4 + usize::from(with_unique);
    let noreply = arguments.get(fields) == Some(&&b"noreply"[..]);
    let length = arguments.get(3).and_then(|word| number(word));
    let is_whole = count == 1 + fields + usize::from(noreply);
    // Whoever cannot know where the data ends would take data for commands.
    let (true, Some(length)) = (is_whole, length) else {
        let unique = if with_unique { " <cas unique>" } else { "" };
        return Err(DecodeError::malformed(format!(
            "bad command line format: expected {} <key> <flags> <exptime> <bytes>{unique} \
             [noreply], and where the data ends is unknown",
            mode.verb().escape_ascii(),
        )));
    };
    let refuse = |error: ErrorReply| {
        Ok(Line::Refused {
            refused: Refused { error, noreply },
            data: Some(length),
        })
    };
    let key = match Key::copied(arguments[0]) {
        Ok(key) => key,
        Err(error) => return refuse(bad_key(error)),
    };
    let flags = number(arguments[1]).and_then(|flags| flags.try_into().ok());
    let Some(flags) = flags else {
        return refuse(bad_format("flags must be a number of 32 bits"));
    };
    let Some(time) = signed(arguments[2]) else {
        return refuse(bad_format("exptime must be a number"));
    };
    if let StoreMode::Cas(unique) = &mut mode {
        match number(arguments[4]) {
            Some(number) => *unique = number,
            None => return refuse(bad_format("the cas unique must be a number of 64 bits")),
        }
    }
    Ok(Line::Store(StoreLine {
        mode,
        key,
        flags,
        expiration: Expiration::from_wire(time),
        length,
        noreply,
    }))
}

/// The one meta command with a data block: it is refused as all of them are, block and all.
fn meta_set(arguments: &[&[u8]]) -> Result<Line, DecodeError> {
    match arguments.get(1).and_then(|word| number(word)) {
        Some(length) => Ok(Line::Refused {
            refused: Refused {
                error: ErrorReply::Unknown,
                noreply: false,
            },
            data: Some(length),
        }),
        None => Err(DecodeError::malformed(
            "meta commands are not spoken here, and where the data of this one ends is unknown",
        )),
    }
}

fn whole(verb: &[u8], arguments: &[&[u8]]) -> Line {
    let (arguments, noreply) = match arguments.split_last() {
        Some((&b"noreply", rest)) => (rest, true),
        _ => (arguments, false),
    };
    let parsed = match verb {
        b"delete" => delete(arguments, noreply),
        b"incr" => arithmetic(Arithmetic::Increment, verb, arguments, noreply),
        b"decr" => arithmetic(Arithmetic::Decrement, verb, arguments, noreply),
        b"touch" => touch(arguments, noreply),
        b"flush_all" => flush_all(arguments, noreply),
        b"verbosity" => verbosity(arguments, noreply),
        b"version" => Ok(Request::Version),
        b"quit" => Ok(Request::Quit),
        // These have no `noreply`: a client that says it gets an answer.
        b"stats" if noreply => return Line::refused(ErrorReply::Unknown, false),
        b"stats"
            if arguments
                .iter()
                .any(|word| word.iter().any(u8::is_ascii_control)) =>
        {
            Err(usage(verb, "[<words>]"))
        }
        b"stats" => Ok(Request::Stats {
            group: match arguments {
                [] => None,
                words => Some(words.join(&b' ').into()),
            },
        }),
        _ => return Line::refused(ErrorReply::Unknown, false),
    };
    match parsed {
        Ok(request) => Line::Whole(request),
        Err(error) => Line::refused(error, noreply),
    }
}

fn delete(arguments: &[&[u8]], noreply: bool) -> Result<Request, ErrorReply> {
    match arguments {
        // A time that clients of long ago send; nothing else than 0 has a meaning.
        [key] | [key, b"0"] => Ok(Request::Delete {
            key: key_of(key)?,
            noreply,
        }),
        _ => Err(usage(b"delete", "<key> [noreply]")),
    }
}

fn arithmetic(
    operation: Arithmetic,
    verb: &[u8],
    arguments: &[&[u8]],
    noreply: bool,
) -> Result<Request, ErrorReply> {
    let [key, delta] = arguments else {
        return Err(usage(verb, "<key> <value> [noreply]"));
    };
    let delta = number(delta).ok_or(ErrorReply::client("invalid numeric delta argument"))?;
    Ok(Request::Arithmetic {
        key: key_of(key)?,
        operation,
        delta,
        noreply,
    })
}

fn touch(arguments: &[&[u8]], noreply: bool) -> Result<Request, ErrorReply> {
    let [key, time] = arguments else {
        return Err(usage(b"touch", "<key> <exptime> [noreply]"));
    };
    Ok(Request::Touch {
        key: key_of(key)?,
        expiration: exptime(time)?,
        noreply,
    })
}

fn flush_all(arguments: &[&[u8]], noreply: bool) -> Result<Request, ErrorReply> {
    let when = match arguments {
        [] => None,
        [time] => Some(exptime(time)?).filter(|time| *time != Expiration::NEVER),
        _ => return Err(usage(b"flush_all", "[delay] [noreply]")),
    };
    Ok(Request::FlushAll { when, noreply })
}

fn verbosity(arguments: &[&[u8]], noreply: bool) -> Result<Request, ErrorReply> {
    let level = match arguments {
        [level] => number(level).and_then(|level| level.try_into().ok()),
        _ => None,
    };
    match level {
        Some(level) => Ok(Request::Verbosity { level, noreply }),
        None => Err(usage(b"verbosity", "<level> [noreply]")),
    }
}

fn key_of(word: &[u8]) -> Result<Key, ErrorReply> {
    Key::copied(word).map_err(bad_key)
}

fn exptime(word: &[u8]) -> Result<Expiration, ErrorReply> {
    match signed(word) {
        Some(time) => Ok(Expiration::from_wire(time)),
        None => Err(ErrorReply::client("invalid exptime argument")),
    }
}

fn bad_key(error: KeyError) -> ErrorReply {
    bad_format(error.to_string())
}

fn usage(verb: &[u8], arguments: &str) -> ErrorReply {
    bad_format(format!("expected {} {arguments}", verb.escape_ascii()))
}

fn bad_format(why: impl Into<Cow<'static, str>>) -> ErrorReply {
    ErrorReply::client(format!("bad command line format: {}", why.into()))
}

impl Line {
    fn refused(error: ErrorReply, noreply: bool) -> Self {
        Self::Refused {
            refused: Refused { error, noreply },
            data: None,
        }
    }
}
