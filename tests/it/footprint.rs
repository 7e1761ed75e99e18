//! Bytes in use: the outstanding bytes, in all and by class, and their maximum.

use crate::{assert_accounts_balance, class, options, pool_of, rounds, total};
use bytes::{Buf, BufMut, BytesMut};
use std::sync::{Arc, Barrier};
use std::thread;
use tierpool::{Peaks, Pool, PooledBuf, PooledBytes};

const MIB: u64 = 1 << 20;

/// Outstanding bytes in all, and of buffers without a class.
fn outstanding(pool: &Pool) -> (u64, u64) {
    assert_accounts_balance(pool);
    let stats = pool.stats();
    let unclassed = stats.unclassed.outstanding_bytes;
    (stats.total.outstanding_bytes, unclassed)
}

fn peaks(pool: &Pool) -> Peaks {
    pool.stats().peaks
}

// ---- outstanding bytes ----

// Failed once: the statistics showed only the first 12,288 bytes.
#[test]
fn oversize_and_adopted_buffers_count_with_the_others() {
    let pool = Pool::builder().trim_interval(None).build().unwrap();
    let three: Vec<PooledBuf> = (0..3).map(|_| pool.get(4096)).collect();
    let two: Vec<PooledBuf> = (0..2).map(|_| pool.get(5 << 20)).collect();
    let one = pool.adopt(BytesMut::with_capacity(100));
    assert_eq!(outstanding(&pool), (10_498_148, 10 * MIB + 100));
    assert_eq!(class(&pool, 4096).outstanding_bytes, 12_288);
    drop(two);
    assert_eq!(outstanding(&pool), (12_288 + 100, 100));
    drop(one);
    assert_eq!(outstanding(&pool), (12_288, 0));
    drop(three);
    assert_eq!(outstanding(&pool), (0, 0));
    assert_eq!(total(&pool).retained_bytes, 12_288);
    assert_eq!(peaks(&pool).footprint_bytes, 10_498_148);
}

#[test]
fn a_frozen_buffer_counts_until_its_last_slice_is_dropped() {
    let pool = pool_of(&[512, 4096]);
    let mut buf = pool.get(1000);
    buf.put_slice(b"frozen");
    let mut frozen: Vec<PooledBytes> = vec![buf.freeze()];
    frozen.push(frozen[0].slice(2..4));
    frozen.push(frozen[0].clone());
    for _ in 0..3 {
        assert_eq!(outstanding(&pool), (4096, 0));
        frozen.pop();
    }
    assert_eq!(outstanding(&pool), (0, 0));
    assert_eq!(total(&pool).retained_bytes, 4096);
}

#[test]
fn a_buffer_between_two_classes_counts_with_all_its_bytes() {
    let pool = pool_of(&[512, 4096]);
    let irregular = pool.adopt(BytesMut::with_capacity(700));
    let _ordinary = pool.get(512);
    assert_eq!(class(&pool, 512).outstanding_bytes, 700 + 512);
    drop(irregular);
    let counts = class(&pool, 512);
    assert_eq!(
        (counts.outstanding_bytes, counts.retained_bytes),
        (512, 700)
    );
    let again = pool.get(1);
    assert_eq!((again.capacity(), outstanding(&pool)), (700, (1212, 0)));
    assert_eq!(class(&pool, 512).retained_bytes, 0);
    drop(again);
    pool.clear();
    assert_eq!(outstanding(&pool), (512, 0));
}

#[test]
fn a_guard_counts_with_its_grown_capacity() {
    let pool = pool_of(&[512, 4096, 65_536]);
    let mut buf = pool.get(100);
    buf.put_bytes(1, 1000);
    assert_eq!(outstanding(&pool), (buf.capacity() as u64, 0));
    assert_eq!(class(&pool, 512).outstanding_bytes, 0);
    // Above the largest class, from one plain allocation to the next.
    let mut before = 0;
    for len in [70_000, 200_000, 3_000_000] {
        buf.resize(len, 2);
        let capacity = buf.capacity() as u64;
        assert!(capacity >= len as u64 && capacity > before);
        assert_eq!(outstanding(&pool), (capacity, capacity));
        before = capacity;
    }
    assert!(buf[1000..].iter().all(|&byte| byte == 2));
    buf.advance(1000);
    buf.reserve(4_000_000);
    assert_eq!(outstanding(&pool).0, buf.capacity() as u64);
    let (grown, none) = outstanding(&pool);
    assert_eq!(grown, none);
    drop(buf);
    assert_eq!(outstanding(&pool), (0, 0));
    assert_eq!(total(&pool).discards.above_max, 1);
    // Also a buffer that was adopted below the smallest class.
    let mut buf = pool.adopt(BytesMut::with_capacity(10));
    buf.reserve(100_000);
    let capacity = buf.capacity() as u64;
    assert_eq!(outstanding(&pool), (capacity, capacity));
}

