//! The client, and its operations.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorumkv_protocol::Version;
use quorumkv_protocol::client::{
    Consistency, Got, Members, NodeStatus, Request, Response, Scanned, Write, Written,
};
use quorumkv_protocol::membership::Change;

use crate::builder::ClientBuilder;
use crate::context::Context;
use crate::endpoint::Endpoint;
use crate::error::{ChangeError, NodeError, ReadError, WriteError};
use crate::pool::Pool;
use crate::read;
use crate::sequences::Sequences;
use crate::write::{Fulfilled, Operation, Wish};

/// What the clones of a client share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) context: Arc<Context>,
    pub(crate) pool: Pool,
    pub(crate) sequences: Arc<Sequences>,
}

/// A client of one cluster. Clones share its connections; when the last one is dropped, they are closed.
///
/// Every operation may be cancelled by dropping its future. A write that is cancelled may have been applied.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    endpoints: Arc<[Endpoint]>,
    timeout: Duration,
}

/// How to read a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GetOptions {
    /// How fresh the answer must be.
    pub consistency: Consistency,
    /// Whether the answer is to show which members said what.
    pub evidence: bool,
}

/// How to read the keys that begin with a prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScanOptions {
    /// Only keys after this one.
    pub after: Option<Bytes>,
    /// Most items in a page.
    pub limit: u32,
    /// How fresh the answer must be.
    pub consistency: Consistency,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self { after: None, limit: 1000, consistency: Consistency::Quorum }
    }
}

impl Client {
    /// Begins a client of the cluster that these nodes (`host:port`) belong to. Some of them are enough.
    pub fn builder<E: AsRef<str>>(endpoints: impl IntoIterator<Item = E>) -> ClientBuilder {
        ClientBuilder::new(endpoints.into_iter().map(|endpoint| endpoint.as_ref().to_owned()).collect())
    }

    pub(crate) fn new(shared: Shared, endpoints: Vec<Endpoint>, timeout: Duration) -> Self {
        Self { shared: Arc::new(shared), endpoints: endpoints.into(), timeout }
    }

    /// The endpoints that this client was given.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The same client with another deadline for its operations.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// Waits until a node answers.
    ///
    /// # Errors
    /// None did before the deadline, or every node refused this client.
    pub async fn ready(&self) -> Result<(), ReadError> {
        match read::read(&self.shared, Request::Status, self.timeout).await? {
            (_, Response::Status(_)) => Ok(()),
            (endpoint, _) => Err(ReadError::UnexpectedAnswer(endpoint)),
        }
    }

    /// Sets a key.
    ///
    /// # Errors
    /// Not applied, or unknown: see [`WriteError`].
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<Written, WriteError> {
        self.write(Write::Put { key: key.into(), value: value.into() }).await
    }

    /// Removes a key. The outcome is [`NotFound`](crate::Outcome::NotFound) if it was absent.
    ///
    /// # Errors
    /// Not applied, or unknown: see [`WriteError`].
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<Written, WriteError> {
        self.write(Write::Delete { key: key.into() }).await
    }

    /// Sets a key if it is at a version; [`Version::ZERO`]: if it is absent. The outcome is
    /// [`Mismatch`](crate::Outcome::Mismatch) if it is at another.
    ///
    /// # Errors
    /// Not applied, or unknown: see [`WriteError`].
    pub async fn compare_and_set(
        &self,
        key: impl Into<Bytes>,
        expected: Version,
        value: impl Into<Bytes>,
    ) -> Result<Written, WriteError> {
        self.write(Write::CompareAndSet { key: key.into(), expected, value: value.into() }).await
    }

    /// Carries out any write.
    ///
    /// # Errors
    /// Not applied, or unknown: see [`WriteError`].
    pub async fn write(&self, write: Write) -> Result<Written, WriteError> {
        match Operation::new(&self.shared, Wish::Write(write), self.timeout).run().await? {
            Fulfilled::Written(written) => Ok(written),
            Fulfilled::Refused(_) | Fulfilled::Permitted => unreachable!("only changes come to this"),
        }
    }

    /// Changes who belongs to the cluster; returns the configuration's entry. With `force`, even if fewer voters than a
    /// quorum may be left that can vote.
    ///
    /// # Errors
    /// Not done, or unknown: see [`ChangeError`].
    pub async fn change(&self, change: Change, force: bool) -> Result<Written, ChangeError> {
        match self.wish(change, force, false).await? {
            Fulfilled::Written(written) => Ok(written),
            Fulfilled::Refused(refusal) => Err(ChangeError::Refused(refusal)),
            Fulfilled::Permitted => unreachable!("it was not asked whether"),
        }
    }

    /// Whether [`change`](Self::change) would be done now.
    ///
    /// # Errors
    /// It would not, or no leader could be asked: see [`ChangeError`].
    pub async fn may_change(&self, change: Change, force: bool) -> Result<(), ChangeError> {
        match self.wish(change, force, true).await? {
            // A change that was made before under the same request id cannot be: this one is new.
            Fulfilled::Written(_) | Fulfilled::Permitted => Ok(()),
            Fulfilled::Refused(refusal) => Err(ChangeError::Refused(refusal)),
        }
    }

    async fn wish(&self, change: Change, force: bool, dry_run: bool) -> Result<Fulfilled, WriteError> {
        let wish = Wish::Change { change, force, dry_run };
        Operation::new(&self.shared, wish, self.timeout).run().await
    }

