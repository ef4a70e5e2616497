//! What surprises whoever writes a server, byte for byte: each is asked of Apache ZooKeeper as well as of keeperd.

use anyhow::{Context, Result, ensure};

use crate::raw::{Connection, Event, Hello, Packet, Session, body, encode_hello, op, open_acl, request};
use crate::servers::{Kind, Server};

type Trap = (&'static str, fn(&Server) -> Result<()>);

const TRAPS: [Trap; 23] = [
    ("the exposed cversion is twice the creates less the children", cversion_counts_creates_and_deletes),
    ("a sequence number counts creates and is never used again", sequence_numbers_are_never_used_again),
    ("the event of an own write comes before its reply", own_event_comes_before_the_reply),
    ("a delete is one event, whatever watches there are", delete_is_one_event),
    ("a failed multi has header error 0 and a result for each operation", failed_multi),
    ("create2 in a multi answers as create", create2_in_a_multi),
    ("containers and TTL znodes of a multi answer as create2", containers_and_ttl_in_a_multi),
    ("an unknown operation is answered -6, and the connection ends", unknown_operation),
    ("a check outside of a multi is unknown too", check_alone),
    ("bad auth is answered -115, and the connection ends", bad_auth),
    ("a transaction from the future ends the connection without a word", zxid_from_the_future),
    ("a wrong password is answered with no session", wrong_password),
    ("a session that does not exist is answered with no session", unknown_session),
    ("a closed session is answered with no session", closed_session),
    ("createContainer and createTTL answer with a stat", containers_and_ttl_have_a_stat),
    ("recursive watches never tell of changed children", recursive_watches),
    ("persistent watches tell of created, changed, children and deleted", persistent_watches),
    ("containers and TTL znodes show no owner", owners),
    ("the answer to hello mirrors a missing read-only byte", missing_read_only_byte),
    ("the timeout is between the least and the most", timeouts_are_clamped),
    ("watches are no state of a session", watches_go_with_the_connection),
    ("addWatch answers with an error code of its own", add_watch_has_a_body),
    ("what is null stays null", null_is_not_empty),
];

#[test]
fn apache_zookeeper_has_all_traps() -> Result<()> {
    all(&Server::apache()?)
}

#[test]
fn keeper_has_all_traps() -> Result<()> {
    all(&Server::keeper()?)
}

fn all(server: &Server) -> Result<()> {
    let failed: Vec<String> = TRAPS
        .iter()
        .filter_map(|(name, trap)| trap(server).err().map(|error| format!("{name}: {error:#}")))
        .collect();
    ensure!(
        failed.is_empty(),
        "{:?}: {} of {} fail:\n{}",
        server.kind,
        failed.len(),
        TRAPS.len(),
        failed.join("\n")
    );
    Ok(())
}

/// The last three numbers of a stat but one: cversion, children.
fn cversion_and_children(stat: &[u8]) -> Result<(i32, i32)> {
    ensure!(stat.len() == 68, "a stat has 68 bytes, not {}", stat.len());
    let int = |at: usize| i32::from_be_bytes(stat[at..at + 4].try_into().expect("four bytes"));
    Ok((int(36), int(56)))
}

fn cversion_counts_creates_and_deletes(server: &Server) -> Result<()> {
    let mut session = Session::start(&server.address)?;
    session.create("/cversion", b"", 0)?;
    for name in ["a", "b", "c"] {
        session.create(&format!("/cversion/{name}"), b"", 0)?;
    }
    let mut seen = Vec::new();
    for name in ["a", "b"] {
        let stat = session.ok(op::EXISTS, &body::watched("/cversion", false))?;
        seen.push(cversion_and_children(&stat)?);
        session.ok(op::DELETE, &body::numbered(&format!("/cversion/{name}"), -1))?;
    }
    let stat = session.ok(op::EXISTS, &body::watched("/cversion", false))?;
    seen.push(cversion_and_children(&stat)?);
    ensure!(seen == [(3, 3), (4, 2), (5, 1)], "{seen:?}");
    session.close()
}

fn sequence_numbers_are_never_used_again(server: &Server) -> Result<()> {
    let mut session = Session::start(&server.address)?;
    session.create("/sequence", b"", 0)?;
    session.create("/sequence/plain", b"", 0)?;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let path = session.create("/sequence/n-", b"", 2)?;
        session.ok(op::DELETE, &body::numbered(&path, -1))?;
        seen.push(path);
    }
    // A create that fails does not count.
    ensure!(session.error(op::CREATE, &body::create("/sequence/plain", None, &open_acl(), 0))? == -110);
    session.ok(op::DELETE, &body::numbered("/sequence/plain", -1))?;
    seen.push(session.create("/sequence/", b"", 3)?);
    let expected = ["n-0000000001", "n-0000000002", "n-0000000003", "0000000004"];
    ensure!(seen == expected.map(|name| format!("/sequence/{name}")), "{seen:?}");
    session.close()
}

