//! Waiting for something to come true.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::ClusterError;

/// How long a test waits for what a quick machine does in a moment.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two looks.
const POLL: Duration = Duration::from_millis(20);

/// Calls `probe` again and again until it succeeds; `what` completes the sentence "it is true that …".
///
/// # Errors
/// [`ClusterError::TimedOut`] with the last failure when that has not happened `within` this time.
pub async fn wait_until<T, E: Display>(
    within: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, ClusterError> {
    let deadline = Instant::now() + within;
    let mut last = "nothing was seen".to_owned();
    loop {
        match timeout_at(deadline, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => break,
        }
        // A probe that fails at once is never late itself.
        if Instant::now() >= deadline {
            break;
        }
        sleep(POLL).await;
    }
    Err(ClusterError::TimedOut { what: what.to_owned(), waited: within, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_never_comes_true_is_given_up() {
        let failed = wait_until(Duration::from_millis(50), "pigs fly", async || Err::<(), _>("they walk"));
        let error = tokio::time::timeout(PATIENCE, failed).await.expect("it ends").expect_err("it fails");
        assert!(error.to_string().contains("they walk"), "{error}");
    }
}
