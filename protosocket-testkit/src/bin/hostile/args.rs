//! The command line.

use std::{
    ffi::OsString,
    fmt, fs,
    net::{Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use lexopt::{
    ValueExt,
    prelude::{Long, Short, Value},
};
use protosocket_testkit::hostile::{Case, Conversation, Target, TargetError};

const ALLOWED: &str = "i-am-allowed-to-attack-this-address";

/// What the program is to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Say how it is used.
    Help,
    /// Name the cases.
    List,
    /// Attack and report.
    Run(Box<Plan>),
}

/// What is done to whom, and who is told.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) target: Target,
    pub(crate) cases: Vec<Case>,
    /// Whether the cases were asked for by name.
    pub(crate) by_name: bool,
    pub(crate) has_request: bool,
    pub(crate) pid: Option<u32>,
    pub(crate) patience: Duration,
    pub(crate) strict: bool,
    pub(crate) seed: u64,
    pub(crate) json: Option<Json>,
}

/// Where the report for machines goes.
#[derive(Debug, PartialEq)]
pub(crate) enum Json {
    Stdout,
    File(PathBuf),
}

/// Arguments that make no sense, and what would.
#[derive(Debug)]
pub(crate) struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> Self {
        Self(error.to_string())
    }
}

impl Plan {
    pub(crate) fn is_loopback(&self) -> bool {
        Target::new(self.address).is_ok()
    }
}

/// Something that an option changes.
type Setting = Box<dyn FnOnce(Target) -> Result<Target, TargetError>>;

/// The options as they were typed.
#[derive(Default)]
struct Options {
    address: Option<OsString>,
    allowed: bool,
    cases: Vec<Case>,
    conversation: Conversation,
    pid: Option<u32>,
    patience: Option<Duration>,
    strict: bool,
    seed: u64,
    json: Option<Json>,
    settings: Vec<Setting>,
}

impl Command {
    /// Parses the arguments after the program's name.
    ///
    /// # Errors
    /// Says which argument is wrong and what is expected in its place.
    pub(crate) fn parse(mut arguments: lexopt::Parser) -> Result<Self, UsageError> {
        let mut options = Options::default();
        while let Some(argument) = arguments.next()? {
            let option = match argument {
                Short('h') => return Ok(Self::Help),
                Long(name) => name.to_owned(),
                Value(address) if options.address.is_none() => {
                    options.address = Some(address);
                    continue;
                }
                other => return Err(other.unexpected().into()),
            };
            match option.as_str() {
                "help" => return Ok(Self::Help),
                "list" => return Ok(Self::List),
                _ => options.take(&option, &mut arguments)?,
            }
        }
        options.plan().map(|plan| Self::Run(Box::new(plan)))
    }
}

impl Options {
    fn take(&mut self, option: &str, arguments: &mut lexopt::Parser) -> Result<(), UsageError> {
        match option {
            ALLOWED => self.allowed = true,
            "strict" => self.strict = true,
            "case" => self.cases.extend(cases(&arguments.value()?.string()?)?),
            "request" => {
                let request = bytes(arguments.value()?)?;
                self.conversation = std::mem::take(&mut self.conversation).say(request);
            }
            "expect" => {
                let expected = bytes(arguments.value()?)?;
                self.conversation = std::mem::take(&mut self.conversation).hear(expected);
            }
            "pid" => self.pid = Some(number(option, arguments)?),
            "seed" => self.seed = number(option, arguments)?,
            "patience" => {
                let patience = seconds(option, arguments)?;
                self.patience = Some(patience);
                self.set(move |target| target.patience(patience));
            }
            "probe-patience" => {
                let patience = seconds(option, arguments)?;
                self.set(move |target| target.probe_patience(patience));
            }
            "probe-interval" => {
                let interval = seconds(option, arguments)?;
                self.set(move |target| target.probe_interval(interval));
            }
            "max-wait" => {
                let wait = seconds(option, arguments)?;
                self.set(move |target| target.max_wait(wait));
            }
            "dribble-interval" => {
                let interval = seconds(option, arguments)?;
                self.set(move |target| target.dribble_interval(interval));
            }
            "connections" => {
                let connections = number(option, arguments)?;
                self.set(move |target| target.connections(connections));
            }
            "churn" => {
                let connects = number(option, arguments)?;
                self.set(move |target| target.churn(connects));
            }
            "churn-rate" => {
                let per_second = number(option, arguments)?;
                self.set(move |target| target.churn_rate(per_second));
            }
            "pipelined" => {
                let times = number(option, arguments)?;
                self.set(move |target| target.pipelined(times));
            }
            "steps" => {
                let steps = number(option, arguments)?;
                self.set(move |target| target.steps(steps));
            }
            "max-bytes" => {
                let bytes = number(option, arguments)?;
                self.set(move |target| target.max_bytes(bytes));
            }
            "max-memory-growth" => {
                let bytes = number(option, arguments)?;
                self.set(move |target| target.max_memory_growth(bytes));
            }
            "json" => {
                let file = arguments.value()?;
                self.json = Some(match file == "-" {
                    true => Json::Stdout,
                    false => Json::File(file.into()),
                });
            }
            unknown => return Err(UsageError(format!("unknown option --{unknown}"))),
        }
        Ok(())
    }

