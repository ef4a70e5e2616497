//! Turning what a client asks for into effects, once, at the leader.

use quorumkv_mutants::Mutant;
use quorumkv_protocol::Version;
use quorumkv_protocol::client::Write;
use quorumkv_protocol::entry::{Effect, Outcome};

use crate::replica::Replica;
use crate::state::{StateView, Unreadable};

impl<S: StateView> Replica<S> {
    /// What the write comes to, against the newest state including entries that are not committed yet.
    pub(crate) fn evaluate(&self, write: Write) -> Result<(Vec<Effect>, Outcome), Unreadable> {
        Ok(match write {
            Write::Put { key, value } => (vec![Effect::Put { key, value }], Outcome::Applied),
            Write::Delete { key } => {
                if self.newest_version(&key)? == Version::ZERO {
                    (Vec::new(), Outcome::NotFound)
                } else {
                    (vec![Effect::Delete { key }], Outcome::Applied)
                }
            }
            Write::CompareAndSet { key, expected, value } => {
                let actual = self.newest_version(&key)?;
                if actual == expected || Mutant::SetsWithoutComparing.on() {
                    (vec![Effect::Put { key, value }], Outcome::Applied)
                } else {
                    (Vec::new(), Outcome::Mismatch { actual })
                }
            }
        })
    }

    /// The version of the key in the newest state; zero if it is absent.
    fn newest_version(&self, key: &[u8]) -> Result<Version, Unreadable> {
        let touched =
            self.overlay.touched(key, self.log.last()).filter(|_| !Mutant::EvaluatesAppliedOnly.on());
        let Some(version) = touched else {
            return Ok(self.state.get(key)?.map_or(Version::ZERO, |record| record.id.version));
        };
        let entry = self.log.entry(version).expect("the overlay speaks of entries in memory");
        let last = entry.effects().iter().rev().find(|effect| effect.key() == key);
        let is_present = last.is_some_and(|effect| effect.value().is_some());
        Ok(if is_present { version } else { Version::ZERO })
    }
}
