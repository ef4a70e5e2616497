//! Arbitrary bytes into every decoder: no panic, and no more memory than the frame's budget.
//!
//! Runs as an ordinary test with random inputs, and under a coverage-guided engine with
//! `cargo bolero test -p quorumkv-protocol any_bytes_in_any_pieces`.

#![allow(unsafe_code, reason = "a global allocator that counts is unsafe to implement")]

mod samples;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::BytesMut;
use quorumkv_protocol::client::{RequestEnvelope, ResponseEnvelope};
use quorumkv_protocol::entry::Entry;
use quorumkv_protocol::frame::{self, FrameDecoder};
use quorumkv_protocol::hello::{Hello, HelloReply};
use quorumkv_protocol::membership::{ChangeRequest, Configuration, Refusal};
use quorumkv_protocol::peer::PeerEnvelope;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Counts what the current thread holds, and the most that it held.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    HELD.set(HELD.get() + change);
    PEAK.set(PEAK.get().max(HELD.get()));
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: all requests go to the system's allocator unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: as above; `pointer` came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The most bytes that decoding a frame may take: the budget of its sequences, twice because vectors double, and a
/// copy of its texts and values.
fn allowance(frame: usize) -> usize {
    2 * ((8 << 20) + 4 * frame) + frame + (64 << 10)
}

/// Decodes as a `T`. What is accepted must be the only form of its message.
fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let before = HELD.get();
    PEAK.set(before);
    let result = frame::decode::<T>(bytes);
    let taken = (PEAK.get() - before).unsigned_abs();
    assert!(taken <= allowance(bytes.len()), "{} bytes took {taken} to decode", bytes.len());
    if let Ok(message) = result {
        let mut again = BytesMut::new();
        frame::encode_body(&message, &mut again);
        assert_eq!(again, bytes, "accepted a form that is not canonical");
    }
}

fn decode_as_everything(bytes: &[u8]) {
    decode::<Hello>(bytes);
    decode::<HelloReply>(bytes);
    decode::<RequestEnvelope>(bytes);
    decode::<ResponseEnvelope>(bytes);
    decode::<PeerEnvelope>(bytes);
    decode::<Entry>(bytes);
    decode::<Configuration>(bytes);
    decode::<ChangeRequest>(bytes);
    decode::<Refusal>(bytes);
}

/// Feeds `stream` to a frame decoder in pieces as long as `pieces` says, over and over.
fn feed(stream: &[u8], pieces: &[u8]) {
    let decoder = FrameDecoder::new(1 << 10);
    let mut buffer = BytesMut::new();
    let mut rest = stream;
    let mut lengths = pieces.iter().cycle();
    while !rest.is_empty() {
        let length = lengths.next().map_or(rest.len(), |&length| usize::from(length).max(1));
        let (piece, later) = rest.split_at(length.min(rest.len()));
        buffer.extend_from_slice(piece);
        rest = later;
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(body)) => {
                    assert!(body.len() <= 1 << 10);
                    decode_as_everything(&body);
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(buffer.len() < frame::HEADER_LENGTH + (1 << 10), "a whole frame was left in the buffer");
    }
}

#[test]
fn any_bytes_in_any_pieces() {
    bolero::check!().with_type::<(Vec<u8>, Vec<u8>)>().for_each(|(bytes, pieces)| {
        decode_as_everything(bytes);
        feed(bytes, pieces);
    });
}

/// Random bytes seldom get past the first variant; damaged messages get everywhere.
#[test]
fn messages_damaged_anywhere() {
    let mut bodies = Vec::new();
    let mut keep = |body: BytesMut| bodies.push(body.to_vec());
    for body in samples::requests() {
        keep(encoded(&RequestEnvelope { correlation: 1, timeout_ms: 1, body }));
    }
    for body in samples::responses() {
        keep(encoded(&ResponseEnvelope { correlation: 1, body }));
    }
    for body in samples::peer_messages() {
        keep(encoded(&PeerEnvelope { correlation: 1, body }));
    }
    bolero::check!().with_type::<(usize, Vec<(usize, u8)>)>().for_each(|(which, damage)| {
        let mut bytes = bodies[which % bodies.len()].clone();
        for (place, value) in damage.iter().take(4) {
            let place = place % bytes.len();
            bytes[place] = *value;
        }
        decode_as_everything(&bytes);
    });
}

fn encoded<T: Serialize>(message: &T) -> BytesMut {
    let mut body = BytesMut::new();
    frame::encode_body(message, &mut body);
    body
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