fn event(kind: i32, path: &str) -> Event {
    Event { kind, state: 3, path: path.to_owned() }
}

fn own_event_comes_before_the_reply(server: &Server) -> Result<()> {
    let mut session = Session::start(&server.address)?;
    ensure!(session.error(op::EXISTS, &body::watched("/own", true))? == -101);
    let created = session.call(op::CREATE, &body::create("/own", None, &open_acl(), 0))?;
    ensure!(created.events.len() == 1 && created.events[0].1 == event(1, "/own"), "{created:?}");
    session.ok(op::GET_DATA, &body::watched("/own", true))?;
    let set = session.call(op::SET_DATA, &body::set("/own", Some(b"1"), 0))?;
    ensure!(set.events.len() == 1 && set.events[0].1 == event(3, "/own"), "{set:?}");
    // In 3.9 an event says which transaction it tells of; before, it says -1.
    let zxid = if server.kind == Kind::Old { -1 } else { set.reply.zxid };
    ensure!(set.events[0].0 == zxid, "the event of transaction {} says {}", set.reply.zxid, set.events[0].0);
    // It was for once.
    ensure!(session.call(op::SET_DATA, &body::set("/own", Some(b"2"), 1))?.events.is_empty());
    session.close()
}

fn delete_is_one_event(server: &Server) -> Result<()> {
    let mut session = Session::start(&server.address)?;
    session.create("/one", b"", 0)?;
    session.ok(op::GET_DATA, &body::watched("/one", true))?;
    session.ok(op::EXISTS, &body::watched("/one", true))?;
    session.ok(op::GET_CHILDREN, &body::watched("/one", true))?;
    let deleted = session.call(op::DELETE, &body::numbered("/one", -1))?;
    ensure!(deleted.events.len() == 1 && deleted.events[0].1 == event(2, "/one"), "{deleted:?}");
    session.close()
}

fn failed_multi(server: &Server) -> Result<()> {
    let mut session = Session::start(&server.address)?;
    session.create("/multi", b"", 0)?;
    let multi = body::multi(&[
        (op::SET_DATA, body::set("/multi", Some(b"new"), 0)),
        (op::CREATE, body::create("/multi/a", None, &open_acl(), 0)),
        (op::CHECK, body::numbered("/multi", 7)),
        (op::DELETE, body::numbered("/multi/a", -1)),
    ]);
    let reply = session.call(op::MULTI, &multi)?.reply;
    let mut expected = Vec::new();
    for error in [0, 0, -103, -2] {
        expected.extend_from_slice(&error_result(error));
    }
    expected.extend_from_slice(&END_OF_RESULTS);
    ensure!(reply.error == 0 && reply.body == expected, "{reply:?}");
    // Nothing has happened.
    let data = session.ok(op::GET_DATA, &body::watched("/multi", false))?;
    ensure!(data[..4] == [0; 4], "{data:?}");
    session.close()
}

/// Type -1, not done, the error; then the error again.
fn error_result(error: i32) -> [u8; 13] {
    let mut bytes = [0; 13];
    bytes[..4].copy_from_slice(&(-1_i32).to_be_bytes());
    bytes[5..9].copy_from_slice(&error.to_be_bytes());
    bytes[9..].copy_from_slice(&error.to_be_bytes());
    bytes
}

