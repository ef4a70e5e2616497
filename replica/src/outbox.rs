//! Where effects gather until the next flush.

use quorumkv_protocol::NodeId;
use quorumkv_protocol::peer::{PeerEnvelope, PeerMessage};

use crate::effects::{Effects, LogRecord, Notice, Outgoing, Reply};
use crate::input::Token;

/// The effects so far, with what is needed to add to them while other parts of the replica are borrowed.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) effects: Effects,
    correlation: u64,
}

impl Outbox {
    /// A number that names a request of this node.
    pub(crate) const fn next_correlation(&mut self) -> u64 {
        self.correlation += 1;
        self.correlation
    }

    /// Sends a request.
    pub(crate) fn send(&mut self, to: NodeId, body: PeerMessage) {
        let correlation = self.next_correlation();
        self.reply(to, correlation, body);
    }

    /// Sends a reply, or a request under a correlation that is known already.
    pub(crate) fn reply(&mut self, to: NodeId, correlation: u64, body: PeerMessage) {
        self.effects.sends.push(Outgoing { to, envelope: PeerEnvelope { correlation, body } });
    }

    /// Sends a reply when everything logged so far is durable.
    pub(crate) fn reply_when_durable(&mut self, to: NodeId, correlation: u64, body: PeerMessage) {
        self.effects.when_durable.push(Outgoing { to, envelope: PeerEnvelope { correlation, body } });
    }

    pub(crate) fn log(&mut self, record: LogRecord) {
        self.effects.log.push(record);
    }

    pub(crate) fn answer(&mut self, token: Token, reply: Reply) {
        self.effects.replies.push((token, reply));
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        self.effects.notices.push(notice);
    }
}
