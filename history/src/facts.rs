//! What the answers say by themselves, before any order: which version is whose, and what each key went through.

use std::collections::HashMap;

use crate::violation::Violation;
use crate::{Action, Operation, Outcome};

/// What an operation tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Nothing: it failed, or its answer is not known and nobody saw what it may have done.
    Nothing,
    /// It took effect as this link.
    Write(usize),
    /// It found the key as this link made it.
    Present(usize),
    /// It found no such key.
    Absent,
    /// A delete that may have taken effect.
    MaybeDelete,
    /// A put or compare-and-set that may have taken effect, but whose value nobody saw.
    MaybePut,
}

/// A version of a key that is known to have been there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) version: u64,
    pub(crate) key: usize,
    /// Who made it. `None`: only its version was seen, so it must have been one that was not answered.
    pub(crate) writer: Option<usize>,
    /// Whether the key is absent from here on.
    pub(crate) is_delete: bool,
    /// An operation that speaks of this version.
    pub(crate) witness: usize,
    /// Its place in its key's chain.
    pub(crate) place: usize,
}

/// A history whose answers fit together, apart from their times.
pub(crate) struct Facts<'a> {
    pub(crate) operations: &'a [Operation],
    /// The key of each operation, numbered.
    pub(crate) keys: Vec<usize>,
    pub(crate) roles: Vec<Role>,
    pub(crate) links: Vec<Link>,
    /// The links of each key, by version.
    pub(crate) chains: Vec<Vec<usize>>,
}

impl<'a> Facts<'a> {
    /// Gathers them.
    pub(crate) fn new(operations: &'a [Operation]) -> Result<Self, Box<Violation>> {
        let mut gathering = Gathering::new(operations)?;
        gathering.acknowledged()?;
        gathering.found()?;
        gathering.spoken_of()?;
        Ok(gathering.finish())
    }

    /// When the operation was answered; for ever after, if it may take effect at any time.
    pub(crate) fn end(&self, operation: usize) -> u64 {
        end(&self.operations[operation])
    }

    /// The link after this one in its key's chain.
    pub(crate) fn next(&self, link: usize) -> Option<usize> {
        let Link { key, place, .. } = self.links[link];
        self.chains[key].get(place + 1).copied()
    }

    /// The link before this one.
    pub(crate) fn previous(&self, link: usize) -> Option<usize> {
        let Link { key, place, .. } = self.links[link];
        place.checked_sub(1).map(|place| self.chains[key][place])
    }

    /// The version that a write needed its key to be at, if it needed one and took effect.
    pub(crate) fn expected(&self, link: usize) -> Option<u64> {
        match self.operations[self.links[link].writer?].action {
            Action::CompareAndSet { expected, .. } => Some(expected),
            Action::Get | Action::Put { .. } | Action::Delete => None,
        }
    }

    /// The operation that made a link, or one that speaks of it.
    pub(crate) fn origin(&self, link: usize) -> &'a Operation {
        let Link { writer, witness, .. } = self.links[link];
        &self.operations[writer.unwrap_or(witness)]
    }

    /// The operations that show that there was this version: who made it and, if that was not answered, who saw it.
    pub(crate) fn shown(&self, link: usize) -> impl Iterator<Item = &'a Operation> + use<'a> {
        let origin = self.origin(link);
        let is_answered = matches!(origin.outcome, Outcome::Applied { .. });
        let witness = &self.operations[self.links[link].witness];
        [Some(origin), (!is_answered).then_some(witness)].into_iter().flatten()
    }
}

/// When an operation was answered; for ever after, if it may take effect at any time.
pub(crate) fn end(operation: &Operation) -> u64 {
    match operation.outcome {
        Outcome::Unknown => u64::MAX,
        _ => operation.returned.unwrap_or(u64::MAX),
    }
}

/// Facts that are being gathered.
struct Gathering<'a> {
    operations: &'a [Operation],
    keys: Vec<usize>,
    key_count: usize,
    writers: HashMap<&'a str, usize>,
    roles: Vec<Role>,
    links: Vec<Link>,
    by_version: HashMap<u64, usize>,
}

impl<'a> Gathering<'a> {
    fn new(operations: &'a [Operation]) -> Result<Self, Box<Violation>> {
        let mut names: HashMap<&str, usize> = HashMap::new();
        let mut keys = Vec::with_capacity(operations.len());
        let mut writers = HashMap::with_capacity(operations.len());
        for (index, operation) in operations.iter().enumerate() {
            let next = names.len();
            keys.push(*names.entry(&operation.key).or_insert(next));
            if !is_an_answer(operation) {
                return Err(Violation::new("An operation has an answer that is none to it.", [operation]));
            }
            let (Action::Put { value } | Action::CompareAndSet { value, .. }) = &operation.action else {
                continue;
            };
            if let Some(other) = writers.insert(value.as_str(), index) {
                let both = [&operations[other], operation];
                return Err(Violation::new(
                    "Two operations write the same value, so it does not tell which of them is seen.",
                    both,
                ));
            }
        }
        Ok(Self {
            operations,
            keys,
            key_count: names.len(),
            writers,
            roles: vec![Role::Nothing; operations.len()],
            links: Vec::new(),
            by_version: HashMap::with_capacity(operations.len()),
        })
    }

