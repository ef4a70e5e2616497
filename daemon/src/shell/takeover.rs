//! How long each step of a takeover takes.

use quorumkv_protocol::Epoch;
use quorumkv_protocol::client::Takeover;
use quorumkv_replica::{Notice, Timestamp};

/// Takes the time of each step from the loss of one leader to the service of this one.
#[derive(Debug, Default)]
pub(super) struct Stopwatch {
    noticed: Option<Timestamp>,
    elected: Option<Timestamp>,
    promised: Option<Timestamp>,
    caught_up: Option<Timestamp>,
}

impl Stopwatch {
    /// There seems to be no leader; the last was `heard` before. If that was since it was missed first, then it was there after all.
    pub(super) fn noticed(&mut self, heard: Timestamp, now: Timestamp) {
        if self.noticed.is_none_or(|noticed| noticed < heard) {
            *self = Self { noticed: Some(now), ..Self::default() };
        }
    }

    /// This node's znode is the lowest.
    pub(super) fn elected(&mut self, heard: Timestamp, now: Timestamp) {
        self.noticed(heard, now);
        self.elected = Some(now);
    }

    /// Its log has the entry that opens its epoch.
    pub(super) fn opened(&mut self, now: Timestamp) {
        if self.promised.is_some() {
            self.caught_up.get_or_insert(now);
        }
    }

    /// The replica has something to say; its leader was `heard` before. Returns what a takeover took when it is complete.
    pub(super) fn on_notice(
        &mut self,
        notice: &Notice,
        heard: Timestamp,
        now: Timestamp,
    ) -> Option<Takeover> {
        match notice {
            Notice::Impeach { .. } => self.noticed(heard, now),
            Notice::Promises { .. } => (self.promised, self.caught_up) = (Some(now), None),
            Notice::Established { epoch, .. } => return Some(std::mem::take(self).complete(*epoch, now)),
            Notice::Following { .. } | Notice::StoodDown { .. } => *self = Self::default(),
            _ => {}
        }
        None
    }

    /// What each step took. One that was not seen took no time of its own.
    fn complete(self, epoch: Epoch, now: Timestamp) -> Takeover {
        let caught_up = self.caught_up.unwrap_or(now);
        let promised = self.promised.unwrap_or(caught_up);
        let noticed = self.noticed.unwrap_or(promised);
        // An epoch that was asked for anew, since nobody led with the first, was won with an old znode.
        let elected = self.elected.unwrap_or(noticed);
        let since = |time: Timestamp| u64::try_from(time.since(noticed).as_micros()).unwrap_or(u64::MAX);
        Takeover {
            epoch,
            elected_us: since(elected),
            promised_us: since(promised),
            caught_up_us: since(caught_up),
            established_us: since(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use quorumkv_protocol::{NodeId, Version};

    use super::*;

    const EPOCH: Epoch = Epoch::new(7, NodeId::new(1));

    fn at(us: u64) -> Timestamp {
        Timestamp::from_micros(us)
    }

    fn promises() -> Notice {
        Notice::Promises { epoch: EPOCH, granted: 2, voters: 3, behind: None }
    }

    fn established() -> Notice {
        Notice::Established { epoch: EPOCH, opening: Version::new(9) }
    }

    #[test]
    fn each_step_counts_from_the_first_sign_that_there_is_no_leader() {
        let mut watch = Stopwatch::default();
        watch.noticed(at(90), at(100));
        watch.noticed(at(90), at(150));
        watch.elected(at(90), at(200));
        assert_eq!(watch.on_notice(&promises(), at(90), at(300)), None);
        watch.opened(at(400));
        watch.opened(at(450));
        let takeover = watch.on_notice(&established(), at(500), at(500)).unwrap();
        let expected = Takeover {
            epoch: EPOCH,
            elected_us: 100,
            promised_us: 200,
            caught_up_us: 300,
            established_us: 400,
        };
        assert_eq!(takeover, expected);
    }

    #[test]
    fn what_came_to_nothing_does_not_count_for_the_next() {
        let mut watch = Stopwatch::default();
        // Another was faster.
        watch.elected(at(90), at(200));
        watch.on_notice(&Notice::Following { epoch: EPOCH }, at(300), at(300));
        // A connection broke, and the leader was heard again.
        watch.noticed(at(400), at(500));
        watch.elected(at(900), at(1000));
        watch.on_notice(&promises(), at(900), at(1100));
        let takeover = watch.on_notice(&established(), at(1300), at(1300)).unwrap();
        assert_eq!((takeover.elected_us, takeover.promised_us, takeover.established_us), (0, 100, 300));
    }

    #[test]
    fn steps_that_fall_together_are_no_steps() {
        let mut watch = Stopwatch::default();
        watch.elected(at(90), at(100));
        let takeover = watch.on_notice(&established(), at(300), at(300)).unwrap();
        assert_eq!((takeover.promised_us, takeover.caught_up_us, takeover.established_us), (200, 200, 200));
    }
}
