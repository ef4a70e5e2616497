//! What is not durable is shown to nobody, however it came about.

use super::tests::{Bench, event, failed, ok};
use super::*;
use crate::wire::{ErrorCode, op};

#[test]
fn what_is_durable_in_part_is_shown_in_part() {
    let mut bench = Bench::new();
    let ((me, _), (you, _)) = (bench.client(1), bench.client(2));
    for (xid, path) in [(1, "/a"), (2, "/b"), (3, "/c")] {
        bench.watch(you, xid, op::EXISTS, path);
    }
    bench.packets(you);
    let before = bench.logged;
    for (xid, path) in [(1, "/a"), (2, "/b"), (3, "/c")] {
        bench.create(me, xid, path, 0);
    }
    for (number, path) in [(1, "/a"), (2, "/b"), (3, "/c")] {
        let durable = before + i64::from(number);
        bench.keeper.handle(bench.now, Input::Durable(durable));
        bench.input(Input::Tick);
        assert_eq!(bench.keeper.tree().last_zxid(), durable);
        assert_eq!((bench.packets(me), bench.packets(you)), (vec![ok(number)], vec![event(1, path)]));
    }
}

#[test]
fn the_ephemerals_of_an_expired_session_are_there_until_its_end_is_durable() {
    let mut bench = Bench::new();
    let ((me, session), (you, _)) = (bench.client(1), bench.client(2));
    bench.create(me, 1, "/e", 1);
    bench.durable();
    bench.input(Input::Closed { connection: me });
    bench.pass(3_000);
    bench.watch(you, 1, op::EXISTS, "/e");
    bench.pass(1_500);
    assert!(bench.notices.iter().any(|notice| matches!(notice, Notice::SessionExpired { .. })));
    bench.watch(you, 2, op::GET_DATA, "/e");
    assert_eq!(bench.packets(you), [ok(1), ok(2)], "nobody is told that it is about to go");
    assert!(bench.keeper.tree().session(session).is_some());
    // Who wants its place gets it, and is told so no earlier than that the place is free.
    bench.create(you, 3, "/e", 1);
    assert_eq!(bench.packets(you), []);
    bench.durable();
    assert_eq!(bench.packets(you), [event(2, "/e"), ok(3)]);
}

#[test]
fn a_session_whose_end_is_in_the_log_is_not_taken_up_again() {
    let mut bench = Bench::new();
    let (me, session) = bench.client(1);
    bench.bare(me, 1, op::CLOSE_SESSION);
    let again = bench.open(2);
    bench.greet(again, session, &[7; 16]);
    assert_eq!(bench.welcome(again), (0, 0));
    assert_eq!(bench.closed, [again]);
    bench.durable();
    assert_eq!((bench.packets(me), &bench.closed), (vec![ok(1)], &vec![again, me]));
}

#[test]
fn a_session_that_is_not_durable_yet_is_not_taken_up_by_another_connection() {
    let mut bench = Bench::new();
    let me = bench.open(1);
    bench.greet(me, 0, &[0; 16]);
    let session = bench.keeper.connections().find_map(|view| view.session).expect("it has begun");
    let thief = bench.open(2);
    bench.greet(thief, session, &[7; 16]);
    assert_eq!(bench.welcome(thief), (0, 0), "nobody can know of it");
    bench.durable();
    assert_eq!(bench.welcome(me).1, session);
}

#[test]
fn the_failure_that_a_change_of_another_causes_waits_for_that_change() {
    let mut bench = Bench::new();
    let ((me, _), (you, _)) = (bench.client(1), bench.client(2));
    bench.create(me, 1, "/a", 0);
    bench.durable();
    bench.packets(me);
    bench.frame(me, |encoder| {
        encoder.int(2).int(op::DELETE).string("/a").int(-1);
    });
    bench.frame(you, |encoder| {
        encoder.int(1).int(op::SET_DATA).string("/a").buffer(None).int(-1);
    });
    bench.frame(you, |encoder| {
        encoder.int(2).int(op::SYNC).string("/");
    });
    assert_eq!(bench.packets(you), []);
    bench.durable();
    assert_eq!(bench.packets(you), [failed(1, ErrorCode::NoNode), ok(2)]);
}
