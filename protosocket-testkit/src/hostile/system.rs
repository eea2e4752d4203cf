//! What only the system knows, and only Linux tells without privileges.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

/// Whether connections can be made to vanish here.
pub(super) const CAN_VANISH: bool = cfg!(target_os = "linux");

/// The resident memory of a process in bytes, or `None` if it has none: it has ended, or this is
/// no Linux.
pub(super) fn resident_memory(pid: u32) -> Option<u64> {
    crate::resident_memory(pid).ok().map(|bytes| bytes as u64)
}

/// How many more files this process may open, if it can be known.
pub(super) fn files_left() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let soft = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?
        .split_whitespace()
        .next()?
        .parse::<usize>()
        .ok()?;
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    Some(soft.saturating_sub(open))
}

/// Whether it is this process or this machine that has run out of something, and not the server
/// that refuses.
pub(super) fn is_our_own(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
        || error.kind() == io::ErrorKind::AddrNotAvailable
}

/// Where hostile peers come from, if this machine has another address for them than the one that the
/// others come from: a server that bounds what one address may do has then bounded the right one.
pub(super) fn hostile_address(server: SocketAddr) -> Option<SocketAddr> {
    const HOSTILE: Ipv4Addr = Ipv4Addr::new(127, 6, 6, 6);
    match server.ip() {
        // Only Linux has all of 127.0.0.0/8 without being told.
        IpAddr::V4(ip) if cfg!(target_os = "linux") && ip.is_loopback() => {
            Some((HOSTILE, 0).into())
        }
        _ => None,
    }
}

/// Ask for segments so short that the window opens by less than a hundred bytes at a time.
pub(super) fn shrink_segments(socket: &TcpSocket) {
    #[cfg(target_os = "linux")]
    {
        /// The smallest that Linux takes.
        const SMALLEST: u32 = 88;
        // Where it is refused, the window is what the receive buffer makes it.
        let _ = SockRef::from(socket).set_tcp_mss(SMALLEST);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}

/// Drop every segment that comes for this connection, before the kernel acknowledges it. As this
/// end says nothing by itself, the other end sees what it would see if this machine had lost its
/// power.
pub(super) fn vanish(stream: &TcpStream) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        /// "Return, having accepted no byte", as the kernel's packet filter reads it.
        const DROP: socket2::SockFilter = socket2::SockFilter::new(0x06, 0, 0, 0);
        SockRef::from(stream).attach_filter(&[DROP])
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (stream, SockRef::from(stream));
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Undo [`vanish`].
pub(super) fn reappear(stream: &TcpStream) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    return SockRef::from(stream).detach_filter();
    #[cfg(not(target_os = "linux"))]
    {
        let _ = stream;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Whether the process at `server` still holds its end of the connection from `peer`. `None` if
/// it cannot be seen from here: it is on another machine, in another container, or this is no
/// Linux.
///
/// This is how the end of a connection is noticed by a peer that does not read: the FIN of the
/// server stands behind the answers.
pub(super) fn is_held(server: SocketAddr, peer: SocketAddr) -> Option<bool> {
    let mapped = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        SocketAddr::V6(_) => address,
    };
    let mut seen = None;
    for (table, server, peer) in [
        ("/proc/self/net/tcp", server, peer),
        ("/proc/self/net/tcp6", mapped(server), mapped(peer)),
    ] {
        let Ok(text) = fs::read_to_string(table) else {
            continue;
        };
        seen = Some(seen.unwrap_or(false));
        // On a busy machine there are tens of thousands of rows: one is found, and parsed.
        let row = format!(" {} {} ", as_in_table(server), as_in_table(peer));
        if let Some((_, behind)) = text.split_once(&row) {
            // What no process holds any more, or does not hold yet, has no inode.
            let inode = behind.split_whitespace().nth(6);
            seen = Some(inode.is_some_and(|inode| inode != "0"));
        }
    }
    seen
}

/// As the kernel prints an address: words in its own byte order, in hexadecimal.
fn as_in_table(address: SocketAddr) -> String {
    let bytes = match address {
        SocketAddr::V4(v4) => v4.ip().octets().to_vec(),
        SocketAddr::V6(v6) => v6.ip().octets().to_vec(),
    };
    let words = bytes.chunks_exact(4).map(|word| {
        let word: [u8; 4] = word.try_into().expect("chunks of four");
        format!("{:08X}", u32::from_ne_bytes(word))
    });
    let ip: String = words.collect();
    format!("{ip}:{:04X}", address.port())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_files_and_no_process_has_none() {
        assert!(resident_memory(std::process::id()).is_some_and(|bytes| bytes > 100_000));
        assert_eq!(resident_memory(u32::MAX), None);
        assert!(files_left().is_some_and(|files| files > 0));
    }

    #[tokio::test]
    async fn a_connection_is_held_until_the_server_drops_it() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            let Ok(listener) = tokio::net::TcpListener::bind(address).await else {
                continue; // without IPv6
            };
            let server = listener.local_addr().expect("it is bound");
            let peer = TcpStream::connect(server).await.expect("it listens");
            let (accepted, _) = listener.accept().await.expect("a connection");
            let local = peer.local_addr().expect("it is connected");
            assert_eq!(is_held(server, local), Some(true), "{address}");
            drop(accepted);
            assert_eq!(is_held(server, local), Some(false), "{address}");
        }
    }

    #[tokio::test]
    async fn who_has_vanished_hears_nothing_and_who_reappears_is_told_again() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port is free");
        let server = listener.local_addr().expect("it is bound");
        let peer = TcpStream::connect(server).await.expect("it listens");
        let (accepted, _) = listener.accept().await.expect("a connection");
        let unread = || {
            let mut buffer = [std::mem::MaybeUninit::uninit(); 2];
            SockRef::from(&peer).peek(&mut buffer).ok()
        };
        // Over loopback, what is sent has arrived when the call returns.
        accepted.try_write(b"a").expect("there is room");
        assert_eq!(unread(), Some(1));
        vanish(&peer).expect("this needs no privilege");
        accepted.try_write(b"b").expect("there is room");
        assert_eq!(unread(), Some(1));
        reappear(&peer).expect("it had vanished");
        // The server's system sends again what nobody has acknowledged.
        while unread() == Some(1) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(unread(), Some(2));
    }
}
