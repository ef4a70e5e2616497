//! Much at once: what one turn does is bounded, and the order of things is the same.

use super::tests::{Bench, Packet, event, failed, frame, ok, packets};
use super::*;
use crate::wire::{ErrorCode, WatchMode, op};

/// Names of znodes that are long enough for an event of theirs to be shared.
fn long(name: &str) -> String {
    format!("/{name}{}", "x".repeat(4000))
}

/// One client, and many that watch everything.
fn crowd(bench: &mut Bench, watchers: u64) -> (ConnectionId, Vec<ConnectionId>) {
    let (writer, _) = bench.client(1);
    let crowd: Vec<_> = (2..2 + watchers).map(|number| bench.client(number).0).collect();
    for &connection in &crowd {
        bench.keeper.watches.add("/", connection, WatchMode::Recursive);
    }
    (writer, crowd)
}

#[test]
fn an_event_is_encoded_once_for_all_who_watch() {
    let mut bench = Bench::new();
    let (writer, crowd) = crowd(&mut bench, 50);
    bench.create(writer, 1, &long("a"), 0);
    bench.keeper.handle(bench.now, Input::Durable(bench.logged));
    let effects = bench.keeper.flush();
    let of_crowd = |id: &ConnectionId| crowd.contains(id);
    let told: Vec<_> = effects.sends.iter().filter(|(id, _)| of_crowd(id)).map(|(_, bytes)| bytes).collect();
    assert_eq!(told.len(), 50);
    assert!(told.iter().all(|bytes| bytes.as_ptr() == told[0].as_ptr()), "they are the same bytes");
}

#[test]
fn a_burst_of_events_is_told_in_turns_of_bounded_size_and_in_order() {
    const LARGEST_TURN: usize = 5 << 20;
    let mut bench = Bench::new();
    let (writer, crowd) = crowd(&mut bench, 300);
    let paths: Vec<_> = (0..20).map(|i| long(&format!("{i:02}"))).collect();
    for (xid, path) in (1..).zip(&paths) {
        bench.create(writer, xid, path, 0);
    }
    let mut turns = 0;
    let mut received: BTreeMap<ConnectionId, Vec<Packet>> = BTreeMap::new();
    loop {
        bench.keeper.handle(bench.now, Input::Durable(bench.logged));
        let effects = bench.keeper.flush();
        let bytes: usize = effects.sends.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(bytes < LARGEST_TURN, "{bytes} bytes in one turn");
        for (id, bytes) in effects.sends {
            received.entry(id).or_default().extend(packets(&bytes));
        }
        turns += 1;
        if !bench.keeper.is_behind() {
            break;
        }
        effects.waiting.into_iter().for_each(|id| bench.keeper.resume(id));
    }
    assert!(turns > 4, "24 MB were told in {turns} turns");
    let events: Vec<_> = paths.iter().map(|path| event(1, path)).collect();
    for connection in crowd {
        assert_eq!(received[&connection], events);
    }
    assert_eq!(received[&writer], (1..=20).map(ok).collect::<Vec<_>>());
}

#[test]
fn nobody_sees_a_change_that_others_are_still_being_told_of_before_its_event() {
    let mut bench = Bench::new();
    let (writer, crowd) = crowd(&mut bench, 1500);
    let (first, last) = (crowd[0], crowd[1499]);
    bench.create(writer, 1, &long("a"), 0);
    bench.keeper.handle(bench.now, Input::Durable(bench.logged));
    assert!(bench.keeper.is_behind(), "6 MB are too much for one turn");
    assert!(bench.keeper.tree().get(&long("a")).is_some(), "it is applied");
    bench.keeper.flush();
    // Who has been told, who has not, and who does not watch.
    for connection in [first, last, writer] {
        bench.handle_watch(connection, 7, op::EXISTS, &long("a"));
    }
    let effects = bench.keeper.flush();
    assert!(effects.sends.is_empty(), "nothing is answered yet");
    assert_eq!(effects.waiting, [first, last], "the writer waits for the answer to its change anyway");
    effects.waiting.into_iter().for_each(|id| bench.keeper.resume(id));
    bench.durable();
    assert_eq!(bench.packets(first), [ok(7)], "it was told in the first turn");
    assert_eq!(bench.packets(last), [event(1, &long("a")), ok(7)]);
    assert_eq!(bench.packets(writer), [ok(1), ok(7)]);
}

#[test]
fn a_watcher_that_leaves_while_a_change_is_told_is_told_nothing_more() {
    let mut bench = Bench::new();
    let (writer, crowd) = crowd(&mut bench, 1500);
    bench.create(writer, 1, &long("a"), 0);
    bench.keeper.handle(bench.now, Input::Durable(bench.logged));
    bench.keeper.flush();
    let (gone, malformed) = (crowd[1498], crowd[1499]);
    bench.keeper.handle(bench.now, Input::Closed { connection: gone });
    bench.keeper.handle(bench.now, Input::Frame { connection: malformed, frame: Bytes::from_static(&[0]) });
    bench.durable();
    assert_eq!((bench.packets(gone), bench.packets(malformed)), (vec![], vec![]));
    assert_eq!(bench.closed, [malformed]);
    assert_eq!(bench.packets(crowd[1497]), [event(1, &long("a"))]);
}

