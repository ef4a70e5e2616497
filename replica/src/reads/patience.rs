//! Members that are slow, and clients that wait no longer.

use std::time::Duration;

use quorumkv_protocol::peer::{PeerMessage, ReadSample};
use quorumkv_protocol::{ErrorCode, NodeId};

use super::Read;
use crate::effects::Reply;
use crate::replica::Replica;
use crate::state::StateView;
use crate::time::Timestamp;

/// How often deadlines are looked at: a client's answer may come this much late.
const EXPIRY_SCAN: Duration = Duration::from_millis(25);

/// A member is given this many times its usual latency before another is asked in its place.
const HEDGE_FACTOR: u32 = 4;

impl<S: StateView> Replica<S> {
    /// A link broke: who waits for that member asks another at the next tick.
    pub(crate) fn reader_lost_link(&mut self, node: NodeId) {
        for sample in self.reader.samples.values_mut() {
            if sample.asked.contains(&node) && sample.answers.iter().all(|(answered, _)| *answered != node) {
                sample.sent = Timestamp::ZERO;
            }
        }
    }

    pub(crate) fn tick_reads(&mut self) {
        self.release_void(self.now);
        self.hedge();
        self.tick_contested();
        if self.now.since(self.reader.scanned) >= EXPIRY_SCAN {
            self.reader.scanned = self.now;
            self.expire_reads();
        }
    }

    /// Asks another member where one takes much longer than usual, and everybody again where nobody is left.
    fn hedge(&mut self) {
        let (now, settings, configuration) = (self.now, &self.settings, self.configurations.latest());
        for (&correlation, sample) in &mut self.reader.samples {
            let unanswered =
                || sample.asked.iter().filter(|node| sample.answers.iter().all(|(from, _)| from != *node));
            let usual = unanswered()
                .filter_map(|node| self.reader.latency.get(node))
                .max()
                .copied()
                .unwrap_or_default();
            let waited = now.since(sample.sent);
            if waited < (usual * HEDGE_FACTOR).min(settings.resend).max(settings.hedge) {
                continue;
            }
            let voters = self.links.iter().copied().filter(|&node| configuration.is_voter(node));
            let fresh = voters.into_iter().find(|node| !sample.asked.contains(node));
            let again: Vec<NodeId> = match fresh {
                Some(node) => vec![node],
                None if waited >= settings.resend => {
                    unanswered().copied().filter(|node| self.links.contains(node)).collect()
                }
                None => continue,
            };
            sample.sent = now;
            sample.asked.extend(fresh);
            for node in again {
                let ask =
                    ReadSample { configuration: configuration.id, pass: None, keys: sample.probes.clone() };
                self.out.reply(node, correlation, PeerMessage::ReadSample(ask));
            }
        }
    }

    /// Gives up reads whose deadline has come.
    fn expire_reads(&mut self) {
        let (now, out, reader) = (self.now, &mut self.out, &mut self.reader);
        let mut expired = 0;
        let mut expires = |read: &Read| {
            let is_late = read.deadline <= now;
            if is_late {
                expired += 1;
                out.answer(read.token, timed_out(read.voids));
            }
            is_late
        };
        reader.waiting.retain(|read| !expires(read));
        for again in &mut reader.void {
            again.reads.retain(|read| !expires(read));
        }
        for slot in reader.samples.values_mut().flat_map(|sample| &mut sample.reads) {
            slot.take_if(|read| expires(read));
        }
        reader.in_flight -= expired;
        let forming = reader.samples.values_mut().map(|sample| &mut sample.barriers);
        let void = reader.void.iter_mut().map(|again| &mut again.barriers);
        for barriers in forming.chain(void).chain([&mut reader.barriers_waiting]) {
            for barrier in barriers.extract_if(.., |barrier| barrier.deadline <= now) {
                out.answer(barrier.token, timed_out(barrier.voids));
            }
        }
        for (_, barrier) in reader.barriers.extract_if(.., |(_, barrier)| barrier.deadline <= now) {
            out.answer(barrier.token, timed_out(barrier.voids));
        }
        let held = &mut reader.held;
        reader.samples.retain(|_, sample| {
            let is_wanted = !sample.barriers.is_empty() || sample.reads.iter().any(Option::is_some);
            if !is_wanted {
                *held -= sample.held;
            }
            is_wanted
        });
    }
}

/// The answer to who has waited long enough. A node whose samples were void is too far behind to know its cluster: another
/// one may well answer.
fn timed_out(voids: u32) -> Reply {
    let code = if voids > 0 { ErrorCode::NotReady } else { ErrorCode::ReadTimedOut };
    Reply::Failed { code, differing: None, evidence: None }
}
