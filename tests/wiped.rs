//! `zero_on_return`, checked by the allocator: it looks for a secret in all memory that the threads
//! of a test hold, and in the memory that they free.
//!
//! Owns a global allocator that keeps a list of the blocks of each test's threads. It fills each
//! block with zeros, so that these threads wrote any other value. It reads each block before it is
//! freed, and all live blocks when a test asks. `tests/it` looks only at the buffer that comes
//! back, and checks that no more is wiped than necessary.
//!
//! The secret itself lies in the binary's constants, which are in no block.

// The allocator reads bytes that other code has borrowed. The aliasing models forbid that.
#![cfg(not(miri))]

mod common {
    pub mod secret;
}

use bytes::{Buf, BufMut, Bytes, BytesMut};
use common::secret::{CAPACITY, SECRET, WAYS, Way};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use tierpool::{Builder, Pool, PooledBuf};

// ---- the allocator ----

/// This many bytes of the secret in a row are a find.
const PART: usize = 5;

/// The watch of threads that belong to no test.
const UNWATCHED: usize = 0;

/// More than there are tests.
const WATCHES: usize = 64;

#[derive(Clone, Copy)]
struct Block {
    start: *mut u8,
    size: usize,
    watch: usize,
}

/// The blocks that watched threads have allocated, whichever thread frees them.
struct Blocks {
    alive: [Block; 1 << 14],
    len: usize,
}

// SAFETY: `start` is an address, and is only read while the block is alive.
unsafe impl Send for Blocks {}

static BLOCKS: Mutex<Blocks> = Mutex::new(Blocks {
    alive: [Block {
        start: std::ptr::null_mut(),
        size: 0,
        watch: UNWATCHED,
    }; 1 << 14],
    len: 0,
});

/// How many blocks of each watch had a part of the secret when they were freed.
static FREED_WITH_SECRET: [AtomicUsize; WATCHES] = [const { AtomicUsize::new(0) }; WATCHES];

thread_local! {
    static WATCH: Cell<usize> = const { Cell::new(UNWATCHED) };
    /// Whether small blocks are refused.
    static REFUSING: Cell<bool> = const { Cell::new(false) };
}

/// Allocates nothing while it is held.
fn blocks() -> MutexGuard<'static, Blocks> {
    BLOCKS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Block {
    /// Whether the block has a part of the secret.
    ///
    /// # Safety
    ///
    /// - The block is alive, and no thread writes to it meanwhile.
    unsafe fn has_secret(self) -> bool {
        // The last `PART` bytes, in a number.
        let mut last = 0_u64;
        for at in 0..self.size {
            // SAFETY: within the block, which was filled with zeros. Volatile, to read the
            // machine's memory, although a move may have left it uninitialised for the language.
            let byte = unsafe { self.start.add(at).read_volatile() };
            last = (last << 8 | u64::from(byte)) & ((1 << (8 * PART)) - 1);
            if byte != 0 && PARTS.contains(&last) {
                return true;
            }
        }
        false
    }
}

/// All parts of the secret, as numbers.
static PARTS: [u64; SECRET.len() - PART + 1] = {
    let mut parts = [0; SECRET.len() - PART + 1];
    let mut at = 0;
    while at < parts.len() {
        let mut byte = 0;
        while byte < PART {
            parts[at] = parts[at] << 8 | SECRET[at + byte] as u64;
            byte += 1;
        }
        at += 1;
    }
    parts
};

struct Watching;

