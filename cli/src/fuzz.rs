//! Arbitrary bytes into what is imported, and into the notes of how far an import has come.

use quorumkv_fuzzing::{Case, fuzz};

use crate::checkpoint::Mark;
use crate::output::{printable, to_json};
use crate::records::{Lines, format};

fn texts(samples: &[&str]) -> Vec<Vec<u8>> {
    samples.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Every line is accounted for, and what is understood comes back from its own line.
#[test]
fn import_lines() {
    let samples = texts(&[
        "{\"key\":\"a\",\"value\":\"1\"}\n\n{\"key\":\"b\",\"value\":\"\",\"version\":\"9\"}",
        "{\"key_base64\":\"aw==\",\"value_base64\":\"/v8=\"}\r\n",
        "{\"value\":\"gr\\u00fcn\\n\\\"\\\\\",\"key\":\"\\ud83d\\ude00\",\"version\":{\"a\":[1,2.5e3,null]}}",
    ]);
    fuzz!(samples, |case: &mut Case| {
        let mut lines = Lines::new(&case.bytes[..]);
        let (mut number, mut end) = (0, 0);
        while let Some(line) = lines.next().expect("memory can be read") {
            number += 1;
            assert_eq!(line.number, number);
            let bytes = &case.bytes[end..usize::try_from(line.end).expect("small")];
            end += bytes.len();
            assert_eq!(line.complete, bytes.ends_with(b"\n"));
            assert_eq!(line.checksum, crc32c::crc32c(&case.bytes[..end]));
            let Ok(Some(record)) = line.record else { continue };
            assert!(!record.key.is_empty() && record.key.len() + record.value.len() <= bytes.len());
            let written = format(&record.key, &record.value);
            let again = Lines::new(written.as_bytes()).next().expect("read").expect("a line").record;
            assert_eq!(again, Ok(Some(record)));
        }
        assert_eq!(end, case.bytes.len());
    });
}

#[test]
fn checkpoint() {
    let mark = Mark { cluster: "c".to_owned(), lines: 3, crc32c: 5 };
    fuzz!(texts(&[&to_json(&mark)]), |case: &mut Case| {
        if let Ok(mark) = serde_json::from_slice::<Mark>(&case.bytes) {
            assert_eq!(serde_json::from_str::<Mark>(&to_json(&mark)).ok(), Some(mark));
        }
    });
}

/// What is shown to people stays on its line, and does nothing to a terminal.
#[test]
fn bytes_as_text() {
    fuzz!(texts(&["gr\u{fc}n\n\"\\\0", "\u{1b}[2J", "\u{9b}"]), |case: &mut Case| {
        assert!(!printable(&case.bytes).contains(char::is_control));
    });
}
