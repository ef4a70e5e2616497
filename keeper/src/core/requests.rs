//! What comes over connections.

use bytes::Bytes;

use super::connection::{Asked, Item, Phase, Queued};
use super::{ConnectionId, Keeper, Notice};
use crate::acl::authenticate;
use crate::txn::Change;
use crate::wire::{
    ConnectRequest, ConnectResponse, ErrorCode, Id, Reply, Request, RequestError, RequestHeader,
};

/// Most identities of one client, and most bytes of them: every ACL that says `auth` is multiplied by them.
const MAX_IDS: usize = 64;
const MAX_ID_BYTES: usize = 16 << 10;

impl Keeper {
    /// A packet came.
    pub(super) fn frame(&mut self, id: ConnectionId, frame: &Bytes) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.statistics.received += 1;
        match connection.phase {
            Phase::Leaving => {}
            Phase::Fresh => match ConnectRequest::decode(frame) {
                Ok(request) => self.connect(id, &request),
                Err(error) => self.malformed(id, &format!("it is no connect request: {error}")),
            },
            Phase::Attached(session) => {
                self.sessions.heard(session, self.now.monotonic_ms);
                match Request::decode(frame) {
                    Ok((header, request)) => self.request((id, session), frame.len(), header, request),
                    Err(error) => self.malformed(id, &format!("it is no request: {error}")),
                }
            }
        }
    }

    fn malformed(&mut self, id: ConnectionId, problem: &str) {
        if let Some(connection) = self.connections.get(&id) {
            let address = connection.address;
            self.notices.push(Notice::Malformed { address, problem: problem.to_owned() });
        }
        self.leave(id);
    }

    /// A client wants a session, or to go on with one.
    fn connect(&mut self, id: ConnectionId, request: &ConnectRequest) {
        let Some(connection) = self.connections.get(&id) else { return };
        let address = connection.address;
        if request.last_zxid_seen > self.last_proposed {
            // It must not be shown an older state than it has seen. It is not told why: it tries the next server then.
            self.notices.push(Notice::FromTheFuture { address, zxid: request.last_zxid_seen });
            return self.leave(id);
        }
        let timeout_ms = request.timeout_ms.clamp(self.settings.min_session_ms, self.settings.max_session_ms);
        if request.session == 0 {
            return self.begin_session(id, timeout_ms, request.read_only.is_some());
        }
        let session = request.session;
        let is_its_own = self.tree.session(session).is_some_and(|known| {
            known.password[..] == request.password[..] && self.sessions.is_open(session)
        });
        let mut response = ConnectResponse {
            timeout_ms: 0,
            session: 0,
            password: [0; 16],
            read_only: request.read_only.is_some(),
        };
        if !is_its_own {
            self.notices.push(Notice::SessionRefused { session, address });
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.connect_reply(&response);
                connection.mark(id, &mut self.dirty);
            }
            return self.leave(id);
        }
        if let Some(before) = self.sessions.attach(session, id, timeout_ms, self.now.monotonic_ms) {
            self.leave(before);
        }
        response.timeout_ms = timeout_ms;
        response.session = session;
        response.password = self.tree.session(session).map(|known| known.password).unwrap_or_default();
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.phase = Phase::Attached(session);
            connection.connect_reply(&response);
            connection.mark(id, &mut self.dirty);
        }
    }

    fn begin_session(&mut self, id: ConnectionId, timeout_ms: i32, read_only: bool) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (password, address) = (connection.entropy, connection.address);
        while self.next_session == 0 || self.sessions.contains(self.next_session) {
            self.next_session += 1;
        }
        let session = self.next_session;
        self.next_session += 1;
        connection.phase = Phase::Attached(session);
        self.sessions.add(session, timeout_ms, Some(id), self.now.monotonic_ms);
        let zxid = self.propose(session, Change::CreateSession { timeout_ms, password });
        self.notices.push(Notice::SessionOpened { session, timeout_ms, address });
        let response = ConnectResponse { timeout_ms, session, password, read_only };
        let item = Item::Connect { zxid, response };
        let asked = Asked { xid: 0, op: 0, received_ms: self.now.monotonic_ms, bytes: 0 };
        self.enqueue(id, Queued { asked, item });
    }

    /// A client asks something.
    fn request(
        &mut self,
        (id, session): (ConnectionId, i64),
        bytes: usize,
        header: RequestHeader,
        request: Result<Request, RequestError>,
    ) {
        let item = match request {
            Ok(Request::Write(write)) => self.write(id, session, write),
            Ok(Request::Sync { path }) => self.after(Ok(Reply::Path(path.into()))),
            Ok(Request::Auth { scheme, auth }) => self.authenticate(id, &scheme, &auth),
            Ok(Request::CloseSession) => match self.end_session(session, Some(id)) {
                Some(zxid) => Item::Write { zxid, reply: None },
                None => self.after(Err(ErrorCode::SessionExpired)),
            },
            Ok(read) => Item::Read(read),
            Err(error @ RequestError::UnknownOperation(_)) => {
                Item::After { zxid: self.last_proposed, result: Err(error.code()), last: true }
            }
            Err(error) => self.after(Err(error.code())),
        };
        let received_ms = self.now.monotonic_ms;
        let asked = Asked { xid: header.xid, op: header.op, received_ms, bytes };
        self.enqueue(id, Queued { asked, item });
    }

    /// A client says who it is; that counts for everything that it asks from now on.
    fn authenticate(&mut self, id: ConnectionId, scheme: &str, auth: &[u8]) -> Item {
        match authenticate(scheme, auth, self.settings.super_digest.as_deref()) {
            Ok(new) => {
                let Some(connection) = self.connections.get_mut(&id) else {
                    return self.after(Err(ErrorCode::SessionExpired));
                };
                let new: Vec<Id> = new.into_iter().filter(|id| !connection.ids.contains(id)).collect();
                let bytes: usize = connection.ids.iter().chain(&new).map(|id| id.id.len()).sum();
                if connection.ids.len() + new.len() > MAX_IDS || bytes > MAX_ID_BYTES {
                    return Item::After {
                        zxid: self.last_proposed,
                        result: Err(ErrorCode::AuthFailed),
                        last: true,
                    };
                }
                connection.ids.extend(new);
                self.after(Ok(Reply::Empty))
            }
            Err(code) => Item::After { zxid: self.last_proposed, result: Err(code), last: true },
        }
    }
}
