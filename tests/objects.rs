//! Pools of objects: what they keep and drop, panics and re-entrant calls of the program's
//! functions, and the ends of threads and pools.

mod common {
    pub mod forget;
    pub mod objects;
    pub mod wait;
}

use common::forget;
use common::objects::{self, Census, Ends, Member, Model, Op, assert_balance};
use common::wait::wait_until;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, LazyLock, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::Duration;
use tierpool::{ConfigError, ObjectPool, ObjectPoolBuilder, ObjectStats, Pooled};

/// Whether each step costs microseconds. It does under Miri, and under valgrind, where
/// `scripts/sanitize.sh` sets `--cfg slow`.
const SLOW: bool = cfg!(any(miri, slow));

/// Fewer if [`SLOW`].
const fn rounds(native: usize, slow: usize) -> usize {
    if SLOW { slow } else { native }
}

fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    thread::spawn(work).join().unwrap()
}

/// Runs these on a thread each, until the threads have ended with their thread-locals. A scope alone waits for
/// the functions only: the threads might still hand their objects on.
fn on_threads<F: FnOnce() + Send>(work: impl IntoIterator<Item = F>) {
    thread::scope(|scope| {
        let threads: Vec<_> = work.into_iter().map(|work| scope.spawn(work)).collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
}

/// Panics without a report. The tests' output stays readable, and nothing else differs.
fn quiet_panic() -> ! {
    panic::resume_unwind(Box::new("a quiet panic"))
}

// ---- what a pool keeps ----

#[test]
fn an_object_comes_back_to_the_thread_that_dropped_it() {
    let census = Census::default();
    let pool = census.pool();
    let first = pool.get();
    let (id, address) = (first.id, &raw const *first);
    drop(first);
    let again = pool.get();
    assert_eq!((again.id, &raw const *again), (id, address));
    let moved = pool.clone();
    on_a_thread(move || {
        drop(again);
        assert_eq!(moved.get().id, id);
        assert_eq!(moved.stats().local_hits, 2);
    });
    // The thread has ended. Its objects are in the depot.
    assert_eq!(pool.get().id, id);
    let stats = assert_balance(&pool);
    assert_eq!((stats.depot_hits, stats.misses), (1, 1));
}

#[test]
fn objects_that_one_thread_gets_and_another_drops_are_not_made_anew() {
    let census = Census::default();
    let pool = census.pool();
    let (sender, receiver) = mpsc::sync_channel::<Pooled<Member>>(16);
    let dropper = thread::spawn(move || receiver.into_iter().for_each(drop));
    for _ in 0..rounds(20_000, 500) {
        sender.send(pool.get()).unwrap();
    }
    drop(sender);
    dropper.join().unwrap();
    let stats = assert_balance(&pool);
    // Those in the channel, in both caches and on their way.
    assert!(stats.misses <= 16 + 64 + 64 + 64, "{stats}");
    assert_eq!(stats.idle as usize, census.alive());
}

#[test]
fn the_bound_on_idle_objects_holds_over_all_threads() {
    const MAX: usize = 10;
    let census = Census::default();
    let pool = census.builder().max_idle(MAX).build().unwrap();
    let (all_hold, checked) = (Barrier::new(4), Barrier::new(4));
    let work = || {
        for _ in 0..rounds(50, 3) {
            let held: Vec<_> = (0..MAX).map(|_| pool.get()).collect();
            all_hold.wait();
            drop(held);
            all_hold.wait();
            let stats = pool.stats();
            assert!(stats.idle <= MAX as u64, "{stats}");
            assert_eq!(census.alive() as u64, stats.idle, "{stats}");
            checked.wait();
        }
    };
    on_threads([work; 4]);
    let stats = assert_balance(&pool);
    assert!(stats.discarded_full > 0, "{stats}");
}

#[test]
fn a_pool_that_may_keep_nothing_drops_each_object() {
    let census = Census::default();
    let pool = census.builder().max_idle(0).build().unwrap();
    for _ in 0..3 {
        drop(pool.get());
    }
    assert_eq!((census.made(), census.alive()), (3, 0));
    assert_eq!(assert_balance(&pool).discarded_full, 3);
}

#[test]
fn the_drop_rule_sees_an_object_before_it_is_reset() {
    let census = Census::default();
    let pool = census
        .builder()
        .keep(|member| member.uses.get() <= 2)
        .reset(|member| member.uses.set(0))
        .build()
        .unwrap();
    pool.get().uses.set(2);
    assert_eq!(pool.get().uses.get(), 0);
    pool.get().uses.set(3);
    assert_eq!(census.alive(), 0);
    let stats = assert_balance(&pool);
    assert_eq!((stats.discarded_by_keep, stats.idle), (1, 0));
    assert_eq!((stats.returns, stats.panics), (2, 0));
}

#[test]
fn what_is_adopted_stays_and_what_is_detached_goes() {
    let census = Census::default();
    let pool = census.pool();
    let mine = census.member();
    let id = mine.id;
    drop(pool.adopt(mine));
    let member: Member = pool.get().detach();
    assert_eq!(member.id, id);
    drop(pool);
    assert_eq!(census.alive(), 1, "detached: it outlives the pool");
    drop(member);
    assert_eq!(census.alive(), 0);
}

#[test]
fn an_adopted_object_may_be_dropped_on_a_thread_that_never_used_the_pool() {
    let census = Census::default();
    let pool = census.pool();
    let adopted = pool.adopt(census.member());
    on_a_thread(move || drop(adopted));
    let stats = assert_balance(&pool);
    assert_eq!((stats.adopted, stats.returns, stats.idle), (1, 1, 1));
}

#[test]
fn a_constructor_that_fails_passes_its_error_on_and_counts_nothing() {
    let census = Census::default();
    let pool = census.pool();
    let refused = pool.get_or_try_init(|| Err::<Member, _>("no memory"));
    assert_eq!(refused.err(), Some("no memory"));
    assert_eq!(pool.stats(), ObjectStats::default());
    let made = pool.get_or_try_init(|| Ok::<_, &str>(census.member()));
    let id = made.unwrap().id;
    // A hit calls nothing.
    let hit = pool.get_or_try_init(|| -> Result<Member, &str> { unreachable!() });
    assert_eq!(hit.unwrap().id, id);
    assert_eq!(assert_balance(&pool).misses, 1);
}

#[test]
fn a_guard_behaves_as_its_object() {
    let pool = ObjectPool::new(|| String::from("text"));
    let mut text = pool.get();
    text.as_mut().push('!');
    assert_eq!(
        (text.as_ref().len(), format!("{text}")),
        (5, "text!".into())
    );
    assert_eq!(format!("{text:?}"), "\"text!\"");
    assert!(format!("{pool:?}").starts_with("ObjectPool { stats: ObjectStats { gets: 1"));
    let builder = ObjectPool::builder(String::new).max_idle(3);
    assert!(format!("{builder:?}").contains("max_idle: Some(3), keep_idle: 0"));
    let pool: ObjectPool<Vec<u8>> = ObjectPool::default();
    assert!(pool.get().is_empty());
}

// A guard is `Send` with its object, and `Sync` with it. The opposite is in doc tests of `Pooled`
// and `ObjectPool`, which must not compile.
const _: () = {
    const fn is_send<T: Send>() {}
    const fn is_sync<T: Sync>() {}
    is_send::<Pooled<Cell<u8>>>();
    is_send::<ObjectPool<Cell<u8>>>();
    is_sync::<ObjectPool<Cell<u8>>>();
    is_sync::<Pooled<u8>>();
};

// Did not compile once: whether the guard is `Send` depended on itself.
#[test]
fn an_object_may_hold_guards_and_handles_of_its_own_pool() {
    #[derive(Default)]
    struct Node {
        next: Option<Pooled<Node>>,
        pool: Option<ObjectPool<Node>>,
        census: Option<Member>,
    }
    let census = Census::default();
    let pool: ObjectPool<Node> = ObjectPool::builder(Node::default)
        .trim_interval(None)
        .build()
        .unwrap();
    let mut first = pool.get();
    for _ in 0..100 {
        let mut node = pool.get();
        node.census = Some(census.member());
        node.next = Some(first);
        first = node;
    }
    let other = on_a_thread(move || first.next.take());
    // The first of the list has gone home, and the rest is out.
    assert_eq!((pool.stats().idle, pool.stats().outstanding), (1, 100));
    drop(other);
    assert_eq!((pool.stats().idle, pool.stats().outstanding), (2, 99));
    // Each node that is dropped sends the next one home.
    let cleared = std::iter::repeat_with(|| pool.clear()).take_while(|&dropped| dropped > 0);
    assert_eq!(cleared.sum::<usize>(), 101);
    assert_eq!((assert_balance(&pool).outstanding, census.alive()), (0, 0));

    // An idle object keeps its pool until a trim drops the object. Then all of the pool ends.
    let background = ObjectPool::builder(Node::default).trim_interval(Duration::from_millis(1));
    let pool = background.background_trim(true).build().unwrap();
    let mut node = pool.get();
    node.census = Some(census.member());
    node.pool = Some(pool.clone());
    drop(pool);
    assert_eq!(census.alive(), 1);
    drop(node);
    wait_until("the pool ends", || census.alive() == 0);
}

#[test]
fn zero_sized_and_overaligned_objects_are_kept() {
    #[derive(Default)]
    struct Nothing;
    #[repr(align(256))]
    struct Aligned(u8);
    let pool: ObjectPool<Nothing> = ObjectPool::default();
    drop([pool.get(), pool.get()]);
    assert_eq!(assert_balance(&pool).idle, 2);
    let pool = ObjectPool::new(|| Aligned(7));
    drop([pool.get(), pool.get()]);
    let aligned = pool.get();
    assert_eq!((aligned.0, (&raw const *aligned).addr() % 256), (7, 0));
}

// ---- trims ----

#[test]
fn a_trim_drops_what_no_get_took_also_in_the_cache_of_a_thread_that_rests() {
    let census = Census::default();
    let pool = census.pool();
    let (rests, wakes) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            drop([pool.get(), pool.get(), pool.get()]);
            rests.wait();
            wakes.wait();
        });
        rests.wait();
        assert_eq!((pool.trim(), census.alive()), (0, 3));
        assert_eq!((pool.trim(), census.alive()), (3, 0));
        wakes.wait();
    });
    assert_eq!(assert_balance(&pool).trimmed, 3);
}

