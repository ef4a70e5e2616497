//! The decisions of the election, as pure functions of what was listed: who contends, who leads, whom to watch, and
//! whether to enrol now.

use std::time::Duration;

use super::EnrolPolicy;
use super::connect_string::HostPort;

/// A znode of the election: `<host:port>_<sequence>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Contender {
    /// The znode's name, without its path.
    pub(super) name: String,
    /// Where the node that contends listens.
    pub(super) address: String,
    /// ZooKeeper's number for the znode, counted per election folder.
    ///
    /// ZooKeeper counts in signed 32 bits and wraps: after 2^31 enrolments and departures the numbers turn negative
    /// and newcomers sort in front of those already there. That costs changes of leader, and nothing else: an epoch,
    /// not the election, decides whose writes count. Both sides compare the same way, so they agree who leads.
    pub(super) sequence: i32,
}

impl Contender {
    /// Reads a znode's name; `None` for one that no contender of ours would have.
    pub(super) fn parse(name: &str) -> Option<Self> {
        // A host name may itself contain '_', so only what follows the last one is the sequence.
        let (address, digits) = name.rsplit_once('_')?;
        let unsigned = digits.strip_prefix('-').unwrap_or(digits);
        if digits.len() < 10 || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let sequence = digits.parse().ok()?;
        let canonical: HostPort = address.parse().ok()?;
        (canonical.to_string() == address).then(|| Self {
            name: name.to_owned(),
            address: address.to_owned(),
            sequence,
        })
    }
}

/// Everyone in the election at the time of one listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Field {
    /// By sequence, the leader first.
    contenders: Vec<Contender>,
    /// Names that are not ours, sorted.
    pub(super) foreign: Vec<String>,
}

/// Where a znode stands among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing<'a> {
    /// It is not there.
    Absent,
    /// It is the lowest.
    Leads,
    /// This one is just below it: the one to watch, and the only one.
    Follows(&'a Contender),
}

impl Field {
    /// Sorts what a listing found.
    pub(super) fn new(names: Vec<String>) -> Self {
        let mut field = Self::default();
        for name in names {
            match Contender::parse(&name) {
                Some(contender) => field.contenders.push(contender),
                None => field.foreign.push(name),
            }
        }
        field.contenders.sort_by(|a, b| (a.sequence, &a.name).cmp(&(b.sequence, &b.name)));
        field.foreign.sort();
        field
    }

    /// The one that leads.
    pub(super) fn lowest(&self) -> Option<&Contender> {
        self.contenders.first()
    }

    /// Where the znode called `name` stands.
    pub(super) fn standing(&self, name: &str) -> Standing<'_> {
        match self.contenders.iter().position(|contender| contender.name == name) {
            None => Standing::Absent,
            Some(0) => Standing::Leads,
            Some(at) => Standing::Follows(&self.contenders[at - 1]),
        }
    }

    /// The znode that `own` may take out of the election if the node at `leader` is gone: the lowest, if it is that node's, and
    /// if `own` is the next. Of several znodes of that address, one after the other.
    pub(super) fn impeachable(&self, own: &str, leader: &str) -> Option<&Contender> {
        let lowest = self.lowest().filter(|lowest| lowest.address == leader)?;
        let next = self.contenders.iter().find(|contender| contender.address != leader)?;
        (next.name == own).then_some(lowest)
    }

    /// The names of every znode of one address, lowest first: our own, and what earlier sessions of ours left.
    pub(super) fn names_of(&self, address: &str) -> Vec<String> {
        let of_address = self.contenders.iter().filter(|contender| contender.address == address);
        of_address.map(|contender| contender.name.clone()).collect()
    }

    /// Takes out a znode that has just been deleted.
    pub(super) fn remove(&mut self, name: &str) {
        self.contenders.retain(|contender| contender.name != name);
    }
}

/// Whether a node without a znode may enrol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    /// Now.
    Enrol,
    /// Not before this much more time, unless the field or the policy changes.
    HoldBack(Duration),
}

