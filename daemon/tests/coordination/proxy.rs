//! A TCP proxy on loopback whose connections can be cut: a network of one's own for each node of a test.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Forwards to one of the servers until it is cut, and again when it is restored. Ends with its owner.
pub(crate) struct Proxy {
    address: SocketAddr,
    open: watch::Sender<bool>,
    servers: watch::Sender<String>,
    _serving: JoinSet<()>,
}

impl Proxy {
    /// `servers` is `host:port[,host:port…]`.
    pub(crate) async fn to(servers: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (open, is_open) = watch::channel(true);
        let (servers, current) = watch::channel(servers.to_owned());
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, current, is_open));
        Ok(Self { address, open, servers, _serving: serving })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection, and each new one as soon as it is made.
    pub(crate) fn cut(&self) {
        self.open.send_replace(false);
    }

    /// Forwards new connections to other servers.
    pub(crate) fn retarget(&self, servers: &str) {
        self.servers.send_replace(servers.to_owned());
    }

    pub(crate) fn restore(&self) {
        self.open.send_replace(true);
    }
}

async fn serve(listener: TcpListener, servers: watch::Receiver<String>, is_open: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if *is_open.borrow() {
            let servers = servers.borrow().clone();
            connections.spawn(forward(client, servers, is_open.clone()));
        }
    }
}

async fn forward(mut client: TcpStream, servers: String, mut is_open: watch::Receiver<bool>) {
    for server in servers.split(',') {
        let Ok(mut server) = TcpStream::connect(server).await else { continue };
        tokio::select! {
            // Whichever way it ends, both connections are closed here, and the client sees it.
            _ = is_open.wait_for(|open| !open) => {}
            _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        }
        return;
    }
}