// SAFETY: all blocks are the system allocator's.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let watch = WATCH.get();
        if watch == UNWATCHED {
            // SAFETY: as the caller promises.
            return unsafe { System.alloc(layout) };
        }
        if REFUSING.get() && layout.size() < CAPACITY / 2 {
            return std::ptr::null_mut();
        }
        // SAFETY: as above.
        let start = unsafe { System.alloc_zeroed(layout) };
        if !start.is_null() {
            let mut blocks = blocks();
            let len = blocks.len;
            let Some(free) = blocks.alive.get_mut(len) else {
                std::process::abort(); // raise the number of blocks
            };
            *free = Block {
                start,
                size: layout.size(),
                watch,
            };
            blocks.len += 1;
        }
        start
    }

    // `realloc` calls these two, so its old block is checked as well.
    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        let mut blocks = blocks();
        let len = blocks.len;
        // From the end: the latest block is mostly freed first.
        let found = blocks.alive[..len]
            .iter()
            .rposition(|block| block.start == start);
        if let Some(at) = found {
            let block = blocks.alive[at];
            blocks.alive[at] = blocks.alive[len - 1];
            blocks.len -= 1;
            drop(blocks);
            // SAFETY: it is alive, and its owner is about to free it, so no other thread touches
            // it.
            if unsafe { block.has_secret() } {
                FREED_WITH_SECRET[block.watch].fetch_add(1, Ordering::Relaxed);
            }
        } else {
            drop(blocks);
        }
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(start, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// One test's threads.
#[derive(Clone, Copy)]
struct Watch(usize);

/// How many blocks with the secret are alive, and how many were freed since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    alive: usize,
    freed: usize,
}

const NOWHERE: Found = Found { alive: 0, freed: 0 };

impl Watch {
    fn new() -> Self {
        static LAST: AtomicUsize = AtomicUsize::new(UNWATCHED);
        let watch = Watch(LAST.fetch_add(1, Ordering::Relaxed) + 1);
        assert!(watch.0 < WATCHES, "raise WATCHES");
        watch
    }

    /// Runs `work` on a thread of this watch, up to the destructors of its thread-locals.
    fn run<T: Send>(self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                WATCH.set(self.0);
                work()
            });
            // Not by the end of the scope, which does not wait for the destructors of
            // thread-locals.
            thread.join().unwrap()
        })
    }

    /// Looks at all memory of this watch's threads, while none of them runs.
    fn look(self) -> Found {
        let blocks = blocks();
        let alive = blocks.alive[..blocks.len].iter();
        let mine = alive.filter(|block| block.watch == self.0);
        // SAFETY: no block is freed while the list is locked. No thread of this watch runs except
        // for the one that looks.
        let with_secret = mine.filter(|block| unsafe { block.has_secret() });
        Found {
            alive: with_secret.count(),
            freed: FREED_WITH_SECRET[self.0].swap(0, Ordering::Relaxed),
        }
    }
}

// Otherwise the other tests would find nothing, whatever the pool did.
#[test]
fn the_allocator_finds_the_secret_and_each_part_of_it() {
    let watch = Watch::new();
    watch.run(|| {
        for part in 0..=SECRET.len() - PART {
            let mut block = vec![0_u8; 100];
            let at = (part * 7) % (100 - PART);
            block[at..at + PART].copy_from_slice(&SECRET[part..part + PART]);
            assert_eq!(watch.look(), Found { alive: 1, freed: 0 });
            block.reserve_exact(1000);
            assert_eq!(watch.look(), Found { alive: 1, freed: 1 }, "moved");
            block[at] ^= 1;
            assert_eq!(watch.look(), NOWHERE);
            block[at] ^= 1;
            drop(block);
            assert_eq!(watch.look(), Found { alive: 0, freed: 1 });
        }
    });
}

// ---- where a buffer comes from, and where it goes ----

thread_local! {
    /// Destroyed after the thread's caches, if it is first used before them.
    static AT_EXIT: AtExit = const { AtExit(RefCell::new(None)) };
}

struct AtExit(RefCell<Option<Box<dyn FnOnce()>>>);

impl Drop for AtExit {
    fn drop(&mut self) {
        if let Some(work) = self.0.take() {
            work();
        }
    }
}

fn options(classes: &[usize]) -> Builder {
    Pool::builder()
        .classes(classes.iter().copied())
        .trim_interval(None)
}

/// One life of a buffer of `CAPACITY` bytes: from a pool with these options, through a way of
/// writing and releasing, to its end. Looks at each level that the buffer reaches.
type Life = fn(Builder, Way, &dyn Fn(&str));

