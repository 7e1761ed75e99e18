//! A heap that refuses. The calls under test promise not to end the process. Each of their
//! allocations is refused once, in several ways.
//!
//! After each refusal, nothing is corrupt, nothing is leaked, and the accounts balance.

mod common {
    pub mod accounts;
    pub mod booking;
}

use bytes::{Buf, BufMut, BytesMut};
use common::accounts::assert_accounts_balance;
use common::booking::{self, Books};
use std::alloc::Layout;
use std::cell::Cell;
use std::env;
use std::process::{self, Command};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use tierpool::{Builder, ConfigError, Counts, GetError, Pool, PooledBuf, PooledBytes};

// ---- the heap ----

#[global_allocator]
static HEAP: booking::Booking<Heap> = booking::Booking::new();

struct Heap;

/// The blocks of one test's threads, and the limits on them.
struct Ledger {
    blocks: AtomicUsize,
    bytes: AtomicUsize,
    /// How many requests came from a thread that may be refused.
    asked: AtomicUsize,
    refused: AtomicUsize,
    /// The requests that are refused: this many are granted, then `then_refused` are refused, and
    /// the others are granted.
    granted_first: AtomicUsize,
    then_refused: AtomicUsize,
    /// Each n-th request is refused; 0 for none.
    refused_every: AtomicUsize,
    /// A larger request is refused.
    size_max: AtomicUsize,
    /// A request that would bring the total above this is refused.
    bytes_max: AtomicUsize,
}

/// Ledger 0 is for threads that have joined none.
static LEDGERS: [Ledger; 19] = [const { Ledger::new() }; 19];

/// The most bytes that the pool takes for a moment, to check whether a foreign buffer is whole.
const LOOK_BYTES_MAX: usize = 4 * size_of::<usize>();

/// The last block that the calling thread received or freed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Other,
    Got(Layout),
    /// Freed right after it was received.
    GaveBack(Layout),
}

thread_local! {
    static MAY_BE_REFUSED: Cell<bool> = const { Cell::new(false) };
    static LAST: Cell<Last> = const { Cell::new(Last::Other) };
}

impl Ledger {
    const fn new() -> Self {
        Ledger {
            blocks: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            granted_first: AtomicUsize::new(usize::MAX),
            then_refused: AtomicUsize::new(0),
            refused_every: AtomicUsize::new(0),
            size_max: AtomicUsize::new(usize::MAX),
            bytes_max: AtomicUsize::new(usize::MAX),
        }
    }

    fn refuses(&self, size: usize) -> bool {
        let asked = self.asked.fetch_add(1, SeqCst);
        let first = self.granted_first.load(SeqCst);
        let every = self.refused_every.load(SeqCst);
        let refused = (asked >= first && asked - first < self.then_refused.load(SeqCst))
            || every > 0 && asked % every == every - 1
            || size > self.size_max.load(SeqCst)
            || self.bytes.load(SeqCst).saturating_add(size) > self.bytes_max.load(SeqCst);
        self.refused.fetch_add(refused.into(), SeqCst);
        refused
    }

    fn live(&self) -> (usize, usize) {
        (self.blocks.load(SeqCst), self.bytes.load(SeqCst))
    }

    /// Restarts the count, and sets which requests are refused.
    fn refuse(&self, how: How) {
        self.granted_first.store(usize::MAX, SeqCst);
        self.then_refused.store(0, SeqCst);
        self.refused_every.store(0, SeqCst);
        self.size_max.store(usize::MAX, SeqCst);
        self.bytes_max.store(usize::MAX, SeqCst);
        match how {
            How::Nothing => (),
            How::From { granted, refused } => {
                self.granted_first.store(granted, SeqCst);
                self.then_refused.store(refused, SeqCst);
            }
            How::Every(every) => self.refused_every.store(every, SeqCst),
            How::Above(size) => self.size_max.store(size, SeqCst),
            How::InAll(bytes) => self.bytes_max.store(bytes, SeqCst),
        }
        self.asked.store(0, SeqCst);
        self.refused.store(0, SeqCst);
    }
}

/// The requests that a heap refuses.
#[derive(Clone, Copy, Debug)]
enum How {
    Nothing,
    /// Grants this many requests, then refuses this many.
    From {
        granted: usize,
        refused: usize,
    },
    /// Refuses each n-th request.
    Every(usize),
    /// Refuses requests above this size.
    Above(usize),
    /// Refuses requests that bring the total above this size.
    InAll(usize),
}

