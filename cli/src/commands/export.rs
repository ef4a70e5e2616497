//! Export: all pages of a scan as JSON lines, to stdout or to a file that appears when it is complete.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use indicatif::ProgressBar;
use quorumkv_client::{Client, Consistency, ScanOptions};
use serde::Serialize;

use crate::checkpoint::rename_durably;
use crate::commands::scan::PAGE;
use crate::commands::transfer;
use crate::exit::{Code, Failure};
use crate::invocation::{Export, with_suffix};
use crate::output::{Format, Output, shortened};
use crate::records::{self, Lines};

pub(crate) async fn run(
    client: &Client,
    export: Export,
    timeout: Duration,
    output: &mut Output,
) -> Result<(), Failure> {
    let Export { prefix, after, file, resume } = export;
    let mut pages = Pages { client, prefix, after, timeout, records: 0, bar: transfer::bar(None) };
    let Some(path) = file else {
        return pages.copy(|text| output.bytes(text).and_then(|()| output.flush())).await;
    };
    let mut target = Target::open(path)?;
    if resume {
        let kept = target.keep(&pages.prefix)?;
        pages.after = kept.last.or(pages.after);
        pages.records = kept.records;
    } else {
        target.clear()?;
    }
    let ended = tokio::select! {
        ended = pages.copy(|text| target.write(text)) => ended,
        failure = transfer::interrupted() => Err(failure),
    };
    pages.bar.finish_and_clear();
    let path = target.path.clone();
    match ended {
        Ok(()) => target.complete()?,
        Err(failure) => {
            target.sync()?;
            let mut command = transfer::command_line();
            if !resume {
                command.push_str(" --resume");
            }
            return Err(failure.advise(format!("to go on: {command}")));
        }
    }
    show(&path, pages.records, output)
}

/// What an export to a file did; to stdout, it says nothing but the lines.
#[derive(Serialize)]
struct ExportedJson {
    file: String,
    records: String,
}

fn show(path: &Path, records: u64, output: &mut Output) -> Result<(), Failure> {
    match output.format {
        Format::Table => output.line(&format!("exported {records} records to {}", path.display())),
        Format::Raw => output.line(&records.to_string()),
        Format::Json => {
            output.json(&ExportedJson { file: path.display().to_string(), records: records.to_string() })
        }
    }
}

/// The pages of the export.
struct Pages<'a> {
    client: &'a Client,
    prefix: Bytes,
    after: Option<Bytes>,
    timeout: Duration,
    records: u64,
    bar: ProgressBar,
}

impl Pages<'_> {
    /// Hands all pages to `write`, each as the text of its lines.
    async fn copy(&mut self, mut write: impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
        let mut text = String::new();
        loop {
            let options =
                ScanOptions { after: self.after.clone(), limit: PAGE, consistency: Consistency::Quorum };
            let page = transfer::page(self.client, &self.prefix, &options, self.timeout);
            let page = page.await.map_err(|error| self.stopped(error.into()))?;
            text.clear();
            for item in &page.items {
                text.push_str(&records::format(&item.key, &item.value.value));
                text.push('\n');
            }
            write(text.as_bytes())?;
            self.records += page.items.len() as u64;
            self.bar.inc(text.len() as u64);
            self.bar.set_message(format!("{} records", self.records));
            if let Some(last) = page.items.last() {
                self.after = Some(last.key.clone());
            }
            if !page.more {
                return Ok(());
            }
        }
    }

    /// Says where a failed export can go on.
    fn stopped(&self, failure: Failure) -> Failure {
        match &self.after {
            Some(after) => {
                failure.advise(format!("to go on, give --after and the last key, {}", shortened(after, 1000)))
            }
            None => failure,
        }
    }
}

/// The file being written. It has a name of its own until it is complete.
struct Target {
    path: PathBuf,
    partial: PathBuf,
    writer: BufWriter<File>,
}

/// What an earlier export left.
struct Kept {
    records: u64,
    last: Option<Bytes>,
}

