//! How many instructions the pool's operations take, counted by callgrind.
//!
//! ```sh
//! scripts/instructions.sh             count, and compare with benches/record/instructions.csv
//! scripts/instructions.sh --update    count, and write that file anew
//! ```
//!
//! Times are noisy, counts are not: the same sources give the same count in each run, wherever
//! they are built. So a count that grew by more than 1 % fails CI. What is counted is the body
//! of the functions marked `#[library_benchmark]`, all that it calls included; what `setup`
//! does before, and the drop of what a function returns, is not. The name of each case says how
//! often the operation is done in it: `x1000`, a thousand times. Each runs in a process of its
//! own, on one thread.
//!
//! So that the machine does not count, either, the heap is one that takes as long for each
//! block ([`Heap`]), and glibc is told to copy memory in the way that all processors of this
//! architecture have. Another compiler may well give another count.
//!
//! The pools differ from the default in that no trim and no calibration comes due by time: a
//! clock that is looked at counts, one that strikes would make the count a matter of chance.

use bytes::{BufMut, BytesMut};
use gungraun::{
    Callgrind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::ptr;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use tierpool::{Builder, Pool, PooledBuf};

const SIZE: usize = 4096;
/// As many as one thread caches of this size.
const CACHED: usize = 64;
/// Returns before the count begins: the counts of lengths are then in batches of ordinary
/// size, and the next calibration is far.
const WARM_UP: usize = 10_000;

fn options() -> Builder {
    let never = Duration::from_secs(24 * 60 * 60);
    Pool::builder()
        .trim_interval(never)
        .calibrate_interval(never)
}

/// A size that the compiler does not know.
fn size() -> usize {
    black_box(SIZE)
}

fn warm_up(pool: &Pool, len: usize) {
    for _ in 0..WARM_UP {
        pool.get(size()).put_bytes(b'x', len);
    }
}

/// A pool that has taken back many buffers with contents of this length, one at a time.
fn used(len: usize) -> Pool {
    let pool = options().build().unwrap();
    warm_up(&pool, len);
    pool
}

// ---- the heap ----

/// A heap that does the same for each block, once there was one of its size: it hands out the
/// last that came back. What the system's takes differs with what lies beside a block, by
/// a tenth for a buffer, and so with the path that the program was built at.
struct Heap {
    /// The blocks that came back, by the binary logarithm of their size.
    free: Mutex<[Blocks; usize::BITS as usize]>,
}

/// A list of blocks: the first of them, in which the address of the next is written.
#[derive(Clone, Copy)]
struct Blocks(*mut Blocks);

// SAFETY: what is in a list is reached through the list alone, and that is behind a lock.
unsafe impl Send for Blocks {}

#[global_allocator]
static HEAP: Heap = Heap {
    free: Mutex::new([Blocks(ptr::null_mut()); usize::BITS as usize]),
};

/// What is allocated where `layout` is asked for: a power of two, and aligned to as much.
fn whole(layout: Layout) -> Option<Layout> {
    let room = layout.size().max(layout.align()).max(size_of::<Blocks>());
    let room = room.checked_next_power_of_two()?;
    Layout::from_size_align(room, room).ok()
}

impl Heap {
    fn with<R>(&self, block: Layout, act: impl FnOnce(&mut Blocks) -> R) -> R {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut free[block.size().ilog2() as usize])
    }
}

// SAFETY: a block is as large as `whole` says, so as large and as aligned as was asked for. It
// is either in the list of its size or in use: `alloc` takes it out, `dealloc` puts it in.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(block) = whole(layout) else {
            return ptr::null_mut();
        };
        self.with(block, |free| {
            if free.0.is_null() {
                // SAFETY: `whole` gives no layout of size 0.
                return unsafe { System.alloc(block) };
            }
            let first = free.0;
            // SAFETY: `dealloc` wrote the list that follows into it.
            *free = unsafe { first.read() };
            first.cast()
        })
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        let block = whole(layout).expect("what was allocated has a size");
        let first: *mut Blocks = ptr.cast();
        self.with(block, |free| {
            // SAFETY: the block has room for it, is aligned to its size, and is no longer in use.
            unsafe { first.write(*free) };
            *free = Blocks(first);
        });
    }
}

// ---- local hit and local return ----

#[library_benchmark]
#[bench::x1000(args = (0), setup = used)]
fn local_untouched(pool: Pool) -> Pool {
    for _ in 0..1000 {
        black_box(&mut pool.get(size()));
    }
    pool
}