impl Books for Heap {
    fn refuses(ledger: usize, layout: Layout) -> bool {
        let last = LAST.replace(Last::Other);
        if !MAY_BE_REFUSED.get() {
            return false;
        }
        // A few words that this thread has freed last are available again. Most heaps behave
        // so, since they have a list for each thread. Only the check whether a foreign buffer is
        // whole needs that.
        let there = matches!(last, Last::GaveBack(had) if had.size() <= LOOK_BYTES_MAX
            && had.size() >= layout.size() && had.align() >= layout.align());
        !there && LEDGERS[ledger].refuses(layout.size())
    }

    fn allocated(ledger: usize, layout: Layout) {
        LAST.set(Last::Got(layout));
        LEDGERS[ledger].blocks.fetch_add(1, SeqCst);
        LEDGERS[ledger].bytes.fetch_add(layout.size(), SeqCst);
    }

    fn freed(ledger: usize, layout: Layout) {
        LAST.set(match LAST.get() == Last::Got(layout) {
            true => Last::GaveBack(layout),
            false => Last::Other,
        });
        LEDGERS[ledger].blocks.fetch_sub(1, SeqCst);
        LEDGERS[ledger].bytes.fetch_sub(layout.size(), SeqCst);
    }
}

/// Runs work whose requests may be refused, and which must not end the process then.
fn tried<T>(work: impl FnOnce() -> T) -> T {
    MAY_BE_REFUSED.set(true);
    let done = work();
    MAY_BE_REFUSED.set(false);
    done
}

/// Runs `work` on a new thread that has joined `ledger`, up to the thread's end. Requests at that
/// end may be refused, too.
fn on_a_thread<T: Send>(ledger: usize, work: impl FnOnce() -> T + Send) -> T {
    let run = || {
        booking::join(ledger);
        let done = work();
        MAY_BE_REFUSED.set(true);
        done
    };
    thread::scope(|scope| scope.spawn(run).join().unwrap())
}

// ---- the script ----

/// The sizes of one round: each class, its limits, and one above them.
const SIZES: [usize; 7] = [0, 64, 65, 900, 1000, 4000, 6000];
/// More buffers of one class than fit in a thread's cache and in the depot's first queue of loose
/// ones.
const MANY: usize = 70;

fn options() -> Builder {
    Pool::builder()
        .classes([64, 1000, 4096])
        .trim_interval(None)
}

/// A guard, and its expected contents.
struct Stamped {
    buf: PooledBuf,
    stamp: u8,
    len: usize,
}

/// The guards of a script, and its observations.
struct Script {
    pool: Pool,
    held: Vec<Stamped>,
    failed: usize,
}

impl Script {
    fn new(options: Builder) -> Self {
        Script {
            pool: options.build().unwrap(),
            held: Vec::with_capacity(4 * MANY),
            failed: 0,
        }
    }

    /// Takes a guard, and fills `size` bytes, or notes that it was refused.
    fn take(&mut self, size: usize) {
        match tried(|| self.pool.try_get(size)) {
            Ok(buf) => self.stamp(buf, size),
            Err(error) => {
                assert!(matches!(error, GetError::OutOfMemory { size: said, .. } if said == size));
                self.failed += 1;
            }
        }
    }

    /// Fills a guard with a new byte value, without allocating.
    fn stamp(&mut self, mut buf: PooledBuf, len: usize) {
        assert!(buf.is_empty() && buf.capacity() >= len);
        let stamp = self.held.len() as u8;
        tried(|| buf.put_bytes(stamp, len));
        self.held.push(Stamped { buf, stamp, len });
    }

    /// Reserves `additional` bytes in the latest guard, or notes that it was refused. In either
    /// case the guard's contents stay.
    fn reserve(&mut self, additional: usize) {
        let Some(Stamped { buf, len, .. }) = self.held.last_mut() else {
            return;
        };
        let (start, capacity) = (buf.as_ptr(), buf.capacity());
        match tried(|| buf.try_reserve(additional)) {
            Ok(()) => assert!(buf.capacity() - *len >= additional),
            Err(error) => {
                let needed = *len + additional;
                assert!(
                    matches!(error, GetError::OutOfMemory { size, .. } if size == needed),
                    "{error:?}"
                );
                assert_eq!((buf.as_ptr(), buf.capacity()), (start, capacity));
                self.failed += 1;
            }
        }
        self.assert_whole();
    }

