//! Requests that change nothing: looked up in the tree as far as it is durable.

use super::ConnectionId;
use super::connection::Connection;
use super::watches::Watches;
use crate::acl::{permits, redacted};
use crate::tree::{Node, Tree};
use crate::wire::{
    ErrorCode, EventKind, Id, OpResult, ReadOp, Reply, Request, SetWatches, WatchMode, notification,
    permission,
};

/// Bytes of results in the reply to one `multiRead` after which nothing more is read: few clients take longer packets.
const MULTI_READ_BYTES: usize = 4 << 20;

/// Who asks, and what there is to look at.
struct Reader<'a> {
    tree: &'a Tree,
    watches: &'a mut Watches,
    connection: ConnectionId,
    ids: &'a [Id],
    session: i64,
}

/// Looks something up.
pub(super) fn read(
    tree: &Tree,
    watches: &mut Watches,
    (id, connection): (ConnectionId, &mut Connection),
    request: &Request,
) -> Result<Reply, ErrorCode> {
    if let Request::SetWatches(brought) = request {
        set_watches(tree, watches, id, connection, brought);
        return Ok(Reply::Empty);
    }
    let session = connection.session().unwrap_or(0);
    Reader { tree, watches, connection: id, ids: &connection.ids, session }.read(request)
}

impl Reader<'_> {
    fn read(mut self, request: &Request) -> Result<Reply, ErrorCode> {
        match request {
            Request::Exists { path, watch } => self.exists(path, *watch),
            Request::GetData { path, watch } => {
                let node = self.readable(path, permission::READ)?;
                let reply = Reply::Data(node.data().cloned(), node.stat());
                if *watch {
                    self.watches.watch_data(path, self.connection);
                }
                Ok(reply)
            }
            Request::GetAcl { path } => {
                let node = self.readable(path, permission::READ | permission::ADMIN)?;
                Ok(Reply::Acl(redacted(node.acl(), self.ids), node.stat()))
            }
            Request::GetChildren { path, watch, with_stat } => {
                let node = self.readable(path, permission::READ)?;
                let names = node.children().collect();
                let reply =
                    if *with_stat { Reply::NamesAndStat(names, node.stat()) } else { Reply::Names(names) };
                if *watch {
                    self.watches.watch_children(path, self.connection);
                }
                Ok(reply)
            }
            Request::GetAllChildrenNumber { path } => {
                self.readable(path, permission::READ)?;
                let number = self.tree.all_children_number(path);
                Ok(Reply::Number(i32::try_from(number).unwrap_or(i32::MAX)))
            }
            Request::GetEphemerals { prefix } => {
                let paths = self.tree.ephemerals_of(self.session);
                Ok(Reply::Names(paths.filter(|path| path.starts_with(prefix)).collect()))
            }
            Request::MultiRead(ops) => Ok(self.multi_read(ops)),
            Request::WhoAmI => Ok(Reply::Ids(self.ids.iter().map(shown).collect())),
            Request::AddWatch { path, mode } => {
                self.watches.add(path, self.connection, *mode);
                // ZooKeeper answers this one with an error code in the body, too.
                Ok(Reply::Number(0))
            }
            Request::CheckWatches { path, kind } => {
                let found = self.watches.contains(path, self.connection, *kind);
                if found { Ok(Reply::Empty) } else { Err(ErrorCode::NoWatcher) }
            }
            Request::RemoveWatches { path, kind } => {
                let found = self.watches.remove(path, self.connection, *kind);
                if found { Ok(Reply::Empty) } else { Err(ErrorCode::NoWatcher) }
            }
            Request::Ping => Ok(Reply::Empty),
            Request::Reconfig => Err(ErrorCode::ReconfigDisabled),
            Request::Write(_)
            | Request::Sync { .. }
            | Request::Auth { .. }
            | Request::SetWatches(_)
            | Request::CloseSession => unreachable!("it is handled where it comes in"),
        }
    }

    /// A znode that whoever asks may look at.
    fn readable(&self, path: &str, permission: i32) -> Result<&Node, ErrorCode> {
        let node = self.tree.get(path).ok_or(ErrorCode::NoNode)?;
        if permits(node.acl(), permission, self.ids) { Ok(node) } else { Err(ErrorCode::NoAuth) }
    }

    /// A watch is left where there is nothing, too: it tells when something is created.
    fn exists(&mut self, path: &str, watch: bool) -> Result<Reply, ErrorCode> {
        if path.contains('\0') {
            return Err(ErrorCode::BadArguments);
        }
        if let Some(node) = self.tree.get(path)
            && !permits(node.acl(), permission::READ, self.ids)
        {
            return Err(ErrorCode::NoAuth);
        }
        if watch {
            self.watches.watch_data(path, self.connection);
        }
        self.tree.get(path).map(|node| Reply::Stat(node.stat())).ok_or(ErrorCode::NoNode)
    }

    /// Once the results come to too much for one reply, the remaining operations are not tried.
    fn multi_read(&self, ops: &[ReadOp]) -> Reply {
        let mut bytes = 0;
        let result = |op| {
            if bytes > MULTI_READ_BYTES {
                return OpResult::Error(ErrorCode::SystemError.number());
            }
            let result = self.read_op(op);
            bytes += match &result {
                OpResult::Data(data, _) => data.as_ref().map_or(0, bytes::Bytes::len),
                OpResult::Names(names) => names.bytes(),
                _ => 0,
            };
            result
        };
        Reply::Multi(ops.iter().map(result).collect())
    }

    fn read_op(&self, op: &ReadOp) -> OpResult {
        let result = match op {
            ReadOp::Children(path) => {
                self.readable(path, permission::READ).map(|node| OpResult::Names(node.children().collect()))
            }
            ReadOp::Data(path) => self
                .readable(path, permission::READ)
                .map(|node| OpResult::Data(node.data().cloned(), node.stat())),
        };
        result.unwrap_or_else(|code| OpResult::Error(code.number()))
    }
}

/// What `whoAmI` shows of an identity: of a digest only the user.
fn shown(id: &Id) -> Id {
    match id.scheme.as_str() {
        "digest" => Id::new("digest", id.id.split(':').next().unwrap_or_default()),
        _ => id.clone(),
    }
}

/// Takes over the watches of an earlier connection; what has happened since then is told at once.
fn set_watches(
    tree: &Tree,
    watches: &mut Watches,
    id: ConnectionId,
    connection: &mut Connection,
    brought: &SetWatches,
) {
    let mut tell = |kind, path: &str| connection.notify(&notification(tree.last_zxid(), kind, path));
    for path in &brought.data {
        match tree.get(path).map(|node| node.stat().mzxid) {
            None => tell(EventKind::Deleted, path),
            Some(mzxid) if mzxid > brought.relative_zxid => tell(EventKind::DataChanged, path),
            Some(_) => watches.watch_data(path, id),
        }
    }
    for path in &brought.exist {
        match tree.get(path) {
            Some(_) => tell(EventKind::Created, path),
            None => watches.watch_data(path, id),
        }
    }
    for path in &brought.child {
        match tree.get(path).map(|node| node.stat().pzxid) {
            None => tell(EventKind::Deleted, path),
            Some(pzxid) if pzxid > brought.relative_zxid => tell(EventKind::ChildrenChanged, path),
            Some(_) => watches.watch_children(path, id),
        }
    }
    for path in &brought.persistent {
        watches.add(path, id, WatchMode::Persistent);
    }
    for path in &brought.recursive {
        watches.add(path, id, WatchMode::Recursive);
    }
}
