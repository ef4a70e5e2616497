//! A violation as a page: a lane for each client, and time from left to right.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use crate::facts::end;
use crate::violation::milliseconds;
use crate::{Action, Operation, Outcome, Violation};

/// Most operations that are drawn besides those that contradict each other.
const CONTEXT: usize = 2000;

/// Sizes in pixels.
const WIDTH: u64 = 1400;
const LABEL: u64 = 90;
const ROW: u64 = 26;
const BAR: u64 = 18;

/// Marks on the time axis.
const TICKS: u64 = 8;

const STYLE: &str = "\
body{font:14px/1.5 system-ui,sans-serif;margin:2em;color:#222;background:#fff}\
svg{display:block;margin:1em 0;max-width:100%;height:auto}\
svg text{font:11px ui-monospace,monospace;pointer-events:none}\
rect.op{fill:#dfe5ec;stroke:#9aa8b8}\
rect.write{fill:#cfe3d4;stroke:#7fa78a}\
rect.open{stroke-dasharray:4 3}\
rect.wrong{fill:#ffd2cc;stroke:#c0281a;stroke-width:2}\
rect.op:hover{stroke:#000;stroke-width:2}\
line{stroke:#e3e3e3}\
table{border-collapse:collapse}td,th{padding:.2em .9em .2em 0;text-align:left;font-family:ui-monospace,monospace}\
.key{color:#666}";

/// Text that is harmless within HTML, in attributes as well.
struct Escaped<T>(T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.to_string().chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            // Control characters have no place in a page.
            c if c.is_control() => write!(f, "{}", c.escape_default()),
            c => f.write_char(c),
        })
    }
}

/// A page that needs nothing else, with the operations that contradict each other and what happened to their keys meanwhile.
#[must_use]
pub fn html(violation: &Violation, history: &[Operation]) -> String {
    let mut page = String::new();
    write(&mut page, violation, &Window::new(violation, history)).expect("a string takes everything");
    page
}

/// What is drawn.
struct Window<'a> {
    from: u64,
    to: u64,
    operations: Vec<(&'a Operation, bool)>,
    /// The lane of each client.
    lanes: BTreeMap<u32, u64>,
    left_out: usize,
}

impl<'a> Window<'a> {
    fn new(violation: &'a Violation, history: &'a [Operation]) -> Self {
        let wrong = &violation.operations;
        let first = wrong.iter().map(|operation| operation.called).min().unwrap_or(0);
        let last = wrong.iter().map(|operation| operation.returned.unwrap_or(operation.called)).max();
        let last = last.unwrap_or(first).max(first + 1);
        let margin = (last - first) / 10 + 1;
        let (from, to) = (first.saturating_sub(margin), last.saturating_add(margin));
        let keys: BTreeSet<&str> = wrong.iter().map(|operation| operation.key.as_str()).collect();
        let is_context = |operation: &&Operation| {
            keys.contains(operation.key.as_str())
                && operation.called <= to
                && end(operation) >= from
                && operation.outcome != Outcome::Failed
                && !wrong.contains(operation)
        };
        let mut context: Vec<&Operation> = history.iter().filter(is_context).collect();
        // Those nearest to the end of the story are worth the most.
        context.sort_by_key(|operation| std::cmp::Reverse(operation.called));
        let left_out = context.len().saturating_sub(CONTEXT);
        context.truncate(CONTEXT);
        let mut operations: Vec<_> = wrong.iter().map(|operation| (operation, true)).collect();
        operations.extend(context.into_iter().map(|operation| (operation, false)));
        operations.sort_by_key(|(operation, is_wrong)| (*is_wrong, operation.called));
        let clients: BTreeSet<u32> = operations.iter().map(|(operation, _)| operation.client).collect();
        let lanes = clients.into_iter().zip(0..).collect();
        Self { from, to, operations, lanes, left_out }
    }

    /// How far to the right a moment is.
    fn x(&self, time: u64) -> u64 {
        let time = time.clamp(self.from, self.to) - self.from;
        let width = u128::from(WIDTH - LABEL) * u128::from(time) / u128::from((self.to - self.from).max(1));
        LABEL + u64::try_from(width).unwrap_or(0)
    }
}

fn write(page: &mut String, violation: &Violation, window: &Window<'_>) -> fmt::Result {
    writeln!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Violation</title>\n<style>{STYLE}</style></head><body>"
    )?;
    writeln!(page, "<h1>The answers contradict each other</h1>\n<p>{}</p>", Escaped(&violation.reason))?;
    timeline(page, window)?;
    writeln!(
        page,
        "<p>Each bar is an operation, from its call to its answer; it took effect at some moment between. Red ones contradict each \
         other, green ones write, dashed ones were never answered. Point at one for its details. The others are those on the same \
         keys meanwhile{}.</p>",
        if window.left_out > 0 {
            format!(", without {} earlier ones", window.left_out)
        } else {
            String::new()
        }
    )?;
    let header = "<tr><th>client</th><th>key</th><th>called</th><th>answered</th><th>operation</th><th>answer</th></tr>";
    writeln!(page, "<table>{header}")?;
    for operation in &violation.operations {
        let Operation { client, key, action, outcome, .. } = operation;
        let [called, answered] = times(window, operation);
        writeln!(
            page,
            "<tr><td>{client}</td><td>{}</td><td>{called}</td><td>{answered}</td><td>{}</td><td>{}</td></tr>",
            Escaped(key),
            Escaped(action),
            Escaped(outcome)
        )?;
    }
    writeln!(page, "</table></body></html>")
}

