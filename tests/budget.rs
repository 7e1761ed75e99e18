//! The limits on retained bytes hold at every moment, and nothing is left over.
//!
//! Owns a global allocator that keeps the books of each test: a test has its own *ledger*, and its
//! threads join it. No other code allocates blocks of the sizes of the classes here. So the
//! allocator recognises a pool's buffer.
//!
//! Retained bytes are not sampled but computed: the bytes that the allocator handed out for
//! buffers, less the bytes that the test's threads hold. A thread books a buffer out *before* it
//! takes it, and in *after* it has returned it. Both the thread and the allocator change the same
//! number. So that number is never above the retained bytes at that moment, and it is exact while
//! no thread works. Its maximum must not be above the budget.

mod common {
    pub mod accounts;
    pub mod booking;
}

use bytes::BytesMut;
use common::accounts::assert_accounts_balance;
use common::booking::{self, Booking};
use crossbeam_queue::ArrayQueue;
use std::alloc::Layout;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tierpool::{Builder, Pool, PooledBuf};

/// Odd, so that no vector of words has such a size.
const CLASSES: [usize; 4] = [777, 1551, 3333, 12_345];
/// Capacities between two classes, for buffers that the tests adopt.
const IRREGULAR: [usize; 2] = [1001, 5557];

/// For each class, the largest capacity that a get of it may hand out.
const MOST_OF_CLASS: [usize; 4] = [1001, 1551, 5557, 12_345];

const BUFFER_SIZES: [usize; 6] = [777, 1551, 3333, 12_345, 1001, 5557];

fn is_buffer(layout: Layout) -> bool {
    layout.align() == 1 && BUFFER_SIZES.contains(&layout.size())
}

/// The class that a buffer of this capacity joins.
fn class_of(capacity: usize) -> usize {
    CLASSES
        .iter()
        .rposition(|&class| class <= capacity)
        .unwrap()
}

/// The class that serves a request.
fn class_for(request: usize) -> usize {
    CLASSES.iter().position(|&class| class >= request).unwrap()
}

/// More than there are tests.
const LEDGERS: usize = 64;

/// A number and its maximum so far.
struct Tide {
    now: AtomicI64,
    most: AtomicI64,
}

impl Tide {
    const fn new() -> Self {
        Tide {
            now: AtomicI64::new(0),
            most: AtomicI64::new(0),
        }
    }

    fn add(&self, change: i64) {
        // Relaxed: all changes of one number have one order. If the pool makes one change happen
        // after another, it also comes later in that order.
        let now = self.now.fetch_add(change, Ordering::Relaxed) + change;
        self.most.fetch_max(now, Ordering::Relaxed);
    }

    fn now(&self) -> i64 {
        self.now.load(Ordering::Relaxed)
    }

    fn most(&self) -> i64 {
        self.most.load(Ordering::Relaxed)
    }
}

struct Books {
    /// Bytes of all blocks.
    live_bytes: AtomicI64,
    /// Bytes of buffers that are not booked out.
    retained: Tide,
    /// Such buffers, by class.
    idle: [Tide; CLASSES.len()],
}

/// Ledger 0 is for threads that have joined none.
static BOOKS: [Books; LEDGERS] = [const {
    Books {
        live_bytes: AtomicI64::new(0),
        retained: Tide::new(),
        idle: [const { Tide::new() }; CLASSES.len()],
    }
}; LEDGERS];

impl Books {
    fn block(&self, layout: Layout, sign: i64) {
        let change = sign * layout.size() as i64;
        self.live_bytes.fetch_add(change, Ordering::Relaxed);
        if is_buffer(layout) {
            self.buffer(layout.size(), sign);
        }
    }

    fn buffer(&self, capacity: usize, sign: i64) {
        self.book(class_of(capacity), capacity, sign);
    }

    fn book(&self, class: usize, capacity: usize, sign: i64) {
        self.retained.add(sign * capacity as i64);
        self.idle[class].add(sign);
    }
}

impl booking::Books for Books {
    fn allocated(ledger: usize, layout: Layout) {
        BOOKS[ledger].block(layout, 1);
    }

