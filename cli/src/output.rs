//! What goes to stdout: tables for people, JSON for programs, raw bytes for pipes.

use std::io::{self, BufWriter, StdoutLock, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

use crate::exit::Failure;

/// How results are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns for people; values are shortened and made printable.
    Table,
    /// One JSON object per line; 64-bit numbers are strings.
    Json,
    /// The bytes themselves, or tab-separated columns without a header.
    Raw,
}

/// Stdout, buffered, in the chosen format.
pub(crate) struct Output {
    pub(crate) format: Format,
    stdout: BufWriter<StdoutLock<'static>>,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, stdout: BufWriter::with_capacity(64 << 10, io::stdout().lock()) }
    }

    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stdout.write_all(bytes).map_err(|error| Failure::stdout(&error))
    }

    /// One line of text.
    pub(crate) fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.bytes(line.as_bytes())?;
        self.bytes(b"\n")
    }

    /// One line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        self.line(&to_json(value))
    }

    /// Rows in columns: a table with its header, or tab-separated.
    pub(crate) fn rows(&mut self, columns: &[Column], rows: &[Vec<String>]) -> Result<(), Failure> {
        if self.format == Format::Table {
            return self.bytes(table(columns, rows).as_bytes());
        }
        rows.iter().try_for_each(|row| self.line(&row.join("\t")))
    }

    /// Hands everything to the reader.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.stdout.flush().map_err(|error| Failure::stdout(&error))
    }
}

/// A column's header, and whether it holds numbers.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    name: &'static str,
    numeric: bool,
}

/// A column of text.
pub(crate) const fn text(name: &'static str) -> Column {
    Column { name, numeric: false }
}

/// A column of numbers, aligned to the right.
pub(crate) const fn number(name: &'static str) -> Column {
    Column { name, numeric: true }
}

/// Columns aligned with spaces, without lines: easy to read, and to cut into pieces with other tools.
pub(crate) fn table(columns: &[Column], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns.iter().map(|column| column.name));
    for row in rows {
        table.add_row(row.iter().zip(columns).map(|(cell, column)| {
            let side = if column.numeric { CellAlignment::Right } else { CellAlignment::Left };
            Cell::new(cell).set_alignment(side)
        }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// What serializes to JSON, as one line.
pub(crate) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("our own types serialize to JSON")
}

/// Bytes for JSON: as text if they are UTF-8, else in base64.
pub(crate) fn text_or_base64(bytes: &[u8]) -> (Option<&str>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

/// Reads back what [`text_or_base64`] wrote as base64.
pub(crate) fn from_base64(text: &str) -> Result<Bytes, base64::DecodeError> {
    STANDARD.decode(text).map(Bytes::from)
}

/// Bytes as people can read them on one line: control characters and what is not UTF-8 are escaped.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

/// As [`printable`], cut to about `limit` bytes of the original with a note of the whole size.
pub(crate) fn shortened(bytes: &[u8], limit: usize) -> String {
    if bytes.len() <= limit {
        return printable(bytes);
    }
    // A character must not be cut in two; it has at most four bytes.
    let cut = (limit - 3..=limit).rev().find(|&at| bytes[at] & 0xC0 != 0x80).unwrap_or(limit);
    format!("{}… ({} bytes)", printable(&bytes[..cut]), bytes.len())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_table_is_aligned_without_trailing_spaces() {
        let rows = [vec!["a".to_owned(), "5".to_owned()], vec!["größer".to_owned(), "1000".to_owned()]];
        expect![[r"
            KEY     VERSION
            a             5
            größer     1000
        "]]
        .assert_eq(&table(&[text("KEY"), number("VERSION")], &rows));
    }

    #[test]
    fn bytes_are_told_apart_from_text_and_come_back() {
        assert_eq!(text_or_base64("grün".as_bytes()), (Some("grün"), None));
        let (text, base64) = text_or_base64(&[0xff, 0]);
        assert_eq!((text, base64.as_deref()), (None, Some("/wA=")));
        assert_eq!(from_base64("/wA=").unwrap().as_ref(), [0xff, 0]);
    }

    #[test]
    fn what_is_printed_is_one_line_and_harmless_to_a_terminal() {
        assert_eq!(printable(b"a\tb\n\x1b[31m\\ \xff\xc3"), r"a\tb\n\u{1b}[31m\\ \xff\xc3");
        assert_eq!(printable("schön".as_bytes()), "schön");
    }

    #[test]
    fn what_is_long_is_cut_between_characters() {
        assert_eq!(shortened(b"short", 8), "short");
        assert_eq!(shortened("aaaaaaaö!".as_bytes(), 8), "aaaaaaa… (10 bytes)");
        assert_eq!(shortened(&[0xff; 9], 4), r"\xff\xff\xff\xff… (9 bytes)");
        assert_eq!(shortened(&[0x80; 9], 4), r"\x80\x80\x80\x80… (9 bytes)");
    }
}
