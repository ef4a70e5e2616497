//! Takes connections, as many as there may be.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{ConnectionError, Context, Peer, serve};
use super::tls::{self, Acceptor};
use crate::core::ConnectionId;

/// Pause after the system had no file descriptor or memory for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// A connection whose other side acknowledges nothing for this long is taken for dead.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);

/// How many connections there are, and how many there may be.
#[derive(Debug)]
pub(super) struct Slots {
    /// From one address; 0: as many as there may be altogether.
    per_address: usize,
    total: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
    open: AtomicUsize,
    /// Connections that were refused since the start.
    pub(super) refused: AtomicU64,
}

impl Slots {
    pub(super) fn new(per_address: usize, total: usize) -> Self {
        let (taken, open, refused) = (Mutex::default(), AtomicUsize::new(0), AtomicU64::new(0));
        Self { per_address, total, taken, open, refused }
    }

    /// Connections that are open.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn take(self: &Arc<Self>, address: IpAddr) -> Result<Slot, &'static str> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let here = taken.get(&address).copied().unwrap_or(0);
        if self.per_address > 0 && here >= self.per_address {
            return Err("there are as many from its address as --max-client-cnxns permits");
        }
        if self.open() >= self.total {
            return Err("there are as many as --max-connections permits");
        }
        taken.insert(address, here + 1);
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Slot { slots: Arc::clone(self), address })
    }
}

/// The place of one connection, given back when this is dropped.
#[derive(Debug)]
struct Slot {
    slots: Arc<Slots>,
    address: IpAddr,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
        self.slots.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes connections on one port.
#[derive(Clone, Debug)]
pub(super) struct Listener {
    pub(super) context: Context,
    pub(super) slots: Arc<Slots>,
    /// The next connection's name.
    pub(super) next: Arc<AtomicU64>,
    pub(super) tasks: TaskTracker,
    /// No connection is taken any more.
    pub(super) stopping: CancellationToken,
    /// Connections end at once.
    pub(super) closing: CancellationToken,
}

impl Listener {
    /// Takes connections until the server stops; encrypted ones, if there is an acceptor.
    pub(super) async fn run(self, listener: TcpListener, tls: Option<Acceptor>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stopping.cancelled() => return,
            };
            match accepted {
                Ok((stream, address)) => self.take(stream, address, tls.clone()),
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }

    fn take(&self, stream: TcpStream, address: SocketAddr, tls: Option<Acceptor>) {
        let slot = match self.slots.take(address.ip().to_canonical()) {
            Ok(slot) => slot,
            Err(reason) => {
                let before = self.slots.refused.fetch_add(1, Ordering::Relaxed);
                // Whoever comes again and again must not fill the log.
                if before.is_multiple_of(1000) {
                    tracing::warn!(%address, refused = before + 1, "refused a connection: {reason}");
                }
                return;
            }
        };
        let connection = ConnectionId(self.next.fetch_add(1, Ordering::Relaxed));
        let (context, closing) = (self.context.clone(), self.closing.clone());
        self.tasks.spawn(async move {
            let _slot = slot;
            let served = handshake_and_serve(context, connection, stream, address, tls);
            if let Some(Err(error)) = closing.run_until_cancelled(served).await {
                tracing::debug!(%address, "a connection has ended: {error}");
            }
        });
    }
}

async fn handshake_and_serve(
    context: Context,
    connection: ConnectionId,
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<Acceptor>,
) -> Result<(), ConnectionError> {
    prepare(&stream)?;
    let Some(acceptor) = tls else {
        let peer = Peer { connection, address, certificate: None };
        return serve(context, peer, stream.into_split()).await;
    };
    let stream = acceptor.accept(stream, address, context.limits.connect_timeout).await?;
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate = certificates.and_then(|chain| tls::subject(chain.first()?));
    let peer = Peer { connection, address, certificate };
    serve(context, peer, tokio::io::split(stream)).await
}

/// Packets go out at once, and a client that vanished without a word is noticed.
fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(SILENCE_TIMEOUT))?;
    let probes =
        TcpKeepalive::new().with_time(SILENCE_TIMEOUT / 2).with_interval(SILENCE_TIMEOUT / 8).with_retries(4);
    socket.set_tcp_keepalive(&probes)
}