#[test]
fn trims_leave_the_floor_and_a_clear_does_not() {
    let census = Census::default();
    let pool = census.builder().keep_idle(4).max_idle(9).build().unwrap();
    assert_eq!((census.made(), pool.stats().prefilled), (4, 4));
    let held: Vec<_> = (0..9).map(|_| pool.get()).collect();
    assert_eq!(pool.stats().depot_hits, 4);
    drop(held);
    for _ in 0..3 {
        pool.trim();
    }
    assert_eq!(census.alive(), 4);
    assert_eq!((pool.clear(), census.alive()), (4, 0));
    // The first that come back take their place.
    drop([pool.get(), pool.get()]);
    for _ in 0..3 {
        pool.trim();
    }
    assert_eq!(census.alive(), 2);
    assert_balance(&pool);
}

#[test]
fn gets_trim_by_time() {
    let census = Census::default();
    let often = census.builder().trim_interval(Duration::from_millis(1));
    let pool = often.build().unwrap();
    let (rests, wakes) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            drop([pool.get(), pool.get(), pool.get()]);
            rests.wait();
            wakes.wait();
        });
        rests.wait();
        // These gets miss, since the idle objects are in the cache of the thread that rests.
        wait_until("all three are dropped", || {
            drop(pool.get().detach());
            pool.stats().trimmed == 3
        });
        let alive = census.alive();
        wakes.wait();
        assert_eq!(alive, 0, "dropped by the get that trimmed");
    });
    assert_eq!(assert_balance(&pool).idle, 0);
}

