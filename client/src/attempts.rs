//! What the attempts at one write add up to.

use quorumkv_protocol::{Certainty, ErrorCode};

use crate::error::{Cause, ConnectionError, Refusal, TooLarge, WriteError};

/// The attempts at one write, all with the same request id.
///
/// Once an attempt is in doubt, the write is: what nodes say of later attempts does not settle the earlier one. A node
/// that does not lead, has no quorum or is overloaded did not see it; and even `Superseded` speaks only of the copy
/// that one leader logged, while another copy may stand in another log or wait in a forwarder. Only the result itself
/// settles it, since it is part of the replicated state and the same for all attempts.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    /// How many may have reached a node.
    sent: u32,
    /// What first left the write in doubt.
    doubt: Option<Cause>,
    /// The last refusal, by an answer or in the handshake.
    refusal: Option<Cause>,
    /// The last failure to connect.
    unreachable: Option<ConnectionError>,
}

impl Attempts {
    /// No byte of an attempt was sent: no connection.
    pub(crate) fn not_sent(&mut self, error: ConnectionError) {
        match error.failure.code() {
            Some(_) => self.refusal = Some(Cause::Connection(error)),
            None => self.unreachable = Some(error),
        }
    }

    /// No byte of an attempt was sent: the write is over a limit.
    pub(crate) fn too_large(&mut self, error: TooLarge) {
        self.refusal = Some(Cause::TooLarge(error));
    }

    /// An attempt was sent, and nothing came back that tells what it came to.
    pub(crate) fn in_doubt(&mut self, cause: Cause) {
        self.sent += 1;
        self.doubt.get_or_insert(cause);
    }

    /// An attempt was sent and answered with a refusal. Returns whether another may succeed.
    pub(crate) fn refused(&mut self, refusal: Refusal) -> bool {
        let code = refusal.code;
        match code.certainty() {
            Certainty::Unknown => self.in_doubt(Cause::Refused(refusal)),
            Certainty::NotApplied => {
                self.sent += 1;
                self.refusal = Some(Cause::Refused(refusal));
            }
        }
        // A logged write may yet commit: asking again with the same id brings its result.
        code.is_worth_retrying() || code == ErrorCode::OutcomeUnknown
    }

    /// Whether nothing was sent so far: then an attempt that is answered with `RequestExpired` was the only one ever,
    /// and the write may start over under another id.
    pub(crate) const fn is_untouched(&self) -> bool {
        self.sent == 0
    }

    /// Whether an attempt may have been carried out.
    pub(crate) const fn is_in_doubt(&self) -> bool {
        self.doubt.is_some()
    }

    /// What the write came to, given that no attempt brought its result and that there will be no more.
    pub(crate) fn into_error(self) -> WriteError {
        match (self.doubt, self.refusal, self.unreachable) {
            (Some(cause), _, _) => WriteError::Unknown { cause },
            (None, Some(cause), _) => WriteError::NotApplied { cause },
            (None, None, Some(error)) => WriteError::Unreachable(error),
            (None, None, None) => WriteError::NotApplied { cause: Cause::TimedOut },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ConnectionFailure;

    fn refusal(code: ErrorCode) -> Refusal {
        Refusal { endpoint: "n:1".parse().unwrap(), code, message: String::new(), evidence: None }
    }

    fn connection(failure: ConnectionFailure) -> ConnectionError {
        ConnectionError { endpoint: "n:1".parse().unwrap(), failure }
    }

    const NOT_APPLIED: [ErrorCode; 16] = [
        ErrorCode::Malformed,
        ErrorCode::UnsupportedVersion,
        ErrorCode::WrongCluster,
        ErrorCode::NotPermitted,
        ErrorCode::TooLarge,
        ErrorCode::Overloaded,
        ErrorCode::NotReady,
        ErrorCode::NotLeader,
        ErrorCode::NoQuorum,
        ErrorCode::Superseded,
        ErrorCode::Conflict,
        ErrorCode::ReadTimedOut,
        ErrorCode::Corruption,
        ErrorCode::DiskFull,
        ErrorCode::ShuttingDown,
        ErrorCode::NotMember,
    ];

    #[test]
    fn a_single_refusal_says_that_it_was_not_applied() {
        for code in NOT_APPLIED {
            let mut attempts = Attempts::default();
            assert_eq!(attempts.refused(refusal(code)), code.is_worth_retrying());
            let error = attempts.into_error();
            assert_eq!((error.certainty(), error.code()), (Certainty::NotApplied, Some(code)));
        }
    }

    #[test]
    fn no_refusal_settles_an_earlier_attempt_that_is_in_doubt() {
        for code in NOT_APPLIED {
            for first in [Cause::TimedOut, Cause::Connection(connection(ConnectionFailure::Ended))] {
                let mut attempts = Attempts::default();
                attempts.in_doubt(first);
                attempts.refused(refusal(code));
                assert_eq!(attempts.into_error().certainty(), Certainty::Unknown, "{code} settled it");
            }
        }
    }

    #[test]
    fn doubt_after_a_refusal_is_doubt() {
        let mut attempts = Attempts::default();
        attempts.refused(refusal(ErrorCode::NotLeader));
        attempts.in_doubt(Cause::TimedOut);
        assert!(matches!(attempts.into_error(), WriteError::Unknown { cause: Cause::TimedOut }));
    }

    #[test]
    fn answers_of_unknown_outcome_are_doubt() {
        for (code, again) in [(ErrorCode::OutcomeUnknown, true), (ErrorCode::RequestExpired, false)] {
            let mut attempts = Attempts::default();
            assert_eq!(attempts.refused(refusal(code)), again);
            let error = attempts.into_error();
            assert_eq!((error.certainty(), error.code()), (Certainty::Unknown, Some(code)));
        }
    }

    #[test]
    fn connections_that_failed_leave_it_certain_and_unreachable() {
        let mut attempts = Attempts::default();
        attempts.not_sent(connection(ConnectionFailure::Ended));
        assert!(attempts.is_untouched());
        let error = attempts.into_error();
        assert_eq!(error.certainty(), Certainty::NotApplied);
        assert!(matches!(error, WriteError::Unreachable(_)));
    }

    #[test]
    fn a_refused_handshake_is_told_before_a_node_that_is_down() {
        let mut attempts = Attempts::default();
        attempts.not_sent(connection(ConnectionFailure::Version(9)));
        attempts.not_sent(connection(ConnectionFailure::Ended));
        let error = attempts.into_error();
        assert!(matches!(error, WriteError::NotApplied { .. }));
        assert_eq!(error.code(), Some(ErrorCode::UnsupportedVersion));
    }

    #[test]
    fn a_failure_to_connect_does_not_settle_doubt() {
        let mut attempts = Attempts::default();
        attempts.in_doubt(Cause::TimedOut);
        attempts.not_sent(connection(ConnectionFailure::Ended));
        assert!(!attempts.is_untouched());
        assert_eq!(attempts.into_error().certainty(), Certainty::Unknown);
    }
}
