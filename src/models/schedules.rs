//! Schedules that are too long for loom: threads act at random on two pools of two size classes,
//! with magazines of more than one item. And a reset of the peaks, because loom weakens its
//! orderings.
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle -C debug-assertions" cargo test --release --lib schedules
//! ```
//!
//! Shuttle draws the acts of each thread as it draws the order. So an order that fails runs again
//! with the same acts. `check_many` in `src/sync/shuttle.rs` tells how to do that, and how to try
//! more orders.

use super::{Held, Number, Pool, alive, spawn, whole};
use crate::engine::{ClassIndex, ClassLimits, Item, Limits};
use crate::stats::{Counts, Footprint};
use crate::sync::model::{JoinHandle, check_many, random};
use crate::sync::set_light_is_a_fence;
use std::sync::{Arc, Mutex};

const POOLS: usize = 2;
const CLASSES: [ClassIndex; 2] = [ClassIndex(0), ClassIndex(1)];
/// How many threads there are at once.
const SEATS: usize = 4;
/// How many threads have a seat, one after the other.
const LIVES: usize = 2;
/// How many acts each of them does.
const ACTS: usize = 10;
/// The most items that a thread holds at once.
const HELD_MAX: usize = 6;

/// Takes about 6 seconds on one processor.
const ORDERS: usize = 4000;

fn limits() -> Limits {
    let class = |items, cache_rounds, weight| ClassLimits {
        items,
        cache_rounds,
        magazine_rounds: cache_rounds / 2,
        weight,
        keep_idle: 0,
    };
    Limits {
        classes: Box::new([class(10, 4, 2), class(6, 4, 3)]),
        weight: 24, // less than the limits of the classes together
        thread_weight: 11,
        trim_interval: None,
        piece_weight: 8, // a limit that some pieces reach
    }
}

/// A pool, and the known facts about it.
struct Used {
    pool: Arc<Pool>,
    /// The standard library's mutex, never held during an operation of the pool.
    known: Mutex<Known>,
}

#[derive(Clone, Default)]
struct Known {
    /// Per class.
    gets: [u64; CLASSES.len()],
    made: [u64; CLASSES.len()],
    kept: [u64; CLASSES.len()],
    stocked: [u64; CLASSES.len()],
    /// Returns that have begun, per class.
    puts: [u64; CLASSES.len()],
    closing: bool,
    closed: bool,
}

/// An outstanding item, with its pool and its class.
struct Out {
    of: usize,
    class: ClassIndex,
    held: Held,
}

struct World {
    pools: [Used; POOLS],
    /// The items that threads pass to each other.
    passed: Mutex<Vec<Out>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Used {
    fn new() -> Self {
        Used {
            pool: Pool::new(&limits()),
            known: Mutex::default(),
        }
    }

    fn know<R>(&self, note: impl FnOnce(&mut Known) -> R) -> R {
        note(&mut self.known.lock().unwrap())
    }

    fn is_closed(&self) -> bool {
        self.know(|known| known.closed)
    }

    fn get(&self, of: usize, class: ClassIndex) -> Out {
        let closed = self.is_closed();
        self.know(|known| known.gets[class.get()] += 1);
        let (item, origin) = self.pool.take(class);
        assert!(!closed || item.is_none(), "a closed engine had an item");
        let item = item.unwrap_or_else(|| {
            self.know(|known| known.made[class.get()] += 1);
            self.pool.engine.reserve(class, 1);
            Number::of_weight(weight(class))
        });
        let held = Held { item, origin };
        Out { of, class, held }
    }

    fn put(&self, class: ClassIndex, held: Held) {
        let closed = self.is_closed();
        self.know(|known| known.puts[class.get()] += 1);
        let kept = self.pool.put_to(class, held);
        assert!(!closed || !kept, "a closed engine kept an item");
        self.know(|known| known.kept[class.get()] += u64::from(kept));
    }

    fn stock(&self, class: ClassIndex) {
        if self.know(|known| known.closing) {
            return; // the byte pool has a handle when it stocks
        }
        let make = || Number::of_weight(weight(class));
        let stocked = self.pool.engine.stock(class, 1 + random(3), make) as u64;
        self.know(|known| known.stocked[class.get()] += stocked);
    }

    fn close(&self) {
        let closing = self.know(|known| std::mem::replace(&mut known.closing, true));
        if !closing {
            self.pool.engine.close(Item::free);
            self.know(|known| known.closed = true);
        }
    }

    /// Asserts what holds at any time.
    fn look(&self, class: ClassIndex) {
        assert!(
            self.pool.engine.leased() <= self.pool.limit,
            "leased above the limit"
        );
        let levels = self.pool.engine.levels(class);
        let known = self.know(|known| known.clone());
        let of = class.get();
        let hits = known.gets[of];
        assert!(
            levels.local_hits + levels.depot_hits <= hits,
            "more hits than gets"
        );
        let puts = self.know(|known| known.puts[of]);
        assert!(levels.returns <= puts, "more returns than there were");
    }

    /// Asserts what holds when no thread uses the pool any more, and empties it.
    fn assert_exact(&self) {
        let known = self.know(|known| known.clone());
        let (mut items, mut weight) = (0, 0);
        for class in CLASSES {
            let levels = self.pool.engine.levels(class);
            items += levels.idle_items;
            weight += levels.idle_weight;
            let of = class.get();
            let hits = levels.local_hits + levels.depot_hits;
            if known.closed {
                continue; // `close` does not count the items that it frees
            }
            assert_eq!(hits + known.made[of], known.gets[of], "gets");
            assert_eq!(levels.returns, known.kept[of], "returns");
            let came = levels.returns + known.stocked[of];
            let went = hits + levels.trimmed + levels.idle_items as u64;
            assert_eq!(came, went, "items");
        }
        if known.closed {
            assert_eq!((items, weight), (0, 0), "a closed engine holds items");
            return;
        }
        let leased = self.pool.engine.leased();
        assert!(weight <= leased, "retained without a lease");
        assert!(leased <= self.pool.limit, "leased above the limit");
        let alive_before = alive();
        self.pool.engine.clear();
        assert_eq!(
            alive_before - alive(),
            items,
            "`clear` must free exactly the idle items"
        );
        assert_eq!(self.pool.engine.leased(), 0, "leases without an item");
    }
}

fn weight(class: ClassIndex) -> usize {
    limits().classes[class.get()].weight
}

fn one_of<T: Copy>(some: &[T]) -> T {
    some[random(some.len())]
}

impl World {
    fn act(&self, mine: &mut Vec<Out>) {
        let of = random(POOLS);
        let (used, class) = (&self.pools[of], one_of(&CLASSES));
        match random(40) {
            0..14 if mine.len() < HELD_MAX => mine.push(used.get(of, class)),
            0..26 if !mine.is_empty() => self.put(mine.swap_remove(random(mine.len()))),
            26..29 => {
                let passed = self.passed.lock().unwrap().pop();
                mine.extend(passed);
            }
            29..31 => self.passed.lock().unwrap().extend(mine.pop()),
            31 => {
                // As for a buffer that has grown.
                let origin = crate::engine::Origin::NONE;
                let item = Number::of_weight(weight(class) + 1);
                let closed = used.is_closed();
                used.know(|known| known.puts[class.get()] += 1);
                let kept = used.pool.put_to(class, Held { item, origin });
                assert!(!closed || !kept, "a closed engine kept an item");
                used.know(|known| known.kept[class.get()] += u64::from(kept));
            }
            32 => used.pool.engine.give_up(class),
            33 => used.stock(class),
            34 => drop(used.pool.engine.clear()),
            35..37 => drop(used.pool.engine.trim()),
            37 if random(4) == 0 => used.close(),
            _ => used.look(class),
        }
    }