// Failed once: gets and drops on the fast path did no part of a trim.
#[test]
fn a_thread_that_only_hits_its_own_cache_trims_by_time() {
    let census = Census::default();
    let often = census.builder().trim_interval(Duration::from_millis(1));
    let pool = often.build().unwrap();
    let burst: Vec<_> = (0..rounds(500, 100)).map(|_| pool.get()).collect();
    drop(burst);
    wait_until("all but one are dropped", || {
        (0..1024).for_each(|_| drop(pool.get()));
        census.alive() <= 1
    });
    let stats = assert_balance(&pool);
    assert!(stats.depot_hits <= 64 && stats.trimmed > 0, "{stats}");
}

#[test]
fn the_background_thread_trims_and_survives_a_panic_of_an_objects_end() {
    let census = Census::default();
    let pool = census
        .builder()
        .trim_interval(Duration::from_millis(1))
        .background_trim(true)
        .build()
        .unwrap();
    for round in 1..=2 {
        let mut member = pool.get();
        member.end = Ends::ByPanic;
        drop(member);
        wait_until("the object is dropped", || pool.stats().panics == round);
    }
    assert_eq!(pool.stats().trimmed, 2);
}

// Dropped as one chain, each by the end of the one before it, they would overflow the stack.
#[test]
fn a_hundred_thousand_objects_are_dropped_by_one_clear() {
    let census = Census::default();
    let pool = census.builder().max_idle(usize::MAX).build().unwrap();
    let many = rounds(100_000, 300);
    let held: Vec<_> = (0..many).map(|_| pool.get()).collect();
    drop(held);
    assert_eq!((pool.clear(), census.alive()), (many, 0));
}

