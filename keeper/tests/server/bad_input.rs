//! Who sends what makes no sense, or nothing, loses the connection, and nobody else notices.

use std::net::SocketAddr;
use std::time::Duration;

use quorumkv_keeper::server::{Config, Limits};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::raw::{Client, connect_request, packet, read_to_end};
use crate::{config, start};

/// Short times, so that a test does not take long.
fn impatient(config: Config) -> Config {
    let soon = Duration::from_millis(300);
    Config { limits: Limits { connect_timeout: soon, progress_timeout: soon, ..Limits::default() }, ..config }
}

/// Sends bytes, and returns what comes back until the server closes.
async fn send(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(bytes).await.expect("written");
    read_to_end(&mut stream).await
}

const LIES: [i32; 5] = [-1, i32::MIN, 0x10_0000, i32::MAX, 0x7878_7878];

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_lie_close_the_connection() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(config(dir.path())).await;
    let mut bystander = Client::connect(server.address()).await;
    assert_eq!(bystander.create("/a", b"1").await, Ok("/a".to_owned()));
    for lie in LIES {
        assert_eq!(send(server.address(), &lie.to_be_bytes()).await, [0; 0], "{lie}");
        let mut client = Client::connect(server.address()).await;
        client.stream.write_all(&lie.to_be_bytes()).await.expect("written");
        assert_eq!(read_to_end(&mut client.stream).await, [0; 0], "{lie}");
    }
    assert_eq!(bystander.get("/a").await, Ok(b"1".to_vec()));
    server.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_packet_is_taken_and_none_longer() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(config(dir.path())).await;
    let mut client = Client::connect(server.address()).await;
    let overhead = packet(|encoder| {
        encoder
            .int(1)
            .int(1)
            .string("/a")
            .length(0)
            .length(1)
            .int(31)
            .string("world")
            .string("anyone")
            .int(0);
    });
    let fits = 0x000f_ffff - (overhead.len() - 4);
    let data = vec![b'x'; fits];
    assert_eq!(client.create("/a", &data).await, Ok("/a".to_owned()));
    assert_eq!(client.get("/a").await, Ok(data));
    client.stream.write_all(&0x10_0000_u32.to_be_bytes()).await.expect("written");
    assert_eq!(read_to_end(&mut client.stream).await, [0; 0]);
    server.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_silent_and_those_who_stop_in_the_middle_are_closed() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(impatient(config(dir.path()))).await;
    let mut bystander = Client::connect(server.address()).await;
    let request = connect_request(0, &[0; 16]);
    for part in [&[][..], &request[..2], &request[..4], &request[..20], b"ru"] {
        assert_eq!(send(server.address(), part).await, [0; 0], "{part:?}");
    }
    // In the middle of a later packet, small or large.
    for announced in [100_u32, 1_000_000] {
        let mut client = Client::connect(server.address()).await;
        client.stream.write_all(&announced.to_be_bytes()).await.expect("written");
        client.stream.write_all(&vec![0; announced as usize - 1]).await.expect("written");
        assert_eq!(read_to_end(&mut client.stream).await, [0; 0]);
    }
    // A session without a request is not silent: its pings are its own affair.
    assert_eq!(bystander.create("/b", b"2").await, Ok("/b".to_owned()));
    server.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_packet_that_asks_for_no_session_closes_the_connection() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(config(dir.path())).await;
    let get = packet(|encoder| {
        encoder.int(1).int(4).string("/").boolean(false);
    });
    for bytes in [
        packet(|_| ()),
        packet(|encoder| {
            encoder.int(0);
        }),
        get,
    ] {
        assert_eq!(send(server.address(), &bytes).await, [0; 0]);
    }
    server.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_after_a_pipeline_is_answered_in_full_first() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(config(dir.path())).await;
    let mut client = Client::connect(server.address()).await;
    let mut bytes = Vec::new();
    for xid in 1..=50 {
        bytes.extend(packet(|encoder| {
            encoder.int(xid).int(3).string("/").boolean(false);
        }));
    }
    // There is no such operation: it is answered, and the connection closed. What follows is not read any more.
    bytes.extend(packet(|encoder| {
        encoder.int(51).int(77);
    }));
    bytes.extend(vec![0; 200_000]);
    client.stream.write_all(&bytes).await.expect("written");
    for xid in 1..=50 {
        assert!(matches!(client.reply(xid).await, Some(Ok(_))));
    }
    assert_eq!(client.reply(51).await, Some(Err(-6)));
    assert_eq!(read_to_end(&mut client.stream).await, [0; 0]);
    server.stop().await.expect("stopped");
}
