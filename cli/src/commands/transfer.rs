//! What import and export share: patience, a progress bar, and the command that goes on.

use std::time::Duration;

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use quorumkv_client::{Certainty, Client, ErrorCode, ReadError, ScanOptions, Scanned, WriteError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::exit::{Code, Failure};

/// The pause before a second try.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause between tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Tries with growing pauses until a deadline. The client library retries what other nodes may know better; this
/// outlasts what only time can heal, such as a lost quorum.
struct Patience {
    deadline: Instant,
    pause: Duration,
}

impl Patience {
    fn new(timeout: Duration) -> Self {
        Self { deadline: Instant::now() + timeout, pause: FIRST_PAUSE }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Waits before the next try; false if there is no time for one.
    async fn goes_on(&mut self) -> bool {
        if self.left() <= self.pause {
            return false;
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}

/// Whether time may heal it.
const fn may_pass(code: Option<ErrorCode>) -> bool {
    match code {
        None => true,
        Some(code) => {
            code.is_worth_retrying()
                || matches!(
                    code,
                    ErrorCode::NoQuorum
                        | ErrorCode::OutcomeUnknown
                        | ErrorCode::RequestExpired
                        | ErrorCode::Conflict
                        | ErrorCode::ReadTimedOut
                )
        }
    }
}

/// Puts until it is certain that the key holds the value, within `timeout`. A put of the same value again is harmless,
/// so even an unknown outcome is tried again; but if the last try does not settle it, it stays unknown.
pub(crate) async fn put(
    client: &Client,
    key: Bytes,
    value: Bytes,
    timeout: Duration,
) -> Result<(), WriteError> {
    let mut patience = Patience::new(timeout);
    let mut doubt = None;
    loop {
        let error = match client.with_timeout(patience.left()).put(key.clone(), value.clone()).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let again = may_pass(error.code()) && patience.goes_on().await;
        let error = match error.certainty() {
            Certainty::Unknown => doubt.insert(error).clone(),
            Certainty::NotApplied => doubt.clone().unwrap_or(error),
        };
        if !again {
            return Err(error);
        }
    }
}

/// Reads a page, trying until `timeout`.
pub(crate) async fn page(
    client: &Client,
    prefix: &Bytes,
    options: &ScanOptions,
    timeout: Duration,
) -> Result<Scanned, ReadError> {
    let mut patience = Patience::new(timeout);
    loop {
        match client.with_timeout(patience.left()).scan(prefix.clone(), options.clone()).await {
            Err(error) if may_pass(error.code()) && patience.goes_on().await => {}
            ended => return ended,
        }
    }
}

/// The cluster's id; waits until a node knows it.
pub(crate) async fn cluster_id(client: &Client, timeout: Duration) -> Result<String, Failure> {
    client.with_timeout(timeout).ready().await?;
    let mut patience = Patience::new(timeout);
    loop {
        let mut failure = None;
        for endpoint in client.endpoints() {
            let asking = client.with_timeout(patience.left().min(Duration::from_secs(3)));
            match asking.status(endpoint.as_str()).await {
                Ok(status) if status.cluster.is_some() => {
                    return Ok(status.cluster.map(|cluster| cluster.to_string()).unwrap_or_default());
                }
                Ok(_) => {}
                Err(error) => failure = Some(Failure::status(&error)),
            }
        }
        if !patience.goes_on().await {
            let forming = || Failure::new(Code::NoQuorum, "the cluster is still being formed");
            return Err(failure.unwrap_or_else(forming));
        }
    }
}

/// Waits until somebody wants this process to end, with Ctrl-C or as init systems do. What was done so far is then
/// noted down like after any other failure.
pub(crate) async fn interrupted() -> Failure {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            // Without a handler the signal ends the process, which loses nothing but the last second's checkpoint.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
    Failure::new(Code::Other, "interrupted")
}

/// A bar for so many bytes, or a counter if nobody knows how many; on stderr, and only if that is a terminal.
pub(crate) fn bar(bytes: Option<u64>) -> ProgressBar {
    let (bar, template) = match bytes {
        Some(bytes) => (
            ProgressBar::new(bytes),
            "{wide_bar} {bytes}/{total_bytes} ({binary_bytes_per_sec}, {eta} left) {msg}",
        ),
        None => (ProgressBar::no_length(), "{spinner} {bytes} ({binary_bytes_per_sec}) {msg}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("the template is well formed"))
}

/// This process's command line, quoted for a shell.
pub(crate) fn command_line() -> String {
    let words: Vec<_> = std::env::args().collect();
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_change_them() {
        assert_eq!(quoted("a/b-c.jsonl"), "a/b-c.jsonl");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn only_what_time_can_heal_is_tried_again() {
        for code in
            [ErrorCode::NoQuorum, ErrorCode::OutcomeUnknown, ErrorCode::NotLeader, ErrorCode::Overloaded]
        {
            assert!(may_pass(Some(code)), "{code}");
        }
        for code in [ErrorCode::TooLarge, ErrorCode::NotPermitted, ErrorCode::Corruption, ErrorCode::DiskFull]
        {
            assert!(!may_pass(Some(code)), "{code}");
        }
    }
}