    fn freed(ledger: usize, layout: Layout) {
        BOOKS[ledger].block(layout, -1);
        if is_buffer(layout) {
            GATE.pass();
        }
    }
}

#[global_allocator]
static ALLOCATOR: Booking<Books> = Booking::new();

/// One test's account.
#[derive(Clone, Copy)]
struct Ledger(usize);

impl Ledger {
    /// A new ledger, which the calling thread joins.
    fn open() -> Self {
        static OPENED: AtomicUsize = AtomicUsize::new(0);
        let ledger = Ledger(OPENED.fetch_add(1, Ordering::Relaxed) + 1);
        assert!(ledger.0 < LEDGERS, "raise LEDGERS");
        ledger.join();
        ledger
    }

    /// Books the calling thread's allocations from now on here.
    fn join(self) {
        booking::join(self.0);
    }

    fn books(self) -> &'static Books {
        &BOOKS[self.0]
    }

    fn live_bytes(self) -> i64 {
        self.books().live_bytes.load(Ordering::Relaxed)
    }

    fn spawn<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        thread::spawn(move || {
            self.join();
            work()
        })
    }

    /// Runs `work` on a thread of this ledger, up to the destructors of its thread-locals.
    fn on_a_thread<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.spawn(work).join().unwrap()
    }

    /// Takes a buffer, after it was booked out.
    fn get(self, pool: &Pool, request: usize) -> Held {
        let class = class_for(request);
        let most = MOST_OF_CLASS[class];
        self.books().book(class, most, -1);
        let buf = pool.get(request);
        assert_eq!(class_of(buf.capacity()), class);
        // It may have been a larger one. Its capacity is known now.
        let over = most - buf.capacity();
        self.books().retained.add(over as i64);
        Held::new(self, buf)
    }

    /// Adopts a buffer of irregular capacity.
    fn adopt(self, pool: &Pool, capacity: usize) -> Held {
        self.books().buffer(capacity, -1);
        let buf = BytesMut::with_capacity(capacity);
        Held::new(self, pool.adopt(buf))
    }
}

/// A guard that is booked in again after its drop.
struct Held {
    buf: Option<PooledBuf>,
    capacity: usize,
    ledger: Ledger,
}

impl Held {
    fn new(ledger: Ledger, buf: PooledBuf) -> Self {
        Held {
            capacity: buf.capacity(),
            buf: Some(buf),
            ledger,
        }
    }

    fn freeze(mut self) {
        let buf = self.buf.take().unwrap();
        drop((buf.freeze(), self)); // in this order
    }

    /// Grows to a larger class.
    fn grow(mut self, request: usize) -> Self {
        let (from, to) = (self.capacity, class_for(request));
        let most = MOST_OF_CLASS[to];
        if request > from {
            self.ledger.books().book(to, most, -1);
        }
        let buf = self.buf.as_mut().unwrap();
        buf.reserve(request);
        self.capacity = buf.capacity();
        if request > from {
            let books = self.ledger.books();
            books.retained.add((most - self.capacity) as i64);
            books.buffer(from, 1);
        }
        self
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.buf.take());
        self.ledger.books().buffer(self.capacity, 1);
    }
}

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// Whether each step costs microseconds. It does under Miri, and under valgrind, where
/// `scripts/sanitize.sh` sets `--cfg slow`.
const SLOW: bool = cfg!(any(miri, slow));

/// Fewer if [`SLOW`].
const fn rounds(native: usize, slow: usize) -> usize {
    if SLOW { slow } else { native }
}

fn builder() -> Builder {
    Pool::builder().classes(CLASSES).trim_interval(None)
}

// ---- at every moment ----

const THREADS: usize = rounds(8, 3);

/// Uses a pool at random on one thread, with guards that it shares with others.
struct Worker {
    ledger: Ledger,
    pool: Pool,
    random: Random,
    /// Guards on their way from one thread to another.
    mail: Arc<ArrayQueue<Held>>,
}

