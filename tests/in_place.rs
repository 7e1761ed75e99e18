//! Buffers that grow in place behind `DerefMut`, and are cut back: their address and capacity do
//! not show what they are.
//!
//! Owns a global allocator that grows each buffer in place, counts the bytes of all buffers of a
//! thread, and finds a secret in freed blocks. On another heap, growth in place depends on chance.

// The allocator reads bytes that other code has borrowed. The aliasing models forbid that.
#![cfg(not(miri))]

mod common {
    pub mod accounts;
}

use bytes::{BufMut, BytesMut};
use common::accounts::assert_accounts_balance;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::mem;
use std::slice;
use std::thread;
use tierpool::{Pool, PooledBuf};

// ---- the allocator ----

/// Room for each buffer to grow to, in bytes.
const ROOM: usize = 32 << 10;

/// The least size of a block that may be a buffer of these tests.
const BUFFER_LEAST: usize = 500;

/// Differs from the other bytes in the buffers here, which are nearly all 0.
const SECRET: u8 = 0xA5;

struct InPlace;

thread_local! {
    /// Bytes of all buffers that this thread has allocated, less those that it has freed.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    /// Bytes of the secret in buffers that this thread freed.
    static FREED_SECRET: Cell<usize> = const { Cell::new(0) };
}

/// Whether a block may grow in place, as a buffer of bytes. All other data of these tests is
/// aligned to more than one byte, or small.
fn is_buffer(layout: Layout) -> bool {
    layout.align() == 1 && (BUFFER_LEAST..=ROOM).contains(&layout.size())
}

/// The layout that is requested from the system for a block.
fn whole(layout: Layout) -> Layout {
    match is_buffer(layout) {
        true => Layout::from_size_align(ROOM, 1).expect("it is small"),
        false => layout,
    }
}

fn count(layout: Layout, sign: isize) {
    if is_buffer(layout) {
        LIVE.set(LIVE.get() + sign * layout.size() as isize);
    }
}

// SAFETY: all blocks are the system's. Each is as large as `whole` says, from its allocation to its
// end: a block changes its size in place only if both sizes have the same `whole`.
unsafe impl GlobalAlloc for InPlace {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout, 1);
        // Zeros, so that other values were written by the test.
        // SAFETY: as the caller promises; `whole` is at least as large.
        unsafe { System.alloc_zeroed(whole(layout)) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        if is_buffer(layout) {
            // SAFETY: the block is alive, and its owner is about to free it.
            let block = unsafe { slice::from_raw_parts(start, layout.size()) };
            FREED_SECRET.set(FREED_SECRET.get() + secret_in(block));
        }
        count(layout, -1);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(start, whole(layout)) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size is not too large.
        let grown = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if is_buffer(layout) && is_buffer(grown) {
            count(layout, -1);
            count(grown, 1);
            return start;
        }
        // SAFETY: as the caller promises. The new block is a different one, and both are at least
        // as large as the smaller of the two sizes.
        unsafe {
            let moved = self.alloc(grown);
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(start, layout.size().min(size));
                self.dealloc(start, layout);
            }
            moved
        }
    }
}

#[global_allocator]
static ALLOCATOR: InPlace = InPlace;

fn secret_in(bytes: &[u8]) -> usize {
    static ZEROS: [u8; ROOM] = [0; ROOM];
    if bytes == &ZEROS[..bytes.len()] {
        return 0; // nearly always at once
    }
    bytes.iter().filter(|&&byte| byte == SECRET).count()
}

fn live() -> u64 {
    LIVE.get().try_into().expect("freed where it was allocated")
}

// Otherwise the other tests would test nothing.
#[test]
fn the_allocator_grows_buffers_in_place_and_counts_freed_bytes() {
    let mut block: Vec<u8> = Vec::with_capacity(1000);
    let start = block.as_ptr();
    block.resize(1000, SECRET);
    block.reserve_exact(9000);
    assert_eq!((block.as_ptr(), block.capacity()), (start, 10_000));
    assert_eq!((live(), FREED_SECRET.get()), (10_000, 0));
    drop(block);
    assert_eq!((live(), FREED_SECRET.get()), (0, 1000));
}

