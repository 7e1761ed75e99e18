//! The number of instructions of the pool's operations, counted by callgrind.
//!
//! ```sh
//! scripts/instructions.sh             count, and compare with benches/record/instructions.csv
//! scripts/instructions.sh --update    count, and rewrite that file
//! ```
//!
//! Times are noisy, but counts are not: the same sources give the same count in each run, wherever
//! they are built. So CI fails if a count grows by more than 1 %. The count includes the body of
//! each function marked `#[library_benchmark]` and all its calls. It excludes the work of `setup`,
//! and the drop of the returned value. The name of each case gives the number of operations:
//! `x1000` is a thousand. Each case runs in its own process, on one thread.
//!
//! The count must not depend on the machine. So the heap takes the same time for each block
//! ([`Heap`]), and an option makes glibc copy memory in the same way on all processors of this
//! architecture. Another compiler may give another count.
//!
//! The pools differ from the default in one point: no trim and no calibration is due by time.
//! Reading the clock is counted, but an event by time would make the count a matter of chance.

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
/// As many buffers of this size as one thread caches.
const CACHED: usize = 64;
/// Returns before the count begins. After them, lengths are recorded in batches of ordinary size,
/// and the next calibration is far away.
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

/// A heap that does the same work for each block, once it has had one of that size: it hands out
/// the latest freed block. The work of the system's heap depends on the neighbours of a block, by a
/// tenth for a buffer. So it depends even on the path of the build.
struct Heap {
    /// The freed blocks, by the binary logarithm of their size.
    free: Mutex<[Blocks; usize::BITS as usize]>,
}

/// A list of blocks: its first block, which contains the address of the next one.
#[derive(Clone, Copy)]
struct Blocks(*mut Blocks);

// SAFETY: the blocks of a list are reached only through the list, which is behind a lock.
unsafe impl Send for Blocks {}

#[global_allocator]
static HEAP: Heap = Heap {
    free: Mutex::new([Blocks(ptr::null_mut()); usize::BITS as usize]),
};

/// The layout that is allocated for `layout`: its size is a power of two, and so is its alignment.
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

// SAFETY: a block is as large as `whole` says, so at least as large and as aligned as requested. It
// is either in the list of its size or in use: `alloc` takes it out, and `dealloc` puts it in.
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
            // SAFETY: `dealloc` wrote the rest of the list into it.
            *free = unsafe { first.read() };
            first.cast()
        })
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        let block = whole(layout).expect("an allocated block has a size");
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

fn used_global() {
    warm_up(tierpool::set_global(options()).unwrap(), 0);
}

// The same as `local_untouched`, but each get asks for the pool.
#[library_benchmark]
#[bench::x1000(setup = used_global)]
fn local_of_global((): ()) {
    for _ in 0..1000 {
        black_box(&mut tierpool::global().get(size()));
    }
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

/// A codec that uses `BytesMut` and knows no guards.
#[inline(never)]
fn encode(buf: &mut BytesMut, bytes: &[u8]) {
    buf.put_slice(bytes);
}

// The write happens behind the guard's back, so the drop checks whether the buffer is unchanged.
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

// As for a frame whose length is known only at its end.
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
        // SAFETY: the line before wrote these bytes.
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

// Takes the slow path on both sides, and wipes the written bytes.
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

// Each get allocates twice, and each drop frees both. The heap's instructions count, too.
#[library_benchmark]
#[bench::x1000(setup = keeping_nothing)]
fn miss(pool: Pool) -> Pool {
    for _ in 0..1000 {
        black_box(&mut pool.get(size()));
    }
    pool
}

// Takes more than `miss`, since it requests a block of zeros from the heap.
#[library_benchmark]
#[bench::x1000(setup = keeping_nothing)]
fn miss_of_try_get(pool: Pool) -> Pool {
    for _ in 0..1000 {
        black_box(&mut pool.try_get(size()));
    }
    pool
}

// ---- depot ----

/// A pool, and a thread that has held `count` buffers at once, twice.
fn burst(count: usize) -> (Pool, Vec<PooledBuf>) {
    let pool = used(0);
    let mut held = Vec::with_capacity(count);
    for _ in 0..2 {
        held.extend((0..count).map(|_| pool.get(size())));
        held.clear();
    }
    (pool, held)
}

// Gets many buffers, and drops all. The buffers that do not fit a thread's cache come from the
// depot and go back there, in magazines.
#[library_benchmark]
#[bench::x1024(args = (1024), setup = burst)]
fn depot_exchange((pool, mut held): (Pool, Vec<PooledBuf>)) -> (Pool, Vec<PooledBuf>) {
    held.extend((0..1024).map(|_| pool.get(size())));
    black_box(&mut held).clear();
    (pool, held)
}

/// A pool that this thread has used, and buffers that another thread has taken.
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

// From 512 bytes to 4096, and once in twelve pieces of 256. All put and copied bytes count.
#[library_benchmark]
#[bench::x1000(setup = grown)]
fn growth(pool: Pool) -> Pool {
    for _ in 0..1000 {
        grow(&pool);
    }
    pool
}

// ---- trim ----

/// A pool with one full thread cache. All its buffers were needed since the last trim.
fn needed() -> Pool {
    let pool = used(0);
    drop((0..CACHED).map(|_| pool.get(size())).collect::<Vec<_>>());
    assert_eq!(pool.stats().total.retained_buffers, CACHED as u64);
    pool
}

/// The same, but none of the buffers was needed since the last trim.
fn resting() -> Pool {
    let pool = needed();
    assert_eq!(pool.trim().buffers, 0);
    pool
}

// Visits all size classes, puts the buffers of one class to rest, and frees none.
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

/// A pool with targets. Contents of many lengths have come back since the calibration.
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
        local_of_global,
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

/// glibc chooses its way to copy memory by the processor. This makes it use SSE2.
const ONE_WAY_TO_COPY: &str = "glibc.cpu.hwcaps=-AVX_Fast_Unaligned_Load,-AVX2,-ERMS,-SSSE3";

main!(
    config = LibraryBenchmarkConfig::default()
        .env("GLIBC_TUNABLES", ONE_WAY_TO_COPY)
        .tool(Callgrind::with_args(["cache-sim=no"]));
    library_benchmark_groups = instructions
);