impl Worker {
    fn run(mut self, steps: usize) {
        let mut held = Vec::new();
        for _ in 0..steps {
            self.step(&mut held);
        }
    }

    fn step(&mut self, held: &mut Vec<Held>) {
        let Worker { ledger, pool, .. } = self;
        let random = &mut self.random;
        match random.below(24) {
            0..=8 => {
                let class = CLASSES[random.below(CLASSES.len())];
                held.push(ledger.get(pool, class - random.below(100)));
            }
            9 => held.push(ledger.adopt(pool, IRREGULAR[random.below(IRREGULAR.len())])),
            10..=14 if !held.is_empty() => {
                held.swap_remove(random.below(held.len()));
            }
            15..=17 if !held.is_empty() => {
                let one = held.swap_remove(random.below(held.len()));
                // If the queue is full, its oldest guard is dropped here.
                drop(self.mail.force_push(one));
            }
            18..=19 => drop((self.mail.pop(), self.mail.pop())),
            20 if !held.is_empty() => held.swap_remove(0).freeze(),
            21 if !held.is_empty() => {
                let one = held.swap_remove(random.below(held.len()));
                held.push(one.grow(CLASSES[random.below(CLASSES.len())]));
            }
            // Many at once, so that whole magazines move.
            22 if random.below(20) == 0 => held.clear(),
            23 if random.below(10) == 0 => match random.below(4) {
                0 => {
                    pool.clear();
                }
                1 => {
                    pool.prefill(CLASSES[random.below(CLASSES.len())], random.below(20));
                }
                _ => {
                    pool.trim();
                }
            },
            _ => {}
        }
        if held.len() > 100 {
            held.truncate(20);
        }
    }
}

