//! A limit on outstanding bytes: what counts, who waits, in which order, and what a cancelled wait
//! leaves.
#![cfg(feature = "limit")]

mod common {
    pub mod accounts;
}

use bytes::{Buf, BufMut, Bytes, BytesMut};
use common::accounts::assert_accounts_balance;
use proptest::prelude::*;
use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;
use tierpool::{Builder, ConfigError, GetError, Pool, PooledBuf};

/// Long enough for any machine. Only a lost wake-up takes that long.
const LONG: Duration = Duration::from_secs(300);

/// Classes of 512 to 8192 bytes.
fn builder() -> Builder {
    Pool::builder().max_size(8192)
}

fn pool_of(limit: usize) -> Pool {
    builder().max_outstanding_bytes(limit).build().unwrap()
}

/// How many more bytes may be outstanding, as refusals tell.
fn room(pool: &Pool) -> usize {
    let mut held = Vec::new();
    for capacity in [8192, 4096, 2048, 1024, 512] {
        while let Ok(buf) = pool.try_get(capacity) {
            held.push(buf);
        }
    }
    held.iter().map(|buf| buf.capacity()).sum()
}

/// All bytes of the limit are free, and no others.
#[track_caller]
fn assert_all_is_home(pool: &Pool, limit: usize) {
    assert_eq!(room(pool), limit);
    assert_eq!(pool.stats().total.outstanding, 0);
    assert_accounts_balance(pool);
}

/// Counts how often it is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

type Waiting<'a> = Pin<Box<dyn Future<Output = Result<PooledBuf, GetError>> + 'a>>;

fn waiting(pool: &Pool, size: usize) -> Waiting<'_> {
    Box::pin(pool.get_async(size))
}

fn poll(waiting: &mut Waiting<'_>) -> Poll<Result<PooledBuf, GetError>> {
    waiting
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
}

#[track_caller]
fn ready(waiting: &mut Waiting<'_>) -> PooledBuf {
    match poll(waiting) {
        Poll::Ready(got) => got.unwrap(),
        Poll::Pending => panic!("it still waits"),
    }
}

#[track_caller]
fn assert_waits(waiting: &mut Waiting<'_>) {
    assert!(poll(waiting).is_pending());
}

fn exhausted(error: GetError) -> (usize, usize, usize) {
    match error {
        GetError::Exhausted {
            asked,
            outstanding,
            limit,
            ..
        } => (asked, outstanding, limit),
        other => panic!("{other:?}"),
    }
}

// ---- what counts ----

#[test]
fn a_get_that_may_fail_is_refused_beyond_the_limit_and_served_once_there_is_room() {
    let pool = pool_of(8192);
    let one = pool.try_get(4000).unwrap();
    let two = pool.try_get(2000).unwrap();
    assert_eq!(
        exhausted(pool.try_get(2049).unwrap_err()),
        (4096, 6144, 8192)
    );
    let three = pool.try_get(2048).unwrap();
    assert_eq!(exhausted(pool.try_get(0).unwrap_err()), (512, 8192, 8192));
    drop((one, three));
    assert!(pool.try_get(4096).is_ok());
    drop(two);
    assert_all_is_home(&pool, 8192);
    let stats = pool.stats();
    assert_eq!((stats.limit_bytes, stats.waits), (8192, 0));
    assert!(stats.refusals > 2);
}

#[test]
fn a_request_above_the_limit_fails_at_once_in_each_way() {
    let pool = pool_of(3000);
    for size in [3001, 4096, 100_000] {
        let asked = if size == 100_000 { size } else { 4096 };
        let blocked = pool.get_timeout(size, LONG).unwrap_err();
        let Poll::Ready(Err(awaited)) = poll(&mut waiting(&pool, size)) else {
            panic!("it does not fail at once");
        };
        for error in [pool.try_get(size).unwrap_err(), blocked, awaited] {
            assert!(
                matches!(error, GetError::AboveLimit { asked: a, limit: 3000, .. } if a == asked),
                "{error:?}"
            );
        }
    }
    // 2048 bytes fit, as 3000 do not: the class has 4096.
    assert!(pool.try_get(3000).is_err());
    assert!(pool.try_get(2048).is_ok());
    for size in [usize::MAX, isize::MAX as usize + 1] {
        let error = pool.get_timeout(size, LONG).unwrap_err();
        assert!(matches!(error, GetError::TooLarge { .. }), "{error:?}");
    }
}

