//! Asks a node again and again how it is.

use std::time::Duration;

use quorumkv_protocol::client::{NodeStatus, Request, RequestEnvelope, Response, ResponseEnvelope};
use quorumkv_protocol::frame::CLIENT_FRAME_LIMIT;
use quorumkv_protocol::hello::{Hello, Role};
use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};

use crate::net::frames::{self, ConnectionError};

/// Pause between two questions: an election should be told when it happens.
const PAUSE: Duration = Duration::from_millis(150);

/// A node that has not answered for this long is told to be silent. A busy machine should not make it so.
const PATIENCE: Duration = Duration::from_secs(3);

/// What was seen of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Sighting {
    pub(super) node: usize,
    pub(super) seen: Seen,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    /// Its own account of itself.
    Status(Box<NodeStatus>),
    /// Nobody is at its endpoint.
    Gone,
    /// Somebody is, and says nothing.
    Silent,
}

/// Tells what is seen of node `node` until nobody listens any more.
pub(super) async fn watch(node: usize, endpoint: String, sightings: Sender<Sighting>) {
    loop {
        let seen = match follow(node, &endpoint, &sightings).await {
            Ok(()) => return,
            Err(ConnectionError::Silent | ConnectionError::Stalled) => Seen::Silent,
            Err(_) => Seen::Gone,
        };
        if sightings.send(Sighting { node, seen }).await.is_err() {
            return;
        }
        sleep(PAUSE).await;
    }
}

/// Asks over one connection until that breaks, or nobody listens any more.
async fn follow(node: usize, endpoint: &str, sightings: &Sender<Sighting>) -> Result<(), ConnectionError> {
    let (mut reader, mut writer, _) = frames::connect(endpoint, &hello(), CLIENT_FRAME_LIMIT).await?;
    for correlation in 0.. {
        let asked = async {
            frames::send(&mut writer, &request(correlation, Request::Status)).await?;
            frames::receive::<ResponseEnvelope>(&mut reader).await
        };
        let answer = timeout(PATIENCE, asked).await.map_err(|_| ConnectionError::Stalled)??;
        let Response::Status(status) = answer.body else {
            return Err(ConnectionError::Refused("it answered something else".to_owned()));
        };
        if sightings.send(Sighting { node, seen: Seen::Status(status) }).await.is_err() {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Asks a node to stop; whether it will.
pub(super) async fn ask_to_stop(endpoint: &str) -> bool {
    let asked = async {
        let (mut reader, mut writer, _) = frames::connect(endpoint, &hello(), CLIENT_FRAME_LIMIT).await?;
        frames::send(&mut writer, &request(0, Request::Stop { at_once: false })).await?;
        frames::receive::<ResponseEnvelope>(&mut reader).await
    };
    matches!(timeout(PATIENCE, asked).await, Ok(Ok(ResponseEnvelope { body: Response::Stopping, .. })))
}

fn hello() -> Hello {
    Hello::new(None, Role::Client { name: "kvd dev".to_owned() })
}

fn request(correlation: u64, body: Request) -> RequestEnvelope {
    let timeout_ms = u32::try_from(PATIENCE.as_millis()).expect("a few seconds");
    RequestEnvelope { correlation, timeout_ms, body }
}