/// Type -1, done, error -1.
const END_OF_RESULTS: [u8; 9] = [255, 255, 255, 255, 1, 255, 255, 255, 255];

fn create2_in_a_multi(server: &Server) -> Result<()> {
    let mut session = Session::start(&server.address)?;
    let create = (op::CREATE2, body::create("/create2", None, &open_acl(), 0));
    let body = session.ok(op::MULTI, &body::multi(&[create]))?;
    let path = [&8_i32.to_be_bytes()[..], b"/create2"].concat();
    let head = |kind: i32| [&kind.to_be_bytes()[..], &[0; 5], &path].concat();
    match server.kind {
        Kind::Old | Kind::Keeper => {
            ensure!(body == [&head(op::CREATE)[..], &END_OF_RESULTS].concat(), "{body:?}");
        }
        // The one answer of 3.9 that keeper does not follow: no client needs it, and some know only the other.
        Kind::New => {
            ensure!(body.starts_with(&head(op::CREATE2)) && body.len() == 9 + 12 + 68 + 9, "{body:?}");
        }
    }
    session.close()
}

fn containers_and_ttl_in_a_multi(server: &Server) -> Result<()> {
    let mut session = Session::start(&server.address)?;
    let body = session.ok(
        op::MULTI,
        &body::multi(&[
            (op::CREATE_CONTAINER, body::create("/multi-c", None, &open_acl(), 4)),
            (op::CREATE_TTL, body::create_ttl("/multi-t", None, &open_acl(), 5, 3_600_000)),
        ]),
    )?;
    let result = 9 + 4 + 8 + 68;
    ensure!(body.len() == 2 * result + END_OF_RESULTS.len(), "{body:?}");
    for (at, path) in [(0, b"/multi-c"), (result, b"/multi-t")] {
        ensure!(body[at..at + 4] == op::CREATE2.to_be_bytes() && body[at + 13..at + 21] == *path, "{body:?}");
    }
    session.close()
}

/// A packet with nothing but a header, after which the server closes.
fn last_words(connection: &mut Connection) -> Result<Packet> {
    let packet = connection.packet()?.context("closed without a word")?;
    let rest = connection.rest()?;
    ensure!(packet.body.is_empty() && rest.is_empty(), "more than a header: {packet:?}, {rest:?}");
    Ok(packet)
}

fn unknown_operation(server: &Server) -> Result<()> {
    for unknown in [10, 18_000, -3, i32::MIN] {
        let mut session = Session::start(&server.address)?;
        session.connection.send(&request(77, unknown, b"whatever"))?;
        let packet = last_words(&mut session.connection)?;
        ensure!((packet.xid, packet.zxid, packet.error) == (77, -1, -6), "{unknown}: {packet:?}");
        // Only the connection has ended.
        session.reattach(&server.address)?;
        session.close()?;
    }
    Ok(())
}

fn check_alone(server: &Server) -> Result<()> {
    if server.kind == Kind::Old {
        // It never answers.
        return Ok(());
    }
    let mut session = Session::start(&server.address)?;
    session.connection.send(&request(5, op::CHECK, &body::numbered("/", 0)))?;
    let packet = last_words(&mut session.connection)?;
    ensure!((packet.xid, packet.zxid, packet.error) == (5, -1, -6), "{packet:?}");
    Ok(())
}

fn bad_auth(server: &Server) -> Result<()> {
    for scheme in ["nonsense", "", "world", "auth"] {
        let mut session = Session::start(&server.address)?;
        session.send(op::AUTH, &body::auth(scheme, b"ann:one"))?;
        let packet = last_words(&mut session.connection)?;
        ensure!((packet.xid, packet.zxid, packet.error) == (-4, 0, -115), "{scheme}: {packet:?}");
    }
    Ok(())
}