    fn set(&mut self, setting: impl FnOnce(Target) -> Result<Target, TargetError> + 'static) {
        self.settings.push(Box::new(setting));
    }

    fn plan(self) -> Result<Plan, UsageError> {
        let Some(address) = self.address else {
            return Err(UsageError(
                "an address is missing: HOST:PORT, or a PORT of 127.0.0.1".into(),
            ));
        };
        let address = choose(resolve(&address.to_string_lossy())?, self.allowed);
        let mut target = match self.allowed {
            true => Target::that_may_be_attacked(address),
            false => {
                let target = Target::new(address);
                target.map_err(|error| UsageError(format!("{error}, with --{ALLOWED}")))?
            }
        };
        if let Some(pid) = self.pid
            && !Path::new("/proc").join(pid.to_string()).exists()
        {
            return Err(UsageError(format!(
                "--pid: there is no process {pid} in /proc, which only Linux has"
            )));
        }
        let has_request = self.conversation.has_request();
        target = target
            .conversation(self.conversation)
            .pid(self.pid)
            .strict(self.strict)
            .seed(self.seed);
        for setting in self.settings {
            target = setting(target).map_err(|error| UsageError(error.to_string()))?;
        }
        let by_name = !self.cases.is_empty();
        Ok(Plan {
            address,
            target,
            cases: match by_name {
                true => self.cases,
                false => Case::all().collect(),
            },
            by_name,
            has_request,
            pid: self.pid,
            patience: self.patience.unwrap_or(Target::DEFAULT_PATIENCE),
            strict: self.strict,
            seed: self.seed,
            json: self.json,
        })
    }
}

/// The addresses of this name; at least one.
fn resolve(text: &str) -> Result<Vec<SocketAddr>, UsageError> {
    if let Ok(port) = text.parse() {
        return Ok(vec![(Ipv4Addr::LOCALHOST, port).into()]);
    }
    let expected = |what: &dyn fmt::Display| {
        UsageError(format!(
            "{text:?} is no address, expected HOST:PORT or a PORT of 127.0.0.1: {what}"
        ))
    };
    let addresses = text.to_socket_addrs().map_err(|error| expected(&error))?;
    let addresses: Vec<SocketAddr> = addresses.collect();
    match addresses.is_empty() {
        false => Ok(addresses),
        true => Err(expected(&"nothing has that name")),
    }
}

/// Of several addresses of a name, the first at which something listens; or the first, at which the
/// run then fails. An address that may not be attacked is not asked.
fn choose(addresses: Vec<SocketAddr>, allowed: bool) -> SocketAddr {
    /// As long as one of the others waits.
    const PATIENCE: Duration = Duration::from_secs(5);
    let first = addresses[0];
    if addresses.len() == 1 {
        return first;
    }
    let mut candidates = addresses
        .into_iter()
        .filter(|address| allowed || Target::new(*address).is_ok())
        .peekable();
    let otherwise = *candidates.peek().unwrap_or(&first);
    candidates
        .find(|address| TcpStream::connect_timeout(address, PATIENCE).is_ok())
        .unwrap_or(otherwise)
}

/// The case of this name, or those of the group.
fn cases(name: &str) -> Result<Vec<Case>, UsageError> {
    let cases = Case::select(name);
    match cases.is_empty() {
        false => Ok(cases),
        true => Err(UsageError(format!(
            "--case: there is no case {name:?}; --list names them"
        ))),
    }
}

fn number<T: FromStr>(option: &str, arguments: &mut lexopt::Parser) -> Result<T, UsageError> {
    let text = arguments.value()?.string()?;
    text.parse()
        .map_err(|_| UsageError(format!("--{option}: expected a number, got {text:?}")))
}

fn seconds(option: &str, arguments: &mut lexopt::Parser) -> Result<Duration, UsageError> {
    let text = arguments.value()?.string()?;
    let seconds = text.parse().ok().map(Duration::try_from_secs_f64);
    match seconds {
        Some(Ok(duration)) => Ok(duration),
        _ => Err(UsageError(format!(
            "--{option}: expected a number of seconds such as 0.5, got {text:?}"
        ))),
    }
}