// ---- ways to change a buffer ----

const SMALL: usize = 1000;
const GROWN: usize = 10_000;

/// Where to cut: at the lengths that the slot knows, around them, at both ends, and between.
const CUTS: [usize; 11] = [
    0,
    1,
    2,
    500,
    SMALL - 1,
    SMALL,
    SMALL + 1,
    5000,
    GROWN - SMALL,
    GROWN - 1,
    GROWN,
];

/// All of them, or one of each kind where each step is slow: under valgrind, where
/// `scripts/sanitize.sh` sets `--cfg slow`.
fn cuts() -> impl Iterator<Item = usize> {
    CUTS.into_iter().step_by(if cfg!(slow) { 5 } else { 1 })
}

fn fill(buf: &mut BytesMut) {
    let spare = buf.capacity() - buf.len();
    buf.put_bytes(SECRET, spare);
}

/// Grows the buffer in place, and fills it.
fn grow(buf: &mut BytesMut) {
    let start = buf.as_ptr();
    buf.reserve(GROWN - buf.len());
    assert_eq!((buf.as_ptr(), buf.capacity()), (start, GROWN), "in place");
    fill(buf);
}

/// Changes a buffer behind the guard's back. The returned parts are dropped before the guard, or
/// after it.
type Change = fn(&mut BytesMut, cut: usize) -> Vec<BytesMut>;

const CHANGES: [(&str, Change); 9] = [
    ("grown and cut", |buf, cut| {
        grow(buf);
        vec![buf.split_off(cut)]
    }),
    ("grown and cut twice", |buf, cut| {
        grow(buf);
        let end = buf.split_off(cut.max(SMALL));
        vec![end, buf.split_off(cut.min(buf.capacity()))]
    }),
    ("grown, cut, and emptied", |buf, cut| {
        grow(buf);
        let end = buf.split_off(cut);
        buf.clear();
        vec![end]
    }),
    ("grown, cut at both ends", |buf, cut| {
        grow(buf);
        let end = buf.split_off(cut);
        vec![end, buf.split_to(buf.len() / 2)]
    }),
    ("grown, cut, and joined in part", |buf, cut| {
        grow(buf);
        let mut end = buf.split_off(cut / 2);
        let rest = end.split_off(cut - cut / 2);
        buf.unsplit(end);
        vec![rest]
    }),
    ("cut, grown by what was cut off, and cut", |buf, cut| {
        fill(buf);
        let end = buf.split_off(SMALL / 2);
        buf.unsplit(end);
        grow(buf);
        vec![buf.split_off(cut)]
    }),
    ("taken out, grown, cut, put back", |buf, cut| {
        let mut own = mem::take(buf);
        grow(&mut own);
        let end = own.split_off(cut);
        *buf = own;
        vec![end]
    }),
    ("taken out, and its head put back", |buf, cut| {
        let mut own = mem::take(buf);
        grow(&mut own);
        *buf = own.split_to(cut.min(own.len()));
        vec![own]
    }),
    ("grown, cut, advanced and reclaimed", |buf, cut| {
        grow(buf);
        let end = buf.split_off(cut);
        bytes::Buf::advance(buf, buf.len());
        let _done = buf.try_reclaim(SMALL);
        vec![end]
    }),
];

/// A way to end a guard.
type End = fn(PooledBuf);

const ENDS: [(&str, End); 6] = [
    ("dropped", drop),
    ("frozen", |buf| drop(buf.freeze())),
    ("emptied by the guard", |mut buf| buf.clear()),
    ("written to by the guard", |mut buf| {
        buf.clear();
        buf.put_u8(0);
    }),
    ("outgrown", |mut buf| {
        buf.put_bytes(0, 2 * GROWN);
    }),
    ("unwinding", |buf| {
        let caught = std::panic::catch_unwind(move || {
            let _buf = buf;
            std::panic::resume_unwind(Box::new("the user's panic"));
        });
        assert!(caught.is_err());
    }),
];