#[test]
fn very_many_transactions_are_applied_in_several_turns() {
    let mut bench = Bench::new();
    let (writer, _) = bench.client(1);
    for xid in 1..=10_000 {
        bench.create(writer, xid, &format!("/{xid}"), 0);
    }
    bench.keeper.handle(bench.now, Input::Durable(bench.logged));
    assert!(bench.keeper.is_behind());
    let applied = bench.keeper.tree().len();
    assert!(applied > 1000 && applied < 10_000, "{applied} in the first turn");
    bench.durable();
    assert_eq!(bench.packets(writer), (1..=10_000).map(ok).collect::<Vec<_>>());
}

#[test]
fn the_answers_of_one_turn_are_bounded_over_all_connections() {
    let mut bench = Bench::new();
    let clients: Vec<_> = (1..=100).map(|number| bench.client(number).0).collect();
    bench.create(clients[0], 1, "/a", 0);
    bench.frame(clients[0], |encoder| {
        encoder.int(2).int(op::SET_DATA).string("/a").buffer(Some(&vec![7; 900_000])).int(-1);
    });
    bench.durable();
    bench.take(clients[0]);
    for &connection in &clients {
        bench.handle_watch(connection, 3, op::GET_DATA, "/a");
    }
    let effects = bench.keeper.flush();
    let bytes: usize = effects.sends.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes < 18 << 20, "{bytes} bytes in one turn");
    assert_eq!(effects.sends.len() + effects.waiting.len(), 100);
    let answered: Vec<_> = effects.sends.iter().map(|(id, _)| *id).collect();
    effects.waiting.into_iter().for_each(|id| bench.keeper.resume(id));
    bench.input(Input::Tick);
    for connection in clients.into_iter().filter(|id| !answered.contains(id)) {
        assert_eq!(bench.packets(connection), [ok(3)]);
    }
}

#[test]
fn a_session_with_very_many_ephemerals_ends_in_several_transactions() {
    const LONG: usize = 500_000;
    let mut bench = Bench::new();
    let (me, session) = bench.client(1);
    let (you, _) = bench.client(2);
    let path = |i: i32| format!("/{i:02}{}", "x".repeat(LONG));
    for i in 0..20 {
        bench.create(me, i, &path(i), 1);
    }
    let before = bench.logged;
    bench.bare(me, 99, op::CLOSE_SESSION);
    assert_eq!(bench.logged - before, 10, "10 MB of paths go in pieces of 1 MiB");
    bench.create(you, 2, &path(3), 0);
    bench.durable();
    assert!(bench.keeper.tree().session(session).is_none());
    assert_eq!(bench.keeper.tree().ephemerals_len(), 0);
    assert!(bench.keeper.tree().get(&path(3)).is_some(), "what is created after the end stays");
    assert_eq!(bench.packets(me).last(), Some(&ok(99)));
}

#[test]
fn long_answers_come_in_pieces_and_in_order() {
    let mut bench = Bench::new();
    let (me, _) = bench.client(1);
    bench.create(me, 1, "/a", 0);
    bench.durable();
    bench.frame(me, |encoder| {
        encoder.int(2).int(op::SET_DATA).string("/a").buffer(Some(&vec![7; 900_000])).int(-1);
    });
    for xid in 3..200 {
        bench.frame(me, |encoder| {
            encoder.int(xid).int(op::GET_DATA).string("/a").boolean(false);
        });
    }
    assert!(!bench.keeper.is_busy(me), "short requests wait for their turn");
    bench.durable();
    let expected: Vec<_> = (1..200).map(ok).collect();
    assert_eq!(bench.packets(me), expected);
}

#[test]
fn one_request_cannot_ask_for_more_than_a_reply_holds() {
    let mut bench = Bench::new();
    let (me, _) = bench.client(1);
    bench.create(me, 1, "/a", 0);
    bench.frame(me, |encoder| {
        encoder.int(2).int(op::SET_DATA).string("/a").buffer(Some(&vec![7; 900_000])).int(-1);
    });
    bench.durable();
    bench.take(me);
    let frame = frame(me, |encoder| {
        encoder.int(3).int(op::MULTI_READ);
        // The shortest there are: more than any bound that counts on longer ones.
        for path in std::iter::repeat_n("", 70_000).chain(std::iter::repeat_n("/a", 1_000)) {
            encoder.int(op::GET_DATA).boolean(false).int(-1).string(path).boolean(false);
        }
        encoder.int(-1).boolean(true).int(-1);
    });
    bench.keeper.handle(bench.now, frame);
    let sent: usize = bench.keeper.flush().sends.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(sent > 4 << 20 && sent < 16 << 20, "{sent} bytes");
}

#[test]
fn nobody_has_identities_without_bound() {
    let mut bench = Bench::new();
    let (me, _) = bench.client(1);
    for i in 0..100 {
        bench.frame(me, |encoder| {
            let auth = format!("user-{i}:secret");
            encoder.int(-4).int(op::AUTH).int(0).string("digest").buffer(Some(auth.as_bytes()));
        });
    }
    let packets = bench.packets(me);
    assert_eq!(packets.last(), Some(&failed(-4, ErrorCode::AuthFailed)));
    assert!(packets.len() > 50 && bench.closed == [me], "{} were answered", packets.len());
}
