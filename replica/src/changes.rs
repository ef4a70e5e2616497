//! Changes of the cluster's members, as the leader decides about them (DESIGN 8).
//!
//! Voters come and go one at a time, so that the majorities before and after a change overlap; the next change waits until
//! the one before is committed, and the first of a leader until an entry of its own epoch is, or two leaders could build
//! on configurations that do not overlap (Ongaro 2014, §4.1, and the author's correction of 2015).
//!
//! A replacement is two such changes, made when the new node has caught up and not before, so that one that is given up
//! has cost nothing. In which order depends on whether the old voter can still vote. If it can, the new one votes first:
//! N+1 voters of which all can vote tolerate at least as many failures as N, where N−1 would tolerate fewer. If it cannot,
//! it is removed first: of N−1 voters that all can vote just as many may fail as of N with a dead one among them, and the
//! new node, which nobody relies on then, may fail as well. Voting before the dead one is gone, it would be needed: if it
//! then lost its memory once more, as a node without a disk does at every restart, two voters of four would be gone for
//! ever, and with them the quorum.

use std::sync::Arc;

use quorumkv_mutants::Mutant;
use quorumkv_protocol::entry::{Asked, Body, Entry, Reconfiguration};
use quorumkv_protocol::membership::{Change, ChangeRequest, Configuration, Member, Refusal, Replacement};
use quorumkv_protocol::{EntryId, ErrorCode, NodeId, Version};

use crate::effects::Reply;
use crate::input::Token;
use crate::progress::Phase;
use crate::replica::{Replica, Role};
use crate::state::StateView;
use crate::time::Timestamp;

impl<S: StateView> Replica<S> {
    /// A client wants to change the members.
    pub(crate) fn change(
        &mut self,
        token: Token,
        request: &ChangeRequest,
        dry_run: bool,
        deadline: Timestamp,
    ) {
        match &self.role {
            _ if self.removed.is_some() => return self.refuse(token, ErrorCode::NotMember),
            Role::Follower => {
                let leader = self.following.leader;
                return self.out.answer(token, Reply::NotLeader { leader });
            }
            Role::Leader(leader) if leader.is_established() => {}
            Role::Contender(_) | Role::Leader(_) => {
                return self.out.answer(token, Reply::Refused(Refusal::EpochNotCommitted));
            }
        }
        if self.is_known(token, request.request, request.since, deadline) {
            return;
        }
        match self.changed(&request.change, request.force) {
            Ok(_) if dry_run => self.out.answer(token, Reply::Permitted),
            Ok(next) => {
                let floor = request.floor.min(request.request.sequence);
                let entry = self.configure(Some(Asked { request: request.request, floor }), next);
                self.waiting.add(token, entry, request.request, deadline);
            }
            Err(refusal) => self.out.answer(token, Reply::Refused(refusal)),
        }
    }

    /// Takes the next step of a replacement, if there is one to be taken now.
    pub(crate) fn drive_replacements(&mut self) {
        let configuration = self.configurations.latest();
        let is_due = configuration.id.version <= self.committed && !configuration.replacements.is_empty();
        if !is_due || !matches!(&self.role, Role::Leader(leader) if leader.is_established()) {
            return;
        }
        let steps: Vec<Change> =
            configuration.replacements.iter().filter_map(|replacement| self.step(*replacement)).collect();
        if let Some(next) = steps.iter().find_map(|step| self.changed(step, false).ok()) {
            self.configure(None, next);
        }
    }

    /// What is to be done next for a replacement, if the time for it has come.
    fn step(&self, Replacement { old, new }: Replacement) -> Option<Change> {
        let configuration = self.configurations.latest();
        let old_votes = configuration.is_voter(old);
        if configuration.is_voter(new) {
            return old_votes.then_some(Change::Remove(old));
        }
        if self.lacks(new).is_some() {
            return None;
        }
        Some(if old_votes && !self.is_live(old) { Change::Remove(old) } else { Change::Promote(new) })
    }

    /// Appends a configuration; returns its entry.
    fn configure(&mut self, asked: Option<Asked>, next: Configuration) -> EntryId {
        let id = EntryId::new(self.promise, self.log.last().next());
        let configuration = Configuration { id, ..next };
        let body = Body::Configure(Box::new(Reconfiguration { asked, configuration }));
        self.append(Arc::new(Entry { id, body }));
        id
    }