    /// Who belongs to the cluster, and how far everybody is, as the leader knows it.
    ///
    /// # Errors
    /// No leader could be asked: see [`ReadError`].
    pub async fn members(&self) -> Result<Members, ReadError> {
        match read::read(&self.shared, Request::Members, self.timeout).await? {
            (_, Response::Members(members)) => Ok(*members),
            (endpoint, _) => Err(ReadError::UnexpectedAnswer(endpoint)),
        }
    }

    /// Reads a key, linearizably.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Got, ReadError> {
        self.get_with(key, GetOptions::default()).await
    }

    /// Reads a key.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn get_with(&self, key: impl Into<Bytes>, options: GetOptions) -> Result<Got, ReadError> {
        let GetOptions { consistency, evidence } = options;
        let request = Request::Get { key: key.into(), consistency, evidence };
        match read::read(&self.shared, request, self.timeout).await? {
            (_, Response::Got(got)) => Ok(got),
            (endpoint, _) => Err(ReadError::UnexpectedAnswer(endpoint)),
        }
    }

    /// Reads one page of the keys that begin with `prefix`, in order, from one snapshot.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn scan(&self, prefix: impl Into<Bytes>, options: ScanOptions) -> Result<Scanned, ReadError> {
        let ScanOptions { after, limit, consistency } = options;
        let request = Request::Scan { prefix: prefix.into(), after, limit, consistency };
        match read::read(&self.shared, request, self.timeout).await? {
            // A page that promises more and holds nothing gives no place to go on from.
            (_, Response::Scanned(page)) if !page.more || !page.items.is_empty() => Ok(page),
            (endpoint, _) => Err(ReadError::UnexpectedAnswer(endpoint)),
        }
    }

    /// All pages of the keys that begin with `prefix`. Each page is a snapshot of its own, with a deadline of its own.
    #[must_use]
    pub fn pages(&self, prefix: impl Into<Bytes>, options: ScanOptions) -> Pages {
        Pages { client: self.clone(), prefix: prefix.into(), options, finished: false }
    }

    /// Asks one node how it is; it need not be one of the given endpoints.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn status(&self, endpoint: &str) -> Result<NodeStatus, NodeError> {
        match read::ask(&self.shared, endpoint, Request::Status, self.timeout).await? {
            (_, Response::Status(status)) => Ok(*status),
            (endpoint, _) => Err(NodeError::UnexpectedAnswer(endpoint)),
        }
    }

    /// Stops the daemon at `endpoint`. It answers before it dies.
    ///
    /// # Errors
    /// See [`NodeError`]. After [`NodeError::Lost`] it may be stopping.
    pub async fn stop(&self, endpoint: &str) -> Result<(), NodeError> {
        match read::ask(&self.shared, endpoint, Request::Stop { at_once: false }, self.timeout).await? {
            (_, Response::Stopping) => Ok(()),
            (endpoint, _) => Err(NodeError::UnexpectedAnswer(endpoint)),
        }
    }

    /// Has the daemon at `endpoint` end at once, as SIGKILL does: nothing is handed over, finished or answered.
    ///
    /// # Errors
    /// See [`NodeError`]. [`NodeError::Lost`] is none: it is how the end shows.
    pub async fn kill(&self, endpoint: &str) -> Result<(), NodeError> {
        match read::ask(&self.shared, endpoint, Request::Stop { at_once: true }, self.timeout).await {
            Err(NodeError::Lost(_)) => Ok(()),
            Ok((endpoint, _)) => Err(NodeError::UnexpectedAnswer(endpoint)),
            Err(error) => Err(error),
        }
    }

    /// Tells the daemon at `endpoint` to serve no clients and not to lead, or with `undo` to do so again. It goes on voting. Its
    /// status tells when it no longer leads.
    ///
    /// # Errors
    /// See [`NodeError`]. After [`NodeError::Lost`] it may have heard.
    pub async fn drain(&self, endpoint: &str, undo: bool) -> Result<(), NodeError> {
        match read::ask(&self.shared, endpoint, Request::Drain { undo }, self.timeout).await? {
            (_, Response::Draining) => Ok(()),
            (endpoint, _) => Err(NodeError::UnexpectedAnswer(endpoint)),
        }
    }

    /// Closes all connections of this client and its clones, and waits until they are closed. Operations that are
    /// under way end as if the connections had been lost.
    pub async fn close(&self) {
        self.shared.context.closing.cancel();
        self.shared.context.tasks.close();
        self.shared.context.tasks.wait().await;
    }
}

/// The pages of a scan, one after the other.
#[derive(Debug)]
pub struct Pages {
    client: Client,
    prefix: Bytes,
    options: ScanOptions,
    finished: bool,
}

impl Pages {
    /// The next page; `None` after the last. After an error, the same page may be asked for again.
    ///
    /// Cancel safe: a page that was not returned is the next one again.
    pub async fn next(&mut self) -> Option<Result<Scanned, ReadError>> {
        if self.finished {
            return None;
        }
        let page = self.client.scan(self.prefix.clone(), self.options.clone()).await;
        if let Ok(page) = &page {
            self.finished = !page.more;
            if let Some(last) = page.items.last() {
                self.options.after = Some(last.key.clone());
            }
        }
        Some(page)
    }
}