#[test]
fn messages_name_the_bytes_and_the_remedy() {
    let pool = pool_of(8192);
    let held = pool.try_get(8192).unwrap();
    let error = pool.try_get(1024).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a buffer of 1 KiB does not fit beside the 8 KiB that are outstanding, below \
         max_outstanding_bytes (8 KiB); drop other buffers first, or wait with get_async or \
         get_timeout"
    );
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::QuotaExceeded);
    assert!(error.source().is_none());
    drop(held);
    let error = pool.try_get(9000).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a buffer of 9000 bytes is above max_outstanding_bytes (8 KiB): no wait makes room for it; \
         ask for less, or raise max_outstanding_bytes"
    );
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::QuotaExceeded);
    pool.close_queue();
    let error = pool.try_get(1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the queue for buffers is closed: close_queue was called; end the work that needs the buffer"
    );
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_limit_below_the_smallest_class_is_refused() {
    let error = builder().max_outstanding_bytes(511).build().unwrap_err();
    assert_eq!(
        error.to_string(),
        "max_outstanding_bytes (511 bytes) is below the smallest size class (512 bytes): no buffer \
         could ever be taken; raise max_outstanding_bytes to 512 bytes or more, or lower min_size"
    );
    assert!(builder().max_outstanding_bytes(0).build().is_err());
    let pool = pool_of(512);
    assert_eq!(pool.set_max_outstanding_bytes(511), Err(error));
    assert!(pool.try_get(1).is_ok());
    let error = Pool::new().set_max_outstanding_bytes(1 << 20).unwrap_err();
    assert_eq!(error, ConfigError::NoLimit);
    assert_eq!(
        error.to_string(),
        "max_outstanding_bytes is not set: the pool counts nothing towards a limit; build it with \
         max_outstanding_bytes"
    );
}

#[test]
fn parts_frozen_bytes_and_conversions_count_until_the_memory_is_home() {
    let pool = pool_of(8192);
    let mut buf = pool.try_get(4096).unwrap();
    buf.put_bytes(1, 3000);
    let part = buf.split_to(1000);
    let frozen = buf.freeze();
    assert_eq!(room(&pool), 4096);
    drop(frozen);
    let clone = part.clone();
    drop(part);
    assert_eq!(room(&pool), 4096);
    let bytes = Bytes::from(clone);
    let more = bytes.slice(10..);
    drop(bytes);
    assert_eq!(room(&pool), 4096);
    thread::spawn(move || drop(more)).join().unwrap();
    assert_all_is_home(&pool, 8192);
}

#[test]
fn a_detached_buffer_counts_no_more_and_an_adopted_one_counts() {
    let pool = pool_of(8192);
    let own = pool.try_get(4096).unwrap().detach();
    assert_all_is_home(&pool, 8192);
    let guard = pool.adopt(own);
    assert_eq!(room(&pool), 4096);
    drop(guard);
    drop(pool.adopt(BytesMut::new()));
    drop(pool.adopt(BytesMut::with_capacity(100)));
    let vec: Vec<u8> = pool.try_get(8192).unwrap().into();
    drop(vec);
    assert_all_is_home(&pool, 8192);
    // An idle buffer may have more capacity than its class. It counts with all of it.
    let pool = pool_of(8192);
    drop(pool.adopt(BytesMut::with_capacity(6000)));
    let buf = pool.try_get(4096).unwrap();
    assert_eq!(buf.capacity(), 6000);
    assert_eq!(room(&pool), 2048);
    drop(buf);
    pool.clear();
    assert_all_is_home(&pool, 8192);
}

