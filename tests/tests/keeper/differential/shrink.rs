//! Making a sequence shorter that two servers answer differently.

use super::ops::{Request, Step};

/// Most sequences that are tried.
const TRIES: usize = 400;

/// Removes steps, requests and parts of requests for as long as `fails` says that it still fails.
pub(crate) fn shrink(mut steps: Vec<Step>, mut fails: impl FnMut(&[Step]) -> bool) -> Vec<Step> {
    let mut tries = 0;
    let mut attempt = |candidate: &[Step]| {
        tries += 1;
        tries <= TRIES && fails(candidate)
    };
    let mut size = steps.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        let mut removed = false;
        while at < steps.len() {
            let candidate = [&steps[..at], &steps[(at + size).min(steps.len())..]].concat();
            if attempt(&candidate) {
                steps = candidate;
                removed = true;
            } else {
                at += size;
            }
        }
        size = if size == 1 && removed { 1 } else { size / 2 };
    }
    for at in 0..steps.len() {
        while let Some(candidate) =
            smaller(&steps[at]).into_iter().map(|step| with(&steps, at, step)).find(|steps| attempt(steps))
        {
            steps = candidate;
        }
    }
    steps
}

fn with(steps: &[Step], at: usize, step: Step) -> Vec<Step> {
    let mut steps = steps.to_vec();
    steps[at] = step;
    steps
}

/// The step with one request, or one part of a request, less.
fn smaller(step: &Step) -> Vec<Step> {
    let Step::Requests { session, requests } = step else { return Vec::new() };
    let rebuilt = |requests| Step::Requests { session: *session, requests };
    let mut out = Vec::new();
    for at in 0..requests.len() {
        if requests.len() > 1 {
            let mut fewer = requests.clone();
            fewer.remove(at);
            out.push(rebuilt(fewer));
        }
        for request in smaller_request(&requests[at].1) {
            let mut other = requests.clone();
            other[at].1 = request;
            out.push(rebuilt(other));
        }
    }
    out
}

fn smaller_request(request: &Request) -> Vec<Request> {
    match request {
        Request::Multi { op, requests } => (0..requests.len())
            .map(|at| {
                let mut fewer = requests.clone();
                fewer.remove(at);
                Request::Multi { op: *op, requests: fewer }
            })
            .collect(),
        Request::SetWatches { op, since, lists } => (0..lists.len())
            .filter(|&at| !lists[at].is_empty())
            .map(|at| {
                let mut fewer = lists.clone();
                fewer[at].pop();
                Request::SetWatches { op: *op, since: *since, lists: fewer }
            })
            .collect(),
        _ => Vec::new(),
    }
}
