//! Keeping one znode in the election, as one small step that can be repeated at any time.
//!
//! A step lists the election folder, finds or creates our znode, and sets watches for whatever could change its
//! standing. It trusts nothing but the listing: a create whose reply was lost, a step that was cancelled half way, and a
//! session taken up again after an outage all end in the same search for a znode of our address *and* our session.
//! That is what makes the create safe (the client's own `lock()` is not, after a lost reply).
//!
//! A contender watches its own znode, so that it sees its removal by someone else, and its predecessor; so the end of
//! one znode wakes one other contender, however many there are.

use std::future::pending;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};
use zookeeper_client::OneshotWatcher;

use super::EnrolPolicy;
use super::contenders::{Field, Permit, Standing, permit};
use super::session::{OperationError, Session};

/// Turns in one step before it waits a little; each further turn means that something has changed meanwhile.
const TURNS: usize = 5;
const PAUSE: Duration = Duration::from_millis(100);

/// What we know of the election and of our znode in it.
#[derive(Debug)]
pub(super) struct Election {
    /// Path of the folder.
    folder: String,
    /// Our `host:port`.
    address: String,
    /// See [`super::Config::audit_interval`].
    audit_interval: Duration,
    /// The session to which what follows belongs.
    session: Option<i64>,
    /// Name of our znode, as far as we know.
    pub(super) own: Option<String>,
    /// Our znode is the lowest.
    pub(super) leads: bool,
    /// Address of the lowest znode in the last listing.
    pub(super) leader: Option<String>,
    /// Znodes that earlier sessions of this address left behind have been removed.
    swept: bool,
    holding_back: bool,
    foreign: Vec<String>,
}

/// What to wait for before the next step.
#[derive(Debug)]
pub(super) struct Watches {
    /// The end of our znode.
    own: Option<OneshotWatcher>,
    /// The end of our predecessor, or while we hold back, any change of the folder.
    other: Option<OneshotWatcher>,
    until: Instant,
}

impl Watches {
    fn new(own: Option<OneshotWatcher>, other: Option<OneshotWatcher>, within: Duration) -> Self {
        Self { own, other, until: Instant::now() + within }
    }

    /// Returns when another step is due.
    pub(super) async fn fired(self) {
        tokio::select! {
            () = changed(self.own) => {}
            () = changed(self.other) => {}
            () = sleep_until(self.until) => {}
        }
    }
}

async fn changed(watcher: Option<OneshotWatcher>) {
    match watcher {
        Some(watcher) => drop(watcher.changed().await),
        None => pending().await,
    }
}

impl Election {
    pub(super) fn new(folder: String, address: String, audit_interval: Duration) -> Self {
        Self {
            folder,
            address,
            audit_interval,
            session: None,
            own: None,
            leads: false,
            leader: None,
            swept: false,
            holding_back: false,
            foreign: Vec::new(),
        }
    }

    /// We are in the election no more, as far as we know: the znode is deleted, or its session is over.
    pub(super) fn forget(&mut self) {
        self.own = None;
        self.leads = false;
    }

    /// Deletes our znode, if there is one, and any other of our session.
    pub(super) async fn leave(&mut self, session: &Session) -> Result<(), OperationError> {
        let Some(own) = &self.own else { return Ok(()) };
        session.delete(&self.path(own)).await?;
        info!(znode = own, "left the election");
        self.forget();
        // A second one, of a create that took effect late, would keep our place although we gave it up.
        session.sync(&self.folder).await?;
        let field = Field::new(session.children(&self.folder).await?.unwrap_or_default());
        for name in field.names_of(&self.address) {
            let path = self.path(&name);
            if session.owner(&path).await? == Some(session.id()) {
                session.delete(&path).await?;
            }
        }
        Ok(())
    }

    /// Deletes the lowest znode if it is that of `leader` and ours is the next. Another znode than the one that was listed is
    /// never deleted: no two have one name.
    pub(super) async fn impeach(&self, session: &Session, leader: &str) -> Result<bool, OperationError> {
        let Some(own) = &self.own else { return Ok(false) };
        let field = Field::new(session.children(&self.folder).await?.unwrap_or_default());
        let Some(znode) = field.impeachable(own, leader) else { return Ok(false) };
        session.delete(&self.path(&znode.name)).await?;
        Ok(true)
    }