#[test]
fn growth_counts_and_may_exceed_the_limit_and_try_reserve_may_not() {
    let pool = pool_of(8192);
    let mut buf = pool.try_get(4096).unwrap();
    buf.put_bytes(1, 4096);
    // The old buffer is out until its contents are copied.
    assert_eq!(
        exhausted(buf.try_reserve(1).unwrap_err()),
        (8192, 4096, 8192)
    );
    assert_eq!((buf.len(), buf.capacity()), (4096, 4096));
    buf.put_u8(2);
    assert_eq!(buf.capacity(), 8192);
    assert_eq!(room(&pool), 0);
    buf.put_bytes(3, 10_000); // on the heap, above the largest class
    let capacity = buf.capacity();
    assert!(capacity > 14_000);
    let more = pool.get(512);
    assert_eq!(
        exhausted(pool.try_get(1).unwrap_err()),
        (512, capacity + 512, 8192)
    );
    drop(buf);
    assert_eq!(room(&pool), 8192 - 512);
    drop(more);
    assert_all_is_home(&pool, 8192);
}

#[test]
fn growth_behind_deref_mut_counts_when_the_pool_sees_it() {
    let pool = pool_of(8192);
    for shrink in [false, true] {
        let mut buf = pool.try_get(1024).unwrap();
        let inside: &mut BytesMut = &mut buf;
        match shrink {
            true => *inside = BytesMut::with_capacity(10),
            false => inside.put_bytes(1, 3000),
        }
        drop(buf);
        assert_all_is_home(&pool, 8192);
    }
    // A part that lives on: the buffer is discarded, and counts no more.
    let mut buf = pool.try_get(1024).unwrap();
    buf.put_bytes(1, 1000);
    let part = BytesMut::split_to(&mut buf, 10);
    drop(buf);
    assert_all_is_home(&pool, 8192);
    drop(part);
}

#[test]
fn plain_gets_exceed_the_limit_and_what_they_exceed_is_paid_first() {
    let pool = pool_of(4096);
    let held: Vec<PooledBuf> = [
        pool.get(2048),
        pool.get_zeroed(2048),
        pool.copy_from_slice(&[1; 2048]),
        pool.get_default(),
    ]
    .into();
    let clone = held[2].clone();
    let outstanding = 4 * 2048 + 4096;
    assert_eq!(
        exhausted(pool.try_get(1).unwrap_err()),
        (512, outstanding, 4096)
    );
    let mut wait = waiting(&pool, 512);
    assert_waits(&mut wait);
    for buf in held {
        assert_waits(&mut wait);
        drop(buf);
    }
    // 2048 bytes are out, and 512 are promised.
    assert_eq!(
        exhausted(pool.try_get(2048).unwrap_err()),
        (2048, 2560, 4096)
    );
    drop(clone);
    drop(ready(&mut wait));
    assert_all_is_home(&pool, 4096);
}

#[test]
fn other_options_go_with_a_limit() {
    for builder in [
        builder().zero_on_return(true),
        builder().thread_cache_bytes(0),
        builder().retain_bytes(0),
        builder().retain_bytes(8192),
        builder().reuse_initialised(true),
        builder().keep_idle(1024, 4),
        builder().learn_sizes(false),
    ] {
        let pool = builder.max_outstanding_bytes(10_240).build().unwrap();
        for round in 0..100 {
            let mut held = Vec::new();
            while let Ok(mut buf) = pool.try_get(512 << (round % 5)) {
                buf.put_bytes(7, round);
                held.push(buf);
            }
            let (bytes, _) = (held.iter().map(|b| b.capacity()).sum::<usize>(), ());
            assert!(bytes <= 10_240 && bytes > 10_240 - (512 << (round % 5)));
            if round % 7 == 0 {
                pool.trim();
            }
        }
        assert_all_is_home(&pool, 10_240);
    }
}

#[test]
fn a_pool_without_a_limit_never_waits() {
    let pool = builder().build().unwrap();
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(ready(&mut waiting(&pool, 8192)));
        held.push(pool.get_timeout(8192, Duration::ZERO).unwrap());
    }
    pool.close_queue();
    held.push(pool.try_get(1).unwrap());
    let stats = pool.stats();
    assert_eq!((stats.limit_bytes, stats.waits, stats.refusals), (0, 0, 0));
}

