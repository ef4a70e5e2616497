//! Arbitrary bytes into what clients send.

use bytes::BytesMut;
use quorumkv_fuzzing::{Case, Counting, fuzz, peak_of};

use crate::acl::{authenticate, fix, permits, redacted};
use crate::config::settings::Time;
use crate::jute::{Decoder, Encoder};
use crate::path;
use crate::wire::{
    AskedAcl, ConnectRequest, Create, Id, MultiOp, ReadOp, Request, RequestError, SetWatches, Write, op,
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

pub(crate) fn texts(samples: &[&str]) -> Vec<Vec<u8>> {
    samples.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn encoded(write: impl FnOnce(&mut Encoder<'_>)) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    write(&mut Encoder::new(&mut bytes));
    bytes.to_vec()
}

/// A request of every kind.
fn requests() -> Vec<Vec<u8>> {
    let request = |op: i32, body: &dyn Fn(&mut Encoder<'_>)| {
        encoded(|out| {
            out.int(7).int(op);
            body(out);
        })
    };
    let create = |out: &mut Encoder<'_>, flags| {
        out.string("/a/b").buffer(Some(b"data")).length(2);
        out.int(31).string("world").string("anyone").int(1).string("digest").string("u:h").int(flags);
    };
    let mut all = Vec::new();
    for flags in 0..7 {
        all.push(request(op::CREATE, &|out| create(out, flags)));
        all.push(request(op::CREATE_TTL, &|out| {
            create(out, flags);
            out.long(5000);
        }));
    }
    for op in [op::EXISTS, op::GET_DATA, op::GET_CHILDREN, op::GET_CHILDREN2, op::GET_ACL, op::SYNC] {
        all.push(request(op, &|out| {
            out.string("/a/b").boolean(true);
        }));
    }
    for op in [op::DELETE, op::ADD_WATCH, op::CHECK_WATCHES, op::REMOVE_WATCHES, op::GET_ALL_CHILDREN_NUMBER]
    {
        all.push(request(op, &|out| {
            out.string("/a/b").int(1);
        }));
    }
    for op in [op::PING, op::CLOSE_SESSION, op::WHO_AM_I, op::RECONFIG, op::GET_EPHEMERALS, op::SASL] {
        all.push(request(op, &|out| {
            out.int(-1);
        }));
    }
    all.push(request(op::SET_DATA, &|out| {
        out.string("/a").buffer(None).int(-1);
    }));
    all.push(request(op::SET_ACL, &|out| {
        out.string("/a").length(1).int(31).string("auth").buffer(None).int(0);
    }));
    all.push(request(op::AUTH, &|out| {
        out.int(0).string("digest").buffer(Some(b"u:p"));
    }));
    for op in [op::SET_WATCHES, op::SET_WATCHES2] {
        all.push(request(op, &|out| {
            out.long(9).length(2).string("/a").string("/b").length(0).length(1).string("/c").int(-1).int(-1);
        }));
    }
    all.push(request(op::MULTI, &|out| {
        out.int(op::CREATE2).boolean(false).int(-1);
        create(out, 1);
        out.int(op::CHECK).boolean(false).int(-1).string("/c").int(3);
        out.int(op::SET_DATA).boolean(false).int(-1).string("/c").buffer(Some(b"x")).int(3);
        out.int(op::DELETE).boolean(false).int(-1).string("/c").int(4).int(-1).boolean(true).int(-1);
    }));
    all.push(request(op::MULTI_READ, &|out| {
        out.int(op::GET_DATA).boolean(false).int(-1).string("/a").boolean(false);
        out.int(op::GET_CHILDREN)
            .boolean(false)
            .int(-1)
            .string("/")
            .boolean(true)
            .int(-1)
            .boolean(true)
            .int(-1);
    }));
    all
}

fn acl_bytes(acl: &[AskedAcl]) -> usize {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    acl.iter().map(|entry| length(&entry.scheme) + length(&entry.id)).sum()
}

fn create_bytes(create: &Create) -> usize {
    create.path.len() + create.data.as_ref().map_or(0, bytes::Bytes::len) + acl_bytes(&create.acl)
}

/// Bytes of all texts and data in a request.
fn content(request: &Request) -> usize {
    match request {
        Request::Write(Write::Create(create)) => create_bytes(create),
        Request::Write(Write::Delete(delete)) => delete.path.len(),
        Request::Write(Write::SetData(set)) => {
            set.path.len() + set.data.as_ref().map_or(0, bytes::Bytes::len)
        }
        Request::Write(Write::SetAcl(set)) => set.path.len() + acl_bytes(&set.acl),
        Request::Write(Write::Multi(ops)) => ops
            .iter()
            .map(|op| match op {
                MultiOp::Create(create) => create_bytes(create),
                MultiOp::Delete(delete) => delete.path.len(),
                MultiOp::SetData(set) => set.path.len() + set.data.as_ref().map_or(0, bytes::Bytes::len),
                MultiOp::Check(check) => check.path.len(),
            })
            .sum(),
        Request::Exists { path, .. }
        | Request::GetData { path, .. }
        | Request::GetAcl { path }
        | Request::GetChildren { path, .. }
        | Request::GetAllChildrenNumber { path }
        | Request::GetEphemerals { prefix: path }
        | Request::Sync { path }
        | Request::AddWatch { path, .. }
        | Request::CheckWatches { path, .. }
        | Request::RemoveWatches { path, .. } => path.len(),
        Request::MultiRead(ops) => ops
            .iter()
            .map(|op| match op {
                ReadOp::Children(path) | ReadOp::Data(path) => path.len(),
            })
            .sum(),
        Request::Auth { scheme, auth } => scheme.len() + auth.len(),
        Request::SetWatches(SetWatches { data, exist, child, persistent, recursive, .. }) => {
            [data, exist, child, persistent, recursive].into_iter().flatten().map(String::len).sum()
        }
        Request::WhoAmI | Request::Ping | Request::CloseSession | Request::Reconfig => 0,
    }
}

/// What is understood comes from the packet, and needs no more memory than a multiple of it.
#[test]
fn request() {
    fuzz!(requests(), |case: &mut Case| {
        let packet = &case.bytes;
        let (decoded, taken) = peak_of(|| Request::decode(packet));
        assert!(taken <= 48 * packet.len() + 512, "{} bytes took {taken}", packet.len());
        let Ok((header, request)) = decoded else {
            assert!(packet.len() < 8, "there is a header");
            return;
        };
        assert_eq!(header.xid.to_be_bytes(), packet[..4]);
        match request {
            Ok(request) => assert!(content(&request) <= packet.len() - 8, "more than was sent"),
            Err(RequestError::UnknownOperation(op)) => assert_eq!(op, header.op),
            Err(RequestError::Malformed { .. } | RequestError::NoSuchKind { .. }) => {}
        }
    });
}

#[test]
fn connect_request() {
    let connect = |read_only: Option<bool>| {
        encoded(|out| {
            out.int(0).long(5).int(30_000).long(0x1234).buffer(Some(&[7; 16]));
            if let Some(read_only) = read_only {
                out.boolean(read_only);
            }
        })
    };
    fuzz!(vec![connect(None), connect(Some(true)), connect(Some(false))], |case: &mut Case| {
        let (decoded, taken) = peak_of(|| ConnectRequest::decode(&case.bytes));
        assert!(taken <= case.bytes.len() + 256, "{} bytes took {taken}", case.bytes.len());
        let Ok(request) = decoded else { return };
        let again = encoded(|out| {
            let ConnectRequest { protocol_version, last_zxid_seen, timeout_ms, session, password, .. } =
                &request;
            out.int(*protocol_version).long(*last_zxid_seen).int(*timeout_ms).long(*session);
            out.buffer(Some(password));
        });
        // No password may also be null, which is as long as an empty one.
        assert_eq!(again[..24], case.bytes[..24]);
        assert!(again.len() + usize::from(request.read_only.is_some()) <= case.bytes.len());
    });
}

/// A list that is taken permits something only to those that it names, and is no longer than what was asked for.
#[test]
fn acl() {
    let list = |entries: &[(&str, &str)]| {
        encoded(|out| {
            out.length(entries.len());
            entries.iter().for_each(|(scheme, id)| {
                out.int(31).string(scheme).string(id);
            });
        })
    };
    let samples = vec![
        list(&[("world", "anyone"), ("digest", "u:h"), ("auth", "")]),
        list(&[("ip", "10.0.0.0/8"), ("ip", "2001:db8::/32"), ("ip", "10.1.2.03"), ("x509", "CN=a")]),
        list(&[("world", "anyone"); 12]),
    ];
    let me = [Id::new("ip", "10.1.2.3"), Id::new("digest", "u:hash")];
    fuzz!(samples, move |case: &mut Case| {
        let Ok(asked) = Decoder::new(&case.bytes).vector(AskedAcl::decode) else { return };
        let Ok(fixed) = fix(&asked, &me) else { return };
        assert!(!fixed.is_empty() && fixed.len() <= asked.len() * me.len());
        assert!(permits(&fixed, 31, &[Id::new("super", "")]));
        let is_mine = permits(&fixed, 31, &me);
        assert!(is_mine || !permits(&fixed, 31, &me[..1]), "who is more is permitted no less");
        assert_eq!(redacted(&fixed, &me).len(), fixed.len());
    });
}

/// The first byte is the scheme's length.
#[test]
fn authentication() {
    let samples = texts(&["\u{6}digestu:p", "\u{2}ip10.0.0.1", "\u{6}digest:", "\u{5}world"]);
    fuzz!(samples, |case: &mut Case| {
        let (length, rest) = case.bytes.split_first().unwrap_or((&0, &[]));
        let (scheme, auth) = rest.split_at(usize::from(*length).min(rest.len()));
        let Ok(scheme) = std::str::from_utf8(scheme) else { return };
        let (ids, taken) = peak_of(|| authenticate(scheme, auth, Some("super:hash")));
        assert!(taken <= 16 * auth.len() + 512, "{} bytes took {taken}", auth.len());
        if let Ok(ids) = ids {
            assert!(ids.iter().all(|id| id.scheme == "digest"), "nobody knows the super user's password");
        }
    });
}

/// A valid path leads up to the root through valid ones.
#[test]
fn znode_path() {
    let samples = texts(&["/", "/a", "/zookeeper/quota/a b/.c", "/é\u{d7ff}\u{f900}/..d"]);
    fuzz!(samples, |case: &mut Case| {
        let Ok(text) = std::str::from_utf8(&case.bytes) else { return };
        let (mut at, is_valid) = (text, path::validate(text).is_ok());
        while let Some(parent) = path::parent(at) {
            assert!(parent.len() < at.len());
            if is_valid {
                path::validate(parent).expect("what is above is valid");
                let slash = if parent == path::ROOT { "" } else { "/" };
                assert_eq!(format!("{parent}{slash}{}", path::name(at)), at);
            }
            at = parent;
        }
        assert!(!is_valid || at == path::ROOT);
    });
}

#[test]
fn time_as_text() {
    let samples = texts(&["2000", "1min 2s", "500ms", "18446744073709551615", "1y 2months 3us", " 7 "]);
    fuzz!(samples, |case: &mut Case| {
        let Ok(text) = std::str::from_utf8(&case.bytes) else { return };
        if let Ok(time) = text.parse::<Time>() {
            let written = time.to_string();
            assert_eq!(written.parse(), Ok(time), "{text:?} is written as {written:?}");
        }
    });
}
