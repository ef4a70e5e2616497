//! JSON lines: the format of import and export.

use std::borrow::Cow;
use std::io::{self, BufRead};

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::output::{from_base64, text_or_base64, to_json};

/// The longest line that is read: a value at its limit, with every byte escaped, and some more.
const MAX_LINE: u64 = 64 << 20;

/// A key with its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
}

/// A line of input.
#[derive(Debug)]
pub(crate) struct Line {
    /// Counted from 1.
    pub(crate) number: u64,
    /// Bytes from the beginning of the input to the end of this line.
    pub(crate) end: u64,
    /// CRC-32C of these bytes.
    pub(crate) checksum: u32,
    /// Whether it ends with a newline, as all but perhaps the last do.
    pub(crate) complete: bool,
    /// The record; `None` for a blank line; or what is wrong with it.
    pub(crate) record: Result<Option<Record>, String>,
}

/// Reads JSON lines one by one.
pub(crate) struct Lines<R> {
    reader: R,
    number: u64,
    end: u64,
    checksum: u32,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub(crate) const fn new(reader: R) -> Self {
        Self { reader, number: 0, end: 0, checksum: 0, buffer: Vec::new() }
    }

    /// The next line; `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line>> {
        let Some(complete) = self.advance()? else { return Ok(None) };
        let record = if self.buffer.len() as u64 > MAX_LINE {
            Err(format!("longer than {MAX_LINE} bytes"))
        } else {
            parse(&self.buffer)
        };
        let Self { number, end, checksum, .. } = *self;
        Ok(Some(Line { number, end, checksum, complete, record }))
    }

    /// Passes over the first `lines` lines. False if they are not the ones that gave this checksum.
    pub(crate) fn skip(&mut self, lines: u64, checksum: u32) -> io::Result<bool> {
        while self.number < lines {
            if self.advance()?.is_none() {
                return Ok(false);
            }
        }
        Ok(self.checksum == checksum)
    }

    /// Reads a line into the buffer; tells whether it is complete, or `None` at the end.
    fn advance(&mut self) -> io::Result<Option<bool>> {
        self.buffer.clear();
        let mut reader = io::Read::take(&mut self.reader, MAX_LINE + 1);
        let read = reader.read_until(b'\n', &mut self.buffer)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        self.end += read as u64;
        self.checksum = crc32c::crc32c_append(self.checksum, &self.buffer);
        Ok(Some(self.buffer.ends_with(b"\n")))
    }
}

/// A line as it is written. `version` is what `kvctl scan -o json` adds; a version cannot be imported.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordJson<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    key_base64: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    value: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    value_base64: Option<Cow<'a, str>>,
    #[serde(skip_serializing, rename = "version")]
    _version: Option<IgnoredAny>,
}

/// A record as a line, without its newline.
pub(crate) fn format(key: &[u8], value: &[u8]) -> String {
    let (key, key_base64) = text_or_base64(key);
    let (value, value_base64) = text_or_base64(value);
    to_json(&RecordJson {
        key: key.map(Cow::Borrowed),
        key_base64: key_base64.map(Cow::Owned),
        value: value.map(Cow::Borrowed),
        value_base64: value_base64.map(Cow::Owned),
        _version: None,
    })
}

fn parse(line: &[u8]) -> Result<Option<Record>, String> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    // An array would pass for a struct with its members in order.
    if line.trim_ascii_start()[0] != b'{' {
        return Err("not a JSON object".to_owned());
    }
    let RecordJson { key, key_base64, value, value_base64, _version } =
        serde_json::from_slice(line).map_err(|error| describe(&error))?;
    let key = one_of("key", key, key_base64)?;
    if key.is_empty() {
        return Err("the key is empty".to_owned());
    }
    Ok(Some(Record { key, value: one_of("value", value, value_base64)? }))
}

