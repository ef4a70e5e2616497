//! Arbitrary bytes into every decoder: no panic, and no more memory than the frame's budget. Random bytes seldom get past the
//! first variant; damaged messages get everywhere.

mod samples;

use std::fmt::{Debug, Display};
use std::str::FromStr;

use bytes::{Bytes, BytesMut};
use quorumkv_fuzzing::{Case, Counting, fuzz, peak_of};
use quorumkv_protocol::client::{RequestEnvelope, ResponseEnvelope};
use quorumkv_protocol::entry::{Body, Entry};
use quorumkv_protocol::frame::{self, FrameDecoder, FrameError};
use quorumkv_protocol::hello::{Hello, HelloReply};
use quorumkv_protocol::membership::{ChangeRequest, Configuration, Refusal};
use quorumkv_protocol::peer::PeerEnvelope;
use quorumkv_protocol::{ClientId, ClusterId, NodeId};
use serde::Serialize;
use serde::de::DeserializeOwned;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The longest frame that the decoder of streams is to take.
const LIMIT: u32 = 1 << 10;

/// The most bytes that decoding a frame may take: the budget of its sequences, twice because vectors double, and a
/// copy of its texts and values.
fn allowance(frame: usize) -> usize {
    2 * ((8 << 20) + 4 * frame) + frame + (64 << 10)
}

/// Decodes as a `T`. What is accepted must be the only form of its message.
fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let (result, taken) = peak_of(|| frame::decode::<T>(bytes));
    assert!(taken <= allowance(bytes.len()), "{} bytes took {taken} to decode", bytes.len());
    if let Ok(message) = result {
        assert_eq!(encoded(&message), bytes, "accepted a form that is not canonical");
    }
}

fn decode_as_everything(bytes: &[u8]) {
    decode::<Hello>(bytes);
    decode::<HelloReply>(bytes);
    decode::<RequestEnvelope>(bytes);
    decode::<ResponseEnvelope>(bytes);
    decode::<PeerEnvelope>(bytes);
    decode::<Entry>(bytes);
    decode::<Body>(bytes);
    decode::<Configuration>(bytes);
    decode::<ChangeRequest>(bytes);
    decode::<Refusal>(bytes);
}

fn encoded<T: Serialize>(message: &T) -> Vec<u8> {
    let mut body = BytesMut::new();
    frame::encode_body(message, &mut body);
    body.to_vec()
}

fn all_encoded<T: Serialize>(messages: impl IntoIterator<Item = T>) -> Vec<Vec<u8>> {
    messages.into_iter().map(|message| encoded(&message)).collect()
}

fn requests() -> Vec<RequestEnvelope> {
    let envelope = |body| RequestEnvelope { correlation: 300, timeout_ms: 70_000, body };
    samples::requests().into_iter().map(envelope).collect()
}

#[test]
fn hello() {
    let samples = all_encoded(samples::roles().into_iter().map(samples::hello));
    fuzz!(samples, |case: &mut Case| decode::<Hello>(&case.bytes));
}

#[test]
fn hello_reply() {
    fuzz!(all_encoded(samples::hello_replies()), |case: &mut Case| decode::<HelloReply>(&case.bytes));
}

#[test]
fn request() {
    fuzz!(all_encoded(requests()), |case: &mut Case| decode::<RequestEnvelope>(&case.bytes));
}

#[test]
fn response() {
    let envelope = |body| ResponseEnvelope { correlation: 300, body };
    let samples = all_encoded(samples::responses().into_iter().map(envelope));
    fuzz!(samples, |case: &mut Case| decode::<ResponseEnvelope>(&case.bytes));
}

#[test]
fn peer_message() {
    let envelope = |body| PeerEnvelope { correlation: 300, body };
    let samples = all_encoded(samples::peer_messages().into_iter().map(envelope));
    fuzz!(samples, |case: &mut Case| decode::<PeerEnvelope>(&case.bytes));
}

#[test]
fn entry() {
    let id = samples::entry_id(300, 70_000);
    fuzz!(all_encoded(samples::bodies().into_iter().map(|body| Entry { id, body })), |case: &mut Case| {
        decode::<Entry>(&case.bytes);
    });
}

/// What an entry of the log holds: the log has its id.
#[test]
fn entry_body() {
    fuzz!(all_encoded(samples::bodies()), |case: &mut Case| decode::<Body>(&case.bytes));
}

#[test]
fn configuration() {
    fuzz!(vec![encoded(&samples::configuration())], |case: &mut Case| decode::<Configuration>(&case.bytes));
}

#[test]
fn change_of_members() {
    let samples = all_encoded(samples::changes().into_iter().map(samples::change_request));
    fuzz!(samples, |case: &mut Case| decode::<ChangeRequest>(&case.bytes));
}

#[test]
fn refusal() {
    fuzz!(all_encoded(samples::refusals()), |case: &mut Case| decode::<Refusal>(&case.bytes));
}

