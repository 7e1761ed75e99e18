//! The pool's statistics.

use crate::{assert_accounts_balance, class, options, pool_of, rounds, total};
use bytes::{Buf, BufMut, BytesMut};
use std::thread;
use tierpool::{Builder, Counts, Pool, PooledBuf};

#[test]
fn a_pool_that_did_nothing_counts_nothing() {
    let pool = pool_of(&[512, 2048]);
    let stats = pool.stats();
    assert_eq!(
        (stats.total, stats.unclassed),
        (Counts::default(), Counts::default())
    );
    let capacities: Vec<usize> = stats.classes.iter().map(|class| class.capacity).collect();
    assert_eq!(capacities, pool.classes());
    assert_eq!(total(&pool).hit_rate(), 0.0);
}

#[test]
fn a_get_is_counted_at_the_level_that_served_it() {
    let pool = pool_of(&[512]);
    let counts = |pool: &Pool| {
        let total = total(pool);
        (
            total.misses,
            total.local_hits,
            total.depot_hits,
            total.oversize,
        )
    };
    drop(pool.get(1));
    assert_eq!(counts(&pool), (1, 0, 0, 0));
    drop(pool.get(1));
    assert_eq!(counts(&pool), (1, 1, 0, 0));
    drop(pool.get(513));
    assert_eq!(counts(&pool), (1, 1, 0, 1));
    // A thread that ends flushes its cached buffers to the depot.
    let other = pool.clone();
    std::thread::spawn(move || drop((other.get(1), other.get(1))))
        .join()
        .unwrap();
    assert_eq!(counts(&pool), (3, 1, 0, 1));
    let held: Vec<PooledBuf> = (0..3).map(|_| pool.get(1)).collect();
    let after = total(&pool);
    assert_eq!((after.misses, after.hits()), (3, 4));
    assert_eq!(after.local_hits + after.depot_hits, 4);
    assert!(after.depot_hits >= 1, "one for each magazine that moved");
    assert_eq!(after.hit_rate(), 4.0 / 8.0);
    assert_eq!(after.outstanding, 3);
    drop(held);
}

#[test]
fn a_get_takes_from_the_heap_only_when_nothing_of_its_class_is_idle() {
    let pool = pool_of(&[512, 2048]);
    let mut held: Vec<PooledBuf> = (0..200).map(|_| pool.get(512)).collect();
    // Some buffers are longer than their class, so they are kept loose.
    held.push(pool.adopt(BytesMut::with_capacity(700)));
    held.push(pool.adopt(BytesMut::with_capacity(900)));
    drop(held);
    let idle = total(&pool).retained_buffers;
    assert_eq!(idle + total(&pool).discards.full, 202);
    assert!(idle > 100);
    let held: Vec<PooledBuf> = (0..idle).map(|_| pool.get(512)).collect();
    let after = class(&pool, 512);
    assert_eq!(
        (after.hits(), after.misses, after.retained_buffers),
        (idle, 200, 0)
    );
    assert_eq!(after.retained_bytes, 0);
    drop(pool.get(512));
    assert_eq!(class(&pool, 512).misses, 201);
    drop(held);
}

#[test]
fn a_return_that_finds_the_budget_reached_is_freed_and_counted() {
    for (capacity, kept) in [(512, 20), (4096, 7), (3 << 20, 1)] {
        let pool = options(&[capacity])
            .retain_bytes(kept * capacity + capacity - 1)
            .build()
            .unwrap();
        let held: Vec<PooledBuf> = (0..30).map(|_| pool.get(1)).collect();
        drop(held);
        let after = total(&pool);
        assert_eq!(
            (after.retained_buffers, after.returns),
            (kept as u64, kept as u64)
        );
        assert_eq!(after.retained_bytes, (kept * capacity) as u64);
        assert_eq!(after.discards.full, 30 - kept as u64);
        assert_eq!(after.discards.total(), after.discards.full);
        assert_accounts_balance(&pool);
    }
}