// ---- panics ----

#[test]
fn a_panic_of_init_goes_to_the_caller_and_leaves_the_pool_as_it_is() {
    let census = Census::default();
    let fails = Arc::new(AtomicBool::new(true));
    let pool = {
        let (census, fails) = (census.clone(), Arc::clone(&fails));
        ObjectPool::new(move || match fails.load(Ordering::SeqCst) {
            true => quiet_panic(),
            false => census.member(),
        })
    };
    let get = || drop(pool.get());
    assert!(catch_unwind(AssertUnwindSafe(get)).is_err());
    let try_init = || drop(pool.get_or_try_init(|| -> Result<Member, ()> { quiet_panic() }));
    assert!(catch_unwind(AssertUnwindSafe(try_init)).is_err());
    let stats = assert_balance(&pool);
    assert_eq!((stats.gets, stats.panics), (0, 2));
    fails.store(false, Ordering::SeqCst);
    drop(pool.get());
    assert_eq!(assert_balance(&pool).idle, 1);
}

#[test]
fn a_panic_of_init_in_build_drops_the_objects_made_before() {
    let census = Census::default();
    let builder = {
        let census = census.clone();
        ObjectPool::builder(move || {
            let mut member = census.member();
            member.end = Ends::ByPanic; // while the panic of `init` unwinds
            if member.id == 2 {
                member.end = Ends::Quietly;
                quiet_panic();
            }
            member
        })
    };
    let build = || drop(builder.keep_idle(5).build());
    assert!(catch_unwind(AssertUnwindSafe(build)).is_err());
    assert_eq!((census.made(), census.alive()), (3, 0));
}

#[test]
fn an_object_whose_reset_or_drop_rule_panics_is_dropped() {
    let census = Census::default();
    // 1 and 2 panic.
    let pool = census
        .builder()
        .keep(|member| member.uses.get() != 1 || quiet_panic())
        .reset(|member| {
            if member.uses.replace(0) == 2 {
                quiet_panic();
            }
        })
        .build()
        .unwrap();
    for uses in [0, 1, 2, 3] {
        pool.get().uses.set(uses);
    }
    let stats = assert_balance(&pool);
    assert_eq!((stats.discarded_by_panic, stats.panics), (2, 2));
    assert_eq!((census.alive(), stats.idle), (1, 1));
}