#[test]
fn a_limit_above_4_gib_counts_in_steps_and_serves_large_requests() {
    let gib = 1_usize << 30;
    let pool = builder().max_outstanding_bytes(5 * gib).build().unwrap();
    assert_eq!(pool.stats().limit_bytes, 5 * gib as u64);
    // Nothing is written to it, so this takes no memory.
    let large = pool.try_get(4 * gib + 1).unwrap();
    let error = pool.try_get(gib).unwrap_err();
    assert!(matches!(error, GetError::Exhausted { .. }), "{error:?}");
    let small = pool.try_get(gib / 2).unwrap();
    drop(large);
    assert!(pool.try_get(4 * gib).is_ok());
    drop(small);
    assert!(pool.try_get(5 * gib).is_ok());
    let error = pool.try_get(5 * gib + 1).unwrap_err();
    assert!(matches!(error, GetError::AboveLimit { .. }), "{error:?}");
}

// Failed once: each buffer counted as 64 KiB.
#[test]
fn under_a_limit_above_4_gib_small_buffers_count_by_their_capacity() {
    let limit = 5_usize << 30;
    let pool = builder().max_outstanding_bytes(limit).build().unwrap();
    let small = pool.try_get(512).unwrap();
    let refused = exhausted(pool.try_get(limit).unwrap_err());
    assert_eq!(refused, (limit, 512, limit));
    pool.set_max_outstanding_bytes(8192).unwrap();
    assert_eq!(room(&pool), 8192 - 512);
    pool.set_max_outstanding_bytes(limit).unwrap();
    drop(small);
    drop(pool.try_get(limit).unwrap());
    assert_accounts_balance(&pool);
}

// ---- the queue ----

#[test]
fn a_large_request_is_not_starved_by_small_ones() {
    let pool = pool_of(8192);
    let mut held: Vec<PooledBuf> = (0..8).map(|_| pool.try_get(1024).unwrap()).collect();
    let mut large = waiting(&pool, 8192);
    assert_waits(&mut large);
    let mut small = waiting(&pool, 512);
    assert_waits(&mut small);
    while let Some(buf) = held.pop() {
        assert_waits(&mut large);
        drop(buf);
        // Room for it, but the large one came first.
        assert_waits(&mut small);
        assert!(pool.try_get(512).is_err());
        let late = pool.get_timeout(512, Duration::ZERO).unwrap_err();
        assert!(matches!(late, GetError::Exhausted { .. }));
    }
    let large = ready(&mut large);
    assert_waits(&mut small);
    drop(large);
    drop(ready(&mut small));
    assert_all_is_home(&pool, 8192);
}

#[test]
fn a_cancelled_wait_gives_back_what_it_had_and_lets_the_next_one_go() {
    // Dropped before the first poll, in the queue, with some of its bytes, and with all of them.
    for drops in 0..4 {
        let pool = pool_of(8192);
        let mut held: Vec<PooledBuf> = (0..4).map(|_| pool.try_get(2048).unwrap()).collect();
        let mut first = waiting(&pool, 6000);
        if drops > 0 {
            assert_waits(&mut first);
        }
        let wakes = Arc::new(Wakes::default());
        let mut next = waiting(&pool, 4096);
        let waker = Waker::from(Arc::clone(&wakes));
        let mut context = Context::from_waker(&waker);
        assert!(next.as_mut().poll(&mut context).is_pending());
        match drops {
            0 | 1 => {}
            2 => held.truncate(2),
            _ => held.clear(),
        }
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0, "{drops}");
        drop(first);
        if drops < 2 {
            assert!(next.as_mut().poll(&mut context).is_pending());
            held.truncate(2);
        }
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1, "{drops}");
        drop(ready(&mut next));
        drop(held);
        assert_all_is_home(&pool, 8192);
    }
}

#[test]
fn a_cancelled_wait_pays_a_debt_with_what_it_had() {
    let pool = pool_of(4096);
    let held = pool.try_get(2048).unwrap();
    let mut wait = waiting(&pool, 4096); // collects the free 2048 bytes
    assert_waits(&mut wait);
    let more = pool.get(2048); // beyond the limit, since all is promised
    drop(wait);
    assert_eq!(exhausted(pool.try_get(512).unwrap_err()), (512, 4096, 4096));
    drop((held, more));
    assert_all_is_home(&pool, 4096);
}