#[test]
fn growth_behind_deref_mut_counts_when_the_buffer_comes_home() {
    let pool = pool_of(&[512, 4096]);
    let mut buf = pool.get(512);
    (*buf).reserve(3000); // on the heap, unseen by the pool
    assert!(buf.capacity() >= 3000);
    assert_eq!(outstanding(&pool), (512, 0));
    let capacity = buf.capacity() as u64;
    drop(buf);
    assert_eq!(outstanding(&pool), (0, 0));
    assert_eq!(total(&pool).retained_bytes, capacity);
    assert_eq!(peaks(&pool).footprint_bytes, capacity);
    // To another class: both its old class and its new one are right.
    let mut buf = pool.get(512);
    *buf = BytesMut::with_capacity(5000);
    drop(buf); // above the largest class, and freed
    let mut buf = pool.get(512);
    *buf = BytesMut::with_capacity(4096);
    drop(buf);
    assert_eq!(class(&pool, 4096).retained_bytes, 4096);
    // The buffer is taken out, with nothing left in its place.
    let mut buf = pool.get(512);
    let taken = std::mem::take(&mut *buf);
    drop(buf);
    assert_eq!(outstanding(&pool), (0, 0));
    drop(taken);
    pool.clear();
    assert_eq!(total(&pool).footprint_bytes(), 0);
}

#[test]
fn a_part_split_off_behind_deref_mut_counts_only_while_its_guard_lives() {
    for detached in [false, true] {
        let pool = pool_of(&[4096]);
        let mut buf = pool.get(4096);
        buf.put_bytes(1, 3000);
        let part = BytesMut::split_to(&mut buf, 1000);
        assert_eq!(outstanding(&pool), (4096, 0));
        match detached {
            true => drop(buf.detach()),
            false => drop(buf), // shared, so it is freed with its last part
        }
        assert_eq!(outstanding(&pool), (0, 0));
        assert_eq!(total(&pool).retained_bytes, 0);
        drop(part);
    }
}

#[test]
fn a_buffer_that_is_freed_for_any_reason_no_longer_counts() {
    let pool = options(&[512, 4096]).retain_bytes(4096).build().unwrap();
    let held = [pool.get(4096), pool.get(4096), pool.get(5000)];
    let small = pool.adopt(BytesMut::with_capacity(7));
    let footprint = || total(&pool).footprint_bytes();
    assert_eq!(footprint(), 4096 + 4096 + 5000 + 7);
    drop((held, small)); // the pool keeps one of them
    let discards = total(&pool).discards;
    assert_eq!(
        (discards.full, discards.above_max, discards.below_min),
        (1, 1, 1)
    );
    assert_eq!((footprint(), outstanding(&pool)), (4096, (0, 0)));
    pool.trim();
    assert_eq!(pool.trim().bytes, 4096);
    assert_eq!(footprint(), 0);
    assert_eq!(pool.prefill(512, 8), 8);
    assert_eq!(footprint(), 4096);
    pool.clear();
    assert_eq!(footprint(), 0);
}

#[test]
fn a_guard_that_is_forgotten_counts_for_ever() {
    let pool = pool_of(&[512]);
    let mut forgotten = std::mem::ManuallyDrop::new(pool.get(512));
    drop(pool.get(512));
    pool.clear();
    assert_eq!(outstanding(&pool), (512, 0));
    // Dropped after all, for the leak checkers.
    // SAFETY: it is dropped once, here.
    unsafe { std::mem::ManuallyDrop::drop(&mut forgotten) };
}

#[test]
fn all_ways_to_take_a_buffer_count_alike() {
    for builder in [
        options(&[512, 4096]),
        options(&[512, 4096]).zero_on_return(true),
        options(&[512, 4096]).thread_cache_bytes(0),
        options(&[512, 4096]).retain_bytes(0),
        options(&[512, 4096]).retain_bytes(usize::MAX),
    ] {
        let pool = builder.build().unwrap();
        for _ in 0..2 {
            let held = [
                pool.get(1),
                pool.try_get(1000).unwrap(),
                pool.get_default(),
                pool.try_get(6000).unwrap(),
            ];
            assert_eq!(outstanding(&pool), (512 + 2 * 4096 + 6000, 6000));
            drop(held);
            assert_eq!(outstanding(&pool), (0, 0));
        }
    }
}

// ---- peaks ----