    /// Returns all guards but the first `keep`.
    fn give_back(&mut self, keep: usize) {
        while self.held.len() > keep {
            let stamped = self.held.pop().unwrap();
            stamped.assert_whole();
            tried(|| drop(stamped));
        }
    }

    fn assert_whole(&self) {
        self.held.iter().for_each(Stamped::assert_whole);
    }
}

impl Stamped {
    fn assert_whole(&self) {
        assert_eq!(self.buf.len(), self.len);
        let intact = self.buf.iter().all(|&byte| byte == self.stamp);
        assert!(intact, "bytes of another guard");
    }
}

/// Calls everything that promises not to end the process, in an order that reaches each of the
/// pool's allocations. Returns how many gets failed.
fn run(ledger: usize, options: Builder) -> usize {
    let mut script = Script::new(options);
    // First gets of a thread; hits and misses; guards that stay outstanding to the end.
    SIZES.iter().for_each(|&size| script.take(size));
    script.give_back(3);
    SIZES.iter().for_each(|&size| script.take(size));
    script.assert_whole();

    // Grown: within the largest class, above it, and further.
    for additional in [100, 2000, 5000, 20_000] {
        script.take(60);
        script.reserve(additional);
        script.reserve(2 * additional);
    }

    // Consumed, split and shared.
    let kept = script.held.len().min(3);
    for (at, stamped) in script.held.drain(kept..).enumerate() {
        let Stamped { mut buf, len, .. } = stamped;
        let front = tried(|| (len > 0).then(|| buf.advance(1)));
        let part = (at % 2 == 0 && front.is_some()).then(|| buf.split_to(len / 2));
        tried(|| drop(buf));
        tried(|| drop(part));
    }

    // Adopted, grown on the heap, taken out and replaced, frozen.
    let grown = tried(|| script.pool.try_get(64)).ok().map(|mut buf| {
        BytesMut::reserve(&mut buf, 2000);
        buf
    });
    let exchanged = tried(|| script.pool.try_get(64)).ok().map(|mut buf| {
        *buf = BytesMut::with_capacity(64);
        buf
    });
    let adopted = [64, 80, 1500, 10].map(|capacity| {
        let buf = BytesMut::with_capacity(capacity);
        script.pool.adopt(buf)
    });
    let frozen: Option<PooledBytes> = tried(|| script.pool.try_get(900)).ok().map(|mut buf| {
        buf.put_bytes(9, 900);
        buf.freeze()
    });
    tried(|| drop((grown, exchanged, adopted)));
    // A buffer of unusual capacity, which is checked when it returns.
    script.take(64);
    script.take(1000);
    script.give_back(3);

    // On another thread: its first use; guards that this thread took; its end.
    let clone = frozen.clone();
    let pool = tried(|| script.pool.clone());
    let mut others = script.held.pop();
    let failed = on_a_thread(ledger, || {
        tried(|| drop((clone, others.take())));
        let mut mine = Script {
            pool,
            held: Vec::with_capacity(2 * MANY),
            failed: 0,
        };
        (0..MANY).for_each(|_| mine.take(64));
        mine.give_back(5);
        (0..5).for_each(|_| mine.take(1000));
        mine.assert_whole();
        mine.give_back(0);
        tried(|| mine.pool.recalibrate());
        let Script { pool, failed, .. } = mine;
        tried(|| drop(pool));
        failed
    });
    script.failed += failed;
    // The last part is gone here, or on the other thread: the buffer goes home.
    tried(|| drop(frozen));

    // The other thread's buffers return to this one in magazines, until they go to the depot.
    (0..2 * MANY).for_each(|_| script.take(60));
    script.give_back(MANY);
    tried(|| script.pool.trim());
    script.give_back(3);
    tried(|| script.pool.trim());
    (0..5).for_each(|_| script.take(60));
    assert_accounts_balance(&script.pool);
    tried(|| script.pool.clear());
    assert_eq!(total(&script.pool).retained_buffers, 0);
    script.assert_whole();
    let out = script.held.len() as u64;
    assert_eq!(total(&script.pool).outstanding, out);
    assert_accounts_balance(&script.pool);
    script.give_back(out as usize / 2);
    assert_accounts_balance(&script.pool);

    // The end of the pool, with outstanding guards.
    let Script {
        pool, held, failed, ..
    } = script;
    tried(|| drop(pool));
    for stamped in held {
        stamped.assert_whole();
        tried(|| drop(stamped));
    }
    failed
}

