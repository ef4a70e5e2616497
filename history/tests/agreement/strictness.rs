//! What one check sees and another does not, exactly.

use quorumkv_history::{Action, Operation, Order, Outcome, check, check_local, search, zones};

fn operation(key: &str, called: u64, returned: u64, action: Action, outcome: Outcome) -> Operation {
    let client = u32::try_from(called).expect("a small time");
    Operation { client, key: key.to_owned(), called, returned: Some(returned), action, outcome }
}

fn put(key: &str, value: &str, version: u64, called: u64, returned: u64) -> Operation {
    operation(key, called, returned, Action::Put { value: value.to_owned() }, Outcome::Applied { version })
}

fn found(key: &str, value: &str, version: u64, called: u64, returned: u64) -> Operation {
    let outcome = Outcome::Found { value: value.to_owned(), version };
    operation(key, called, returned, Action::Get, outcome)
}

fn absent(key: &str, called: u64, returned: u64) -> Operation {
    operation(key, called, returned, Action::Get, Outcome::Absent)
}

fn unanswered(key: &str, called: u64, action: Action) -> Operation {
    Operation { returned: None, ..operation(key, called, called, action, Outcome::Unknown) }
}

fn cas(key: &str, expected: u64, value: &str, outcome: Outcome, called: u64, returned: u64) -> Operation {
    let action = Action::CompareAndSet { expected, value: value.to_owned() };
    operation(key, called, returned, action, outcome)
}

/// Only versions contradict each other: values alone have an order.
fn only_by_versions(history: &[Operation]) -> String {
    assert!(search(history, Order::Values));
    zones(history).expect("zones do not compare versions");
    assert!(!search(history, Order::Versions));
    check(history).expect_err("it is a violation").reason
}

fn refused(history: &[Operation]) -> String {
    assert!(!search(history, Order::Versions));
    check(history).expect_err("it is a violation").reason
}

#[test]
fn a_later_write_has_the_higher_version_whatever_its_key() {
    for key in ["a", "b"] {
        let history = [put("a", "x", 5, 1, 2), put(key, "y", 4, 3, 4)];
        assert!(only_by_versions(&history).contains("version 4 although version 5"));
    }
}

#[test]
fn what_is_told_contradicts_itself_also_where_an_absence_proves_only_what_was_answered_before() {
    let deleted = operation("a", 1, 20, Action::Delete, Outcome::Applied { version: 5 });
    let history = [deleted, put("b", "x", 9, 2, 3), absent("a", 4, 5), put("a", "y", 4, 6, 7)];
    let violation = check(&history).expect_err("it is a violation");
    assert!(!search(&violation.operations, Order::Versions), "{violation}");
}

#[test]
fn reads_of_two_keys_see_one_log() {
    // Both writes are under way. Whoever sees the second must see the first from then on.
    let history = [
        put("a", "x", 5, 1, 20),
        put("b", "y", 6, 1, 20),
        put("a", "w", 3, 0, 1),
        found("b", "y", 6, 3, 4),
        found("a", "w", 3, 5, 6),
    ];
    assert!(only_by_versions(&history).contains("found version 3"));
}

#[test]
fn zones_do_not_know_whose_an_absence_is() {
    let delete = operation("a", 3, 4, Action::Delete, Outcome::Applied { version: 2 });
    let history = [put("a", "x", 1, 1, 2), delete, put("a", "y", 3, 5, 6), absent("a", 7, 8)];
    zones(&history).expect("some delete may have come");
    assert!(!search(&history, Order::Values));
    assert!(refused(&history).contains("absent"));
}

#[test]
fn an_absence_needs_a_delete_and_an_unanswered_one_is_enough_once() {
    let late = Operation { client: 9, ..unanswered("a", 3, Action::Delete) };
    let mut history = vec![
        put("a", "x", 1, 1, 2),
        late,
        absent("a", 4, 5),
        put("a", "y", 3, 6, 7),
        found("a", "y", 3, 8, 9),
    ];
    assert_eq!(check(&history).expect("it deleted x").searched, 0);
    history.push(absent("a", 10, 11));
    assert!(refused(&history).contains("whichever"));
    history.push(Operation { client: 10, ..unanswered("a", 9, Action::Delete) });
    check(&history).expect("two are enough for two");
    history.push(found("a", "y", 3, 12, 13));
    assert!(refused(&history).contains("gone"));
}

