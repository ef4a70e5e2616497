//! What a run is like: each seed has its own mix of faults, so that rare combinations come up.

use std::time::Duration;

use fastrand::Rng;
use quorumkv_replica::Settings;

use crate::shrink::Reduction;

/// What an entry takes in memory, mostly.
const ENTRY: usize = 250;

/// Mean times between events of one kind, in microseconds; `None`: it does not happen in this run.
type Every = Option<u64>;

/// The circumstances of one run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) nodes: u64,
    /// How long the chaos lasts, in microseconds.
    pub(crate) chaos: u64,
    /// Time between a node's ticks, in microseconds.
    pub(crate) tick: u64,
    /// Whether only a majority heals at the end.
    pub(crate) some_stay_away: bool,
    /// Whether clients go on while all heals.
    pub(crate) some_go_on: bool,
    pub(crate) settings: Settings,
    pub(crate) clients: u64,
    pub(crate) keys: u64,
    /// How many requests only read, in a hundred.
    pub(crate) reads: u64,
    /// How long a client pauses between requests at most.
    pub(crate) pause: u64,
    /// Results of requests that are remembered.
    pub(crate) results: usize,
    /// The usual delay of a message, and how often one takes far longer, in a thousand.
    pub(crate) delay: u64,
    pub(crate) delayed: u64,
    /// How often a request comes twice, in a thousand.
    pub(crate) duplicated: u64,
    /// How long a sync and an application take at most.
    pub(crate) sync: u64,
    pub(crate) apply: u64,
    /// How long it takes at most to read from the log, and to serve a piece of a snapshot.
    pub(crate) task: u64,
    /// How long it takes at most to store a piece of a snapshot, and to put the whole in place.
    pub(crate) store: u64,
    /// Pieces of the state in one chunk of a snapshot.
    pub(crate) chunk: usize,
    /// How often a client retries what it got no answer to, in a hundred.
    pub(crate) retries: u64,
    pub(crate) elections: u64,
    pub(crate) rivals: u64,
    pub(crate) crashes: Every,
    pub(crate) partitions: Every,
    pub(crate) breaks: Every,
    pub(crate) slow_disks: Every,
    pub(crate) slow_links: Every,
    pub(crate) clocks: Every,
    pub(crate) resignations: Every,
    /// How often a log cannot be synced any more.
    pub(crate) failed_syncs: Every,
    /// How often something happens to a log, so that its node must be replaced.
    pub(crate) log_damages: Every,
    /// How often the administrator wants to change the members, and how often a disk is lost.
    pub(crate) changes: Every,
    pub(crate) amnesias: Every,
    pub(crate) saves: u64,
    /// How often something happens to the state of a node while those of all are well, and whether values change there, or cannot
    /// be read. Where members go, the damaged one can be the last, and nobody is left to repair it.
    pub(crate) damages: Every,
    pub(crate) flips: bool,
    /// Whether a save of the state is followed by a trim of the log, in a hundred.
    pub(crate) trims: u64,
    /// Whether the state may be saved with entries that this node's log has not synced.
    pub(crate) state_outruns_log: bool,
}

