//! Deleting what a run has written.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use quorumkv_client::{Client, ScanOptions};
use tokio::time::{Instant, sleep};

use crate::commands::transfer;
use crate::exit::Failure;

/// How long it is tried.
const PATIENCE: Duration = Duration::from_secs(30);

/// A write whose outcome is unknown may still take effect: the keys are looked at again after this time.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// Deletes at once.
const WINDOW: usize = 32;

/// What is left of a run's keys.
pub(super) enum Left {
    Nothing,
    /// Keys with this prefix may be left, and why.
    Perhaps(Failure),
}

/// Deletes all keys that begin with a prefix. With `unknown`, writes may still be under way, so it looks twice.
pub(super) async fn delete_all(client: &Client, prefix: &str, unknown: bool) -> Left {
    let until = Instant::now() + PATIENCE;
    let mut looks_left = if unknown { 2 } else { 1 };
    loop {
        match delete_once(client, prefix).await {
            Ok(()) => {
                looks_left -= 1;
                if looks_left == 0 {
                    return Left::Nothing;
                }
            }
            Err(failure) if Instant::now() >= until => return Left::Perhaps(failure),
            Err(_) => {}
        }
        sleep(AFTERWARDS).await;
    }
}

/// Goes through the keys once, until there is none.
async fn delete_once(client: &Client, prefix: &str) -> Result<(), Failure> {
    let prefix = Bytes::copy_from_slice(prefix.as_bytes());
    loop {
        let page = transfer::page(client, &prefix, &ScanOptions::default(), PATIENCE).await?;
        if page.items.is_empty() {
            return Ok(());
        }
        let deletes = page.items.into_iter().map(|item| client.delete(item.key));
        let mut deleted = stream::iter(deletes).buffer_unordered(WINDOW);
        while let Some(result) = deleted.next().await {
            result?;
        }
    }
}
