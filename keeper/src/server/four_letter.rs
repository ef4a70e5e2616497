//! ZooKeeper's four-letter words: a connection that begins with one is told how the server is, in the format that
//! monitoring tools know from ZooKeeper, and closed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;

use super::dates;
use super::listener::Slots;
use super::tls::Handshakes;
use crate::core::{ConnectionView, Keeper, Latency};
use crate::wire::op;

mod system;

/// The behaviour that clients and tools may expect, and whose it is.
const VERSION: &str = concat!("3.9.3-quorumkv-keeper-", env!("CARGO_PKG_VERSION"));

macro_rules! words {
    ($($word:ident $text:literal $meaning:literal,)*) => {
        /// A four-letter word.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Word {
            $(#[doc = $meaning] $word,)*
        }

        const WORDS: &[(Word, &str)] = &[$((Word::$word, $text),)*];
    };
}

words! {
    Ruok "ruok" "Whether the server is there.",
    Srvr "srvr" "How it is.",
    Stat "stat" "How it is, with its connections.",
    Mntr "mntr" "How it is, for machines.",
    Cons "cons" "Its connections, in detail.",
    Crst "crst" "Forgets what was counted for connections.",
    Srst "srst" "Forgets what was counted for the server.",
    Envi "envi" "What it runs on.",
    Conf "conf" "What it was told to be.",
    Dirs "dirs" "How large its files are.",
    Dump "dump" "Its sessions and their ephemeral znodes.",
    Wchs "wchs" "How many watches there are.",
    Wchc "wchc" "Watches by session.",
    Wchp "wchp" "Watches by path.",
    Isro "isro" "Whether it only reads.",
}

impl Word {
    /// The word that a connection begins with, if it is one.
    #[must_use]
    pub fn parse(bytes: [u8; 4]) -> Option<Self> {
        WORDS.iter().find(|(_, text)| text.as_bytes() == bytes).map(|&(word, _)| word)
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        WORDS.iter().filter(|(word, _)| word == self).try_for_each(|(_, text)| f.write_str(text))
    }
}

/// Which words are answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Whitelist(BTreeSet<Word>);

/// The text names something that is no word.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{0:?} is no four-letter word (write srvr,ruok,mntr or * for all)")]
pub struct NoWord(pub String);

impl Whitelist {
    /// All of them.
    #[must_use]
    pub fn all() -> Self {
        Self(WORDS.iter().map(|&(word, _)| word).collect())
    }

    pub(super) fn permits(&self, word: Word) -> bool {
        self.0.contains(&word)
    }
}

impl Default for Whitelist {
    /// As in ZooKeeper: `srvr` alone.
    fn default() -> Self {
        Self(BTreeSet::from([Word::Srvr]))
    }
}

impl FromStr for Whitelist {
    type Err = NoWord;

    /// Words with commas between them; `*` stands for all, nothing for none.
    fn from_str(text: &str) -> Result<Self, NoWord> {
        let mut words = BTreeSet::new();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name == "*" {
                return Ok(Self::all());
            }
            let word = name.as_bytes().try_into().ok().and_then(Word::parse);
            words.insert(word.ok_or_else(|| NoWord(name.to_owned()))?);
        }
        Ok(Self(words))
    }
}

/// What is told besides what the keeper knows.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) started: Instant,
    /// When the program was made.
    pub(super) built: SystemTime,
    /// Packets, since the start or the last `srst`.
    pub(super) received: u64,
    /// Packets, since the start or the last `srst`.
    pub(super) sent: u64,
    /// Clients that have asked for a session, since the start or the last `srst`.
    pub(super) connect_requests: u64,
    /// Sessions, since the start or the last `srst`.
    pub(super) expired_sessions: u64,
    pub(super) slots: Arc<Slots>,
    pub(super) handshakes: Arc<Handshakes>,
    pub(super) settings: Settings,
}

/// What `conf` answers.
#[derive(Debug)]
pub(super) struct Settings {
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// Where it listens for encrypted connections, if it does.
    pub(super) secure: Option<SocketAddr>,
    pub(super) snapshots: PathBuf,
    pub(super) log: PathBuf,
    pub(super) tick_ms: u32,
    pub(super) max_client_connections: usize,
    pub(super) min_session_ms: i32,
    pub(super) max_session_ms: i32,
}

