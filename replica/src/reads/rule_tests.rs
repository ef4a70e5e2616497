//! The rule itself, and nearby rules that are wrong (DESIGN 6).
//!
//! Each wrong rule is written down here, and a situation shown in which it returns something that the situation after
//! it takes back. The sound rule must not, so these tests fail when it is weakened in that way.

use bytes::Bytes;
use quorumkv_protocol::membership::{Configuration, Member};

use super::*;

const A: NodeId = NodeId::new(0xA);
const B: NodeId = NodeId::new(0xB);
const C: NodeId = NodeId::new(0xC);
const D: NodeId = NodeId::new(0xD);
const E: NodeId = NodeId::new(0xE);

/// An epoch; which node leads in it matters to no rule.
fn epoch(counter: u64) -> Epoch {
    Epoch::new(counter, NodeId::new(counter))
}

fn id(counter: u64, version: u64) -> EntryId {
    EntryId::new(epoch(counter), Version::new(version))
}

fn present(id: EntryId) -> KeyAnswer {
    let value = Bytes::from(id.to_string());
    KeyAnswer::Present { id, checksum: crc32c::crc32c(&value), value: Some(value) }
}

const fn deleted(id: EntryId) -> KeyAnswer {
    KeyAnswer::Absent { deleted: Some(id) }
}

const NEVER_WRITTEN: KeyAnswer = KeyAnswer::Absent { deleted: None };

/// The answer of a settled replica that knows no commit.
fn settled(node: NodeId, last: EntryId, key: KeyAnswer) -> Answer {
    let standing = Standing { last, promise: last.epoch, committed: Version::ZERO };
    Answer { node, round: 1, standing, key }
}

/// The same replica, after it promised a higher epoch.
fn promised(counter: u64, mut answer: Answer) -> Answer {
    answer.standing.promise = epoch(counter);
    answer
}

/// The same replica, when it knows more to be committed.
fn knowing(committed: u64, mut answer: Answer) -> Answer {
    answer.standing.committed = Version::new(committed);
    answer
}

/// Members that a read samples among `count`.
fn quorum_of(count: u64) -> usize {
    let member = |node| Member { node: NodeId::new(node), address: String::new() };
    Configuration::first((0..count).map(member).collect()).quorum()
}

/// What the sound rule says about a sample: the entry and the rule by which it may be returned.
fn read(quorum: usize, answers: &[Answer]) -> (Option<EntryId>, Option<Rule>) {
    let candidate = candidate(answers).expect("there are answers");
    (candidate.entry, verdict(quorum, &candidate, answers))
}

#[test]
fn without_answers_there_is_no_candidate() {
    assert_eq!(candidate(&[]), None);
}

#[test]
fn what_a_quorum_of_settled_logs_holds_is_chosen() {
    let answers = [settled(A, id(1, 3), present(id(1, 2))), settled(B, id(1, 2), present(id(1, 2)))];
    assert_eq!(read(2, &answers), (Some(id(1, 2)), Some(Rule::Chosen)));
}

#[test]
fn what_one_member_of_the_epoch_knows_to_be_committed_is_returned_though_the_others_lag() {
    let answers =
        [knowing(2, settled(A, id(1, 2), present(id(1, 2)))), settled(B, id(1, 1), present(id(1, 1)))];
    assert_eq!(read(2, &answers), (Some(id(1, 2)), Some(Rule::KnownCommitted)));
}

#[test]
fn a_commit_known_to_a_shorter_log_of_the_epoch_counts() {
    let answers =
        [settled(A, id(1, 5), present(id(1, 2))), knowing(2, settled(B, id(1, 3), present(id(1, 2))))];
    assert_eq!(read(2, &answers), (Some(id(1, 2)), Some(Rule::KnownCommitted)));
}

#[test]
fn a_commit_known_in_an_earlier_epoch_says_nothing_about_the_candidate() {
    // A's log is of epoch 2 and replaced version 3; B still holds, and knows committed, only what epoch 1 wrote.
    let answers =
        [settled(A, id(2, 4), present(id(2, 3))), knowing(3, settled(B, id(1, 3), present(id(1, 1))))];
    assert_eq!(read(2, &answers), (Some(id(2, 3)), None));
}

#[test]
fn an_entry_that_not_all_of_a_quorum_have_reached_is_a_conflict() {
    let answers = [settled(A, id(1, 2), present(id(1, 2))), settled(B, id(1, 1), present(id(1, 1)))];
    assert_eq!(read(2, &answers), (Some(id(1, 2)), None));
}

#[test]
fn a_key_that_nobody_ever_touched_is_absent_at_once() {
    let answers = [settled(A, id(1, 2), NEVER_WRITTEN), settled(B, id(1, 1), NEVER_WRITTEN)];
    assert_eq!(read(2, &answers), (None, Some(Rule::KnownCommitted)));
}

