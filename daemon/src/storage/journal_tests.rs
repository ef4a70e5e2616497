use quorumkv_protocol::peer::{Heartbeat, PeerEnvelope, PeerMessage};
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;

const PEER: NodeId = NodeId::new(7);

const OPTIONS: JournalOptions =
    JournalOptions { must_exist: false, segment_bytes: 1 << 20, retain_bytes: 1 << 20 };

fn id(version: u64) -> EntryId {
    EntryId::new(Epoch::new(1, NodeId::new(9)), Version::new(version))
}

fn entry(version: u64) -> LogRecord {
    LogRecord::Entry(Arc::new(Entry { id: id(version), body: Body::Open }))
}

/// A message that is told from others by its number.
fn message(number: u64) -> Outgoing {
    let heartbeat =
        Heartbeat { epoch: Epoch::ZERO, last: Version::ZERO, compare: None, committed: Version::new(number) };
    let envelope = PeerEnvelope { correlation: number, body: PeerMessage::Heartbeat(heartbeat) };
    Outgoing { to: PEER, envelope }
}

struct Opened {
    journal: Journal,
    recovered: Recovered,
    done: UnboundedReceiver<Done>,
    routes: Arc<Routes>,
}

fn open(dir: &Path, options: JournalOptions, applied: EntryId) -> Result<Opened, OpenJournalError> {
    #[allow(clippy::disallowed_methods, reason = "a test sends a handful")]
    let (done_in, done) = unbounded_channel();
    let routes = Arc::<Routes>::default();
    let metrics = Arc::new(Metrics::new());
    let (journal, recovered) = Journal::open(dir, options, applied, Arc::clone(&routes), done_in, metrics)?;
    Ok(Opened { journal, recovered, done, routes })
}

/// A directory whose log holds the entries 1 to `last`.
fn log_up_to(last: u64) -> TempDir {
    let dir = TempDir::new().expect("a directory");
    let mut opened = open(dir.path(), OPTIONS, EntryId::ZERO).expect("a new log");
    opened.journal.submit(&(1..=last).map(entry).collect::<Vec<_>>(), None, Vec::new());
    opened.journal.close();
    dir
}

#[test]
fn what_waits_for_the_log_leaves_in_order_after_the_owner_knows_and_the_disk_has_it() {
    let dir = TempDir::new().expect("a directory");
    let Opened { mut journal, mut done, routes, .. } =
        open(dir.path(), OPTIONS, EntryId::ZERO).expect("a new log");
    let (_way, mut sent) = routes.connect(PEER);
    for number in 1..=20 {
        journal.submit(
            &[entry(number)],
            Some(PersistId(number)),
            vec![message(2 * number), message(2 * number + 1)],
        );
    }
    let mut known = 0;
    for number in 1..=20 {
        for expected in [2 * number, 2 * number + 1] {
            assert_eq!(sent.blocking_recv().expect("a message").correlation, expected);
        }
        while let Ok(event) = done.try_recv() {
            let Done::Persisted(PersistId(persisted)) = event else { panic!("{event:?}") };
            assert!(persisted > known, "{persisted} after {known}");
            known = persisted;
        }
        assert!(known >= number, "a message left although only {known} was known to be durable");
        // What a crash would leave at this moment.
        let copy = TempDir::new().expect("a directory");
        for file in std::fs::read_dir(dir.path()).expect("the log's files") {
            let file = file.expect("a file");
            std::fs::copy(file.path(), copy.path().join(file.file_name())).expect("a copy");
        }
        let left = open(copy.path(), OPTIONS, EntryId::ZERO).expect("a log").recovered.last;
        assert!(left >= id(number), "a message left although the log ends at {left}");
    }
    journal.close();
}

#[test]
fn a_message_that_waits_for_nothing_new_still_waits_its_turn() {
    let dir = TempDir::new().expect("a directory");
    let Opened { mut journal, routes, .. } = open(dir.path(), OPTIONS, EntryId::ZERO).expect("a new log");
    let (_way, mut sent) = routes.connect(PEER);
    journal.submit(&[entry(1)], Some(PersistId(1)), vec![message(1)]);
    journal.submit(&[], None, vec![message(2)]);
    journal.close();
    assert_eq!([1, 2].map(|_| sent.try_recv().expect("a message").correlation), [1, 2]);
}

#[test]
fn a_log_is_read_back_behind_the_state() {
    let dir = log_up_to(3);
    let recovered = open(dir.path(), OPTIONS, id(1)).expect("the log").recovered;
    assert_eq!((recovered.base, recovered.last, recovered.applied), (EntryId::ZERO, id(3), id(1)));
    assert_eq!(recovered.unapplied.iter().map(|entry| entry.id).collect::<Vec<_>>(), [id(2), id(3)]);
}

#[test]
fn a_state_that_is_ahead_of_the_log_has_the_log_start_anew_after_it() {
    let dir = log_up_to(3);
    let recovered = open(dir.path(), OPTIONS, id(5)).expect("the log").recovered;
    assert_eq!((recovered.base, recovered.last, recovered.applied), (id(5), id(5), id(5)));
    let again = open(dir.path(), OPTIONS, id(5)).expect("the log").recovered;
    assert_eq!((again.base, again.last), (id(5), id(5)), "it stays so");
}

#[test]
fn a_member_whose_log_is_gone_is_refused() {
    let must_exist = JournalOptions { must_exist: true, ..OPTIONS };
    let dir = TempDir::new().expect("a directory");
    let error = open(dir.path(), must_exist, id(1)).map(|_| ()).expect_err("no log");
    assert!(matches!(error, OpenJournalError::Missing), "{error}");
    let there = log_up_to(1);
    assert_eq!(open(there.path(), must_exist, EntryId::ZERO).expect("the log").recovered.last, id(1));
}

#[test]
fn a_state_older_than_the_log_reaches_back_is_refused() {
    let dir = TempDir::new().expect("a directory");
    let mut opened = open(dir.path(), OPTIONS, EntryId::ZERO).expect("a new log");
    opened.journal.submit(&[LogRecord::Base(id(10)), entry(11)], None, Vec::new());
    opened.journal.close();
    let error = open(dir.path(), OPTIONS, id(9)).map(|_| ()).expect_err("a gap");
    assert!(
        matches!(error, OpenJournalError::Gap { base, applied } if base == id(10) && applied == id(9)),
        "{error}"
    );
    assert_eq!(open(dir.path(), OPTIONS, id(10)).expect("the log").recovered.last, id(11));
}

#[test]
fn a_damaged_file_goes_only_as_far_as_the_state_is_durable() {
    let dir = log_up_to(20);
    let Opened { mut journal, done, .. } = open(dir.path(), OPTIONS, id(20)).expect("the log");
    journal.roll();
    journal.submit(&[entry(21)], Some(PersistId(1)), Vec::new());
    let mut done = done;
    let Some(Done::Persisted(_)) = done.blocking_recv() else { panic!("it is not durable") };
    let damaged = journal.first_segment();
    assert_eq!(journal.reader().highest_upto(damaged), 20);
    assert_eq!(journal.trim(id(20), None, None), EntryId::ZERO, "a short log is kept whole");
    assert_eq!(journal.trim(id(19), None, Some(damaged)), EntryId::ZERO, "entry 20 is nowhere else");
    assert_eq!(journal.first_segment(), damaged);
    // Somebody who is being restored may need it, and cannot have it.
    assert_eq!(journal.trim(id(20), Some(Version::new(5)), Some(damaged)), id(20));
    assert_eq!(journal.first_segment(), damaged + 1);
}
