//! Single operations: all that is checked before any of them, and what it changes.

use std::fmt::Write;
use std::sync::Arc;

use super::pending::State;
use super::{At, Caller, Pending};
use crate::tree::Tree;
use crate::txn::{Change, Owner};
use crate::wire::{Acl, Check, Create, CreateKind, Delete, ErrorCode, SetAcl, SetData, permission};
use crate::{acl, path};

/// Stands for any version.
const ANY: i32 = -1;

/// The longest time to live, in milliseconds: as many as fit into five bytes.
const LONGEST_TTL: i64 = 0xff_ffff_ffff;

impl Pending {
    pub(super) fn create(
        &mut self,
        tree: &Tree,
        create: Create,
        caller: &Caller<'_>,
        at: At,
    ) -> Result<Change, ErrorCode> {
        let Create { mut path, data, acl, kind, sequential, with_stat: _ } = create;
        let owner = match kind {
            CreateKind::Persistent => Owner::Nobody,
            CreateKind::Ephemeral => Owner::Session(caller.session),
            CreateKind::Container => Owner::Container,
            CreateKind::Ttl(ttl @ 1..=LONGEST_TTL) => Owner::Ttl(ttl),
            CreateKind::Ttl(_) | CreateKind::Unknown => return Err(ErrorCode::BadArguments),
        };
        self.check_session(caller)?;
        check_shape(&path)?;
        let acl = acl::fix(&acl, caller.ids)?;
        // The root is taken for its own child here, and so is told to exist already.
        let parent_path = path::parent(&path).unwrap_or(path::ROOT);
        let (parent_path, mut parent) = self.look(tree, parent_path).ok_or(ErrorCode::NoNode)?;
        check_permission(&parent, permission::CREATE, caller)?;
        if sequential {
            write!(path, "{:010}", parent.creations).expect("a string takes everything");
        }
        check_path(&path)?;
        if self.is_there(tree, &path) {
            return Err(ErrorCode::NodeExists);
        }
        if matches!(parent.owner, Owner::Session(_)) {
            return Err(ErrorCode::NoChildrenForEphemerals);
        }
        check_room(caller)?;

        parent.creations = parent.creations.wrapping_add(1);
        parent.children += 1;
        let parent_creations = parent.creations;
        self.put(at.zxid, parent_path, Some(parent));
        let (path, acl): (Arc<str>, Arc<[Acl]>) = (path.into(), acl.into());
        let state = State {
            acl: Arc::clone(&acl),
            owner,
            mtime: at.now_ms,
            version: 0,
            aversion: 0,
            creations: 0,
            children: 0,
        };
        self.put(at.zxid, Arc::clone(&path), Some(state));
        Ok(Change::Create { path, data, acl, owner, parent_creations })
    }

    pub(super) fn delete(
        &mut self,
        tree: &Tree,
        delete: Delete,
        caller: &Caller<'_>,
        at: At,
    ) -> Result<Change, ErrorCode> {
        let Delete { path, version } = delete;
        self.check_session(caller)?;
        check_shape(&path)?;
        if path::is_permanent(&path) {
            return Err(ErrorCode::BadArguments);
        }
        let parent_path = path::parent(&path).ok_or(ErrorCode::BadArguments)?;
        let (parent_path, parent) = self.look(tree, parent_path).ok_or(ErrorCode::NoNode)?;
        check_permission(&parent, permission::DELETE, caller)?;
        let (key, state) = self.look(tree, &path).ok_or(ErrorCode::NoNode)?;
        check_version(version, state.version)?;
        if state.children > 0 {
            return Err(ErrorCode::NotEmpty);
        }
        self.put_deleted(at.zxid, (parent_path, parent), Arc::clone(&key));
        Ok(Change::Delete { path: key })
    }

