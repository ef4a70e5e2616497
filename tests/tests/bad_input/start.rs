//! Starts that cannot succeed, and one that has to wait.

use std::fs;
use std::net::TcpListener;

use anyhow::{Context, Result, ensure};
use quorumkv_protocol::ErrorCode;
use quorumkv_protocol::client::Response;
use quorumkv_tests::cluster::{Cluster, PATIENCE, wait_until};
use quorumkv_tests::zookeeper::{ReservedPort, ZooKeeper};

use crate::process::{expect_failure, run_kvd};
use crate::raw::{Raw, put};

#[test]
fn settings_that_make_no_sense_are_refused_before_anything_is_made() -> Result<()> {
    let place = tempfile::tempdir()?;
    let data_dir = place.path().join("data");
    let cases: [(&[&str], &str); 13] = [
        (&["--host=0.0.0.0"], "--insecure"),
        (&["--host=0.0.0.0", "--insecure"], "--advertise"),
        (&["--host=somewhere"], "IP address"),
        (&["--port=0"], "--port"),
        (&["--advertise=nowhere"], "--advertise"),
        (&["--zookeeper=a:b"], "--zookeeper"),
        (&["--zookeeper="], "--zookeeper"),
        (&["--session-timeout=soon"], "--session-timeout"),
        (&["--heartbeat=0s"], "--heartbeat"),
        (&["--cluster-size=0"], "--cluster-size"),
        (&["--cluster-size=65"], "--cluster-size"),
        (&["--max-connections=0"], "--max-connections"),
        (&["--log=nonsense=nonsense"], "--log"),
    ];
    for (arguments, word) in cases {
        let mut arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        arguments.push(format!("--data-dir={}", data_dir.display()));
        expect_failure(&run_kvd(&arguments)?, 2, &[word]).with_context(|| format!("{arguments:?}"))?;
    }
    expect_failure(&run_kvd(&[])?, 2, &["--data-dir"])?;
    ensure!(!data_dir.exists(), "a directory was made for settings that make no sense");
    Ok(())
}

#[test]
fn flags_that_are_none_end_with_the_usage() -> Result<()> {
    for (argument, word) in [
        ("--prot=5000", "--port"),
        ("--port=99999", "99999"),
        ("--log-format=xml", "human"),
        ("stray", "stray"),
    ] {
        let output = run_kvd(&[argument.to_owned()])?;
        expect_failure(&output, 2, &[word]).with_context(|| argument.to_owned())?;
    }
    Ok(())
}

#[test]
fn a_file_of_settings_that_is_not_understood_is_named() -> Result<()> {
    let place = tempfile::tempdir()?;
    let file = place.path().join("kvd.toml");
    let refused = |words: &[&str]| {
        let arguments =
            [format!("--config={}", file.display()), format!("--data-dir={}", place.path().display())];
        expect_failure(&run_kvd(&arguments)?, 2, &[words, &["kvd.toml"]].concat())
    };
    refused(&["cannot read"])?;
    for (content, word) in [
        ("prot = 5000", "line 1: unknown field `prot`"),
        ("# comment\n\nport = \"many\"", "line 3: "),
        ("port =", "line 1: "),
    ] {
        fs::write(&file, content)?;
        refused(&[word]).with_context(|| content.to_owned())?;
    }
    Ok(())
}

#[test]
fn a_port_in_use_is_named() -> Result<()> {
    let place = tempfile::tempdir()?;
    let (free, taken) = (ReservedPort::reserve()?, ReservedPort::reserve()?);
    let _listener = TcpListener::bind(("127.0.0.1", taken.port()))?;
    for (port, admin_port) in [(&taken, &free), (&free, &taken)] {
        let output = run_kvd(&[
            format!("--data-dir={}", place.path().join("data").display()),
            format!("--port={}", port.port()),
            format!("--admin-port={}", admin_port.port()),
            "--zookeeper=127.0.0.1:1".to_owned(),
        ])?;
        expect_failure(&output, 1, &["cannot listen on", &taken.port().to_string()])?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_waits_for_zookeeper_and_says_so() -> Result<()> {
    let zookeeper = ZooKeeper::start(1)?;
    zookeeper.stop_all()?;
    let cluster = Cluster::builder().nodes(1).spawn(&zookeeper).await?;
    let unready = wait_until(PATIENCE, "the node says what it waits for", async || {
        let answer = cluster.http(0, "/health/ready").await?;
        let server = zookeeper.connect_string();
        ensure!(
            answer.status == 503 && answer.body.contains("ZooKeeper") && answer.body.contains(&server),
            "{answer:?}"
        );
        Ok(answer)
    });
    ensure!(unready.await?.body.lines().count() == 1);
    ensure!(cluster.http(0, "/health/live").await?.status == 200, "a node that waits is alive");
    let status = cluster.status(0).await?;
    ensure!(!status.ready && status.remarks.contains("ZooKeeper"), "{status:?}");
    let answer = Raw::client(cluster.endpoint(0))?.ask(1, put("early", "never"))?;
    let Response::Failed(failure) = &answer else { anyhow::bail!("answered {answer:?}") };
    ensure!(failure.code == ErrorCode::NotReady && failure.message.contains("ZooKeeper"), "{failure:?}");
    wait_until(PATIENCE, "the log says so too", async || {
        let log = cluster.log(0)?;
        ensure!(log.lines().any(|line| line.contains("ZooKeeper")), "{log}");
        Ok(())
    })
    .await?;

    zookeeper.start_all()?;
    cluster.wait_ready().await?;
    ensure!(cluster.http(0, "/health/ready").await?.status == 200);
    ensure!(cluster.client().get("early").await?.value.is_none(), "a write that was refused was applied");
    cluster.client().put("key", "value").await?;
    Ok(cluster.end().await?)
}
