//! The server, asked over real sockets by clients that write bytes.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod bad_input;
mod durability;
mod limits;
mod raw;
mod tls;
mod words;

use std::path::Path;
use std::time::Duration;

use quorumkv_keeper::server::{Config, Server, StartError, Whitelist};

/// A server of a test: any free port, all words, ticks as long as a test must not notice them.
fn config(dir: &Path) -> Config {
    Config {
        port: 0,
        tick: Duration::from_secs(60),
        four_letter_words: Whitelist::all(),
        ..Config::new(dir.join("data"))
    }
}

async fn start(config: Config) -> Server {
    Server::start(config).await.expect("started")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = start(config(dir.path())).await;
    let second = Config { port: first.address().port(), ..Config::new(dir.path().join("other")) };
    let error = Server::start(second).await.expect_err("refused");
    assert!(matches!(error, StartError::Listen { .. }));
    assert!(error.to_string().contains(&first.address().to_string()), "{error}");
    first.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_use_is_named_and_its_user_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = start(config(dir.path())).await;
    let error = Server::start(config(dir.path())).await.expect_err("refused");
    assert!(error.to_string().contains("in use by another keeper"), "{error}");
    let mut client = raw::Client::connect(first.address()).await;
    assert_eq!(client.create("/a", b"1").await, Ok("/a".to_owned()));
    first.stop().await.expect("stopped");
}