#[library_benchmark]
#[bench::x1000(args = (1), setup = used)]
fn local_one_byte(pool: Pool) -> Pool {
    for _ in 0..1000 {
        let mut buf = pool.get(size());
        buf.put_u8(black_box(b'x'));
        black_box(&mut buf);
    }
    pool
}

#[library_benchmark]
#[bench::x1000(args = (64), setup = used)]
fn local_64_bytes(pool: Pool) -> Pool {
    for _ in 0..1000 {
        let mut buf = pool.get(size());
        buf.put_slice(black_box(&[b'x'; 64]));
        black_box(&mut buf);
    }
    pool
}

/// What a codec does: it knows `BytesMut` and no guards.
#[inline(never)]
fn encode(buf: &mut BytesMut, bytes: &[u8]) {
    buf.put_slice(bytes);
}

// Written to behind the guard's back, so the drop looks whether the buffer is as it left.
#[library_benchmark]
#[bench::x1000(args = (64), setup = used)]
fn lent_64_bytes(pool: Pool) -> Pool {
    for _ in 0..1000 {
        let mut buf = pool.get(size());
        encode(&mut buf, black_box(&[b'x'; 64]));
        black_box(&mut buf);
    }
    pool
}

// As in a frame whose length is known at its end.
#[library_benchmark]
#[bench::x1000(args = (64), setup = used)]
fn indexed_64_bytes(pool: Pool) -> Pool {
    for _ in 0..1000 {
        let mut buf = pool.get(size());
        buf.put_slice(black_box(&[b'x'; 64]));
        buf[..2].copy_from_slice(black_box(&[0; 2]));
        buf[2] = black_box(b'y');
        black_box(&mut buf);
    }
    pool
}

// As `read_buf` does it.
#[library_benchmark]
#[bench::x1000(args = (64), setup = used)]
fn chunk_64_bytes(pool: Pool) -> Pool {
    for _ in 0..1000 {
        let mut buf = pool.get(size());
        buf.chunk_mut()[..64].copy_from_slice(black_box(&[b'x'; 64]));
        // SAFETY: these bytes were written by the line before.
        unsafe { buf.advance_mut(64) };
        black_box(&mut buf);
    }
    pool
}

fn wiping() -> Pool {
    let pool = options().zero_on_return(true).build().unwrap();
    warm_up(&pool, 64);
    pool
}

// Goes the slow way on both sides, and wipes what was written.
#[library_benchmark]
#[bench::x1000(setup = wiping)]
fn wiped_64_bytes(pool: Pool) -> Pool {
    for _ in 0..1000 {
        let mut buf = pool.get(size());
        buf.put_slice(black_box(&[b'x'; 64]));
        black_box(&mut buf);
    }
    pool
}

#[library_benchmark]
#[bench::x1000(args = (64), setup = used)]
fn frozen(pool: Pool) -> Pool {
    for _ in 0..1000 {
        let mut buf = pool.get(size());
        buf.put_slice(black_box(&[b'x'; 64]));
        black_box(&mut buf.freeze());
    }
    pool
}

// ---- miss ----

fn keeping_nothing() -> Pool {
    let pool = options().retain_bytes(0).build().unwrap();
    warm_up(&pool, 0);
    assert_eq!(pool.stats().total.misses, WARM_UP as u64);
    pool
}

// Each get allocates twice, and each drop frees both: the heap's instructions count, too.
#[library_benchmark]
#[bench::x1000(setup = keeping_nothing)]
fn miss(pool: Pool) -> Pool {
    for _ in 0..1000 {
        black_box(&mut pool.get(size()));
    }
    pool
}

// Takes more than `miss`, since the heap is asked for a block of zeros.
#[library_benchmark]
#[bench::x1000(setup = keeping_nothing)]
fn miss_of_try_get(pool: Pool) -> Pool {
    for _ in 0..1000 {
        black_box(&mut pool.try_get(size()));
    }
    pool
}

// ---- depot ----

/// A pool and a thread that has had `count` buffers at once, twice.
fn burst(count: usize) -> (Pool, Vec<PooledBuf>) {
    let pool = used(0);
    let mut held = Vec::with_capacity(count);
    for _ in 0..2 {
        held.extend((0..count).map(|_| pool.get(size())));
        held.clear();
    }
    (pool, held)
}