fn zxid_from_the_future(server: &Server) -> Result<()> {
    let hello = Hello { last_zxid: 1 << 60, ..Hello::default() };
    let mut connection = Connection::open(&server.address)?;
    connection.send(&encode_hello(&hello))?;
    let rest = connection.rest()?;
    ensure!(rest.is_empty(), "{rest:?}");
    Ok(())
}

/// The answer to a hello that goes on with what cannot be gone on with.
fn is_refused(server: &Server, hello: &Hello) -> Result<()> {
    let mut connection = Connection::open(&server.address)?;
    connection.send(&encode_hello(hello))?;
    let frame = connection.receive()?.context("closed without a word")?;
    // Version, timeout and session are 0; then a password of 16 zeros and the read-only byte.
    let expected = [&[0; 16][..], &16_i32.to_be_bytes(), &[0; 16], &[0]].concat();
    ensure!(frame == expected, "{frame:?}");
    let rest = connection.rest()?;
    ensure!(rest.is_empty(), "{rest:?}");
    Ok(())
}

fn wrong_password(server: &Server) -> Result<()> {
    let mut session = Session::start(&server.address)?;
    let mut hello = session.resumption();
    hello.password[3] ^= 1;
    is_refused(server, &hello)?;
    is_refused(server, &Hello { password: Vec::new(), ..hello.clone() })?;
    is_refused(server, &Hello { password: vec![1; 40], ..hello })?;
    // The session lives. Apache ZooKeeper has ended its connection, though.
    session.reattach(&server.address)?;
    session.close()
}

fn unknown_session(server: &Server) -> Result<()> {
    is_refused(server, &Hello { session: 0x1234_5678, ..Hello::default() })?;
    is_refused(server, &Hello { session: -1, ..Hello::default() })
}

fn closed_session(server: &Server) -> Result<()> {
    let session = Session::start(&server.address)?;
    let hello = session.resumption();
    session.close()?;
    is_refused(server, &hello)
}

fn containers_and_ttl_have_a_stat(server: &Server) -> Result<()> {
    let mut session = Session::start(&server.address)?;
    let container = body::create("/container", None, &open_acl(), 4);
    let ttl = body::create_ttl("/time-to-live", None, &open_acl(), 5, 3_600_000);
    for (op, path, body) in
        [(op::CREATE_CONTAINER, "/container", container), (op::CREATE_TTL, "/time-to-live", ttl)]
    {
        let reply = session.ok(op, &body)?;
        ensure!(reply.len() == 4 + path.len() + 68, "operation {op}: {reply:?}");
        let stat = session.ok(op::EXISTS, &body::watched(path, false))?;
        ensure!(reply[4 + path.len()..] == stat, "operation {op}: {reply:?} and then {stat:?}");
    }
    session.close()
}

fn recursive_watches(server: &Server) -> Result<()> {
    let path = "/recursive";
    let expected = [(1, path), (1, "/recursive/a"), (3, path), (2, "/recursive/a"), (2, path)];
    sees(server, path, 1, &expected.map(|(kind, path)| (kind, path.to_owned())))
}

fn persistent_watches(server: &Server) -> Result<()> {
    let path = "/persistent";
    sees(server, path, 0, &[1, 4, 3, 4, 2].map(|kind| (kind, path.to_owned())))
}

/// Whether a watch on a znode sees these events, when that and a child are created, it is set, and both are deleted.
fn sees(server: &Server, path: &str, mode: i32, expected: &[(i32, String)]) -> Result<()> {
    let (mut watcher, mut writer) = (Session::start(&server.address)?, Session::start(&server.address)?);
    watcher.ok(op::ADD_WATCH, &body::numbered(path, mode))?;
    writer.create(path, b"", 0)?;
    writer.create(&format!("{path}/a"), b"", 0)?;
    writer.ok(op::SET_DATA, &body::set(path, None, -1))?;
    writer.ok(op::DELETE, &body::numbered(&format!("{path}/a"), -1))?;
    writer.ok(op::DELETE, &body::numbered(path, -1))?;
    let seen: Vec<(i32, String)> =
        watcher.drain()?.into_iter().map(|event| (event.kind, event.path)).collect();
    ensure!(seen == expected, "{seen:?}");
    watcher.close()?;
    writer.close()
}