fn total(pool: &Pool) -> Counts {
    pool.stats().total
}

/// The result of one run of the script.
struct Outcome {
    asked: usize,
    refused: usize,
    failed: usize,
}

/// Runs the script on a heap that refuses, and asserts that nothing is leaked.
fn run_refused(ledger: usize, options: Builder, how: How) -> Outcome {
    let books = &LEDGERS[ledger];
    let before = books.live();
    books.refuse(how);
    // On a new thread, so that this is its first use of a pool, and its end is included.
    let failed = on_a_thread(ledger, || run(ledger, options));
    let outcome = Outcome {
        asked: books.asked.load(SeqCst),
        refused: books.refused.load(SeqCst),
        failed,
    };
    books.refuse(How::Nothing);
    assert_eq!(books.live(), before, "leaked: {how:?}");
    outcome
}

/// The options of the script's pools.
fn both() -> [Builder; 2] {
    [options(), options().zero_on_return(true)]
}

// ---- each allocation in turn ----

#[test]
fn the_script_allocates_enough_and_fails_nowhere_if_nothing_is_refused() {
    const LEDGER: usize = 1;
    for options in both() {
        let outcome = run_refused(LEDGER, options, How::Nothing);
        assert_eq!((outcome.refused, outcome.failed), (0, 0));
        // At least a buffer and its cell for each miss.
        assert!(outcome.asked > 2 * 2 * MANY, "{}", outcome.asked);
    }
}

#[test]
fn any_one_allocation_may_be_refused() {
    const LEDGER: usize = 2;
    for options in both() {
        let mut granted = 0;
        loop {
            let how = How::From {
                granted,
                refused: 1,
            };
            let outcome = run_refused(LEDGER, options.clone(), how);
            if outcome.refused == 0 {
                assert_eq!(outcome.failed, 0);
                break;
            }
            assert!(outcome.failed <= 1, "one refusal fails one get at most");
            granted += 1;
        }
        assert!(granted > 2 * 2 * MANY, "{granted}");
    }
}

#[test]
fn all_allocations_from_any_one_on_may_be_refused() {
    const LEDGER: usize = 3;
    for options in both() {
        let mut granted = 0;
        loop {
            let how = How::From {
                granted,
                refused: usize::MAX,
            };
            let outcome = run_refused(LEDGER, options.clone(), how);
            if outcome.refused == 0 {
                assert_eq!(outcome.failed, 0);
                break;
            }
            granted += 1;
        }
        assert!(granted > 2 * 2 * MANY, "{granted}");
    }
}

#[test]
fn a_few_allocations_in_a_row_may_be_refused() {
    const LEDGER: usize = 4;
    for refused in [2, 3, 5, 8] {
        for granted in 0.. {
            let outcome = run_refused(LEDGER, options(), How::From { granted, refused });
            if outcome.refused == 0 {
                break;
            }
            assert!(outcome.failed <= refused);
        }
    }
}

#[test]
fn each_n_th_allocation_may_be_refused() {
    const LEDGER: usize = 5;
    for options in both() {
        for every in 1..100 {
            let outcome = run_refused(LEDGER, options.clone(), How::Every(every));
            assert!(outcome.refused > 0, "{every}");
        }
    }
}

// Small requests are granted and large ones are not. Examples: buffers, but no queues for them and
// no thread's caches; cells, but no buffers.
#[test]
fn all_allocations_above_a_size_may_be_refused() {
    const LEDGER: usize = 6;
    let sizes = [7, 16, 32, 63, 64, 80, 128, 384, 999, 1000, 2000, 4095, 4096];
    for options in both() {
        for size in sizes {
            let outcome = run_refused(LEDGER, options.clone(), How::Above(size));
            assert!(outcome.refused > 0, "{size}");
            let any_is_granted = size >= 104; // the size of a cell
            let gets = SIZES.len() * 2 + 2 + MANY + 5 + 2 * MANY + 5; // as in `run`
            assert_eq!(outcome.failed < gets, any_is_granted, "{size}");
        }
    }
}

#[test]
fn any_limit_on_the_heap_in_all_may_be_set() {
    const LEDGER: usize = 7;
    for bytes in (0..).step_by(331) {
        let outcome = run_refused(LEDGER, options(), How::InAll(bytes));
        if outcome.refused == 0 {
            assert!(bytes > 10_000);
            break;
        }
    }
}

