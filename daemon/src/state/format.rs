//! What the bytes in the database mean. Version 2 of the format; `CURRENT` names it.
//!
//! All numbers are big-endian, so that the order of the bytes is that of the numbers.
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | data | user's key | epoch's counter u64, epoch's node u64, version u64, then the user's value |
//! | meta | `a` | the last applied entry: counter, node, version |
//! | meta | `c` | the configuration, as it is in an entry (postcard); absent in a state that has not been told any |
//! | meta | `h` | the horizon of the request table: u64 |
//! | meta | `r`, client u64, sequence u64 | floor u64, version u64, outcome u8, actual version u64 (or zero) |
//!
//! Outcomes: 0 applied, 1 not found, 2 mismatch.

use bytes::{Buf, Bytes, BytesMut};
use fjall::Slice;
use quorumkv_protocol::entry::Outcome;
use quorumkv_protocol::membership::Configuration;
use quorumkv_protocol::{ClientId, EntryId, Epoch, NodeId, RequestId, Version, frame};
use quorumkv_replica::requests::Row;

use super::Record;

/// Version of the format.
pub(super) const VERSION: u32 = 2;

/// Key of the last applied entry, the first in its keyspace.
pub(super) const APPLIED: &[u8] = b"a";

/// Key of the configuration.
pub(super) const CONFIGURATION: &[u8] = b"c";

/// Key of the request table's horizon.
pub(super) const HORIZON: &[u8] = b"h";

/// First byte of the keys of request results.
const REQUEST: u8 = b'r';

const NUMBER: usize = size_of::<u64>();
const ID_LENGTH: usize = 3 * NUMBER;
const ROW_LENGTH: usize = 3 * NUMBER + 1;

/// Bytes that are not in the format; the text says which.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} is not in the format")]
pub struct Malformed(pub(super) &'static str);

/// A row of the keyspace `meta`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum MetaRow {
    Configuration(Configuration),
    Horizon(Version),
    Result(Row),
}

impl MetaRow {
    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Self, Malformed> {
        if key == CONFIGURATION {
            let configuration = frame::decode::<Configuration>(value).ok();
            return configuration
                .filter(Configuration::is_sound)
                .map(Self::Configuration)
                .ok_or(Malformed("a configuration"));
        }
        if key == HORIZON {
            let horizon = <[u8; NUMBER]>::try_from(value).map_err(|_| Malformed("a horizon"))?;
            return Ok(Self::Horizon(Version::new(u64::from_be_bytes(horizon))));
        }
        decode_row(key, value).map(Self::Result).ok_or(Malformed("a request's result"))
    }
}

fn decode_row(key: &[u8], value: &[u8]) -> Option<Row> {
    let (tag, mut key) = key.split_first()?;
    if *tag != REQUEST || key.len() != 2 * NUMBER || value.len() != ROW_LENGTH {
        return None;
    }
    let request = RequestId { client: ClientId::new(take(&mut key)?), sequence: take(&mut key)? };
    let mut value = value;
    let (floor, version) = (take(&mut value)?, Version::new(take(&mut value)?));
    let (tag, mut value) = value.split_first()?;
    let outcome = match (*tag, take(&mut value)?) {
        (0, 0) => Outcome::Applied,
        (1, 0) => Outcome::NotFound,
        (2, actual) => Outcome::Mismatch { actual: Version::new(actual) },
        _ => return None,
    };
    Some(Row { request, floor, version, outcome })
}

pub(super) fn request_key(request: RequestId) -> Slice {
    let mut key = Vec::with_capacity(1 + 2 * NUMBER);
    key.push(REQUEST);
    key.extend(request.client.get().to_be_bytes());
    key.extend(request.sequence.to_be_bytes());
    key.into()
}

pub(super) fn row_value(row: &Row) -> Slice {
    let (tag, actual) = match row.outcome {
        Outcome::Applied => (0, Version::ZERO),
        Outcome::NotFound => (1, Version::ZERO),
        Outcome::Mismatch { actual } => (2, actual),
    };
    let mut value = Vec::with_capacity(ROW_LENGTH);
    value.extend(row.floor.to_be_bytes());
    value.extend(row.version.get().to_be_bytes());
    value.push(tag);
    value.extend(actual.get().to_be_bytes());
    value.into()
}

pub(super) fn horizon_value(horizon: Version) -> Slice {
    horizon.get().to_be_bytes().into()
}

pub(super) fn configuration_value(configuration: &Configuration) -> Slice {
    let mut value = BytesMut::new();
    frame::encode_body(configuration, &mut value);
    Slice::new(&value)
}

pub(super) fn id_value(id: EntryId) -> Slice {
    id_bytes(id).into()
}

pub(super) fn decode_id(value: &[u8]) -> Result<EntryId, Malformed> {
    split_id(value).filter(|(_, rest)| rest.is_empty()).map(|(id, _)| id).ok_or(Malformed("an entry's id"))
}

