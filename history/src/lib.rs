//! Histories of what clients asked and heard, and whether they are linearizable.
//!
//! A history is a set of [`Operation`]s, each on one key. Values that are put are never repeated within a history, so a
//! value names the operation that wrote it, and every answer carries the version that it speaks of.
//!
//! [`check()`] decides whether all that was heard fits one order of all operations: one in which each takes effect at
//! some moment between its call and its return, and in which writes stand in the order of their versions, over all keys,
//! since versions are positions in one log. It does so twice, in ways that share only what the answers say:
//!
//! - `versions` lets time pass and keeps the highest version that is known to have been reached. This is the stricter one.
//! - [`zones()`] never compares versions. It looks at each key alone, and at the time during which each of its values must
//!   have been there (Gibbons and Korach, Testing Shared Memories, SIAM J. Comput. 1997). It cannot tell that a write has
//!   a lower version than one that was acknowledged before, that reads of two keys contradict each other, or which
//!   delete an absent key is owed to.
//!
//! Both take time in proportion to n log n. [`search`](search()) tries all orders instead. It is for short histories, for the tests, and for
//! the rare key where it matters which of several unanswered requests took effect.
//!
//! What is not answered may have taken effect at any time after its call, or never. What failed has no effect. An absent
//! key has no version: absence is owed to the beginning, to a delete at a known version, or to one that was not answered.

mod check;
mod facts;
mod gaps;
mod html;
mod operation;
mod search;
mod stale;
mod unanswered;
mod versions;
mod violation;
mod zones;

pub use check::{Checked, check, check_local};
pub use html::html;
pub use operation::{Action, Operation, Outcome};
pub use search::{Order, search};
pub use stale::Stale;
pub use violation::Violation;
pub use zones::zones;
