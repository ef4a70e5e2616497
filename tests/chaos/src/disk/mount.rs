//! The file system as the kernel sees it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::Shared;
use super::file::{Content, PAGE};
use super::tree::{Body, ROOT, Tree};

/// The kernel is to ask every time: a loss of power changes things behind its back.
const TTL: Duration = Duration::ZERO;

/// Reads go past the page cache, which would hide flipped bytes.
const OPEN: FopenFlags = FopenFlags::FOPEN_DIRECT_IO;

/// One entry of a directory that is being read.
type Entry = (u64, FileType, OsString);

/// What answers the kernel.
pub(super) struct Mounted {
    shared: Arc<Shared>,
    /// What open directories held when they were opened.
    listings: Mutex<HashMap<u64, Vec<Entry>>>,
}

impl Mounted {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, listings: Mutex::new(HashMap::new()) }
    }

    fn listings(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Vec<Entry>>> {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes something and tells the kernel what it is.
    fn create_in(&self, parent: INodeNo, name: &OsStr, body: Body) -> Result<FileAttr, Errno> {
        let mut state = self.shared.lock();
        state.check_room(true)?;
        let ino = state.tree.create(parent.0, name, body)?;
        state.tree.remember(ino);
        attributes(&state.tree, ino)
    }
}

fn attributes(tree: &Tree, ino: u64) -> Result<FileAttr, Errno> {
    let (kind, size, perm, nlink) = match tree.body(ino)? {
        Body::File(content) => (FileType::RegularFile, content.size(), 0o644, 1),
        Body::Directory(_) => (FileType::Directory, PAGE as u64, 0o755, 2),
    };
    // Nobody asks what time it was, and the clock may be one that jumps.
    let time = UNIX_EPOCH;
    Ok(FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm,
        nlink,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: u32::try_from(PAGE).expect("a page is small"),
        flags: 0,
    })
}

fn empty(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn entry(reply: ReplyEntry, result: Result<FileAttr, Errno>) {
    match result {
        Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Mounted {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut state = self.shared.lock();
        let found = state.tree.lookup(parent.0, name).and_then(|ino| {
            state.tree.remember(ino);
            attributes(&state.tree, ino)
        });
        entry(reply, found);
    }

    fn forget(&self, _: &Request, ino: INodeNo, times: u64) {
        self.shared.lock().tree.forget(ino.0, times);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match attributes(&self.shared.lock().tree, ino.0) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.shared.lock();
        let resized = match size {
            Some(size) => state.tree.file_mut(ino.0).map(|content| content.resize(size)),
            None => Ok(()),
        };
        match resized.and_then(|()| attributes(&state.tree, ino.0)) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        entry(reply, self.create_in(parent, name, Body::Directory(Default::default())));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.shared.lock().tree.remove(parent.0, name));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.shared.lock().tree.remove(parent.0, name));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if flags.contains(RenameFlags::RENAME_EXCHANGE) {
            return reply.error(Errno::EINVAL);
        }
        let may_replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        let renamed = self.shared.lock().tree.rename((parent.0, name), (new_parent.0, new_name), may_replace);
        empty(reply, renamed);
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.shared.lock().tree.file(ino.0) {
            Ok(_) => reply.opened(FileHandle(0), OPEN),
            Err(error) => reply.error(error),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.create_in(parent, name, Body::File(Content::default())) {
            Ok(attributes) => reply.created(&TTL, &attributes, Generation(0), FileHandle(0), OPEN),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.shared.lock().tree.file(ino.0).map(|content| content.read(offset, size as usize));
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.shared.lock();
        let grows = state.tree.file(ino.0).map(|content| content.grows(offset, bytes.len()));
        let written = grows.and_then(|grows| state.check_room(grows)).and_then(|()| {
            state.tree.file_mut(ino.0)?.write(offset, bytes);
            Ok(())
        });
        match written {
            Ok(()) => reply.written(u32::try_from(bytes.len()).expect("a request is small")),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.shared.sync(ino.0, reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.shared.sync(ino.0, reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let mut state = self.shared.lock();
        let mut listing = Vec::from([
            (ino.0, FileType::Directory, OsString::from(".")),
            (ROOT, FileType::Directory, OsString::from("..")),
        ]);
        match state.tree.directory(ino.0) {
            Ok(names) => {
                for (name, &child) in names {
                    let is_file = state.tree.file(child).is_ok();
                    let kind = if is_file { FileType::RegularFile } else { FileType::Directory };
                    listing.push((child, kind, name.clone()));
                }
            }
            Err(error) => return reply.error(error),
        }
        state.handles += 1;
        self.listings().insert(state.handles, listing);
        reply.opened(FileHandle(state.handles), FopenFlags::empty());
    }

    fn readdir(&self, _: &Request, _: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listings = self.listings();
        let Some(listing) = listings.get(&fh.0) else { return reply.error(Errno::EBADF) };
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, (ino, kind, name)) in listing.iter().enumerate().skip(skipped) {
            if reply.add(INodeNo(*ino), at as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.listings().remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let state = self.shared.lock();
        let page = PAGE as u64;
        let used = state.tree.allocated() / page;
        let free = state.switches.free / page;
        let size = u32::try_from(page).expect("a page is small");
        reply.statfs(used + free, free, free, 1 << 20, 1 << 20, size, 255, size);
    }
}
