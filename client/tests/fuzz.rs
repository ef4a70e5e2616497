//! Arbitrary text in place of the address of a node.

use quorumkv_client::Endpoint;
use quorumkv_fuzzing::{Case, Counting, fuzz, peak_of};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What is accepted is kept as it was written, and has a port that can be connected to.
#[test]
fn endpoint() {
    let samples = ["127.0.0.1:5000", "kv-1.example.org:1", "[::1]:65535", "kvd_kv1_1:05000"];
    fuzz!(samples.map(|text| text.as_bytes().to_vec()).to_vec(), |case: &mut Case| {
        let Ok(text) = std::str::from_utf8(&case.bytes) else { return };
        let (parsed, taken) = peak_of(|| text.parse::<Endpoint>());
        assert!(taken <= 4 * text.len() + 256, "{} bytes took {taken}", text.len());
        let Ok(endpoint) = parsed else { return };
        assert_eq!(endpoint.as_str(), text);
        let (_, port) = text.rsplit_once(':').expect("there is a port");
        assert!(port.parse::<u16>().is_ok_and(|port| port > 0));
    });
}
