//! A node of the tests: a coordinator behind its own proxy, and what its events have said so far.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kvd::coordination::{Config, Coordinator, Event, HostPort, SessionState};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use zookeeper_client::Client;

use crate::proxy::Proxy;

/// How long a test waits for what must come. Never reached by a test that passes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// A ZooKeeper, and a part of its tree that no other test uses, in this run or another.
pub(crate) struct Place {
    servers: String,
    pub(crate) root: String,
    pub(crate) session_timeout: Duration,
    /// For ever, unless a test says otherwise: the watches must do it alone.
    pub(crate) audit_interval: Duration,
}

/// A session that a test with this timeout never sees expire.
pub(crate) const LONG_SESSION: Duration = Duration::from_secs(60);

impl Place {
    pub(crate) fn new(connect_string: &str, test: &str) -> Self {
        let (servers, above) =
            connect_string.split_at(connect_string.find('/').unwrap_or(connect_string.len()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_nanos();
        let root = format!("{above}/{test}-{now}");
        Self {
            servers: servers.to_owned(),
            root,
            session_timeout: Duration::from_secs(2),
            audit_interval: PATIENCE * 100,
        }
    }
}

pub(crate) struct Node {
    pub(crate) coordinator: Coordinator,
    pub(crate) proxy: Proxy,
    pub(crate) address: HostPort,
    events: mpsc::Receiver<Event>,
    tasks: TaskTracker,
}

impl Node {
    /// A node that contends, called 127.0.0.1:`port`.
    pub(crate) async fn start(place: &Place, port: u16) -> Self {
        let node = Self::start_cut_off(place, port).await;
        node.proxy.restore();
        node
    }

    /// The same, without a connection until its proxy is restored.
    pub(crate) async fn start_cut_off(place: &Place, port: u16) -> Self {
        let proxy = Proxy::to(&place.servers).await.expect("open a proxy on loopback");
        proxy.cut();
        let address: HostPort = format!("127.0.0.1:{port}").parse().expect("an address");
        let connect = format!("{}{}", proxy.address(), place.root).parse().expect("a connect string");
        let config = Config {
            session_timeout: place.session_timeout,
            audit_interval: place.audit_interval,
            ..Config::new(connect, address.clone())
        };
        let tasks = TaskTracker::new();
        let (coordinator, events) = Coordinator::start(config, &tasks);
        Self { coordinator, proxy, address, events, tasks }
    }

    /// The next event, whatever it is.
    pub(crate) async fn event(&mut self) -> Event {
        timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("the owner runs")
    }

    /// Skips events until the one that is wanted; returns what was skipped.
    pub(crate) async fn until(&mut self, wanted: &Event) -> Vec<Event> {
        let mut skipped = Vec::new();
        loop {
            match self.event().await {
                event if event == *wanted => return skipped,
                event => skipped.push(event),
            }
        }
    }

    /// Waits for a session; returns its id.
    pub(crate) async fn until_connected(&mut self) -> i64 {
        loop {
            if let Event::Session(SessionState::Connected { session }) = self.event().await {
                return session;
            }
        }
    }

    /// All that has been said and not been read.
    pub(crate) fn events_so_far(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    /// Withdraws, and sees that no task is left.
    pub(crate) async fn withdraw(mut self) {
        self.coordinator.withdraw(PATIENCE).await.expect("close the session");
        while self.events.recv().await.is_some() {}
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// A client of the test itself, which sees what the nodes do.
pub(crate) struct Observer {
    pub(crate) client: Client,
    pub(crate) place: Place,
}

impl Observer {
    /// Connects to the ZooKeeper of a test called `test`.
    pub(crate) async fn connect(connect_string: &str, test: &str) -> Self {
        let place = Place::new(connect_string, test);
        let connector = Client::connector().with_session_timeout(PATIENCE);
        let client = connector.connect(&place.servers).await.expect("connect to the ZooKeeper of the test");
        Self { client, place }
    }

    /// Looks at the same place through a new session, of the same servers or of others.
    pub(crate) async fn elsewhere(self, connect_string: &str) -> Self {
        let connector = Client::connector().with_session_timeout(PATIENCE);
        let client = connector.connect(connect_string).await.expect("connect to the ZooKeeper of the test");
        Self { client, ..self }
    }

    /// The addresses in the election, by sequence.
    pub(crate) async fn contenders(&self) -> Vec<String> {
        let path = format!("{}/election", self.place.root);
        let mut names = match self.client.list_children(&path).await {
            Err(zookeeper_client::Error::NoNode) => Vec::new(),
            names => names.expect("list the election"),
        };
        names.sort_by_key(|name| name.rsplit('_').next().map(str::to_owned));
        names.iter().filter_map(|name| name.rsplit_once('_')).map(|(address, _)| address.to_owned()).collect()
    }

    /// Waits until exactly these nodes are in the election, in this order.
    pub(crate) async fn until_contenders(&self, wanted: &[&Node]) {
        let wanted: Vec<String> = wanted.iter().map(|node| node.address.to_string()).collect();
        let seen = async {
            while self.contenders().await != wanted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(PATIENCE, seen).await.is_err() {
            panic!("wanted {wanted:?} in the election, found {:?}", self.contenders().await);
        }
    }

    /// Full path of the lowest contender.
    pub(crate) async fn lowest(&self) -> String {
        let folder = format!("{}/election", self.place.root);
        let mut names = self.client.list_children(&folder).await.expect("list the election");
        names.sort_by_key(|name| name.rsplit('_').next().map(str::to_owned));
        format!("{folder}/{}", names.first().expect("a contender"))
    }
}