/// A message of one kind may be valid as one of another, but must be canonical there too.
#[test]
fn anything_as_everything() {
    let mut samples = all_encoded(requests());
    samples.extend(all_encoded(samples::responses()));
    samples.extend(all_encoded(samples::peer_messages()));
    samples.extend(all_encoded(samples::refusals()));
    fuzz!(samples, |case: &mut Case| decode_as_everything(&case.bytes));
}

/// The bodies in a stream that comes in pieces as long as `pieces` says, over and over; and how it ends.
fn cut(stream: &[u8], pieces: &[u8]) -> (Vec<Bytes>, Result<usize, FrameError>) {
    let decoder = FrameDecoder::new(LIMIT);
    let (mut buffer, mut bodies, mut rest) = (BytesMut::new(), Vec::new(), stream);
    let mut lengths = pieces.iter().cycle();
    while !rest.is_empty() {
        let length = lengths.next().map_or(rest.len(), |&length| usize::from(length).max(1));
        let (piece, later) = rest.split_at(length.min(rest.len()));
        buffer.extend_from_slice(piece);
        rest = later;
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(body)) => bodies.push(body),
                Ok(None) => break,
                Err(error) => return (bodies, Err(error)),
            }
        }
        assert!(buffer.len() < frame::HEADER_LENGTH + LIMIT as usize, "a whole frame was left in the buffer");
    }
    (bodies, Ok(buffer.len()))
}

/// The first byte says how many of those after it are lengths of pieces.
#[test]
fn frames_in_pieces() {
    let mut samples = Vec::new();
    for some in requests().chunks(3) {
        let mut stream = BytesMut::from(&[3, 1, 7, 30][..]);
        some.iter().for_each(|request| frame::encode(request, &mut stream));
        samples.push(stream.to_vec());
    }
    fuzz!(samples, |case: &mut Case| {
        let (count, rest) = case.bytes.split_first().unwrap_or((&0, &[]));
        let (pieces, stream) = rest.split_at(usize::from(*count % 8).min(rest.len()));
        let ((bodies, end), taken) = peak_of(|| cut(stream, pieces));
        assert!(taken <= 16 * stream.len() + (8 << 10), "{} bytes took {taken}", stream.len());
        let whole = cut(stream, &[]);
        assert_eq!((&bodies, &end), (&whole.0, &whole.1), "pieces matter");
        let mut again = BytesMut::new();
        for body in &bodies {
            assert!(body.len() <= LIMIT as usize);
            again.extend_from_slice(&u32::try_from(body.len()).expect("short").to_be_bytes());
            again.extend_from_slice(body);
        }
        assert!(stream.starts_with(&again), "what was cut out is not what came in");
        if let Ok(left) = end {
            assert_eq!(again.len() + left, stream.len());
        }
    });
}

/// Parses a text. What is accepted must come back from how it is written.
fn parse<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    if let Ok(id) = text.parse::<T>() {
        let written = id.to_string();
        assert_eq!(written.parse::<T>().ok().as_ref(), Some(&id), "{text:?} was written as {written:?}");
    }
}

#[test]
fn ids_as_text() {
    let samples = ["00000000000000ff", "ffffffffffffffff", "1a", "0123456789abcdef"];
    fuzz!(samples.map(|text| text.as_bytes().to_vec()).to_vec(), |case: &mut Case| {
        let Ok(text) = std::str::from_utf8(&case.bytes) else { return };
        parse::<NodeId>(text);
        parse::<ClusterId>(text);
        parse::<ClientId>(text);
    });
}

/// The costliest frames that can be made on purpose: every sequence full of its smallest element.
#[test]
fn frames_of_tiny_elements_stay_within_the_allowance() {
    let heads: [&[u8]; 5] = [
        // PeerEnvelope: ReadSample, its keys; ReadSampleReply, its keys; Vote::Write, its entries.
        &[5, 4, 0, 0, 0, 0, 0x80, 0x20],
        &[5, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x20],
        &[5, 0, 1, 0, 0, 0, 0, 0, 0x80, 0x80, 0x01],
        // ResponseEnvelope: Scanned, its items; Got, its witnesses.
        &[5, 2, 0x90, 0x4e],
        &[5, 1, 0, 0, 1, 0x80, 0x08],
    ];
    for head in heads {
        for length in [100, 10_000, 1 << 20] {
            let mut frame = head.to_vec();
            frame.resize(length, 0);
            decode_as_everything(&frame);
        }
    }
    // As many entries as there may be, each full of the shortest effects.
    let entry = [&[0, 0, 0, 1, 0, 0, 0, 0x80, 0x01][..], &[1, 0].repeat(128), &[0]].concat();
    decode_as_everything(&[heads[2], &entry.repeat(16_384), &[0]].concat());
    // As many as there may be, each with the smallest configuration.
    let entry = [0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];
    decode_as_everything(&[heads[2], &entry.repeat(16_384), &[0]].concat());
}
