//! What a thread keeps about the pools that it uses: a memo, and what to do at its exit.
//!
//! Owns this crate's thread-local variables. Knows nothing of items: a cache is
//! an address here.
//!
//! The memo has no destructor, so it can be read at any time, also while the
//! thread is being torn down. The list of pools has one, and it empties the
//! memo before it lets go of any cache; from then on the thread has no cache
//! and is not given one again.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::ptr;
use std::sync::Weak;

/// Names an engine for the life of the process; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EngineId(pub(super) u64);

impl EngineId {
    /// Names no engine, and is never remembered: [`recall`] finds nothing for it.
    pub(crate) const NONE: EngineId = EngineId(0);
    /// What a memo holds that remembers nothing. Differs from `NONE`, so that
    /// asking for `NONE` does not find an empty memo.
    const FORGOTTEN: EngineId = EngineId(u64::MAX);
}

/// Names the calling thread among all that are alive: an address in its own memory.
#[derive(Clone, Copy)]
pub(super) struct Token {
    address: usize,
    /// Not `Send`: a token speaks for the thread that asked for it.
    _this_thread: PhantomData<*const ()>,
}

impl Token {
    /// The calling thread's token.
    #[inline(always)]
    pub(super) fn current() -> Self {
        MEMO.with(Memo::token)
    }

    #[inline(always)]
    pub(super) fn get(self) -> usize {
        self.address
    }
}

/// Called when a thread that has a cache ends.
pub(super) trait ThreadExit: Send + Sync {
    /// Hands on what the calling thread cached at `caches`, and makes the cache free.
    fn thread_exit(&self, caches: *const ());
}

/// The engine that this thread used last, and where its cache there is.
struct Memo {
    engine: Cell<EngineId>,
    caches: Cell<*const ()>,
    /// Set once the thread has let go of its caches for good.
    torn_down: Cell<bool>,
}

impl Memo {
    #[inline(always)]
    fn token(&self) -> Token {
        Token {
            address: ptr::from_ref(self).addr(),
            _this_thread: PhantomData,
        }
    }
}

/// The pools in which this thread has a cache.
struct Exits(RefCell<Vec<(Weak<dyn ThreadExit>, *const ())>>);

impl Drop for Exits {
    fn drop(&mut self) {
        MEMO.with(|memo| {
            memo.engine.set(EngineId::FORGOTTEN);
            memo.torn_down.set(true);
        });
        // Taken out first: letting go of the last reference to a pool runs
        // code that may look here again.
        for (engine, caches) in self.0.take() {
            if let Some(engine) = engine.upgrade() {
                engine.thread_exit(caches);
            }
        }
    }
}

thread_local! {
    static MEMO: Memo = const {
        Memo {
            engine: Cell::new(EngineId::FORGOTTEN),
            caches: Cell::new(ptr::null()),
            torn_down: Cell::new(false),
        }
    };
    static EXITS: Exits = const { Exits(RefCell::new(Vec::new())) };
}

/// This thread's token and its caches in `engine`, if it used that engine last.
#[inline(always)]
pub(super) fn recall(engine: EngineId) -> Option<(Token, *const ())> {
    MEMO.with(|memo| (memo.engine.get() == engine).then(|| (memo.token(), memo.caches.get())))
}

/// Makes `engine` the one that [`recall`] finds.
pub(super) fn remember(engine: EngineId, caches: *const ()) {
    MEMO.with(|memo| {
        memo.engine.set(engine);
        memo.caches.set(caches);
    });
}

/// Whether this thread has let go of its caches for good.
pub(super) fn torn_down() -> bool {
    MEMO.with(|memo| memo.torn_down.get())
}

/// Has `engine` told when this thread ends. Says whether that will happen.
///
/// What is kept here is bounded by twice the pools alive in which this thread
/// has a cache.
#[must_use]
pub(super) fn at_exit(engine: Weak<dyn ThreadExit>, caches: *const ()) -> bool {
    EXITS
        .try_with(|exits| {
            let mut list = exits.0.borrow_mut();
            if list.len() == list.capacity() {
                list.retain(|(engine, _)| engine.strong_count() > 0);
                // Doubling what is alive keeps the cost of looking through
                // the list constant per pool.
                let alive = list.len();
                list.reserve(alive.max(4));
            }
            list.push((engine, caches));
        })
        .is_ok()
}
