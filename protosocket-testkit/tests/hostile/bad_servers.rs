//! Each verdict against a server that deserves it.

use std::{
    process::{Child, Command},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use protosocket_testkit::hostile::{self, Case, CaseReport, Conversation, Failure, Target};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::Notify,
    task::JoinSet,
};

use crate::servers::{IN_VAIN, PATIENCE, line_echo, listen, serve};

/// Sent by `garbage-ones`, and by nobody else.
const POISON: u8 = 0xff;

fn poison() -> Case {
    Case::select("garbage-ones")[0]
}

fn names(report: &CaseReport) -> Vec<&'static str> {
    report.failures().iter().map(Failure::name).collect()
}

/// Echo whatever comes, until the end or the first byte of poison, which is told.
async fn echo(stream: &mut TcpStream) -> bool {
    let mut buffer = vec![0; 4096];
    let mut line = Vec::new();
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if buffer[..count].contains(&POISON) {
            return true;
        }
        line.extend_from_slice(&buffer[..count]);
        if !buffer[..count].contains(&b'\n') {
            continue;
        }
        while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            let rest = line.split_off(end + 1);
            line.truncate(end);
            line.extend_from_slice(b"\r\n");
            if stream.write_all(&line).await.is_err() {
                return false;
            }
            line = rest;
        }
    }
    false
}

/// Run these at the same time, because most of it is waiting.
async fn beside_each_other(
    cases: impl IntoIterator<Item = Case>,
    target: &Target,
) -> Vec<CaseReport> {
    let mut running = JoinSet::new();
    for case in cases {
        let target = target.clone();
        running.spawn(async move { hostile::run(case, &target).await });
    }
    let reports = running.join_all().await;
    assert!(reports.len() > 10);
    reports
}