/// Runs all pools, changes, cuts and ends. `parts_first`: the parts are dropped before the guard.
fn in_all_ways(zero: bool, parts_first: bool, look: impl Fn(&Pool, &str)) {
    for classes in [
        &[SMALL][..],
        &[SMALL, 3000, GROWN],
        &[500, SMALL, 7000, 2 * GROWN],
    ] {
        for (name, change) in CHANGES {
            for (end_name, end) in ENDS {
                for cut in cuts() {
                    let options = Pool::builder().classes(classes.iter().copied());
                    let options = options.trim_interval(None).zero_on_return(zero);
                    let pool = options.build().unwrap();
                    drop(pool.get(SMALL)); // this thread has a cache now
                    let mut buf = pool.get(SMALL);
                    let mut parts = change(&mut buf, cut);
                    let name = format!("{name}, at {cut}, {end_name}, {classes:?}");
                    if parts_first {
                        parts.clear();
                    }
                    end(buf);
                    look(&pool, &name);
                    drop(parts);
                    assert_eq!(pool.stats().total.outstanding, 0, "{name}");
                    assert_accounts_balance(&pool);
                    look(&pool, &name);
                    drop(pool);
                    assert_eq!(live(), 0, "{name}");
                }
            }
        }
    }
}

// Failed once: a buffer of 16 KiB that was cut back to 4 KiB was kept as one of 4 KiB, so a
// budget of 1 MiB held 24 MiB.
#[test]
fn the_retained_bytes_are_the_bytes_that_the_pool_holds() {
    for zero in [false, true] {
        in_all_ways(zero, true, |pool, name| {
            assert_eq!(pool.stats().total.retained_bytes, live(), "{name}");
        });
    }
}

#[test]
fn a_buffer_with_a_kept_part_is_not_retained() {
    for zero in [false, true] {
        in_all_ways(zero, false, |pool, name| {
            // The parts' allocation belongs to the user. The pool counts all other bytes.
            let retained = pool.stats().total.retained_bytes;
            assert!(retained <= live(), "{name}: {retained}, {}", live());
            let idle = pool.clear().bytes as u64;
            assert_eq!(idle, retained, "{name}");
            let parts = live();
            assert!(parts == 0 || parts >= GROWN as u64, "{name}: {parts}");
        });
    }
}

#[test]
fn no_secret_is_left_after_any_cut() {
    FREED_SECRET.set(0);
    in_all_ways(true, true, |pool, name| {
        assert_eq!(FREED_SECRET.take(), 0, "{name}: freed");
        for &class in pool.classes() {
            let held: Vec<PooledBuf> = (0..3).map(|_| pool.get(class)).collect();
            for mut buf in held {
                // The whole allocation, whatever part of it the guard shows.
                let start = buf.spare_capacity_mut().as_mut_ptr().cast::<u8>();
                // SAFETY: the guard has the block to itself, and the allocator gave it with `ROOM`
                // bytes of zeros.
                let block = unsafe { slice::from_raw_parts(start, ROOM) };
                assert_eq!(secret_in(block), 0, "{name}: idle");
            }
        }
        pool.clear();
        assert_eq!(FREED_SECRET.take(), 0, "{name}: freed at last");
    });
}

// Otherwise the test above would find nothing, whatever the pool did.
#[test]
fn without_zero_on_return_the_secret_is_found() {
    let mut found = 0;
    for cut in cuts() {
        let pool = Pool::builder().classes([SMALL]).build().unwrap();
        let mut buf = pool.get(SMALL);
        grow(&mut buf);
        drop(BytesMut::split_off(&mut buf, cut));
        drop((buf, pool));
        // The pool writes to the first byte when it checks an empty buffer.
        found += usize::from(FREED_SECRET.take() >= GROWN - 1);
    }
    assert_eq!(found, cuts().count());
}

