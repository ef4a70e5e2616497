//! Znodes that go by themselves: containers that have lost their children, and TTL znodes whose time is up.

use super::Tree;

impl Tree {
    /// Paths of containers that had children and have none now, and of TTL znodes without children that nobody has set for
    /// longer than their time to live; at most `limit` of them. `now_ms`: milliseconds since 1970.
    #[must_use]
    pub fn idle(&self, now_ms: i64, limit: usize) -> Vec<String> {
        let late = self
            .deadlines
            .iter()
            .take_while(|(deadline, _)| *deadline < now_ms)
            .map(|(_, path)| path)
            .filter(|path| self.nodes.get(&**path).is_some_and(|node| node.children.len() == 0));
        self.idle_containers.iter().chain(late).take(limit).map(|path| path.to_string()).collect()
    }
}
