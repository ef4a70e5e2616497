//! Packets that are no packets, and requests that are no requests: the same is asked of Apache ZooKeeper, where that is known
//! to survive it.

use anyhow::{Context, Result, ensure};
use quorumkv_tests::keeperd::Keeperd;

use super::bystander::Bystander;
use super::check;
use crate::raw::{Connection, Hello, Session, body, encode_hello, encoded, framed, op, open_acl, request};
use crate::servers::{Kind, Server};

/// ZooKeeper's `jute.maxbuffer`.
const MOST: usize = 0xf_ffff;

#[test]
fn what_is_no_hello_ends_the_connection_without_a_word() -> Result<()> {
    let mut keeperd = Keeperd::start(&[])?;
    let bystander = Bystander::start(&keeperd.address(), "hello")?;
    let mut random = fastrand::Rng::with_seed(7);
    let mut cases: Vec<Vec<u8>> = vec![
        (-1_i32).to_be_bytes().to_vec(),
        i32::MIN.to_be_bytes().to_vec(),
        i32::MAX.to_be_bytes().to_vec(),
        (1_i32 << 20).to_be_bytes().to_vec(),
        0_i32.to_be_bytes().to_vec(),
        framed(&[]),
        framed(&[0; 3]),
        framed(&encode_hello(&Hello::default())[..20]),
        // A password of a negative and of a huge length.
        framed(&encoded(|e| {
            e.int(0).long(0).int(1000).long(0).int(-2);
        })),
        framed(&encoded(|e| {
            e.int(0).long(0).int(1000).long(0).int(i32::MAX);
        })),
        b"GET / HTTP/1.1\r\nHost: keeper\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        // Operations before anything else.
        framed(&request(1, op::GET_DATA, &body::watched("/", false))),
        framed(&request(1, op::CREATE, &body::create("/early", None, &open_acl(), 0))),
        framed(&request(-2, op::PING, &[])),
        framed(&request(1, op::CLOSE_SESSION, &[])),
    ];
    for _ in 0..300 {
        let length = random.usize(4..100);
        let mut noise: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
        // Not too often a length that is negative or huge.
        if random.bool() {
            noise[..3].fill(0);
        }
        cases.push(noise);
    }
    for case in cases {
        let mut connection = Connection::open(&keeperd.address())?;
        // The server may close before all is sent.
        let _ = connection.send_bytes(&case).and_then(|()| connection.finish());
        let answer = connection.rest()?;
        ensure!(answer.is_empty(), "{case:?} is answered {answer:?}");
    }
    bystander.end()?;
    let mut session = Session::start(&keeperd.address())?;
    ensure!(
        session.error(op::EXISTS, &body::watched("/early", false))? == -101,
        "an operation before a session counts"
    );
    check(&mut keeperd)
}

/// What comes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// An error, and the connection goes on.
    Error(i32),
    /// The connection is closed, perhaps after an error.
    Closed,
}

/// A request that makes no sense, and what comes of it.
struct Bad {
    name: &'static str,
    op: i32,
    body: Vec<u8>,
    fate: Fate,
    /// What Apache ZooKeeper does, if that is another; nothing if it must not be asked.
    apache: Option<Fate>,
}

