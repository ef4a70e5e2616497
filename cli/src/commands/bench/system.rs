//! What is measured: kvd, or one of its peers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use serde_json::{Map, Value};

use super::work::{Call, Work};
use crate::args::Op;
use crate::exit::Failure;
use crate::output::printable;

/// Writes at once while keys are filled.
const FILLERS: usize = 256;

/// What to load a system with.
#[derive(Clone)]
pub(super) struct Load {
    pub(super) work: Arc<Work>,
    /// Closed loops at once.
    pub(super) clients: usize,
    /// Connections that they share in all.
    pub(super) connections: usize,
    /// How long to measure.
    pub(super) time: Duration,
    /// How long one operation may take.
    pub(super) timeout: Duration,
    /// Whether all keys are there already.
    pub(super) filled: bool,
}

impl Load {
    /// Connections that all clients share, where none of them needs one of its own.
    pub(super) fn shared_connections(&self) -> usize {
        self.connections.min(self.clients)
    }
}

/// One client of a system, which does one thing after the other.
pub(super) trait Target: Send + 'static {
    /// Does this once. Succeeds only if the system says that it was done.
    fn call(
        &mut self,
        call: Call,
        key: &Bytes,
        value: &Bytes,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// A system under load.
pub(super) trait System {
    /// Its name in results.
    const NAME: &'static str;

    /// Whether keys must exist before they can be put.
    const NEEDS_KEYS: bool = false;

    /// What its clients are.
    type Target: Target;

    /// What an operation means there.
    fn operation(&self, op: Op) -> String;

    /// What that operation does not promise although ours does.
    fn caveat(&self, op: Op) -> Option<&'static str>;

    /// Notes what [`System::facts`] compares with. Before the first write.
    async fn begin(&mut self, load: &Load);

    /// Writes these keys once, creating what is absent.
    async fn fill(&self, load: &Load, keys: &[Bytes]) -> Result<(), Failure>;

    /// The client with this number.
    fn target(&self, client: usize) -> Self::Target;

    /// Asks it what it is and what it does before it acknowledges a write. After the load.
    async fn facts(&self, load: &Load) -> Facts;

    /// Leaves it.
    async fn close(self);
}

/// Writes many keys at once.
pub(super) async fn all_at_once(
    writes: impl Iterator<Item = impl Future<Output = Result<(), Failure>>>,
) -> Result<(), Failure> {
    let written = stream::iter(writes).buffer_unordered(FILLERS);
    drain(written).await
}

async fn drain(written: impl Stream<Item = Result<(), Failure>>) -> Result<(), Failure> {
    written.try_for_each(|()| async { Ok(()) }).await
}

/// What a system says of itself: what is not found out stands there as unknown, with the reason.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Versions of all nodes that were asked, each once.
    versions: Vec<String>,
    /// For programs; null is unknown.
    json: Map<String, Value>,
    /// For people.
    lines: Vec<String>,
}

impl Facts {
    /// A node has this version.
    pub(super) fn version(&mut self, version: &str) {
        if !self.versions.iter().any(|known| known == version) {
            self.versions.push(version.to_owned());
        }
    }

    /// Something that the system has told; `path` is where it stands for programs.
    pub(super) fn known(&mut self, path: &[&str], value: impl Into<Value>, line: impl Into<String>) {
        insert(&mut self.json, path, value.into());
        self.lines.push(line.into());
    }

    /// Something that it does not tell.
    pub(super) fn unknown(&mut self, path: &[&str], what: &str, why: &str) {
        let why = printable(why.as_bytes());
        insert(&mut self.json, path, Value::Null);
        insert(&mut self.json, &[&["unknown"], path].concat(), why.as_str().into());
        self.lines.push(format!("{what}: unknown ({why})"));
    }

    /// All versions in one text, if there are any.
    pub(super) fn versions(&self) -> Option<String> {
        (!self.versions.is_empty()).then(|| self.versions.join(", "))
    }

    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }

    pub(super) const fn json(&self) -> &Map<String, Value> {
        &self.json
    }
}

/// Puts a value into objects in objects.
fn insert(object: &mut Map<String, Value>, path: &[&str], value: Value) {
    match path {
        [] => {}
        [name] => {
            object.insert((*name).to_owned(), value);
        }
        [name, rest @ ..] => {
            let inner = object.entry(*name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// Of so many that vote, how many a majority is.
pub(super) const fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_null_and_says_why() {
        let mut facts = Facts::default();
        facts.version("3.4");
        facts.version("3.4");
        facts.known(&["members"], 3, "3 members");
        facts.unknown(&["syncs", "a:1"], "syncs of a:1", "it does not say");
        facts.known(&["syncs", "b:1"], 5, "b:1 synced 5 times");
        assert_eq!(facts.versions().as_deref(), Some("3.4"));
        assert_eq!(
            facts.lines(),
            ["3 members", "syncs of a:1: unknown (it does not say)", "b:1 synced 5 times"]
        );
        assert_eq!(
            crate::output::to_json(facts.json()),
            r#"{"members":3,"syncs":{"a:1":null,"b:1":5},"unknown":{"syncs":{"a:1":"it does not say"}}}"#
        );
    }
}
