//! Opening a connection: TCP, then Hello each way.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use quorumkv_protocol::frame::{self, FrameDecoder, HELLO_FRAME_LIMIT};
use quorumkv_protocol::hello::{HelloReply, Limits, VERSIONS, Welcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::context::Context;
use crate::endpoint::Endpoint;
use crate::error::ConnectionFailure;

/// A connection on which the node said Welcome.
pub(crate) struct Opened {
    pub(crate) stream: TcpStream,
    /// What came after the Welcome.
    pub(crate) inbox: BytesMut,
    /// What the node takes.
    pub(crate) limits: Limits,
}

/// Connects and greets, within the patience for both.
pub(crate) async fn open(endpoint: &Endpoint, context: &Context) -> Result<Opened, ConnectionFailure> {
    let patience = context.patience.hello;
    timeout(patience, connect_and_greet(endpoint, context))
        .await
        .unwrap_or(Err(ConnectionFailure::HelloTimedOut(patience)))
}

async fn connect_and_greet(endpoint: &Endpoint, context: &Context) -> Result<Opened, ConnectionFailure> {
    let connect = |error| ConnectionFailure::Connect(Arc::new(error));
    let mut stream = TcpStream::connect(endpoint.as_str()).await.map_err(connect)?;
    // Everything queued goes out in one write already, so waiting for more to send only costs time.
    stream.set_nodelay(true).map_err(connect)?;

    let mut inbox = BytesMut::new();
    frame::encode(&context.hello(), &mut inbox);
    stream.write_all(&inbox).await.map_err(broken)?;
    inbox.clear();
    let body = first_frame(&mut stream, &mut inbox).await?;
    match frame::decode::<HelloReply>(&body)? {
        HelloReply::Welcome(welcome) => {
            accept(&welcome, context)?;
            Ok(Opened { stream, inbox, limits: welcome.limits })
        }
        HelloReply::Refused { code, message } => Err(ConnectionFailure::Refused { code, message }),
    }
}

async fn first_frame(stream: &mut TcpStream, inbox: &mut BytesMut) -> Result<Bytes, ConnectionFailure> {
    let decoder = FrameDecoder::new(HELLO_FRAME_LIMIT);
    loop {
        if let Some(body) = decoder.decode(inbox)? {
            return Ok(body);
        }
        if stream.read_buf(inbox).await.map_err(broken)? == 0 {
            return Err(ConnectionFailure::Ended);
        }
    }
}

/// The node checked our Hello; this checks its answer.
fn accept(welcome: &Welcome, context: &Context) -> Result<(), ConnectionFailure> {
    if !(VERSIONS.lowest..=VERSIONS.highest).contains(&welcome.version) {
        return Err(ConnectionFailure::Version(welcome.version));
    }
    if let Some(actual) = welcome.cluster {
        context.meet(actual).map_err(|expected| ConnectionFailure::Cluster { expected, actual })?;
    }
    context.observe(welcome.committed);
    Ok(())
}

pub(crate) fn broken(error: io::Error) -> ConnectionFailure {
    ConnectionFailure::Broken(Arc::new(error))
}