    /// Remembers that a znode is deleted.
    pub(super) fn put_deleted(&mut self, zxid: i64, parent: (Arc<str>, State), path: Arc<str>) {
        let (parent_path, mut parent) = parent;
        parent.children = parent.children.checked_sub(1).expect("a parent counts its children");
        self.put(zxid, parent_path, Some(parent));
        self.put(zxid, path, None);
    }

    pub(super) fn set_data(
        &mut self,
        tree: &Tree,
        set: SetData,
        caller: &Caller<'_>,
        at: At,
    ) -> Result<Change, ErrorCode> {
        let SetData { path, data, version } = set;
        self.check_session(caller)?;
        check_path(&path)?;
        let (key, mut state) = self.look(tree, &path).ok_or(ErrorCode::NoNode)?;
        check_permission(&state, permission::WRITE, caller)?;
        check_version(version, state.version)?;
        check_room(caller)?;
        let version = next(state.version);
        state.version = version;
        state.mtime = at.now_ms;
        self.put(at.zxid, Arc::clone(&key), Some(state));
        Ok(Change::SetData { path: key, data, version })
    }

    pub(super) fn set_acl(
        &mut self,
        tree: &Tree,
        set: SetAcl,
        caller: &Caller<'_>,
        at: At,
    ) -> Result<Change, ErrorCode> {
        let SetAcl { path, acl, version } = set;
        self.check_session(caller)?;
        check_path(&path)?;
        let acl = acl::fix(&acl, caller.ids)?;
        let (key, mut state) = self.look(tree, &path).ok_or(ErrorCode::NoNode)?;
        check_permission(&state, permission::ADMIN, caller)?;
        check_version(version, state.aversion)?;
        check_room(caller)?;
        let version = next(state.aversion);
        state.aversion = version;
        state.acl = acl.into();
        let acl = Arc::clone(&state.acl);
        self.put(at.zxid, Arc::clone(&key), Some(state));
        Ok(Change::SetAcl { path: key, acl, version })
    }

    pub(super) fn check(&self, tree: &Tree, check: &Check, caller: &Caller<'_>) -> Result<Change, ErrorCode> {
        self.check_session(caller)?;
        check_path(&check.path)?;
        let (_, state) = self.look(tree, &check.path).ok_or(ErrorCode::NoNode)?;
        check_permission(&state, permission::READ, caller)?;
        check_version(check.version, state.version)?;
        Ok(Change::Check)
    }

    fn check_session(&self, caller: &Caller<'_>) -> Result<(), ErrorCode> {
        if self.is_closing(caller.session) { Err(ErrorCode::SessionExpired) } else { Ok(()) }
    }
}

/// What is asked of a path before anybody looks whether its parent is there. The rest of [`path::validate`] comes later,
/// or never: a path that is not valid is no znode's.
fn check_shape(path: &str) -> Result<(), ErrorCode> {
    if path.contains('/') && !path.contains('\0') { Ok(()) } else { Err(ErrorCode::BadArguments) }
}

fn check_path(path: &str) -> Result<(), ErrorCode> {
    path::validate(path).map_err(|_| ErrorCode::BadArguments)
}

fn check_permission(state: &State, permission: i32, caller: &Caller<'_>) -> Result<(), ErrorCode> {
    if acl::permits(&state.acl, permission, caller.ids) { Ok(()) } else { Err(ErrorCode::NoAuth) }
}

const fn check_version(expected: i32, version: i32) -> Result<(), ErrorCode> {
    if expected == ANY || expected == version { Ok(()) } else { Err(ErrorCode::BadVersion) }
}

/// ZooKeeper has no code for this. Every client understands this one, and takes it for what it is: the request was not done, and
/// is not worth trying again at once.
const fn check_room(caller: &Caller<'_>) -> Result<(), ErrorCode> {
    if caller.has_room { Ok(()) } else { Err(ErrorCode::SystemError) }
}

/// The version after this one. It is never -1, which a client could not ask for: that means any.
const fn next(version: i32) -> i32 {
    match version.wrapping_add(1) {
        ANY => 0,
        next => next,
    }
}