    /// The configuration after a change, or why it is not made.
    fn changed(&self, change: &Change, force: bool) -> Result<Configuration, Refusal> {
        let current = self.configurations.latest();
        if current.id.version > self.committed && !Mutant::ChangesOverlap.on() {
            return Err(Refusal::ChangeInFlight { entry: current.id });
        }
        let mut next = current.clone();
        match change {
            Change::AddLearner(member) => {
                check_new(&next, member, &[])?;
                insert(&mut next.learners, member.clone());
            }
            Change::Promote(node) => {
                if next.is_voter(*node) {
                    return Err(Refusal::AlreadyMember(*node));
                }
                let learner = take(&mut next.learners, *node).ok_or(Refusal::UnknownNode(*node))?;
                if let Some(behind) = self.lacks(*node) {
                    return Err(Refusal::NotCaughtUp { node: *node, behind });
                }
                insert(&mut next.voters, learner);
            }
            Change::Remove(node) => {
                let learner = take(&mut next.learners, *node);
                let removed = learner.or_else(|| take(&mut next.voters, *node));
                removed.ok_or(Refusal::UnknownNode(*node))?;
                if next.voters.is_empty() {
                    return Err(Refusal::LastVoter(*node));
                }
            }
            Change::Replace { old, new } => replace(&mut next, *old, new)?,
        }
        forget_finished_replacements(&mut next);
        if !next.is_sound() {
            return Err(Refusal::Unsound);
        }
        let live = next.count(|voter| self.is_live(voter));
        if next.voters != current.voters && live < next.quorum() && !force {
            let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
            return Err(Refusal::TooFewLive { live: small(live), needed: small(next.quorum()) });
        }
        Ok(next)
    }

    /// Whether this node could carry its part now: it is this node itself, or it answers the leader and its state is whole.
    pub(crate) fn is_live(&self, node: NodeId) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let silence = self.settings.quorum_silence;
        let answers = leader.progress.get(&node).is_some_and(|progress| {
            progress.matched > Version::ZERO && self.now.since(progress.heard) < silence && !progress.damaged
        });
        node == self.me || (answers && self.links.contains(&node))
    }

    /// How many versions a node lacks that must hold more before it votes; `None` if it holds enough: the configuration
    /// that it is a learner in, an entry of this epoch, and nearly everything else. It must also answer.
    pub(crate) fn lacks(&self, node: NodeId) -> Option<u64> {
        let last = self.log.last();
        let Role::Leader(leader) = &self.role else { return Some(last.get()) };
        let Some(progress) = leader.progress.get(&node) else { return Some(last.get()) };
        let behind = last.since(progress.matched);
        let must_hold = leader.opening.max(self.configurations.latest().id.version);
        let holds = progress.matched >= must_hold && progress.phase == Phase::Streaming;
        (!holds || behind > self.settings.catch_up || !self.is_live(node)).then_some(behind)
    }
}

/// A new member must be new, and have an address that nobody has but those whose place it takes.
fn check_new(configuration: &Configuration, new: &Member, goes: &[NodeId]) -> Result<(), Refusal> {
    if configuration.member(new.node).is_some() {
        return Err(Refusal::AlreadyMember(new.node));
    }
    let stays = |member: &&Member| !goes.contains(&member.node);
    match configuration.members().filter(stays).find(|member| member.address == new.address) {
        Some(member) => Err(Refusal::AddressTaken { by: member.node }),
        None => Ok(()),
    }
}

/// Begins to replace a voter, or gives a learner's place to another node.
fn replace(next: &mut Configuration, old: NodeId, new: &Member) -> Result<(), Refusal> {
    // A learner goes at once: `old` itself, or the one that was to replace `old` so far.
    let learner = match next.replacements.iter().find(|known| known.old == old) {
        _ if next.is_learner(old) => Some(old),
        // One that votes already is not given up: `old` is about to be removed.
        Some(known) if next.is_voter(known.new) => return Err(Refusal::UnknownNode(old)),
        known => known.map(|known| known.new),
    };
    let inherited = next.replacements.iter().find(|known| Some(known.new) == learner).map(|known| known.old);
    let voter = inherited.or_else(|| next.is_voter(old).then_some(old));
    if learner.is_none() && voter.is_none() {
        return Err(Refusal::UnknownNode(old));
    }
    let goes: Vec<NodeId> = learner.into_iter().chain(voter).collect();
    check_new(next, new, &goes)?;
    next.learners.retain(|member| Some(member.node) != learner);
    insert(&mut next.learners, new.clone());
    next.replacements.retain(|known| Some(known.new) != learner);
    next.replacements.extend(voter.map(|old| Replacement { old, new: new.node }));
    next.replacements.sort_unstable_by_key(|known| known.new);
    Ok(())
}