// Refusals of the pool's own data would end the process, so these are not refused.
#[test]
fn a_build_without_memory_for_keep_idle_fails_and_leaves_nothing() {
    const LEDGER: usize = 17;
    let is_refused = |builder: Builder, how: How| {
        let mut refused = false;
        with_books(LEDGER, |books| {
            books.refuse(how);
            let built = tried(|| builder.build());
            let so_far = books.refused.load(SeqCst);
            books.refuse(How::Nothing);
            match built {
                Ok(pool) => {
                    let stats = pool.stats();
                    for class in &stats.classes {
                        assert_eq!(class.counts.retained_buffers, class.keep_idle as u64);
                    }
                    assert_accounts_balance(&pool);
                }
                Err(error) => {
                    assert!(so_far > 0);
                    assert!(matches!(error, ConfigError::KeepIdleOutOfMemory { .. }));
                    let text = error.to_string();
                    assert!(text.contains("the heap has no room for them; keep fewer idle"));
                    refused = true;
                }
            }
        });
        refused
    };
    // Large blocks: a buffer, and the list of all of them.
    let large = || options().classes([64, 100_000]).retain_bytes(1 << 30);
    for (size, count) in [(100_000, 1), (64, 20_000)] {
        let builder = large().keep_idle(size, count);
        assert!(is_refused(builder.clone(), How::Above(99_000)), "{size}");
        assert!(!is_refused(builder, How::Above(3 << 20)), "{size}");
    }
    // Only a queue of the depot is refused: there is room for the list, and for each buffer.
    let builder = options().thread_cache_bytes(0).keep_idle(64, 1050);
    assert!(is_refused(builder.clone(), How::Above(8500)));
    assert!(!is_refused(builder, How::Above(20_000)));
    // Each of them, from the first to the last.
    let own = {
        let mut own = 0;
        with_books(LEDGER, |books| {
            let pool = options().build().unwrap();
            own = books.live().1;
            drop(pool);
        });
        own + 4096 // for a moment, to check the options
    };
    let builder = || {
        options()
            .keep_idle(64, 100)
            .keep_idle(1000, 40)
            .keep_idle(4096, 3)
    };
    let enough = (own..)
        .step_by(331)
        .find(|&bytes| !is_refused(builder(), How::InAll(bytes)));
    let enough = enough.expect("it ends there");
    assert!(
        enough > own + 64 * 100 + 1000 * 40 + 4096 * 3 - 331,
        "{enough} of {own}"
    );
}

// ---- consequences ----

/// Runs `work` on a thread of a ledger, and asserts that nothing is leaked.
fn with_books(ledger: usize, work: impl FnOnce(&Ledger) + Send) {
    let books = &LEDGERS[ledger];
    let before = books.live();
    on_a_thread(ledger, || work(books));
    assert_eq!(books.live(), before, "leaked");
}

#[test]
fn a_thread_without_memory_for_caches_is_served_and_gets_them_later() {
    with_books(8, |books| {
        // With many classes, one thread's caches together are larger than any queue.
        let pool = Pool::builder()
            .classes((1..=12).map(|at| 64 * at))
            .trim_interval(None);
        let pool = pool.build().unwrap();
        books.refuse(How::Above(400)); // no caches, and no queues
        for _ in 0..3 {
            let mut buf = tried(|| pool.try_get(60)).unwrap();
            buf.put_bytes(1, 60);
            tried(|| drop(buf));
        }
        let so_far = total(&pool);
        assert_eq!((so_far.misses, so_far.discards.full), (3, 3));
        books.refuse(How::Above(1100)); // queues for loose buffers
        for _ in 0..3 {
            tried(|| drop(pool.try_get(60).unwrap()));
        }
        let so_far = total(&pool);
        assert_eq!((so_far.misses, so_far.depot_hits), (4, 2));
        books.refuse(How::Nothing);
        for _ in 0..3 {
            tried(|| drop(pool.try_get(60).unwrap()));
        }
        let so_far = total(&pool);
        assert_eq!((so_far.misses, so_far.depot_hits), (4, 3));
        assert_eq!(so_far.local_hits, 2, "it has caches now");
        assert_accounts_balance(&pool);
    });
}