#[test]
fn prefilled_and_trimmed_buffers_are_counted_in_their_class() {
    let pool = pool_of(&[512, 2048]);
    let counts = |capacity| {
        let counts = class(&pool, capacity);
        (counts.prefilled, counts.trimmed, counts.retained_buffers)
    };
    assert_eq!(pool.prefill(600, 40), 40);
    drop((pool.get(1), pool.get(1)));
    assert_eq!((counts(512), counts(2048)), ((0, 0, 2), (40, 0, 40)));
    pool.trim(); // from here on, needed buffers are noted
    drop(pool.get(1));
    assert_eq!(pool.trim().buffers, 41);
    assert_eq!((counts(512), counts(2048)), ((0, 1, 1), (40, 40, 0)));
    pool.clear();
    assert_eq!((counts(512), counts(2048)), ((0, 2, 0), (40, 40, 0)));
    let total = total(&pool);
    assert_eq!((total.prefilled, total.trimmed), (40, 42));
    assert_eq!((total.discards.total(), total.gets), (0, 3));
    assert_accounts_balance(&pool);
}

#[test]
fn all_sums_hold_in_every_line_after_mixed_use() {
    let pool = pool_of(&[64, 512, 4096]);
    for round in 0..5_usize {
        drop((pool.get(1), pool.get(64), pool.get(600), pool.get(5000)));
        let mut buf = pool.get(64);
        buf.put_bytes(1, 3000); // grows
        drop(buf);
        let mut buf = pool.get(512);
        buf.put_bytes(1, 500);
        buf.advance(100);
        drop(buf.copy_to_bytes(10));
        drop(buf);
        let mut buf = pool.get(512);
        buf.put_bytes(1, 500);
        let part = buf.copy_to_bytes(round + 1);
        drop(buf);
        drop(part); // with the last part
        let mut buf = pool.get(512);
        buf.put_bytes(1, 500);
        let part = BytesMut::split_to(&mut buf, round + 1);
        drop(buf); // shared
        drop(part);
        drop(pool.adopt(BytesMut::with_capacity(5)));
        drop(pool.adopt(BytesMut::with_capacity(700)));
        drop(pool.adopt(BytesMut::with_capacity(7000)));
        drop(pool.get(64).detach());
        drop(pool.get(64).freeze());
        pool.prefill(4096, round);
        pool.trim();
    }
    let held = (
        pool.get(64),
        pool.get(512),
        pool.get(9999),
        pool.adopt(BytesMut::new()),
    );
    assert_accounts_balance(&pool);
    let stats = pool.stats();
    // No guard changed its class between its beginning and end, so the second sum holds in each
    // class separately.
    for counts in stats
        .classes
        .iter()
        .map(|class| class.counts)
        .chain([stats.unclassed])
    {
        assert_eq!(
            counts.gets + counts.adopted,
            counts.returns + counts.discards.total() + counts.detached + counts.outstanding,
            "{counts:?}"
        );
    }
    let outstanding: Vec<u64> = stats
        .classes
        .iter()
        .map(|class| class.counts.outstanding)
        .collect();
    assert_eq!(
        (outstanding, stats.unclassed.outstanding),
        (vec![1, 1, 0], 2)
    );
    assert_eq!(stats.total.outstanding, 4);
    assert_eq!(stats.total.discards.shared, 5);
    assert_eq!(stats.total.discards.below_min, 5);
    assert_eq!(stats.total.discards.above_max, 10);
    assert_eq!((stats.total.adopted, stats.total.detached), (16, 5));
    assert_eq!(stats.total.growths, 5);
    drop(held);
    assert_eq!(total(&pool).outstanding, 0);
}