fn owners(server: &Server) -> Result<()> {
    let mut session = Session::start(&server.address)?;
    session.ok(op::CREATE_CONTAINER, &body::create("/owner-container", None, &open_acl(), 4))?;
    session.ok(op::CREATE_TTL, &body::create_ttl("/owner-ttl", None, &open_acl(), 5, 3_600_000))?;
    session.create("/owner-ephemeral", b"", 1)?;
    let mut owners = Vec::new();
    for path in ["/owner-container", "/owner-ttl", "/owner-ephemeral"] {
        let stat = session.ok(op::EXISTS, &body::watched(path, false))?;
        owners.push(i64::from_be_bytes(stat[44..52].try_into()?));
    }
    ensure!(owners == [0, 0, session.id], "{owners:x?}");
    session.close()
}

fn missing_read_only_byte(server: &Server) -> Result<()> {
    for read_only in [None, Some(false), Some(true)] {
        let hello = Hello { read_only, ..Hello::default() };
        let welcome = Connection::open(&server.address)?.hello(&hello)?.context("closed")?;
        ensure!(welcome.read_only == read_only.map(|_| false), "{read_only:?}: {welcome:?}");
        ensure!(welcome.session != 0 && welcome.password.len() == 16, "{welcome:?}");
    }
    Ok(())
}

fn timeouts_are_clamped(server: &Server) -> Result<()> {
    let (least, most) = (200, 60_000);
    for (wished, granted) in [(0, least), (-1, least), (i32::MIN, least), (10_000, 10_000), (i32::MAX, most)]
    {
        let hello = Hello { timeout_ms: wished, ..Hello::default() };
        let session = Session::with(&server.address, &hello)?;
        ensure!(session.timeout_ms == granted, "{wished} becomes {}", session.timeout_ms);
        session.close()?;
    }
    Ok(())
}

fn watches_go_with_the_connection(server: &Server) -> Result<()> {
    let (mut watcher, mut writer) = (Session::start(&server.address)?, Session::start(&server.address)?);
    writer.create("/moved", b"", 0)?;
    watcher.ok(op::GET_DATA, &body::watched("/moved", true))?;
    watcher.ok(op::ADD_WATCH, &body::numbered("/moved", 0))?;
    watcher.reattach(&server.address)?;
    writer.ok(op::SET_DATA, &body::set("/moved", None, -1))?;
    let events = watcher.drain()?;
    ensure!(events.is_empty(), "{events:?}");
    // Until the client brings them along: what has happened since is told at once.
    let lists = ["/moved"].map(|path| vec![path.to_owned()]);
    let lists = [lists[0].clone(), Vec::new(), Vec::new(), lists[0].clone(), Vec::new()];
    let answer = watcher.call(op::SET_WATCHES2, &body::set_watches(0, &lists))?;
    let events: Vec<_> = answer.events.into_iter().map(|(_, event)| event).collect();
    ensure!(answer.reply.error == 0 && events == [event(3, "/moved")], "{events:?}");
    writer.ok(op::SET_DATA, &body::set("/moved", None, -1))?;
    ensure!(watcher.drain()? == [event(3, "/moved")]);
    watcher.close()?;
    writer.close()
}

fn add_watch_has_a_body(server: &Server) -> Result<()> {
    let mut session = Session::start(&server.address)?;
    let body = session.ok(op::ADD_WATCH, &body::numbered("/nothing-here", 0))?;
    ensure!(body == [0; 4], "{body:?}");
    session.close()
}

fn null_is_not_empty(server: &Server) -> Result<()> {
    let mut session = Session::start(&server.address)?;
    for (path, data, shown) in [("/null", None, -1_i32), ("/empty", Some(&b""[..]), 0)] {
        session.ok(op::CREATE, &body::create(path, data, &open_acl(), 0))?;
        let body = session.ok(op::GET_DATA, &body::watched(path, false))?;
        ensure!(body[..4] == shown.to_be_bytes() && body.len() == 72, "{path}: {body:?}");
    }
    session.close()
}
