//! Foreign programs: found or skipped, started, waited for, ended.

use std::{
    env,
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

/// How long a program may take before the test fails instead of hanging.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Where a program is. Without it a test is skipped, visibly; with `CI` set that is a failure,
/// because then nobody would notice.
///
/// # Panics
/// If `CI` is set and the program is missing.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Servers are installed where not everybody looks.
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let mut candidates = folders.map(|folder| folder.join(name));
    let found = candidates.find(|candidate| candidate.is_file());
    if found.is_none() {
        assert!(env::var_os("CI").is_none(), "{name} is missing");
        eprintln!("SKIPPED: {name} is missing");
    }
    found
}

/// A port of 127.0.0.1 that was free a moment ago, for programs that cannot choose one themselves.
///
/// # Panics
/// If there is none.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound")
}

/// A program that runs until it is dropped.
#[derive(Debug)]
pub struct Program {
    process: Child,
}

impl Program {
    /// Start a program.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        let process = command.spawn();
        Self {
            process: process.unwrap_or_else(|error| panic!("{command:?}: {error}")),
        }
    }

    /// Start a server, and wait until it accepts connections at `address`.
    ///
    /// # Panics
    /// If it ends, or does not accept for 30 seconds.
    pub fn serve(command: &mut Command, address: SocketAddr) -> Self {
        let mut program = Self::start(command);
        until(|| {
            let ended = program.process.try_wait().expect("it is ours");
            assert!(ended.is_none(), "{command:?} has ended: {ended:?}");
            TcpStream::connect(address).is_ok()
        });
        program
    }
}

/// Wait until `condition` holds.
///
/// # Panics
/// If it does not for 30 seconds.
#[expect(
    clippy::disallowed_methods,
    reason = "another process does not tell when; how late it is noticed does not matter"
)]
pub fn until(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(
            begun.elapsed() < PATIENCE,
            "it has not come to that in time"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