impl Target {
    fn open(path: PathBuf) -> Result<Self, Failure> {
        let partial = with_suffix(&path, ".partial");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        match options.open(&partial) {
            Ok(file) => Ok(Self { path, partial, writer: BufWriter::with_capacity(256 << 10, file) }),
            Err(error) => Err(Failure::io(&format!("create {}", partial.display()), &error)),
        }
    }

    /// Begins with an empty file.
    fn clear(&mut self) -> Result<(), Failure> {
        self.writer.get_ref().set_len(0).map_err(|error| self.failed("empty", &error))
    }

    /// Keeps all complete lines that are there, and goes on after them.
    fn keep(&mut self, prefix: &[u8]) -> Result<Kept, Failure> {
        let mut lines = Lines::new(BufReader::new(self.writer.get_ref()));
        let (mut kept, mut end) = (Kept { records: 0, last: None }, 0);
        while let Some(line) = lines.next().map_err(|error| self.failed("read", &error))? {
            if !line.complete {
                break;
            }
            let record = line.record.map_err(|problem| self.unfit(line.number, &problem))?;
            end = line.end;
            if let Some(record) = record {
                if !record.key.starts_with(prefix)
                    || kept.last.as_ref().is_some_and(|last| *last >= record.key)
                {
                    return Err(self.unfit(line.number, "its key does not belong to this export"));
                }
                kept = Kept { records: kept.records + 1, last: Some(record.key) };
            }
        }
        let file = self.writer.get_mut();
        let cut = file.set_len(end).and_then(|()| file.seek(io::SeekFrom::Start(end)).map(drop));
        cut.map_err(|error| self.failed("cut", &error))?;
        Ok(kept)
    }

    fn write(&mut self, text: &[u8]) -> Result<(), Failure> {
        self.writer.write_all(text).map_err(|error| self.failed("write", &error))
    }

    fn sync(&mut self) -> Result<(), Failure> {
        let synced = self.writer.flush().and_then(|()| self.writer.get_ref().sync_all());
        synced.map_err(|error| self.failed("write", &error))
    }

    /// Gives the file its name, with all its content on disk.
    fn complete(mut self) -> Result<(), Failure> {
        self.sync()?;
        rename_durably(&self.partial, &self.path).map_err(|error| self.failed("rename", &error))
    }

    fn failed(&self, doing: &str, error: &io::Error) -> Failure {
        Failure::io(&format!("{doing} {}", self.partial.display()), error)
    }

    fn unfit(&self, line: u64, problem: &str) -> Failure {
        let message = format!("{} cannot be continued: line {line}: {problem}", self.partial.display());
        Failure::new(Code::Other, message).advise("export without --resume to begin anew")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(content: &str) -> (tempfile::TempDir, Target) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("all.jsonl");
        std::fs::write(folder.path().join("all.jsonl.partial"), content).unwrap();
        let target = Target::open(path).unwrap();
        (folder, target)
    }

    const TWO: &str = "{\"key\":\"p/a\",\"value\":\"1\"}\n{\"key\":\"p/b\",\"value\":\"2\"}\n";

    #[test]
    fn complete_lines_are_kept_and_a_torn_one_is_cut() {
        let (folder, mut target) = target(&format!("{TWO}{{\"key\":\"p/c\",\"va"));
        let kept = target.keep(b"p/").unwrap();
        assert_eq!((kept.records, kept.last), (2, Some("p/b".into())));
        target.write(b"more\n").unwrap();
        target.complete().unwrap();
        let content = std::fs::read_to_string(folder.path().join("all.jsonl")).unwrap();
        assert_eq!(content, format!("{TWO}more\n"));
        assert!(!folder.path().join("all.jsonl.partial").exists());
    }

    #[test]
    fn what_is_no_part_of_this_export_is_refused() {
        for content in ["junk\n".to_owned(), format!("{TWO}{TWO}")] {
            assert!(target(&content).1.keep(b"p/").is_err());
        }
        assert!(target(TWO).1.keep(b"q/").is_err());
    }

    #[test]
    fn a_new_export_does_not_keep_what_is_there() {
        let (folder, mut target) = target(TWO);
        target.clear().unwrap();
        target.complete().unwrap();
        assert_eq!(std::fs::read(folder.path().join("all.jsonl")).unwrap(), b"");
    }
}