/// A server that echoes lines and never closes anything.
async fn keeper() -> std::net::SocketAddr {
    serve(|mut stream| async move {
        echo(&mut stream).await;
        std::future::pending().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_never_closes_fails_what_a_deadline_should_end() {
    let target = line_echo(keeper().await, IN_VAIN).strict(true);
    let endless_line = Case::select("garbage-endless-line")[0];
    let giant = Case::select("giant-length-i32-be")[0];
    let cases = [
        Case::NeverSends,
        Case::Dribble,
        Case::NeverReads,
        Case::ZeroWindow,
        Case::TinyWindow,
        endless_line,
        giant,
        Case::HalfOpen,
        Case::ConnectFlood,
        Case::TlsHalfHello,
        Case::Fin,
    ];
    for report in beside_each_other(cases, &target).await {
        assert_eq!(names(&report), ["kept"], "{report}");
        assert!(report.server.kept > 0, "{report}");
    }
}

/// A server without deadlines, which sees the end of input: that is all that ends a connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fin_is_what_ends_the_connections_of_its_case() {
    let address = serve(|mut stream| async move {
        echo(&mut stream).await;
    })
    .await;
    let report = hostile::run(Case::Fin, &line_echo(address, PATIENCE)).await;
    assert!(report.passed(), "{report}");
    assert_eq!(report.server.closed, report.server.opened, "{report}");
    let target = line_echo(address, IN_VAIN).strict(true);
    let report = hostile::run(Case::NeverSends, &target).await;
    assert_eq!(names(&report), ["kept"], "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_is_what_the_server_sees_of_its_case() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    let address = serve(move |mut stream| {
        let record = record.clone();
        async move {
            let mut buffer = [0; 64];
            let end = loop {
                // The error is told once, to whoever asks first.
                match stream.read(&mut buffer).await {
                    Ok(0) => break "end",
                    Ok(_) if stream.write_all(b"hello\r\n").await.is_ok() => {}
                    _ => break "error",
                }
            };
            record.lock().expect("no panic").push(end);
        }
    })
    .await;
    // One probe before, one after, at least one beside it, and the neighbour close in order.
    let report = hostile::run(Case::Reset, &line_echo(address, PATIENCE)).await;
    assert!(report.passed(), "{report}");
    let connections = report.server.left + report.during.answered + 3;
    let ends = async {
        while seen.lock().expect("no panic").len() < connections {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let ends = tokio::time::timeout(PATIENCE, ends).await;
    ends.expect("the server sees the end of each");
    let seen = seen.lock().expect("no panic");
    let errors = seen.iter().filter(|end| **end == "error").count();
    // After each of the 6 bytes of the request, before them, and after the answer.
    assert_eq!(report.server.left, 8);
    assert_eq!(errors, 8, "{seen:?}");
}

/// The system of a server whose peer has vanished sends again and again.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_half_open_acknowledges_nothing() {
    let address = serve(|mut stream| async move {
        let mut request = [0; 6];
        loop {
            let pause = Duration::from_millis(20);
            let said = match tokio::time::timeout(pause, stream.read(&mut request)).await {
                Ok(Ok(1..)) => &b"hello\r\n"[..],
                Ok(_) => return,
                // Nobody who is there asks for so long, and who has vanished is sent this.
                Err(_) => b"and more\r\n",
            };
            if stream.write_all(said).await.is_err() {
                return;
            }
        }
    })
    .await;
    let target = line_echo(address, PATIENCE);
    let attack = tokio::spawn(async move { hostile::run(Case::HalfOpen, &target).await });
    let port = format!(":{:04X}", address.port());
    let repeats = || {
        let table = std::fs::read_to_string("/proc/self/net/tcp").expect("it is Linux");
        table
            .lines()
            .filter(|line| line.contains(&port))
            .any(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                // Of a connection that is open: the server's address, and how often it sent again.
                fields.get(1).is_some_and(|local| local.ends_with(&port))
                    && fields.get(3) == Some(&"01")
                    && fields
                        .get(6)
                        .is_some_and(|count| !count.trim_start_matches('0').is_empty())
            })
    };
    let repeated = async {
        while !repeats() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let repeated = tokio::time::timeout(PATIENCE, repeated).await;
    attack.abort();
    repeated.expect("what is not acknowledged is sent again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_fails_only_when_strict_but_behind_a_fin_always() {
    let target = line_echo(keeper().await, IN_VAIN);
    let report = hostile::run(Case::NeverSends, &target).await;
    assert!(report.passed(), "{report}");
    assert_eq!(report.server.kept, 1, "{report}");
    let report = hostile::run(Case::Fin, &target).await;
    assert_eq!(names(&report), ["kept"], "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_listening_is_caught() {
    let (listener, address) = listen().await;
    let poisoned = Arc::new(Notify::new());
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = poisoned.notified() => return,
            };
            let (mut stream, _) = accepted.expect("a connection");
            let poisoned = poisoned.clone();
            tokio::spawn(async move {
                if echo(&mut stream).await {
                    poisoned.notify_one();
                    // The peer waits until the listener has gone.
                    while TcpStream::connect(address).await.is_ok() {}
                }
            });
        }
    });
    let target = line_echo(address, PATIENCE);
    let report = hostile::run(Case::Churn, &target).await;
    assert!(report.passed(), "{report}");
    let report = hostile::run(poison(), &target).await;
    assert!(names(&report).contains(&"not-accepting"), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_answers_nothing_is_told_before_anything_is_done() {
    let address = serve(|mut stream| async move {
        let mut sink = tokio::io::sink();
        // Whatever comes is read, until the end.
        let _ = tokio::io::copy(&mut stream, &mut sink).await;
    })
    .await;
    let target = line_echo(address, IN_VAIN).probe_patience(IN_VAIN);
    let target = target.expect("within bounds");
    let report = hostile::run(Case::NeverSends, &target).await;
    assert_eq!(names(&report), ["unwell-before"], "{report}");
    assert_eq!(report.server.opened, 0, "{report}");
    assert!(report.to_string().contains("no answer within"), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_serves_one_after_the_other_is_caught() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            echo(&mut stream).await;
        }
    });
    // Long enough for the probe before, which is answered.
    let target = line_echo(address, IN_VAIN).probe_patience(Duration::from_secs(2));
    let target = target.expect("within bounds");
    let report = hostile::run(Case::NeverSends, &target).await;
    assert_eq!(names(&report), ["others-unserved"], "{report}");
    assert!(report.during.lost > 0, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_answers_wrongly_afterwards_is_caught() {
    let confused = Arc::new(AtomicBool::new(false));
    let address = serve(move |mut stream| {
        let confused = confused.clone();
        async move {
            if confused.load(Ordering::Relaxed) {
                let mut request = [0; 6];
                // Whoever has gone needs no answer.
                let _ = stream.read_exact(&mut request).await;
                let _ = stream.write_all(b"internal error\r\n").await;
            } else if echo(&mut stream).await {
                confused.store(true, Ordering::Relaxed);
            }
        }
    })
    .await;
    let report = hostile::run(poison(), &line_echo(address, PATIENCE)).await;
    assert!(names(&report).contains(&"unwell-after"), "{report}");
    let text = report.to_string();
    assert!(
        text.contains(r#"expected "hello\r\n", got "internal error\r\n""#),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_throws_out_who_was_there_before_is_caught() {
    let poisoned = Arc::new(Notify::new());
    let address = serve(move |mut stream| {
        let poisoned = poisoned.clone();
        async move {
            tokio::select! {
                () = poisoned.notified() => {}
                poison = echo(&mut stream) => if poison { poisoned.notify_waiters() }
            }
        }
    })
    .await;
    let report = hostile::run(poison(), &line_echo(address, PATIENCE)).await;
    assert!(names(&report).contains(&"neighbour-lost"), "{report}");
    let report = hostile::run(Case::Churn, &line_echo(address, PATIENCE)).await;
    assert!(report.passed(), "{report}");
}

/// A greeting is no answer, and excuses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_only_greets_fails_what_a_deadline_should_end() {
    let address = serve(|mut stream| async move {
        // Whoever has gone needs no greeting.
        let _ = stream.write_all(b"220 ready\r\n").await;
        std::future::pending().await
    })
    .await;
    let target = line_echo(address, IN_VAIN).strict(true);
    let target = target.conversation(Conversation::new().hear("220"));
    for name in ["garbage-zeros", "tls-hello"] {
        let report = hostile::run(Case::select(name)[0], &target).await;
        assert_eq!(names(&report), ["kept"], "{report}");
    }
}

/// Of a conversation of two steps, not even the first is ever finished.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_dribbles_finishes_no_step() {
    let hello = |conversation: Conversation| conversation.say("hello\n").hear("hello\r\n");
    let target = line_echo(keeper().await, IN_VAIN)
        .conversation(hello(hello(Conversation::new())))
        .dribble_interval(Duration::from_millis(1))
        .expect("within bounds");
    let report = hostile::run(Case::Dribble, &target).await;
    assert!(report.passed(), "{report}");
    assert!((1..6).contains(&report.server.sent), "{report}");
}

/// The shortest request is one byte, and all of it but the last byte is nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_one_byte_is_enough_for_every_case() {
    let conversation = Conversation::new().say("\n").hear("\r\n");
    let target = line_echo(keeper().await, IN_VAIN).conversation(conversation);
    let target = target.pipelined(100).and_then(|target| target.churn(3));
    let target = target.and_then(|target| target.connections(3));
    let target = target.expect("within bounds");
    let cases = Case::all().filter(|case| *case != Case::Fin && case.group().is_none());
    for report in beside_each_other(cases, &target).await {
        assert!(report.passed(), "{report}");
    }
}

/// One request, one answer, one connection: there is no neighbour, and nothing is wrong with that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_answers_once_has_no_neighbours() {
    let address = serve(|mut stream| async move {
        let mut request = [0; 6];
        // Whoever has gone needs no answer.
        let _ = stream.read_exact(&mut request).await;
        let _ = stream.write_all(b"hello\r\n").await;
        // What looks like a second answer is the rest of the first.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let _ = stream.write_all(b"hello\r\n").await;
    })
    .await;
    let report = hostile::run(Case::Churn, &line_echo(address, PATIENCE)).await;
    assert!(report.passed(), "{report}");
    assert_eq!(report.neighbour, None);
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hoards_is_caught_by_its_memory() {
    const HOARD: usize = 96 * 1024 * 1024;
    let hoard = Arc::new(Mutex::new(Vec::new()));
    let address = serve(move |mut stream| {
        let hoard = hoard.clone();
        async move {
            if echo(&mut stream).await {
                // Not zeros, which take no memory before they are written.
                hoard.lock().expect("no panic").push(vec![1_u8; HOARD]);
            }
        }
    })
    .await;
    let target = line_echo(address, PATIENCE)
        .pid(std::process::id())
        .max_memory_growth(HOARD as u64 / 3)
        .expect("within bounds");
    let report = hostile::run(poison(), &target).await;
    assert_eq!(names(&report), ["memory-grew"], "{report}");
    let memory = report.memory.expect("it is Linux");
    assert!(memory.peak > memory.before + HOARD as u64 / 3, "{memory:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ends_is_caught() {
    let child = Command::new("sleep").arg("600").spawn();
    let child = child.expect("a program that waits");
    let pid = child.id();
    let child: Arc<Mutex<Child>> = Arc::new(Mutex::new(child));
    let victim = child.clone();
    let address = serve(move |mut stream| {
        let victim = victim.clone();
        async move {
            if echo(&mut stream).await {
                let mut victim = victim.lock().expect("no panic");
                victim.kill().expect("our own child");
                victim.wait().expect("our own child");
            }
        }
    })
    .await;
    let target = line_echo(address, PATIENCE).pid(pid);
    let healthy = hostile::run(Case::Churn, &target).await;
    let report = hostile::run(poison(), &target).await;
    let mut child = child.lock().expect("no panic");
    // If the server has not done it, the test does.
    let _ = child.kill();
    child.wait().expect("our own child");
    assert!(healthy.passed(), "{healthy}");
    assert_eq!(names(&report), ["process-ended"], "{report}");
}

/// Every answer comes, and every answer comes late: nobody is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lets_others_wait_is_caught() {
    const PAUSE: Duration = Duration::from_millis(300);
    let address = serve(|mut stream| async move {
        let mut request = [0; 6];
        while stream.read_exact(&mut request).await.is_ok() {
            tokio::time::sleep(PAUSE).await;
            // Whoever has gone needs no answer.
            let _ = stream.write_all(b"hello\r\n").await;
        }
    })
    .await;
    let target = line_echo(address, IN_VAIN);
    let report = hostile::run(Case::NeverSends, &target).await;
    assert!(report.passed(), "{report}");
    assert!(report.longest_wait() >= Some(PAUSE), "{report}");
    let target = target.max_wait(PAUSE / 2).expect("within bounds");
    let report = hostile::run(Case::NeverSends, &target).await;
    assert_eq!(names(&report), ["others-waited"], "{report}");
    assert_eq!(report.during.lost, 0, "{report}");
}

/// A server that answers who waits for the answer, and not who asks ahead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_a_pipeline_and_answers_nothing_is_caught() {
    let address = serve(|mut stream| async move {
        // Whoever has gone needs no greeting, which is no answer.
        let _ = stream.write_all(b"220 ready\r\n").await;
        let mut buffer = vec![0; 4096];
        let mut ahead = false;
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            ahead |= count > 6;
            if !ahead {
                let _ = stream.write_all(b"hello\r\n").await;
            }
        }
    })
    .await;
    let conversation = Conversation::new().hear("220 ready\r\n");
    let target =
        line_echo(address, IN_VAIN).conversation(conversation.say("hello\n").hear("hello\r\n"));
    let report = hostile::run(Case::Pipelining, &target).await;
    assert!(report.passed(), "{report}");
    let notes = report.notes.join("\n");
    assert!(
        notes.contains("0 of 20000 requests were answered"),
        "{notes}"
    );
    assert!(notes.contains("120000 of 120000 bytes"), "{notes}");
    let target = target.strict(true);
    let report = hostile::run(Case::Pipelining, &target).await;
    assert_eq!(names(&report), ["unanswered"], "{report}");
    // Any answer will do, and there is none.
    let conversation = Conversation::new().hear("220 ready\r\n").say("hello\n");
    let report = hostile::run(Case::Pipelining, &target.conversation(conversation)).await;
    assert_eq!(names(&report), ["unanswered"], "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_accepts_too_slowly_is_caught() {
    let socket = TcpSocket::new_v4().expect("a socket");
    let local = "127.0.0.1:0".parse().expect("an address");
    socket.bind(local).expect("a port is free");
    // Nobody accepts, and the system does not hold more for whoever does.
    let listener = socket.listen(8).expect("it is bound");
    let address = listener.local_addr().expect("it is bound");
    let target = line_echo(address, IN_VAIN).conversation(Conversation::new());
    let target = target.probe_patience(IN_VAIN).expect("within bounds");
    let report = hostile::run(Case::ConnectFlood, &target).await;
    assert!(names(&report).contains(&"others-unserved"), "{report}");
    let server = &report.server;
    assert!(server.refused > 0, "{report}");
    assert_eq!(server.refused + server.opened, 120, "{report}");
    assert!(report.to_string().contains("did not get in"), "{report}");
}

/// Without a request it counts to be let in and not to be thrown out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_throws_everybody_out_is_caught_without_a_request() {
    let address = serve(|stream| async move { drop(stream) }).await;
    let target = Target::new(address).expect("loopback");
    // As long as "at once" is, and longer than the server takes.
    let target = target.patience(Duration::from_secs(1)).expect("in bounds");
    let report = hostile::run(Case::NeverSends, &target).await;
    assert_eq!(names(&report), ["unwell-before"], "{report}");
}