#[test]
fn an_uncommitted_delete_is_waited_for_like_a_write() {
    let one = settled(A, id(1, 2), deleted(id(1, 2)));
    assert_eq!(read(2, &[one.clone(), settled(B, id(1, 1), present(id(1, 1)))]), (Some(id(1, 2)), None));
    let both = [one, settled(B, id(1, 2), deleted(id(1, 2)))];
    assert_eq!(read(2, &both), (Some(id(1, 2)), Some(Rule::Chosen)));
}

#[test]
fn the_higher_epoch_decides_however_short_its_log_is() {
    let answers = [
        settled(A, id(1, 9), present(id(1, 9))),
        knowing(4, settled(B, id(2, 4), present(id(1, 3)))),
        settled(C, id(2, 3), present(id(1, 3))),
    ];
    let candidate = candidate(&answers).expect("there are answers");
    assert_eq!((candidate.node, candidate.entry), (B, Some(id(1, 3))));
    assert_eq!(verdict(3, &candidate, &answers), Some(Rule::KnownCommitted));
}

#[test]
fn different_data_under_one_id_is_corruption() {
    let with = |node, checksum, id| settled(node, id, KeyAnswer::Present { id, checksum, value: None });
    let same = [with(A, 7, id(1, 2)), with(B, 7, id(1, 2)), with(C, 8, id(1, 3))];
    assert_eq!(differing(&same), None);
    let different = [with(A, 7, id(1, 2)), with(B, 8, id(1, 2))];
    assert_eq!(differing(&different), Some((A, B, id(1, 2))));
    let value = Some(Bytes::from_static(b"changed"));
    let changed = settled(B, id(1, 2), KeyAnswer::Present { id: id(1, 2), checksum: 7, value });
    assert_eq!(differing(&[with(A, 7, id(1, 2)), changed]), Some((B, B, id(1, 2))));
}

/// Wrong rule (a): what all members sampled hold for the key, by value and version. The epochs of their logs are left
/// out of the comparison.
fn without_the_epoch(quorum: usize, answers: &[Answer]) -> Option<EntryId> {
    let first = answers.first()?.key.id()?;
    (answers.len() >= quorum && answers.iter().all(|answer| answer.key.id() == Some(first))).then_some(first)
}

/// N = 5. The leader of epoch 1 wrote (1,2) to A and B. E led epoch 2, with promises from C and D, wrote (2,2) to itself
/// and died. A leads epoch 3, with promises from C and D, where nothing was better than its own (1,2): it has carried
/// that and its opening entry (3,3) to C, and to nobody else yet.
fn a_dead_leaders_entry_is_carried_on() -> [Answer; 3] {
    [
        settled(A, id(3, 3), present(id(1, 2))),
        settled(B, id(1, 2), present(id(1, 2))),
        settled(C, id(3, 3), present(id(1, 2))),
    ]
}

/// What follows: A and C died. E is back and opened epoch 4 with promises from B and D: its (2,2) outdoes B's (1,2).
fn a_rival_replaced_it() -> [Answer; 3] {
    [B, D, E].map(|node| knowing(3, settled(node, id(4, 3), present(id(2, 2)))))
}

#[test]
fn a_comparison_without_the_epoch_returns_what_a_rival_replaces() {
    let before = a_dead_leaders_entry_is_carried_on();
    assert_eq!(without_the_epoch(3, &before), Some(id(1, 2)), "the wrong rule returns it");
    assert_eq!(
        read(3, &a_rival_replaced_it()),
        (Some(id(2, 2)), Some(Rule::KnownCommitted)),
        "and it is lost"
    );
    assert_eq!(read(3, &before), (Some(id(1, 2)), None), "the sound rule waits");
}

/// Wrong rule (b): the sound rule for fewer members than a write needs.
fn with_a_smaller_read_quorum(answers: &[Answer]) -> Option<EntryId> {
    let candidate = candidate(answers)?;
    verdict(2, &candidate, answers).and(candidate.entry)
}

#[test]
fn a_read_quorum_smaller_than_the_write_quorum_goes_back() {
    // N = 4, so a write needs three. The leader has carried (1,2) to one member beside itself.
    let [a, b] = [A, B].map(|node| settled(node, id(1, 2), present(id(1, 2))));
    let [c, d] = [C, D].map(|node| knowing(1, settled(node, id(1, 1), present(id(1, 1)))));
    assert_eq!(
        with_a_smaller_read_quorum(&[a.clone(), b.clone()]),
        Some(id(1, 2)),
        "the wrong rule returns it"
    );
    assert_eq!(
        with_a_smaller_read_quorum(&[c.clone(), d.clone()]),
        Some(id(1, 1)),
        "and then what was before"
    );

    // The sound rule samples as many as a write needs: whichever they are, nobody sees (1,2), or nobody returns anything older.
    assert_eq!(quorum_of(4), 3);
    assert_eq!(read(3, &[a.clone(), b.clone()]).1, None, "two are no quorum");
    for sample in [[&a, &b, &c], [&a, &b, &d], [&a, &c, &d], [&b, &c, &d]] {
        assert_eq!(read(3, &sample.map(Clone::clone)), (Some(id(1, 2)), None));
    }
}