// At times the thread looks for pools that are gone, and asks for a smaller list.
#[test]
fn a_thread_that_has_used_many_pools_needs_no_memory_for_the_next() {
    const LEDGER: usize = 16;
    // It looks after the 64th pool. The others are for a change that makes it look earlier or
    // later.
    for many in 60..70 {
        with_books(LEDGER, |books| {
            let pool = options().build().unwrap();
            on_a_thread(LEDGER, || drop(pool.get(64))); // its caches are inherited
            let mut others: Vec<Pool> = (0..many).map(|_| options().build().unwrap()).collect();
            others.iter().for_each(|other| drop(other.get(64)));
            others.truncate(1);
            books.refuse(How::Above(0));
            tried(|| drop(pool.try_get(64).unwrap()));
            books.refuse(How::Nothing);
            let so_far = total(&pool);
            assert_eq!((so_far.misses, so_far.depot_hits), (1, 1));
            tried(|| drop(others[0].try_get(64).unwrap()));
            assert_eq!(total(&others[0]).misses, 1);
            assert_accounts_balance(&pool);
        });
    }
}

#[test]
fn a_refused_get_frees_idle_buffers_and_succeeds_if_that_makes_room() {
    with_books(9, |books| {
        let pool = options().build().unwrap();
        // Both classes have queues now, so that only buffers are requested below.
        drop([64, 4096].map(|size| pool.get(size)));
        pool.clear();
        drop((0..MANY).map(|_| pool.get(64)).collect::<Vec<_>>());
        let idle = total(&pool);
        assert_eq!(idle.retained_buffers, MANY as u64);
        // Too little room for one more buffer of the other class.
        books.refuse(How::InAll(books.live().1 + 100));
        let buf = tried(|| pool.try_get(4096)).expect("there is room for it now");
        assert!(books.refused.load(SeqCst) > 0);
        let after = total(&pool);
        assert_eq!(
            (after.trimmed - idle.trimmed, after.retained_buffers),
            (MANY as u64, 0)
        );
        // No buffer is idle now, so this get fails.
        let error = tried(|| pool.try_get(10_000)).unwrap_err();
        assert!(matches!(error, GetError::OutOfMemory { size: 10_000, .. }));
        books.refuse(How::Nothing);
        drop(buf);
        assert_accounts_balance(&pool);
    });
}

// Failed once: each of these requests freed all idle buffers, in vain.
#[test]
fn idle_buffers_are_not_freed_repeatedly_in_vain() {
    const REQUESTS: usize = 2000;
    with_books(17, |books| {
        let pool = options().build().unwrap();
        let work = || tried(|| drop([(); 8].map(|()| pool.try_get(1000).unwrap())));
        work();
        let before = total(&pool);
        // Not much larger than the idle buffers: freeing them may help, but does not.
        for request in 0..REQUESTS {
            work();
            if request % 10 == 0 {
                books.refuse(How::Above(4999));
                assert!(tried(|| pool.try_get(5000)).is_err());
                books.refuse(How::Nothing);
            }
        }
        let after = total(&pool);
        let (hits, gets) = (after.hits() - before.hits(), after.gets - before.gets);
        assert!(after.trimmed > before.trimmed, "it was tried");
        assert!(hits >= gets - gets / 100, "{hits} of {gets}");
        // If freeing helps, the pool does it again at the next occasion.
        let before = after;
        while total(&pool).trimmed == before.trimmed {
            books.refuse(How::InAll(books.live().1 + 100));
            let _served = tried(|| pool.try_get(5000));
            books.refuse(How::Nothing);
        }
        work();
        books.refuse(How::InAll(books.live().1 + 100));
        let served = tried(|| pool.try_get(5000));
        books.refuse(How::Nothing);
        assert!(served.is_ok());
        drop(served);
        assert_accounts_balance(&pool);
    });
}

#[test]
fn a_buffer_that_finds_no_room_in_a_queue_is_freed_and_counted() {
    with_books(10, |books| {
        let pool = options().build().unwrap();
        drop(pool.get(1000)); // this thread has caches
        let held: Vec<_> = (0..2 * MANY).map(|_| pool.get(60)).collect();
        // On a thread without memory for caches or for longer queues: the buffers are kept loose,
        // as far as the first queue has room.
        let one = pool.clone();
        books.refuse(How::Above(0));
        on_a_thread(10, || tried(|| drop((held, one))));
        let after = total(&pool);
        let freed = after.discards.full;
        assert_eq!(after.returns + freed, 2 * MANY as u64 + 1);
        assert!(freed > 0 && after.returns > 1, "{after:?}");
        assert_eq!(after.outstanding, 0);
        assert_accounts_balance(&pool);
        books.refuse(How::Nothing);
        assert_eq!(pool.clear().buffers as u64, after.retained_buffers);
    });
}

