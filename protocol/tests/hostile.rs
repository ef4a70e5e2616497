//! Bytes that no honest side sends: each is an error, found early and at little cost.

mod samples;

use bytes::{BufMut, BytesMut};
use quorumkv_protocol::client::{Request, RequestEnvelope, Response, ResponseEnvelope};
use quorumkv_protocol::entry::{Effect, MAX_EFFECTS};
use quorumkv_protocol::frame::{self, CLIENT_FRAME_LIMIT, FrameDecoder, FrameError};
use quorumkv_protocol::hello::{Hello, HelloReply};
use quorumkv_protocol::peer::{MAX_ENTRIES, MAX_KEYS, PeerEnvelope, PeerMessage};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn body<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    frame::encode_body(message, &mut bytes);
    bytes.to_vec()
}

fn assert_malformed<T: DeserializeOwned + Serialize + std::fmt::Debug>(bytes: &[u8]) {
    let result = frame::decode::<T>(bytes);
    assert!(matches!(result, Err(FrameError::Malformed(_))), "{bytes:02x?} came to {result:?}");
}

/// The number in postcard's form: seven bits a byte, the lowest first.
fn varint(number: u64) -> Vec<u8> {
    body(&number)
}

/// Cuts the message at every byte, and adds one.
fn assert_only_itself<T: Serialize + DeserializeOwned + std::fmt::Debug>(message: &T) {
    let whole = body(message);
    for length in 0..whole.len() {
        assert!(frame::decode::<T>(&whole[..length]).is_err(), "{message:?} cut to {length}");
    }
    for extra in [0, 1, 0xff] {
        let long = [whole.as_slice(), &[extra]].concat();
        let expected = FrameError::NotCanonical { length: long.len(), canonical: whole.len() };
        assert_eq!(frame::decode::<T>(&long).unwrap_err(), expected);
    }
}

#[test]
fn messages_cut_at_every_byte_or_with_a_byte_too_many_are_refused() {
    samples::roles().into_iter().map(samples::hello).for_each(|hello| assert_only_itself(&hello));
    samples::hello_replies().iter().for_each(assert_only_itself);
    samples::peer_messages()
        .into_iter()
        .for_each(|body| assert_only_itself(&PeerEnvelope { correlation: 5, body }));
    for body in samples::requests() {
        assert_only_itself(&RequestEnvelope { correlation: 5, timeout_ms: 1, body });
    }
    for body in samples::responses() {
        assert_only_itself(&ResponseEnvelope { correlation: 5, body });
    }
}

#[test]
fn numbers_in_a_longer_form_than_theirs_are_refused() {
    let envelope = RequestEnvelope { correlation: 5, timeout_ms: 1, body: Request::Status };
    assert_eq!(body(&envelope), [5, 1, 3]);
    for overlong in [&[0x85, 0x00, 1, 3][..], &[5, 0x81, 0x80, 0x00, 3], &[5, 1, 0x83, 0x00]] {
        let expected = FrameError::NotCanonical { length: overlong.len(), canonical: 3 };
        assert_eq!(frame::decode::<RequestEnvelope>(overlong).unwrap_err(), expected);
    }
    // Eleven bytes, and ten with a bit beyond the 64th, are no number at all.
    assert_malformed::<RequestEnvelope>(&[&[0x80; 10][..], &[0, 1, 3]].concat());
    assert_malformed::<RequestEnvelope>(&[&[0xff; 9][..], &[0x02, 1, 3]].concat());
}

#[test]
fn unknown_variants_are_refused() {
    assert_malformed::<RequestEnvelope>(&[5, 1, 8]);
    assert_malformed::<ResponseEnvelope>(&[5, 10]);
    assert_malformed::<PeerEnvelope>(&[5, 10]);
    assert_malformed::<HelloReply>(&[2]);
    // An option and a truth value have two forms each.
    assert_malformed::<RequestEnvelope>(&[5, 1, 1, 0, 0, 2]);
    assert_malformed::<RequestEnvelope>(&[5, 1, 2, 0, 2, 0, 0]);
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let mut refused = body(&samples::hello_replies().pop().unwrap());
    *refused.last_mut().unwrap() = 0xff;
    assert_malformed::<HelloReply>(&refused);
    let mut hello = body(&Hello::new(None, samples::roles().remove(0)));
    let name = hello.windows(2).position(|pair| pair == "ö".as_bytes()).unwrap();
    hello[name] = 0xff;
    assert_malformed::<Hello>(&hello);
}

