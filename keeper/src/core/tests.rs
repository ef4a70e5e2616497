//! The order of things: what is durable before what is told, events before replies, one client's requests in order.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};

use super::*;
use crate::jute::{Decoder, Encoder};
use crate::wire::{ErrorCode, op};

const TIMEOUT_MS: i32 = 4_000;

/// A keeper whose log is durable when the test says so.
pub(super) struct Bench {
    pub(super) keeper: Keeper,
    pub(super) now: Now,
    pub(super) logged: i64,
    sent: BTreeMap<ConnectionId, Vec<Bytes>>,
    pub(super) closed: Vec<ConnectionId>,
    pub(super) notices: Vec<Notice>,
}

/// A packet that was sent, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet {
    Event { kind: i32, path: String },
    Reply { xid: i32, error: i32 },
}

impl Bench {
    pub(super) fn new() -> Self {
        let now = Now { monotonic_ms: 10_000, wall_ms: 1_700_000_000_000 };
        let settings = Settings::with_tick(400);
        let keeper = Keeper::new(Tree::new(), settings, now);
        Self { keeper, now, logged: 0, sent: BTreeMap::new(), closed: Vec::new(), notices: Vec::new() }
    }

    /// Takes in something, and does all that it comes to.
    pub(super) fn input(&mut self, input: Input) {
        self.keeper.handle(self.now, input);
        loop {
            if self.keeper.is_behind() {
                self.keeper.handle(self.now, Input::Durable(self.logged));
            }
            let effects = self.keeper.flush();
            if let Some(last) = effects.log.last() {
                self.logged = last.zxid;
            }
            for (connection, bytes) in effects.sends {
                assert!(bytes.len() < 2 << 20, "{} bytes at once", bytes.len());
                self.sent.entry(connection).or_default().extend(frames(&bytes));
            }
            self.closed.extend(effects.closes);
            self.notices.extend(effects.notices);
            if effects.waiting.is_empty() && !self.keeper.is_behind() {
                return;
            }
            for connection in effects.waiting {
                self.keeper.resume(connection);
            }
        }
    }

    pub(super) fn durable(&mut self) {
        self.input(Input::Durable(self.logged));
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now.monotonic_ms += ms;
        self.now.wall_ms += i64::try_from(ms).unwrap();
        self.input(Input::Tick);
    }

    pub(super) fn open(&mut self, number: u64) -> ConnectionId {
        let connection = ConnectionId(number);
        let address = SocketAddr::from(([127, 0, 0, 1], 40_000));
        self.input(Input::Opened { connection, address, certificate: None, entropy: [7; 16] });
        connection
    }