const LIVES: [(&str, Life); 22] = [
    ("cached, trimmed", |options, way, look| {
        let pool = options.build().unwrap();
        way(&pool, pool.get(CAPACITY));
        look("cached");
        assert_eq!(
            (pool.trim().buffers, pool.stats().total.discards.total()),
            (0, 0)
        );
        look("resting");
        assert!(pool.trim().buffers > 0);
        look("trimmed");
    }),
    ("cached, cleared", |options, way, look| {
        let pool = options.build().unwrap();
        way(&pool, pool.get(CAPACITY));
        assert!(pool.clear().buffers > 0);
        look("cleared");
    }),
    ("cached, closed", |options, way, look| {
        let pool = options.build().unwrap();
        way(&pool, pool.get(CAPACITY));
        drop(pool);
        look("closed");
    }),
    ("in the depot", |options, way, look| {
        let pool = options.thread_cache_bytes(0).build().unwrap();
        way(&pool, pool.get(CAPACITY));
        assert!(pool.stats().total.retained_buffers > 0);
        look("in the depot");
        pool.clear();
        look("cleared");
    }),
    ("flushed in a magazine", |options, way, look| {
        let pool = options.build().unwrap();
        let held: Vec<PooledBuf> = (0..100).map(|_| pool.get(CAPACITY)).collect();
        held.into_iter().for_each(|buf| way(&pool, buf));
        look("cached and in the depot");
        drop(pool);
        look("closed");
    }),
    ("made ahead", |options, way, look| {
        let pool = options.build().unwrap();
        assert_eq!(pool.prefill(CAPACITY, 3), 3);
        way(&pool, pool.get(CAPACITY));
        look("cached");
    }),
    ("used again and again", |options, way, look| {
        let pool = options.build().unwrap();
        for _ in 0..3 {
            way(&pool, pool.get(CAPACITY));
            look("cached");
        }
        assert!(pool.stats().total.hits() >= 2);
    }),
    ("no budget", |options, way, look| {
        let pool = options.retain_bytes(0).build().unwrap();
        way(&pool, pool.get(CAPACITY));
        look("freed");
        assert!(pool.stats().total.discards.full > 0);
    }),
    ("none of its class", |options, way, look| {
        let pool = options.max_per_class(0).build().unwrap();
        way(&pool, pool.get(CAPACITY));
        look("freed");
        assert!(pool.stats().total.discards.full > 0);
    }),
    ("above the largest class", |options, way, look| {
        let pool = options.classes([64, 100]).build().unwrap();
        way(&pool, pool.get(CAPACITY));
        look("freed");
        assert!(pool.stats().total.discards.above_max > 0);
    }),
    ("retired", |options, way, look| {
        let pool = options.classes([64, CAPACITY, 4096]).build().unwrap();
        for _ in 0..100 {
            drop(pool.get(1));
        }
        pool.recalibrate();
        way(&pool, pool.get(CAPACITY));
        look("freed");
        assert!(pool.stats().total.discards.above_max > 0);
    }),
    ("below the smallest class", |options, way, look| {
        let pool = options.classes([10_000]).build().unwrap();
        way(&pool, pool.adopt(BytesMut::with_capacity(CAPACITY)));
        look("freed or grown");
        let discards = pool.stats().total.discards;
        assert!(discards.below_min > 0, "{discards:?}");
    }),
    ("adopted", |options, way, look| {
        let pool = options.build().unwrap();
        way(&pool, pool.adopt(BytesMut::with_capacity(CAPACITY)));
        look("kept");
        pool.clear();
        look("cleared");
    }),
    ("adopted, of no class's capacity", |options, way, look| {
        let pool = options.classes([500, 4096]).build().unwrap();
        way(&pool, pool.adopt(BytesMut::with_capacity(CAPACITY)));
        look("loose");
        drop(pool);
        look("closed");
    }),
    ("put in a guard", |options, way, look| {
        let pool = options.build().unwrap();
        let mut buf = pool.get(1);
        *buf = BytesMut::with_capacity(CAPACITY);
        way(&pool, buf);
        look("kept");
    }),
    ("after the last handle", |options, way, look| {
        let pool = options.build().unwrap();
        let other = Pool::default();
        let buf = pool.get(CAPACITY);
        drop(pool);
        way(&other, buf);
        look("freed");
    }),
    ("on another thread", |options, way, look| {
        let pool = options.build().unwrap();
        let buf = pool.get(CAPACITY);
        let watch = WATCH.get();
        thread::scope(|scope| {
            let (did, is_done) = mpsc::channel();
            let (end, may_end) = mpsc::channel::<()>();
            let pool = &pool;
            let other = scope.spawn(move || {
                WATCH.set(watch);
                way(pool, buf);
                did.send(()).unwrap();
                may_end.recv().unwrap();
            });
            is_done.recv().unwrap();
            look("in the other thread's cache");
            end.send(()).unwrap();
            other.join().unwrap();
            look("the other thread has ended");
        });
        drop(pool);
        look("closed");
    }),
    (
        "closed while in another thread's cache",
        |options, way, look| {
            let pool = options.build().unwrap();
            let buf = pool.get(CAPACITY);
            let watch = WATCH.get();
            thread::scope(|scope| {
                let (did, is_done) = mpsc::channel();
                let (end, may_end) = mpsc::channel::<()>();
                let theirs = pool.clone();
                let other = scope.spawn(move || {
                    WATCH.set(watch);
                    way(&theirs, buf);
                    drop(theirs);
                    did.send(()).unwrap();
                    may_end.recv().unwrap();
                });
                is_done.recv().unwrap();
                drop(pool);
                look("closed");
                end.send(()).unwrap();
                other.join().unwrap();
            });
        },
    ),
    (
        "after the thread's caches have ended",
        |options, way, look| {
            let pool = options.build().unwrap();
            let watch = WATCH.get();
            thread::scope(|scope| {
                let pool = pool.clone();
                let ends = scope.spawn(move || {
                    WATCH.set(watch);
                    AT_EXIT.with(|_| ());
                    let buf = pool.get(CAPACITY);
                    AT_EXIT.with(|at_exit| {
                        *at_exit.0.borrow_mut() = Some(Box::new(move || way(&pool, buf)));
                    });
                });
                ends.join().unwrap();
            });
            look("loose");
            drop(pool);
            look("closed");
        },
    ),
    (
        "the last handle ends with the thread",
        |options, way, look| {
            let watch = WATCH.get();
            thread::scope(|scope| {
                let ends = scope.spawn(move || {
                    WATCH.set(watch);
                    AT_EXIT.with(|_| ());
                    let pool = options.build().unwrap();
                    way(&pool, pool.get(CAPACITY));
                    AT_EXIT.with(|at_exit| {
                        *at_exit.0.borrow_mut() = Some(Box::new(move || drop(pool)));
                    });
                });
                ends.join().unwrap();
            });
            look("closed");
        },
    ),
    ("all parts dropped before the guard", |options, _, look| {
        let pool = options.build().unwrap();
        let mut buf = pool.get(CAPACITY);
        buf.put_slice(SECRET);
        buf.put_slice(SECRET);
        let (front, tail) = (buf.copy_to_bytes(9), buf.split_off(30));
        buf.advance(5);
        drop((front, tail));
        drop(buf);
        look("kept");
        assert_eq!(pool.stats().total.discards.shared, 0);
    }),
    ("grown from class to class", |options, _, look| {
        let pool = options.classes([16, CAPACITY, 4096]).build().unwrap();
        let mut buf = pool.get(1);
        while buf.len() < 10_000 {
            buf.put_slice(SECRET); // to above the largest
        }
        drop(buf);
        look("grown out of all classes");
        pool.clear();
        look("cleared");
    }),
];