impl Plan {
    /// What a run is like: mostly anything, now and then a storm, logs that nobody can keep up with, members that come and go all
    /// the time, or states that decay.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let mut plan = Self::draw_anything(rng);
        if rng.u8(0..4) == 0 {
            plan = plan.in_a_storm(rng);
        }
        if rng.u8(0..5) == 0 {
            plan = plan.in_arrears(rng);
        }
        match rng.u8(0..4) {
            0 if plan.changes.is_some() => plan.in_flux(rng),
            0 if plan.damages.is_some() => plan.in_decay(rng),
            _ => plan,
        }
    }

    /// States are damaged and repaired all the time, while clients write: where a repair meets what is voted for meanwhile.
    fn in_decay(mut self, rng: &mut Rng) -> Self {
        self.chaos = self.chaos.min(15_000_000);
        self.settings.append_bytes = 1;
        self.settings.pipeline = 4;
        (self.clients, self.keys, self.pause, self.reads) = (rng.u64(3..7), 2, 2_000, 20);
        self.damages = Some(rng.u64(10_000..200_000));
        self.breaks = Some(rng.u64(20_000..200_000));
        self.apply = *rng.choice(&[100, 20_000]).expect("there are choices");
        // Repairs are quick, and entries are slow to be committed.
        (self.task, self.store, self.chunk) = (800, 100, 100);
        self.slow_disks = Some(rng.u64(50_000..300_000));
        self
    }

    /// Members come and go faster than all of them can hear of it, and clients read at those that have not: where configurations
    /// meet.
    fn in_flux(mut self, rng: &mut Rng) -> Self {
        self.chaos = self.chaos.min(15_000_000);
        (self.clients, self.keys, self.pause, self.reads) = (rng.u64(3..7), 1, 2_000, 80);
        self.changes = Some(rng.u64(5_000..60_000));
        self.partitions = Some(rng.u64(40_000..300_000));
        self.breaks = Some(rng.u64(20_000..200_000));
        self
    }

    /// Logs are trimmed as soon as they can be, and kept on disk only, while followers fall behind and get what they miss entry by
    /// entry: where reading, trimming and restoring meet.
    fn in_arrears(mut self, rng: &mut Rng) -> Self {
        self.settings.cache_bytes = 0;
        self.settings.append_bytes = 1;
        self.settings.pipeline = rng.usize(1..3);
        (self.clients, self.pause, self.reads) = (rng.u64(2..7), 2_000, 20);
        (self.saves, self.trims) = (rng.u64(4_000..40_000), 90);
        (self.apply, self.task) = (100, rng.u64(5_000..300_000));
        self.store = *rng.choice(&[self.apply, self.task]).expect("there are choices");
        self.results = rng.usize(2..10);
        self.chunk = *rng.choice(&[2, 100, 100]).expect("there are choices");
        (self.elections, self.rivals) = (self.elections.min(rng.u64(20_000..500_000)), rng.u64(20..60));
        // What they come to shows when all heals, so that the sooner the better.
        self.chaos = self.chaos.min(8_000_000);
        self.delayed = 50;
        self.crashes = Some(rng.u64(100_000..600_000));
        self.partitions = Some(rng.u64(50_000..400_000));
        self.breaks = Some(rng.u64(10_000..200_000));
        self
    }

    /// Leaders follow one another faster than they can do anything in peace, while a few clients want one key: where what one
    /// epoch has left behind meets the next two.
    fn in_a_storm(mut self, rng: &mut Rng) -> Self {
        self.chaos = self.chaos.min(15_000_000);
        self.settings.append_bytes = 1;
        self.settings.pipeline = rng.usize(1..3);
        (self.clients, self.keys, self.pause) = (rng.u64(2..6), 1, 2_000);
        (self.elections, self.rivals) = (rng.u64(8_000..120_000), rng.u64(30..80));
        (self.delay, self.delayed) = (*rng.choice(&[1_000, 5_000]).expect("there are choices"), 50);
        self.crashes = Some(rng.u64(100_000..500_000));
        self.partitions = Some(rng.u64(40_000..300_000));
        (self.saves, self.trims) =
            (rng.u64(10_000..100_000), *rng.choice(&[0, 90]).expect("there are choices"));
        self
    }

    fn draw_anything(rng: &mut Rng) -> Self {
        let sync = *rng.choice(&[200, 2_000, 20_000]).expect("there are choices");
        let apply = *rng.choice(&[100, 2_000, 20_000]).expect("there are choices");
        let comes_and_goes = rng.bool();
        // Where members come and go, even numbers are the hardest: two configurations that both follow the same one can have
        // majorities that do not overlap.
        let sizes: &[u64] =
            if comes_and_goes { &[1, 2, 2, 3, 4, 4, 4, 5] } else { &[1, 2, 3, 3, 3, 4, 4, 5, 5, 5, 5, 7] };
        let nodes = *rng.choice(sizes).expect("there are choices");
        let (trims, state_outruns_log) = (*rng.choice(&[0, 20, 90]).expect("there are choices"), rng.bool());
        // A changed value is told only by comparison, among more than two.
        let flips = nodes > 2;
        Self {
            nodes,
            chaos: rng.u64(2_000_000..50_000_000),
            tick: *rng.choice(&[5_000, 10_000, 10_000, 30_000]).expect("there are choices"),
            some_stay_away: rng.bool(),
            some_go_on: rng.u8(0..4) == 0,
            settings: settings(rng),
            clients: rng.u64(1..7),
            keys: *rng.choice(&[1, 1, 2, 3]).expect("there are choices"),
            reads: *rng.choice(&[20, 50, 80]).expect("there are choices"),
            pause: *rng.choice(&[2_000, 40_000, 40_000, 400_000]).expect("there are choices"),
            results: rng.usize(2..60),
            delay: *rng.choice(&[200, 1_000, 5_000]).expect("there are choices"),
            delayed: *rng.choice(&[0, 5, 50]).expect("there are choices"),
            duplicated: *rng.choice(&[0, 5, 50]).expect("there are choices"),
            sync,
            task: sync * 4,
            apply,
            chunk: *rng.choice(&[1, 2, 5, 100]).expect("there are choices"),
            store: *rng.choice(&[apply, apply.max(sync * 4), 80_000]).expect("there are choices"),
            retries: *rng.choice(&[20, 70, 95]).expect("there are choices"),
            elections: elections(rng),
            rivals: rng.u64(0..60),
            crashes: sometimes(rng, 150_000..2_000_000),
            partitions: sometimes(rng, 50_000..1_500_000),
            breaks: sometimes(rng, 20_000..1_000_000),
            slow_disks: sometimes(rng, 200_000..2_000_000),
            slow_links: sometimes(rng, 100_000..3_000_000),
            clocks: sometimes(rng, 200_000..4_000_000),
            resignations: sometimes(rng, 300_000..3_000_000),
            changes: sometimes(rng, 10_000..800_000).filter(|_| comes_and_goes),
            amnesias: sometimes(rng, 200_000..3_000_000).filter(|_| comes_and_goes),
            failed_syncs: sometimes(rng, 300_000..3_000_000),
            log_damages: sometimes(rng, 300_000..3_000_000).filter(|_| comes_and_goes),
            saves: rng.u64(20_000..500_000),
            damages: sometimes(rng, 200_000..2_000_000).filter(|_| nodes > 1 && !comes_and_goes),
            flips,
            trims,
            state_outruns_log,
        }
    }
}

