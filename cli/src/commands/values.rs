//! One key: put, get, del, cas.

use std::io::Write;

use bytes::Bytes;
use quorumkv_client::{Client, Consistency, GetOptions, Got, Outcome, Version, Written};
use serde::Serialize;
use serde_json::Value;

use crate::commands::evidence::{self, EvidenceJson};
use crate::exit::{Code, Failure};
use crate::invocation::Source;
use crate::output::{Format, Output, number, shortened, text, text_or_base64, to_json};

/// Most bytes of a value in a table.
const SHOWN: usize = 1000;

pub(crate) async fn put(
    client: &Client,
    key: Bytes,
    value: Source,
    output: &mut Output,
) -> Result<(), Failure> {
    let written = client.put(key.clone(), value.value()?).await?;
    show_written(&key, &written, "put", output)
}

pub(crate) async fn delete(client: &Client, key: Bytes, output: &mut Output) -> Result<(), Failure> {
    let written = client.delete(key.clone()).await?;
    show_written(&key, &written, "deleted", output)
}

pub(crate) async fn compare_and_set(
    client: &Client,
    key: Bytes,
    expected: Version,
    value: Source,
    output: &mut Output,
) -> Result<(), Failure> {
    let written = client.compare_and_set(key.clone(), expected, value.value()?).await?;
    if let Outcome::Mismatch { actual } = written.outcome {
        return Err(mismatch(&key, expected, actual));
    }
    show_written(&key, &written, "put", output)
}

pub(crate) async fn get(
    client: &Client,
    key: Bytes,
    options: GetOptions,
    output: &mut Output,
) -> Result<(), Failure> {
    let got = client.get_with(key.clone(), options).await.map_err(|error| {
        let evidence = error.evidence().map(EvidenceJson::from);
        let failure = Failure::from(error.clone());
        let (true, Some(evidence)) = (options.evidence, evidence) else { return failure };
        explain(error.evidence(), output.format);
        failure.detail("evidence", json_value(&evidence))
    })?;
    show_got(&key, &got, options.consistency, output)
}

/// The answer to a write.
#[derive(Serialize)]
struct WrittenJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    outcome: &'a str,
    version: String,
}

fn show_written(key: &[u8], written: &Written, done: &str, output: &mut Output) -> Result<(), Failure> {
    if written.outcome == Outcome::NotFound {
        return Err(not_found(key));
    }
    let version = written.version.to_string();
    match output.format {
        Format::Table => output.line(&format!("{done} {} at version {version}", shortened(key, SHOWN))),
        Format::Raw => output.line(&version),
        Format::Json => {
            let (key, key_base64) = text_or_base64(key);
            output.json(&WrittenJson { key, key_base64, outcome: "applied", version })
        }
    }
}

fn not_found(key: &[u8]) -> Failure {
    Failure::new(Code::NotFound, format!("no key {}", shortened(key, SHOWN)))
}

fn mismatch(key: &[u8], expected: Version, actual: Version) -> Failure {
    let state = if actual == Version::ZERO {
        format!("absent, not at version {expected}")
    } else if expected == Version::ZERO {
        format!("at version {actual}, not absent")
    } else {
        format!("at version {actual}, not {expected}")
    };
    Failure::new(Code::PreconditionFailed, format!("{} is {state}; nothing changed", shortened(key, SHOWN)))
        .advise("get the key, decide again, and use its version")
        .detail("actual_version", actual.to_string())
}

/// The state of a key.
#[derive(Serialize)]
struct GotJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    version: String,
    consistency: &'static str,
    /// Milliseconds since a local read's node last heard that it holds all that is committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    age_ms: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<EvidenceJson>,
}