#[test]
fn no_secret_stays_in_memory_after_any_way_and_any_life() {
    let watch = Watch::new();
    for (life, lead) in LIVES {
        for (name, way) in WAYS {
            watch.run(|| {
                let look = |at: &str| assert_eq!(watch.look(), NOWHERE, "{name}; {life}: {at}");
                let options = options(&[CAPACITY, 4096]).zero_on_return(true);
                lead(options, way, &look);
            });
            assert_eq!(watch.look(), NOWHERE, "{name}; {life}: at the end");
        }
    }
}

// Otherwise the test above could not fail.
#[test]
fn without_zero_on_return_each_life_leaves_each_secret_somewhere() {
    let watch = Watch::new();
    for (life, lead) in LIVES {
        for (name, way) in WAYS {
            let found = AtomicUsize::new(0);
            let look = || {
                let now = watch.look();
                found.fetch_add(now.alive + now.freed, Ordering::Relaxed);
            };
            watch.run(|| lead(options(&[CAPACITY, 4096]), way, &|_| look()));
            look();
            assert!(found.load(Ordering::Relaxed) > 0, "{name}; {life}");
        }
    }
}

// ---- bytes that are not wiped, by the documentation of `zero_on_return` ----

/// Runs `work` with a pool that wipes, and with a guard that has the secret twice, `CAPACITY` bytes
/// long.
fn with_secret(work: impl FnOnce(&Pool, PooledBuf, Watch) + Send) {
    let watch = Watch::new();
    watch.run(|| {
        let pool = options(&[CAPACITY]).zero_on_return(true).build().unwrap();
        let mut buf = pool.get(CAPACITY);
        buf.put_slice(SECRET);
        buf.put_bytes(0, CAPACITY - 2 * SECRET.len());
        buf.put_slice(SECRET);
        work(&pool, buf, watch);
        assert_eq!(pool.stats().total.outstanding, 0);
    });
    assert_eq!(watch.look(), NOWHERE);
}

