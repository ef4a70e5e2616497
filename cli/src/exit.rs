//! How kvctl ends: exit codes, and the one line that says what happened and what to do.

use std::borrow::Cow;
use std::io;

use quorumkv_client::{Cause, ConnectError, ConnectionError, ErrorCode, NodeError, ReadError, WriteError};
use serde_json::{Map, Value, json};

/// Exit codes other than 0. Their numbers and names are stable: scripts depend on them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Code {
    /// Anything that has no code of its own.
    Other = 1,
    /// The command line is wrong; nothing was asked of any node.
    Usage = 2,
    /// The key, or the node named, does not exist.
    NotFound = 3,
    /// The key was not at the expected version; nothing changed.
    PreconditionFailed = 4,
    /// No node could be reached; nothing was applied.
    Unreachable = 5,
    /// No quorum answered in time: a write was certainly not applied, a read has no answer.
    NoQuorum = 6,
    /// A write was sent, and it is not known whether it was applied.
    OutcomeUnknown = 7,
    /// The node refuses this to this caller.
    NotPermitted = 8,
    /// A size or load is over a limit, or the disk is nearly full; nothing was applied.
    Limit = 9,
    /// The cluster is not healthy.
    Unhealthy = 10,
}

impl Code {
    /// The name in JSON.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Usage => "usage",
            Self::NotFound => "not_found",
            Self::PreconditionFailed => "precondition_failed",
            Self::Unreachable => "unreachable",
            Self::NoQuorum => "no_quorum",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::NotPermitted => "not_permitted",
            Self::Limit => "limit",
            Self::Unhealthy => "unhealthy",
        }
    }

    /// What to do, where the message itself does not say it.
    const fn advice(self) -> Option<&'static str> {
        match self {
            Self::Usage => Some("see `kvctl --help`, or `kvctl COMMAND --help`"),
            Self::Unreachable => Some("check that the nodes run, and the addresses (-e, KVCTL_ENDPOINTS)"),
            Self::NoQuorum => Some("see `kvctl status`, then try again"),
            Self::OutcomeUnknown => Some("read the key before you decide whether to write again"),
            Self::Other
            | Self::NotFound
            | Self::PreconditionFailed
            | Self::NotPermitted
            | Self::Limit
            | Self::Unhealthy => None,
        }
    }

    /// The exit code for what a node answered, given that a write answered so was not applied.
    const fn of(code: ErrorCode) -> Self {
        match code {
            ErrorCode::NotPermitted => Self::NotPermitted,
            ErrorCode::TooLarge | ErrorCode::Overloaded | ErrorCode::DiskFull => Self::Limit,
            ErrorCode::OutcomeUnknown | ErrorCode::RequestExpired => Self::OutcomeUnknown,
            ErrorCode::NotReady
            | ErrorCode::NotLeader
            | ErrorCode::NoQuorum
            | ErrorCode::Superseded
            | ErrorCode::Conflict
            | ErrorCode::ReadTimedOut
            | ErrorCode::ShuttingDown
            | ErrorCode::NotMember => Self::NoQuorum,
            ErrorCode::Malformed
            | ErrorCode::UnsupportedVersion
            | ErrorCode::WrongCluster
            | ErrorCode::Corruption => Self::Other,
        }
    }
}

/// Why a command ended otherwise than with success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Whoever read stdout has seen enough (`kvctl scan | head`): nobody is left to tell, and nothing went wrong.
    ReaderGone,
    /// Another program that was run has told on stderr what happened.
    Told(Code),
    /// Something is to be told.
    Report(Box<Report>),
}

/// What happened and what to do.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) code: Code,
    message: String,
    advice: Option<Cow<'static, str>>,
    /// Further members of the JSON object.
    details: Map<String, Value>,
}

impl Failure {
    /// A failure with the usual advice for its code.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        let advice = code.advice().map(Cow::Borrowed);
        Self::Report(Box::new(Report { code, message: message.into(), advice, details: Map::new() }))
    }

    /// With other advice than usual.
    pub(crate) fn advise(mut self, advice: impl Into<Cow<'static, str>>) -> Self {
        if let Self::Report(report) = &mut self {
            report.advice = Some(advice.into());
        }
        self
    }

    /// With what it is part of said first.
    pub(crate) fn context(mut self, what: &str) -> Self {
        if let Self::Report(report) = &mut self {
            report.message = format!("{what}: {}", report.message);
        }
        self
    }

    /// With one more member in the JSON object.
    pub(crate) fn detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        if let Self::Report(report) = &mut self {
            report.details.insert(name.to_owned(), value.into());
        }
        self
    }

    /// Its code, if there is anything to tell.
    pub(crate) fn code(&self) -> Option<Code> {
        match self {
            Self::ReaderGone => None,
            Self::Told(code) => Some(*code),
            Self::Report(report) => Some(report.code),
        }
    }

    /// An operation on a file or stream failed; `doing` is verb and object.
    pub(crate) fn io(doing: &str, error: &io::Error) -> Self {
        Self::new(Code::Other, format!("cannot {doing}: {error}"))
    }

    /// Writing to stdout failed.
    pub(crate) fn stdout(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::io("write to stdout", error),
        }
    }

    fn from_node(code: Code, message: String, reason: Option<ErrorCode>) -> Self {
        let failure = Self::new(code, message);
        match reason {
            Some(reason) => failure.detail("reason", reason.name()),
            None => failure,
        }
    }

    /// What asking one node something harmless (its status) came to.
    pub(crate) fn status(error: &NodeError) -> Self {
        let (code, reason) = match error {
            NodeError::Endpoint(_) => (Code::Usage, None),
            NodeError::Unreachable(connection) | NodeError::Lost(connection) => of_connection(connection),
            NodeError::TimedOut(_) => (Code::Unreachable, None),
            NodeError::Refused(refusal) => (Code::of(refusal.code), Some(refusal.code)),
            NodeError::UnexpectedAnswer(_) => (Code::Other, None),
        };
        Self::from_node(code, error.to_string(), reason)
    }

    /// What telling one node to stop came to: without an answer, it may be stopping.
    pub(crate) fn stop(error: &NodeError) -> Self {
        match error {
            NodeError::Lost(_) | NodeError::TimedOut(_) => {
                let message =
                    format!("the node was told to stop, and it is not known whether it does: {error}");
                Self::new(Code::OutcomeUnknown, message).advise("see `kvctl status`")
            }
            NodeError::Endpoint(_)
            | NodeError::Unreachable(_)
            | NodeError::Refused(_)
            | NodeError::UnexpectedAnswer(_) => Self::status(error),
        }
    }
}