#[test]
fn the_total_is_the_sum_of_all_lines() {
    let pool = pool_of(&[64, 512]);
    let _held = (pool.get(64), pool.get(512), pool.get(1000));
    drop((pool.get(64), pool.get(512), pool.get(1000)));
    drop(pool.adopt(BytesMut::with_capacity(3)));
    pool.prefill(512, 2);
    for _ in 0..2 {
        pool.trim();
    }
    drop((pool.get(64), pool.get(512)));
    let stats = pool.stats();
    let sum = |field: fn(&Counts) -> u64| {
        let classes: u64 = stats.classes.iter().map(|class| field(&class.counts)).sum();
        (classes + field(&stats.unclassed), field(&stats.total))
    };
    let fields: [fn(&Counts) -> u64; 13] = [
        |counts| counts.gets,
        |counts| counts.misses,
        |counts| counts.oversize,
        |counts| counts.adopted,
        |counts| counts.returns,
        |counts| counts.discards.total(),
        |counts| counts.prefilled,
        |counts| counts.trimmed,
        |counts| counts.outstanding,
        |counts| counts.outstanding_bytes,
        |counts| counts.retained_buffers,
        |counts| counts.retained_bytes,
        |counts| counts.footprint_bytes(),
    ];
    for (at, field) in fields.into_iter().enumerate() {
        let (sum, total) = sum(field);
        assert_eq!(sum, total, "field {at}");
        assert!(total > 0, "field {at}");
    }
}

#[test]
fn a_guard_that_ends_in_another_class_is_outstanding_in_neither() {
    let pool = pool_of(&[64, 512]);
    let mut buf = pool.get(64);
    *buf = BytesMut::with_capacity(512);
    assert_eq!(
        (class(&pool, 64).outstanding, class(&pool, 512).outstanding),
        (1, 0)
    );
    drop(buf);
    assert_eq!(
        (class(&pool, 64).outstanding, class(&pool, 512).outstanding),
        (0, 0)
    );
    assert_eq!(
        (class(&pool, 64).returns, class(&pool, 512).returns),
        (0, 1)
    );
    assert_accounts_balance(&pool);
}

#[test]
fn the_table_has_a_line_for_each_used_class_and_for_the_sum() {
    let pool = pool_of(&[512, 2048, 65_536]);
    let _out = pool.get(2000);
    for _ in 0..3 {
        drop(pool.get(100));
    }
    drop(pool.get(100_000));
    pool.prefill(60_000, 2);
    for _ in 0..2 {
        pool.trim();
    }
    drop(pool.get(100));
    assert_eq!(
        pool.stats().to_string(),
        "\
class  gets  local  miss  oversize
  512     4      2     2         0
 2048     1      0     1         0
65536     0      0     0         0
 none     1      0     0         1
total     6      2     3         1

class  returns  discards  prefill  trimmed  outst.    bytes  idle  bytes
  512        4         0        0        1       0      0 B     1  512 B
 2048        0         0        0        0       1  2.0 KiB     0    0 B
65536        0         0        2        2       0      0 B     0    0 B
 none        0         1        0        0       0      0 B     0    0 B
total        4         1        2        3       1  2.0 KiB     1  512 B
hit rate 33.33 %; about 100 % of the capacity unused
1 discard: 1 above max, 0 below min, 0 shared, 0 full
footprint 2.5 KiB, 130.5 KiB at its peak"
    );
}

/// The column at which each word of a line ends.
fn word_ends(line: &str) -> Vec<usize> {
    let bytes = line.as_bytes();
    let ends = (1..=bytes.len())
        .filter(|&at| bytes[at - 1] != b' ' && bytes.get(at).is_none_or(|&next| next == b' '));
    ends.collect()
}

#[test]
fn the_columns_of_the_table_align_for_all_numbers() {
    let pool = Pool::default();
    for (at, &capacity) in pool.classes().iter().enumerate() {
        for _ in 0..10_usize.pow(at as u32 % 4) {
            drop(pool.get(capacity));
        }
    }
    drop(pool.get(2 << 20));
    let table = pool.stats().to_string();
    let mut lines: Vec<&str> = table.lines().collect();
    assert!(lines.pop().unwrap().starts_with("footprint"));
    assert!(lines.pop().unwrap().contains("1 above max"));
    assert!(lines.pop().unwrap().starts_with("hit rate"));
    assert_eq!(lines.len(), 1 + pool.classes().len() + 2);
    let columns = word_ends(lines[0]);
    assert_eq!(columns.len(), 9, "{table}");
    for line in &lines {
        assert_eq!(line.len(), lines[0].len(), "{table}");
        let ends = word_ends(line);
        assert!(columns.iter().all(|end| ends.contains(end)), "{table}");
    }
}

