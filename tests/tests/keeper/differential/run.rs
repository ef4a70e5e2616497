//! Running a sequence against one server, one operation after the other, so that two servers can be compared.
//!
//! After every step each session sends a ping. Its reply comes after all events that the step has caused, so that these are
//! known to belong to the step, whatever threads a server has.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::generate::SESSIONS;
use super::ops::{Request, Step};
use crate::raw::{Answer, Hello, Session, op};
use crate::shown::{self, Names};

/// What a server has answered: one line for each request, reply and event.
pub(crate) type Transcript = Vec<String>;

/// Runs a sequence below a znode of its own.
pub(crate) fn run(address: &str, root: &str, steps: &[Step]) -> Result<Transcript> {
    let mut run = Run::start(address, root)?;
    for (index, step) in steps.iter().enumerate() {
        run.step(index, step)
            .with_context(|| format!("step {index}, {step:?}, after:\n{}", run.transcript.join("\n")))?;
    }
    for session in run.sessions {
        session.close()?;
    }
    Ok(run.transcript)
}

struct Run<'a> {
    address: &'a str,
    sessions: Vec<Session>,
    names: Names,
    /// The last transaction by the beginning of each step.
    zxids: Vec<(usize, i64)>,
    transcript: Transcript,
}

impl<'a> Run<'a> {
    fn start(address: &'a str, root: &str) -> Result<Self> {
        let mut sessions =
            (0..SESSIONS).map(|_| Session::start(address)).collect::<Result<Vec<Session>>>()?;
        let mut names = Names::new(root);
        sessions.iter().for_each(|session| names.session(session.id));
        let above = root.rsplit_once('/').context("the root of a run is below a znode of its own")?.0;
        sessions[0].create(above, b"", 0)?;
        sessions[0].create(root, b"", 0)?;
        names.transaction(sessions[0].last_zxid, 0);
        Ok(Self { address, sessions, names, zxids: Vec::new(), transcript: Vec::new() })
    }

    fn step(&mut self, index: usize, step: &Step) -> Result<()> {
        let zxid = self.sessions.iter().map(|session| session.last_zxid).max().unwrap_or_default();
        self.zxids.push((index, zxid));
        match step {
            Step::Requests { session, requests } => self.requests(*session, requests)?,
            Step::Reattach { session } => self.reattach(*session)?,
            Step::Replace { session, number } => self.replace(*session, *number)?,
        }
        for other in 0..SESSIONS {
            let mut answer = self.sessions[other].call(op::PING, &[])?;
            if matches!(step, Step::Replace { .. }) {
                // A session's ephemeral znodes are deleted in no particular order.
                answer.events.sort_by(|(_, one), (_, other)| one.cmp(other));
            }
            self.events(other, &answer);
        }
        Ok(())
    }

    fn requests(&mut self, session: usize, requests: &[(usize, Request)]) -> Result<()> {
        let root = self.names.root.clone();
        let path = |path: &str| match path.strip_prefix("/r") {
            Some(rest) => format!("{root}{rest}"),
            None => path.to_owned(),
        };
        let zxids = self.zxids.clone();
        // Steps may have been removed since the number was chosen.
        let zxid = |step: usize| zxids.iter().rev().find(|(at, _)| *at <= step).map_or(0, |&(_, zxid)| zxid);
        let mut frames = Vec::new();
        for (_, request) in requests {
            frames.push((request.op(), request.body(&path, &zxid)));
        }
        let mut sent = Vec::new();
        for (op, body) in &frames {
            sent.push(self.sessions[session].send(*op, body)?);
        }
        for ((number, request), xid) in requests.iter().zip(sent) {
            let Some(answer) = self.sessions[session].answer()? else {
                self.transcript.push(format!("s{session} #{number} closed"));
                return self.reattach(session);
            };
            self.events(session, &answer);
            self.reply(session, *number, request, xid, &answer)?;
        }
        Ok(())
    }

    fn reply(
        &mut self,
        session: usize,
        number: usize,
        request: &Request,
        xid: i32,
        answer: &Answer,
    ) -> Result<()> {
        let reply = &answer.reply;
        let op = request.op();
        if request.writes() && !shown::has_failed(op, reply) {
            self.names.transaction(reply.zxid, number);
        }
        let mut line = format!("s{session} #{number} {request:?}\n    -> ");
        if reply.xid != xid {
            write!(line, "xid {} instead of {xid} ", reply.xid)?;
        }
        write!(line, "error {} at {} ", reply.error, self.names.upto(reply.zxid))?;
        if reply.error == 0 {
            line.push_str(&shown::reply(op, &request.parts(), reply, &self.names)?);
        } else {
            write!(line, "{:?}", reply.body)?;
        }
        self.transcript.push(line);
        Ok(())
    }

    fn events(&mut self, session: usize, answer: &Answer) {
        for (_, event) in &answer.events {
            let path = self.names.path(&event.path);
            self.transcript.push(format!("s{session} event {} state {} {path}", event.kind, event.state));
        }
    }

    fn reattach(&mut self, session: usize) -> Result<()> {
        self.sessions[session].reattach(self.address)?;
        self.transcript.push(format!("s{session} reattached"));
        Ok(())
    }

    fn replace(&mut self, session: usize, number: usize) -> Result<()> {
        let new = Session::with(self.address, &Hello::default())?;
        self.names.session(new.id);
        let mut old = std::mem::replace(&mut self.sessions[session], new);
        let mut answer = old.call(op::CLOSE_SESSION, &[])?;
        answer.events.sort_by(|(_, one), (_, other)| one.cmp(other));
        self.events(session, &answer);
        self.names.transaction(answer.reply.zxid, number);
        let rest = old.connection.rest()?;
        self.transcript.push(format!(
            "s{session} #{number} closes -> error {} at {} {:?} {rest:?}",
            answer.reply.error,
            self.names.upto(answer.reply.zxid),
            answer.reply.body,
        ));
        Ok(())
    }
}