#[test]
fn the_peak_of_the_footprint_misses_nothing_between_two_snapshots() {
    let pool = pool_of(&[512, 4096]);
    let held: Vec<PooledBuf> = (0..10).map(|_| pool.get(4096)).collect();
    drop(held);
    drop(pool.get(1 << 20));
    pool.clear();
    assert_eq!(total(&pool).footprint_bytes(), 0);
    assert_eq!(peaks(&pool).footprint_bytes, 10 * 4096 + MIB);
    // Idle bytes are a part of it.
    pool.reset_peaks();
    assert_eq!(peaks(&pool), Peaks::default());
    pool.prefill(512, 4);
    let _held = pool.get(4096);
    assert_eq!(peaks(&pool).footprint_bytes, 4 * 512 + 4096);
    // A guard that grows has two buffers while it copies.
    pool.reset_peaks();
    let mut buf = pool.get(512);
    let now = total(&pool).footprint_bytes();
    buf.reserve(4000);
    assert_eq!(peaks(&pool).footprint_bytes, now + 4096);
}

#[test]
fn reset_peaks_restart_from_the_present_bytes() {
    let pool = pool_of(&[512, 4096]);
    let held = [pool.get(512), pool.get(4096)];
    drop(pool.get(4096));
    drop(pool.get(1 << 20));
    pool.reset_peaks();
    let now = peaks(&pool);
    assert_eq!(now.footprint_bytes, 512 + 2 * 4096);
    assert_eq!(
        (now.outstanding_bytes, now.retained_bytes),
        (512 + 4096, 4096)
    );
    drop(held);
    assert_eq!(peaks(&pool).footprint_bytes, 512 + 2 * 4096);
    // The maximum counts though no snapshot was taken then.
    pool.reset_peaks();
    pool.clear();
    assert_eq!(peaks(&pool).footprint_bytes, 512 + 2 * 4096);
    pool.clone().reset_peaks(); // any handle resets those of all
    assert_eq!(peaks(&pool), Peaks::default());
}

#[test]
fn the_other_peaks_are_the_maximum_of_all_snapshots() {
    let pool = pool_of(&[4096]);
    let of = |pool: &Pool| {
        let peaks = peaks(pool);
        (peaks.outstanding_bytes / 4096, peaks.retained_bytes / 4096)
    };
    let hold = |count| -> Vec<PooledBuf> { (0..count).map(|_| pool.get(4096)).collect() };
    let held = hold(5);
    assert_eq!(of(&pool), (5, 0));
    drop(held);
    assert_eq!(of(&pool), (5, 5));
    let held = hold(3);
    assert_eq!(of(&pool), (5, 5));
    pool.reset_peaks();
    assert_eq!(of(&pool), (3, 2));
    drop(held);
    // No snapshot is taken while these are outstanding.
    drop(hold(4));
    assert_eq!(of(&pool), (3, 5));
    assert_eq!(peaks(&pool).footprint_bytes, 5 * 4096);
}

#[test]
fn the_peak_of_many_threads_is_their_sum_at_one_moment() {
    const THREADS: usize = rounds(8, 3);
    const EACH: usize = rounds(70, 5);
    let pool = pool_of(&[512, 4096]);
    let all_hold = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (pool, all_hold) = (pool.clone(), Arc::clone(&all_hold));
            thread::spawn(move || {
                let held: Vec<PooledBuf> = (0..EACH).map(|_| pool.get(4096)).collect();
                let more = pool.get(10_000);
                all_hold.wait();
                drop((held, more));
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    pool.clear();
    let most = (THREADS * (EACH * 4096 + 10_000)) as u64;
    assert_eq!(peaks(&pool).footprint_bytes, most);
    assert_eq!(total(&pool).footprint_bytes(), 0);
}

#[test]
fn peaks_reset_while_threads_work_are_never_below_the_present_bytes() {
    const THREADS: usize = 4;
    let pool = options(&[512, 4096]).retain_bytes(8192).build().unwrap();
    for _ in 0..rounds(100, 3) {
        let start = Barrier::new(THREADS + 1);
        let held: Vec<PooledBuf> = thread::scope(|scope| {
            let busy: Vec<_> = (0..THREADS)
                .map(|at| {
                    let (pool, start) = (&pool, &start);
                    scope.spawn(move || {
                        start.wait();
                        for _ in 0..20 {
                            drop((pool.get(4096), pool.get(5000 + at)));
                        }
                        pool.get(5000 + at)
                    })
                })
                .collect();
            start.wait();
            for _ in 0..20 {
                pool.reset_peaks();
                let stats = pool.stats();
                let (now, peaks) = (stats.total, stats.peaks);
                assert!(now.footprint_bytes() <= peaks.footprint_bytes, "{stats}");
                assert!(peaks.outstanding_bytes <= peaks.footprint_bytes, "{stats}");
                assert!(peaks.retained_bytes <= peaks.footprint_bytes, "{stats}");
            }
            busy.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_accounts_balance(&pool);
        let oversize: u64 = (0..THREADS as u64).map(|at| 5000 + at).sum();
        assert_eq!(outstanding(&pool), (oversize, oversize));
        drop(held);
    }
}