const ONE_ALIVE: Found = Found { alive: 1, freed: 0 };
const ONE_FREED: Found = Found { alive: 0, freed: 1 };

// The check whether a buffer is whole takes a few words, but wiping must not depend on it.
#[test]
fn consumed_bytes_are_wiped_without_memory_to_check_whether_the_buffer_is_whole() {
    for zero_on_return in [false, true] {
        let watch = Watch::new();
        watch.run(|| {
            let pool = options(&[CAPACITY])
                .zero_on_return(zero_on_return)
                .build()
                .unwrap();
            drop(pool.get(CAPACITY)); // the pool's own data is allocated now
            let mut buf = pool.adopt(BytesMut::with_capacity(CAPACITY));
            buf.put_slice(SECRET);
            buf.advance(SECRET.len());
            REFUSING.set(true);
            drop(buf);
            REFUSING.set(false);
            let total = pool.stats().total;
            let (looked, freed) = match zero_on_return {
                true => (2, 0),
                false => (1, 1),
            };
            assert_eq!(
                (total.retained_buffers, total.discards.shared),
                (looked, 2 - looked)
            );
            assert_eq!(watch.look(), Found { alive: 0, freed });
        });
    }
}

// Failed once: only the bytes within the capacity that the pool knew were wiped.
#[test]
fn a_buffer_that_has_grown_unseen_is_wiped_without_memory() {
    for zero_on_return in [false, true] {
        let watch = Watch::new();
        watch.run(|| {
            let options = options(&[CAPACITY]).zero_on_return(zero_on_return);
            let pool = options.build().unwrap();
            let mut buf = pool.get(CAPACITY);
            *buf = BytesMut::with_capacity(4 * CAPACITY);
            buf.put_bytes(0, 4 * CAPACITY - SECRET.len());
            buf.put_slice(SECRET);
            drop(BytesMut::split_off(&mut buf, CAPACITY)); // with the secret
            REFUSING.set(true);
            drop(buf);
            REFUSING.set(false);
            let freed = usize::from(!zero_on_return);
            assert_eq!(watch.look(), Found { alive: 0, freed });
        });
    }
}

// ---- bytes that a full guard lends beside its buffer ----

