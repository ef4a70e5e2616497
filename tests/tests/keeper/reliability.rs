//! kill -9 under load, a hundred times: no acknowledged write is lost, no sequence number used twice, and no ephemeral znode
//! outlives its session. Sessions that are heard of again in time live through all of it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use quorumkv_keeper::jute::Decoder;
use quorumkv_tests::keeperd::Keeperd;

use crate::raw::{Answer, Connection, Hello, Session, body, op, open_acl};

/// How often the server is killed.
const KILLS: u32 = 100;
/// How long it may serve between two kills, at most.
const SERVING_MS: u64 = 300;
/// How long anybody waits for the server to be back.
const PATIENCE: Duration = Duration::from_secs(60);
/// For sessions that are to live through everything.
const LONG_MS: i32 = 60_000;
/// For sessions that are left to die.
const SHORT_MS: i32 = 400;

/// Small snapshots, so that many are taken, and short ticks, so that sessions can be short.
const SETTINGS: [&str; 8] = [
    "--tick-time",
    "100ms",
    "--min-session-timeout",
    "200ms",
    "--max-session-timeout",
    "60s",
    "--snapshot-txns",
    "300",
];

#[test]
fn a_hundred_kills_lose_nothing_that_was_acknowledged() -> Result<()> {
    let mut keeperd = Keeperd::start(&SETTINGS)?;
    let world = World { address: keeperd.address(), stop: AtomicBool::new(false), numbers: Mutex::default() };
    let mut setup = Session::start(&world.address)?;
    for path in ["/sequential", "/set", "/ephemeral", "/plain"] {
        setup.create(path, b"", 0)?;
    }
    setup.close()?;
    let world = &world;
    thread::scope(|scope| -> Result<()> {
        let workers = [
            scope.spawn(move || world.stopping(|| sequential(world, 0))),
            scope.spawn(move || world.stopping(|| sequential(world, 1))),
            scope.spawn(move || world.stopping(|| setting(world, 0))),
            scope.spawn(move || world.stopping(|| setting(world, 1))),
            scope.spawn(move || world.stopping(|| ephemeral(world))),
            scope.spawn(move || world.stopping(|| plain(world))),
        ];
        let killed = world.stopping(|| kills(world, &mut keeperd));
        world.stop.store(true, Ordering::Relaxed);
        for worker in workers {
            let done = worker.join().expect("no panic in a worker")?;
            // One that never got through would prove nothing.
            ensure!(done > u64::from(KILLS), "a worker has had only {done} answers");
        }
        killed.map(drop)
    })?;
    ephemerals_are_gone(world)?;
    keeperd.check_runs()?;
    ensure!(keeperd.stop()?.success(), "keeperd does not stop cleanly");
    Ok(())
}

/// What all workers share.
#[derive(Debug)]
struct World {
    address: String,
    stop: AtomicBool,
    /// Sequential znodes whose creation was acknowledged, ever.
    numbers: Mutex<HashSet<String>>,
}

impl World {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Whoever fails stops all others.
    fn stopping(&self, work: impl FnOnce() -> Result<u64>) -> Result<u64> {
        let result = work();
        if result.is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
        result
    }
}

fn kills(world: &World, keeperd: &mut Keeperd) -> Result<u64> {
    for kill in 0..KILLS {
        if !world.goes_on() {
            break;
        }
        thread::sleep(Duration::from_millis(fastrand::u64(20..SERVING_MS)));
        keeperd.kill()?;
        keeperd.start_again().with_context(|| format!("after kill {kill}"))?;
    }
    Ok(0)
}

/// A session that goes on over every restart.
struct Survivor<'a> {
    world: &'a World,
    session: Session,
    answers: u64,
}

impl<'a> Survivor<'a> {
    fn start(world: &'a World) -> Result<Self> {
        Ok(Self {
            world,
            session: connect(world, &Hello { timeout_ms: LONG_MS, ..Hello::default() })?,
            answers: 0,
        })
    }

    /// Asks once. Nothing if the connection broke, so that nobody knows whether it was done.
    fn ask(&mut self, op: i32, body: &[u8]) -> Result<Option<Answer>> {
        if let Ok(answer) = self.session.call(op, body) {
            self.answers += 1;
            return Ok(Some(answer));
        }
        let hello = self.session.resumption();
        let (id, xid_source) = (self.session.id, connect(self.world, &hello)?);
        ensure!(xid_source.id == id, "session {id:x} is lost");
        self.session = xid_source;
        Ok(None)
    }

    /// Asks until there is an answer: for what can be asked twice.
    fn insist(&mut self, op: i32, body: &[u8]) -> Result<Answer> {
        loop {
            if let Some(answer) = self.ask(op, body)? {
                return Ok(answer);
            }
        }
    }

    fn data(&mut self, path: &str) -> Result<Option<Vec<u8>>> {
        let answer = self.insist(op::GET_DATA, &body::watched(path, false))?;
        match answer.reply.error {
            0 => Ok(Some(Decoder::new(&answer.reply.body).buffer()?.unwrap_or_default().to_vec())),
            -101 => Ok(None),
            error => bail!("reading {path} fails with {error}"),
        }
    }
}

/// Connects, as often as it takes. A session that cannot be gone on with is an error.
fn connect(world: &World, hello: &Hello) -> Result<Session> {
    let started = Instant::now();
    loop {
        let welcome = Connection::open(&world.address).and_then(|mut connection| {
            let welcome = connection.hello(hello)?;
            Ok((connection, welcome))
        });
        match welcome {
            Ok((connection, Some(welcome))) => {
                ensure!(welcome.timeout_ms > 0, "session {:x} is said to be over", hello.session);
                return Ok(Session::over(connection, welcome, hello.last_zxid));
            }
            Ok((_, None)) | Err(_) if started.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(2)),
            Ok((_, None)) => bail!("the server closes for {PATIENCE:?}: zxid {:x} unknown?", hello.last_zxid),
            Err(error) => return Err(error),
        }
    }
}

