//! What was acknowledged is there after a restart; what cannot be written is not acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quorumkv_keeper::server::Config;
use quorumkv_keeper::storage;
use quorumkv_keeper::wire::{ErrorCode, op};
use quorumkv_wal::{FaultHook, Operation};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::raw::{Client, PATIENCE, connect_request_for, create_request, packet};
use crate::{config, start};
use tokio::io::AsyncWriteExt;

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_znodes_sessions_and_ephemerals() {
    let dir = tempfile::tempdir().expect("a directory");
    let options =
        storage::Options { snapshot_txns: 100, segment_bytes: 64 << 10, ..storage::Options::default() };
    let config = || Config { storage: options.clone(), ..config(dir.path()) };
    let server = start(config()).await;
    let mut client = Client::connect(server.address()).await;
    for i in 0..500 {
        client.create(&format!("/node-{i}"), format!("{i}").as_bytes()).await.expect("created");
    }
    assert_eq!(client.create_with("/ephemeral", b"", 1).await, Ok("/ephemeral".to_owned()));
    let (session, password) = (client.session, client.password.clone());
    server.stop().await.expect("stopped");

    let server = start(config()).await;
    let mut client = Client::resume(server.address(), session, &password).await;
    assert_eq!(client.session, session);
    for i in 0..500 {
        assert_eq!(client.get(&format!("/node-{i}")).await, Ok(format!("{i}").into_bytes()));
    }
    assert_eq!(client.get("/ephemeral").await, Ok(Vec::new()));
    assert_eq!(client.create("/after", b"").await, Ok("/after".to_owned()));
    server.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_when_the_server_stops_is_finished() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(config(dir.path())).await;
    let mut client = Client::connect(server.address()).await;
    let mut acknowledged = 0;
    let requests: Vec<u8> =
        (1..=2000).flat_map(|xid| create_request(xid, &format!("/node-{xid}"), b"", 0)).collect();
    client.stream.write_all(&requests).await.expect("written");
    assert!(matches!(client.reply(1).await, Some(Ok(_))));
    let stopping = tokio::spawn(server.stop());
    for xid in 2..=2000 {
        match client.reply(xid).await {
            Some(reply) => assert!(reply.is_ok(), "{reply:?}"),
            None => break,
        }
        acknowledged = xid;
    }
    stopping.await.expect("ended").expect("stopped");
    let server = start(config(dir.path())).await;
    let mut client = Client::connect(server.address()).await;
    for xid in 1..=acknowledged {
        assert_eq!(client.get(&format!("/node-{xid}")).await, Ok(Vec::new()), "znode {xid} is lost");
    }
    server.stop().await.expect("stopped");
}

