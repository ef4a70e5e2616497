//! Every message comes back as it was sent, whole or in pieces, and nothing close to it is taken for it.

mod strategies;

use std::fmt::Debug;

use bytes::BytesMut;
use proptest::prelude::*;
use proptest::sample::Index;
use quorumkv_protocol::frame::{self, FrameDecoder, FrameError, PEER_FRAME_LIMIT};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Sends `message` through frames cut at `cut`, and checks that its neighbours in the space of bytes are refused.
fn check<T>(message: &T, cut: Index) -> Result<(), TestCaseError>
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let mut stream = BytesMut::new();
    frame::encode(message, &mut stream);
    prop_assert_eq!(stream.len(), frame::HEADER_LENGTH + frame::encoded_length(message));

    let cut = cut.index(stream.len());
    let decoder = FrameDecoder::new(PEER_FRAME_LIMIT);
    let mut received = BytesMut::from(&stream[..cut]);
    prop_assert_eq!(decoder.decode(&mut received), Ok(None));
    received.extend_from_slice(&stream[cut..]);
    let body = decoder.decode(&mut received).unwrap().unwrap();
    prop_assert!(received.is_empty());
    prop_assert_eq!(&frame::decode::<T>(&body).unwrap(), message);

    let short = &body[..cut.min(body.len() - 1)];
    prop_assert!(frame::decode::<T>(short).is_err(), "an end too soon was taken");
    let mut long = body.to_vec();
    long.push(0);
    let expected = FrameError::NotCanonical { length: long.len(), canonical: body.len() };
    prop_assert_eq!(frame::decode::<T>(&long).unwrap_err(), expected);
    Ok(())
}

proptest! {
    #[test]
    fn hello_comes_back(message in strategies::hello(), cut: Index) {
        check(&message, cut)?;
    }

    #[test]
    fn a_reply_to_hello_comes_back(message in strategies::hello_reply(), cut: Index) {
        check(&message, cut)?;
    }

    #[test]
    fn a_request_comes_back(message in strategies::request_envelope(), cut: Index) {
        check(&message, cut)?;
    }

    #[test]
    fn a_response_comes_back(message in strategies::response_envelope(), cut: Index) {
        check(&message, cut)?;
    }

    #[test]
    fn a_peer_message_comes_back(message in strategies::peer_envelope(), cut: Index) {
        check(&message, cut)?;
    }

    #[test]
    fn an_entry_comes_back(message in strategies::entry(), cut: Index) {
        check(&message, cut)?;
    }

    #[test]
    fn a_change_of_the_members_comes_back(message in strategies::change_request(), cut: Index) {
        check(&message, cut)?;
    }

    #[test]
    fn a_refusal_comes_back(message in strategies::refusal(), cut: Index) {
        check(&message, cut)?;
    }

    #[test]
    fn a_configuration_comes_back(message in strategies::configuration(), cut: Index) {
        check(&message, cut)?;
    }
}