#[test]
fn a_budget_holds_after_any_cut() {
    const BUDGET: usize = 64 * SMALL;
    for (name, change) in CHANGES {
        for cut in cuts() {
            let options = Pool::builder().classes([SMALL, 3000]).retain_bytes(BUDGET);
            let pool = options.build().unwrap();
            for _ in 0..2 {
                let mut held: Vec<PooledBuf> = (0..70).map(|_| pool.get(SMALL)).collect();
                for buf in &mut held {
                    drop(change(buf, cut));
                }
                drop(held);
                let retained = live();
                assert!(retained <= BUDGET as u64, "{name}, at {cut}: {retained}");
                assert_eq!(
                    pool.stats().total.retained_bytes,
                    retained,
                    "{name}, at {cut}"
                );
            }
        }
    }
}

#[test]
fn a_buffer_that_comes_home_on_another_thread_is_checked_there() {
    for zero in [false, true] {
        for (name, change) in CHANGES {
            for cut in cuts() {
                let options = Pool::builder().classes([SMALL]).zero_on_return(zero);
                let pool = options.learn_sizes(false).build().unwrap();
                let mut buf = pool.get(SMALL);
                drop(change(&mut buf, cut));
                let elsewhere = || {
                    // The thread's cache has room for buffers of that capacity.
                    drop((pool.get(SMALL), pool.get(SMALL)));
                    pool.get(SMALL).put_bytes(0, cut.min(SMALL));
                    let _out = pool.get(SMALL);
                    drop(buf);
                    assert_eq!(FREED_SECRET.get() > 0, !zero, "{name}, at {cut}");
                };
                thread::scope(|scope| scope.spawn(elsewhere).join().unwrap());
                let total = pool.stats().total;
                assert_eq!(
                    (total.discards.above_max, total.retained_buffers),
                    (1, 2),
                    "{name}, at {cut}"
                );
                assert_accounts_balance(&pool);
            }
        }
    }
}

// A thread cache must not hold a buffer that is smaller than its others.
#[test]
fn a_buffer_that_has_grown_unseen_is_freed_or_joins_the_class_of_its_capacity() {
    let pool = Pool::builder().classes([SMALL, 7000]).build().unwrap();
    let mut buf = pool.get(SMALL);
    let start = buf.as_ptr();
    buf.put_bytes(1, 10);
    (*buf).reserve(7000 - 10);
    assert_eq!((buf.as_ptr(), buf.capacity()), (start, 7000));
    drop(BytesMut::split_off(&mut buf, SMALL));
    assert_eq!((buf.as_ptr(), buf.capacity()), (start, SMALL));
    drop(buf);
    let stats = pool.stats();
    assert_eq!(stats.classes[0].counts.retained_buffers, 0);
    assert_eq!(stats.classes[1].counts.retained_bytes, 7000);
    assert_eq!(
        pool.get(5000).as_ptr(),
        start,
        "its whole capacity is used again"
    );
}

#[test]
fn a_lent_and_unchanged_buffer_returns_to_its_cache() {
    let pool = Pool::builder().classes([SMALL, 7000]).build().unwrap();
    drop(pool.get(SMALL));
    let lends: [fn(&mut BytesMut); 7] = [
        |_| (),
        |buf| buf.put_slice(b"encoded"),
        |buf| fill(buf),
        |buf| buf.resize(100, 1),
        |buf| {
            let end = buf.split_off(300);
            buf.unsplit(end);
        },
        |buf| drop(buf.split_off(0)),
        |buf| {
            fill(buf);
            drop(buf.split_to(SMALL));
        },
    ];
    for lend in lends {
        for _ in 0..300 {
            lend(&mut pool.get(SMALL));
        }
    }
    let total = pool.stats().total;
    assert_eq!((total.misses, total.local_hits), (1, 7 * 300));
    assert_eq!((total.discards.total(), total.retained_buffers), (0, 1));
    assert_eq!(live(), SMALL as u64);
}