#[test]
fn a_period_has_its_own_events_and_what_is_there_now() {
    let pool = pool_of(&[64, 512]);
    let held = pool.get(64);
    drop(pool.get(500));
    let before = pool.stats();
    drop((pool.get(500), pool.get(500)));
    drop(held);
    pool.get(9999).extend_from_slice(b"oversize");
    let now = pool.stats();
    let period = now.since(&before);
    let total = period.total;
    assert_eq!((total.gets, total.local_hits, total.misses), (3, 1, 1));
    assert_eq!((total.oversize, total.discards.above_max), (1, 1));
    assert_eq!((total.returns, total.outstanding), (3, 0));
    assert_eq!((total.retained_buffers, total.retained_bytes), (3, 1088));
    assert_eq!(total.hit_rate(), 1.0 / 3.0);
    let [small, large] = &period.classes[..] else {
        panic!("two classes");
    };
    assert_eq!((small.counts.gets, small.counts.returns), (0, 1));
    assert_eq!((large.counts.gets, large.counts.retained_buffers), (2, 2));
    assert_eq!(period.unclassed.gets, 1);
    assert_eq!(
        (period.peaks, period.budget_bytes),
        (now.peaks, now.budget_bytes)
    );
    assert_eq!(period.total, now.total.since(&before.total));
}

#[test]
fn a_period_is_explained_without_the_buffers_that_were_out_before() {
    let pool = pool_of(&[64]);
    let _held: Vec<PooledBuf> = (0..300).map(|_| pool.get(64)).collect();
    drop(pool.copy_from_slice(&[1; 64]));
    let explained = |text: String| text.lines().any(|line| line.starts_with("outstanding: "));
    assert!(explained(pool.stats().explain().to_string()));
    let before = pool.stats();
    for _ in 0..200 {
        drop(pool.copy_from_slice(&[1; 64]));
    }
    let period = pool.stats().since(&before);
    assert!(!explained(period.explain().to_string()), "{period}");
}

#[test]
fn a_period_that_ends_before_it_begins_has_no_events() {
    let pool = pool_of(&[64]);
    let before = pool.stats();
    drop(pool.get(1));
    pool.recalibrate();
    let now = pool.stats();
    let none = before.since(&now);
    assert_eq!(none.total, Counts::default());
    assert_eq!((none.calibrations, none.usage), (0, before.usage));
    let nothing = now.since(&now);
    assert_eq!((nothing.total.gets, nothing.total.retained_buffers), (0, 1));
    assert_eq!((now.calibrations, nothing.calibrations), (1, 0));
}

#[test]
fn a_class_that_the_earlier_snapshot_lacks_counts_from_the_beginning() {
    let (pool, other) = (pool_of(&[64]), pool_of(&[512]));
    drop(pool.get(1));
    drop(other.get(1));
    let period = pool.stats().since(&other.stats());
    assert_eq!(period.classes.len(), 1);
    assert_eq!(period.classes[0].counts.gets, 1);
}

#[test]
fn usage_is_the_most_that_each_buffer_held_of_its_capacity() {
    let pool = pool_of(&[64, 512]);
    let usage = || {
        let usage = pool.stats().usage;
        (usage.capacity_bytes, usage.used_bytes)
    };
    assert_eq!(usage(), (0, 0));
    assert_eq!(pool.stats().usage.waste(), 0.0);
    let mut buf = pool.get(500);
    buf.extend_from_slice(&[1; 400]);
    buf.truncate(3);
    assert_eq!(usage(), (0, 0), "it is out");
    drop(buf);
    assert_eq!(usage(), (512, 400));
    // On another thread, and lent as a whole.
    let mut buf = pool.get(500);
    (*buf).extend_from_slice(&[1; 100]);
    thread::scope(|scope| scope.spawn(|| drop(buf)).join()).unwrap();
    assert_eq!(usage(), (1024, 500));
    let frozen = pool.copy_from_slice(&[1; 64]).freeze();
    drop(frozen);
    assert_eq!(usage(), (1088, 564));
    assert_eq!(pool.stats().usage.wasted_bytes(), 524);
    drop(pool.copy_from_slice(&[1; 1000])); // oversize
    assert_eq!(usage(), (2088, 1564));
}

