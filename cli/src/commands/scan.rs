//! Listing keys, page by page.

use bytes::Bytes;
use quorumkv_client::{Client, Item, ScanOptions};
use serde::Serialize;

use crate::exit::Failure;
use crate::invocation::Scan;
use crate::output::{Format, Output, number, shortened, table, text, text_or_base64};

/// Keys asked for at once.
pub(crate) const PAGE: u32 = 1000;

/// Most bytes of a key or value in a table.
const SHOWN: usize = 80;

pub(crate) async fn run(client: &Client, scan: Scan, output: &mut Output) -> Result<(), Failure> {
    let Scan { prefix, mut after, limit, consistency } = scan;
    let mut left = limit;
    let mut first = true;
    while left > 0 {
        let page = u32::try_from(left).unwrap_or(u32::MAX).min(PAGE);
        let options = ScanOptions { after: after.take(), limit: page, consistency };
        let scanned = client.scan(prefix.clone(), options).await?;
        left = left.saturating_sub(scanned.items.len() as u64);
        show(&scanned.items, first, output)?;
        // Readers see each page as it comes, and one that has gone ends the scan.
        output.flush()?;
        if !scanned.more {
            break;
        }
        after = scanned.items.last().map(|item| item.key.clone());
        first = false;
    }
    Ok(())
}

/// A key with its value.
#[derive(Serialize)]
struct ItemJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    version: String,
}

fn show(items: &[Item], first: bool, output: &mut Output) -> Result<(), Failure> {
    match output.format {
        Format::Json => items.iter().try_for_each(|item| output.json(&json(item))),
        Format::Raw => items.iter().try_for_each(|item| raw(&item.key, &item.value.value, output)),
        Format::Table if items.is_empty() => Ok(()),
        Format::Table => output.bytes(page(items, first).as_bytes()),
    }
}

fn json(item: &Item) -> ItemJson<'_> {
    let (key, key_base64) = text_or_base64(&item.key);
    let (value, value_base64) = text_or_base64(&item.value.value);
    ItemJson { key, key_base64, value, value_base64, version: item.value.version.to_string() }
}

fn raw(key: &Bytes, value: &Bytes, output: &mut Output) -> Result<(), Failure> {
    output.bytes(key)?;
    output.bytes(b"\t")?;
    output.bytes(value)?;
    output.bytes(b"\n")
}

/// One page as a table; the first has the header.
fn page(items: &[Item], first: bool) -> String {
    let row = |item: &Item| {
        let version = item.value.version.to_string();
        vec![shortened(&item.key, SHOWN), version, shortened(&item.value.value, SHOWN)]
    };
    let rows: Vec<_> = items.iter().map(row).collect();
    let table = table(&[text("KEY"), number("VERSION"), text("VALUE")], &rows);
    match table.split_once('\n') {
        Some((_header, rest)) if !first => rest.to_owned(),
        _ => table,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use quorumkv_client::{Version, Versioned};

    use super::*;
    use crate::output::to_json;

    fn item(key: &'static [u8], value: &'static [u8], version: u64) -> Item {
        let value = Versioned { version: Version::new(version), value: value.into() };
        Item { key: key.into(), value }
    }

    #[test]
    fn only_the_first_page_has_a_header() {
        let items = [item(b"a", b"one", 9), item(b"long/key", b"two\n", 10)];
        expect![[r"
            KEY       VERSION  VALUE
            a               9  one
            long/key       10  two\n
        "]]
        .assert_eq(&page(&items, true));
        assert_eq!(page(&items, false).lines().count(), 2);
    }

    #[test]
    fn json_of_an_item_tells_text_from_bytes() {
        expect![[r#"{"key_base64":"/w==","value":"v","version":"3"}"#]].assert_eq(&to_json(&json(&item(
            &[0xff],
            b"v",
            3,
        ))));
    }
}
