//! What keeperd does as it is set: znodes that go by themselves, and somebody who may do everything.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use quorumkv_keeper::jute::Decoder;
use quorumkv_tests::keeperd::Keeperd;

use crate::raw::{Session, body, op, open_acl};

/// How long what is due may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn used_containers_and_old_znodes_go_by_themselves_also_after_a_kill() -> Result<()> {
    let mut keeperd = Keeperd::start(&["--container-check-interval", "100ms"])?;
    let mut session = Session::start(&keeperd.address())?;
    let container = |path: &str| body::create(path, None, &open_acl(), 4);
    let ttl = |path: &str, ms| body::create_ttl(path, None, &open_acl(), 5, ms);
    for path in ["/r", "/r/used", "/r/fresh"] {
        session.ok(op::CREATE_CONTAINER, &container(path))?;
    }
    session.ok(op::CREATE_TTL, &ttl("/r/parent", 1))?;
    session.create("/r/parent/below", b"", 0)?;
    session.ok(op::CREATE_TTL, &ttl("/r/lasting", 3_600_000))?;
    session.create("/r/used/below", b"", 0)?;
    keeperd.kill()?;
    keeperd.start_again()?;
    session.reattach(&keeperd.address())?;
    session.ok(op::CREATE_TTL, &ttl("/r/old", 1))?;
    session.ok(op::DELETE, &body::numbered("/r/used/below", -1))?;

    let started = Instant::now();
    loop {
        let listed = session.ok(op::GET_CHILDREN, &body::watched("/r", false))?;
        let mut names = Decoder::new(&listed).vector(Decoder::string)?;
        names.sort_unstable();
        // A container that never had children, a znode with children and one whose time has not come: they stay.
        if names == ["fresh", "lasting", "parent"] {
            break;
        }
        ensure!(started.elapsed() < PATIENCE, "{names:?} are left");
        thread::sleep(Duration::from_millis(10));
    }
    session.close()?;
    Ok(keeperd.check_runs()?)
}

#[test]
fn the_super_user_may_do_everything_and_nobody_else_may() -> Result<()> {
    let keeperd = Keeperd::start(&["--super-digest", "super:lK75jTNcA+U9vtVEw5vB51mj/w4="])?;
    let (mut owner, mut other) = (Session::start(&keeperd.address())?, Session::start(&keeperd.address())?);
    owner.ok(op::AUTH, &body::auth("digest", b"ann:one"))?;
    let mine = [(31, Some("auth".to_owned()), Some(String::new()))];
    owner.ok(op::CREATE, &body::create("/mine", Some(b"secret"), &mine, 0))?;
    let read = body::watched("/mine", false);
    ensure!(other.error(op::GET_DATA, &read)? == -102);
    other.ok(op::AUTH, &body::auth("digest", b"super:wrong"))?;
    ensure!(other.error(op::GET_DATA, &read)? == -102);
    other.ok(op::AUTH, &body::auth("digest", b"super:secret"))?;
    ensure!(other.ok(op::GET_DATA, &read)?[4..].starts_with(b"secret"));
    other.ok(op::SET_ACL, &body::set_acl("/mine", &open_acl(), 0))?;
    other.ok(op::DELETE, &body::numbered("/mine", 0))?;
    owner.close()?;
    other.close()
}