/// What a word is answered that came from this address.
pub(super) fn answer(word: Word, from: SocketAddr, keeper: &mut Keeper, facts: &mut Facts) -> String {
    match word {
        Word::Ruok => "imok".to_owned(),
        Word::Isro => "rw".to_owned(),
        Word::Srvr => version(facts) + &server(keeper, facts),
        Word::Stat => {
            version(facts) + "Clients:\n" + &connections(keeper, from, false) + "\n" + &server(keeper, facts)
        }
        Word::Mntr => monitored(keeper, facts),
        Word::Cons => connections(keeper, from, true) + "\n",
        Word::Crst => {
            keeper.reset_connection_statistics();
            "Connection stats reset.\n".to_owned()
        }
        Word::Srst => {
            keeper.reset_statistics();
            (facts.received, facts.sent) = (0, 0);
            (facts.connect_requests, facts.expired_sessions) = (0, 0);
            "Server stats reset.\n".to_owned()
        }
        Word::Envi => system::environment(&full_version(facts)),
        Word::Conf => configuration(&facts.settings),
        Word::Dirs => {
            let Settings { snapshots, log, .. } = &facts.settings;
            format!("datadir_size: {}\nlogdir_size: {}\n", system::size(snapshots), system::size(log))
        }
        Word::Dump => dump(keeper),
        Word::Wchs => {
            let watches = keeper.watch_summary();
            format!(
                "{} connections watching {} paths\nTotal watches:{}\n",
                watches.connections, watches.paths, watches.total
            )
        }
        Word::Wchc => {
            let by_session = keeper.watches_by_session();
            lists(by_session.iter().map(|(session, paths)| (format!("{session:#x}"), paths)))
        }
        Word::Wchp => {
            let by_session = keeper.watches_by_session();
            let mut by_path: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
            for (session, paths) in &by_session {
                for path in paths {
                    by_path.entry(path).or_default().insert(format!("{session:#x}"));
                }
            }
            lists(by_path.iter().map(|(path, sessions)| ((*path).to_owned(), sessions)))
        }
    }
}

/// Heads, each with an indented list below.
fn lists<T: fmt::Display>(lists: impl Iterator<Item = (String, impl IntoIterator<Item = T>)>) -> String {
    let mut text = String::new();
    for (head, items) in lists {
        text += &(head + "\n");
        items.into_iter().for_each(|item| text += &format!("\t{item}\n"));
    }
    text + "\n"
}

fn full_version(facts: &Facts) -> String {
    format!("{VERSION}, built on {}", dates::minute(facts.built))
}

fn version(facts: &Facts) -> String {
    format!("Zookeeper version: {}\n", full_version(facts))
}

fn server(keeper: &Keeper, facts: &Facts) -> String {
    let Latency { min_ms, max_ms, .. } = keeper.latency();
    format!(
        "Latency min/avg/max: {min_ms}/{}/{max_ms}\nReceived: {}\nSent: {}\nConnections: {}\nOutstanding: {}\n\
         Zxid: {:#x}\nMode: standalone\nNode count: {}\n",
        average(keeper.latency()),
        facts.received,
        facts.sent,
        facts.slots.open(),
        keeper.outstanding(),
        keeper.tree().last_zxid(),
        keeper.tree().len(),
    )
}

/// With up to four decimals, and at least one.
#[allow(clippy::cast_precision_loss, reason = "it is rounded anyway")]
fn average(latency: Latency) -> String {
    let average = if latency.count == 0 { 0.0 } else { latency.total_ms as f64 / latency.count as f64 };
    let text = format!("{average:.4}");
    let short = text.trim_end_matches('0');
    if short.ends_with('.') { format!("{short}0") } else { short.to_owned() }
}

