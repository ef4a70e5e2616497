//! Arbitrary bytes in place of transactions and snapshots.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use quorumkv_fuzzing::{Case, fuzz, peak_of};
use quorumkv_wal as wal;

use super::directory::is_known;
use super::{SnapshotError, journal, snapshot};
use crate::fuzz::texts;
use crate::tree::Tree;
use crate::tree::fuzz::{encoded, samples};
use crate::txn::{Change, Owner, Txn};
use crate::wire::{Acl, Id};

const ZXID: i64 = 300;

fn changes() -> Vec<Change> {
    let acl: Arc<[Acl]> = [Acl { permissions: 31, id: Id::new("digest", "u:h") }].into();
    let (path, data): (Arc<str>, _) = ("/a".into(), Some(Bytes::from_static(b"xy")));
    let owners = [Owner::Nobody, Owner::Session(-1), Owner::Container, Owner::Ttl(5)];
    let mut changes = vec![
        Change::CreateSession { timeout_ms: 4000, password: [7; 16] },
        Change::CloseSession { ephemerals: vec![Arc::clone(&path), "/b".into()] },
        Change::Delete { path: Arc::clone(&path) },
        Change::SetData { path: Arc::clone(&path), data: None, version: 2 },
        Change::SetAcl { path: Arc::clone(&path), acl: Arc::clone(&acl), version: -1 },
        Change::Check,
    ];
    for owner in owners {
        let (path, acl, data) = (Arc::clone(&path), Arc::clone(&acl), data.clone());
        changes.push(Change::Create { path, data, acl, owner, parent_creations: 3 });
    }
    changes.push(Change::Multi(changes.clone()));
    changes.push(Change::Multi(Vec::new()));
    changes
}

fn written(txn: &Txn) -> Vec<u8> {
    postcard::to_allocvec(txn).expect("it encodes")
}

/// What is taken for a transaction is in the one form in which it is written, and its memory is bounded.
#[test]
fn txn() {
    let sample = |change| written(&Txn { zxid: ZXID, session: -2, time_ms: 300, change });
    let epoch = wal::Epoch { counter: 1, node: 0 };
    fuzz!(changes().into_iter().map(sample).collect(), move |case: &mut Case| {
        let mark = wal::Mark { epoch, version: ZXID.unsigned_abs() };
        let entry = wal::Entry { mark, payload: Bytes::copy_from_slice(&case.bytes) };
        let (decoded, taken) = peak_of(|| journal::decode(&entry));
        let bound = 64 * case.bytes.len() + (4 << 20);
        assert!(taken <= bound, "{} bytes took {taken}", case.bytes.len());
        if let Ok(txn) = decoded {
            assert_eq!(written(&txn), case.bytes, "accepted a form that is not written");
            assert_eq!(txn.zxid, ZXID);
        }
    });
}

/// With an odd flavour length and checksum are made right after the damage.
#[test]
fn snapshot_file() {
    let file = |tree: &Tree| {
        let body = encoded(tree);
        let mut bytes =
            [&b"qkvksnap"[..], &1_u32.to_be_bytes(), &tree.last_zxid().to_be_bytes(), &body].concat();
        bytes.extend((body.len() as u64).to_be_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        bytes
    };
    let trees = samples();
    let last = trees.last().expect("there are some").last_zxid();
    fuzz!(trees.iter().map(file).collect(), move |case: &mut Case| {
        let bytes = &mut case.bytes;
        if let Some(end) = bytes.len().checked_sub(12).filter(|end| case.flavour % 2 == 1 && *end >= 20) {
            let length = (end as u64 - 20).to_be_bytes();
            bytes[end..end + 8].copy_from_slice(&length);
            let sum = crc32c::crc32c(&bytes[..end + 8]).to_be_bytes();
            bytes[end + 8..].copy_from_slice(&sum);
        }
        let zxid = bytes.get(12..20).map_or(last, |zxid| i64::from_be_bytes(zxid.try_into().expect("eight")));
        let length = bytes.len() as u64;
        let (decoded, taken) = peak_of(|| snapshot::decode(Path::new("s"), zxid, length, || Ok(&bytes[..])));
        assert!(taken <= 256 * bytes.len() + (1 << 20), "{} bytes took {taken}", bytes.len());
        match decoded {
            Ok(tree) => assert_eq!(file(&tree), *bytes, "accepted a form that is not written"),
            Err(SnapshotError::Damaged { .. } | SnapshotError::Format { .. }) => {}
            Err(error @ SnapshotError::Io { .. }) => panic!("memory can be read: {error}"),
        }
    });
}

#[test]
fn format_file() {
    fuzz!(texts(&["quorumkv-keeper 1\n", "quorumkv-keeper 4294967295"]), |case: &mut Case| {
        if is_known(&case.bytes).is_ok() {
            let text = std::str::from_utf8(&case.bytes).expect("it is text");
            assert_eq!(text.trim_end(), "quorumkv-keeper 1");
        }
    });
}