/// Uses a pool on many threads at once. Each of them ends, and another one begins.
fn use_at_random(ledger: Ledger, pool: &Pool, seed: u64) {
    let mail = Arc::new(ArrayQueue::new(32));
    let threads: Vec<_> = (0..THREADS)
        .map(|at| {
            let (pool, mail) = (pool.clone(), Arc::clone(&mail));
            ledger.spawn(move || {
                for life in 0..rounds(6, 2) {
                    let number = seed + (at * 100 + life + 1) as u64;
                    let worker = Worker {
                        ledger,
                        pool: pool.clone(),
                        random: Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                        mail: Arc::clone(&mail),
                    };
                    ledger.on_a_thread(|| worker.run(rounds(4000, 60)));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Runs `work`, while another thread asserts all the time that the pool shows no more retained
/// bytes than the budget.
fn with_a_watcher(pool: &Pool, budget: usize, work: impl FnOnce()) {
    /// Set even if the work panics, so that the watcher ends.
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let until_done = Done(&done);
        let watcher = scope.spawn(|| {
            let mut looked = 0;
            while !done.load(Ordering::Relaxed) || looked == 0 {
                let shown = pool.stats().total.retained_bytes;
                assert!(shown <= budget as u64, "{shown} of {budget} bytes");
                looked += 1;
            }
        });
        work();
        drop(until_done);
        watcher.join().unwrap();
    });
}

/// Runs `work` on a thread, after the process's permanent data were allocated. Asserts that it
/// leaves no live byte.
fn leaving_nothing(work: impl FnOnce(Ledger) + Send + 'static) {
    let ledger = Ledger::open();
    ledger.on_a_thread(|| drop(Pool::default().get(1)));
    let before = ledger.live_bytes();
    ledger.on_a_thread(move || work(ledger));
    assert_eq!(ledger.live_bytes(), before);
    assert_eq!(ledger.books().retained.now(), 0);
}

/// Asserts that the books and the pool show the same retained bytes while no thread works.
fn assert_books_agree(ledger: Ledger, pool: &Pool) {
    let stats = pool.stats();
    let retained = ledger.books().retained.now();
    assert_eq!(stats.total.retained_bytes, retained as u64);
    for (class, idle) in stats.classes.iter().zip(&ledger.books().idle) {
        assert_eq!(class.counts.retained_buffers, idle.now() as u64);
    }
    assert_accounts_balance(pool);
    assert_eq!(pool.stats().total.outstanding, 0);
}

#[test]
fn no_more_than_the_budget_is_retained_at_any_moment() {
    // From one buffer of the largest class to more bytes than are idle at once.
    for (seed, budget) in [13_000, 60_000, 300_000, 2_000_000].into_iter().enumerate() {
        leaving_nothing(move |ledger| {
            let pool = builder().retain_bytes(budget).build().unwrap();
            with_a_watcher(&pool, budget, || {
                use_at_random(ledger, &pool, 1000 * seed as u64);
            });
            let most = ledger.books().retained.most();
            assert!(most <= budget as i64, "{most} of {budget} bytes");
            if budget <= rounds(300_000, 13_000) {
                assert!(most >= budget as i64 / 2, "only {most} of {budget} bytes");
            }
            assert!(pool.stats().total.hits() > 0);
            assert_books_agree(ledger, &pool);
        });
    }
}

#[test]
fn no_more_than_the_budget_is_retained_while_the_pool_trims_by_time() {
    leaving_nothing(|ledger| {
        let budget = 300_000;
        let pool = builder()
            .retain_bytes(budget)
            .trim_interval(Duration::from_millis(1))
            .build()
            .unwrap();
        with_a_watcher(&pool, budget, || use_at_random(ledger, &pool, 7));
        let most = ledger.books().retained.most();
        assert!(most <= budget as i64, "{most} of {budget} bytes");
        assert_books_agree(ledger, &pool);
    });
}

#[test]
fn a_pool_with_a_budget_of_nothing_retains_nothing() {
    leaving_nothing(|ledger| {
        let pool = builder().retain_bytes(0).build().unwrap();
        with_a_watcher(&pool, 0, || use_at_random(ledger, &pool, 1));
        assert_eq!(pool.prefill(777, 10), 0);
        assert_eq!(ledger.books().retained.most(), 0);
        let total = pool.stats().total;
        assert_eq!((total.hits(), total.returns), (0, 0));
        assert!(total.misses > 0);
        assert_books_agree(ledger, &pool);
    });
}

#[test]
fn no_more_than_max_per_class_are_idle_at_any_moment() {
    for most_idle in [0, 1, 7, 40] {
        leaving_nothing(move |ledger| {
            let pool = builder().max_per_class(most_idle).build().unwrap();
            use_at_random(ledger, &pool, most_idle as u64);
            for (idle, class) in ledger.books().idle.iter().zip(CLASSES) {
                let most = idle.most();
                assert!(most <= most_idle as i64, "{most} of {class} bytes");
                if most_idle <= rounds(7, 1) {
                    assert_eq!(most, most_idle as i64, "of {class} bytes");
                }
            }
            assert_books_agree(ledger, &pool);
        });
    }
}

#[test]
fn both_limits_hold_together_at_any_moment() {
    leaving_nothing(|ledger| {
        let (budget, most_idle) = (50_000, 10);
        let pool = builder()
            .retain_bytes(budget)
            .max_per_class(most_idle)
            .thread_cache_bytes(9000)
            .build()
            .unwrap();
        with_a_watcher(&pool, budget, || use_at_random(ledger, &pool, 3));
        assert!(ledger.books().retained.most() <= budget as i64);
        for idle in &ledger.books().idle {
            assert!(idle.most() <= most_idle as i64);
        }
        assert_books_agree(ledger, &pool);
    });
}

// ---- one thread's cache ----

/// Takes all buffers in the depot out of the pool. Returns the bytes that are left in other
/// threads' caches.
fn cached_bytes(pool: &Pool) -> u64 {
    let pool = pool.clone();
    let taker = thread::spawn(move || {
        for class in CLASSES {
            let misses = || pool.stats().total.misses;
            let before = misses();
            while misses() == before {
                drop(pool.get(class).detach());
            }
        }
        pool.stats().total.retained_bytes
    });
    taker.join().unwrap()
}

#[test]
fn one_threads_cache_holds_no_more_than_thread_cache_bytes() {
    for limit in [0, 777, 5000, 40_000, 400_000] {
        let pool = builder().thread_cache_bytes(limit).build().unwrap();
        let mut random = Random(limit as u64 + 1);
        let mut most_cached = 0;
        for _ in 0..rounds(100, 4) {
            // One class at first, and later another one in its place.
            let (class, other) = (CLASSES[random.below(4)], CLASSES[random.below(4)]);
            let mut held: Vec<PooledBuf> = Vec::new();
            for _ in 0..rounds(100, 20) {
                match random.below(3) {
                    0 => held.push(pool.get(class)),
                    1 => held.push(pool.get(other)),
                    _ => drop(held.pop()),
                }
            }
            drop(held);
            let cached = cached_bytes(&pool);
            assert!(cached <= limit as u64, "{cached} of {limit} bytes");
            most_cached = most_cached.max(cached);
            if random.below(2) == 0 {
                pool.trim();
            }
        }
        // Such use cannot fill a larger cache.
        if limit <= 40_000 {
            let least = limit.saturating_sub(777) as u64 / 2;
            assert!(most_cached >= least, "only {most_cached} of {limit} bytes");
        }
    }
}

#[test]
fn buffers_above_the_limit_of_a_threads_cache_are_in_the_depot() {
    let pool = builder().thread_cache_bytes(0).build().unwrap();
    drop((0..10).map(|_| pool.get(3333)).collect::<Vec<_>>());
    drop((0..10).map(|_| pool.get(3333)).collect::<Vec<_>>());
    let total = pool.stats().total;
    assert_eq!(
        (total.misses, total.local_hits, total.depot_hits),
        (10, 0, 10)
    );
    assert_eq!(total.retained_buffers, 10);
    assert_eq!(cached_bytes(&pool), 0);
}

// ---- a trim in the middle of its work ----

/// Stops a trim while it frees a buffer.
struct Gate {
    stopped: AtomicBool,
    open: AtomicBool,
}

static GATE: Gate = Gate {
    stopped: AtomicBool::new(false),
    open: AtomicBool::new(false),
};

thread_local! {
    /// Whether this thread stops at [`GATE`] when it frees a buffer.
    static STOPS: Cell<bool> = const { Cell::new(false) };
}

impl Gate {
    /// Called by the allocator.
    fn pass(&self) {
        if STOPS.get() {
            self.stopped.store(true, Ordering::Release);
            while !self.open.load(Ordering::Acquire) {
                thread::yield_now();
            }
        }
    }
}

#[test]
fn gets_and_drops_do_not_wait_for_a_stopped_trim() {
    let pool = builder()
        .trim_interval(Duration::from_millis(1))
        .build()
        .unwrap();
    let use_all = |pool: &Pool| {
        for class in CLASSES {
            let held: Vec<PooledBuf> = (0..200).map(|_| pool.get(class)).collect();
            drop(held);
        }
    };
    // Used on this thread too, so that there are other caches to claim than the worker's. Not while
    // the trim is stopped: this thread must let it go on.
    use_all(&pool);
    let (ready, is_ready) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let (done, is_done) = mpsc::channel();
    let worker = thread::spawn({
        let pool = pool.clone();
        move || {
            use_all(&pool);
            ready.send(()).unwrap();
            wait.recv().unwrap();
            for _ in 0..rounds(20, 2) {
                use_all(&pool);
                thread::sleep(Duration::from_millis(1)); // a trim by time is due
                let other = pool.clone();
                thread::spawn(move || use_all(&other)).join().unwrap();
            }
            done.send(()).unwrap();
        }
    });
    is_ready.recv().unwrap();
    let trimmer = thread::spawn({
        let pool = pool.clone();
        move || {
            STOPS.set(true);
            pool.clear()
        }
    });
    while !GATE.stopped.load(Ordering::Acquire) {
        thread::yield_now();
    }
    go.send(()).unwrap();
    // The worker needs milliseconds. It gets a minute, and fails if it waits for the trim to go on.
    let went_on = is_done.recv_timeout(Duration::from_secs(60)).is_ok();
    let stopped_all_the_time = !trimmer.is_finished();
    GATE.open.store(true, Ordering::Release);
    trimmer.join().unwrap();
    worker.join().unwrap();
    assert!(went_on && stopped_all_the_time);
    assert_accounts_balance(&pool);
    assert_eq!(pool.stats().total.outstanding, 0);
}

// ---- nothing is left ----

#[test]
fn ten_thousand_pools_leave_no_live_byte() {
    leaving_nothing(|ledger| {
        let mut most = 0;
        let start = ledger.live_bytes();
        for at in 0..rounds(10_000, 20) {
            let budget = match at {
                0 => 0,
                at => CLASSES[3] + at * 10,
            };
            let pool = builder().retain_bytes(budget).build().unwrap();
            drop((ledger.get(&pool, 700), ledger.get(&pool, 3000)));
            if at % 100 == 0 {
                // A cache of a thread that ended, and a magazine in the depot.
                let other = pool.clone();
                ledger.on_a_thread(move || {
                    let held: Vec<Held> = (0..70).map(|_| ledger.get(&other, 1)).collect();
                    drop(held);
                });
                pool.prefill(1551, 10);
                pool.trim();
            }
            drop(pool);
            most = most.max(ledger.live_bytes() - start);
        }
        // The bytes that a living thread keeps for pools that are gone.
        let left = ledger.live_bytes() - start;
        assert!(
            most <= 512 + 4 * 4096,
            "at most {most} bytes, in the end {left}"
        );
    });
}

#[test]
fn a_pool_with_buffers_kept_idle_leaves_no_live_byte() {
    leaving_nothing(|ledger| {
        for (idle, used) in [(0, false), (1, false), (200, false), (200, true)] {
            let builder = builder().keep_idle(777, idle).keep_idle(12_345, idle);
            let pool = builder.build().unwrap();
            let expected = (777 + 12_345) * idle as i64;
            assert_eq!(ledger.books().retained.now(), expected);
            assert_books_agree(ledger, &pool);
            if used {
                // In a thread's cache, and in one of a thread that has ended.
                drop((ledger.get(&pool, 777), ledger.get(&pool, 777)));
                let other = pool.clone();
                ledger.on_a_thread(move || drop(ledger.get(&other, 777)));
            }
            drop(pool);
            assert_eq!(ledger.books().retained.now(), 0);
        }
    });
}

#[test]
fn ten_thousand_threads_leave_as_many_caches_as_ran_at_once() {
    leaving_nothing(|ledger| {
        let pool = builder().retain_bytes(100_000).build().unwrap();
        let start = ledger.live_bytes();
        let in_turn = |threads: usize| {
            for _ in 0..threads {
                let pool = pool.clone();
                ledger.on_a_thread(move || {
                    let held: Vec<Held> = (0..5).map(|_| ledger.get(&pool, 1)).collect();
                    drop(held);
                });
            }
            ledger.live_bytes() - start
        };
        let after_few = in_turn(10);
        let after_many = in_turn(rounds(10_000, 20));
        assert_eq!(after_many, after_few, "bytes");
        assert_eq!(pool.stats().total.misses, 5);
    });
}

#[test]
fn a_thread_that_trims_keeps_no_byte_of_a_pool_that_is_gone() {
    let ledger = Ledger::open();
    ledger.on_a_thread(|| drop(Pool::default().get(1)));
    for interval in [Duration::from_millis(1), Duration::from_secs(3600)] {
        let before = ledger.live_bytes();
        ledger.on_a_thread(move || {
            for _ in 0..rounds(50, 3) {
                let builder = builder().trim_interval(interval).background_trim(true);
                let pool = builder.build().unwrap();
                let held: Vec<Held> = (0..50).map(|_| ledger.get(&pool, 777)).collect();
                drop(held);
            }
        });
        // The pools end by themselves, a moment later. They get a minute in all.
        let mut looked = 0;
        while ledger.live_bytes() != before && looked < 60_000 {
            thread::sleep(Duration::from_millis(1));
            looked += 1;
        }
        assert_eq!(ledger.live_bytes(), before);
    }
}
