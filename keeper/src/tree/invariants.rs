//! What is true of every tree: everything that is kept for speed is what a walk over the znodes comes to.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::sums::{LONG, Sum};
use super::{Tree, path};
use crate::txn::Owner;
use crate::wire::Acl;

impl Tree {
    /// Walks the whole tree.
    ///
    /// # Panics
    /// If it contradicts itself.
    pub(crate) fn check_invariants(&self) {
        self.check_children();
        self.check_sums();
        let mut acls: BTreeMap<Arc<[Acl]>, u64> = BTreeMap::new();
        let (mut ephemerals, mut deadlines, mut idle, mut quotas) = (vec![], vec![], vec![], vec![]);
        let mut data_bytes = 0;
        for (path, node) in &self.nodes {
            *acls.entry(Arc::clone(&node.acl)).or_default() += 1;
            let known = self.acls.get_key_value(&node.acl).expect("the ACL is known").0;
            assert!(Arc::ptr_eq(known, &node.acl), "{path} shares its ACL with all that have an equal one");
            data_bytes += path.len() + node.data().map_or(0, bytes::Bytes::len);
            match node.owner {
                Owner::Session(session) => ephemerals.push((session, Arc::clone(path))),
                Owner::Ttl(ttl) => deadlines.push((node.mtime.saturating_add(ttl), Arc::clone(path))),
                Owner::Container if node.creations != 0 && node.children.len() == 0 => {
                    idle.push(Arc::clone(path));
                }
                Owner::Nobody | Owner::Container => {}
            }
            if let Some(root) = super::quota::root_of_limits(path) {
                quotas.push(Arc::from(root));
            }
        }
        assert_eq!(self.acls, acls.into(), "ACLs and how many have them");
        assert_eq!(self.ephemerals, ephemerals.into(), "ephemerals by session");
        assert_eq!(self.deadlines, deadlines.into(), "TTL znodes by deadline");
        assert_eq!(self.idle_containers, idle.into(), "containers without children");
        assert_eq!(self.quotas, quotas.into(), "quotas");
        assert_eq!(self.data_bytes, data_bytes as u64, "bytes of paths and data");
    }

    fn check_sums(&self) {
        let starts: Vec<_> = self.sums.stretches().map(|(start, _)| start).collect();
        assert_eq!(
            starts.first().map(|start| &***start),
            Some(""),
            "the first stretch begins before all paths"
        );
        for (index, (start, sum)) in self.sums.stretches().enumerate() {
            let mut actual = Sum::default();
            let is_within =
                |path: &Arc<str>| path >= start && starts.get(index + 1).is_none_or(|end| path < *end);
            self.nodes
                .iter()
                .filter(|(path, _)| is_within(path))
                .for_each(|(_, node)| actual += Sum::of(node));
            assert_eq!(*sum, actual, "the stretch from {start:?}");
            assert!(
                sum.znodes <= LONG && (index == 0 || sum.znodes > 0),
                "{} in the stretch from {start:?}",
                sum.znodes
            );
        }
    }

    fn check_children(&self) {
        let mut children: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for path in self.nodes.keys() {
            if let Some(parent) = path::parent(path) {
                children.entry(parent).or_default().push(path::name(path));
            }
        }
        for (path, node) in &self.nodes {
            let expected = children.remove(&**path).unwrap_or_default();
            assert_eq!(node.children().len(), expected.len(), "the length of the children of {path}");
            assert_eq!(node.children().collect::<Vec<_>>(), expected, "the children of {path}");
            let stat = node.stat();
            assert_eq!(stat.num_children as usize, expected.len(), "numChildren of {path}");
            assert_eq!(
                stat.cversion,
                node.creations.wrapping_mul(2).wrapping_sub(stat.num_children),
                "cversion of {path}"
            );
            let prefix = if &**path == "/" { String::from("/") } else { format!("{path}/") };
            let mut below = Sum::default();
            let is_below = |other: &Arc<str>| other.len() > prefix.len() && other.starts_with(&prefix);
            self.nodes
                .iter()
                .filter(|(other, _)| is_below(other))
                .for_each(|(_, node)| below += Sum::of(node));
            assert_eq!(self.all_children_number(path), below.znodes, "what is below {path}");
            if &**path != "/" {
                assert_eq!(self.sum_below(path), below, "what is below {path}");
            }
        }
        assert_eq!(children, BTreeMap::new(), "znodes without a parent");
    }
}
