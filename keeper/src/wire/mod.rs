//! ZooKeeper's client protocol: what clients send and what they are sent.
//!
//! Every packet is a frame: a 32-bit big-endian length and as many bytes of jute ([`crate::jute`]). The first each way are
//! [`ConnectRequest`] and [`ConnectResponse`]; then come requests, each with a header of transaction id (`xid`, chosen by
//! the client) and [operation](op), and replies and notifications, each with a header of `xid`, `zxid` and error.
//! Source: the ZooKeeper Programmer's Guide and `zookeeper.jute` of Apache ZooKeeper 3.9.

mod decode;
mod error;
mod records;
mod request;
mod response;

pub use error::ErrorCode;
pub use records::{Acl, AskedAcl, ConnectRequest, ConnectResponse, EventKind, Id, Stat, permission};
pub use request::{
    Check, Create, CreateKind, Delete, MultiOp, ReadOp, Request, RequestError, RequestHeader, SetAcl,
    SetData, SetWatches, WatchKind, WatchMode, Write,
};
pub(crate) use response::framed;
pub use response::{NameList, OpResult, Reply, encode_reply, notification};

/// Most bytes of a packet after its length, as ZooKeeper's `jute.maxbuffer`.
pub const MAX_PACKET: u32 = 0x000f_ffff;

/// Transaction ids that mark packets which are no requests.
pub mod xid {
    /// A watch event.
    pub const NOTIFICATION: i32 = -1;
    /// A ping.
    pub const PING: i32 = -2;
    /// `auth`.
    pub const AUTH: i32 = -4;
    /// `setWatches`, which clients send after they have connected again.
    pub const SET_WATCHES: i32 = -8;
}

/// Operations (`ZooDefs.OpCode`).
pub mod op {
    #![allow(missing_docs, reason = "they are ZooKeeper's own names")]
    pub const NOTIFICATION: i32 = 0;
    pub const CREATE: i32 = 1;
    pub const DELETE: i32 = 2;
    pub const EXISTS: i32 = 3;
    pub const GET_DATA: i32 = 4;
    pub const SET_DATA: i32 = 5;
    pub const GET_ACL: i32 = 6;
    pub const SET_ACL: i32 = 7;
    pub const GET_CHILDREN: i32 = 8;
    pub const SYNC: i32 = 9;
    pub const PING: i32 = 11;
    pub const GET_CHILDREN2: i32 = 12;
    pub const CHECK: i32 = 13;
    pub const MULTI: i32 = 14;
    pub const CREATE2: i32 = 15;
    pub const RECONFIG: i32 = 16;
    pub const CHECK_WATCHES: i32 = 17;
    pub const REMOVE_WATCHES: i32 = 18;
    pub const CREATE_CONTAINER: i32 = 19;
    pub const DELETE_CONTAINER: i32 = 20;
    pub const CREATE_TTL: i32 = 21;
    pub const MULTI_READ: i32 = 22;
    pub const AUTH: i32 = 100;
    pub const SET_WATCHES: i32 = 101;
    pub const SASL: i32 = 102;
    pub const GET_EPHEMERALS: i32 = 103;
    pub const GET_ALL_CHILDREN_NUMBER: i32 = 104;
    pub const SET_WATCHES2: i32 = 105;
    pub const ADD_WATCH: i32 = 106;
    pub const WHO_AM_I: i32 = 107;
    pub const CLOSE_SESSION: i32 = -11;
    pub const ERROR: i32 = -1;
}