#[test]
fn an_objects_end_may_panic_wherever_the_pool_drops_it() {
    type Act = fn(&ObjectPool<Member>);
    // How, and how many objects it drops.
    let ways: [(&str, Act, u64); 5] = [
        ("trim", |pool| _ = (pool.trim(), pool.trim()), 3),
        ("clear", |pool| assert_eq!(pool.clear(), 3), 3),
        (
            "full",
            |pool| drop((0..13).map(|_| bad(pool)).collect::<Vec<_>>()),
            3,
        ),
        ("keep", |pool| pool.get().uses.set(9), 1),
        ("reset", |pool| pool.get().uses.set(8), 1),
    ];
    fn bad(pool: &ObjectPool<Member>) -> Pooled<Member> {
        let mut member = pool.get();
        member.end = Ends::ByPanic;
        member
    }
    for (name, act, dropped) in ways {
        let census = Census::default();
        let pool = census
            .builder()
            .max_idle(10)
            .keep(|member| member.uses.get() != 9)
            .reset(|member| {
                if member.uses.get() == 8 {
                    quiet_panic();
                }
            })
            .build()
            .unwrap();
        drop([bad(&pool), bad(&pool), bad(&pool)]);
        let before = census.alive();
        let made = census.made();
        act(&pool);
        let gone = before + (census.made() - made) - census.alive();
        assert_eq!(gone as u64, dropped, "{name}");
        let more = u64::from(name == "reset"); // its own panic
        assert_eq!(assert_balance(&pool).panics, dropped + more, "{name}");
        drop(pool);
        assert_eq!(census.alive(), 0, "{name}");
    }
}

#[test]
fn a_guard_that_is_dropped_by_a_panic_panics_no_second_time() {
    let census = Census::default();
    let pool = census
        .builder()
        .reset(|member| {
            if member.uses.get() == 1 {
                panic!("reset while the thread unwinds: expected in the output");
            }
        })
        .build()
        .unwrap();
    let user = catch_unwind(AssertUnwindSafe(|| {
        let (mut both, mut end, fine) = (pool.get(), pool.get(), pool.get());
        both.uses.set(1);
        both.end = Ends::ByPanic;
        end.end = Ends::ByPanic;
        assert_eq!(fine.uses.get(), 0);
        quiet_panic();
    }));
    assert!(user.is_err());
    let stats = assert_balance(&pool);
    assert_eq!((stats.discarded_by_panic, stats.panics), (1, 2), "{stats}");
    assert_eq!((census.alive(), stats.idle), (2, 2));
    // The last handle drops the other one whose end panics.
    let unwinds = catch_unwind(AssertUnwindSafe(move || {
        let _pool = pool;
        quiet_panic();
    }));
    assert!(unwinds.is_err());
    assert_eq!(census.alive(), 0);
}

// ---- functions that use their own pool ----

/// An object whose end uses its own pool.
struct UsesItsPool(&'static OnceLock<ObjectPool<UsesItsPool>>);

static ENDS: AtomicUsize = AtomicUsize::new(0);

impl Drop for UsesItsPool {
    fn drop(&mut self) {
        ENDS.fetch_add(1, Ordering::SeqCst);
        let pool = self.0.get().unwrap();
        // All that takes the engine's lock, or waits for it.
        pool.trim();
        pool.clear();
        drop(pool.clone());
        forget::forget(pool.get().detach()); // its end would do the same
    }
}

#[test]
fn the_end_of_an_object_may_use_its_own_pool() {
    static POOL: OnceLock<ObjectPool<UsesItsPool>> = OnceLock::new();
    let pool = POOL.get_or_init(|| {
        let builder = ObjectPool::builder(|| UsesItsPool(&POOL)).trim_interval(None);
        builder.max_idle(70).build().unwrap()
    });
    let fill = |count| drop((0..count).map(|_| pool.get()).collect::<Vec<_>>());
    fill(5);
    pool.clear();
    assert_eq!(ENDS.load(Ordering::SeqCst), 5);
    fill(5);
    pool.trim();
    pool.trim();
    assert_eq!(ENDS.load(Ordering::SeqCst), 10);
    fill(71); // one finds no room
    pool.clear();
    assert_eq!(pool.stats().idle, 0);
    // On a thread that ends, whose objects go to the depot.
    thread::scope(|scope| scope.spawn(|| fill(5)).join().unwrap());
    pool.clear();
    let stats = assert_balance(pool);
    assert_eq!((stats.idle, stats.outstanding), (0, 0));
}

#[test]
fn functions_may_use_their_own_pool() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static DEPTH: Cell<usize> = const { Cell::new(0) };
    }
    /// Once for each call from outside: uses all of the pool.
    fn use_pool() {
        if DEPTH.replace(1) == 0 {
            CALLS.fetch_add(1, Ordering::SeqCst);
            let mut held: Vec<_> = (0..70).map(|_| POOL.get()).collect();
            held.truncate(3);
            POOL.trim();
            drop(held);
            POOL.clear();
            DEPTH.set(0);
        }
    }
    static POOL: LazyLock<ObjectPool<Vec<u8>>> = LazyLock::new(|| {
        ObjectPool::builder(|| {
            if POOL_IS_MADE.load(Ordering::SeqCst) {
                use_pool();
            }
            Vec::new()
        })
        .keep(|_| {
            use_pool();
            true
        })
        .reset(|_| use_pool())
        .build()
        .unwrap()
    });
    static POOL_IS_MADE: AtomicBool = AtomicBool::new(false);
    LazyLock::force(&POOL);
    POOL_IS_MADE.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        drop(POOL.get());
    }
    // A get that misses, and the two functions of a drop.
    assert!(CALLS.load(Ordering::SeqCst) >= 7);
    let stats = assert_balance(&POOL);
    assert_eq!((stats.outstanding, stats.panics), (0, 0));
}