    fn put(&self, out: Out) {
        self.pools[out.of].put(out.class, out.held);
    }
}

/// A thread, which has `mine`, and its successors.
fn live(world: Arc<World>, mut mine: Vec<Out>, lives: usize) {
    let here = Arc::clone(&world);
    let thread = spawn(move || {
        for _ in 0..ACTS {
            here.act(&mut mine);
        }
        // The next thread begins, and may inherit, while this one ends.
        match lives.checked_sub(1) {
            Some(lives) => live(here, mine, lives),
            None => mine.into_iter().for_each(|out| here.put(out)),
        }
    });
    world.threads.lock().unwrap().push(thread);
}

fn threads_use_pools() {
    let world = Arc::new(World {
        pools: std::array::from_fn(|_| Used::new()),
        passed: Mutex::default(),
        threads: Mutex::default(),
    });
    for _ in 0..SEATS {
        live(Arc::clone(&world), Vec::new(), LIVES - 1);
    }
    loop {
        let thread = world.threads.lock().unwrap().pop();
        match thread {
            Some(thread) => thread.join().unwrap(),
            None => break,
        }
    }
    world.passed.lock().unwrap().clear();
    for used in &world.pools {
        used.assert_exact();
    }
    assert_eq!(alive(), 0, "items are lost");
}

/// Threads that make and free buffers, and one that resets the peaks. The peak is never below
/// a footprint since the reset.
fn peaks_are_reset_while_buffers_are_made() {
    const BYTES: [usize; 3] = [1, 10, 100];
    let footprint = Arc::new(Footprint::default());
    let threads = BYTES.map(|bytes| {
        let footprint = Arc::clone(&footprint);
        spawn(move || {
            for _ in 0..2 {
                footprint.changes(0, bytes);
                footprint.changes(bytes, 0);
            }
            footprint.changes(0, bytes);
        })
    });
    footprint.changes(0, 1000);
    footprint.changes(1000, 0);
    footprint.reset_peaks();
    footprint.changes(0, 2000);
    footprint.changes(2000, 0);
    let peak = || footprint.peaks(&Counts::default()).footprint_bytes as usize;
    assert!((2000..=2111).contains(&peak()), "{}", peak());
    footprint.reset_peaks();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert_eq!(footprint.bytes(), 111);
    // Or the footprint before, if a buffer was being made.
    assert!((111..=2111).contains(&peak()), "{}", peak());
}

#[test]
fn a_reset_of_peaks_races_buffers_that_are_made() {
    check_many(ORDERS, whole(peaks_are_reset_while_buffers_are_made));
}

#[test]
fn threads_use_two_pools_at_random() {
    check_many(ORDERS, whole(threads_use_pools));
}

#[test]
fn threads_use_two_pools_at_random_without_a_light_barrier() {
    set_light_is_a_fence(false);
    check_many(ORDERS, whole(threads_use_pools));
}
