//! Arbitrary bytes into what is stored and into the pieces of snapshots.

use bytes::Bytes;
use quorumkv_fuzzing::{Case, fuzz, peak_of};
use quorumkv_protocol::entry::Outcome;
use quorumkv_protocol::{EntryId, Epoch, NodeId, Version};
use quorumkv_replica::requests::Row;

use super::{configuration_at, request_at};
use crate::state::format::{self, MetaRow};
use crate::state::home::{Unfit, current_text, parse_current};
use crate::state::snapshot::{self, Table};

fn id() -> EntryId {
    EntryId::new(Epoch::new(1, NodeId::new(2)), Version::new(9))
}

/// Key and value of a row of each kind.
fn meta_rows() -> Vec<(Vec<u8>, Vec<u8>)> {
    let outcomes = [Outcome::Applied, Outcome::NotFound, Outcome::Mismatch { actual: Version::new(8) }];
    let mut rows = vec![
        (format::CONFIGURATION.to_vec(), format::configuration_value(&configuration_at(7)).to_vec()),
        (format::HORIZON.to_vec(), format::horizon_value(Version::new(9)).to_vec()),
    ];
    for outcome in outcomes {
        let request = request_at(5);
        let row = Row { request, floor: 6, version: Version::new(7), outcome };
        rows.push((format::request_key(request).to_vec(), format::row_value(&row).to_vec()));
    }
    rows
}

/// The key and the value that a row is stored as.
fn stored(row: &MetaRow) -> (Vec<u8>, Vec<u8>) {
    match row {
        MetaRow::Configuration(configuration) => {
            (format::CONFIGURATION.to_vec(), format::configuration_value(configuration).to_vec())
        }
        MetaRow::Horizon(horizon) => (format::HORIZON.to_vec(), format::horizon_value(*horizon).to_vec()),
        MetaRow::Result(row) => (format::request_key(row.request).to_vec(), format::row_value(row).to_vec()),
    }
}

/// The first byte is the key's length.
#[test]
fn meta_row() {
    let sample = |(key, value): (Vec<u8>, Vec<u8>)| {
        [&[u8::try_from(key.len()).expect("short")][..], &key, &value].concat()
    };
    fuzz!(meta_rows().into_iter().map(sample).collect(), |case: &mut Case| {
        let (length, rest) = case.bytes.split_first().unwrap_or((&0, &[]));
        let (key, value) = rest.split_at(usize::from(*length).min(rest.len()));
        if let Ok(row) = MetaRow::decode(key, value) {
            assert_eq!(stored(&row), (key.to_vec(), value.to_vec()), "accepted a form that is not stored");
        }
    });
}

#[test]
fn record() {
    let samples = [&b""[..], b"value"].map(|value| format::record_value(id(), value).to_vec());
    fuzz!(samples.to_vec(), |case: &mut Case| {
        let bytes = Bytes::copy_from_slice(&case.bytes);
        let Ok(record) = format::decode_record(bytes.clone()) else { return };
        assert_eq!(format::record_value(record.id, &record.value), bytes);
    });
}

#[test]
fn entry_id() {
    fuzz!(vec![format::id_value(id()).to_vec()], |case: &mut Case| {
        if let Ok(id) = format::decode_id(&case.bytes) {
            assert_eq!(format::id_value(id), case.bytes);
        }
    });
}

#[test]
fn current_file() {
    let samples = [0, 1, u64::MAX].map(|number| current_text(number).into_bytes());
    fuzz!(samples.to_vec(), |case: &mut Case| {
        let Ok(text) = std::str::from_utf8(&case.bytes) else { return };
        match parse_current(text) {
            Ok(number) => assert_eq!(current_text(number), text),
            Err(Unfit::Format(format)) => assert_ne!(format, format::VERSION),
            Err(Unfit::Damaged(_)) => {}
        }
    });
}

