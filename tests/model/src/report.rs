//! What an exploration came to, for people.

use std::fmt;

use crate::checker::{Counterexample, Outcome, Verdict};
use crate::config::{Config, Reads, Start};
use crate::events::Event;
use crate::state::{Role, State};

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "N={}, {} epochs", self.nodes, self.epochs)?;
        if self.start == Start::Established {
            f.write_str(" (the first established)")?;
        }
        write!(f, ", {} writes, ", self.writes)?;
        f.write_str(if self.crashes { "crashes, " } else { "no crashes, " })?;
        f.write_str(match self.reads {
            Reads::None => "no reads",
            Reads::Sampled => "reads",
            Reads::Contested => "contested reads",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (states, seconds) = (grouped(self.states as u64), self.took.as_secs_f64());
        write!(f, "model: {}: {states} states, {} steps, ", self.config, grouped(self.steps))?;
        write!(f, "depth {}, {seconds:.1} s, ", self.depth)?;
        match &self.verdict {
            Verdict::Holds => f.write_str("all properties hold"),
            Verdict::Unfinished => f.write_str("all properties hold so far; not finished"),
            Verdict::Violated(Counterexample { violation, steps }) => {
                let bug = self.config.bug.map_or_else(String::new, |bug| format!("{bug:?}: "));
                write!(f, "{bug}counterexample of {} steps: {violation}", steps.len())
            }
        }
    }
}

impl Outcome {
    /// How many steps came to each event, in one line.
    pub fn events_line(&self) -> String {
        let count = |event: &Event| format!("{event:?} {}", grouped(self.events.count(*event)));
        Event::ALL.iter().map(count).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (action, after)) in self.steps.iter().enumerate() {
            write!(f, "{:>3}. {:<46}", number + 1, format!("{action:?}"))?;
            if let Some(after) = after {
                write!(f, " {}", Line(after))?;
            }
            writeln!(f)?;
        }
        write!(f, "     {}", self.violation)
    }
}

/// A state in one line: each replica's log with what is not durable, its promise, its commit.
struct Line<'a>(&'a State);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unused = crate::state::Replica::default();
        for (node, replica) in self.0.replicas.iter().enumerate().filter(|(_, replica)| **replica != unused) {
            let role = match replica.role {
                Role::Follower => "",
                Role::Contender => " contends",
                Role::Leader => " leads",
            };
            write!(f, "{node}: {:?}", replica.log)?;
            if replica.durable != replica.log {
                write!(f, " durable {:?}", replica.durable)?;
            }
            write!(f, " promise {}{role} committed {}", replica.promise, replica.committed)?;
            if let Some(answer) = replica.answer {
                write!(f, " answered {:?}{}", answer.log, if answer.settled { "" } else { " unsettled" })?;
            }
            f.write_str("; ")?;
        }
        write!(f, "acknowledged {:?}, read {:?}", self.0.acknowledged, self.0.seen)
    }
}

/// A number with commas.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
