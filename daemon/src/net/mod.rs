//! Connections: framing, the listener, links to the other members, clients and forwarding.

mod clients;
mod forwarder;
pub(crate) mod frames;
mod links;
mod routes;
mod server;

pub(crate) use clients::{Clients, ReplyTo, Scan};
pub(crate) use forwarder::{Forward, Forwarder, doubt, run as run_forwarder};
pub(crate) use links::Links;
pub(crate) use routes::Routes;
pub(crate) use server::Server;