/// A row of a piece: its keyspace, the lengths, the key and the value.
fn piece_row(keyspace: u8, key: &[u8], value: &[u8]) -> Vec<u8> {
    let key_length = u16::try_from(key.len()).expect("a key is short");
    let value_length = u32::try_from(value.len()).expect("a value is short");
    [&[keyspace][..], &key_length.to_be_bytes(), &value_length.to_be_bytes(), key, value].concat()
}

#[test]
fn snapshot_piece() {
    let data =
        |key: &str, value: &str| piece_row(0, key.as_bytes(), &format::record_value(id(), value.as_bytes()));
    let meta: Vec<_> = meta_rows().iter().map(|(key, value)| piece_row(1, key, value)).collect();
    let samples = vec![
        [data("a", "1"), data("key", "a longer value"), data("z", "")].concat(),
        meta.concat(),
        [data("a", "1"), meta[2].clone()].concat(),
        meta[0].clone(),
        Vec::new(),
    ];
    fuzz!(samples, |case: &mut Case| {
        let piece = Bytes::copy_from_slice(&case.bytes);
        let (rows, taken) = peak_of(|| snapshot::decode(piece, id()));
        assert!(taken <= 64 * case.bytes.len() + (32 << 10), "{} bytes took {taken}", case.bytes.len());
        let Ok(rows) = rows else { return };
        let mut again = Vec::new();
        for row in &rows {
            let keyspace = match &row.table {
                Table::Data => 0,
                Table::Meta(meta) => {
                    assert_eq!(stored(meta), (row.key.to_vec(), row.value.to_vec()));
                    1
                }
            };
            again.extend(piece_row(keyspace, &row.key, &row.value));
        }
        assert_eq!(again, case.bytes, "what was taken in is not what came");
    });
}

/// A whole batch of fjall's journal.
fn batch(sequence: u64, items: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut content = Vec::new();
    for (key, value) in items {
        let value_length = u32::try_from(value.len()).expect("a value is short").to_le_bytes();
        content.extend([2, 0, 0]);
        content.extend(7_u64.to_le_bytes());
        content.extend(u16::try_from(key.len()).expect("a key is short").to_le_bytes());
        content.extend([value_length, value_length].concat());
        content.extend([*key, *value].concat());
    }
    content.extend([&[4][..], &7_u64.to_le_bytes()].concat());
    let count = u32::try_from(items.len() + 1).expect("a few").to_le_bytes();
    let hash = xxhash_rust::xxh3::xxh3_64(&content).to_le_bytes();
    [&[1][..], &count, &sequence.to_le_bytes(), &content, &[3], &hash, b"FJL\x03"].concat()
}

/// Whole batches at the front are kept, and nothing that is not whole.
#[test]
fn fjall_journal() {
    let batches =
        [batch(5, &[(b"key", b"value"), (b"k", b"")]), batch(6, &[]), batch(7, &[(b"a", &[9; 40])])];
    let whole = batches.concat();
    let samples =
        vec![whole.clone(), batches[0].clone(), [&whole[..], &[0; 30]].concat(), batches[1].repeat(4)];
    fuzz!(samples, move |case: &mut Case| {
        let bytes = &case.bytes;
        let read =
            |bytes: &[u8]| crate::state::journal::whole(bytes, bytes.len() as u64).expect("memory is read");
        let ((end, last), taken) = peak_of(|| read(bytes));
        assert!(taken <= 2 * bytes.len(), "{} bytes took {taken}", bytes.len());
        let end = usize::try_from(end).expect("within the bytes");
        assert_eq!(read(&bytes[..end]), (end as u64, last), "what is kept is whole");
        let mut same = 0;
        for batch in &batches {
            if bytes.get(same..same + batch.len()) != Some(&whole[same..same + batch.len()]) {
                break;
            }
            same += batch.len();
        }
        assert!(end >= same, "{end} bytes were kept of {same} that are whole");
    });
}