    /// What writes were told about themselves.
    fn acknowledged(&mut self) -> Result<(), Box<Violation>> {
        for (index, operation) in self.operations.iter().enumerate() {
            self.roles[index] = match (&operation.action, &operation.outcome) {
                (action, Outcome::Applied { version }) => {
                    let is_delete = *action == Action::Delete;
                    Role::Write(self.add(*version, index, Some(index), is_delete)?)
                }
                (_, Outcome::Absent | Outcome::Mismatch { actual: 0 }) => Role::Absent,
                (Action::Delete, Outcome::Unknown) => Role::MaybeDelete,
                (Action::Put { .. } | Action::CompareAndSet { .. }, Outcome::Unknown) => Role::MaybePut,
                (
                    _,
                    Outcome::Found { .. } | Outcome::Mismatch { .. } | Outcome::Failed | Outcome::Unknown,
                ) => Role::Nothing,
            };
        }
        Ok(())
    }

    /// What reads found, and with it which writes took effect that were not answered.
    fn found(&mut self) -> Result<(), Box<Violation>> {
        for (index, operation) in self.operations.iter().enumerate() {
            let Outcome::Found { value, version } = &operation.outcome else { continue };
            let Some(&writer) = self.writers.get(value.as_str()) else {
                return Err(Violation::new("A read found a value that nobody wrote.", [operation]));
            };
            let wrote = &self.operations[writer];
            if wrote.key != operation.key {
                return Err(Violation::new(
                    "A read found a value that was written to another key.",
                    [wrote, operation],
                ));
            }
            match self.roles[writer] {
                Role::Nothing | Role::Absent => {
                    let reason = "A read found the value of a write that was not applied.";
                    return Err(Violation::new(reason, [wrote, operation]));
                }
                Role::Write(link) if self.links[link].version != *version => {
                    let other = &self.operations[self.links[link].witness];
                    let first = self.links[link].version;
                    let reason = format!("One value is at version {first} and at version {version}.");
                    return Err(Violation::new(reason, [wrote, other, operation]));
                }
                Role::Write(link) => self.roles[index] = Role::Present(link),
                Role::MaybePut | Role::MaybeDelete | Role::Present(_) => {
                    let link = self.add(*version, index, Some(writer), false)?;
                    self.roles[writer] = Role::Write(link);
                    self.roles[index] = Role::Present(link);
                }
            }
        }
        Ok(())
    }

    /// Versions that answers and conditions speak of without a value.
    fn spoken_of(&mut self) -> Result<(), Box<Violation>> {
        for (index, operation) in self.operations.iter().enumerate() {
            let Action::CompareAndSet { expected, .. } = operation.action else { continue };
            match (&operation.outcome, self.roles[index]) {
                (Outcome::Mismatch { actual }, _) if *actual == expected => {
                    let reason = "A condition was refused although what it was told is what it asked for.";
                    return Err(Violation::new(reason, [operation]));
                }
                (Outcome::Mismatch { actual: 1.. }, _) => {
                    let Outcome::Mismatch { actual } = operation.outcome else { continue };
                    self.roles[index] = Role::Present(self.speaks_of(actual, index)?);
                }
                (_, Role::Write(_)) if expected > 0 => {
                    self.speaks_of(expected, index)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The link of a version that an operation says its key was at.
    fn speaks_of(&mut self, version: u64, index: usize) -> Result<usize, Box<Violation>> {
        let Some(&link) = self.by_version.get(&version) else { return self.add(version, index, None, false) };
        let known = self.links[link];
        if known.key == self.keys[index] && !known.is_delete {
            return Ok(link);
        }
        let what = if known.is_delete { "a delete" } else { "a write to another key" };
        let reason = format!("A key was at version {version}, which is that of {what}.");
        Err(Violation::new(reason, [&self.operations[known.witness], &self.operations[index]]))
    }

    /// Notes that a version is there.
    fn add(
        &mut self,
        version: u64,
        witness: usize,
        writer: Option<usize>,
        is_delete: bool,
    ) -> Result<usize, Box<Violation>> {
        let operation = &self.operations[witness];
        if version == 0 {
            return Err(Violation::new("Something is there at version 0, which no entry has.", [operation]));
        }
        if let Some(&other) = self.by_version.get(&version) {
            let other = self.links[other];
            let involved = [Some(other.witness), other.writer, Some(witness), writer];
            let reason = format!("Two writes have the same version {version}.");
            return Err(Violation::new(reason, involved.into_iter().flatten().map(|i| &self.operations[i])));
        }
        let link = Link { version, key: self.keys[witness], writer, is_delete, witness, place: 0 };
        self.links.push(link);
        self.by_version.insert(version, self.links.len() - 1);
        Ok(self.links.len() - 1)
    }

    fn finish(mut self) -> Facts<'a> {
        let mut chains = vec![Vec::new(); self.key_count];
        for (index, link) in self.links.iter().enumerate() {
            chains[link.key].push(index);
        }
        for chain in &mut chains {
            chain.sort_unstable_by_key(|&link| self.links[link].version);
            for (place, &link) in chain.iter().enumerate() {
                self.links[link].place = place;
            }
        }
        let Self { operations, keys, roles, links, .. } = self;
        Facts { operations, keys, roles, links, chains }
    }
}

/// Whether an operation can be answered so at all.
const fn is_an_answer(operation: &Operation) -> bool {
    match operation.outcome {
        Outcome::Failed | Outcome::Unknown => true,
        Outcome::Found { .. } => matches!(operation.action, Action::Get),
        Outcome::Absent => matches!(operation.action, Action::Get | Action::Delete),
        Outcome::Applied { .. } => !matches!(operation.action, Action::Get),
        Outcome::Mismatch { .. } => matches!(operation.action, Action::CompareAndSet { .. }),
    }
}