fn show_got(key: &[u8], got: &Got, consistency: Consistency, output: &mut Output) -> Result<(), Failure> {
    if output.format != Format::Json {
        explain(got.evidence.as_ref(), output.format);
    }
    let Some(found) = &got.value else {
        let failure = not_found(key);
        return Err(match &got.evidence {
            Some(evidence) => failure.detail("evidence", json_value(&EvidenceJson::from(evidence))),
            None => failure,
        });
    };
    match output.format {
        Format::Raw => output.bytes(&found.value),
        Format::Table => {
            let columns = [text("KEY"), number("VERSION"), text("VALUE")];
            let row = [shortened(key, SHOWN), found.version.to_string(), shortened(&found.value, SHOWN)];
            output.rows(&columns, &[row.to_vec()])?;
            staleness(got, consistency).map_or(Ok(()), |line| output.line(&line))
        }
        Format::Json => {
            let (key, key_base64) = text_or_base64(key);
            let (value, value_base64) = text_or_base64(&found.value);
            output.json(&GotJson {
                key,
                key_base64,
                value,
                value_base64,
                version: found.version.to_string(),
                consistency: consistency_name(consistency),
                age_ms: got.age_ms.map(|age| age.to_string()),
                evidence: got.evidence.as_ref().map(EvidenceJson::from),
            })
        }
    }
}

const fn consistency_name(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Quorum => "quorum",
        Consistency::Local => "local",
    }
}

/// How old a local read may be, for people.
fn staleness(got: &Got, consistency: Consistency) -> Option<String> {
    match (consistency, got.age_ms) {
        (Consistency::Quorum, _) => None,
        (Consistency::Local, Some(age)) => Some(format!("local read, up to date {age} ms ago")),
        (Consistency::Local, None) => {
            Some("local read of a node that has not heard from a leader since it started".to_owned())
        }
    }
}

/// Evidence for people goes to stderr, so that stdout holds nothing but the value.
fn explain(evidence: Option<&quorumkv_client::Evidence>, format: Format) {
    if let (Some(evidence), Format::Table | Format::Raw) = (evidence, format) {
        // Without stderr there is nobody to explain it to.
        let _ = std::io::stderr().write_all(evidence::describe(evidence).as_bytes());
    }
}

fn json_value(value: &impl Serialize) -> Value {
    serde_json::from_str(&to_json(value)).expect("what was just written as JSON reads back")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use quorumkv_client::Versioned;

    use super::*;
    use crate::output::printable;

    #[test]
    fn a_condition_that_does_not_hold_says_what_is_there() {
        let line = |expected, actual| {
            let Failure::Report(report) = mismatch(b"k", Version::new(expected), Version::new(actual)) else {
                panic!("a mismatch is reported")
            };
            report.line()
        };
        expect![[r"
            kvctl: k is at version 7, not absent; nothing changed; get the key, decide again, and use its version
            kvctl: k is absent, not at version 3; nothing changed; get the key, decide again, and use its version
            kvctl: k is at version 7, not 3; nothing changed; get the key, decide again, and use its version"]]
        .assert_eq(&[line(0, 7), line(3, 0), line(3, 7)].join("\n"));
    }

    #[test]
    fn json_has_text_where_it_can_and_strings_for_versions() {
        let (key, key_base64) = text_or_base64(b"k");
        let (value, value_base64) = text_or_base64(&[0xff]);
        let version = u64::MAX.to_string();
        let got = GotJson {
            key,
            key_base64,
            value,
            value_base64,
            version,
            consistency: "local",
            age_ms: Some(12.to_string()),
            evidence: None,
        };
        expect![[
            r#"{"key":"k","value_base64":"/w==","version":"18446744073709551615","consistency":"local","age_ms":"12"}"#
        ]]
        .assert_eq(&to_json(&got));
    }

    #[test]
    fn a_local_read_says_how_old_it_may_be() {
        let value = Some(Versioned { version: Version::new(1), value: Bytes::new() });
        let mut got = Got { value, age_ms: Some(40), evidence: None };
        assert_eq!(staleness(&got, Consistency::Quorum), None);
        assert!(staleness(&got, Consistency::Local).unwrap().contains("40 ms"));
        got.age_ms = None;
        assert!(staleness(&got, Consistency::Local).unwrap().contains("not heard"));
    }

    #[test]
    fn keys_in_messages_are_harmless_to_a_terminal() {
        assert_eq!(printable(b"\x1b]0;x"), r"\u{1b}]0;x");
        let Failure::Report(report) = not_found(b"a\nb") else { panic!("it is reported") };
        assert_eq!(report.line(), r"kvctl: no key a\nb");
    }
}