/// Wrong rule (c): the highest version among the values that are present.
fn highest_present(answers: &[Answer]) -> Option<EntryId> {
    let values = answers.iter().filter(|answer| matches!(answer.key, KeyAnswer::Present { .. }));
    values.filter_map(|answer| answer.key.id()).max_by_key(|id| id.version)
}

#[test]
fn the_highest_version_among_present_values_brings_a_deleted_key_back() {
    // N = 3. A and B committed the delete (1,3); C has not heard of it.
    let a = knowing(3, settled(A, id(1, 3), deleted(id(1, 3))));
    let b = settled(B, id(1, 3), deleted(id(1, 3)));
    let c = knowing(2, settled(C, id(1, 2), present(id(1, 2))));
    assert_eq!(highest_present(&[a.clone(), b.clone()]), None, "a reader finds the key absent");
    assert_eq!(highest_present(&[a.clone(), c.clone()]), Some(id(1, 2)), "and the next one finds it again");

    assert_eq!(read(2, &[a.clone(), b.clone()]), (Some(id(1, 3)), Some(Rule::KnownCommitted)));
    assert_eq!(read(2, &[a, c.clone()]), (Some(id(1, 3)), Some(Rule::KnownCommitted)));
    assert_eq!(
        read(2, &[b, c.clone()]),
        (Some(id(1, 3)), None),
        "B does not know that it is committed, so this waits"
    );

    // The same when the delete was applied so long ago that no entry of it is left.
    let applied = knowing(3, settled(A, id(1, 3), NEVER_WRITTEN));
    assert_eq!(highest_present(&[applied.clone(), c.clone()]), Some(id(1, 2)));
    assert_eq!(read(2, &[applied, c]), (None, Some(Rule::KnownCommitted)));
}

/// Wrong rule (d): the sound rule, but every log counts as a vote, whomever its owner has promised since.
fn counting_unsettled_logs(quorum: usize, answers: &[Answer]) -> Option<EntryId> {
    let candidate = candidate(answers)?;
    let votes = answers.iter().filter(|answer| answer.standing.last >= candidate.position());
    (votes.count() >= quorum).then_some(candidate.entry?)
}

#[test]
fn counting_unsettled_logs_returns_what_a_rival_replaces() {
    // The situation of (a) a moment earlier: A's opening entry is durable nowhere yet, so all three logs are of epoch 1.
    let before = [A, B, C].map(|node| settled(node, id(1, 2), present(id(1, 2))));
    let before = before.map(|answer| if answer.node == B { answer } else { promised(3, answer) });
    assert_eq!(counting_unsettled_logs(3, &before), Some(id(1, 2)), "the wrong rule returns it");
    assert_eq!(
        read(3, &a_rival_replaced_it()),
        (Some(id(2, 2)), Some(Rule::KnownCommitted)),
        "and it is lost"
    );
    assert_eq!(read(3, &before), (Some(id(1, 2)), None), "the sound rule waits");

    // Once the opening entry is on a quorum, (1,2) is committed with it.
    let opened = [A, B, C].map(|node| settled(node, id(3, 3), present(id(1, 2))));
    assert_eq!(read(3, &opened), (Some(id(1, 2)), Some(Rule::Chosen)));
}

#[test]
fn an_answer_by_a_newer_configuration_voids_the_sample_and_one_by_an_older_does_not() {
    assert!(is_void(id(1, 3), id(1, 4), id(1, 9)));
    assert!(
        is_void(EntryId::ZERO, id(1, 3), id(1, 2)),
        "it counts though its entry is not durable there yet"
    );
    assert!(!is_void(id(1, 3), id(1, 3), id(1, 9)));
    assert!(!is_void(id(1, 3), EntryId::ZERO, id(1, 2)), "who is behind answers as usual");
}

/// Wrong rule (e): only a newer configuration voids a sample.
fn only_newer_voids(ours: EntryId, theirs: EntryId) -> bool {
    theirs > ours
}

#[test]
fn a_majority_of_a_dropped_configuration_misses_what_another_commits() {
    // A led epoch 1 over A to D and made E a fifth voter by (1,3), which only A and E hold. D leads epoch 2 without that
    // entry: its opening entry (2,3) is on B, C and D. It made another node the fifth voter by (2,4), and that node, B and
    // D have committed (2,5), which wrote the key. C has heard of neither, and A, which still counts in its own
    // configuration, asks C and E.
    let ours = id(1, 3);
    let (a, e) = (settled(A, ours, present(id(1, 2))), settled(E, ours, present(id(1, 2))));
    let c = knowing(3, settled(C, id(2, 3), present(id(1, 2))));
    assert!(
        is_void(ours, EntryId::ZERO, c.standing.last),
        "C's log is better than one with (1,3), and lacks it"
    );
    assert!(!only_newer_voids(ours, EntryId::ZERO), "the wrong rule lets it pass");
    let returned = read(quorum_of(5), &[a, c, e]);
    assert_eq!(
        returned,
        (Some(id(1, 2)), Some(Rule::KnownCommitted)),
        "and returns the value before the last"
    );
}