/// A record as it is stored: the value is copied, so that the database never holds on to the frame that it came in.
pub(super) fn record_value(id: EntryId, value: &[u8]) -> Slice {
    let id = id_bytes(id);
    let mut record = Buf::chain(id.as_slice(), value).reader();
    Slice::from_reader(&mut record, ID_LENGTH + value.len()).expect("memory is always read")
}

fn id_bytes(id: EntryId) -> [u8; ID_LENGTH] {
    let numbers = [id.epoch.counter(), id.epoch.node().get(), id.version.get()];
    let mut bytes = [0; ID_LENGTH];
    for (bytes, number) in bytes.chunks_exact_mut(NUMBER).zip(numbers) {
        bytes.copy_from_slice(&number.to_be_bytes());
    }
    bytes
}

/// The record in stored bytes, which it shares.
pub(super) fn decode_record(mut stored: Bytes) -> Result<Record, Malformed> {
    let (id, _) = split_id(&stored).ok_or(Malformed("a record"))?;
    stored.advance(ID_LENGTH);
    Ok(Record::new(id, stored))
}

fn split_id(mut bytes: &[u8]) -> Option<(EntryId, &[u8])> {
    let epoch = Epoch::new(take(&mut bytes)?, NodeId::new(take(&mut bytes)?));
    let version = Version::new(take(&mut bytes)?);
    Some((EntryId::new(epoch, version), bytes))
}

/// Takes a number from the front; `None` if there are too few bytes.
fn take(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk::<NUMBER>()?;
    *bytes = rest;
    Some(u64::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use quorumkv_protocol::membership::Member;

    use super::*;

    #[test]
    fn the_format_is_stable() {
        let id = EntryId::new(Epoch::new(1, NodeId::new(2)), Version::new(3));
        let bytes = b"\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03value";
        assert_eq!(record_value(id, b"value"), bytes);
        let record = decode_record(Bytes::from_static(bytes)).expect("a record");
        assert_eq!(record, Record::new(id, Bytes::from_static(b"value")));
        assert_eq!(decode_id(&id_value(id)), Ok(id));

        let request = RequestId { client: ClientId::new(4), sequence: 5 };
        let row = |outcome| Row { request, floor: 6, version: Version::new(7), outcome };
        let mismatch = row(Outcome::Mismatch { actual: Version::new(8) });
        assert_eq!(request_key(request), b"r\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x05");
        assert_eq!(row_value(&mismatch), b"\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\x07\x02\0\0\0\0\0\0\0\x08");
        for row in [row(Outcome::Applied), row(Outcome::NotFound), mismatch] {
            let decoded = MetaRow::decode(&request_key(request), &row_value(&row));
            assert_eq!(decoded, Ok(MetaRow::Result(row)));
        }
        let member = Member { node: NodeId::new(1), address: "n:1".to_owned() };
        let configuration = Configuration { id, ..Configuration::first(vec![member]) };
        let bytes = b"\x01\x02\x03\x01\x01\x03n:1\0\0";
        assert_eq!(configuration_value(&configuration), bytes);
        let row = MetaRow::decode(CONFIGURATION, bytes);
        assert_eq!(row, Ok(MetaRow::Configuration(configuration)));
        let horizon = Version::new(9);
        assert_eq!(MetaRow::decode(HORIZON, &horizon_value(horizon)), Ok(MetaRow::Horizon(horizon)));
    }

    #[test]
    fn other_bytes_are_refused() {
        let id = EntryId::new(Epoch::new(1, NodeId::new(2)), Version::new(3));
        assert!(decode_id(&record_value(id, b"x")).is_err());
        assert!(decode_record(Bytes::from_static(&[0; ID_LENGTH - 1])).is_err());
        let key = request_key(RequestId { client: ClientId::new(4), sequence: 5 });
        let good = [0; ROW_LENGTH];
        assert!(MetaRow::decode(&key, &good).is_ok());
        let mut unknown_outcome = good;
        unknown_outcome[2 * NUMBER] = 3;
        let mut actual_without_mismatch = good;
        actual_without_mismatch[ROW_LENGTH - 1] = 1;
        for bad in [&good[1..], &unknown_outcome, &actual_without_mismatch, &[]] {
            assert!(MetaRow::decode(&key, bad).is_err(), "{bad:?}");
        }
        for bad_key in [&key[1..], &key[..key.len() - 1], b"", APPLIED, b"x"] {
            assert!(MetaRow::decode(bad_key, &good).is_err(), "{bad_key:?}");
        }
        assert!(MetaRow::decode(HORIZON, b"short").is_err());
        let nobody_votes = configuration_value(&Configuration::UNKNOWN);
        for bad in [&nobody_votes[..], b"\x01\x02\x03\x01\x01\x03n:1\0\0\0", b""] {
            assert!(MetaRow::decode(CONFIGURATION, bad).is_err(), "{bad:?}");
        }
    }
}
