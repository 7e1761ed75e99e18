//! Pools of objects of any type, on the engine that also keeps the byte pool's buffers.
//!
//! ```text
//! builder   options -> a pool
//! pool      the public handle
//! guard     a user's object: Deref, detach, drop
//! shared    the way to a user, and the way back
//! slot      the heap cell of one object; the list of those that wait to be dropped
//! stats     counters and snapshots
//! ```
//!
//! # Where the program's code runs
//!
//! That code is `init`, `keep`, `reset` and the objects' `Drop`. It may panic, and it may use the
//! pool. So none of it runs inside the engine, where a lock may be held or a cache claimed:
//!
//! - `init` runs after the engine has found nothing. `keep` and `reset` run before the engine gets the
//!   object back.
//! - The engine frees an object by putting it on a list ([`slot::Doomed`]). Each call of the engine
//!   that may free one is followed by [`shared::Shared::drop_doomed`], when the engine holds no lock.

mod builder;
mod guard;
mod pool;
mod shared;
mod slot;
mod stats;

pub use builder::ObjectPoolBuilder;
pub use guard::Pooled;
pub use pool::ObjectPool;
pub use stats::ObjectStats;

use crate::engine::{ClassIndex, Origin};
use slot::Slot;

/// The one class of an object pool.
const CLASS: ClassIndex = ClassIndex(0);

/// A pool's object, outside the engine or in it.
type ObjectBox<T> = Box<Slot<T>>;

/// The thread cache that an object came from.
type ObjectOrigin<T> = Origin<ObjectBox<T>>;
