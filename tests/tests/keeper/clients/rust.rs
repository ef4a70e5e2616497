//! The crate `zookeeper-client`, which quorumkv itself uses.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zookeeper_client::{
    Acls, AddWatchMode, Client, CreateMode, Error, EventType, LockPrefix, MultiReadResult, MultiWriteError,
    SessionState,
};

use crate::servers::Server;

#[tokio::test(flavor = "multi_thread")]
async fn the_crate_zookeeper_client_works_with_apache_zookeeper() -> Result<()> {
    conforms(&Server::apache()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_crate_zookeeper_client_works_with_keeper() -> Result<()> {
    conforms(&Server::keeper()?).await
}

async fn conforms(server: &Server) -> Result<()> {
    let connect = || async { Client::connect(&server.address).await };
    let (client, other) = (connect().await?, connect().await?);
    data_and_stats(&client).await.context("data and stats")?;
    multi(&client).await.context("multi")?;
    watches(&client, &other).await.context("watches")?;
    permissions(&client, &other).await.context("permissions")?;
    locks(&client, &other).await.context("locks")?;
    sessions(server, &other).await.context("sessions")
}

async fn data_and_stats(client: &Client) -> Result<()> {
    let open = Acls::anyone_all();
    let (stat, _) = client.create("/rs", b"one", &CreateMode::Persistent.with_acls(open)).await?;
    ensure!(stat.version == 0 && stat.data_length == 3 && stat.czxid == stat.mzxid, "{stat:?}");
    let again = client.create("/rs", b"", &CreateMode::Persistent.with_acls(open)).await;
    ensure!(again == Err(Error::NodeExists), "{again:?}");
    let set = client.set_data("/rs", b"two", Some(0)).await?;
    ensure!(client.get_data("/rs").await? == (b"two".to_vec(), set));
    ensure!(client.set_data("/rs", b"", Some(0)).await == Err(Error::BadVersion));
    let sequential = CreateMode::EphemeralSequential.with_acls(open);
    let (stat, sequence) = client.create("/rs/n-", b"", &sequential).await?;
    ensure!(sequence.into_i64() == 0 && stat.ephemeral_owner == client.session_id().0);
    client.create("/rs/box", b"", &CreateMode::Container.with_acls(open)).await?;
    let ttl = CreateMode::Persistent.with_acls(open).with_ttl(Duration::from_secs(3600));
    client.create("/rs/ttl", b"", &ttl).await?;
    let (mut names, stat) = client.get_children("/rs").await?;
    names.sort();
    ensure!(
        names == ["box", "n-0000000000", "ttl"] && stat.num_children == 3 && stat.cversion == 3,
        "{names:?}"
    );
    ensure!(client.list_ephemerals("/rs").await? == ["/rs/n-0000000000"]);
    ensure!(client.count_descendants_number("/rs").await? == 3);
    ensure!(client.delete("/rs", None).await == Err(Error::NotEmpty));
    client.sync("/rs").await?;
    Ok(())
}

async fn multi(client: &Client) -> Result<()> {
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let mut writer = client.new_multi_writer();
    writer.add_create("/rs/multi", b"1", &options)?;
    writer.add_set_data("/rs/multi", b"2", Some(0))?;
    writer.add_check_version("/rs/multi", 1)?;
    ensure!(writer.commit().await?.len() == 3);
    let mut writer = client.new_multi_writer();
    writer.add_delete("/rs/multi", None)?;
    writer.add_create("/rs/multi/below", b"", &options)?;
    let failed = writer.commit().await;
    let expected = MultiWriteError::OperationFailed { index: 1, source: Error::NoNode };
    ensure!(failed == Err(expected), "{failed:?}");
    let mut reader = client.new_multi_reader();
    reader.add_get_data("/rs/multi")?;
    reader.add_get_children("/rs/none")?;
    let read = reader.commit().await?;
    ensure!(matches!(&read[0], MultiReadResult::Data { data, .. } if data == b"2"), "{read:?}");
    ensure!(matches!(&read[1], MultiReadResult::Error { err: Error::NoNode }), "{read:?}");
    Ok(())
}

async fn watches(client: &Client, other: &Client) -> Result<()> {
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let (_, created) = client.check_and_watch_stat("/rs/once").await?;
    other.create("/rs/once", b"", &options).await?;
    ensure!(created.changed().await.event_type == EventType::NodeCreated);
    let expected = [
        (AddWatchMode::Persistent, "/rs/here", EventType::NodeChildrenChanged, "/rs/here"),
        (AddWatchMode::PersistentRecursive, "/rs/below", EventType::NodeCreated, "/rs/below/a"),
    ];
    for (mode, path, of_child, told_of) in expected {
        let mut watcher = client.watch(path, mode).await?;
        other.create(path, b"", &options).await?;
        other.create(&format!("{path}/a"), b"", &options).await?;
        other.set_data(path, b"1", None).await?;
        for (kind, path) in
            [(EventType::NodeCreated, path), (of_child, told_of), (EventType::NodeDataChanged, path)]
        {
            let event = watcher.changed().await;
            ensure!(
                (event.event_type, event.path.as_str()) == (kind, path),
                "{event:?} instead of {kind:?} {path}"
            );
        }
    }
    Ok(())
}

async fn permissions(client: &Client, other: &Client) -> Result<()> {
    client.auth("digest", b"ann:one").await?;
    let users = client.list_auth_users().await?;
    ensure!(users.iter().any(|user| user.scheme() == "digest" && user.user() == "ann"), "{users:?}");
    client.create("/rs/mine", b"", &CreateMode::Persistent.with_acls(Acls::creator_all())).await?;
    ensure!(other.get_data("/rs/mine").await == Err(Error::NoAuth));
    let (acl, _) = client.get_acl("/rs/mine").await?;
    ensure!(acl.len() == 1 && acl[0].id() == "ann:grDcJ7OS1jCu/cG2TyJHw/I9L8o=", "{acl:?}");
    let stat = client.set_acl("/rs/mine", &Acls::anyone_read(), Some(0)).await?;
    ensure!(stat.aversion == 1);
    other.get_data("/rs/mine").await?;
    ensure!(other.set_data("/rs/mine", b"", None).await == Err(Error::NoAuth));
    Ok(())
}

async fn locks(client: &Client, other: &Client) -> Result<()> {
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    client.create("/rs/locks", b"", &options).await?;
    let prefix = || LockPrefix::new_curator("/rs/locks", "latch-");
    let mine = client.lock(prefix()?, b"", Acls::anyone_all()).await?;
    let path = mine.lock_path().to_owned();
    let theirs = other.lock(prefix()?, b"", Acls::anyone_all());
    tokio::pin!(theirs);
    tokio::select! {
        biased;
        taken = &mut theirs => anyhow::bail!("two hold the lock: {taken:?}"),
        listed = async {
            while client.list_children("/rs/locks").await?.len() < 2 {}
            Ok::<(), Error>(())
        } => listed?,
    }
    drop(mine);
    let theirs = theirs.await?;
    ensure!(theirs.lock_path() != path);
    Ok(())
}

/// A session goes on over another connection, until it expires because nobody is heard of it.
async fn sessions(server: &Server, other: &Client) -> Result<()> {
    let short = Duration::from_secs(1);
    let ephemeral = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
    let detached = Client::connector().with_session_timeout(short).with_detached();
    let client = detached.connect(&server.address).await?;
    client.create("/rs/left", b"", &ephemeral).await?;
    let session = client.into_session();
    let back =
        Client::connector().with_session(session.clone()).with_detached().connect(&server.address).await?;
    ensure!(back.session_id() == session.id());
    let (stat, gone) = other.check_and_watch_stat("/rs/left").await?;
    ensure!(stat.context("it is still there")?.ephemeral_owner == session.id().0);
    drop(back);
    ensure!(gone.changed().await.event_type == EventType::NodeDeleted);
    let refused =
        Client::connector().with_session(session).with_fail_eagerly().connect(&server.address).await;
    ensure!(matches!(refused, Err(Error::SessionExpired)), "{:?}", refused.map(|client| client.state()));
    ensure!(other.state() == SessionState::SyncConnected);
    Ok(())
}