fn timeline(page: &mut String, window: &Window<'_>) -> fmt::Result {
    let height = (window.lanes.len() as u64 + 2) * ROW;
    writeln!(page, "<svg viewBox=\"0 0 {} {height}\" width=\"{}\" role=\"img\">", WIDTH + 10, WIDTH + 10)?;
    for tick in 0..=TICKS {
        let time = window.from + (window.to - window.from) / TICKS * tick;
        let (x, bottom) = (window.x(time), height - ROW);
        writeln!(page, "<line x1=\"{x}\" y1=\"{ROW}\" x2=\"{x}\" y2=\"{bottom}\"/>")?;
        writeln!(page, "<text x=\"{x}\" y=\"14\">{} ms</text>", milliseconds(time - window.from))?;
    }
    for (client, lane) in &window.lanes {
        let y = (lane + 1) * ROW + BAR - 4;
        writeln!(page, "<text class=\"key\" x=\"0\" y=\"{y}\">client {client}</text>")?;
    }
    window.operations.iter().try_for_each(|(operation, is_wrong)| bar(page, window, operation, *is_wrong))?;
    writeln!(page, "</svg>")
}

fn bar(page: &mut String, window: &Window<'_>, operation: &Operation, is_wrong: bool) -> fmt::Result {
    let (x, y) = (window.x(operation.called), (window.lanes[&operation.client] + 1) * ROW);
    let width = (window.x(end(operation)) - x).max(3);
    let is_read = operation.action == Action::Get;
    let kind = if is_wrong {
        "op wrong"
    } else if is_read {
        "op"
    } else {
        "op write"
    };
    let open = if end(operation) == u64::MAX { " open" } else { "" };
    let [called, answered] = times(window, operation);
    let Operation { client, key, action, outcome, .. } = operation;
    let details = format!(
        "client {client}, key {key}\n{action}\nanswer: {outcome}\ncalled at {called} ms, answered at {answered} ms"
    );
    let details: Vec<String> = details.lines().map(|line| Escaped(line).to_string()).collect();
    writeln!(
        page,
        "<g><rect class=\"{kind}{open}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{BAR}\" rx=\"3\">\
         <title>{}</title></rect>",
        details.join("\n")
    )?;
    let label = format!("{action}: {outcome}");
    // A letter has some seven pixels.
    let room = usize::try_from(width / 7).unwrap_or(0);
    if room > 4 {
        let short: String = label.chars().take(room).collect();
        writeln!(page, "<text x=\"{}\" y=\"{}\">{}</text>", x + 4, y + BAR - 5, Escaped(short))?;
    }
    writeln!(page, "</g>")
}

/// When it was called and answered, in milliseconds from the left edge.
fn times(window: &Window<'_>, operation: &Operation) -> [String; 2] {
    let since = |time: u64| milliseconds(time.saturating_sub(window.from));
    [since(operation.called), operation.returned.map_or("never".to_owned(), since)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_shows_all_that_matters_and_nothing_of_it_is_markup() {
        let put = Operation {
            client: 1,
            key: "<script>\"'&\u{7}".to_owned(),
            called: 1_000_000,
            returned: Some(2_000_000),
            action: Action::Put { value: "</title><b>".to_owned() },
            outcome: Outcome::Applied { version: 1 },
        };
        let get = Operation {
            client: 2,
            called: 3_000_000,
            action: Action::Get,
            outcome: Outcome::Absent,
            ..put.clone()
        };
        let get = Operation { returned: Some(4_000_000), ..get };
        let unanswered = Operation {
            client: 3,
            returned: None,
            outcome: Outcome::Unknown,
            action: Action::Delete,
            ..put.clone()
        };
        let elsewhere = Operation { client: 4, key: "other".to_owned(), ..put.clone() };
        let violation = Violation::new("It is <wrong>.", [&put, &get]);
        let history = [put, get, unanswered, elsewhere];
        let page = html(&violation, &history);
        assert!(!page.contains("<script>") && !page.contains("<b>") && !page.contains("<wrong>"), "{page}");
        assert!(page.contains("&lt;script&gt;&quot;&#39;&amp;\\u{7}"), "{page}");
        assert_eq!(page.matches("class=\"op wrong\"").count(), 2);
        assert_eq!(page.matches("class=\"op write open\"").count(), 1);
        assert_eq!(page.matches("client 4").count(), 0, "another key's operation is not drawn");
        assert!(!page.contains("http"), "nothing is fetched from anywhere");
    }
}