/// A replacement is finished when the new node votes and the old one does not, and given up when the new one is gone.
fn forget_finished_replacements(configuration: &mut Configuration) {
    let goes_on = |Replacement { old, new }: &Replacement| {
        configuration.is_learner(*new) || (configuration.is_voter(*new) && configuration.is_voter(*old))
    };
    configuration.replacements = configuration.replacements.iter().copied().filter(goes_on).collect();
}

fn insert(members: &mut Vec<Member>, new: Member) {
    let place = members.partition_point(|member| member.node < new.node);
    members.insert(place, new);
}

fn take(members: &mut Vec<Member>, node: NodeId) -> Option<Member> {
    let place = members.iter().position(|member| member.node == node)?;
    Some(members.remove(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(node: u64) -> NodeId {
        NodeId::new(node)
    }

    fn at(id: u64, address: u64) -> Member {
        Member { node: node(id), address: format!("n{address}:1") }
    }

    /// Voters 1 to 3, learner 7, and node 9 that is to replace node 3.
    fn configuration() -> Configuration {
        Configuration {
            learners: vec![at(7, 7), at(9, 9)],
            replacements: vec![Replacement { old: node(3), new: node(9) }],
            ..Configuration::first(vec![at(1, 1), at(2, 2), at(3, 3)])
        }
    }

    /// Learners afterwards, and who of them replaces whom.
    fn replaced(old: u64, new: &Member) -> Result<String, Refusal> {
        let mut next = configuration();
        replace(&mut next, node(old), new)?;
        assert!(next.is_sound() && next.voters == configuration().voters);
        let learners = next.learners.iter().map(|learner| learner.node.get().to_string());
        let replacements =
            next.replacements.iter().map(|one| format!("{} for {}", one.new.get(), one.old.get()));
        Ok(learners.chain(replacements).collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn a_new_node_may_have_the_address_of_those_that_it_replaces_only() {
        assert_eq!(replaced(2, &at(5, 2)), Ok("5, 7, 9, 5 for 2, 9 for 3".to_owned()));
        assert_eq!(replaced(2, &at(5, 1)), Err(Refusal::AddressTaken { by: node(1) }));
        assert_eq!(check_new(&configuration(), &at(5, 7), &[]), Err(Refusal::AddressTaken { by: node(7) }));
        assert_eq!(check_new(&configuration(), &at(5, 5), &[]), Ok(()));
        assert_eq!(check_new(&configuration(), &at(7, 5), &[]), Err(Refusal::AlreadyMember(node(7))));
    }

    #[test]
    fn a_learner_gives_its_place_at_once() {
        assert_eq!(replaced(7, &at(8, 7)), Ok("8, 9, 9 for 3".to_owned()));
        assert_eq!(replaced(9, &at(8, 9)), Ok("7, 8, 8 for 3".to_owned()), "and with it whom it replaces");
        assert_eq!(replaced(3, &at(8, 3)), Ok("7, 8, 8 for 3".to_owned()), "the last request counts");
        assert_eq!(
            replaced(3, &at(8, 9)),
            Ok("7, 8, 8 for 3".to_owned()),
            "the one that goes has that address"
        );
    }

    #[test]
    fn who_is_replaced_must_be_a_member_and_stay_one() {
        assert_eq!(replaced(4, &at(5, 5)), Err(Refusal::UnknownNode(node(4))));
        assert_eq!(replaced(3, &at(2, 5)), Err(Refusal::AlreadyMember(node(2))));
        let mut promoted = configuration();
        let new = take(&mut promoted.learners, node(9)).expect("it is there");
        insert(&mut promoted.voters, new);
        let refused = replace(&mut promoted, node(3), &at(5, 5));
        assert_eq!(refused, Err(Refusal::UnknownNode(node(3))), "it is about to be removed");
    }

    #[test]
    fn a_replacement_goes_on_until_the_new_node_votes_alone() {
        let mut next = configuration();
        take(&mut next.voters, node(3));
        forget_finished_replacements(&mut next);
        assert_eq!(next.replacements.len(), 1, "the new node is still to be promoted");
        let new = take(&mut next.learners, node(9)).expect("it is there");
        insert(&mut next.voters, new);
        forget_finished_replacements(&mut next);
        assert_eq!(next.replacements, []);

        let mut given_up = configuration();
        take(&mut given_up.learners, node(9));
        forget_finished_replacements(&mut given_up);
        assert_eq!(given_up.replacements, []);
    }
}