impl Report {
    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let text = match &self.advice {
            Some(advice) => format!("kvctl: {}; {advice}", self.message),
            None => format!("kvctl: {}", self.message),
        };
        text.replace(['\n', '\r'], " ")
    }

    /// One line of JSON for programs.
    pub(crate) fn json(&self) -> String {
        let mut error = Map::new();
        error.insert("code".to_owned(), self.code.name().into());
        error.insert("message".to_owned(), self.message.as_str().into());
        error.insert("exit_code".to_owned(), (self.code as u8).into());
        if let Some(advice) = &self.advice {
            error.insert("advice".to_owned(), advice.as_ref().into());
        }
        error.extend(self.details.clone());
        json!({ "error": error }).to_string()
    }
}

/// The code for a connection that could not be made or was lost.
fn of_connection(error: &ConnectionError) -> (Code, Option<ErrorCode>) {
    match error.failure.code() {
        Some(code) => (Code::of(code), Some(code)),
        None => (Code::Unreachable, None),
    }
}

fn of_cause(cause: &Cause) -> (Code, Option<ErrorCode>) {
    match cause {
        Cause::Refused(refusal) => (Code::of(refusal.code), Some(refusal.code)),
        Cause::TooLarge(_) => (Code::Limit, Some(ErrorCode::TooLarge)),
        Cause::Connection(error) => of_connection(error),
        Cause::TimedOut => (Code::NoQuorum, None),
        Cause::UnexpectedAnswer(_) => (Code::Other, None),
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        let (code, reason) = match &error {
            WriteError::Unreachable(connection) => of_connection(connection),
            WriteError::Unknown { cause } => (Code::OutcomeUnknown, cause.code()),
            // Nothing was sent before the deadline, so no node was within reach.
            WriteError::NotApplied { cause: Cause::TimedOut } => (Code::Unreachable, None),
            WriteError::NotApplied { cause } => of_cause(cause),
        };
        Self::from_node(code, error.to_string(), reason)
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        let (code, reason) = match &error {
            ReadError::Conflict(refusal) | ReadError::Refused(refusal) => {
                (Code::of(refusal.code), Some(refusal.code))
            }
            ReadError::TimedOut { cause } => of_cause(cause),
            ReadError::Unreachable(connection) => of_connection(connection),
            ReadError::TooLarge(_) => (Code::Limit, Some(ErrorCode::TooLarge)),
            ReadError::UnexpectedAnswer(_) => (Code::Other, None),
        };
        Self::from_node(code, error.to_string(), reason)
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self::new(Code::Usage, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use expect_test::expect;

    use super::*;

    fn connection() -> ConnectionError {
        use quorumkv_client::ConnectionFailure;
        ConnectionError { endpoint: "n:1".parse().unwrap(), failure: ConnectionFailure::Ended }
    }

    #[test]
    fn a_write_in_doubt_is_never_called_anything_else() {
        for cause in [Cause::TimedOut, Cause::Connection(connection())] {
            let failure = Failure::from(WriteError::Unknown { cause });
            assert_eq!(failure.code(), Some(Code::OutcomeUnknown));
        }
    }

    #[test]
    fn a_write_that_reached_nobody_is_unreachable() {
        for error in
            [WriteError::Unreachable(connection()), WriteError::NotApplied { cause: Cause::TimedOut }]
        {
            assert_eq!(Failure::from(error).code(), Some(Code::Unreachable));
        }
    }

    #[test]
    fn a_stop_without_an_answer_is_unknown_and_without_a_connection_unreachable() {
        assert_eq!(Failure::stop(&NodeError::Lost(connection())).code(), Some(Code::OutcomeUnknown));
        assert_eq!(Failure::stop(&NodeError::Unreachable(connection())).code(), Some(Code::Unreachable));
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let gone = Failure::stdout(&ErrorKind::BrokenPipe.into());
        assert_eq!(gone.code(), None);
        let full = Failure::stdout(&ErrorKind::StorageFull.into());
        assert_eq!(full.code(), Some(Code::Other));
    }

    #[test]
    fn a_report_is_one_line_of_text_or_of_json() {
        let failure = Failure::from(WriteError::Unknown { cause: Cause::TimedOut }).detail("key", "a\nb");
        let Failure::Report(report) = failure else { panic!("there is something to tell") };
        let text = format!("{}\n{}", report.line(), report.json());
        expect![[r#"
            kvctl: outcome unknown, it may have been applied: no answer before the deadline; read the key before you decide whether to write again
            {"error":{"advice":"read the key before you decide whether to write again","code":"outcome_unknown","exit_code":7,"key":"a\nb","message":"outcome unknown, it may have been applied: no answer before the deadline"}}"#]]
        .assert_eq(&text);
    }
}