/// Reads a part of the secret into a full guard, as `read_buf` does, and does not announce it.
fn read_secret(buf: &mut PooledBuf) {
    let spare = buf.capacity() - buf.len();
    buf.put_bytes(0, spare);
    let chunk = buf.chunk_mut();
    let len = chunk.len();
    assert!((PART..SECRET.len()).contains(&len));
    chunk.copy_from_slice(&SECRET[..len]);
}

/// A way to end such a guard, after this many bytes were read.
type Fate = fn(PooledBuf, usize);

const FATES: [(&str, Fate); 12] = [
    ("dropped", |buf, _| drop(buf)),
    ("frozen", |buf, _| drop(buf.freeze())),
    ("detached", |buf, _| drop(buf.detach())),
    ("read on", |mut buf, len| {
        assert_eq!(buf.chunk_mut().len(), len)
    }),
    ("announced", |mut buf, len| {
        // SAFETY: the caller has written these bytes.
        unsafe { buf.advance_mut(len) };
        assert!(buf.ends_with(&SECRET[..len]));
    }),
    ("announced in part", |mut buf, len| {
        // SAFETY: as above.
        unsafe { buf.advance_mut(1) };
        unsafe { buf.advance_mut(len - 1) };
        assert!(buf.ends_with(&SECRET[..len]));
    }),
    // Failed once: the other bytes lay behind the contents of the larger buffer.
    ("announced in part, and dropped", |mut buf, _| {
        // SAFETY: as above.
        unsafe { buf.advance_mut(1) };
    }),
    ("outgrown", |mut buf, _| buf.put_u8(0)),
    ("emptied", |mut buf, _| {
        buf.clear();
        buf.put_u8(0);
    }),
    ("consumed, and filled again", |mut buf, _| {
        buf.advance(buf.len());
        buf.put_u8(0);
    }),
    ("a part is in use", |mut buf, _| {
        let part = buf.copy_to_bytes(1);
        drop(buf);
        drop(part);
    }),
    ("lent", |mut buf, _| (*buf).clear()),
];

#[test]
fn bytes_read_into_a_full_guard_are_wiped_however_it_ends() {
    for (name, fate) in FATES {
        for elsewhere in [false, true] {
            let watch = Watch::new();
            watch.run(|| {
                let pool = options(&[CAPACITY, 4096])
                    .zero_on_return(true)
                    .build()
                    .unwrap();
                let mut guards = vec![pool.get(CAPACITY), pool.get(10_000)];
                guards.push(pool.adopt(BytesMut::with_capacity(CAPACITY)));
                for mut buf in guards {
                    read_secret(&mut buf);
                    match elsewhere {
                        true => watch.run(|| fate(buf, size_of::<usize>())),
                        false => fate(buf, size_of::<usize>()),
                    }
                    assert_eq!(watch.look(), NOWHERE, "{name}");
                }
            });
            assert_eq!(watch.look(), NOWHERE, "{name}: at the end");
        }
    }
}

// Otherwise the test above could not fail.
#[test]
fn without_zero_on_return_bytes_read_into_a_full_guard_are_found() {
    for (name, fate) in FATES {
        let watch = Watch::new();
        let found = watch.run(|| {
            let pool = options(&[CAPACITY, 4096]).build().unwrap();
            let mut buf = pool.get(CAPACITY);
            read_secret(&mut buf);
            let lent = watch.look();
            fate(buf, size_of::<usize>());
            (lent, watch.look())
        });
        assert_eq!(found.0, ONE_ALIVE, "{name}: while it was lent");
        // Announced bytes go to the buffer. Other bytes are overwritten in any pool, by the number
        // that is kept in their place.
        let is_left = name.starts_with("announced");
        assert_eq!(found.1.alive + found.1.freed > 0, is_left, "{name}");
    }
}

#[test]
fn a_detached_buffer_is_not_wiped() {
    with_secret(|_, buf, watch| {
        let own = buf.detach();
        assert_eq!(watch.look(), ONE_ALIVE);
        drop(own);
        assert_eq!(watch.look(), ONE_FREED);
    });
}