// ---- the ends of threads and pools ----

#[test]
fn the_last_handle_drops_all_idle_objects_and_each_guard_its_own() {
    let census = Census::default();
    let pool = census.pool();
    let (idle, end) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let other = {
        let (idle, end) = (Arc::clone(&idle), Arc::clone(&end));
        let pool = pool.clone();
        thread::spawn(move || {
            drop([pool.get(), pool.get()]);
            drop(pool);
            idle.wait();
            end.wait();
        })
    };
    idle.wait();
    let held = [pool.get(), pool.get()];
    drop([pool.get(), pool.get()]);
    assert_eq!(census.alive(), 6);
    drop(pool);
    assert_eq!(
        census.alive(),
        2,
        "the other thread's cache is empty as well"
    );
    let [here, there] = held;
    assert_eq!(here.census.alive(), 2);
    drop(here);
    on_a_thread(move || drop(there));
    assert_eq!(census.alive(), 0);
    end.wait();
    other.join().unwrap();
}

#[test]
fn a_guard_after_its_pool_still_runs_the_functions_and_may_panic() {
    let census = Census::default();
    let resets = Arc::new(AtomicUsize::new(0));
    let pool = {
        let resets = Arc::clone(&resets);
        let builder = census.builder().reset(move |_| {
            resets.fetch_add(1, Ordering::SeqCst);
            quiet_panic();
        });
        builder.build().unwrap()
    };
    let mut guard = pool.get();
    guard.end = Ends::ByPanic;
    drop(pool);
    drop(guard);
    assert_eq!((census.alive(), resets.load(Ordering::SeqCst)), (0, 1));
    assert_eq!(
        Arc::strong_count(&resets),
        1,
        "the pool's own memory is freed"
    );
}

// What the functions own ends with the pool, which may be in the drop of a guard while its thread
// unwinds. There, a panic that goes on would end the process.
#[test]
fn what_the_functions_own_may_panic_at_its_end() {
    let census = Census::default();
    let owned = || {
        let mut owned = census.member();
        owned.end = Ends::ByPanic;
        Mutex::new(owned) // a function must be `Sync`
    };
    let made = |_: &Mutex<Member>| 7_u8;
    let (init, keep, reset) = (owned(), owned(), owned());
    let pool = ObjectPool::builder(move || made(&init))
        .keep(move |_| made(&keep) == 7)
        .reset(move |_| _ = made(&reset))
        .build()
        .unwrap();
    let user = catch_unwind(AssertUnwindSafe(|| {
        let _last = pool.get();
        drop(pool);
        assert_eq!(census.alive(), 3);
        quiet_panic();
    }));
    assert_eq!(user.unwrap_err().downcast_ref(), Some(&"a quiet panic"));
    assert_eq!(census.alive(), 0);
    // The end of a pool in `detach` loses no object.
    let init = owned();
    let pool = ObjectPool::new(move || made(&init));
    let last = pool.get();
    drop(pool);
    assert_eq!((last.detach(), census.alive()), (7, 0));
}