/// More than the log's queue takes comes while the disk stands still, for longer than sessions last.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_stands_still_for_a_while_costs_nobody_anything_but_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let stands = Arc::new(AtomicBool::new(false));
    let still = Arc::clone(&stands);
    let hook: FaultHook = Arc::new(move |operation, _| {
        while operation == Operation::Sync && still.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    });
    let faults = storage::Faults { hook: Some(hook), ..storage::Faults::default() };
    let options = storage::Options { faults, ..storage::Options::default() };
    let (tick, longest) = (Duration::from_millis(100), Some(Duration::from_secs(600)));
    let config = Config { storage: options, tick, max_session_timeout: longest, ..config(dir.path()) };
    let server = start(config).await;
    let stream = TcpStream::connect(server.address()).await.expect("connected");
    let mut idle = Client::greet(stream, &connect_request_for(2000, 0, &[0; 16])).await;
    assert_eq!(idle.timeout_ms, 2000);
    assert_eq!(idle.create_with("/ephemeral", b"", 1).await, Ok("/ephemeral".to_owned()));
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Client::connect(server.address()).await);
    }
    stands.store(true, Ordering::Relaxed);
    let mut writers = Vec::new();
    for (writer, Client { stream, session, .. }) in clients.into_iter().enumerate() {
        let requests: Vec<u8> = (1..=5)
            .flat_map(|xid| create_request(xid, &format!("/{writer}-{xid}"), &[b'x'; 900_000], 0))
            .collect();
        let (read, mut write) = stream.into_split();
        let writing = tokio::spawn(async move {
            write.write_all(&requests).await.expect("written");
            write
        });
        writers.push((Client::of(tokio::io::join(read, tokio::io::sink()), session), writing));
    }
    let ping = packet(|encoder| {
        encoder.int(-2).int(op::PING);
    });
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        idle.stream.write_all(&ping).await.expect("written");
    }
    stands.store(false, Ordering::Relaxed);
    for _ in 0..20 {
        assert!(matches!(idle.reply(-2).await, Some(Ok(_))), "the session has expired");
    }
    for (mut replies, writing) in writers {
        for xid in 1..=5 {
            assert!(matches!(replies.reply(xid).await, Some(Ok(_))), "request {xid}");
        }
        drop(writing.await.expect("ended"));
    }
    assert_eq!(idle.get("/ephemeral").await, Ok(Vec::new()));
    server.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_synced_acknowledges_nothing_and_ends_the_server() {
    let dir = tempfile::tempdir().expect("a directory");
    let broken = Arc::new(AtomicBool::new(false));
    let is_broken = Arc::clone(&broken);
    let hook: FaultHook = Arc::new(move |operation, _| {
        let fails = operation == Operation::Sync && is_broken.load(Ordering::Relaxed);
        if fails { Err(std::io::Error::other("the disk is gone")) } else { Ok(()) }
    });
    let options = storage::Options {
        faults: storage::Faults { hook: Some(hook), ..storage::Faults::default() },
        ..storage::Options::default()
    };
    let server = start(Config { storage: options, ..config(dir.path()) }).await;
    let mut client = Client::connect(server.address()).await;
    assert_eq!(client.create("/before", b"").await, Ok("/before".to_owned()));
    broken.store(true, Ordering::Relaxed);
    client.stream.write_all(&create_request(2, "/after", b"", 0)).await.expect("written");
    let reason = timeout(PATIENCE, server.failed()).await.expect("it says so");
    assert!(reason.contains("the log cannot be written") && reason.contains("the disk is gone"), "{reason}");
    assert_eq!(client.reply(2).await, None, "what is not on disk was acknowledged");
    assert!(server.stop().await.expect_err("failed").contains("the disk is gone"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_nearly_full_refuses_what_makes_the_data_larger_until_there_is_room() {
    const NO_ROOM: i32 = ErrorCode::SystemError.number();
    let dir = tempfile::tempdir().expect("a directory");
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let options = storage::Options {
        faults: storage::Faults { free_bytes: Some(Arc::clone(&free)), ..storage::Faults::default() },
        ..storage::Options::default()
    };
    let server = start(Config { storage: options, ..config(dir.path()) }).await;
    let mut client = Client::connect(server.address()).await;
    assert_eq!(client.create("/before", b"1").await, Ok("/before".to_owned()));
    free.store((128 << 20) - 1, Ordering::Relaxed);
    let refused = async {
        for number in 0.. {
            match client.create(&format!("/node-{number}"), b"").await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(code) => return code,
            }
        }
        unreachable!("the numbers do not end")
    };
    assert_eq!(timeout(PATIENCE, refused).await, Ok(NO_ROOM));
    assert_eq!(client.set("/before", b"22").await, Err(NO_ROOM));
    assert_eq!(client.get("/before").await, Ok(b"1".to_vec()));
    let mut other = Client::connect(server.address()).await;
    let delete = other.call(op::DELETE, |encoder| {
        encoder.string("/before").int(-1);
    });
    assert!(delete.await.is_ok(), "what makes room is refused");
    assert!(other.call(op::CLOSE_SESSION, |_| {}).await.is_ok());
    free.store(128 << 20, Ordering::Relaxed);
    let taken = async {
        while client.create("/after", b"").await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, taken).await.expect("there is room again");
    server.stop().await.expect("stopped");
}
