//! Four-letter words.

use std::net::SocketAddr;

use quorumkv_keeper::server::Config;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::raw::{Client, read_to_end};
use crate::{config, start};

async fn ask(address: SocketAddr, word: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(word).await.expect("written");
    String::from_utf8(read_to_end(&mut stream).await).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn only_words_of_the_whitelist_are_answered() {
    let dir = tempfile::tempdir().expect("a directory");
    let four_letter_words = "ruok".parse().expect("words");
    let server = start(Config { four_letter_words, ..config(dir.path()) }).await;
    assert_eq!(ask(server.address(), b"ruok").await, "imok");
    let refused = "srvr is not executed because it is not in the whitelist.\n";
    assert_eq!(ask(server.address(), b"srvr").await, refused);
    assert_eq!(ask(server.address(), b"rmrf").await, "");
    server.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_may_come_in_pieces_and_with_more_behind_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(config(dir.path())).await;
    let mut stream = TcpStream::connect(server.address()).await.expect("connected");
    stream.set_nodelay(true).expect("set");
    for letter in b"ruok" {
        stream.write_all(&[*letter]).await.expect("written");
        tokio::task::yield_now().await;
    }
    assert_eq!(read_to_end(&mut stream).await, b"imok");
    assert_eq!(ask(server.address(), b"ruok\n").await, "imok");
    server.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn words_tell_what_is_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(config(dir.path())).await;
    let mut client = Client::connect(server.address()).await;
    assert_eq!(client.create_with("/e", b"", 1).await, Ok("/e".to_owned()));
    client
        .call(3, |encoder| {
            encoder.string("/e").boolean(true);
        })
        .await
        .expect("there");
    let (ask, session) = (async |word| ask(server.address(), word).await, client.session);

    let srvr = ask(b"srvr").await;
    let beginnings =
        ["Zookeeper version: 3.9", "Latency min/avg/max: ", "Received: 3", "Sent: 3", "Connections: 2"];
    let rest = ["Outstanding: 0", "Zxid: 0x2", "Mode: standalone", "Node count: "];
    for (line, beginning) in srvr.lines().zip(beginnings.iter().chain(&rest)) {
        assert!(line.starts_with(beginning), "{line:?} does not begin with {beginning:?}");
    }
    assert_eq!(srvr.lines().count(), 9);

    let address = client.stream.local_addr().expect("an address");
    let stat = ask(b"stat").await;
    // As in ZooKeeper, a connection that asks is one of them; `Connections` counts it as well.
    let clients = stat.split("Clients:\n").nth(1).and_then(|rest| rest.split("\n\nLatency").next());
    let clients: Vec<_> = clients.expect("a list of clients").lines().collect();
    assert_eq!(clients.len(), 2, "{stat}");
    assert_eq!(clients[0], format!(" /{address}[1](queued=0,recved=3,sent=3)"));
    let asks = clients[1].strip_prefix(" /127.0.0.1:").expect("an address");
    assert!(asks.ends_with("[0](queued=0,recved=1,sent=0)"), "{stat}");
    let cons = ask(b"cons").await;
    let expected = format!(" /{address}[1](queued=0,recved=3,sent=3,sid={session:#x},lop=EXIS,est=");
    assert!(cons.starts_with(&expected) && cons.contains("lcxid=0x2,lzxid=0x2,"), "{cons}");
    assert!(cons.ends_with("[0](queued=0,recved=1,sent=0)\n\n"), "{cons}");

    let mntr = ask(b"mntr").await;
    for line in [
        "zk_server_state\tstandalone",
        "zk_ephemerals_count\t1",
        "zk_watch_count\t1",
        "zk_global_sessions\t1",
        "zk_connection_request_count\t1",
        "zk_stale_sessions_expired\t0",
        "zk_unsuccessful_handshake\t0",
    ] {
        assert!(mntr.lines().any(|found| found == line), "{line} is not in {mntr}");
    }
    let dump = ask(b"dump").await;
    assert!(dump.contains(&format!("Sessions with Ephemerals (1):\n{session:#x}:\n\t/e\n")), "{dump}");
    assert_eq!(ask(b"wchs").await, "1 connections watching 1 paths\nTotal watches:1\n");
    assert_eq!(ask(b"wchc").await, format!("{session:#x}\n\t/e\n\n"));
    assert_eq!(ask(b"wchp").await, format!("/e\n\t{session:#x}\n\n"));
    assert_eq!(ask(b"isro").await, "rw");
    assert!(ask(b"envi").await.starts_with("Environment:\nzookeeper.version=3.9"));
    let envi = ask(b"envi").await;
    assert!(!envi.contains("user.name=\n") && !envi.contains("user.home=\n"), "{envi}");
    let conf = ask(b"conf").await;
    assert!(conf.contains("\ntickTime=60000\nmaxClientCnxns=60\nminSessionTimeout=120000\n"), "{conf}");
    let log = dir.path().join("data").join("log").display().to_string();
    assert!(conf.contains(&format!("\ndataLogDir={log}\ndataLogSize=")), "{conf}");
    let sizes = ask(b"dirs").await;
    let size = |name: &str| {
        let line = sizes.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|number| number.parse::<u64>().ok()).expect("a size")
    };
    assert!(size("logdir_size: ") > 0 && size("datadir_size: ") == 0, "{sizes}");
    assert_eq!(ask(b"crst").await, "Connection stats reset.\n");
    assert_eq!(ask(b"srst").await, "Server stats reset.\n");
    assert!(ask(b"srvr").await.contains("Received: 0\nSent: 0\n"));
    server.stop().await.expect("stopped");
}
