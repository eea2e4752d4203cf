//! Foreign programs: found, started, waited for, and ended with their test.

use std::{
    env,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

/// How long a test waits for a program before it fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a server that was started is asked whether it accepts.
const BETWEEN_TRIES: Duration = Duration::from_millis(10);

/// Where `program` is, or `None`, and a line that says so, if it is not installed.
///
/// # Panics
/// If it is not installed where the environment variable `CI` is set.
pub fn find(program: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH").unwrap_or_default();
    let paths = env::split_paths(&folders).map(|folder| folder.join(program));
    // Debian keeps what only root needs out of everybody's path.
    let more = ["/usr/sbin", "/sbin"].map(|folder| PathBuf::from(folder).join(program));
    let found = paths.chain(more).find(|path| path.is_file());
    if found.is_none() {
        assert!(env::var_os("CI").is_none(), "{program} is not installed");
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}

/// A port of 127.0.0.1 that nobody listens on, for a server that cannot be told to choose one.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

/// A running program, killed when it is dropped.
pub struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    output: Arc<Output>,
}

/// What a program has written to its two outputs, in the order of its coming.
#[derive(Default)]
struct Output {
    written: Mutex<Written>,
    changed: Condvar,
}

#[derive(Default)]
struct Written {
    text: String,
    /// Outputs that have ended.
    ended: usize,
}

impl Program {
    /// Start it.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it was found");
        let output = Arc::new(Output::default());
        let collect = |mut from: Box<dyn Read + Send>| {
            let output = output.clone();
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = from.read(&mut buffer) {
                    let text = String::from_utf8_lossy(&buffer[..count]);
                    output.lock().text.push_str(&text);
                    output.changed.notify_all();
                }
                output.lock().ended += 1;
                output.changed.notify_all();
            });
        };
        collect(Box::new(child.stdout.take().expect("it is piped")));
        collect(Box::new(child.stderr.take().expect("it is piped")));
        Self {
            stdin: child.stdin.take(),
            child,
            output,
        }
    }

    /// Start a server, and wait until it accepts connections.
    pub fn serve(command: &mut Command, port: u16) -> Self {
        let mut program = Self::start(command);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            let ended = program.child.try_wait().expect("it is a child");
            let text = &program.output.lock().text;
            assert!(ended.is_none(), "the server has ended: {text}");
            assert!(Instant::now() < until, "the server does not accept: {text}");
            thread::park_timeout(BETWEEN_TRIES);
        }
        program
    }

    /// Type this into it.
    pub fn say(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("it has not been ended");
        // A program that is gone says why in its output, which tests look at.
        let _ = stdin.write_all(text.as_bytes());
        let _ = stdin.flush();
    }

    /// Wait until it has written this, and give back all that it has written.
    ///
    /// # Panics
    /// If it ends without.
    pub fn hear(&self, text: &str) -> String {
        let written = self.wait(|written| written.text.contains(text) || written.ended == 2);
        let found = written.text.clone();
        drop(written);
        assert!(found.contains(text), "it never says {text:?}: {found}");
        found
    }

    /// Type no more, wait until it has ended, and give back all that it has written.
    pub fn finish(mut self) -> String {
        self.stdin = None;
        self.wait(|written| written.ended == 2).text.clone()
    }

    fn wait(&self, until: impl Fn(&Written) -> bool) -> MutexGuard<'_, Written> {
        let written = self.output.lock();
        let waited = self
            .output
            .changed
            .wait_timeout_while(written, PATIENCE, |written| !until(written));
        let (written, waited) = waited.expect("nobody panics with it");
        if waited.timed_out() {
            let text = written.text.clone();
            drop(written);
            panic!("it takes too long: {text}");
        }
        written
    }
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, Written> {
        self.written.lock().expect("nobody panics with it")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