#[test]
fn a_forgotten_guard_stays_outstanding() {
    let census = Census::default();
    let pool = census.pool();
    forget::forget(pool.get());
    drop(pool.get());
    pool.clear();
    assert_eq!(assert_balance(&pool).outstanding, 1);
    drop(pool);
    assert_eq!(census.alive(), 1);
}

/// Runs a function when its thread-local is destroyed.
struct AtExit(RefCell<Option<Box<dyn FnOnce()>>>);

impl Drop for AtExit {
    fn drop(&mut self) {
        if let Some(work) = self.0.take() {
            work();
        }
    }
}

// On Linux the destructors of thread-locals run in the reverse order of their first use. So `EARLY`,
// if used before any pool, runs after the thread's caches are gone. `LATE` is for the opposite.
thread_local! {
    static EARLY: AtExit = const { AtExit(RefCell::new(None)) };
    static LATE: AtExit = const { AtExit(RefCell::new(None)) };
}

#[test]
fn a_destructor_of_a_thread_local_may_use_the_pool() {
    let census = Census::default();
    let pool = census
        .builder()
        .reset(|member| {
            if member.end == Ends::ByPanic {
                quiet_panic(); // at that time, a panic that goes on would end the process
            }
        })
        .build()
        .unwrap();
    let moved = pool.clone();
    on_a_thread(move || {
        EARLY.with(|_| ());
        let held = || [moved.get(), moved.get()];
        let at_exit = |[kept, mut dropped]: [Pooled<Member>; 2]| {
            let pool = moved.clone();
            move || {
                dropped.end = Ends::ByPanic;
                drop((kept, dropped));
                drop(pool.get());
            }
        };
        let (early, late) = (at_exit(held()), at_exit(held()));
        EARLY.with(|exit| *exit.0.borrow_mut() = Some(Box::new(early)));
        LATE.with(|exit| *exit.0.borrow_mut() = Some(Box::new(late)));
    });
    let stats = assert_balance(&pool);
    assert_eq!(
        (stats.outstanding, stats.discarded_by_panic),
        (0, 2),
        "{stats}"
    );
    assert_eq!(
        (stats.idle, census.alive()),
        (2, 2),
        "kept, and in the depot"
    );
    assert_eq!(stats.panics, 4, "of the functions and of the ends");
}

#[test]
fn threads_that_end_leave_their_objects_to_others() {
    let census = Census::default();
    let pool = census.pool();
    for _ in 0..rounds(50, 5) {
        let pool = pool.clone();
        on_a_thread(move || drop([pool.get(), pool.get(), pool.get()]));
    }
    assert_eq!((census.made(), assert_balance(&pool).idle), (3, 3));
}

#[test]
fn busy_threads_lose_no_object_and_share_none() {
    let census = Census::default();
    let pool = census
        .builder()
        .max_idle(40)
        .keep(|member| member.id % 7 != 0)
        .build()
        .unwrap();
    let exchange: Mutex<Vec<Pooled<Member>>> = Mutex::new(Vec::new());
    on_threads((0..4).map(|thread| {
        let (pool, exchange) = (&pool, &exchange);
        move || {
            for round in 0..rounds(3000, 60) {
                let member = pool.get();
                // `Cell`: a data race if two threads had it.
                assert_eq!(member.uses.replace(1), 0);
                member.uses.set(0);
                match (thread + round) % 5 {
                    0 => exchange.lock().unwrap().push(member),
                    1 => drop(exchange.lock().unwrap().pop()),
                    2 if round % 50 == 2 => _ = pool.trim(),
                    3 if round % 200 == 3 => _ = pool.clear(),
                    _ => drop(member),
                }
            }
        }
    }));
    exchange.lock().unwrap().clear();
    let stats = assert_balance(&pool);
    assert_eq!((stats.outstanding, stats.panics), (0, 0), "{stats}");
    assert_eq!(stats.idle, census.alive() as u64);
    drop(pool);
    assert_eq!(census.alive(), 0);
}