#[test]
fn a_magazine_that_finds_no_room_in_the_depot_is_freed_and_counted() {
    with_books(14, |books| {
        let pool = options().build().unwrap();
        drop(pool.get(1000)); // this thread has caches
        books.refuse(How::Above(400)); // but the depot gets no queues
        let held: Vec<_> = (0..2 * MANY)
            .map(|_| tried(|| pool.try_get(60)).unwrap())
            .collect();
        tried(|| drop(held));
        let after = total(&pool);
        assert_eq!(after.returns, 2 * MANY as u64 + 1);
        assert!(after.trimmed > 0, "{after:?}");
        assert_accounts_balance(&pool);
        // The cached buffers are not lost, and there are no leases without a buffer.
        books.refuse(How::Nothing);
        assert_eq!(pool.clear().buffers as u64, after.retained_buffers);
        assert_accounts_balance(&pool);
    });
}

#[test]
fn a_buffer_that_cannot_be_checked_without_memory_is_freed_as_shared() {
    with_books(11, |books| {
        let pool = options().build().unwrap();
        drop(pool.get(64));
        let adopted = [80, 1500].map(|capacity| pool.adopt(BytesMut::with_capacity(capacity)));
        books.refuse(How::Above(0));
        tried(|| drop(adopted));
        books.refuse(How::Nothing);
        let after = total(&pool);
        assert_eq!((after.discards.shared, after.discards.total()), (2, 2));
        drop([80, 1500].map(|capacity| pool.adopt(BytesMut::with_capacity(capacity))));
        assert_eq!(total(&pool).discards.total(), 2, "there is memory again");
        assert_accounts_balance(&pool);
    });
}

#[test]
fn a_refused_reserve_frees_idle_buffers_and_then_asks_for_less() {
    with_books(16, |books| {
        // If it needs a byte more than 1000, a guard prefers 1500.
        let options = Pool::builder().classes([64, 1000, 1100, 1600, 4096]);
        let pool = options.trim_interval(None).build().unwrap();
        drop([64, 1000, 1100, 1600].map(|size| pool.get(size))); // all have queues
        pool.clear();
        let mut buf = pool.get(1000);
        buf.put_bytes(7, 1000);
        drop((0..3).map(|_| pool.get(1000)).collect::<Vec<_>>());
        let idle = total(&pool).retained_buffers;
        books.refuse(How::InAll(books.live().1));
        tried(|| buf.try_reserve(1)).expect("the idle buffers make enough room");
        assert!(books.refused.load(SeqCst) > 0);
        assert_eq!((buf.capacity(), total(&pool).trimmed), (1600, idle + 4));
        books.refuse(How::Above(1100));
        let mut buf = tried(|| pool.try_get(1000)).unwrap();
        buf.put_bytes(7, 1000);
        tried(|| buf.try_reserve(1)).expect("there is room for less");
        assert_eq!((&buf[..], buf.capacity()), (&[7; 1000][..], 1100));
        // Less than it needs.
        let before = total(&pool);
        let error = tried(|| buf.try_reserve(101)).unwrap_err();
        assert!(
            matches!(error, GetError::OutOfMemory { size: 1101, .. }),
            "{error:?}"
        );
        assert_eq!((&buf[..], buf.capacity()), (&[7; 1000][..], 1100));
        let after = total(&pool);
        assert_eq!((after.gets, after.growths), (before.gets, before.growths));
        books.refuse(How::Nothing);
        drop(buf);
        assert_accounts_balance(&pool);
    });
}

// Another thread may have freed memory meanwhile.
#[test]
fn a_refused_get_asks_the_heap_again_if_the_pool_has_no_idle_buffer() {
    with_books(15, |books| {
        let pool = options().build().unwrap();
        drop(pool.get(64)); // the thread has its caches
        pool.clear();
        for size in [900, 16 << 20] {
            books.refuse(How::From {
                granted: 0,
                refused: 1,
            });
            let asked = books.asked.load(SeqCst);
            let got = tried(|| pool.try_get(size));
            assert!(books.asked.load(SeqCst) > asked + 1, "it was refused once");
            assert!(got.is_ok(), "{size}: {got:?}");
            books.refuse(How::Nothing);
        }
        // If it is refused twice, the request does not count.
        let before = pool.stats();
        books.refuse(How::Above(0));
        assert!(tried(|| pool.try_get(16 << 20)).is_err());
        books.refuse(How::Nothing);
        assert_eq!(pool.stats(), before);
    });
}