// Get many, drop all: all but what a thread's cache holds comes out of the depot and goes
// back there, in magazines.
#[library_benchmark]
#[bench::x1024(args = (1024), setup = burst)]
fn depot_exchange((pool, mut held): (Pool, Vec<PooledBuf>)) -> (Pool, Vec<PooledBuf>) {
    held.extend((0..1024).map(|_| pool.get(size())));
    black_box(&mut held).clear();
    (pool, held)
}

/// A pool that this thread has used, and buffers that another has taken and left.
fn taken_elsewhere(count: usize) -> (Pool, Vec<PooledBuf>) {
    let (pool, _held) = burst(count);
    let theirs = pool.clone();
    let take = move || (0..count).map(|_| theirs.get(size())).collect();
    let held = thread::spawn(take).join().unwrap();
    (pool, held)
}

#[library_benchmark]
#[bench::x1024(args = (1024), setup = taken_elsewhere)]
fn drop_of_another_threads((pool, mut held): (Pool, Vec<PooledBuf>)) -> (Pool, Vec<PooledBuf>) {
    black_box(&mut held).clear();
    (pool, held)
}

// ---- growth ----

fn grow(pool: &Pool) {
    let mut buf = pool.get(black_box(64));
    for _ in 0..12 {
        buf.put_slice(black_box(&[b'x'; 256]));
    }
    black_box(&mut buf);
}

fn grown() -> Pool {
    let pool = options().build().unwrap();
    for _ in 0..WARM_UP {
        grow(&pool);
    }
    assert_eq!(pool.stats().total.growths, WARM_UP as u64);
    pool
}

// From 512 bytes to 4096, once in twelve pieces of 256; all put and copied bytes count.
#[library_benchmark]
#[bench::x1000(setup = grown)]
fn growth(pool: Pool) -> Pool {
    for _ in 0..1000 {
        grow(&pool);
    }
    pool
}

// ---- trim ----

/// A pool with one full thread cache, all of which was needed since the last trim.
fn needed() -> Pool {
    let pool = used(0);
    drop((0..CACHED).map(|_| pool.get(size())).collect::<Vec<_>>());
    assert_eq!(pool.stats().total.retained_buffers, CACHED as u64);
    pool
}

/// The same, none of which was needed since the last trim.
fn resting() -> Pool {
    let pool = needed();
    assert_eq!(pool.trim().buffers, 0);
    pool
}

// Looks at all size classes, puts what it finds in one of them to rest, frees none.
#[library_benchmark]
#[bench::x1(setup = needed)]
fn trim_that_frees_none(pool: Pool) -> Pool {
    assert_eq!(pool.trim().buffers, 0);
    pool
}

#[library_benchmark]
#[bench::x1(setup = resting)]
fn trim_of_an_idle_cache(pool: Pool) -> Pool {
    assert_eq!(pool.trim().buffers, CACHED);
    pool
}

// ---- calibration ----

/// A pool with targets, to which contents of many lengths have come back since.
fn many_lengths() -> Pool {
    let pool = options().build().unwrap();
    for round in 0..2 {
        for exponent in 0..20 {
            for _ in 0..=exponent {
                pool.get(1 << exponent).put_bytes(b'x', 1 << exponent);
            }
        }
        if round == 0 {
            pool.recalibrate();
        }
    }
    pool
}

#[library_benchmark]
#[bench::x1(setup = many_lengths)]
fn calibrate(pool: Pool) -> Pool {
    black_box(pool.recalibrate());
    pool
}

library_benchmark_group!(
    name = instructions,
    benchmarks = [
        local_untouched,
        local_one_byte,
        local_64_bytes,
        lent_64_bytes,
        indexed_64_bytes,
        chunk_64_bytes,
        wiped_64_bytes,
        frozen,
        miss,
        miss_of_try_get,
        depot_exchange,
        drop_of_another_threads,
        growth,
        trim_that_frees_none,
        trim_of_an_idle_cache,
        calibrate
    ]
);

/// glibc chooses how to copy memory by what the processor has; here it is to use SSE2.
const ONE_WAY_TO_COPY: &str = "glibc.cpu.hwcaps=-AVX_Fast_Unaligned_Load,-AVX2,-ERMS,-SSSE3";

main!(
    config = LibraryBenchmarkConfig::default()
        .env("GLIBC_TUNABLES", ONE_WAY_TO_COPY)
        .tool(Callgrind::with_args(["cache-sim=no"]));
    library_benchmark_groups = instructions
);