/// Decides on enrolment. `held` is how long a session has been there with this policy.
pub(super) fn permit(policy: &EnrolPolicy, field: &Field, held: Duration) -> Permit {
    match policy {
        EnrolPolicy::Enrol => Permit::Enrol,
        EnrolPolicy::Wait { incumbent, at_most } => {
            let incumbent_leads = field.lowest().is_some_and(|lowest| lowest.address == *incumbent);
            match at_most.checked_sub(held) {
                Some(left) if !left.is_zero() && !incumbent_leads => Permit::HoldBack(left),
                _ => Permit::Enrol,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(names: &[&str]) -> Field {
        Field::new(names.iter().map(|&name| name.to_owned()).collect())
    }

    #[test]
    fn names_are_read_from_the_right() {
        for (name, address, sequence) in [
            ("127.0.0.1:5000_0000000007", "127.0.0.1:5000", 7),
            ("proj_kv_1:5000_2147483647", "proj_kv_1:5000", i32::MAX),
            ("[::1]:5000_0000000000", "[::1]:5000", 0),
            ("kv1:5000_-2147483648", "kv1:5000", i32::MIN),
            ("kv1:5000_-000000005", "kv1:5000", -5),
        ] {
            let contender = Contender::parse(name).expect(name);
            assert_eq!((contender.address.as_str(), contender.sequence), (address, sequence));
        }
    }

    #[test]
    fn foreign_names_are_set_aside() {
        let names = [
            "",
            "lock",
            "_0000000001",
            "kv1_0000000001",
            "kv1:5000",
            "kv1:5000_1",
            "kv1:5000_+000000001",
            "kv1:5000_9999999999",
            "kv1:5000_00000000x1",
            "KV1:5000_0000000001",
        ];
        let field = field(&names);
        assert_eq!(field.lowest(), None);
        assert_eq!(field.foreign.len(), names.len());
    }

    #[test]
    fn the_lowest_sequence_leads_whatever_the_names_sort_like() {
        let field = field(&["a:1_0000000010", "z:1_0000000002", "m:1_0000000005", "junk"]);
        assert_eq!(field.lowest().map(|c| c.address.as_str()), Some("z:1"));
        assert_eq!(field.standing("z:1_0000000002"), Standing::Leads);
        let Standing::Follows(before) = field.standing("a:1_0000000010") else { panic!("a follows") };
        assert_eq!(before.address, "m:1");
        assert_eq!(field.standing("a:1_0000000011"), Standing::Absent);
    }

    #[test]
    fn only_the_next_in_line_impeaches_and_nobody_but_the_leader() {
        let field = field(&["a:1_0000000001", "b:1_0000000002", "c:1_0000000003"]);
        let znode = |own, leader| field.impeachable(own, leader).map(|contender| contender.name.as_str());
        assert_eq!(znode("b:1_0000000002", "a:1"), Some("a:1_0000000001"));
        assert_eq!(znode("c:1_0000000003", "a:1"), None, "b is the next");
        assert_eq!(znode("b:1_0000000002", "c:1"), None, "c is not the lowest");
        assert_eq!(znode("a:1_0000000001", "a:1"), None, "nobody impeaches itself");
        assert_eq!(znode("d:1_0000000004", "a:1"), None, "who has no znode is not in line");
        assert_eq!(Field::default().impeachable("b:1_0000000002", "a:1"), None);
        let twice =
            Field::new(["a:1_0000000001", "a:1_0000000002", "b:1_0000000003"].map(ToOwned::to_owned).into());
        assert_eq!(twice.impeachable("b:1_0000000003", "a:1").map(|c| c.sequence), Some(1));
    }

    #[test]
    fn leftovers_of_one_address_are_found_lowest_first() {
        let mut field = field(&["a:1_0000000010", "b:1_0000000002", "a:1_0000000005"]);
        assert_eq!(field.names_of("a:1"), ["a:1_0000000005", "a:1_0000000010"]);
        field.remove("b:1_0000000002");
        assert_eq!(field.standing("a:1_0000000005"), Standing::Leads);
    }

    #[test]
    fn a_waiting_node_enrols_behind_the_incumbent_or_when_time_is_up() {
        let second = Duration::from_secs(1);
        let wait = EnrolPolicy::Wait { incumbent: "a:1".to_owned(), at_most: 3 * second };
        let behind = field(&["a:1_0000000001", "b:1_0000000002"]);
        let before = field(&["b:1_0000000000", "a:1_0000000001"]);
        assert_eq!(permit(&wait, &behind, Duration::ZERO), Permit::Enrol);
        assert_eq!(permit(&wait, &before, second), Permit::HoldBack(2 * second));
        assert_eq!(permit(&wait, &Field::default(), second), Permit::HoldBack(2 * second));
        assert_eq!(permit(&wait, &Field::default(), 3 * second), Permit::Enrol);
        assert_eq!(permit(&wait, &Field::default(), 9 * second), Permit::Enrol);
        assert_eq!(permit(&EnrolPolicy::Enrol, &before, Duration::ZERO), Permit::Enrol);
    }
}
