//! Which ends of a node's process are explained by what was done to it. All others are bugs, or of a test bed that is broken.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// What a node ends with that cannot trust its disk any more, or cannot start.
const FAILED: i32 = 1;

/// What a node ends with that was removed.
const REMOVED: i32 = 3;

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// What was done to a node until its process ended.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Done {
    /// It was sent SIGKILL.
    pub(crate) killed: bool,
    /// It was sent SIGTERM.
    pub(crate) told_to_end: bool,
    /// It had not yet come so far that it listens to SIGTERM when it was sent.
    pub(crate) told_early: bool,
    /// Its disk has failed it, was full, lost power, or was damaged, since the process was started.
    pub(crate) troubled: bool,
    /// A fault removes it from the cluster, or has.
    pub(crate) let_go: bool,
}

/// Whether the process says that the node was removed from the cluster.
pub(crate) fn was_removed(status: ExitStatus) -> bool {
    status.code() == Some(REMOVED)
}

/// Whether what was done explains this end.
pub(crate) fn is_explained(status: ExitStatus, done: Done) -> bool {
    match (status.code(), status.signal()) {
        (Some(0), _) => done.told_to_end,
        (Some(FAILED), _) => done.troubled,
        (Some(REMOVED), _) => done.let_go,
        (None, Some(SIGKILL)) => done.killed,
        (None, Some(SIGTERM)) => done.told_to_end && done.told_early,
        // Panics, SIGABRT, SIGSEGV, a second process with the same identity: nothing that is done leads there.
        _ => false,
    }
}

/// How it ended, for people.
pub(crate) fn named(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    fn signal(signal: i32) -> ExitStatus {
        ExitStatus::from_raw(signal)
    }

    #[test]
    fn each_end_has_its_one_reason() {
        let nothing = Done::default();
        let everything =
            Done { killed: true, told_to_end: true, told_early: true, troubled: true, let_go: true };
        let told = Done { told_to_end: true, ..nothing };
        let cases = [
            (code(0), told),
            (code(1), Done { troubled: true, ..nothing }),
            (code(3), Done { let_go: true, ..nothing }),
            (signal(9), Done { killed: true, ..nothing }),
            (signal(15), Done { told_early: true, ..told }),
        ];
        for (at, (status, reason)) in cases.into_iter().enumerate() {
            assert!(!is_explained(status, nothing), "{status}");
            assert!(is_explained(status, reason) && is_explained(status, everything), "{status}");
            for (other, (_, not_its)) in cases.into_iter().enumerate() {
                let includes = (at, other) == (0, 4);
                assert_eq!(is_explained(status, not_its), at == other || includes, "{status}: {not_its:?}");
            }
        }
        // A panic, a second process with its identity, an assertion, a bad pointer.
        for never in [code(101), code(4), code(2), code(137), signal(6), signal(11)] {
            assert!(!is_explained(never, everything), "{never}");
        }
        assert!(was_removed(code(3)) && !was_removed(code(1)));
        assert_eq!((named(code(101)), named(signal(6))), ("exit code 101".into(), "signal 6".into()));
    }
}