#[allow(clippy::too_many_lines, reason = "it is a table")]
fn bad_requests() -> Vec<Bad> {
    let bad = |name, op, body, fate| Bad { name, op, body, fate, apache: Some(fate) };
    let create = |path: &str| body::create(path, None, &open_acl(), 0);
    let raw_path = |bytes: &[u8]| {
        encoded(|e| {
            e.buffer(Some(bytes)).boolean(false);
        })
    };
    let acl_of = |length: i32| {
        encoded(|e| {
            e.string("/bad/x").buffer(None).int(length).int(0);
        })
    };
    let marshalling = Fate::Error(-5);
    let arguments = Fate::Error(-8);
    vec![
        bad("a create without anything", op::CREATE, Vec::new(), marshalling),
        bad("a getData without anything", op::GET_DATA, Vec::new(), marshalling),
        bad(
            "a path of a negative length",
            op::GET_DATA,
            encoded(|e| {
                e.int(-7).boolean(false);
            }),
            marshalling,
        ),
        bad(
            "a path of a huge length",
            op::GET_DATA,
            encoded(|e| {
                e.int(i32::MAX).boolean(false);
            }),
            marshalling,
        ),
        bad(
            "a path that is cut off",
            op::DELETE,
            encoded(|e| {
                e.int(10).int(0);
            }),
            marshalling,
        ),
        bad("an ACL of length -1", op::CREATE, acl_of(-1), Fate::Error(-114)),
        // Apache ZooKeeper takes any negative length for null.
        Bad {
            apache: Some(Fate::Error(-114)),
            ..bad("an ACL of length -2", op::CREATE, acl_of(-2), marshalling)
        },
        bad("an ACL of a huge length", op::CREATE, acl_of(i32::MAX), marshalling),
        bad("an empty ACL", op::CREATE, body::create("/bad/x", None, &[], 0), Fate::Error(-114)),
        bad(
            "data of a negative length",
            op::SET_DATA,
            encoded(|e| {
                e.string("/bad").int(-3).int(0);
            }),
            marshalling,
        ),
        bad(
            "data of a huge length",
            op::SET_DATA,
            encoded(|e| {
                e.string("/bad").int(i32::MAX).int(0);
            }),
            marshalling,
        ),
        bad("a multi that does not end", op::MULTI, body::multi(&[])[..3].to_vec(), marshalling),
        bad(
            "a multi with a read",
            op::MULTI,
            body::multi(&[(op::GET_DATA, body::watched("/bad", false))]),
            marshalling,
        ),
        bad(
            "a multiRead with a write",
            op::MULTI_READ,
            body::multi(&[(op::CREATE, create("/bad/x"))]),
            marshalling,
        ),
        bad(
            "watches of length -1",
            op::SET_WATCHES,
            encoded(|e| {
                e.long(0).int(-1).int(-1).int(7);
            }),
            marshalling,
        ),
        bad(
            "watches of a huge length",
            op::SET_WATCHES,
            encoded(|e| {
                e.long(0).int(i32::MAX);
            }),
            marshalling,
        ),
        bad("a path without a slash", op::CREATE, create("bad"), arguments),
        bad("an empty path", op::CREATE, create(""), arguments),
        bad("a trailing slash", op::CREATE, create("/bad/x/"), Fate::Error(-101)),
        bad("a double slash", op::CREATE, create("/bad//x"), Fate::Error(-101)),
        bad("a dot", op::CREATE, create("/bad/./x"), Fate::Error(-101)),
        bad("two dots", op::CREATE, create("/bad/.."), arguments),
        bad("two dots at the end of a delete", op::DELETE, body::numbered("/bad/..", -1), Fate::Error(-101)),
        bad("a NUL", op::CREATE, create("/bad/\0x"), arguments),
        bad("a control character", op::CREATE, create("/bad/\u{7f}"), arguments),
        bad("a private character", op::CREATE, create("/bad/\u{f000}"), arguments),
        bad("a character beyond 16 bits", op::CREATE, create("/bad/\u{1f600}"), arguments),
        bad("a special character", op::CREATE, create("/bad/\u{fff5}"), arguments),
        bad("two dots in a setData", op::SET_DATA, body::set("/bad/../bad", None, -1), arguments),
        bad("two dots in a read", op::GET_DATA, body::watched("/bad/../bad", false), Fate::Error(-101)),
        bad("the root again", op::CREATE, create("/"), Fate::Error(-110)),
        bad("the root's end", op::DELETE, body::numbered("/", -1), arguments),
        bad("the end of /zookeeper", op::DELETE, body::numbered("/zookeeper", -1), arguments),
        Bad {
            // It would delete whatever is empty, without asking for permission.
            apache: None,
            ..bad("deleteContainer from outside", op::DELETE_CONTAINER, body::path("/bad"), Fate::Closed)
        },
        bad(
            "a reconfiguration",
            op::RECONFIG,
            encoded(|e| {
                e.string("").string("").string("").long(-1);
            }),
            Fate::Error(-123),
        ),
        Bad {
            name: "createTTL with the flags of another kind",
            op: op::CREATE_TTL,
            body: body::create_ttl("/bad/x", None, &open_acl(), 0, -1),
            fate: arguments,
            // It would end for good.
            apache: None,
        },
        // Apache ZooKeeper replaces what is not UTF-8 by question marks.
        Bad {
            apache: Some(Fate::Error(-101)),
            ..bad("no UTF-8", op::GET_DATA, raw_path(b"/bad/\xff\xfe"), marshalling)
        },
        Bad {
            apache: Some(Fate::Error(-101)),
            ..bad("a lone surrogate", op::EXISTS, raw_path(b"/bad/\xed\xa0\x80"), marshalling)
        },
    ]
}

