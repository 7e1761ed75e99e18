//! How many instructions the pool's operations take, counted by callgrind.
//!
//! ```sh
//! scripts/instructions.sh             count, and compare with benches/record/instructions.csv
//! scripts/instructions.sh --update    count, and write that file anew
//! ```
//!
//! Times are noisy, counts are not: the same binary gives the same count in each run. So a
//! count that grew by more than 5 % (1 % for a local get and drop) fails
//! CI. What is counted is the body of the functions marked `#[library_benchmark]`, all that
//! it calls included; what `setup` does before, and the drop of what a function returns, is
//! not. The name of each case says how often the operation is done in it: `x1000`, a thousand
//! times. Each runs in a process of its own, on one thread.
//!
//! So that the machine does not count, either, glibc is told to copy memory in the way that
//! all processors of this architecture have. Another compiler, or another glibc where a case
//! allocates, may well give another count.
//!
//! The pools differ from the default in that no trim and no calibration comes due by time: a
//! clock that is looked at counts, one that strikes would make the count a matter of chance.

use bytes::BufMut;
use gungraun::{
    Callgrind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use std::hint::black_box;
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

// Each get allocates, and each drop frees: the heap's instructions count, too.
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
            pool.calibrate();
        }
    }
    pool
}

#[library_benchmark]
#[bench::x1(setup = many_lengths)]
fn calibrate(pool: Pool) -> Pool {
    black_box(pool.calibrate());
    pool
}

library_benchmark_group!(
    name = instructions,
    benchmarks = [
        local_untouched,
        local_one_byte,
        local_64_bytes,
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
