//! Random sequences: few names, so that operations meet; every kind of mistake, so that errors meet as well.

use super::ops::{Request, Step};
use crate::raw::{Entry, op, open_acl};

/// How many sessions take part.
pub(crate) const SESSIONS: usize = 3;
/// Users that `auth` can be told of, and how ACLs name them.
const USERS: [(&str, &str); 2] =
    [("ann:one", "ann:grDcJ7OS1jCu/cG2TyJHw/I9L8o="), ("bob:two", "bob:yqVrLFrvoaI9z9fohteaNPJvRu8=")];
/// Longer than any run, in milliseconds.
const HOUR: i64 = 3_600_000;
/// What no path may be.
const MALFORMED: [&str; 12] = [
    "",
    "r",
    "/r/",
    "/r//a",
    "/r/.",
    "/r/..",
    "/r/a/",
    "/r/./a",
    "/r/../a",
    "/r/\u{1}",
    "/r/a\u{0}b",
    "/r/\u{f8ff}",
];
/// What looks malformed and is not.
const ODD: [&str; 5] = ["/r/.a", "/r/a..b", "/r/ä ö", "/r/...", "/r/~"];

/// The sequence of a seed.
pub(crate) fn sequence(seed: u64, steps: usize, old: bool) -> Vec<Step> {
    let mut random = fastrand::Rng::with_seed(seed);
    let only = old.then(|| random.usize(..3));
    Generator { random, only, number: 0, step: 0, created: vec!["/r".to_owned()] }.sequence(steps)
}

struct Generator {
    random: fastrand::Rng,
    /// If the reference is older than 3.9: the one kind of watches that the sequence uses (0 one-shot, 1 persistent, 2
    /// recursive). There a second kind on the same path replaces the first, and `checkWatches` and `removeWatches` find
    /// watches of other sessions.
    only: Option<usize>,
    number: usize,
    step: usize,
    /// Znodes that may have been created.
    created: Vec<String>,
}

impl Generator {
    fn sequence(&mut self, steps: usize) -> Vec<Step> {
        (0..steps).map(|step| self.step(step)).collect()
    }

    fn step(&mut self, step: usize) -> Step {
        self.step = step;
        let session = self.random.usize(..SESSIONS);
        match self.random.u32(..100) {
            0..3 => Step::Reattach { session },
            3..6 => Step::Replace { session, number: self.number() },
            // A server may answer `auth` ahead of what was sent before it, so it stands alone.
            6..9 => Step::Requests { session, requests: vec![(self.number(), self.auth())] },
            _ => {
                let count = if self.one_in(2) { 1 } else { self.random.usize(1..=4) };
                let mut requests: Vec<(usize, Request)> =
                    (0..count).map(|_| (self.number(), self.request())).collect();
                // Apache ZooKeeper checks what follows a setACL against the ACL before or after it, as it happens to be quick.
                if let Some(at) = requests.iter().position(|(_, request)| request.op() == op::SET_ACL) {
                    requests.truncate(at + 1);
                }
                Step::Requests { session, requests }
            }
        }
    }

    fn number(&mut self) -> usize {
        self.number += 1;
        self.number
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.random.u32(..n) == 0
    }

    fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.random.usize(..choices.len())].clone()
    }

    fn request(&mut self) -> Request {
        match self.random.u32(..100) {
            0..26 => self.create(),
            26..35 => self.delete(),
            35..44 => self.set(),
            44..48 => self.set_acl(),
            48..54 => self.watched(op::EXISTS),
            54..61 => self.watched(op::GET_DATA),
            61..65 => self.watched(op::GET_CHILDREN),
            65..69 => self.watched(op::GET_CHILDREN2),
            69..72 => self.with_path(op::GET_ACL),
            72..74 => self.with_path(op::GET_ALL_CHILDREN_NUMBER),
            74..76 => self.ephemerals(),
            76..77 => self.with_path(op::SYNC),
            77..83 => self.multi(),
            83..86 => self.multi_read(),
            86..90 => self.add_watch(),
            90..92 if self.only.is_none() => self.watches(op::CHECK_WATCHES),
            92..94 if self.only.is_none() => self.watches(op::REMOVE_WATCHES),
            94..97 => self.set_watches(),
            97..98 => Request::Nothing { op: op::WHO_AM_I },
            _ => Request::Nothing { op: op::PING },
        }
    }

    fn path(&mut self) -> String {
        if self.one_in(40) {
            return self.pick(&MALFORMED).to_owned();
        }
        if self.one_in(60) {
            return self.pick(&ODD).to_owned();
        }
        let known = self.pick(&self.created.clone());
        match self.random.u32(..8) {
            0 => self.below(&known),
            1 => "/r".to_owned(),
            _ => known,
        }
    }

    fn below(&mut self, path: &str) -> String {
        let name = self.pick(&["a", "b", "c"]);
        format!("{path}/{name}")
    }

    fn version(&mut self) -> i32 {
        match self.random.u32(..20) {
            0..10 => -1,
            10..14 => 0,
            14..17 => 1,
            17..18 => 2,
            18..19 => self.random.i32(3..6),
            _ => self.pick(&[-2, i32::MIN, i32::MAX]),
        }
    }

    fn data(&mut self) -> Option<Vec<u8>> {
        match self.random.u32(..6) {
            0 => None,
            1 => Some(Vec::new()),
            _ => Some(format!("d{}", self.number).into_bytes()),
        }
    }

    fn acl(&mut self) -> Vec<Entry> {
        if !self.one_in(5) {
            return open_acl();
        }
        let count = self.random.usize(1..=2);
        let mut acl: Vec<Entry> = (0..count).flat_map(|_| self.acl_entry()).collect();
        if self.only.is_some() && !acl.is_empty() {
            // Before 3.9, `exists` needs no permission.
            acl.push((1, Some("world".to_owned()), Some("anyone".to_owned())));
        }
        acl
    }

    fn acl_entry(&mut self) -> Option<Entry> {
        let entry = |permissions, scheme: &str, id: &str| {
            Some((permissions, Some(scheme.to_owned()), Some(id.to_owned())))
        };
        let permissions = if self.one_in(2) { 31 } else { self.random.i32(0..32) };
        match self.random.u32(..15) {
            0..4 => entry(permissions, "world", "anyone"),
            4..6 => entry(permissions, "auth", ""),
            6..8 => entry(permissions, "digest", USERS[0].1),
            8..9 => entry(permissions, "digest", USERS[1].1),
            9 => entry(permissions, "ip", "0.0.0.0/0"),
            10 => entry(permissions, "ip", "10.9.8.7"),
            11 => {
                let (scheme, id) = self.pick(&[
                    ("world", "everyone"),
                    ("digest", "ann"),
                    ("digest", "a:b:c"),
                    ("ip", "localhost"),
                    ("ip", "1.2.3.4/33"),
                    ("ip", "1.2.3"),
                    ("sasl", "x"),
                    ("kerberos", "x"),
                    ("", ""),
                    ("super", "ann"),
                ]);
                entry(permissions, scheme, id)
            }
            12 => entry(self.pick(&[-1, 32, 0, 255]), "world", "anyone"),
            13 => {
                let schemes = [
                    Some("auth"),
                    Some("world"),
                    Some("digest"),
                    Some("ip"),
                    Some("x509"),
                    Some("sasl"),
                    None,
                ];
                let id = if self.one_in(4) { Some("anyone".to_owned()) } else { None };
                Some((permissions, self.pick(&schemes).map(ToOwned::to_owned), id))
            }
            // Leaves the list empty, if there is no other.
            _ => None,
        }
    }

    fn auth(&mut self) -> Request {
        let auth = match self.random.u32(..6) {
            // The worst that does not end the connection.
            0 => "ann".to_owned(),
            1 => "ann:wrong".to_owned(),
            n => USERS[n as usize % 2].0.to_owned(),
        };
        Request::Auth { scheme: "digest".to_owned(), auth: auth.into_bytes() }
    }

    fn create(&mut self) -> Request {
        let op = match self.random.u32(..20) {
            0..9 => op::CREATE,
            9..15 => op::CREATE2,
            15..17 => op::CREATE_CONTAINER,
            _ => op::CREATE_TTL,
        };
        // Before 3.9, a multi with the flags of no kind at all is answered in another way.
        let odd = self.only.is_none() && self.one_in(25);
        let flags = match op {
            // With the flags of another kind, createContainer and createTTL make Apache ZooKeeper create something between
            // the two kinds, or end for good.
            op::CREATE_CONTAINER | op::CREATE_TTL if odd => self.pick(&[-1, 7, 8]),
            op::CREATE_CONTAINER => 4,
            op::CREATE_TTL => self.random.i32(5..7),
            _ if odd => self.random.i32(-1..9),
            _ => self.pick(&[0, 0, 0, 1, 1, 2, 2, 3]),
        };
        let mut path = self.path();
        if !self.one_in(5) && path.matches('/').count() < 4 {
            path = self.below(&path);
        }
        let sequential = matches!(flags, 2 | 3 | 6);
        if sequential && path.starts_with("/r/") && !self.one_in(8) {
            path.truncate(path.rfind('/').unwrap_or_default());
            path.push_str(self.pick(&["/s", "/s", "/"]));
        }
        let number = if sequential { format!("{:010}", self.random.u32(..4)) } else { String::new() };
        let created = format!("{path}{number}");
        if !self.created.contains(&created) && self.created.len() < 20 {
            self.created.push(created);
        }
        let ttl = if self.one_in(6) {
            self.pick(&[0, -1, 1 << 40, (1 << 40) - 1, i64::MIN, i64::MAX])
        } else {
            HOUR
        };
        Request::Create { op, path, data: self.data(), acl: self.acl(), flags, ttl }
    }

    fn delete(&mut self) -> Request {
        Request::Numbered { op: op::DELETE, path: self.path(), number: self.version() }
    }

    fn set(&mut self) -> Request {
        Request::Set { path: self.path(), data: self.data(), version: self.version() }
    }

    fn set_acl(&mut self) -> Request {
        Request::SetAcl { path: self.path(), acl: self.acl(), version: self.version() }
    }

    fn watched(&mut self, op: i32) -> Request {
        let watch = self.one_in(2) && self.may_use(0);
        Request::Watched { op, path: self.read_path(), watch }
    }

    fn with_path(&mut self, op: i32) -> Request {
        Request::Path { op, path: self.read_path() }
    }

    /// A path to read from. An empty one counts as the root, whose other children are none of this sequence's.
    fn read_path(&mut self) -> String {
        let path = self.path();
        if path.is_empty() { "/r/a//".to_owned() } else { path }
    }

    fn ephemerals(&mut self) -> Request {
        // A prefix need not end where a name does.
        let path = self.pick(&["/r", "/r/a", "/r/a/", "/r/s0", "/", "", "/elsewhere"]).to_owned();
        Request::Path { op: op::GET_EPHEMERALS, path }
    }

    fn multi(&mut self) -> Request {
        let count = self.random.usize(0..=4);
        let requests = (0..count)
            .map(|_| match self.random.u32(..8) {
                0..3 => self.create(),
                3..5 => self.set(),
                5 => self.delete(),
                _ => Request::Numbered { op: op::CHECK, path: self.path(), number: self.version() },
            })
            .collect();
        Request::Multi { op: op::MULTI, requests }
    }

    fn multi_read(&mut self) -> Request {
        let count = self.random.usize(0..=3);
        let requests = (0..count)
            .map(|_| {
                let op = self.pick(&[op::GET_DATA, op::GET_CHILDREN]);
                Request::Watched { op, path: self.read_path(), watch: false }
            })
            .collect();
        Request::Multi { op: op::MULTI_READ, requests }
    }

    fn add_watch(&mut self) -> Request {
        let number = match self.random.u32(..40) {
            0 => -1,
            1 => 2,
            n if n % 2 == 0 && self.may_use(1) => 0,
            _ if self.may_use(2) => 1,
            _ => 3,
        };
        Request::Numbered { op: op::ADD_WATCH, path: self.path(), number }
    }

    fn may_use(&self, kind: usize) -> bool {
        self.only.is_none_or(|only| only == kind)
    }

    fn watches(&mut self, op: i32) -> Request {
        let number = if self.one_in(20) { self.pick(&[-1, 0, 6]) } else { self.random.i32(1..6) };
        Request::Numbered { op, path: self.path(), number }
    }

    fn set_watches(&mut self) -> Request {
        let (op, count) = self.pick(&[(op::SET_WATCHES, 3), (op::SET_WATCHES2, 5)]);
        let mut lists: Vec<Vec<String>> =
            (0..count).map(|_| (0..self.random.usize(0..3)).map(|_| self.read_path()).collect()).collect();
        for (at, list) in lists.iter_mut().enumerate() {
            if !self.may_use(at.saturating_sub(2)) {
                list.clear();
            }
        }
        Request::SetWatches { op, since: self.random.usize(0..=self.step), lists }
    }
}
