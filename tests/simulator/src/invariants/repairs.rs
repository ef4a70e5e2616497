//! A repair of a damaged state goes on, whatever else happens under the same leader: it does not begin again and again (DESIGN 8).

use std::collections::BTreeMap;

use quorumkv_protocol::{Epoch, NodeId};

/// How often a node may begin. It begins again if what it has stored is of no use by then.
const MOST: u32 = 5;

/// The epoch in which each node last began a repair, and how often it has.
#[derive(Default)]
pub(super) struct Repairs(BTreeMap<NodeId, (Epoch, u32)>);

impl Repairs {
    /// A node whose state is damaged begins to pull that of the leader of this epoch.
    pub(super) fn began(&mut self, id: NodeId, epoch: Epoch) {
        let (last, times) = self.0.entry(id).or_insert((epoch, 0));
        if *last != epoch {
            (*last, *times) = (epoch, 0);
        }
        *times += 1;
        assert!(*times <= MOST, "{id} has begun {times} repairs in {epoch}");
    }

    /// A node has started, or has its state back.
    pub(super) fn over(&mut self, id: NodeId) {
        self.0.remove(&id);
    }
}