/// Creates sequential znodes, and deletes every other one again.
fn sequential(world: &World, worker: u32) -> Result<u64> {
    let mut survivor = Survivor::start(world)?;
    let mut kept = BTreeMap::new();
    for count in 0_u64.. {
        if !world.goes_on() {
            break;
        }
        let token = format!("{worker}-{count}").into_bytes();
        let create = body::create("/sequential/n-", Some(&token), &open_acl(), 2);
        let Some(answer) = survivor.ask(op::CREATE, &create)? else { continue };
        ensure!(answer.reply.error == 0, "a creation fails with {}", answer.reply.error);
        let path = Decoder::new(&answer.reply.body).string()?;
        let is_new = world.numbers.lock().expect("nobody panics").insert(path.clone());
        ensure!(is_new, "{path} is given a second time");
        if count % 2 == 0 {
            kept.insert(path, token);
        } else {
            let deleted = survivor.insist(op::DELETE, &body::numbered(&path, -1))?;
            // The first attempt may have been done without anybody knowing.
            ensure!(matches!(deleted.reply.error, 0 | -101), "a deletion fails with {}", deleted.reply.error);
        }
    }
    for (path, token) in kept {
        let found = survivor.data(&path)?;
        ensure!(found.as_ref() == Some(&token), "{path} held {token:?} and now {found:?}");
    }
    Ok(survivor.answers)
}

/// Counts up in one znode; whatever is read after a restart is not older than what was acknowledged.
fn setting(world: &World, worker: u32) -> Result<u64> {
    let mut survivor = Survivor::start(world)?;
    let path = format!("/set/{worker}");
    let created = survivor.insist(op::CREATE, &body::create(&path, Some(b"0"), &open_acl(), 0))?;
    ensure!(matches!(created.reply.error, 0 | -110), "{created:?}");
    let mut acknowledged = 0;
    let mut count = 0_u64;
    while world.goes_on() {
        count += 1;
        let set = survivor.ask(op::SET_DATA, &body::set(&path, Some(count.to_string().as_bytes()), -1))?;
        match set {
            Some(answer) => {
                ensure!(answer.reply.error == 0, "setting fails with {}", answer.reply.error);
                acknowledged = count;
            }
            None => {
                let data = survivor.data(&path)?.context("the znode is gone")?;
                let found: u64 = String::from_utf8(data)?.parse()?;
                ensure!((acknowledged..=count).contains(&found), "{found} after {acknowledged} of {count}");
            }
        }
    }
    let data = survivor.data(&path)?.context("the znode is gone")?;
    let found: u64 = String::from_utf8(data)?.parse()?;
    ensure!(found >= acknowledged, "{found} although {acknowledged} was acknowledged");
    Ok(survivor.answers)
}

/// Leaves sessions with ephemeral znodes to die, and keeps one that must not.
fn ephemeral(world: &World) -> Result<u64> {
    let mut survivor = Survivor::start(world)?;
    let mine = "/ephemeral/of-a-survivor";
    let created = survivor.insist(op::CREATE, &body::create(mine, None, &open_acl(), 1))?;
    ensure!(matches!(created.reply.error, 0 | -110), "{created:?}");
    for count in 0_u64.. {
        if !world.goes_on() {
            break;
        }
        let mut short = connect(world, &Hello { timeout_ms: SHORT_MS, ..Hello::default() })?;
        // It is no matter whether that gets through: the session is left alone either way.
        let path = format!("/ephemeral/{count}");
        let _ = short.call(op::CREATE, &body::create(&path, None, &open_acl(), 1));
        ensure!(survivor.data(mine)?.is_some(), "the znode of a living session is gone");
    }
    Ok(survivor.answers)
}

/// Creates and deletes; what was acknowledged last is so in the end.
fn plain(world: &World) -> Result<u64> {
    let mut survivor = Survivor::start(world)?;
    let mut expected = BTreeMap::new();
    for count in 0_u64.. {
        if !world.goes_on() {
            break;
        }
        let path = format!("/plain/{}", count % 50);
        let there = expected.get(&path) == Some(&true);
        let (op, body) = if there {
            (op::DELETE, body::numbered(&path, -1))
        } else {
            (op::CREATE, body::create(&path, Some(b"x"), &open_acl(), 0))
        };
        let answer = survivor.insist(op, &body)?;
        let done_before = if there { -101 } else { -110 };
        ensure!(answer.reply.error == 0 || answer.reply.error == done_before, "{path}: {answer:?}");
        expected.insert(path, !there);
    }
    for (path, there) in expected {
        ensure!(survivor.data(&path)?.is_some() == there, "{path} should be there: {there}");
    }
    Ok(survivor.answers)
}

/// All sessions are over: some were left to die, the others' connections are closed and they have to be waited for no longer
/// than the short ones.
fn ephemerals_are_gone(world: &World) -> Result<()> {
    let mut session = Session::start(&world.address)?;
    let started = Instant::now();
    loop {
        let children = session.ok(op::GET_CHILDREN, &body::watched("/ephemeral", false))?;
        let left = Decoder::new(&children).vector(Decoder::string)?;
        if left.iter().all(|name| name == "of-a-survivor") {
            ensure!(left.len() == 1, "the znode of a session that may still come back is gone");
            return session.close();
        }
        ensure!(started.elapsed() < PATIENCE, "left of dead sessions: {left:?}");
        thread::sleep(Duration::from_millis(20));
    }
}
