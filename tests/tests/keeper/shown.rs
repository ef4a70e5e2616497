//! What a server answered, as text that can be compared with what another one answered: transactions are named after the
//! operation that made them, sessions after their number, times are left out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Result, ensure};
use quorumkv_keeper::jute::Decoder;

use crate::raw::{Packet, op};

/// What is only true of one server, and what it is called in both.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// The znode below which everything happens, and which is shown as `/r`.
    pub(crate) root: String,
    /// Which operation made a transaction.
    transactions: BTreeMap<i64, usize>,
    /// Which session has an id.
    sessions: BTreeMap<i64, usize>,
}

impl Names {
    /// Everything happens below `root`.
    pub(crate) fn new(root: &str) -> Self {
        Self { root: root.to_owned(), ..Self::default() }
    }

    /// A session has been opened.
    pub(crate) fn session(&mut self, id: i64) {
        let number = self.sessions.len();
        self.sessions.entry(id).or_insert(number);
    }

    /// An operation has succeeded with a transaction.
    pub(crate) fn transaction(&mut self, zxid: i64, operation: usize) {
        self.transactions.entry(zxid).or_insert(operation);
    }

    /// The latest named transaction up to `zxid`. In between are those that no two servers have in common: of failed
    /// requests and of sessions.
    pub(crate) fn upto(&self, zxid: i64) -> String {
        self.transactions
            .range(..=zxid)
            .next_back()
            .map_or_else(|| "start".to_owned(), |(_, op)| format!("#{op}"))
    }

    fn exactly(&self, zxid: i64) -> String {
        match self.transactions.get(&zxid) {
            Some(operation) => format!("#{operation}"),
            None => format!("after {}", self.upto(zxid)),
        }
    }

    fn owner(&self, owner: i64) -> String {
        match self.sessions.get(&owner) {
            Some(number) => format!("s{number}"),
            None => format!("{owner:x}"),
        }
    }

    /// A path or a name as it is shown.
    pub(crate) fn path(&self, path: &str) -> String {
        path.replace(&self.root, "/r")
    }
}

/// Reads and shows.
struct Shower<'a> {
    decoder: Decoder<'a>,
    names: &'a Names,
    parts: &'a [i32],
    out: String,
}

/// The body of a successful reply to `op`; `parts` are the operations of a multi.
pub(crate) fn reply(op: i32, parts: &[i32], packet: &Packet, names: &Names) -> Result<String> {
    let mut shower = Shower { decoder: Decoder::new(&packet.body), names, parts, out: String::new() };
    shower.body(op)?;
    while !shower.decoder.is_empty() {
        let more = shower.decoder.int()?;
        shower.say(&format!("+{more}"));
    }
    Ok(shower.out.trim_end().to_owned())
}

/// Whether a multi's reply tells of an error.
pub(crate) fn has_failed(op: i32, packet: &Packet) -> bool {
    let first = packet.body.split_first_chunk::<4>().map(|(kind, _)| i32::from_be_bytes(*kind));
    packet.error != 0 || (op == op::MULTI && first == Some(-1) && packet.body.len() > 9)
}

impl Shower<'_> {
    fn body(&mut self, op: i32) -> Result<()> {
        match op {
            op::CREATE | op::SYNC => self.path(),
            op::CREATE2 | op::CREATE_CONTAINER | op::CREATE_TTL => {
                self.path()?;
                self.stat()
            }
            op::EXISTS | op::SET_DATA | op::SET_ACL => self.stat(),
            op::GET_DATA => {
                self.data()?;
                self.stat()
            }
            op::GET_ACL => {
                self.acl()?;
                self.stat()
            }
            op::GET_CHILDREN | op::GET_EPHEMERALS => self.strings(),
            op::GET_CHILDREN2 => {
                self.strings()?;
                self.stat()
            }
            op::GET_ALL_CHILDREN_NUMBER => {
                let number = self.decoder.int()?;
                self.say(&number.to_string());
                Ok(())
            }
            op::WHO_AM_I => self.who(),
            op::MULTI | op::MULTI_READ => self.results(),
            // `addWatch` and its like have an error code of their own, which is shown as what is left over.
            _ => Ok(()),
        }
    }

    fn say(&mut self, what: &str) {
        write!(self.out, "{what} ").expect("a string takes everything");
    }

    fn text(&mut self) -> Result<Option<String>> {
        Ok(self.decoder.slice()?.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
    }

    fn path(&mut self) -> Result<()> {
        let path = self.text()?.map_or_else(|| "null".to_owned(), |path| self.names.path(&path));
        self.say(&path);
        Ok(())
    }

    fn data(&mut self) -> Result<()> {
        let data = self.text()?;
        self.say(&format!("{data:?}"));
        Ok(())
    }

    fn strings(&mut self) -> Result<()> {
        let length = self.decoder.int()?;
        let mut strings = Vec::new();
        for _ in 0..length {
            strings.push(self.text()?.map(|name| self.names.path(&name)));
        }
        // Names have no order that anybody could rely on.
        strings.sort();
        self.say(&format!("{strings:?}"));
        Ok(())
    }

    fn acl(&mut self) -> Result<()> {
        for _ in 0..self.decoder.int()? {
            let permissions = self.decoder.int()?;
            let (scheme, id) = (self.text()?, self.text()?);
            self.say(&format!("{permissions}:{scheme:?}:{id:?}"));
        }
        Ok(())
    }

    fn who(&mut self) -> Result<()> {
        let mut who = Vec::new();
        for _ in 0..self.decoder.int()? {
            let (scheme, user) = (self.text()?, self.text()?);
            // Docker's network shows another address than loopback does.
            let user = if scheme.as_deref() == Some("ip") { None } else { user };
            who.push((scheme, user));
        }
        who.sort();
        self.say(&format!("{who:?}"));
        Ok(())
    }

    fn stat(&mut self) -> Result<()> {
        let d = &mut self.decoder;
        let (czxid, mzxid, ctime, mtime) = (d.long()?, d.long()?, d.long()?, d.long()?);
        let (version, cversion, aversion, owner) = (d.int()?, d.int()?, d.int()?, d.long()?);
        let (length, children, pzxid) = (d.int()?, d.int()?, d.long()?);
        ensure!(ctime <= mtime, "modified at {mtime}, before it was created at {ctime}");
        let n = self.names;
        let shown = format!(
            "c={} m={} p={} v={version} cv={cversion} av={aversion} owner={} length={length} children={children}{}",
            n.exactly(czxid),
            n.exactly(mzxid),
            n.exactly(pzxid),
            n.owner(owner),
            if czxid == mzxid && ctime != mtime { " times differ" } else { "" },
        );
        self.say(&shown);
        Ok(())
    }

    fn results(&mut self) -> Result<()> {
        for at in 0.. {
            let (kind, done, error) = (self.decoder.int()?, self.decoder.boolean()?, self.decoder.int()?);
            // A create2 answers as a create in 3.8 and in keeper, and as itself, with a stat, in 3.9.
            if self.parts.get(at) == Some(&op::CREATE2) && matches!(kind, op::CREATE | op::CREATE2) {
                self.say("[create2]");
                self.path()?;
                let length = self.out.len();
                if kind == op::CREATE2 {
                    self.stat()?;
                }
                self.out.truncate(length);
                continue;
            }
            self.say(&format!("[{kind} {done} {error}]"));
            if done {
                break;
            }
            match kind {
                -1 => {
                    let code = self.decoder.int()?;
                    self.say(&code.to_string());
                }
                op::DELETE | op::CHECK => {}
                _ => self.body(kind)?,
            }
        }
        Ok(())
    }
}