    pub(super) fn frame(&mut self, connection: ConnectionId, write: impl FnOnce(&mut Encoder<'_>)) {
        self.input(frame(connection, write));
    }

    pub(super) fn greet(&mut self, connection: ConnectionId, session: i64, password: &[u8]) {
        self.frame(connection, |encoder| {
            encoder.int(0).long(0).int(TIMEOUT_MS).long(session).buffer(Some(password)).boolean(false);
        });
    }

    /// A connection with a session of its own.
    pub(super) fn client(&mut self, number: u64) -> (ConnectionId, i64) {
        let connection = self.open(number);
        self.greet(connection, 0, &[0; 16]);
        assert!(self.take(connection).is_empty(), "a session is told only when it is durable");
        self.durable();
        let (timeout, session) = self.welcome(connection);
        assert_eq!(timeout, TIMEOUT_MS);
        (connection, session)
    }

    pub(super) fn welcome(&mut self, connection: ConnectionId) -> (i32, i64) {
        let packets = self.take(connection);
        let mut decoder = Decoder::new(&packets[0]);
        assert_eq!(decoder.int(), Ok(0));
        (decoder.int().unwrap(), decoder.long().unwrap())
    }

    pub(super) fn take(&mut self, connection: ConnectionId) -> Vec<Bytes> {
        self.sent.remove(&connection).unwrap_or_default()
    }

    pub(super) fn packets(&mut self, connection: ConnectionId) -> Vec<Packet> {
        self.take(connection).iter().map(|packet| taken_apart(packet)).collect()
    }

    pub(super) fn create(&mut self, connection: ConnectionId, xid: i32, path: &str, flags: i32) {
        self.frame(connection, |encoder| {
            encoder.int(xid).int(op::CREATE).string(path).buffer(Some(b"data"));
            encoder.length(1).int(31).string("world").string("anyone").int(flags);
        });
    }

    pub(super) fn watch(&mut self, connection: ConnectionId, xid: i32, op: i32, path: &str) {
        self.handle_watch(connection, xid, op, path);
        self.input(Input::Tick);
    }

    /// Asks, and does nothing of what that comes to.
    pub(super) fn handle_watch(&mut self, connection: ConnectionId, xid: i32, op: i32, path: &str) {
        let frame = frame(connection, |encoder| {
            encoder.int(xid).int(op).string(path).boolean(true);
        });
        self.keeper.handle(self.now, frame);
    }

    pub(super) fn bare(&mut self, connection: ConnectionId, xid: i32, op: i32) {
        self.frame(connection, |encoder| {
            encoder.int(xid).int(op);
        });
    }
}

pub(super) fn frame(connection: ConnectionId, write: impl FnOnce(&mut Encoder<'_>)) -> Input {
    let mut frame = BytesMut::new();
    write(&mut Encoder::new(&mut frame));
    Input::Frame { connection, frame: frame.freeze() }
}

/// The packets in what is sent.
pub(super) fn packets(bytes: &[u8]) -> Vec<Packet> {
    frames(bytes).iter().map(|packet| taken_apart(packet)).collect()
}

fn frames(mut bytes: &[u8]) -> Vec<Bytes> {
    let mut frames = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (frame, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        frames.push(Bytes::copy_from_slice(frame));
        bytes = rest;
    }
    frames
}

fn taken_apart(packet: &[u8]) -> Packet {
    let mut decoder = Decoder::new(packet);
    let (xid, _, error) = (decoder.int().unwrap(), decoder.long().unwrap(), decoder.int().unwrap());
    if xid != -1 {
        return Packet::Reply { xid, error };
    }
    let (kind, state) = (decoder.int().unwrap(), decoder.int().unwrap());
    assert_eq!(state, 3);
    Packet::Event { kind, path: decoder.string().unwrap() }
}

pub(super) fn ok(xid: i32) -> Packet {
    Packet::Reply { xid, error: 0 }
}

pub(super) fn failed(xid: i32, code: ErrorCode) -> Packet {
    Packet::Reply { xid, error: code.number() }
}

pub(super) fn event(kind: i32, path: &str) -> Packet {
    Packet::Event { kind, path: path.to_owned() }
}

#[test]
fn nothing_is_told_before_it_is_durable_and_everything_in_order() {
    let mut bench = Bench::new();
    let (me, _) = bench.client(1);
    let (you, _) = bench.client(2);
    bench.create(me, 1, "/a", 0);
    bench.watch(me, 2, op::GET_DATA, "/a");
    bench.create(you, 1, "/a", 0);
    bench.watch(you, 2, op::EXISTS, "/a");
    bench.bare(you, -2, op::PING);
    assert_eq!(bench.packets(me), []);
    assert_eq!(bench.packets(you), [], "even a failure would tell that /a exists");
    bench.durable();
    assert_eq!(bench.packets(me), [ok(1), ok(2)]);
    assert_eq!(bench.packets(you), [failed(1, ErrorCode::NodeExists), ok(2), ok(-2)]);
}

#[test]
fn reads_of_others_do_not_wait_and_see_only_what_is_durable() {
    let mut bench = Bench::new();
    let (me, _) = bench.client(1);
    let (you, _) = bench.client(2);
    bench.create(me, 1, "/a", 0);
    bench.watch(you, 1, op::EXISTS, "/a");
    assert_eq!(bench.packets(you), [failed(1, ErrorCode::NoNode)]);
    bench.durable();
    assert_eq!(bench.packets(you), [event(1, "/a")]);
}

#[test]
fn an_event_comes_before_the_reply_of_the_write_that_caused_it() {
    let mut bench = Bench::new();
    let (me, _) = bench.client(1);
    bench.watch(me, 1, op::EXISTS, "/a");
    bench.watch(me, 2, op::GET_CHILDREN, "/");
    bench.create(me, 3, "/a", 0);
    bench.durable();
    let expected = [failed(1, ErrorCode::NoNode), ok(2), event(1, "/a"), event(4, "/"), ok(3)];
    assert_eq!(bench.packets(me), expected);
}

#[test]
fn a_closed_session_takes_its_ephemerals_along_and_is_answered_before_its_connection_closes() {
    let mut bench = Bench::new();
    let (me, session) = bench.client(1);
    let (you, _) = bench.client(2);
    bench.create(me, 1, "/e", 1);
    bench.bare(me, 2, op::CLOSE_SESSION);
    bench.create(me, 3, "/late", 1);
    bench.durable();
    assert_eq!(bench.packets(me), [ok(1), ok(2)]);
    assert_eq!(bench.closed, [me]);
    assert!(bench.keeper.tree().get("/e").is_none() && bench.keeper.tree().get("/late").is_none());
    assert!(bench.keeper.tree().session(session).is_none());
    bench.watch(you, 1, op::EXISTS, "/e");
    assert_eq!(bench.packets(you), [failed(1, ErrorCode::NoNode)]);
}

#[test]
fn a_session_that_is_not_heard_of_expires_and_cannot_be_taken_up_again() {
    let mut bench = Bench::new();
    let (me, session) = bench.client(1);
    let (you, _) = bench.client(2);
    bench.create(me, 1, "/e", 1);
    bench.durable();
    bench.input(Input::Closed { connection: me });
    bench.pass(3_000);
    bench.bare(you, -2, op::PING);
    bench.watch(you, 1, op::EXISTS, "/e");
    bench.pass(1_500);
    bench.durable();
    assert_eq!(bench.packets(you), [ok(-2), ok(1), event(2, "/e")]);
    assert!(bench.notices.contains(&Notice::SessionExpired { session, timeout_ms: TIMEOUT_MS }));
    let again = bench.open(3);
    bench.greet(again, session, &[7; 16]);
    assert_eq!(bench.welcome(again), (0, 0));
    assert_eq!(bench.closed, [again]);
}

#[test]
fn a_client_may_live_without_a_packet() {
    let mut bench = Bench::new();
    let (me, session) = bench.client(1);
    bench.pass(3_000);
    bench.input(Input::Alive { connection: me });
    bench.pass(3_000);
    assert_eq!(bench.notices.len(), 1, "it was opened, and has not expired: {:?}", bench.notices);
    bench.pass(3_000);
    assert!(bench.notices.contains(&Notice::SessionExpired { session, timeout_ms: TIMEOUT_MS }));
}

#[test]
fn a_session_moves_with_its_password_and_only_with_it() {
    let mut bench = Bench::new();
    let (me, session) = bench.client(1);
    let thief = bench.open(2);
    bench.greet(thief, session, &[8; 16]);
    assert_eq!(bench.welcome(thief), (0, 0));
    let moved = bench.open(3);
    bench.greet(moved, session, &[7; 16]);
    assert_eq!(bench.welcome(moved), (TIMEOUT_MS, session));
    assert_eq!(bench.closed, [thief, me], "the connection before is closed");
    bench.create(moved, 1, "/a", 0);
    bench.durable();
    assert_eq!(bench.packets(moved), [ok(1)]);
}

#[test]
fn what_is_not_understood_is_answered_or_ends_the_connection() {
    let mut bench = Bench::new();
    let (me, _) = bench.client(1);
    bench.bare(me, 1, op::GET_DATA);
    bench.bare(me, 2, 9999);
    bench.bare(me, 3, op::PING);
    assert_eq!(
        bench.packets(me),
        [failed(1, ErrorCode::MarshallingError), failed(2, ErrorCode::Unimplemented)]
    );
    assert_eq!(bench.closed, [me]);
    let (you, _) = bench.client(2);
    bench.input(Input::Frame { connection: you, frame: Bytes::from_static(&[0, 0, 0]) });
    assert_eq!(bench.packets(you), []);
    assert_eq!(bench.closed, [me, you]);
    let fresh = bench.open(3);
    bench.input(Input::Frame { connection: fresh, frame: Bytes::from_static(&[1; 20]) });
    assert_eq!(bench.closed, [me, you, fresh]);
}

#[test]
fn a_client_from_the_future_is_sent_away_without_an_answer() {
    let mut bench = Bench::new();
    let connection = bench.open(1);
    bench.frame(connection, |encoder| {
        encoder.int(0).long(99).int(TIMEOUT_MS).long(0).buffer(Some(&[0; 16]));
    });
    assert_eq!(bench.take(connection), Vec::<Bytes>::new());
    assert_eq!(bench.closed, [connection]);
}

#[test]
fn the_reply_to_connect_mirrors_a_missing_read_only_byte() {
    let mut bench = Bench::new();
    for (number, with_byte, length) in [(1, true, 37), (2, false, 36)] {
        let connection = bench.open(number);
        bench.frame(connection, |encoder| {
            encoder.int(0).long(0).int(TIMEOUT_MS).long(0).buffer(Some(&[0; 16]));
            if with_byte {
                encoder.boolean(true);
            }
        });
        bench.durable();
        assert_eq!(bench.take(connection)[0].len(), length);
    }
}

#[test]
fn authentication_counts_from_then_on_and_a_wrong_one_ends_the_connection() {
    let mut bench = Bench::new();
    let (me, _) = bench.client(1);
    let auth = |bench: &mut Bench, scheme: &str| {
        bench.frame(me, |encoder| {
            encoder.int(-4).int(op::AUTH).int(0).string(scheme).buffer(Some(b"user:secret"));
        });
    };
    auth(&mut bench, "digest");
    assert_eq!(bench.packets(me), [ok(-4)]);
    let view = bench.keeper.connections().next().unwrap();
    assert_eq!((view.statistics.received, view.statistics.sent), (2, 2));
    auth(&mut bench, "nonsense");
    assert_eq!(bench.packets(me), [failed(-4, ErrorCode::AuthFailed)]);
    assert_eq!(bench.closed, [me]);
}

#[test]
fn sessions_outlive_a_restart_and_expire_after_it() {
    let mut bench = Bench::new();
    let (me, session) = bench.client(1);
    bench.create(me, 1, "/e", 1);
    bench.durable();
    let mut after = Bench::new();
    after.keeper = Keeper::new(bench.keeper.tree().clone(), Settings::with_tick(400), after.now);
    assert_eq!(after.keeper.session_count(), 1);
    after.pass(3_900);
    assert!(after.keeper.tree().get("/e").is_some());
    after.pass(400);
    after.durable();
    assert!(after.keeper.tree().get("/e").is_none() && after.keeper.tree().session(session).is_none());
}

#[test]
fn while_the_disk_is_nearly_full_only_what_makes_the_data_smaller_is_done() {
    let mut bench = Bench::new();
    let (me, _) = bench.client(1);
    bench.create(me, 1, "/a", 0);
    bench.durable();
    bench.input(Input::DiskFull(true));
    bench.create(me, 2, "/b", 0);
    bench.watch(me, 3, op::GET_DATA, "/a");
    bench.frame(me, |encoder| {
        encoder.int(4).int(op::DELETE).string("/a").int(-1);
    });
    bench.durable();
    let expected = [ok(1), failed(2, ErrorCode::SystemError), ok(3), event(2, "/a"), ok(4)];
    assert_eq!(bench.packets(me), expected);
    let (you, _) = bench.client(2);
    bench.bare(you, 1, op::CLOSE_SESSION);
    bench.input(Input::DiskFull(false));
    bench.create(me, 5, "/b", 0);
    bench.durable();
    assert_eq!((bench.packets(you), bench.packets(me)), (vec![ok(1)], vec![ok(5)]));
}
