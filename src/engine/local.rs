//! A thread's notes on the pools that it uses: where its caches are, and what to do when it ends.
//!
//! Owns this crate's thread-local variables. Knows nothing of items: a cache is
//! an address here.
//!
//! The memo has no destructor, so on most systems it can be read at any time, also while the thread
//! is being torn down. (Where thread-locals are made of the system's keys, it may end and begin
//! anew, empty. Then the thread only loses its fast path.) The list of pools has a destructor. It
//! empties the memo before it lets go of any cache. From then on the thread has no cache, and gets
//! none again.

use crate::sync::{Ordering, StaticUsize, thread_local};
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::ptr;
use std::sync::{Mutex, PoisonError, Weak};

/// Names an engine for the life of the process; not 0, and never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EngineId(u64);

impl EngineId {
    /// The id in a place of a memo that remembers nothing.
    const NONE: EngineId = EngineId(0);
    /// An id that belongs to no engine and is in no memo.
    pub(super) const NOBODY: EngineId = EngineId(u64::MAX);

    /// A new id. It shares its place in the memos with as few living engines as possible.
    pub(super) fn next() -> EngineId {
        let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
        let least = (0..RECENT).min_by_key(|&place| given.alive[place]);
        let place = least.expect("there is at least one place");
        given.alive[place] += 1;
        given.last += 1;
        EngineId(given.last * RECENT as u64 + place as u64)
    }

    /// Notes that the engine has ended.
    pub(super) fn end(self) {
        let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
        given.alive[self.place()] -= 1;
    }

    #[inline(always)]
    fn place(self) -> usize {
        self.0 as usize % RECENT
    }
}

/// The ids given so far.
struct Given {
    // Not an atomic: not every machine has 64-bit ones, and an id must never come again, since
    // a memo may outlive the engine that it names.
    last: u64,
    /// How many living engines have each place.
    alive: [usize; RECENT],
}

static GIVEN: Mutex<Given> = Mutex::new(Given {
    last: 0,
    alive: [0; RECENT],
});

/// Names a thread for the life of the process; a multiple of [`Token::STEP`],
/// and never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    number: usize,
    /// Not `Send`: only the thread itself may have its token, or code that has checked it.
    _this_thread: PhantomData<*const ()>,
}

impl Token {
    /// The first thread's token. Lower numbers name no thread and no owner.
    pub(super) const LEAST: usize = 3 * Self::STEP;
    /// The step from one thread's token to the next. The bits between are for marks, which the
    /// owner of a cache and the holder of an origin add to their copies.
    pub(super) const STEP: usize = 64;
    /// The token of a thread that owns no cache, now or ever.
    const NONE: Token = Token::new(Self::STEP);
    /// No thread's token, not even that of a thread without caches.
    pub(super) const NOBODY: Token = Token::new(2 * Self::STEP);

    const fn new(number: usize) -> Self {
        Token {
            number,
            _this_thread: PhantomData,
        }
    }

    #[inline(always)]
    pub(super) fn get(self) -> usize {
        self.number
    }

    /// The token with these bits set, which are below [`STEP`](Self::STEP). With any of them set,
    /// it is no thread's token.
    #[inline(always)]
    pub(super) fn with(self, bits: usize) -> Self {
        Token::new(self.number | bits)
    }

    /// The token without these bits.
    #[inline(always)]
    pub(super) fn without(self, bits: usize) -> Self {
        Token::new(self.number & !bits)
    }

    /// The bits below [`STEP`](Self::STEP).
    #[inline(always)]
    pub(super) fn bits(self) -> usize {
        self.number % Self::STEP
    }

    /// The calling thread's token, made at the first call.
    ///
    /// `None` once the thread has let go of its caches for good.
    pub(super) fn of_this_thread() -> Option<Token> {
        MEMO.with(|memo| {
            if memo.torn_down.get() {
                return None;
            }
            if memo.token.get() == Token::NONE {
                memo.token.set(Token::next()?);
            }
            Some(memo.token.get())
        })
    }

    /// `None` if no number is left. Where `usize` has 32 bits, that happens after some 60 million
    /// threads: later ones have no cache.
    fn next() -> Option<Token> {
        static NEXT: StaticUsize = StaticUsize::new(Token::LEAST);
        let after = |next: usize| next.checked_add(Token::STEP);
        // Relaxed: one exchange hands out one number, and nothing else is ordered by it.
        let next = NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
        next.ok().map(Token::new)
    }
}

// So `Origin::is_none` can compare with one number, whether there are marks or not.
const _: () = assert!(Token::NOBODY.number + Token::STEP <= Token::LEAST);

/// Called when a thread that has a cache ends.
pub(super) trait ThreadExit: Send + Sync {
    /// Hands on the items that the calling thread, `me`, cached at `caches`, and makes the caches
    /// free.
    fn thread_exit(&self, me: Token, caches: *const ());
}

/// The data that a thread must find at every get and drop.
struct Memo {
    /// Engines that this thread used lately. An engine's place is given by its id.
    recent: [Cell<EngineId>; RECENT],
    /// Where this thread's caches in these engines are. A separate array: arrays of single words
    /// are indexed in one instruction.
    caches: [Cell<*const ()>; RECENT],
    token: Cell<Token>,
    /// Set once the thread has let go of its caches for good.
    torn_down: Cell<bool>,
}