#[test]
fn what_makes_no_sense_is_answered_as_by_apache_zookeeper() -> Result<()> {
    let (apache, keeper) = (Server::apache()?, Server::keeper()?);
    let mut wrong = Vec::new();
    for server in [&apache, &keeper] {
        if server.kind == Kind::Old {
            continue;
        }
        Session::start(&server.address)?.create("/bad", b"", 0)?;
        for bad in bad_requests() {
            let expected = if server.kind == Kind::Keeper { Some(bad.fate) } else { bad.apache };
            let Some(expected) = expected else { continue };
            let found = fate(server, &bad)?;
            if found != expected {
                wrong.push(format!("{:?}: {}: {found:?} instead of {expected:?}", server.kind, bad.name));
            }
        }
        let children =
            Session::start(&server.address)?.call(op::GET_CHILDREN, &body::watched("/bad", false))?.reply;
        if (children.error, &children.body[..]) != (0, &[0; 4]) {
            wrong.push(format!("{:?}: something has changed: {children:?}", server.kind));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn fate(server: &Server, bad: &Bad) -> Result<Fate> {
    let mut session = Session::start(&server.address)?;
    let xid = session.send(bad.op, &bad.body)?;
    let Some(answer) = session.answer()? else { return Ok(Fate::Closed) };
    ensure!(answer.reply.xid == xid, "{}: {answer:?}", bad.name);
    // Whether it goes on, a ping tells.
    let goes_on = session.send(op::PING, &[]).is_ok() && matches!(session.answer(), Ok(Some(_)));
    Ok(if goes_on { Fate::Error(answer.reply.error) } else { Fate::Closed })
}

#[test]
fn lengths_of_packets_are_bounded_and_the_largest_one_is_served() -> Result<()> {
    let mut keeperd = Keeperd::start(&[])?;
    let bystander = Bystander::start(&keeperd.address(), "lengths")?;
    for length in [-1, i32::MIN, i32::MAX, 1 << 20, -4] {
        let mut session = Session::start(&keeperd.address())?;
        session.connection.send_bytes(&length.to_be_bytes())?;
        let rest = session.connection.rest()?;
        ensure!(rest.is_empty(), "a length of {length} is answered {rest:?}");
        // The session lives.
        session.reattach(&keeperd.address())?;
        session.close()?;
    }
    let mut session = Session::start(&keeperd.address())?;
    session.create("/large", b"", 0)?;
    let around = body::set("/large", Some(&[]), -1).len() + 8;
    for (length, fits) in [(MOST - 1, true), (MOST, true), (MOST + 1, false)] {
        let data = vec![b'x'; length - around];
        let sent = session.connection.send(&request(9, op::SET_DATA, &body::set("/large", Some(&data), -1)));
        ensure!(sent.is_ok() || !fits, "a packet of {length} bytes is not taken");
        let answer = session.answer()?;
        ensure!(answer.is_some() == fits, "a packet of {length} bytes is answered {answer:?}");
    }
    session.reattach(&keeperd.address())?;
    let read = session.ok(op::GET_DATA, &body::watched("/large", false))?;
    ensure!(read.len() == 4 + MOST - around + 68, "{} bytes come back", read.len());
    // A hundred at once are as many times a mebibyte, at most.
    for _ in 0..100 {
        let mut large = Session::start(&keeperd.address())?;
        large.connection.send_bytes(&framed(&vec![0; MOST])[..MOST]).context("most of a large packet")?;
    }
    bystander.end()?;
    check(&mut keeperd)
}