#[test]
fn an_unanswered_condition_does_not_survive_a_delete() {
    // Only the compare-and-set can have written version 3, and it needed version 1, which the delete had taken away.
    let set = Action::CompareAndSet { expected: 1, value: "y".to_owned() };
    let mut history = vec![
        put("a", "x", 1, 1, 2),
        unanswered("a", 3, Action::Delete),
        unanswered("a", 4, set),
        absent("a", 5, 6),
        cas("a", 9, "z", Outcome::Mismatch { actual: 3 }, 7, 8),
    ];
    assert!(refused(&history).contains("whichever"));
    history.push(Operation { client: 11, ..unanswered("a", 4, Action::Put { value: "w".to_owned() }) });
    check(&history).expect("a put needs nothing");
}

#[test]
fn what_is_read_was_written_there_once_and_took_effect() {
    for (history, words) in [
        (vec![found("a", "x", 1, 1, 2)], "nobody wrote"),
        (vec![put("b", "x", 1, 1, 2), found("a", "x", 1, 3, 4)], "another key"),
        (vec![put("a", "x", 1, 1, 2), found("a", "x", 2, 3, 4)], "version 1 and at version 2"),
        (vec![put("a", "x", 1, 1, 9), put("b", "y", 1, 1, 9)], "same version"),
        (
            vec![cas("a", 7, "x", Outcome::Mismatch { actual: 0 }, 1, 2), found("a", "x", 1, 3, 4)],
            "not applied",
        ),
        (vec![cas("a", 7, "x", Outcome::Mismatch { actual: 7 }, 1, 2)], "refused although"),
        (vec![cas("a", 7, "x", Outcome::Mismatch { actual: 3 }, 1, 2)], "nothing can have written"),
        (vec![cas("a", 3, "x", Outcome::Applied { version: 4 }, 1, 2)], "nothing can have written"),
        (vec![operation("a", 1, 2, Action::Delete, Outcome::Applied { version: 2 })], "nothing can have put"),
        (
            vec![put("a", "x", 1, 1, 2), cas("a", 0, "y", Outcome::Applied { version: 2 }, 3, 4)],
            "nothing can have deleted",
        ),
        (
            vec![
                put("a", "x", 1, 1, 9),
                put("a", "y", 2, 1, 9),
                cas("a", 1, "z", Outcome::Applied { version: 3 }, 1, 9),
            ],
            "another came between",
        ),
        (vec![put("a", "x", 1, 5, 6), found("a", "x", 1, 1, 2)], "before the write was called"),
        (
            vec![put("a", "x", 1, 1, 2), put("a", "y", 2, 3, 4), found("a", "x", 1, 5, 6)],
            "replaced at version 2",
        ),
    ] {
        let reason = refused(&history);
        assert!(reason.contains(words), "{words}: {reason}");
    }
}

#[test]
fn failed_operations_have_no_effect() {
    let mut failed = put("a", "x", 1, 1, 2);
    failed.outcome = Outcome::Failed;
    assert!(check(&[failed.clone(), absent("a", 3, 4)]).is_ok());
    assert!(refused(&[failed, found("a", "x", 1, 3, 4)]).contains("not applied"));
}

#[test]
fn old_reads_are_counted_and_nothing_else_is_let_through() {
    let writes = [put("a", "x", 1, 1, 2), put("a", "y", 4, 3, 4), put("a", "z", 9, 5, 6)];
    let with = |more: &[Operation]| [&writes[..], more].concat();
    let reads =
        [found("a", "z", 9, 7, 8), found("a", "x", 1, 7, 8), absent("a", 7, 8), found("a", "y", 4, 4, 8)];
    let (_, stale) = check_local(&with(&reads)).expect("they are old");
    assert_eq!((stale.reads, stale.stale, stale.behind, stale.furthest_behind), (4, 2, 8 + 9, 9));
    assert!(check_local(&with(&[found("a", "w", 3, 7, 8)])).is_err());
    assert!(check_local(&with(&[found("a", "z", 9, 3, 4)])).is_err(), "from the future");
    assert!(check_local(&with(&[put("b", "v", 3, 7, 8)])).is_err(), "writes are not old");
    let condition = cas("a", 4, "v", Outcome::Mismatch { actual: 1 }, 7, 8);
    assert!(check_local(&with(&[condition])).is_err(), "nor are conditions");
}

#[test]
fn operations_are_one_line_of_json_each() {
    let line = serde_json::to_string(&found("a", "x", 1, 1, 2)).expect("JSON");
    assert_eq!(
        line,
        r#"{"client":1,"key":"a","called":1,"returned":2,"action":"get","outcome":{"found":{"value":"x","version":1}}}"#
    );
    assert_eq!(serde_json::from_str::<Operation>(&line).expect("an operation"), found("a", "x", 1, 1, 2));
}