#[test]
fn trims_handles_and_the_end_of_a_thread_with_few_buffers_allocate_nothing() {
    with_books(12, |books| {
        let pool = options().build().unwrap();
        let held: Vec<_> = (0..3 * MANY)
            .map(|at| pool.get(60 * (1 + at % 3)))
            .collect();
        let caches = std::sync::Barrier::new(5);
        thread::scope(|scope| {
            let threads = [(); 4].map(|()| {
                scope.spawn(|| {
                    booking::join(12);
                    drop(pool.get(64));
                    caches.wait();
                    caches.wait();
                    MAY_BE_REFUSED.set(true); // the end of the thread
                })
            });
            caches.wait();
            drop(held);
            books.refuse(How::Above(0));
            let other = tried(|| pool.clone());
            tried(|| pool.trim());
            tried(|| pool.recalibrate());
            tried(|| pool.trim());
            tried(|| pool.clear());
            tried(|| drop(other));
            caches.wait();
            for thread in threads {
                thread.join().unwrap();
            }
        });
        drop(pool.get(64));
        tried(|| drop(pool));
        assert_eq!(books.asked.load(SeqCst), 0);
        books.refuse(How::Nothing);
    });
}

#[test]
fn threads_on_a_heap_that_sometimes_refuses_corrupt_and_leak_nothing() {
    const LEDGER: usize = 13;
    for every in [2, 3, 7, 20] {
        with_books(LEDGER, |books| {
            let pool = options().retain_bytes(100_000).build().unwrap();
            let passed_on = std::sync::Mutex::new(Vec::with_capacity(1000));
            books.refuse(How::Every(every));
            thread::scope(|scope| {
                let threads = [0, 1, 2, 3].map(|at| {
                    let (pool, passed_on) = (&pool, &passed_on);
                    scope.spawn(move || {
                        booking::join(LEDGER);
                        let mut mine = Script {
                            pool: pool.clone(),
                            held: Vec::with_capacity(1000),
                            failed: 0,
                        };
                        for step in 0..400 {
                            mine.take([60, 900, 4000, 5000][(step * 7 + at) % 4]);
                            if step % 5 == 0 {
                                let mut others = passed_on.lock().unwrap();
                                std::mem::swap(&mut *others, &mut mine.held);
                            }
                            if step % 50 == 49 {
                                tried(|| mine.pool.trim());
                            }
                            if mine.held.len() > 30 {
                                mine.give_back(10);
                            }
                        }
                        mine.give_back(0);
                        drop(mine);
                        MAY_BE_REFUSED.set(true);
                    })
                });
                for thread in threads {
                    thread.join().unwrap(); // including its destructors
                }
            });
            assert!(books.refused.load(SeqCst) > 0);
            books.refuse(How::Nothing);
            drop(passed_on);
            assert_eq!(total(&pool).outstanding, 0);
            assert_accounts_balance(&pool);
        });
    }
}

// Shows why the list of a pool's threads is not a `thread_local::ThreadLocal`. If its entry found
// no memory, the thread would end the process, and `try_get` promises that it does not.
#[test]
fn an_entry_of_the_thread_local_crate_ends_the_process_if_the_heap_refuses_it() {
    const ALONE: &str = "TIERPOOL_ENTRY_IS_REFUSED";
    let name = "an_entry_of_the_thread_local_crate_ends_the_process_if_the_heap_refuses_it";
    if env::var_os(ALONE).is_some() {
        with_books(18, |ledger| {
            // This also makes the thread's number among all threads.
            assert_eq!(*thread_local::ThreadLocal::new().get_or(|| 0), 0);
            ledger.refuse(How::From {
                granted: 0,
                refused: usize::MAX,
            });
            let entries = thread_local::ThreadLocal::new();
            tried(|| *entries.get_or(|| 1));
        });
        process::exit(0);
    }
    let own = env::current_exe().expect("a test has a path");
    let ran = Command::new(own)
        .args([name, "--exact"])
        .env(ALONE, "1")
        .output();
    let ran = ran.expect("a test binary can be run");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(!ran.status.success(), "it has ended well");
    assert!(said.contains("memory allocation"), "{said}");
}
