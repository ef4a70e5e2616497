//! What is wrong with a history.

use std::fmt;

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::{Action, Operation, Outcome};

/// Longest text of a value or key in a table.
const SHOWN: usize = 48;

/// A few operations that contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// What contradicts what, in one sentence.
    pub reason: String,
    /// The operations that it speaks of, in the order of their calls.
    pub operations: Vec<Operation>,
}

impl Violation {
    pub(crate) fn new<'a>(
        reason: impl Into<String>,
        operations: impl IntoIterator<Item = &'a Operation>,
    ) -> Box<Self> {
        let mut distinct: Vec<Operation> = Vec::new();
        for operation in operations {
            if !distinct.contains(operation) {
                distinct.push(operation.clone());
            }
        }
        distinct.sort_by_key(|operation| (operation.called, operation.returned.unwrap_or(u64::MAX)));
        Box::new(Self { reason: reason.into(), operations: distinct })
    }
}

impl std::error::Error for Violation {}

impl fmt::Display for Violation {
    /// The reason, and the operations as a table. Times are milliseconds since the first of them was called.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.reason)?;
        let begin = self.operations.iter().map(|operation| operation.called).min().unwrap_or(0);
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["CLIENT", "KEY", "CALLED MS", "ANSWERED MS", "OPERATION", "ANSWER"]);
        for operation in &self.operations {
            table.add_row([
                operation.client.to_string(),
                shortened(&operation.key),
                milliseconds(operation.called - begin),
                operation
                    .returned
                    .map_or("never".to_owned(), |time| milliseconds(time.saturating_sub(begin))),
                operation.action.to_string(),
                operation.outcome.to_string(),
            ]);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table.lines().try_for_each(|line| writeln!(f, "{}", line.trim_end()))
    }
}

/// Nanoseconds as milliseconds.
pub(crate) fn milliseconds(nanoseconds: u64) -> String {
    let microseconds = nanoseconds / 1000;
    format!("{}.{:03}", microseconds / 1000, microseconds % 1000)
}

/// A text that fits into a table and is harmless to a terminal.
pub(crate) fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN).flat_map(printable).collect();
    if text.chars().nth(SHOWN).is_some() {
        short.push('…');
    }
    short
}

fn printable(c: char) -> impl Iterator<Item = char> {
    let (plain, escaped) = if c.is_control() { (None, Some(c.escape_default())) } else { (Some(c), None) };
    plain.into_iter().chain(escaped.into_iter().flatten())
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get => f.write_str("get"),
            Self::Put { value } => write!(f, "put {}", shortened(value)),
            Self::Delete => f.write_str("delete"),
            Self::CompareAndSet { expected: 0, value } => write!(f, "set if absent {}", shortened(value)),
            Self::CompareAndSet { expected, value } => {
                write!(f, "set if at {expected} {}", shortened(value))
            }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found { value, version } => write!(f, "{} at {version}", shortened(value)),
            Self::Absent => f.write_str("absent"),
            Self::Applied { version } => write!(f, "applied at {version}"),
            Self::Mismatch { actual: 0 } => f.write_str("mismatch: absent"),
            Self::Mismatch { actual } => write!(f, "mismatch: at {actual}"),
            Self::Failed => f.write_str("failed"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_is_a_sentence_and_a_small_table() {
        let put = Operation {
            client: 1,
            key: "k\n".to_owned(),
            called: 1_000_000,
            returned: Some(2_500_000),
            action: Action::Put { value: "a".repeat(50) },
            outcome: Outcome::Applied { version: 7 },
        };
        let get = Operation {
            client: 2,
            called: 3_000_000,
            returned: None,
            action: Action::Get,
            outcome: Outcome::Unknown,
            ..put.clone()
        };
        let violation = Violation::new("It is wrong.", [&get, &put, &get]);
        let text = violation.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "It is wrong.");
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert_eq!(words(lines[3]), format!("1 k\\n 0.000 1.500 put {}… applied at 7", "a".repeat(48)));
        assert_eq!(words(lines[4]), "2 k\\n 2.000 never get unknown");
        assert_eq!(lines.len(), 5);
    }
}