/// An address as Java writes it.
fn address(address: SocketAddr) -> String {
    format!("/{}", SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// All connections, a line each: those of clients, and the one that asks.
fn connections(keeper: &Keeper, asks: SocketAddr, in_detail: bool) -> String {
    let mut text: String = keeper.connections().map(|view| connection(&view, in_detail) + "\n").collect();
    text += &format!(" {}[0](queued=0,recved=1,sent=0)\n", address(asks));
    text
}

fn connection(view: &ConnectionView, in_detail: bool) -> String {
    let statistics = &view.statistics;
    let mut text = format!(
        " {}[1](queued={},recved={},sent={}",
        address(view.address),
        view.queued,
        statistics.received,
        statistics.sent
    );
    if let (true, Some(session)) = (in_detail, view.session) {
        text += &format!(
            ",sid={session:#x},lop={},est={},to={},lcxid={:#x},lzxid={:#x},lresp={},llat={},minlat={},avglat={},maxlat={}",
            operation(statistics.last_op),
            statistics.opened_ms,
            view.timeout_ms.unwrap_or_default(),
            statistics.last_xid,
            statistics.last_zxid,
            statistics.last_response_ms,
            statistics.last_latency_ms,
            statistics.latency.min_ms,
            statistics.latency.total_ms.checked_div(statistics.latency.count).unwrap_or_default(),
            statistics.latency.max_ms,
        );
    }
    text + ")"
}

/// ZooKeeper's names of operations.
const fn operation(op: i32) -> &'static str {
    match op {
        0 => "SESS",
        op::PING => "PING",
        op::CREATE | op::CREATE2 | op::CREATE_CONTAINER | op::CREATE_TTL => "CREA",
        op::DELETE => "DELE",
        op::EXISTS => "EXIS",
        op::GET_DATA => "GETD",
        op::SET_DATA => "SETD",
        op::GET_ACL => "GETA",
        op::SET_ACL => "SETA",
        op::GET_CHILDREN | op::GET_CHILDREN2 => "GETC",
        op::GET_ALL_CHILDREN_NUMBER => "GACN",
        op::GET_EPHEMERALS => "GETE",
        op::SYNC => "SYNC",
        op::CHECK => "CHEC",
        op::MULTI => "MULT",
        op::MULTI_READ => "MLTR",
        op::RECONFIG => "RECO",
        op::CHECK_WATCHES => "CHKW",
        op::REMOVE_WATCHES => "REMW",
        op::SET_WATCHES => "SETW",
        op::SET_WATCHES2 => "STW2",
        op::ADD_WATCH => "ADDW",
        op::AUTH => "AUTH",
        op::WHO_AM_I => "HOMI",
        op::CLOSE_SESSION => "CLOS",
        _ => "NA",
    }
}

fn monitored(keeper: &Keeper, facts: &Facts) -> String {
    let (latency, tree, watches) = (keeper.latency(), keeper.tree(), keeper.watch_summary());
    let handshakes = &facts.handshakes;
    let values = [
        ("version", full_version(facts)),
        ("server_state", "standalone".to_owned()),
        ("ephemerals_count", tree.ephemerals_len().to_string()),
        ("num_alive_connections", facts.slots.open().to_string()),
        ("avg_latency", average(latency)),
        ("min_latency", latency.min_ms.to_string()),
        ("max_latency", latency.max_ms.to_string()),
        ("outstanding_requests", keeper.outstanding().to_string()),
        ("znode_count", tree.len().to_string()),
        ("global_sessions", keeper.session_count().to_string()),
        ("local_sessions", "0".to_owned()),
        ("packets_received", facts.received.to_string()),
        ("packets_sent", facts.sent.to_string()),
        ("connection_request_count", facts.connect_requests.to_string()),
        ("connection_rejected", facts.slots.refused.load(Ordering::Relaxed).to_string()),
        ("connection_drop_probability", "0.0".to_owned()),
        ("stale_sessions_expired", facts.expired_sessions.to_string()),
        ("outstanding_tls_handshake", handshakes.open.load(Ordering::Relaxed).to_string()),
        ("unsuccessful_handshake", handshakes.failed.load(Ordering::Relaxed).to_string()),
        ("watch_count", watches.total.to_string()),
        ("approximate_data_size", tree.data_bytes().to_string()),
        ("open_file_descriptor_count", system::open_files().to_string()),
        ("max_file_descriptor_count", system::max_files().to_string()),
        ("uptime", facts.started.elapsed().as_millis().to_string()),
        ("last_zxid", tree.last_zxid().to_string()),
    ];
    values.iter().fold(String::new(), |text, (name, value)| text + &format!("zk_{name}\t{value}\n"))
}

fn configuration(settings: &Settings) -> String {
    let secure_port = settings.secure.map_or(-1, |address| i32::from(address.port()));
    let Settings { snapshots, log, .. } = settings;
    format!(
        "clientPort={}\nclientPortAddress={}\nsecureClientPort={secure_port}\ndataDir={}\ndataDirSize={}\ndataLogDir={}\n\
         dataLogSize={}\ntickTime={}\nmaxClientCnxns={}\nminSessionTimeout={}\nmaxSessionTimeout={}\n\
         clientPortListenBacklog=-1\nserverId=0\n",
        settings.address.port(),
        settings.address.ip(),
        snapshots.display(),
        system::size(snapshots),
        log.display(),
        system::size(log),
        settings.tick_ms,
        settings.max_client_connections,
        settings.min_session_ms,
        settings.max_session_ms,
    )
}

fn dump(keeper: &Keeper) -> String {
    let tree = keeper.tree();
    let schedule: Vec<_> = keeper.session_schedule().collect();
    let mut text =
        format!("SessionTracker dump:\nSession Sets ({})/({}):\n", schedule.len(), keeper.session_count());
    let at = |ms: u64| dates::second(SystemTime::now() + Duration::from_millis(ms));
    for (ms, sessions) in &schedule {
        text += &format!("{} expire at {}:\n", sessions.len(), at(*ms));
        sessions.iter().for_each(|session| text += &format!("\t{session:#x}\n"));
    }
    let owners: BTreeSet<i64> =
        tree.sessions().map(|(id, _)| id).filter(|&id| tree.ephemerals_of(id).next().is_some()).collect();
    text += &format!("ephemeral nodes dump:\nSessions with Ephemerals ({}):\n", owners.len());
    for session in owners {
        text += &format!("{session:#x}:\n");
        tree.ephemerals_of(session).for_each(|path| text += &format!("\t{path}\n"));
    }
    let connections: Vec<_> = keeper.connections().collect();
    text += &format!("Connections dump:\nConnections Sets ({0})/({0}):\n", connections.len());
    for view in connections {
        let timeout = u64::try_from(view.timeout_ms.unwrap_or_default()).unwrap_or_default();
        let session = view.session.unwrap_or_default();
        text += &format!(
            "1 expire at {}:\n\tip: {} sessionId: {session:#x}\n",
            at(timeout),
            address(view.address)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_known_by_their_letters() {
        assert_eq!(Word::parse(*b"srvr"), Some(Word::Srvr));
        assert_eq!(Word::parse(*b"SRVR"), None);
        assert_eq!(Word::parse([0, 0, 0, 44]), None);
        assert_eq!(Word::Wchp.to_string(), "wchp");
    }

    #[test]
    fn whitelists_are_lists_of_words() {
        assert_eq!("".parse(), Ok(Whitelist(BTreeSet::new())));
        assert_eq!("ruok, mntr".parse(), Ok(Whitelist(BTreeSet::from([Word::Ruok, Word::Mntr]))));
        assert_eq!("srvr,*".parse(), Ok(Whitelist::all()));
        assert_eq!("srvr,rm".parse::<Whitelist>(), Err(NoWord("rm".to_owned())));
        assert!(Whitelist::default().permits(Word::Srvr) && !Whitelist::default().permits(Word::Ruok));
    }

    #[test]
    fn averages_have_as_many_decimals_as_zookeepers() {
        let average_of = |total_ms, count| average(Latency { min_ms: 0, max_ms: 0, total_ms, count });
        assert_eq!(average_of(0, 0), "0.0");
        assert_eq!(average_of(59, 9), "6.5556");
        assert_eq!(average_of(10, 4), "2.5");
        assert_eq!(average_of(20, 2), "10.0");
    }
}
