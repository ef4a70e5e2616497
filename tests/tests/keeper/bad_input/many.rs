//! Many sessions and many children.

use anyhow::{Context, Result, ensure};
use quorumkv_keeper::jute::Decoder;
use quorumkv_tests::keeperd::Keeperd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::bystander::Bystander;
use super::check;
use crate::raw::{Connection, Hello, Session, body, encode_hello, framed, op, open_acl, request};

const SESSIONS: usize = 10_000;
const CHILDREN: usize = 60_000;
/// Requests that are on their way at once.
const BATCH: usize = 1000;

#[test]
fn ten_thousand_sessions_are_served_at_once() -> Result<()> {
    raise_file_limit(SESSIONS as u64 + 500)?;
    let mut keeperd = Keeperd::start(&[])?;
    let bystander = Bystander::start(&keeperd.address(), "sessions")?;
    let hello = framed(&encode_hello(&Hello { timeout_ms: 40_000, ..Hello::default() }));
    let mut connections = Vec::with_capacity(SESSIONS);
    while connections.len() < SESSIONS {
        let mut batch =
            (0..BATCH).map(|_| Connection::open(&keeperd.address())).collect::<Result<Vec<_>>>()?;
        for connection in &mut batch {
            connection.send_bytes(&hello)?;
        }
        for connection in &mut batch {
            let welcome = connection.receive()?.context("a welcome")?;
            ensure!(welcome.len() == 37 && welcome[4..8] != [0; 4], "{welcome:?}");
        }
        connections.append(&mut batch);
    }
    // All of them, again and at once.
    for (number, connection) in connections.iter_mut().enumerate() {
        let path = format!("/session-{number}");
        connection.send(&request(1, op::CREATE, &body::create(&path, None, &open_acl(), 1)))?;
    }
    for connection in &mut connections {
        let packet = connection.packet()?.context("closed")?;
        ensure!(packet.xid == 1 && packet.error == 0, "{packet:?}");
    }
    check(&mut keeperd)?;
    bystander.is_served()?;
    for connection in &mut connections {
        connection.send(&request(2, op::CLOSE_SESSION, &[]))?;
    }
    for connection in &mut connections {
        ensure!(connection.packet()?.is_some_and(|packet| packet.error == 0));
    }
    bystander.end()?;
    let mut session = Session::start(&keeperd.address())?;
    let left = session.ok(op::GET_CHILDREN, &body::watched("/", false))?;
    ensure!(
        Decoder::new(&left).vector(Decoder::string)? == ["zookeeper"],
        "ephemeral znodes are left: {left:?}"
    );
    check(&mut keeperd)
}

#[test]
fn sixty_thousand_children_are_created_listed_and_deleted() -> Result<()> {
    let mut keeperd = Keeperd::start(&[])?;
    let bystander = Bystander::start(&keeperd.address(), "children")?;
    let mut session = Session::start(&keeperd.address())?;
    session.create("/many", b"", 0)?;
    pipelined(&mut session, |number| {
        (op::CREATE, body::create(&format!("/many/{number:010}"), Some(b"data"), &open_acl(), 0))
    })?;
    let listed = session.ok(op::GET_CHILDREN2, &body::watched("/many", false))?;
    let mut names = Decoder::new(&listed).vector(Decoder::string)?;
    names.sort_unstable();
    ensure!(names.len() == CHILDREN && names.iter().enumerate().all(|(n, name)| *name == format!("{n:010}")));
    let number = session.ok(op::GET_ALL_CHILDREN_NUMBER, &body::path("/many"))?;
    ensure!(Decoder::new(&number).int()? == i32::try_from(CHILDREN)?);
    ensure!(session.error(op::DELETE, &body::numbered("/many", -1))? == -111);
    check(&mut keeperd)?;
    bystander.is_served()?;
    pipelined(&mut session, |number| (op::DELETE, body::numbered(&format!("/many/{number:010}"), 0)))?;
    session.ok(op::DELETE, &body::numbered("/many", -1))?;
    bystander.end()?;
    session.close()?;
    check(&mut keeperd)
}

/// One successful request for each child, many at once.
fn pipelined(session: &mut Session, asked: impl Fn(usize) -> (i32, Vec<u8>)) -> Result<()> {
    for batch in (0..CHILDREN).collect::<Vec<_>>().chunks(BATCH) {
        for &number in batch {
            let (op, body) = asked(number);
            session.send(op, &body)?;
        }
        for number in batch {
            let answer = session.answer()?.context("closed")?;
            ensure!(answer.reply.error == 0, "child {number}: {answer:?}");
        }
    }
    Ok(())
}

/// Sessions need files, here as well as in the server, which does the same for itself.
fn raise_file_limit(files: u64) -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < files) {
        ensure!(
            maximum.is_none_or(|maximum| maximum >= files),
            "allow this user {files} open files (ulimit -Hn)"
        );
        setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum })?;
    }
    Ok(())
}