/// 64: a thread that uses 64 pools in turn finds its caches in each at once. This takes a kilobyte
/// of each thread.
const RECENT: usize = 64;

/// A pool in which this thread has caches.
struct Attached {
    id: EngineId,
    engine: Weak<dyn ThreadExit>,
    caches: *const (),
    /// The token under which the thread has caches there. Kept here as well, since the memo may be
    /// gone first.
    token: Token,
}

/// The pools in which this thread has caches, and some that are gone.
struct AllAttached {
    /// By ascending id. Most are attached in that order.
    // A vector, since a map cannot reserve room for entries.
    pools: RefCell<Vec<Attached>>,
    /// How many entries there must be before pools that are gone are looked for.
    look_at: Cell<usize>,
}

impl Drop for AllAttached {
    fn drop(&mut self) {
        MEMO.with(|memo| {
            for engine in &memo.recent {
                engine.set(EngineId::NONE);
            }
            memo.token.set(Token::NONE);
            memo.torn_down.set(true);
        });
        for attached in self.pools.take() {
            if let Some(engine) = attached.engine.upgrade() {
                engine.thread_exit(attached.token, attached.caches);
            }
        }
    }
}

thread_local! {
    static MEMO: Memo = const {
        Memo {
            recent: [const { Cell::new(EngineId::NONE) }; RECENT],
            caches: [const { Cell::new(ptr::null()) }; RECENT],
            token: Cell::new(Token::NONE),
            torn_down: Cell::new(false),
        }
    };
    static ATTACHED: AllAttached = const {
        AllAttached {
            pools: RefCell::new(Vec::new()),
            look_at: Cell::new(4),
        }
    };
}

/// This thread's token and its caches in `engine`, if it used that engine lately.
#[inline(always)]
pub(super) fn recall(engine: EngineId) -> Option<(Token, *const ())> {
    MEMO.with(|memo| {
        let place = engine.place();
        (memo.recent[place].get() == engine).then(|| (memo.token.get(), memo.caches[place].get()))
    })
}

/// Whether the calling thread is `token`'s.
#[inline(always)]
pub(super) fn is_this_thread(token: Token) -> bool {
    MEMO.with(|memo| memo.token.get() == token)
}

/// Makes [`recall`] find `engine`.
pub(super) fn remember(engine: EngineId, caches: *const ()) {
    MEMO.with(|memo| {
        memo.recent[engine.place()].set(engine);
        memo.caches[engine.place()].set(caches);
    });
}

/// This thread's caches in `engine` and their token, if it has any.
///
/// # Panics
///
/// - If the thread has let go of its caches for good; it has no token then.
pub(super) fn find(engine: EngineId) -> Option<(Token, *const ())> {
    ATTACHED.with(|all| {
        let pools = all.pools.borrow();
        let at = pools.binary_search_by_key(&engine, |attached| attached.id);
        let attached = &pools[at.ok()?];
        Some((attached.token, attached.caches))
    })
}

/// Makes room for one more pool. Returns `false` if the heap refuses.
///
/// # Panics
///
/// - As [`find`].
pub(super) fn reserve() -> bool {
    ATTACHED.with(|all| {
        let mut pools = all.pools.borrow_mut();
        if pools.len() >= all.look_at.get() {
            pools.retain(|attached| attached.engine.strong_count() > 0);
            // Twice the living pools: so the search for pools that are gone costs constant time per
            // pool.
            all.look_at.set(4.max(2 * pools.len()));
            // Shrinks a list that many pools at once have left, if the heap has a smaller one.
            let enough = all.look_at.get();
            let mut smaller = Vec::new();
            if pools.capacity() > 2 * enough && smaller.try_reserve_exact(enough).is_ok() {
                smaller.append(&mut pools);
                *pools = smaller;
            }
        }
        pools.try_reserve(1).is_ok()
    })
}

/// Makes [`find`] find `engine`, and notifies `engine` when this thread ends. Allocates nothing
/// after [`reserve`] found room.
///
/// A pool that is gone takes a few words here, until its entry is removed. There are at most twice
/// as many entries as pools were alive at the last search, or four.
///
/// # Panics
///
/// - As [`find`].
pub(super) fn attach(token: Token, id: EngineId, engine: Weak<dyn ThreadExit>, caches: *const ()) {
    ATTACHED.with(|all| {
        let mut pools = all.pools.borrow_mut();
        let attached = Attached {
            id,
            engine,
            caches,
            token,
        };
        match pools.binary_search_by_key(&id, |attached| attached.id) {
            Ok(at) => pools[at] = attached,
            Err(at) => pools.insert(at, attached),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    // Otherwise they would push each other out of the memo, and each get would take the slow path.
    #[test]
    fn pools_that_live_at_once_have_different_places() {
        // Other tests of this process have a few pools, too.
        const MOST: usize = RECENT / 2;
        let mut living = Vec::new();
        for round in 0..10 {
            while living.len() < MOST {
                living.push(EngineId::next());
            }
            let mut taken = [0; RECENT];
            living.iter().for_each(|id| taken[id.place()] += 1);
            assert!(taken.iter().all(|&engines| engines <= 1), "{round}");
            // Some of them end, at the beginning, in the middle and at the end.
            for at in [MOST - 1, MOST / 2, round, 0] {
                living.swap_remove(at.min(living.len() - 1)).end();
            }
        }
        living.into_iter().for_each(EngineId::end);
    }
}