#[test]
fn the_bytes_of_a_part_are_wiped_when_the_last_part_is_gone() {
    with_secret(|pool, mut buf, watch| {
        let part = buf.split_to(SECRET.len());
        let other = Bytes::from(part.slice(1..));
        drop(buf);
        assert_eq!(pool.stats().total.outstanding, 1);
        assert_eq!((watch.look(), &part[..]), (ONE_ALIVE, SECRET));
        drop(part);
        assert_eq!(watch.look(), ONE_ALIVE);
        drop(other);
        assert_eq!(watch.look(), NOWHERE);
        assert_eq!(pool.stats().total.discards.total(), 0);
    });
}

#[test]
fn the_bytes_of_a_bytes_mut_part_in_use_are_not_wiped() {
    with_secret(|pool, mut buf, watch| {
        let part: Bytes = (*buf).copy_to_bytes(SECRET.len());
        drop(buf);
        assert_eq!(pool.stats().total.discards.shared, 1);
        assert_eq!((watch.look(), &part[..]), (ONE_ALIVE, SECRET));
        drop(part);
        assert_eq!(watch.look(), ONE_FREED);
    });
}

#[test]
fn the_bytes_of_the_guard_are_wiped_though_a_part_is_in_use() {
    with_secret(|pool, mut buf, watch| {
        let tail = BytesMut::split_off(&mut buf, CAPACITY - SECRET.len() - 10);
        let (end, zeros) = (tail.freeze(), 10);
        let zeros = end.slice(..zeros);
        drop(buf); // with the first secret
        assert_eq!(
            (watch.look(), pool.stats().total.discards.shared),
            (ONE_ALIVE, 1)
        );
        drop((end, zeros)); // with the second
        assert_eq!(watch.look(), ONE_FREED);
    });
    with_secret(|pool, mut buf, watch| {
        let part = BytesMut::split_to(&mut buf, SECRET.len()); // with the first secret
        buf.truncate(100);
        drop((buf, pool));
        assert_eq!(watch.look(), ONE_ALIVE);
        let mut part = part;
        part.fill(0);
        assert_eq!(watch.look(), NOWHERE, "the second was wiped");
        drop(part);
    });
}

#[test]
fn consumed_bytes_are_not_wiped_while_a_part_is_in_use() {
    with_secret(|pool, mut buf, watch| {
        let tail = BytesMut::split_off(&mut buf, SECRET.len() + 50); // with the second secret
        buf.advance(SECRET.len());
        let mut tail = tail;
        tail.fill(0);
        drop(buf);
        assert_eq!(
            (watch.look(), pool.stats().total.discards.shared),
            (ONE_ALIVE, 1)
        );
        drop(tail);
        assert_eq!(watch.look(), ONE_FREED);
    });
}

#[test]
fn the_bytes_of_a_dropped_part_are_not_wiped_while_another_part_is_in_use() {
    with_secret(|pool, mut buf, watch| {
        let first = BytesMut::split_to(&mut buf, SECRET.len());
        let zeros = BytesMut::split_to(&mut buf, 10);
        drop(first);
        drop(buf);
        assert_eq!(
            (watch.look(), pool.stats().total.discards.shared),
            (ONE_ALIVE, 1)
        );
        drop(zeros);
        assert_eq!(watch.look(), ONE_FREED);
    });
}

#[test]
fn a_buffer_that_bytes_mut_frees_behind_deref_mut_is_not_wiped() {
    with_secret(|_, mut buf, watch| {
        BytesMut::reserve(&mut buf, 10 * CAPACITY);
        assert_eq!(
            watch.look(),
            Found { alive: 1, freed: 1 },
            "the outgrown buffer"
        );
        drop(buf);
        assert_eq!(watch.look(), NOWHERE, "the larger buffer is wiped");
    });
    with_secret(|_, mut buf, watch| {
        *buf = BytesMut::with_capacity(CAPACITY);
        assert_eq!(watch.look(), ONE_FREED, "the replaced buffer");
        buf.put_slice(SECRET);
        drop(buf);
        assert_eq!(watch.look(), NOWHERE);
    });
}
