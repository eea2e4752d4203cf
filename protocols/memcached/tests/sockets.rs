//! What a server opens. In a program of its own, because its sockets are those of the process.

use std::{collections::HashSet, fs, time::SystemTime};

use protosocket_memcached::server::Connector;
use protosocket_server::ProtosocketServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

#[path = "../examples/server/memory.rs"]
mod memory;

/// The inodes of this process's sockets that a table of the kernel has.
fn sockets_in(tables: [&str; 2]) -> usize {
    let mut own = HashSet::new();
    for entry in fs::read_dir("/proc/self/fd").expect("this is Linux") {
        let Ok(target) = fs::read_link(entry.expect("it can be listed").path()) else {
            continue;
        };
        let target = target.to_string_lossy().into_owned();
        let inode = target.strip_prefix("socket:[");
        own.extend(inode.map(|inode| inode.trim_end_matches(']').to_owned()));
    }
    let mut count = 0;
    for table in tables {
        let text = fs::read_to_string(table).unwrap_or_default();
        let inodes = text
            .lines()
            .filter_map(|line| line.split_whitespace().nth(9));
        count += inodes.filter(|inode| own.contains(*inode)).count();
    }
    count
}

const UDP: [&str; 2] = ["/proc/self/net/udp", "/proc/self/net/udp6"];
const TCP: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

#[cfg(target_os = "linux")]
#[tokio::test]
async fn c5_a_server_opens_no_udp_socket() {
    let cache = memory::Memory::new(1 << 20, SystemTime::now);
    let config = ProtosocketServerConfig::default();
    let connector = Connector::new(move |_| cache.clone());
    let server = config
        .bind_tcp(([127, 0, 0, 1], 0).into(), connector)
        .unwrap();
    let address = server.listener().unwrap().local_address().unwrap();
    let server = tokio::spawn(server);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"verbosity 1\r\n").await.unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"OK\r\n");
    assert!(
        sockets_in(TCP) >= 3,
        "listener, and both ends of a connection"
    );
    assert_eq!(sockets_in(UDP), 0);
    // What would be seen if there were one.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    assert_eq!(sockets_in(UDP), 1);
    drop((socket, stream));
    server.abort();
}
