//! A tree as bytes.
//!
//! Version 1: a byte for the version; the last zxid; the number of sessions and the sessions; the number of ACLs and the
//! ACLs; the number of znodes and the znodes, in the order of their paths. Numbers are LEB128, signed ones zigzag; a
//! string or a buffer is its length and its bytes.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::node::{Children, Node};
use super::{Session, Tree};
use crate::path;
use crate::txn::Owner;
use crate::wire::{Acl, Id};

const VERSION: u8 = 1;

/// Most bytes that are made room for before they are there.
const CHUNK: usize = 64 * 1024;

/// Why bytes are no tree.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// They cannot be read, or end too early.
    #[error("read a snapshot: {0}")]
    Io(#[from] io::Error),
    /// They are of another version of the format.
    #[error("the snapshot has the unknown version {0}")]
    UnknownVersion(u8),
    /// They make no sense.
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
}

impl Tree {
    /// Writes the tree. It writes many small pieces: `out` is to be buffered.
    ///
    /// # Errors
    /// `out` fails.
    pub fn encode(&self, out: &mut impl Write) -> io::Result<()> {
        let mut record = vec![VERSION];
        put_signed(&mut record, self.last_zxid);
        put_length(&mut record, self.sessions.len());
        for (id, session) in &self.sessions {
            put_signed(&mut record, *id);
            put_signed(&mut record, session.timeout_ms.into());
            record.extend_from_slice(&session.password);
            flush(&mut record, out)?;
        }
        let acls: Vec<&Arc<[Acl]>> = self.acls.keys().collect();
        put_length(&mut record, acls.len());
        for acl in &acls {
            put_length(&mut record, acl.len());
            for entry in acl.iter() {
                put_signed(&mut record, entry.permissions.into());
                put_bytes(&mut record, entry.id.scheme.as_bytes());
                put_bytes(&mut record, entry.id.id.as_bytes());
            }
            flush(&mut record, out)?;
        }
        put_length(&mut record, self.nodes.len());
        for (path, node) in &self.nodes {
            put_bytes(&mut record, path.as_bytes());
            let acl = acls.binary_search(&&node.acl).expect("an ACL that a znode has is known");
            put_node(&mut record, node, acl);
            flush(&mut record, out)?;
        }
        flush(&mut record, out)
    }

    /// Reads a tree, and not a byte more. It reads many small pieces: `input` is to be buffered.
    ///
    /// # Errors
    /// The bytes are no tree, not in the form that [`Self::encode`] writes, or `input` fails. No length is trusted: what is
    /// kept of them is not much more than there are bytes.
    pub fn decode(input: &mut impl Read) -> Result<Self, DecodeError> {
        let mut reader = Reader { input };
        let mut tree = Self::empty();
        match reader.byte()? {
            VERSION => {}
            other => return Err(DecodeError::UnknownVersion(other)),
        }
        tree.last_zxid = reader.signed()?;
        for _ in 0..reader.number()? {
            let (id, timeout_ms) = (reader.signed()?, reader.int()?);
            if tree.sessions.get_max().is_some_and(|(last, _)| *last >= id) {
                return Err(DecodeError::Damaged("sessions are not in order"));
            }
            tree.sessions.insert(id, Session { timeout_ms, password: reader.array()? });
        }
        let mut acls: Vec<Arc<[Acl]>> = Vec::new();
        for _ in 0..reader.number()? {
            let acl = reader.acl()?;
            if acls.last().is_some_and(|last| *last >= acl) {
                return Err(DecodeError::Damaged("ACLs are not in order"));
            }
            acls.push(acl);
        }
        let mut last: Option<Arc<str>> = None;
        for _ in 0..reader.number()? {
            let path = reader.string()?;
            path::validate(&path).map_err(|_| DecodeError::Damaged("a path is not valid"))?;
            if last.is_some_and(|last| *last >= *path) {
                return Err(DecodeError::Damaged("paths are not in order"));
            }
            let path: Arc<str> = Arc::from(path);
            let node = reader.node(&acls)?;
            tree.load(&path, node)?;
            last = Some(path);
        }
        if tree.acls.len() < acls.len() {
            return Err(DecodeError::Damaged("no znode has an ACL"));
        }
        tree.finish()?;
        Ok(tree)
    }

    /// Adds a znode, whose parent is there already.
    fn load(&mut self, path: &Arc<str>, mut node: Node) -> Result<(), DecodeError> {
        if let Some(parent) = path::parent(path) {
            let parent = self.nodes.get_mut(parent).ok_or(DecodeError::Damaged("a znode has no parent"))?;
            Arc::make_mut(parent).children.insert(Arc::clone(path));
        }
        node.acl = self.share(&node.acl);
        self.place(path, node);
        Ok(())
    }

