//! Who takes too much: connections, or nothing of what he is sent.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use quorumkv_keeper::server::{Config, Limits, Server};
use quorumkv_keeper::wire::op;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::raw::{Client, PATIENCE, connect_request, create_request, get_request, read_to_end};
use crate::{config, start};

/// Whether a connection from this address of the machine gets a session.
async fn is_taken(server: &Server, from: Ipv4Addr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(IpAddr::V4(from), 0)).expect("bound");
    let mut stream = socket.connect(server.address()).await.expect("connected");
    // Whoever is refused may find the connection closed while he writes.
    let _ = stream.write_all(&connect_request(0, &[0; 16])).await;
    let mut length = [0; 4];
    let read = timeout(PATIENCE, stream.read_exact(&mut length)).await.expect("an answer or a close");
    read.is_ok().then_some(stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_by_address_and_altogether() {
    let dir = tempfile::tempdir().expect("a directory");
    let limits = Limits { connections: 5, ..Limits::default() };
    let server = start(Config { max_client_connections: 2, limits, ..config(dir.path()) }).await;
    let (one, other, third) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3));
    let first = is_taken(&server, one).await;
    let _second = is_taken(&server, one).await;
    assert!(first.is_some() && is_taken(&server, one).await.is_none(), "a third from one address");
    let _others =
        (is_taken(&server, other).await.expect("taken"), is_taken(&server, other).await.expect("taken"));
    let last = is_taken(&server, third).await;
    assert!(last.is_some() && is_taken(&server, third).await.is_none(), "more than five altogether");
    // A place that was given back can be had again, as soon as the server has noticed.
    drop(first);
    let again = async {
        while is_taken(&server, one).await.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("the place is free again");
    server.stop().await.expect("stopped");
}

/// A client with little room for what comes, so that it is the server that has to keep it.
async fn narrow(address: SocketAddr) -> Client<TcpStream> {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("set");
    Client::over(socket.connect(address).await.expect("connected"), 0, &[0; 16]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_and_does_not_read_is_closed_and_nobody_else_notices() {
    let dir = tempfile::tempdir().expect("a directory");
    let limits = Limits { outbox_bytes: 256 << 10, ..Limits::default() };
    let server = start(Config { limits, ..config(dir.path()) }).await;
    let mut writer = Client::connect(server.address()).await;
    // Events are as long as the path: there is no need for many.
    let path = format!("/{}", "x".repeat(200_000));
    assert_eq!(writer.create(&path, b"").await, Ok(path.clone()));
    let mut deaf = narrow(server.address()).await;
    deaf.call(op::ADD_WATCH, |encoder| {
        encoder.string("/").int(1);
    })
    .await
    .expect("watched");
    let session = deaf.session;
    // Sockets hold some megabytes each.
    for _ in 0..120 {
        writer.set(&path, b"").await.expect("set");
    }
    let received = read_to_end(&mut deaf.stream).await.len();
    assert!(received < 120 * 200_000, "the connection was not closed before its end");
    // The session lives, and can be taken up again.
    let again = Client::resume(server.address(), session, &deaf.password).await;
    assert_eq!(again.session, session);
    assert_eq!(writer.get(&path).await, Ok(Vec::new()));
    server.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_much_and_does_not_read_is_read_no_further_and_closed_in_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let limits = Limits { progress_timeout: Duration::from_millis(500), ..Limits::default() };
    let server = start(Config { limits, ..config(dir.path()) }).await;
    let mut bystander = Client::connect(server.address()).await;
    assert_eq!(bystander.create("/big", &vec![b'x'; 1_000_000]).await, Ok("/big".to_owned()));
    let mut greedy = narrow(server.address()).await;
    // A hundred gigabytes, if anybody kept them.
    let requests: Vec<u8> = (1..=1000).flat_map(|xid| get_request(xid, "/big")).collect();
    let ask = async { while greedy.stream.write_all(&requests).await.is_ok() {} };
    timeout(PATIENCE, ask).await.expect("the server closes");
    assert_eq!(bystander.create("/small", b"1").await, Ok("/small".to_owned()));
    server.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_much_and_reads_gets_it_all_in_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(config(dir.path())).await;
    let mut client = Client::connect(server.address()).await;
    let data = vec![b'x'; 100_000];
    assert_eq!(client.create("/big", &data).await, Ok("/big".to_owned()));
    let first = 100;
    let mut requests = Vec::new();
    for xid in (first..first + 3000).step_by(3) {
        requests.extend(create_request(xid, &format!("/node-{xid}"), b"", 0));
        requests.extend(get_request(xid + 1, "/big"));
        requests.extend(get_request(xid + 2, &format!("/node-{xid}")));
    }
    let Client { stream, session, password, timeout_ms, .. } = client;
    assert!(timeout_ms > 0 && !password.is_empty());
    let (read, mut write) = stream.into_split();
    let writing = tokio::spawn(async move { write.write_all(&requests).await.map(|()| write) });
    let joined = tokio::io::join(read, tokio::io::sink());
    let mut replies = Client::of(joined, session);
    for xid in first..first + 3000 {
        let reply = replies.reply(xid).await.expect("a reply").expect("no error");
        assert_eq!(reply.len() > 100_000, (xid - first) % 3 == 1, "reply {xid}");
    }
    drop(writing.await.expect("ended").expect("written"));
    server.stop().await.expect("stopped");
}
