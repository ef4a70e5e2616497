//! Arbitrary text into `dev.json`.

use quorumkv_fuzzing::{Case, fuzz, peak_of};

use super::home::parse;
use crate::fuzz::texts;

#[test]
fn shape_file() {
    let samples = texts(&[
        r#"{"format":1,"id":"0123abcd","nodes":3,"base_port":5000}"#,
        r#"{"format":1,"id":"f","nodes":64,"base_port":65535}"#,
    ]);
    fuzz!(samples, |case: &mut Case| {
        let Ok(text) = std::str::from_utf8(&case.bytes) else { return };
        let (parsed, taken) = peak_of(|| parse(text));
        assert!(taken <= 16 * text.len() + (16 << 10), "{} bytes took {taken}", text.len());
        let Ok((shape, id)) = parsed else { return };
        let written =
            format!(r#"{{"format":1,"id":"{id}","nodes":{},"base_port":{}}}"#, shape.nodes, shape.base_port);
        assert_eq!(parse(&written), Ok((shape, id)));
    });
}
