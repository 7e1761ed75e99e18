//! One huge request does not make the pool huge for ever (<https://go.dev/issue/23199>). If all
//! requests are large, their buffers are still reused.
//!
//! The scenarios are those of `benches/lab/src/bin/oversize_leak.rs`, which shows them over time
//! beside a naive pool. The tests check the held bytes after each get and each drop. Trims come by
//! count, so the results depend on no clock.

use crate::{assert_accounts_balance, rounds, total};
use std::collections::VecDeque;
use std::mem;
use tierpool::{Builder, Pool, PooledBuf};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Requests between two trims: as many as come at 20 a second in 10 seconds.
const TRIM_EVERY: usize = rounds(200, 20);

/// The most bytes that a run has held, and its hits.
#[derive(Debug, Default)]
struct Seen {
    /// Idle and outstanding bytes together, after any get, drop or trim.
    footprint_max: usize,
    /// Idle bytes, after any get, drop or trim.
    retained_max: usize,
    /// The same, from the second trim on.
    settled_max: usize,
    trims: usize,
    /// Requests after the first tenth, and how many of them found an idle buffer.
    warm: usize,
    warm_hits: usize,
}

impl Seen {
    /// Notes the present bytes. Returns how many gets were hits so far.
    fn look(&mut self, pool: &Pool, outstanding: usize) -> u64 {
        let now = total(pool);
        let retained = now.retained_bytes as usize;
        self.footprint_max = self.footprint_max.max(retained + outstanding);
        self.retained_max = self.retained_max.max(retained);
        if self.trims >= 2 {
            self.settled_max = self.settled_max.max(retained);
        }
        now.hits()
    }

    fn warm_hit_percent(&self) -> usize {
        100 * self.warm_hits / self.warm
    }
}

/// Requests of `bytes(0)`, `bytes(1)` and so on. Each ends when `in_flight` others have begun.
fn serve(
    pool: &Pool,
    requests: usize,
    in_flight: usize,
    trim_every: Option<usize>,
    bytes: impl Fn(usize) -> usize,
) -> Seen {
    let mut seen = Seen::default();
    let (mut outstanding, mut hits) = (0, 0);
    let mut held: VecDeque<PooledBuf> = VecDeque::new();
    for request in 0..requests {
        if trim_every.is_some_and(|every| request > 0 && request % every == 0) {
            pool.trim();
            seen.trims += 1;
            seen.look(pool, outstanding);
        }
        let buf = pool.get(bytes(request));
        outstanding += buf.capacity();
        let hits_before = mem::replace(&mut hits, seen.look(pool, outstanding));
        if request >= requests / 10 {
            seen.warm += 1;
            seen.warm_hits += (hits - hits_before) as usize;
        }
        held.push_back(buf);
        if held.len() > in_flight {
            let oldest = held.pop_front().unwrap();
            outstanding -= oldest.capacity();
            drop(oldest);
            seen.look(pool, outstanding);
        }
    }
    while let Some(oldest) = held.pop_front() {
        outstanding -= oldest.capacity();
        drop(oldest);
        seen.look(pool, outstanding);
    }
    assert_eq!(outstanding, 0);
    assert_accounts_balance(pool);
    seen
}

fn pool(builder: Builder) -> Pool {
    builder.trim_interval(None).build().unwrap()
}