#[test]
fn closing_wakes_all_who_wait_and_refuses_later_ones() {
    let pool = pool_of(4096);
    let held = pool.try_get(4096).unwrap();
    let mut waits: Vec<Waiting> = (0..5).map(|_| waiting(&pool, 512)).collect();
    waits.iter_mut().for_each(assert_waits);
    let blocked = thread::spawn({
        let pool = pool.clone();
        move || pool.get_timeout(512, LONG)
    });
    while pool.stats().waits < 6 {
        thread::yield_now();
    }
    pool.close_queue();
    for wait in &mut waits {
        assert!(matches!(poll(wait), Poll::Ready(Err(GetError::Closed))));
    }
    assert_eq!(blocked.join().unwrap().unwrap_err(), GetError::Closed);
    assert_eq!(pool.try_get(1).unwrap_err(), GetError::Closed);
    let late = pool.get_timeout(1, LONG).unwrap_err();
    assert_eq!(late, GetError::Closed);
    // The work at hand can end.
    let mut buf = pool.get(512);
    buf.put_bytes(1, 1000);
    drop((held, buf));
    drop(waits);
    assert_eq!(pool.stats().total.outstanding, 0);
    assert_accounts_balance(&pool);
}

#[test]
fn a_wait_that_is_too_long_leaves_the_queue() {
    let pool = pool_of(4096);
    let held = pool.try_get(4096).unwrap();
    let error = pool
        .get_timeout(4096, Duration::from_millis(1))
        .unwrap_err();
    assert_eq!(exhausted(error), (4096, 4096, 4096));
    assert_eq!((pool.stats().waits, pool.stats().refusals), (1, 1));
    drop(held);
    // A duration without an end.
    drop(pool.get_timeout(512, Duration::MAX).unwrap());
    assert_all_is_home(&pool, 4096);
}

// Failed once: tokio lets a task wait that has used up its turn, so the thread span until its time was up.
#[test]
fn within_a_task_that_has_used_up_its_turn_a_thread_takes_what_there_is() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.build().unwrap();
    runtime.block_on(async {
        let pool = pool_of(8192);
        let used_up = (0..10_000).any(|_| poll(&mut waiting(&pool, 512)).is_pending());
        assert!(used_up);
        assert!(pool.get_timeout(512, Duration::ZERO).is_ok());
    });
}

