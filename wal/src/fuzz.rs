//! Arbitrary bytes into the decoders of the format.

use quorumkv_fuzzing::{Case, Counting, fuzz, peak_of};

use crate::format::{
    BadHeader, FoundRecord, LogId, Place, RECORD_HEADER, SEGMENT_HEADER, SegmentHeader, decode_record,
    encode_record,
};
use crate::record::{Change, Epoch, Mark, Record};
use crate::segment::{parse_name, segment_path};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const POSITION: u64 = 4096;
const EPOCH: Epoch = Epoch { counter: 3, node: 9 };
const MARK: Mark = Mark { epoch: EPOCH, version: 12 };

/// What was written, from what was read.
fn written(found: &FoundRecord, payload: &[u8]) -> Record {
    match found.change {
        Change::Entry(mark) => Record::Entry { mark, payload: payload.to_vec().into() },
        Change::Promise(epoch) => Record::Promise { epoch },
        Change::Base(mark) => Record::Base { mark },
        Change::Truncate(to) => Record::Truncate { to },
    }
}

/// With an odd flavour, the checksum is made right again after the damage.
#[test]
fn record() {
    let log = LogId::new(0x0123_4567_89ab_cdef);
    let place = Place { position: POSITION, previous: 0xdead_beef, synced: 4000 };
    let records = [
        Record::Entry { mark: MARK, payload: "hello, world".into() },
        Record::Entry { mark: MARK, payload: vec![7; 64].into() },
        Record::Entry { mark: MARK, payload: "".into() },
        Record::Promise { epoch: EPOCH },
        Record::Base { mark: MARK },
        Record::Truncate { to: MARK },
    ];
    let encoded = |record: &Record| {
        let mut bytes = Vec::new();
        encode_record(&mut bytes, log, place, record);
        bytes
    };
    fuzz!(records.iter().map(encoded).collect(), move |case: &mut Case| {
        if case.flavour % 2 == 1 {
            log.seal_record(&mut case.bytes, POSITION);
        }
        let (found, taken) = peak_of(|| decode_record(&case.bytes, log, POSITION));
        assert_eq!(taken, 0, "nothing needs memory");
        let Some(found) = found else { return };
        let mut again = Vec::new();
        let place = Place { position: POSITION, previous: found.previous, synced: found.synced };
        let payload = &case.bytes[found.payload.clone()];
        assert_eq!(encode_record(&mut again, log, place, &written(&found, payload)), found.checksum);
        assert_eq!(again, case.bytes[..found.size], "accepted a form that is not written");
    });
}

/// The case is what stands before the zeros of a header, and what after its checksum; with an odd flavour the checksum is made
/// right.
#[test]
fn segment_header() {
    let header = |promise, last| SegmentHeader {
        log: LogId::new(7),
        sequence: 4,
        start: 1 << 20,
        size: 1 << 20,
        previous: 77,
        promise,
        last,
    };
    let encoded = |header: SegmentHeader| header.encode()[..96].to_vec();
    let samples = [header(Some(EPOCH), MARK), header(None, Mark::ZERO)].map(encoded).to_vec();
    fuzz!(samples, |case: &mut Case| {
        let mut bytes = case.bytes.clone();
        bytes.resize(SEGMENT_HEADER.max(bytes.len()), 0);
        if case.flavour % 2 == 1 {
            let checksum = crc32c::crc32c(&bytes[..SEGMENT_HEADER - 4]);
            bytes[SEGMENT_HEADER - 4..SEGMENT_HEADER].copy_from_slice(&checksum.to_le_bytes());
        }
        match SegmentHeader::decode(&bytes) {
            Ok(header) => {
                assert_eq!(header.encode(), bytes, "accepted a form that is not written");
                header.start.checked_add(header.size).expect("positions in the segment are numbers");
            }
            Err(BadHeader::Format(format)) => assert_ne!(format, 1),
            Err(BadHeader::Unreadable) => {}
        }
    });
}

#[test]
fn segment_name() {
    let samples = ["000000000000001f.wal", "spare.tmp", "ffffffffffffffff.wal"];
    fuzz!(samples.map(|name| name.as_bytes().to_vec()).to_vec(), |case: &mut Case| {
        let Ok(name) = std::str::from_utf8(&case.bytes) else { return };
        if let Some(sequence) = parse_name(name) {
            assert_eq!(segment_path("".as_ref(), sequence).to_str(), Some(name));
        }
    });
}

/// A record's header is read before it is known to be one.
#[test]
fn too_short_for_a_record() {
    for length in 0..RECORD_HEADER {
        assert_eq!(decode_record(&vec![1; length], LogId::new(1), POSITION), None);
    }
}