/// What `TEXT`, `hex:…` or `@FILE` stands for.
fn bytes(value: OsString) -> Result<Vec<u8>, UsageError> {
    let text = value.string()?;
    if let Some(path) = text.strip_prefix('@') {
        return fs::read(path).map_err(|error| UsageError(format!("{path}: {error}")));
    }
    match text.strip_prefix("hex:") {
        Some(digits) => hex(digits).ok_or_else(|| {
            UsageError(format!(
                "expected pairs of hexadecimal digits behind hex:, got {digits:?}"
            ))
        }),
        None => unescape(&text).ok_or_else(|| {
            UsageError(format!(
                "{text:?}: behind a backslash stands one of n r t 0 \\, or x and two \
                 hexadecimal digits"
            ))
        }),
    }
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = digits
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|digit| char::from(digit).to_digit(16).map(|value| value as u8))
        .collect::<Option<_>>()?;
    let pairs = digits.chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(high * 16 + low),
            _ => None,
        })
        .collect()
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next()? {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'0' => 0,
            b'\\' => b'\\',
            b'x' => {
                let digits = [rest.next()?, rest.next()?];
                *hex(std::str::from_utf8(&digits).ok()?)?.first()?
            }
            _ => return None,
        });
    }
    Some(bytes)
}

/// The text of `--help`.
pub(crate) fn help() -> String {
    format!(
        "\
Points hostile peers at a server of any protocol, and tells what it does.

Usage: hostile ADDRESS [OPTIONS]
       hostile 127.0.0.1:7000 --request 'PING\\r\\n' --expect PONG --pid 4711

ADDRESS is HOST:PORT, or a PORT of 127.0.0.1. Beside each hostile peer, well-behaved
clients connect, hold the conversation that you give and close, and a neighbour holds
it again and again on a connection that was there before, if the server allows that:
they are the others who must not notice anything. On Linux and an IPv4 loopback
address, the hostile ones come from 127.6.6.6; elsewhere a limit that the server has
per address refuses the others too.

The server's protocol:
  --request BYTES        what a client says; it should change nothing on the server,
                         for it is said thousands of times
  --expect BYTES         what the answer to the request before it contains [default:
                         any answer will do]; before all requests: what the server
                         says by itself. Both may be repeated, step by step
  BYTES is text with \\r \\n \\t \\0 \\\\ \\xNN, or hex:0a0b0c, or @FILE. Without a
  request, the others only connect, and cases that need one are skipped.

What is done:
  --case NAME            this case, or group of cases; may be repeated [default: all]
  --list                 name the cases
  --patience S           how long a peer waits for the server to end its connection
                         [default: 5; 0.01 to 3600]
  --probe-patience S     how long the others wait, for each step [default: 5; 0.01 to 60]
  --probe-interval S     pause between two of the others, and two conversations of
                         the neighbour [default: 0.1; 0.001 to 60]
  --max-wait S           how long one of the others may wait, from its connect or request
                         to the end of the conversation [default: 5; 0.001 to 3600]
  --dribble-interval S   pause between two bytes of dribble and tiny-window
                         [default: 0.25; 0.001 to 60]
  --connections N        of a flood [default: 500; 1 to 20000]
  --churn N              connects of the churn [default: 500; 1 to 100000]
  --churn-rate N         of them in a second [default: 500; 1 to 5000]
  --pipelined N          conversations of a pipelining flood
                         [default: 20000; 1 to 1000000]
  --steps N              places at which reset and fin leave [default: 64; 2 to 1000]
  --max-bytes N          what one peer sends [default: 67108864; 1024 to 1073741824]
  --seed N               what everything random comes from [default: 0]
  --{ALLOWED}
                         attack an address that is not of this machine

What is told and judged:
  --pid N                watch this process: its end, its resident memory (Linux)
  --max-memory-growth N  bytes that it may grow in one case, and may have kept after all
                         [default: 67108864; 0 to 1099511627776]
  --strict               judge as well whether the server ends what it should end
  --json FILE            write a report for machines; - is the standard output, and
                         the table goes to the standard error then
  -h, --help             print this

A case FAILS when one of the others is not served before, during or after it; when the
neighbour is not served or loses its connection; when one of these waits for longer
than --max-wait; when the process ends or grows beyond its bound; and when the server keeps its half of a connection for longer than the
patience after the peer has finished (fin).
With --strict it also fails when the server keeps a connection for longer than the
patience that a deadline should have ended: never-sends, dribble, never-reads,
zero-window, tiny-window, half-open, connect-flood, tls-half-hello; and of garbage,
giant-length and tls-hello what it did not answer, so what it must have taken for
the beginning of a request; and when it answers nothing at all to pipelining. For a server that waits up to 120 s for a request, use
--strict --patience 130.
Only told: closed (FIN) or reset, after how long, bytes answered, latencies. `left`
are connections that the peer ended by itself. While a peer does not read, an end is
seen at once on this machine, and elsewhere only if nothing stands before it.

Exit code: 0 all as it should be; 1 the server failed a case, or has more memory after
the last than before the first and its bound, or a case that was asked for by --case
could not be run; 2 bad arguments, or a --json FILE that cannot be written; 3 nothing
listens at the address.
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, UsageError> {
        Command::parse(lexopt::Parser::from_args(line.split_whitespace()))
    }

    fn plan(line: &str) -> Plan {
        match parse(line) {
            Ok(Command::Run(plan)) => *plan,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_default_is_every_case() {
        let plan = plan("7000");
        assert_eq!(plan.address, "127.0.0.1:7000".parse().expect("an address"));
        assert_eq!(plan.cases.len(), Case::all().count());
        assert!(!plan.by_name && !plan.strict && !plan.has_request);
    }

    #[test]
    fn cases_and_groups_add_up() {
        let plan = plan("localhost:7000 --case fin --case garbage");
        assert_eq!(plan.cases.len(), 1 + 7);
        assert!(plan.by_name);
    }

    #[test]
    fn bytes_are_text_with_escapes_or_hexadecimal_or_a_file() {
        let parse = |text: &str| bytes(text.into()).map_err(|error| error.to_string());
        assert_eq!(
            parse(r"PING\r\n\x00\0\t\\"),
            Ok(b"PING\r\n\0\0\t\\".to_vec())
        );
        assert_eq!(parse("hex:0aFF 00"), Ok(vec![10, 255, 0]));
        assert_eq!(parse("hex:"), Ok(vec![]));
        assert_eq!(parse("hé"), Ok("hé".as_bytes().to_vec()));
        for wrong in [
            "hex:0",
            "hex:0g",
            r"\q",
            r"\x1",
            r"\",
            "@/nonexistent/request",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn of_several_addresses_the_first_that_listens_is_taken() {
        let bind = || std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = |listener: &std::net::TcpListener| {
            let address = listener.local_addr();
            address.expect("it is bound")
        };
        let (gone, listening, other) = (bind(), bind(), bind());
        let refused = address(&gone);
        drop(gone);
        let (listening, other) = ((address(&listening), listening), (address(&other), other));
        assert_eq!(
            choose(vec![refused, listening.0, other.0], false),
            listening.0
        );
        assert_eq!(choose(vec![refused, refused], false), refused);
        // One of another machine is neither asked nor taken, if there is one of this.
        let foreign = "192.0.2.1:7".parse().expect("an address");
        assert_eq!(choose(vec![foreign, listening.0], false), listening.0);
        assert_eq!(choose(vec![foreign], true), foreign);
    }

    #[test]
    fn errors_say_what_is_expected() {
        for (line, expected) in [
            ("", "an address is missing"),
            ("7000 8000", "8000"),
            ("somewhere", "expected HOST:PORT"),
            ("192.0.2.1:7", ALLOWED),
            ("7000 --case nothing", "--list"),
            ("7000 --patience 0", "patience must be 10ms to 3600s"),
            ("7000 --patience soon", "number of seconds"),
            ("7000 --patience -1", "number of seconds"),
            ("7000 --connections many", "expected a number"),
            ("7000 --connections 0", "1 to 20000"),
            ("7000 --pid 4294967295", "no process"),
            ("7000 --request", "missing argument"),
            ("7000 --fast", "--fast"),
        ] {
            let error = parse(line).expect_err(line).to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
        assert!(!plan(&format!("192.0.2.1:7 --{ALLOWED}")).is_loopback());
    }

    #[test]
    fn the_help_names_the_bounds_that_hold() {
        let help = help();
        let mut bounds = 0;
        for part in help.split("  --").skip(1) {
            let Some((_, allowed)) = part.split_once("[default: ") else {
                continue;
            };
            let Some((default, allowed)) = allowed.split_once("; ") else {
                continue;
            };
            let name = part.split_whitespace().next().expect("an option's name");
            let (least, most) = allowed.split_once(" to ").expect("from and to");
            let most = most.split_once(']').expect("a bracket").0;
            for value in [default, least, most] {
                plan(&format!("7000 --{name} {value}"));
            }
            let beyond = most.parse::<f64>().expect("a number") * 2.0;
            assert!(parse(&format!("7000 --{name} {beyond}")).is_err(), "{name}");
            bounds += 1;
        }
        assert_eq!(bounds, 12);
        assert!(matches!(parse("--help"), Ok(Command::Help)));
        assert!(matches!(parse("-h"), Ok(Command::Help)));
        assert!(matches!(parse("--list"), Ok(Command::List)));
    }
}