#[test]
fn lengths_that_lie_are_refused() {
    for length in [1, 127, 1 << 20, u64::from(u32::MAX), u64::MAX] {
        // A Get whose key claims more bytes than there are.
        assert_malformed::<RequestEnvelope>(&[&[5, 1, 1][..], &varint(length)].concat());
        // A sample with more keys than there are, and an append with more entries.
        let sample = [&[5, 4, 0, 0, 0, 0][..], &varint(length)].concat();
        assert_malformed::<PeerEnvelope>(&sample);
        let append = [&[5, 0, 1, 0, 0, 0, 0, 0][..], &varint(length)].concat();
        assert_malformed::<PeerEnvelope>(&append);
    }
}

#[test]
fn sequences_over_their_bound_are_refused_and_full_ones_are_not() {
    let sample = |keys: usize| {
        let header = [&[5, 4, 0, 0, 0, 0][..], &varint(keys as u64)].concat();
        [header, vec![0; 2 * keys]].concat()
    };
    let PeerMessage::ReadSample(full) = frame::decode::<PeerEnvelope>(&sample(MAX_KEYS)).unwrap().body else {
        panic!("the bytes are those of a sample");
    };
    assert_eq!(full.keys.len(), MAX_KEYS);
    assert_malformed::<PeerEnvelope>(&sample(MAX_KEYS + 1));

    let append = |entries: usize| {
        let header = [&[5, 0, 1, 0, 0, 0, 0, 0][..], &varint(entries as u64)].concat();
        [header, vec![0; 4 * entries], vec![0]].concat()
    };
    assert!(frame::decode::<PeerEnvelope>(&append(MAX_ENTRIES)).is_ok());
    assert_malformed::<PeerEnvelope>(&append(MAX_ENTRIES + 1));
}

#[test]
fn small_elements_that_grow_in_memory_exhaust_the_budget() {
    // Each entry of this append is a few hundred bytes on the wire and MAX_EFFECTS effects in memory.
    let delete_nothing = body(&Effect::Delete { key: bytes::Bytes::new() });
    assert_eq!(delete_nothing.len(), 2);
    let entry =
        [&[0, 0, 0, 1, 0, 0, 0][..], &varint(MAX_EFFECTS as u64), &delete_nothing.repeat(MAX_EFFECTS), &[0]]
            .concat();
    let append = |entries: usize| {
        let header = [&[5, 0, 1, 0, 0, 0, 0, 0][..], &varint(entries as u64)].concat();
        [header, entry.repeat(entries), vec![0]].concat()
    };
    assert!(frame::decode::<PeerEnvelope>(&append(100)).is_ok());
    assert_malformed::<PeerEnvelope>(&append(MAX_ENTRIES));
    // The next frame starts with a budget of its own.
    assert!(frame::decode::<PeerEnvelope>(&append(100)).is_ok());
}

#[test]
fn a_frame_over_the_limit_is_refused_by_its_header_alone() {
    let decoder = FrameDecoder::new(CLIENT_FRAME_LIMIT);
    let mut stream = BytesMut::new();
    stream.put_u32(CLIENT_FRAME_LIMIT + 1);
    let before = stream.capacity();
    let expected = FrameError::TooLong { length: CLIENT_FRAME_LIMIT + 1, limit: CLIENT_FRAME_LIMIT };
    assert_eq!(decoder.decode(&mut stream), Err(expected));
    assert_eq!(stream.capacity(), before, "nothing is reserved for a frame that is refused");
}

#[test]
fn nothing_is_reserved_for_a_frame_that_is_only_announced() {
    let decoder = FrameDecoder::new(CLIENT_FRAME_LIMIT);
    let mut stream = BytesMut::new();
    stream.put_u32(CLIENT_FRAME_LIMIT);
    let before = stream.capacity();
    assert_eq!(decoder.decode(&mut stream), Ok(None));
    assert_eq!(stream.capacity(), before);
}

#[test]
fn a_new_limit_holds_from_the_next_frame_on() {
    let mut decoder = FrameDecoder::new(4);
    let mut stream = BytesMut::from(&[0, 0, 0, 5, 1, 2, 3, 4, 5][..]);
    assert!(decoder.decode(&mut stream).is_err());
    decoder.set_limit(5);
    assert_eq!(decoder.decode(&mut stream).unwrap().unwrap(), [1, 2, 3, 4, 5][..]);
}

#[test]
fn an_answer_may_not_be_read_as_a_request() {
    let answer = body(&ResponseEnvelope { correlation: 5, body: Response::Stopping });
    assert!(frame::decode::<RequestEnvelope>(&answer).is_err());
}
