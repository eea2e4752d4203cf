//! The example against clients that nobody here wrote, and against the bytes that they may send.
//!
//! Each test starts the program itself. Order and completeness are asserted, and that answers do
//! not come too early; how late they come is the machine's business.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    process::{Child, ChildStdout, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// How long a test waits for bytes before it fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// The running example, ended with its test.
struct Example {
    process: Child,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Example {
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_example-telnet"))
            .arg("127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("it was built");
        let mut output = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("it is text");
        let words: Vec<_> = line.split([' ', ',']).collect();
        let [_, _, ip, port, ..] = words[..] else {
            panic!("no address: {line}");
        };
        let address = format!("{ip}:{port}").parse();
        Self {
            process,
            output,
            address: address.expect("it tells its address"),
        }
    }

    fn port(&self) -> String {
        self.address.port().to_string()
    }

    fn connect(&self) -> BufReader<TcpStream> {
        let stream = TcpStream::connect(self.address).expect("it listens");
        let set = stream.set_read_timeout(Some(PATIENCE));
        set.expect("it is a socket");
        BufReader::new(stream)
    }

    /// Interrupt it, as Ctrl-C does.
    fn interrupt(&self) {
        let id = self.process.id().to_string();
        let killed = Command::new("kill").args(["-INT", &id]).status();
        assert!(killed.expect("every system has kill").success());
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // It may have ended by itself, as some tests want.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A client that ends by itself or is ended, or `None` if it is not installed. Where `CI` is set
/// it must be.
fn client(program: &str) -> Option<Command> {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .stdout(Stdio::null())
        .status();
    if found.expect("every system has a shell").success() {
        let mut command = Command::new("timeout");
        command.args(["--foreground", "60", program]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        return Some(command);
    }
    assert!(env::var_os("CI").is_none(), "{program} is not installed");
    eprintln!("SKIPPED: {program} is not installed");
    None
}

/// Run `command` with `input` and the end of it.
fn run(mut command: Command, input: &str) -> Output {
    let mut process = command.spawn().expect("it is installed");
    let mut stdin = process.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    process.wait_with_output().expect("it ends")
}

fn send(stream: &mut BufReader<TcpStream>, bytes: &[u8]) {
    stream.get_mut().write_all(bytes).expect("it reads");
}

fn receive(stream: &mut BufReader<TcpStream>, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).expect("it answers");
    assert_eq!(bytes, expected, "{}", String::from_utf8_lossy(&bytes));
}

fn expect_end(stream: &mut BufReader<TcpStream>) {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("it closes in order");
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
}

#[test]
fn nc_that_has_half_closed_gets_delayed_answers_and_then_the_end() {
    let example = Example::start();
    let Some(mut nc) = client("nc") else { return };
    nc.args(["-N", "127.0.0.1", &example.port()]);
    let begun = Instant::now();
    let output = run(nc, "2 late\n0 now\n1 middle\nnonsense\n1 again");
    assert!(output.status.success(), "the server closed: {output:?}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "now\r\ntype SECONDS TEXT, such as 3 hello, or quit\r\nmiddle\r\nagain\r\nlate\r\n"
    );
    assert!(begun.elapsed() >= Duration::from_secs(2), "too early");
}

#[test]
fn socat_gets_an_answer_after_three_seconds_and_others_meanwhile() {
    let example = Example::start();
    let Some(mut socat) = client("socat") else {
        return;
    };
    socat.args(["-", &format!("TCP:127.0.0.1:{}", example.port())]);
    let mut socat = socat.spawn().expect("it is installed");
    let mut input = socat.stdin.take().expect("it is piped");
    let output = BufReader::new(socat.stdout.take().expect("it is piped"));
    let mut lines = output.lines().map(|line| line.expect("it is text"));
    let begun = Instant::now();
    input.write_all(b"3 hello\n0 hi\n").expect("it reads");
    assert_eq!(lines.next().as_deref(), Some("hi"));
    // Asked and answered while the first waits.
    input.write_all(b"0 meanwhile\n").expect("it reads");
    assert_eq!(lines.next().as_deref(), Some("meanwhile"));
    assert_eq!(lines.next().as_deref(), Some("hello"));
    assert!(begun.elapsed() >= Duration::from_secs(3), "too early");
    input.write_all(b"quit\n0 unheard\n").expect("it reads");
    assert_eq!(lines.next().as_deref(), Some("goodbye"));
    assert_eq!(lines.next(), None);
    assert!(socat.wait().expect("it ends").success());
}

#[test]
fn telnet_with_piped_input_is_answered_and_sees_the_end() {
    let example = Example::start();
    let Some(mut telnet) = client("telnet") else {
        return;
    };
    telnet.args(["127.0.0.1", &example.port()]);
    let mut telnet = telnet.spawn().expect("it is installed");
    let mut input = telnet.stdin.take().expect("it is piped");
    let output = BufReader::new(telnet.stdout.take().expect("it is piped"));
    let mut lines = output.lines().map(|line| line.expect("it is text"));
    input.write_all(b"1 hello\n0 hi\n").expect("it reads");
    let answer = lines.find(|line| !is_notice(line));
    assert_eq!(answer.as_deref(), Some("hi"));
    assert_eq!(lines.next().as_deref(), Some("hello"));
    input.write_all(b"quit\n").expect("it reads");
    assert_eq!(lines.next().as_deref(), Some("goodbye"));
    // Its status is a failure when the other side closes.
    telnet.wait().expect("it ends");
}

/// What telnet says itself.
fn is_notice(line: &str) -> bool {
    ["Trying", "Connected", "Escape"]
        .iter()
        .any(|notice| line.starts_with(notice))
}

#[test]
fn telnet_at_a_terminal_talks_and_its_options_are_refused() {
    let example = Example::start();
    let (Some(mut expect), Some(_)) = (client("expect"), client("telnet")) else {
        return;
    };
    // An answer stands at the beginning of a line; what the terminal echoes does not.
    let script = r#"
        set timeout 30
        spawn telnet 127.0.0.1 $env(PORT)
        expect_after timeout { exit 3 } eof { exit 4 }
        # Back from its prompt, telnet takes a while to give the terminal its own mode, and what is
        # typed meanwhile is lost: wait until it hears.
        set typed 0
        proc escape {} {
            global typed
            for {set tries 0} {$tries < 10} {incr tries} {
                incr typed
                send "0 typed $typed\r"
                expect {
                    -timeout 3
                    -re "\ntyped $typed\r" {
                        send "\x1d"
                        expect "telnet>"
                        return
                    }
                    timeout {}
                }
            }
            exit 5
        }
        expect "Escape character"
        send "1 hello\r"
        send "0 hi\r"
        expect -re "\nhi\r"
        expect -re "\nhello\r"
        escape
        send "toggle options\r"
        expect "Will show option processing"
        foreach {asked answered} {"do echo" "WONT ECHO" "will naws" "DONT NAWS"} {
            escape
            send "send $asked\r"
            expect "RCVD $answered"
        }
        send "quit\r"
        expect -re "\ngoodbye\r"
        expect "Connection closed by foreign host"
    "#;
    expect.args(["-c", script]).env("PORT", example.port());
    let output = run(expect, "");
    assert!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stdout)
    );
}

const SE: u8 = 240;
const NOP: u8 = 241;
const AYT: u8 = 246;
const SB: u8 = 250;
const WILL: u8 = 251;
const WONT: u8 = 252;
const DO: u8 = 253;
const DONT: u8 = 254;
const IAC: u8 = 255;
const ECHO: u8 = 1;
const TERMINAL_TYPE: u8 = 24;
const WINDOW_SIZE: u8 = 31;

/// RFC 854: a request for an option is refused, a refusal is not answered, and other commands
/// stand between the bytes of a line without being part of it. RFC 855: a subnegotiation ends at
/// IAC SE, and a doubled IAC in it is data.
#[test]
fn negotiation_that_is_cut_anywhere_is_refused_or_ignored() {
    let example = Example::start();
    let mut asked = vec![IAC, DO, ECHO, b'0', IAC, NOP, b' ', IAC, WONT, ECHO, b'a'];
    asked.extend([IAC, WILL, WINDOW_SIZE, IAC, SB, TERMINAL_TYPE, 0, IAC, IAC]);
    asked.extend([SE, b'x', b'\n', IAC, SE, b'b', IAC, DONT, ECHO, IAC, AYT]);
    asked.extend(b"c\r\0\r\n");
    let mut answered = vec![IAC, WONT, ECHO, IAC, DONT, WINDOW_SIZE];
    answered.extend(b"abc\r\n");
    for cut in 0..=asked.len() {
        let mut stream = example.connect();
        let (first, second) = asked.split_at(cut);
        // The answer to the ping says that what came with it has been read.
        send(&mut stream, &[b"0 ping\n", first].concat());
        receive(&mut stream, b"ping\r\n");
        send(&mut stream, second);
        receive(&mut stream, &answered);
        send(&mut stream, b"quit\n");
        receive(&mut stream, b"goodbye\r\n");
        expect_end(&mut stream);
    }
}

#[test]
fn a_line_that_is_too_long_or_no_text_ends_only_its_connection() {
    let example = Example::start();
    let mut other = example.connect();
    for bad in [vec![b'x'; 5000], vec![b'0', b' ', 0xc3, b'\n']] {
        let mut stream = example.connect();
        send(&mut stream, &bad);
        expect_end(&mut stream);
        send(&mut other, b"0 still here\n");
        receive(&mut other, b"still here\r\n");
    }
}

#[test]
fn an_interrupt_drains_and_reports() {
    let mut example = Example::start();
    let mut waiting = example.connect();
    send(&mut waiting, b"2 late\n0 now\n");
    receive(&mut waiting, b"now\r\n");
    let mut half_closed = example.connect();
    send(&mut half_closed, b"1 soon\n0 now\n");
    let closed = half_closed.get_ref().shutdown(Shutdown::Write);
    closed.expect("it is connected");
    receive(&mut half_closed, b"now\r\n");
    let mut idle = example.connect();
    send(&mut idle, b"0 now\n");
    receive(&mut idle, b"now\r\n");

    example.interrupt();
    expect_end(&mut idle);
    receive(&mut half_closed, b"soon\r\n");
    expect_end(&mut half_closed);
    receive(&mut waiting, b"late\r\n");
    expect_end(&mut waiting);
    drop((idle, half_closed, waiting));

    let mut report = String::new();
    example
        .output
        .read_to_string(&mut report)
        .expect("it is text");
    assert!(
        report.starts_with(
            "draining: 3 finished, 0 forced, 0 failed, 0 dropped, 0 stuck, \
             0 messages unsent, 0 unanswered"
        ),
        "{report}"
    );
    let status = example.process.wait().expect("it ends");
    assert_eq!(status.code(), Some(0));
}