#[test]
fn a_higher_limit_serves_those_who_wait_and_a_lower_one_refuses_those_above_it() {
    let pool = pool_of(4096);
    let held = pool.try_get(4096).unwrap();
    let (mut large, mut small) = (waiting(&pool, 4096), waiting(&pool, 512));
    assert_waits(&mut large);
    assert_waits(&mut small);
    pool.set_max_outstanding_bytes(8192).unwrap();
    let large = ready(&mut large);
    assert_waits(&mut small);
    assert_eq!(pool.stats().limit_bytes, 8192);

    let mut above = waiting(&pool, 2048);
    assert_waits(&mut above);
    pool.set_max_outstanding_bytes(1024).unwrap();
    let Poll::Ready(Err(error)) = poll(&mut above) else {
        panic!("it can never be served");
    };
    assert!(
        matches!(
            error,
            GetError::AboveLimit {
                asked: 2048,
                limit: 1024,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(exhausted(pool.try_get(512).unwrap_err()), (512, 8192, 1024));
    drop(large);
    assert_waits(&mut small);
    drop(held);
    let small = ready(&mut small);
    assert_eq!(room(&pool), 512);
    drop(small);
    assert_all_is_home(&pool, 1024);
    pool.set_max_outstanding_bytes(20_480).unwrap();
    assert_all_is_home(&pool, 20_480);
}

#[test]
fn a_pool_that_ends_leaves_guards_that_still_count() {
    let pool = pool_of(4096);
    let held = pool.try_get(4096).unwrap();
    drop(pool);
    thread::spawn(move || drop(held)).join().unwrap();
}

/// Notes how many buffers are outstanding when it is woken.
struct Looks(Pool, AtomicUsize);

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        let outstanding = self.0.stats().total.outstanding as usize;
        self.1.store(outstanding, Ordering::Relaxed);
    }
}

#[test]
fn who_waits_is_woken_when_the_buffer_is_home_and_not_before() {
    type End = fn(PooledBuf);
    let ends: [End; 4] = [
        drop,
        |buf| drop(buf.detach()),
        |buf| drop(buf.freeze()),
        |mut buf| drop(buf.split()),
    ];
    for end in ends {
        let pool = pool_of(4096);
        let mut held = pool.try_get(4096).unwrap();
        held.put_u8(1);
        let mut wait = waiting(&pool, 512);
        let looks = Arc::new(Looks(pool.clone(), AtomicUsize::new(usize::MAX)));
        let waker = Waker::from(Arc::clone(&looks));
        let first = wait.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(first.is_pending());
        end(held);
        assert_eq!(
            looks.1.load(Ordering::Relaxed),
            0,
            "it saw what is not home"
        );
        drop(ready(&mut wait));
    }
}

// ---- threads ----

/// Takes buffers on many threads, which never hold more than the limit together.
fn use_by_threads(limit: usize, get: impl Fn(&Pool, usize) -> Option<PooledBuf> + Sync) {
    const THREADS: usize = 8;
    const ROUNDS: usize = if cfg!(miri) { 20 } else { 2000 };
    let pool = pool_of(limit);
    let out = AtomicUsize::new(0);
    let threads: Vec<_> = thread::scope(|scope| {
        let (pool, out, get) = (&pool, &out, &get);
        let threads = (0..THREADS).map(|number| {
            scope.spawn(move || {
                let mut seed = number;
                for round in 0..ROUNDS {
                    seed = seed
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(round);
                    let Some(mut buf) = get(pool, 512 << ((seed >> 30) % 5)) else {
                        continue;
                    };
                    let before = out.fetch_add(buf.capacity(), Ordering::SeqCst);
                    assert!(before + buf.capacity() <= limit);
                    buf.put_bytes(1, 500);
                    let part = buf.split_to(100);
                    out.fetch_sub(buf_capacity(&buf, &part), Ordering::SeqCst);
                    drop(buf);
                    drop(part);
                }
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    threads.into_iter().for_each(|thread| thread.unwrap());
    assert_all_is_home(&pool, limit);
}

/// The capacity of the buffer that a guard shares with the part before it.
fn buf_capacity(guard: &PooledBuf, part: &[u8]) -> usize {
    guard.capacity() + part.len()
}

#[test]
fn threads_that_block_are_all_served_and_stay_below_the_limit() {
    use_by_threads(10_240, |pool, size| {
        Some(pool.get_timeout(size, LONG).unwrap())
    });
}

#[test]
fn threads_that_try_or_give_up_early_lose_no_byte_of_the_limit() {
    use_by_threads(10_240, |pool, size| match size {
        512 => pool.try_get(size).ok(),
        1024 => pool.get_timeout(size, Duration::from_micros(5)).ok(),
        2048 => {
            let mut wait = pin!(pool.get_async(size));
            match wait.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(got) => got.ok(),
                Poll::Pending => None, // cancelled
            }
        }
        _ => Some(pool.get_timeout(size, LONG).unwrap()),
    });
}

#[cfg(feature = "tokio")]
#[test]
fn tasks_of_a_runtime_are_all_served() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .build()
        .unwrap();
    let pool = pool_of(16_384);
    let tasks: Vec<_> = (0..200)
        .map(|number: usize| {
            let pool = pool.clone();
            runtime.spawn(async move {
                for round in 0..20 {
                    let mut buf = pool.get_async(512 << ((number + round) % 5)).await.unwrap();
                    buf.put_u8(1);
                    tokio::task::yield_now().await;
                    drop(buf.freeze());
                    if round % 3 == 0 {
                        let mut wait = pin!(pool.get_async(8192));
                        // Polled once, and cancelled.
                        std::future::poll_fn(|cx| {
                            let _ = wait.as_mut().poll(cx);
                            Poll::Ready(())
                        })
                        .await;
                    }
                }
            })
        })
        .collect();
    runtime.block_on(async {
        for task in tasks {
            task.await.unwrap();
        }
    });
    drop(runtime); // its threads have ended
    assert_all_is_home(&pool, 16_384);
}

// ---- at random ----

#[derive(Clone, Debug)]
enum Step {
    Try(usize),
    Get(usize),
    Wait(usize),
    Poll(prop::sample::Index),
    Cancel(prop::sample::Index),
    Append(prop::sample::Index, usize),
    Lend(prop::sample::Index, usize),
    Split(prop::sample::Index),
    Detach(prop::sample::Index),
    Drop(prop::sample::Index),
    DropPart(prop::sample::Index),
    Set(usize),
    Trim,
}

fn step() -> impl Strategy<Value = Step> {
    let size = || 0_usize..20_000;
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => size().prop_map(Step::Try),
        2 => size().prop_map(Step::Get),
        4 => size().prop_map(Step::Wait),
        4 => index().prop_map(Step::Poll),
        2 => index().prop_map(Step::Cancel),
        3 => (index(), size()).prop_map(|(at, bytes)| Step::Append(at, bytes)),
        2 => (index(), size()).prop_map(|(at, bytes)| Step::Lend(at, bytes)),
        3 => index().prop_map(Step::Split),
        1 => index().prop_map(Step::Detach),
        6 => index().prop_map(Step::Drop),
        4 => index().prop_map(Step::DropPart),
        1 => (512_usize..40_000).prop_map(Step::Set),
        1 => Just(Step::Trim),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    // The last request of the queue must not hang, and no byte of the limit may be lost or gained.
    #[test]
    fn after_any_steps_all_of_the_limit_is_free(steps in prop::collection::vec(step(), 1..80)) {
        let mut limit = 16_384;
        let pool = builder().max_size(4096).max_outstanding_bytes(limit).build().unwrap();
        let (mut held, mut parts, mut waits) = (Vec::new(), Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Try(size) => held.extend(pool.try_get(size)),
                Step::Get(size) => held.push(pool.get(size)),
                Step::Wait(size) => waits.push(waiting(&pool, size)),
                Step::Poll(at) if !waits.is_empty() => {
                    let at = at.index(waits.len());
                    if let Poll::Ready(got) = poll(&mut waits[at]) {
                        drop(waits.remove(at));
                        held.extend(got);
                    }
                }
                Step::Cancel(at) if !waits.is_empty() => {
                    drop(waits.remove(at.index(waits.len())));
                }
                Step::Append(at, bytes) if !held.is_empty() => {
                    let at = at.index(held.len());
                    held[at].put_bytes(1, bytes);
                }
                Step::Lend(at, bytes) if !held.is_empty() => {
                    let at = at.index(held.len());
                    let lent: &mut BytesMut = &mut held[at];
                    lent.reserve(bytes);
                    lent.advance(lent.len() / 3);
                }
                Step::Split(at) if !held.is_empty() => {
                    let at = at.index(held.len());
                    let half = held[at].len() / 2;
                    parts.push(held[at].split_to(half));
                }
                Step::Detach(at) if !held.is_empty() => {
                    drop(held.remove(at.index(held.len())).detach());
                }
                Step::Drop(at) if !held.is_empty() => {
                    drop(held.remove(at.index(held.len())));
                }
                Step::DropPart(at) if !parts.is_empty() => {
                    drop(parts.remove(at.index(parts.len())));
                }
                Step::Set(bytes) => {
                    pool.set_max_outstanding_bytes(bytes).unwrap();
                    limit = bytes;
                }
                Step::Trim => drop(pool.trim()),
                _ => {}
            }
        }
        drop((held, parts));
        // The queue is in the order of the first polls.
        while !waits.is_empty() {
            let before = waits.len();
            waits.retain_mut(|wait| poll(wait).is_pending());
            prop_assert!(waits.len() < before, "all is home, and no one is served");
        }
        drop(waits);
        pool.clear();
        pool.set_max_outstanding_bytes(limit / 512 * 512).unwrap();
        assert_all_is_home(&pool, limit / 512 * 512);
    }
}

// ---- readers ----

#[cfg(feature = "tokio")]
mod readers {
    use super::*;
    use tierpool::tokio::{Framing, PooledChunks, PooledReader, copy_bidirectional};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    fn current_thread() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
    }

    fn framing() -> Framing {
        Framing::length_field().bytes(2).build().unwrap()
    }

    #[test]
    fn a_reader_without_bytes_waits_for_its_turn() {
        let pool = pool_of(8192);
        current_thread().block_on(async {
            let held = pool.try_get(8192).unwrap();
            let mut frames = PooledReader::new(&pool, framing(), &b"\0\x03one\0\x03two"[..]);
            let mut chunks = PooledChunks::new(&pool, &b"chunk"[..]);
            tokio::select! {
                biased;
                frame = frames.next_frame() => panic!("{frame:?}"),
                chunk = chunks.next_chunk() => panic!("{chunk:?}"),
                () = tokio::task::yield_now() => {}
            }
            drop(held);
            // The frames' turn comes first, and their buffer is out until they are dropped.
            let one = frames.next_frame().await.unwrap().unwrap();
            tokio::select! {
                biased;
                chunk = chunks.next_chunk() => panic!("{chunk:?}"),
                () = tokio::task::yield_now() => {}
            }
            let two = frames.next_frame().await.unwrap().unwrap();
            assert_eq!((&one[..], &two[..]), (&b"one"[..], &b"two"[..]));
            drop((one, two));
            assert_eq!(chunks.next_chunk().await.unwrap().unwrap(), "chunk");
            assert!(frames.next_frame().await.is_none());
        });
        assert_all_is_home(&pool, 8192);
    }

    #[test]
    fn a_reader_that_is_dropped_while_it_waits_leaves_the_queue() {
        let pool = pool_of(8192);
        let held = pool.try_get(512).unwrap();
        let mut frames = PooledReader::new(&pool, framing(), &b"\0\x03one"[..]);
        let mut context = Context::from_waker(Waker::noop());
        assert!(frames.poll_next_frame(&mut context).is_pending());
        // Its place is kept between two polls.
        assert_eq!(exhausted(pool.try_get(1).unwrap_err()), (512, 8192, 8192));
        drop(frames);
        assert_eq!(room(&pool), 8192 - 512);
        drop(held);
        assert_all_is_home(&pool, 8192);
    }

    #[test]
    fn a_reader_that_holds_bytes_goes_above_the_limit() {
        let pool = pool_of(8192);
        current_thread().block_on(async {
            let (mut client, server) = duplex(64 << 10);
            let mut frames = PooledReader::new(&pool, framing(), server).buffer_bytes(1);
            client.write_all(b"\x1f\x40").await.unwrap();
            client.write_all(&[7; 100]).await.unwrap();
            let pending = tokio::select! {
                biased;
                frame = frames.next_frame() => panic!("{frame:?}"),
                () = tokio::task::yield_now() => pool.stats().total.outstanding,
            };
            assert_eq!(pending, 1);
            let held = pool.get(8192);
            client.write_all(&[7; 7900]).await.unwrap();
            let frame = frames.next_frame().await.unwrap().unwrap();
            assert_eq!(frame, [7; 8000]);
            drop((held, frame));
        });
        assert_all_is_home(&pool, 8192);
    }

    #[test]
    fn copies_go_on_under_a_limit_of_one_buffer() {
        let pool = pool_of(8192);
        let message = |number: u8| vec![number; 200_000];
        current_thread().block_on(async {
            let mut tasks = Vec::new();
            for number in 0..20 {
                // One read takes more bytes than the server's side holds unanswered.
                let ((client, mut near), (mut far, server)) = (duplex(8000), duplex(1000));
                let pool = pool.clone();
                tasks.push(tokio::spawn(async move {
                    let (mut client_reads, mut client_writes) = tokio::io::split(client);
                    let (mut server_reads, mut server_writes) = tokio::io::split(server);
                    let (sent, mut got) = (message(number), Vec::new());
                    // The server reads 100 bytes, and no more before it has written them.
                    let (copied, echoed, written, read) = tokio::join!(
                        async {
                            let copied = copy_bidirectional(&pool, &mut near, &mut far).await;
                            drop((near, far));
                            copied
                        },
                        async {
                            let mut few = [0; 100];
                            loop {
                                match server_reads.read(&mut few).await? {
                                    0 => return server_writes.shutdown().await,
                                    read => server_writes.write_all(&few[..read]).await?,
                                }
                            }
                        },
                        async {
                            client_writes.write_all(&sent).await?;
                            client_writes.shutdown().await
                        },
                        client_reads.read_to_end(&mut got),
                    );
                    assert_eq!(copied.unwrap(), (200_000, 200_000));
                    assert!(echoed.is_ok() && written.is_ok());
                    assert_eq!((read.unwrap(), got), (200_000, sent));
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
        });
        assert_all_is_home(&pool, 8192);
    }
}
