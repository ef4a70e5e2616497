//! Arbitrary streams in arbitrary pieces.

use quorumkv_fuzzing::{Case, fuzz, peak_of};

use super::*;

/// The packets in a stream that comes in pieces as long as `pieces` says, over and over; and what is left, or the length that
/// makes no sense.
fn take_out(stream: &[u8], pieces: &[u8]) -> (Vec<Bytes>, Result<usize, [u8; 4]>) {
    let (mut decoder, mut frames, mut rest) = (Decoder::default(), Vec::new(), stream);
    let mut lengths = pieces.iter().cycle();
    let mut ended = Ok(());
    while !rest.is_empty() && ended.is_ok() {
        let length = lengths.next().map_or(rest.len(), |&length| usize::from(length).max(1));
        let (piece, later) = rest.split_at(length.min(rest.len()));
        rest = later;
        ended = decoder.feed(piece, &mut frames);
        assert!(decoder.wanted() <= u32::MAX as usize);
    }
    // As the reading half does after whole packets.
    match ended.and_then(|()| complete(&decoder.rest)) {
        Ok(end) => {
            assert_eq!(end, 0, "a whole packet was left");
            (frames, Ok(decoder.rest.len()))
        }
        Err(ConnectionError::Length(header)) => (frames, Err(header)),
        Err(other) => panic!("nothing else can be wrong with bytes: {other}"),
    }
}

/// The first byte says how many of those after it are lengths of pieces.
#[test]
fn packets_in_pieces() {
    let packet =
        |content: &[u8]| [&u32::try_from(content.len()).expect("short").to_be_bytes()[..], content].concat();
    let samples = vec![
        [&[3, 1, 7, 30][..], &packet(b"one"), &packet(b""), &packet(&[9; 40])].concat(),
        [&[1, 5][..], &packet(b"whole"), b"ruok"].concat(),
        b"\0srvr".to_vec(),
        [&[0][..], &MAX_PACKET.to_be_bytes(), b"x"].concat(),
    ];
    fuzz!(samples, |case: &mut Case| {
        let (count, rest) = case.bytes.split_first().unwrap_or((&0, &[]));
        let (pieces, stream) = rest.split_at(usize::from(*count % 8).min(rest.len()));
        let ((frames, end), taken) = peak_of(|| take_out(stream, pieces));
        assert!(taken <= 32 * stream.len() + 1024, "{} bytes took {taken}", stream.len());
        assert_eq!((&frames, &end), (&take_out(stream, &[]).0, &take_out(stream, &[]).1), "pieces matter");
        let again: Vec<u8> = frames.iter().flat_map(|frame| packet(frame)).collect();
        assert!(stream.starts_with(&again), "what was taken out is not what came in");
        match end {
            Ok(left) => assert_eq!(again.len() + left, stream.len()),
            Err(header) => {
                assert!(
                    stream[again.len()..].starts_with(&header) && u32::from_be_bytes(header) > MAX_PACKET
                );
            }
        }
    });
}