    /// Brings our znode and our knowledge up to date. `held_since` is when the policy began to count.
    pub(super) async fn step(
        &mut self,
        session: &Session,
        policy: &EnrolPolicy,
        held_since: Instant,
    ) -> Result<Watches, OperationError> {
        if self.session != Some(session.id()) {
            self.session = Some(session.id());
            self.swept = false;
            self.forget();
        }
        for _ in 0..TURNS {
            let (field, children) = self.survey(session).await?;
            self.note(&field);
            let Some(own) = &self.own else {
                match permit(policy, &field, held_since.elapsed()) {
                    Permit::Enrol => self.enrol(session).await?,
                    Permit::HoldBack(left) => {
                        self.note_holding_back(policy);
                        return Ok(Watches::new(None, children, left.min(self.audit_interval)));
                    }
                }
                continue;
            };
            let Some(watch_own) = session.watch(&self.path(own)).await? else { continue };
            match field.standing(own) {
                Standing::Absent => continue,
                Standing::Leads => return Ok(Watches::new(Some(watch_own), None, self.audit_interval)),
                Standing::Follows(predecessor) => {
                    if let Some(watch) = session.watch(&self.path(&predecessor.name)).await? {
                        return Ok(Watches::new(Some(watch_own), Some(watch), self.audit_interval));
                    }
                }
            }
        }
        Ok(Watches::new(None, None, PAUSE))
    }

    /// Lists the election; where we have no znode (any more), looks for one that is ours after all, and watches the
    /// folder in case we do not enrol at once.
    async fn survey(&mut self, session: &Session) -> Result<(Field, Option<OneshotWatcher>), OperationError> {
        if let Some(own) = &self.own {
            let mut field = Field::new(session.children(&self.folder).await?.unwrap_or_default());
            if field.standing(own) != Standing::Absent {
                if field.names_of(&self.address).len() > 1 {
                    self.adopt(session, &mut field).await?;
                }
                return Ok((field, None));
            }
            warn!(znode = own, "our znode has been deleted by someone else");
            self.forget();
        }
        session.sync(&self.folder).await?;
        let (names, watch) = session.watch_children(&self.folder).await?;
        let mut field = Field::new(names);
        self.adopt(session, &mut field).await?;
        Ok((field, Some(watch)))
    }

    /// Among the znodes of our address, takes the lowest that belongs to our session unless we have one, and deletes
    /// the surplus and what earlier sessions left. (There is a surplus when a create on a broken connection takes
    /// effect after we looked for it on the next one: the server reads them independently.)
    ///
    /// Deleting the earlier ones spares the others the rest of our former session's timeout after a quick restart.
    /// It is safe even if that process still lives, or if two nodes were given one address by mistake: the election
    /// only proposes who should lead, and epochs decide. Once per session is enough, and more would make two such
    /// nodes delete each other's znodes for ever.
    async fn adopt(&mut self, session: &Session, field: &mut Field) -> Result<(), OperationError> {
        for name in field.names_of(&self.address) {
            if self.own.as_ref() == Some(&name) {
                continue;
            }
            let path = self.path(&name);
            match session.owner(&path).await? {
                None => field.remove(&name),
                Some(owner) if owner == session.id() && self.own.is_none() => self.own = Some(name),
                Some(owner) if owner == session.id() || !self.swept => {
                    info!(znode = name, "removing a znode that this node left behind earlier");
                    session.delete(&path).await?;
                    field.remove(&name);
                }
                Some(_) => warn!(
                    znode = name,
                    "another process contends with this node's address; check the addresses"
                ),
            }
        }
        self.swept = true;
        Ok(())
    }

    async fn enrol(&mut self, session: &Session) -> Result<(), OperationError> {
        self.holding_back = false;
        session.create_contender(&format!("{}/{}_", self.folder, self.address)).await
    }

    fn note(&mut self, field: &Field) {
        self.leader = field.lowest().map(|lowest| lowest.address.clone());
        self.leads = self.own.as_ref().is_some_and(|own| field.standing(own) == Standing::Leads);
        if self.foreign != field.foreign {
            self.foreign.clone_from(&field.foreign);
            if !self.foreign.is_empty() {
                warn!(folder = self.folder, names = ?self.foreign, "ignoring znodes that are not contenders");
            }
        }
    }

    fn note_holding_back(&mut self, policy: &EnrolPolicy) {
        if !self.holding_back {
            self.holding_back = true;
            match policy {
                EnrolPolicy::Wait { incumbent, .. } if !incumbent.is_empty() => {
                    info!(
                        leader = incumbent,
                        "lets the leader that is still heard enrol in the election first"
                    );
                }
                EnrolPolicy::Wait { .. } | EnrolPolicy::Enrol => debug!("does not enrol in the election yet"),
            }
        }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }
}
