//! The configurations of the log. Each counts from the moment it is appended, long before it is committed; where its
//! entry is dropped again, the one before it counts (DESIGN 8).

use std::sync::Arc;

use quorumkv_protocol::Version;
use quorumkv_protocol::entry::Entry;
use quorumkv_protocol::membership::Configuration;

/// The newest configuration that is known to be committed, and all after it.
#[derive(Debug)]
pub(crate) struct Configurations {
    /// In the order of the log; never empty.
    known: Vec<Configuration>,
}

impl Configurations {
    /// Those of a log whose entries after `applied`'s are these.
    pub(crate) fn recover(applied: Configuration, unapplied: &[Arc<Entry>]) -> Self {
        let mut configurations = Self { known: vec![applied] };
        for entry in unapplied {
            configurations.append(entry);
        }
        configurations
    }

    /// The one that counts: the newest that was appended.
    pub(crate) fn latest(&self) -> &Configuration {
        self.known.last().expect("there is always a committed configuration")
    }

    /// The newest that is known to be committed.
    pub(crate) fn committed(&self) -> &Configuration {
        self.known.first().expect("there is always a committed configuration")
    }

    /// All that may yet count, the committed one first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Configuration> {
        self.known.iter()
    }

    /// The entry was appended. True if it brought a configuration.
    pub(crate) fn append(&mut self, entry: &Entry) -> bool {
        let configuration = entry.configuration();
        self.known.extend(configuration.cloned());
        configuration.is_some()
    }

    /// Every entry after `version` was dropped. True if the configuration that counted was among them.
    pub(crate) fn truncate_after(&mut self, version: Version) -> bool {
        let before = self.known.len();
        self.known.retain(|configuration| configuration.id.version <= version);
        assert!(!self.known.is_empty(), "a committed configuration is never dropped");
        self.known.len() < before
    }

    /// Everything up to `version` is committed. Returns the configurations that are past, oldest first.
    pub(crate) fn commit(&mut self, version: Version) -> Vec<Configuration> {
        let committed = self.known.partition_point(|configuration| configuration.id.version <= version);
        self.known.drain(..committed.saturating_sub(1)).collect()
    }

    /// A snapshot with this configuration took the place of the log.
    pub(crate) fn reset(&mut self, configuration: Configuration) {
        self.known = vec![configuration];
    }
}

#[cfg(test)]
mod tests {
    use quorumkv_protocol::entry::{Body, Reconfiguration};
    use quorumkv_protocol::{EntryId, Epoch, NodeId};

    use super::*;

    fn id(version: u64) -> EntryId {
        EntryId::new(Epoch::new(1, NodeId::new(1)), Version::new(version))
    }

    fn entry(version: u64) -> Arc<Entry> {
        let configuration = Configuration { id: id(version), ..Configuration::UNKNOWN };
        let body = Body::Configure(Box::new(Reconfiguration { asked: None, configuration }));
        Arc::new(Entry { id: id(version), body })
    }

    fn ids(configurations: &Configurations) -> (EntryId, EntryId) {
        (configurations.committed().id, configurations.latest().id)
    }

    #[test]
    fn an_appended_configuration_counts_until_it_is_dropped() {
        let mut configurations = Configurations::recover(Configuration::UNKNOWN, &[entry(3)]);
        assert_eq!(ids(&configurations), (EntryId::ZERO, id(3)));
        assert!(!configurations.append(&Entry { id: id(4), body: Body::Open }));
        assert!(configurations.append(&entry(5)));
        assert_eq!(ids(&configurations), (EntryId::ZERO, id(5)));
        assert!(!configurations.truncate_after(Version::new(5)));
        assert!(configurations.truncate_after(Version::new(4)));
        assert_eq!(ids(&configurations), (EntryId::ZERO, id(3)));
        assert!(configurations.truncate_after(Version::new(2)));
        assert_eq!(ids(&configurations), (EntryId::ZERO, EntryId::ZERO));
    }

    #[test]
    fn a_committed_configuration_takes_the_place_of_those_before_it() {
        let mut configurations =
            Configurations::recover(Configuration::UNKNOWN, &[entry(3), entry(5), entry(7)]);
        assert_eq!(configurations.commit(Version::new(2)), []);
        let past = configurations.commit(Version::new(6));
        assert_eq!(past.iter().map(|past| past.id).collect::<Vec<_>>(), [EntryId::ZERO, id(3)]);
        assert_eq!(ids(&configurations), (id(5), id(7)));
        assert_eq!(configurations.commit(Version::new(6)), []);
        configurations.reset(Configuration { id: id(9), ..Configuration::UNKNOWN });
        assert_eq!(ids(&configurations), (id(9), id(9)));
    }
}