#[test]
fn a_drop_of_the_last_handle_races_drops_of_guards() {
    for _ in 0..rounds(300, 5) {
        let census = Census::default();
        let pool = census.pool();
        let held: Vec<_> = (0..4).map(|_| pool.get()).collect();
        let start = Arc::new(Barrier::new(2));
        let dropper = {
            let start = Arc::clone(&start);
            thread::spawn(move || {
                start.wait();
                drop(held);
            })
        };
        start.wait();
        drop(pool);
        dropper.join().unwrap();
        assert_eq!(census.alive(), 0);
    }
}

// ---- options ----

#[test]
fn options_that_cannot_be_used_are_refused_with_a_remedy() {
    type Options = fn(ObjectPoolBuilder<Vec<u8>>) -> ObjectPoolBuilder<Vec<u8>>;
    let refused = |options: Options| {
        let error = options(ObjectPool::builder(Vec::new)).build().unwrap_err();
        assert!(error.source().is_none());
        (error.to_string(), error)
    };
    let (text, error) = refused(|pool| pool.max_idle(3).keep_idle(4));
    assert!(
        text.contains("raise max_idle to 4 or more, or keep fewer idle"),
        "{text}"
    );
    let ConfigError::KeepIdleAboveMaxIdle {
        keep_idle,
        max_idle,
        ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!((keep_idle, max_idle), (4, 3));
    let (text, error) = refused(|pool| pool.max_idle(usize::MAX).keep_idle(usize::MAX));
    assert!(
        text.starts_with("keep_idle (18446744073709551615 objects)")
            || cfg!(not(target_pointer_width = "64")),
        "{text}"
    );
    assert!(matches!(
        error,
        ConfigError::KeepIdleObjectsOutOfMemory {
            count: usize::MAX,
            ..
        }
    ));
    let (text, _) = refused(|pool| pool.trim_interval(Duration::ZERO));
    assert!(text.starts_with("trim_interval is 0"), "{text}");
    let (text, _) = refused(|pool| pool.trim_interval(None).background_trim(true));
    assert!(
        text.starts_with("background_trim is set, but trim_interval is None"),
        "{text}"
    );
}

#[test]
fn a_floor_above_the_default_bound_raises_it() {
    let pool = ObjectPool::builder(|| 7_u8)
        .keep_idle(2000)
        .build()
        .unwrap();
    assert_eq!(pool.stats().idle, 2000);
}

#[cfg(feature = "serde")]
#[test]
fn numbers_can_be_serialized() {
    let pool = ObjectPool::new(|| 7_u8);
    drop(pool.get());
    let json = serde_json::to_value(pool.stats()).unwrap();
    assert_eq!((&json["misses"], &json["idle"]), (&1.into(), &1.into()));
}

// ---- against a model ----

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => Just(Op::Get),
        1 => any::<bool>().prop_map(|fails| Op::TryInit { fails }),
        1 => Just(Op::Adopt),
        8 => (any::<usize>(), prop::bool::weighted(0.9)).prop_map(|(place, kept)| Op::Drop { place, kept }),
        1 => any::<usize>().prop_map(Op::Detach),
        2 => Just(Op::Trim),
        1 => prop::bool::weighted(0.2).prop_map(|clear| if clear { Op::Clear } else { Op::Trim }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: rounds(300, 4) as u32,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_pool_does_as_the_model(
        max_idle in prop_oneof![0_usize..6, 6_usize..200],
        keep_idle in 0_usize..10,
        ops in prop::collection::vec(any_op(), 0..rounds(400, 60)),
    ) {
        let mut model = Model::new(max_idle, keep_idle.min(max_idle));
        for op in &ops {
            model.check(op);
        }
        let census = model.census.clone();
        drop(model);
        prop_assert_eq!(census.alive(), 0);
    }

    #[test]
    fn a_pool_does_as_the_model_for_any_bytes(
        bytes in prop::collection::vec(any::<u8>(), 0..rounds(400, 60)),
    ) {
        let (mut model, ops) = objects::run(&bytes);
        for op in &ops {
            model.check(op);
        }
    }
}