fn one_of(name: &str, text: Option<Cow<'_, str>>, base64: Option<Cow<'_, str>>) -> Result<Bytes, String> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into_owned().into()),
        (None, Some(base64)) => {
            from_base64(&base64).map_err(|error| format!("{name}_base64 is not base64: {error}"))
        }
        (None, None) => Err(format!("neither {name} nor {name}_base64 is there")),
        (Some(_), Some(_)) => Err(format!("both {name} and {name}_base64 are there")),
    }
}

/// What is wrong with a line, without the parser's own idea of its number.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let problem = text.split(" at line ").next().unwrap_or_default();
    format!("{problem} (column {})", error.column())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn lines(input: &str) -> Vec<Line> {
        let mut lines = Lines::new(input.as_bytes());
        std::iter::from_fn(|| lines.next().expect("memory can be read")).collect()
    }

    #[test]
    fn every_pair_of_byte_strings_comes_back_from_its_line() {
        let samples: [&[u8]; 5] = [b"k", "grün\n\"\\\u{0}".as_bytes(), &[0xff, 0xfe], b" ", &[0]];
        for key in samples {
            for value in samples.into_iter().chain([b"".as_slice()]) {
                let line = format(key, value);
                assert!(!line.contains('\n'));
                let record = Record { key: key.to_vec().into(), value: value.to_vec().into() };
                assert_eq!(parse(line.as_bytes()), Ok(Some(record)), "{line}");
            }
        }
    }

    #[test]
    fn what_is_malformed_says_why() {
        let problems: Vec<String> = [
            "{",
            "[]",
            "\"k\"",
            r#"{"key":"k"}"#,
            r#"{"value":"v"}"#,
            r#"{"key":"","value":"v"}"#,
            r#"{"key":"k","key_base64":"aw==","value":"v"}"#,
            r#"{"key_base64":"?","value":"v"}"#,
            r#"{"key":"k","value":"v","valeu":"v"}"#,
            r#"{"key":"k","value":7}"#,
            r#"{"key":"k","value":"v"} x"#,
        ]
        .iter()
        .map(|line| parse(line.as_bytes()).expect_err(line))
        .collect();
        expect![[r#"
            EOF while parsing an object (column 1)
            not a JSON object
            not a JSON object
            neither value nor value_base64 is there
            neither key nor key_base64 is there
            the key is empty
            both key and key_base64 are there
            key_base64 is not base64: Invalid symbol 63, offset 0.
            unknown field `valeu`, expected one of `key`, `key_base64`, `value`, `value_base64`, `version` (column 30)
            invalid type: integer `7`, expected a string (column 20)
            trailing characters (column 25)"#]]
        .assert_eq(&problems.join("\n"));
    }

    #[test]
    fn lines_are_counted_with_blank_ones_and_a_last_one_without_newline() {
        let all =
            lines("{\"key\":\"a\",\"value\":\"1\"}\n\n{\"key\":\"b\",\"value\":\"2\",\"version\":\"9\"}");
        let keys: Vec<_> =
            all.iter().map(|line| line.record.as_ref().unwrap().as_ref().map(|r| r.key.clone())).collect();
        assert_eq!(keys, [Some("a".into()), None, Some("b".into())]);
        assert_eq!(
            all.iter().map(|line| (line.number, line.complete)).collect::<Vec<_>>(),
            [(1, true), (2, true), (3, false)]
        );
    }

    #[test]
    fn lines_are_skipped_only_if_they_are_the_same() {
        let input = "a\nb\nc\n";
        let second = lines(input).swap_remove(1);
        let mut again = Lines::new(input.as_bytes());
        assert!(again.skip(2, second.checksum).unwrap());
        assert_eq!(again.next().unwrap().unwrap().number, 3);
        assert!(!Lines::new("a\nx\nc\n".as_bytes()).skip(2, second.checksum).unwrap());
        assert!(!Lines::new("a\n".as_bytes()).skip(2, second.checksum).unwrap());
    }
}