/// The `n`th number of a stream: SplitMix64, which can start anywhere.
fn random(stream: u64, n: usize) -> u64 {
    let n = n as u64 + 1;
    let mut z = (stream << 32).wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

// ---- (a) a few huge requests, then only small ones

const HUGE: usize = rounds(HUGE_MIB, 4) * MIB;
// With 32 bits, twice ten of 256 MiB would be more than there are addresses.
const HUGE_MIB: usize = if cfg!(target_pointer_width = "32") {
    32
} else {
    256
};
const HUGE_COUNT: usize = rounds(10, 3);

fn huge_then_small(request: usize) -> usize {
    if request < HUGE_COUNT { HUGE } else { KIB }
}

fn serve_huge_then_small(pool: &Pool) -> Seen {
    let every = Some(TRIM_EVERY);
    serve(pool, 5 * TRIM_EVERY, HUGE_COUNT, every, huge_then_small)
}

#[test]
fn huge_buffers_above_the_largest_class_are_never_retained() {
    // The budget has room for all of them, so it is not the reason.
    let pool = pool(Pool::builder().retain_bytes(2 * HUGE_COUNT * HUGE));
    let seen = serve_huge_then_small(&pool);
    assert!(seen.retained_max < MIB, "{seen:?}");
    assert_eq!(total(&pool).discards.above_max as usize, HUGE_COUNT);
}

#[test]
fn huge_buffers_within_the_largest_class_are_freed_by_two_trims() {
    let room = 2 * HUGE_COUNT * HUGE;
    let pool = pool(Pool::builder().max_size(HUGE).retain_bytes(room));
    let seen = serve_huge_then_small(&pool);
    assert!(seen.retained_max >= HUGE_COUNT * HUGE, "kept: {seen:?}");
    assert!(seen.settled_max < MIB, "and were freed: {seen:?}");
}

// ---- (b), (c) mostly small requests, and a large one now and then

const FOOTPRINT_MAX: usize = 16 * MIB;
const SMALL_IN_FLIGHT: usize = rounds(64, 8);
const LARGE: usize = 4 * MIB;
/// One request in this many is large.
const LARGE_ONE_IN: usize = rounds(1000, 50);

/// At a random place in each thousand, so at most two of any thousand consecutive requests are
/// large.
fn mostly_small(request: usize) -> usize {
    let (thousand, at) = (request / LARGE_ONE_IN, request % LARGE_ONE_IN);
    if random(1, thousand) % LARGE_ONE_IN as u64 == at as u64 {
        LARGE
    } else {
        1 + random(2, request) as usize % (2 * KIB)
    }
}

fn serve_mostly_small(pool: &Pool, requests: usize, trim_every: Option<usize>) -> Seen {
    let seen = serve(pool, requests, SMALL_IN_FLIGHT, trim_every, mostly_small);
    assert!(seen.footprint_max >= LARGE, "some were large: {seen:?}");
    seen
}

#[test]
fn seldom_large_requests_leave_idle_and_outstanding_bytes_below_a_bound() {
    let pool = pool(Pool::builder());
    let seen = serve_mostly_small(&pool, rounds(20_000, 500), None);
    assert!(seen.footprint_max < FOOTPRINT_MAX, "{seen:?}");
    assert!(seen.warm_hit_percent() >= 95, "small ones hit: {seen:?}");
}

#[test]
fn seldom_large_requests_at_a_low_rate_leave_idle_and_outstanding_bytes_below_a_bound() {
    let pool = pool(Pool::builder());
    let one_hour = 3600 * 20;
    let seen = serve_mostly_small(&pool, rounds(one_hour, 500), Some(TRIM_EVERY));
    assert!(seen.footprint_max < FOOTPRINT_MAX, "{seen:?}");
    assert!(seen.warm_hit_percent() >= rounds(95, 50), "{seen:?}");
}

// The large requests have a size class here. Large buffers that come home together may all stay,
// but no longer than two trims. A small request never gets one of them, as it does from a naive
// pool.
#[test]
fn seldom_large_requests_with_a_class_do_not_make_small_requests_large() {
    let pool = pool(Pool::builder().max_size(LARGE));
    let seen = serve_mostly_small(&pool, rounds(20_000, 500), Some(TRIM_EVERY));
    assert!(seen.footprint_max < FOOTPRINT_MAX, "{seen:?}");
    pool.trim();
    pool.trim();
    pool.trim();
    assert_eq!(total(&pool).retained_bytes, 0);
}

// ---- (d) all requests are large

// Miri has no memory for buffers of 30 MiB, so all sizes are a thousandth there.
const UNIT: usize = rounds(KIB, 1);
const ALWAYS_LARGE_MAX: usize = (32 << 10) * UNIT;
const ALWAYS_LARGE_IN_FLIGHT: usize = 8;
const ALWAYS_LARGE_REQUESTS: usize = rounds(20_000, 400);
/// A budget that is never too small. Of each class, there are at most as many buffers as requests
/// at once. All classes below the largest are together as large as the largest.
const ALWAYS_LARGE_BUDGET: usize = ALWAYS_LARGE_IN_FLIGHT * 2 * ALWAYS_LARGE_MAX;

/// From 100 KiB to 30 MiB, each order of magnitude equally often.
fn always_large(request: usize) -> usize {
    let (least, most) = ((100 * UNIT) as f64, (30 * KIB * UNIT) as f64);
    let part = random(3, request) as f64 / u64::MAX as f64;
    (least * (most / least).powf(part)) as usize
}

fn serve_always_large(pool: &Pool) -> Seen {
    let (requests, in_flight) = (ALWAYS_LARGE_REQUESTS, ALWAYS_LARGE_IN_FLIGHT);
    serve(pool, requests, in_flight, Some(200), always_large)
}

fn pool_for_always_large(budget: usize) -> Pool {
    let builder = Pool::builder().min_size(64).max_size(ALWAYS_LARGE_MAX);
    pool(builder.retain_bytes(budget))
}

#[test]
fn buffers_that_are_always_large_are_reused() {
    let pool = pool_for_always_large(ALWAYS_LARGE_BUDGET);
    let seen = serve_always_large(&pool);
    assert!(seen.warm_hit_percent() >= 90, "{seen:?}");
    assert!(seen.retained_max <= ALWAYS_LARGE_BUDGET, "{seen:?}");
    assert_eq!(total(&pool).oversize, 0);
    assert_eq!(
        total(&pool).discards.total(),
        0,
        "the budget is large enough"
    );
}

#[test]
fn a_budget_that_is_too_small_for_large_buffers_holds() {
    let fits = serve_always_large(&pool_for_always_large(ALWAYS_LARGE_BUDGET));
    let budget = fits.retained_max / 4;
    assert!(budget >= ALWAYS_LARGE_MAX, "otherwise no buffer fits");
    let pool = pool_for_always_large(budget);
    let seen = serve_always_large(&pool);
    assert!(seen.retained_max <= budget, "{budget}: {seen:?}");
    assert!(total(&pool).discards.full > 0, "the budget was reached");
    assert!(
        seen.warm_hits > 0,
        "and buffers that fit are reused: {seen:?}"
    );
}