    /// What can be said only once all znodes are there.
    fn finish(&mut self) -> Result<(), DecodeError> {
        if ![path::ROOT, path::SYSTEM, path::QUOTA, path::CONFIG]
            .iter()
            .all(|path| self.nodes.contains_key(*path))
        {
            return Err(DecodeError::Damaged("a znode that is always there is not"));
        }
        let idle = self.nodes.iter().filter(|(_, node)| node.is_idle_container());
        self.idle_containers = idle.map(|(path, _)| Arc::clone(path)).collect();
        Ok(())
    }
}

/// Writes what has been collected, and begins anew.
fn flush(record: &mut Vec<u8>, out: &mut impl Write) -> io::Result<()> {
    out.write_all(record)?;
    record.clear();
    Ok(())
}

#[allow(clippy::cast_possible_truncation, reason = "it is the low bits that are meant")]
fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_number(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    put_number(out, length as u64);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_node(out: &mut Vec<u8>, node: &Node, acl: usize) {
    match node.owner {
        Owner::Nobody => out.push(0),
        Owner::Session(session) => {
            out.push(1);
            put_signed(out, session);
        }
        Owner::Container => out.push(2),
        Owner::Ttl(ttl) => {
            out.push(3);
            put_signed(out, ttl);
        }
    }
    match &node.data {
        None => out.push(0),
        Some(data) => {
            out.push(1);
            put_bytes(out, data);
        }
    }
    put_length(out, acl);
    for number in [node.czxid, node.mzxid, node.pzxid, node.ctime, node.mtime] {
        put_signed(out, number);
    }
    for number in [node.version, node.aversion, node.creations] {
        put_signed(out, number.into());
    }
}

struct Reader<'a, R> {
    input: &'a mut R,
}

impl<R: Read> Reader<'_, R> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        self.input.read_exact(&mut array)?;
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                // A number that ends with zeros has a shorter form.
                let is_shortest = byte != 0 || shift == 0;
                return is_shortest.then_some(value).ok_or(DecodeError::Damaged("a number is too long"));
            }
        }
        Err(DecodeError::Damaged("a number is too large"))
    }

    fn signed(&mut self) -> Result<i64, DecodeError> {
        let value = self.number()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn int(&mut self) -> Result<i32, DecodeError> {
        i32::try_from(self.signed()?).map_err(|_| DecodeError::Damaged("a number is too large"))
    }

    fn bytes(&mut self) -> Result<Vec<u8>, DecodeError> {
        let length = i32::try_from(self.number()?).ok().and_then(|length| usize::try_from(length).ok());
        let length = length.ok_or(DecodeError::Damaged("a length is too large"))?;
        let mut bytes = Vec::with_capacity(length.min(CHUNK));
        while bytes.len() < length {
            let start = bytes.len();
            bytes.resize(length.min(start + CHUNK), 0);
            self.input.read_exact(&mut bytes[start..])?;
        }
        Ok(bytes)
    }

    fn string(&mut self) -> Result<String, DecodeError> {
        String::from_utf8(self.bytes()?).map_err(|_| DecodeError::Damaged("a string is not UTF-8"))
    }

    fn acl(&mut self) -> Result<Arc<[Acl]>, DecodeError> {
        let mut acl = Vec::new();
        for _ in 0..self.number()? {
            let permissions = self.int()?;
            acl.push(Acl { permissions, id: Id { scheme: self.string()?, id: self.string()? } });
        }
        Ok(Arc::from(acl))
    }

    fn node(&mut self, acls: &[Arc<[Acl]>]) -> Result<Node, DecodeError> {
        let owner = match self.byte()? {
            0 => Owner::Nobody,
            1 => Owner::Session(self.signed()?),
            2 => Owner::Container,
            3 => Owner::Ttl(self.signed()?),
            _ => return Err(DecodeError::Damaged("a znode is of no known kind")),
        };
        let data = match self.byte()? {
            0 => None,
            1 => Some(Bytes::from(self.bytes()?.into_boxed_slice())),
            _ => return Err(DecodeError::Damaged("data is neither null nor there")),
        };
        let acl = usize::try_from(self.number()?).ok().and_then(|index| acls.get(index));
        Ok(Node {
            data,
            acl: Arc::clone(acl.ok_or(DecodeError::Damaged("a znode has no ACL"))?),
            children: Children::none(),
            owner,
            czxid: self.signed()?,
            mzxid: self.signed()?,
            pzxid: self.signed()?,
            ctime: self.signed()?,
            mtime: self.signed()?,
            version: self.int()?,
            aversion: self.int()?,
            creations: self.int()?,
        })
    }
}