#[test]
fn no_more_is_used_than_the_capacity_of_the_period() {
    let pool = pool_of(&[64, 4096]);
    drop(pool.get(4096)); // unused
    let before = pool.stats();
    let mut buf = pool.get(64);
    (*buf).extend_from_slice(&[1; 4000]); // grows, and the pool does not see it
    drop(buf);
    let usage = pool.stats().since(&before).usage;
    assert_eq!((usage.capacity_bytes, usage.used_bytes), (64, 64));
}

#[test]
fn usage_of_returns_on_the_fast_path_is_estimated_from_samples() {
    let pool = pool_of(&[512]);
    for round in 0..rounds(100_000, 1000) {
        let len = [256, 0, 512, 128][round % 4];
        pool.get(500).extend_from_slice(&[1; 512][..len]);
    }
    let usage = pool.stats().usage;
    let returns = usage.capacity_bytes / 512;
    let all = rounds(100_000, 1000) as u64;
    assert!(returns.abs_diff(all) < 200, "{returns} of {all}");
    // 1 - (256 + 0 + 512 + 128) / 4 / 512
    let off = (usage.waste() - 0.5625).abs();
    // Chance gives at most 0.03 and 0.17 for 5000 seeds.
    assert!(off < if crate::SLOW { 0.25 } else { 0.1 }, "{off}");
}

#[test]
fn the_budget_is_shown_as_it_was_set() {
    let budget = |builder: Builder| builder.build().unwrap().stats().budget_bytes;
    assert_eq!(budget(Pool::builder()), 64 << 20);
    assert_eq!(budget(Pool::builder().retain_bytes(0)), 0);
    let none = Pool::builder().retain_bytes(usize::MAX);
    assert_eq!(budget(none), usize::MAX as u64);
}

#[test]
fn what_was_freed_prints_with_its_unit() {
    let pool = pool_of(&[4096]);
    let held: Vec<_> = (0..12).map(|_| pool.get(1)).collect();
    drop(held);
    assert_eq!(pool.clear().to_string(), "12 buffers, 48.0 KiB");
    drop(pool.get(1));
    assert_eq!(pool.clear().to_string(), "1 buffer, 4.0 KiB");
    assert_eq!(pool.clear().to_string(), "0 buffers, 0 B");
}

#[cfg(feature = "serde")]
#[test]
fn numbers_are_serialized_under_the_names_of_their_fields() {
    let pool = pool_of(&[512]);
    pool.get(1).extend_from_slice(b"abc");
    let stats = serde_json::to_value(pool.stats()).unwrap();
    assert_eq!(stats["total"]["gets"], 1);
    assert_eq!(stats["total"]["discards"]["full"], 0);
    assert_eq!(stats["classes"][0]["capacity"], 512);
    assert_eq!(stats["classes"][0]["counts"]["retained_bytes"], 512);
    assert_eq!(stats["unclassed"]["oversize"], 0);
    assert_eq!(stats["peaks"]["footprint_bytes"], 512);
    assert_eq!(stats["usage"]["used_bytes"], 3);
    assert_eq!(stats["budget_bytes"], 64 << 20);
    let targets = serde_json::to_value(pool.recalibrate()).unwrap();
    assert_eq!(targets["default_size"], 64);
    let freed = serde_json::to_value(pool.clear()).unwrap();
    assert_eq!(
        (&freed["buffers"], &freed["bytes"]),
        (&1.into(), &512.into())
    );
}

#[test]
fn a_snapshot_does_not_change_afterwards() {
    let pool = pool_of(&[512]);
    drop(pool.get(1));
    let before = pool.stats();
    let copy = before.clone();
    drop((pool.get(1), pool.get(1)));
    assert_eq!(before, copy);
    assert_ne!(before, pool.stats());
}