impl Plan {
    /// How long one entry takes at most when all is well, if there is nothing else to do. A follower whose state cannot keep up turns
    /// away what it has no room for, and is sent that again after a while.
    pub(crate) fn entry(&self) -> u64 {
        let Settings { resend, backlog_bytes, .. } = self.settings;
        let room = backlog_bytes.div_ceil(ENTRY) as u64;
        let throttled = u64::try_from(resend.as_micros()).expect("it is not long") / room;
        throttled.max(self.sync + self.apply + 2 * (self.task + self.delay))
    }

    /// How long one comparison of the states takes at most, in microseconds.
    pub(crate) fn comparison(&self) -> u64 {
        let Settings { compare, heartbeat, .. } = self.settings;
        let longest = compare.max(heartbeat) * 6 + heartbeat * 2;
        u64::try_from(longest.as_micros()).expect("heartbeats are short")
    }

    /// The same with less in it.
    pub(crate) fn reduced(mut self, reduction: &Reduction) -> Self {
        self.clients = self.clients.min(reduction.clients.unwrap_or(u64::MAX));
        self.chaos = self.chaos.min(reduction.end.unwrap_or(u64::MAX));
        if reduction.calm_network {
            (self.delayed, self.duplicated) = (0, 0);
        }
        self
    }
}

/// From elections that follow one another faster than a takeover can be completed, to reigns of seconds.
fn elections(rng: &mut Rng) -> u64 {
    match rng.u8(0..3) {
        0 => rng.u64(5_000..60_000),
        1 => rng.u64(60_000..400_000),
        _ => rng.u64(400_000..2_000_000),
    }
}

fn sometimes(rng: &mut Rng, range: std::ops::Range<u64>) -> Every {
    let every = rng.u64(range);
    (rng.u8(0..3) > 0).then_some(every)
}

fn settings(rng: &mut Rng) -> Settings {
    Settings {
        heartbeat: Duration::from_millis(rng.u64(20..100)),
        resend: Duration::from_millis(rng.u64(50..400)),
        failover: Duration::from_millis(rng.u64(100..600)),
        quorum_silence: Duration::from_millis(800),
        sync_stall: Duration::from_secs(1),
        hedge: Duration::from_millis(rng.u64(2..30)),
        park: Duration::from_millis(rng.u64(20..400)),
        pipeline: rng.usize(1..5),
        append_bytes: *rng.choice(&[1, 1, 500, 1 << 20]).expect("there are choices"),
        backlog_bytes: *rng.choice(&[1_000, 5_000, 1 << 20]).expect("there are choices"),
        cache_bytes: *rng.choice(&[0, 1_000, 1 << 20]).expect("there are choices"),
        reads: *rng.choice(&[2, 64, 64, 64]).expect("there are choices"),
        compare: Duration::from_millis(rng.u64(20..200)),
        compare_bytes: rng.u32(1..20),
        catch_up: rng.u64(0..20),
    }
}
