//! `try_get` works as `get`, but may return an error.

use crate::{assert_accounts_balance, assert_disjoint, memory, options, pool_of, total};
use bytes::{Buf, BufMut, BytesMut};
use std::error::Error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tierpool::{GetError, Pool, PooledBuf, Stats, Usage};

/// The largest possible layout. With 64 bits, no heap has that much memory, or half of it.
const NO_HEAP_HAS: usize = isize::MAX as usize;

/// Takes a buffer in one of the two ways.
#[derive(Clone, Copy)]
enum Way {
    Get,
    TryGet,
}

impl Way {
    fn take(self, pool: &Pool, size: usize) -> PooledBuf {
        match self {
            Way::Get => pool.get(size),
            Way::TryGet => pool.try_get(size).unwrap(),
        }
    }
}

#[test]
fn try_get_returns_and_counts_the_same_as_get() {
    const SIZES: [usize; 14] = [
        0, 1, 63, 64, 65, 100, 101, 999, 1000, 1001, 4096, 5000, 5001, 100_000,
    ];
    fn run(way: Way, pool: &Pool) -> (Vec<(usize, usize)>, Stats) {
        let mut seen = Vec::new();
        for round in 0..3 {
            let held = SIZES.map(|size| way.take(pool, size));
            assert_disjoint(held.iter().map(memory));
            for (mut buf, size) in held.into_iter().zip(SIZES) {
                seen.push((buf.len(), buf.capacity()));
                assert!(buf.capacity() >= size);
                buf.put_bytes(7, size);
                if size > 100 {
                    buf.advance(100);
                }
                if round == 1 {
                    drop(buf.freeze());
                }
            }
            // To the depot. Buffers that do not fill a magazine are kept loose there.
            std::thread::scope(|scope| {
                let mine = || drop(SIZES.map(|size| way.take(pool, size)));
                scope.spawn(mine).join().unwrap();
            });
        }
        (seen, pool.stats())
    }
    for zero in [false, true] {
        let make = || {
            let options = options(&[64, 100, 1000, 5000]).zero_on_return(zero);
            options.build().unwrap()
        };
        let (got, tried) = (make(), make());
        assert_eq!(run(Way::Get, &got), run(Way::TryGet, &tried));
        let counts = total(&tried);
        assert!(counts.local_hits > 0 && counts.depot_hits > 0, "{counts:?}");
        assert!(counts.misses > 0 && counts.oversize > 0, "{counts:?}");
        assert_accounts_balance(&tried);
    }
}

#[test]
fn a_retired_class_comes_back_when_it_is_requested() {
    fn run(way: Way) -> Stats {
        let pool = pool_of(&[64, 1024, 65_536]);
        for _ in 0..100 {
            way.take(&pool, 60).put_bytes(1, 60);
        }
        pool.recalibrate();
        for _ in 0..4 {
            drop(way.take(&pool, 65_536));
        }
        let mut stats = pool.stats();
        stats.usage = Usage::default(); // by samples, which are drawn at random
        stats
    }
    let tried = run(Way::TryGet);
    assert_eq!(tried, run(Way::Get));
    assert_eq!(tried.total.discards.above_max, 1, "requested once");
}

#[test]
fn a_buffer_from_try_get_works_like_any_other() {
    let pool = pool_of(&[64, 100, 1000]);
    let mut buf = pool.try_get(90).unwrap();
    let home = memory(&buf);
    buf.put_bytes(1, 100);
    assert_eq!(memory(&buf), home, "the requested room is there");
    // Advanced and split: whole again after it has come home.
    buf.advance(10);
    drop(buf.split_to(20));
    drop(buf);
    let mut again = pool.try_get(100).unwrap();
    assert_eq!((memory(&again), again.len()), (home, 0));
    // A part of its `BytesMut` is still in use, so it is freed with that part.
    again.put_bytes(2, 100);
    let part = BytesMut::split_to(&mut again, 50);
    drop(again);
    assert_eq!(total(&pool).discards.shared, 1);
    assert_eq!(part[..], [2; 50]);
    // Grown through the pool, and detached.
    let mut grown = pool.try_get(1).unwrap();
    grown.put_bytes(3, 700);
    assert_eq!(grown.capacity(), 1000);
    assert_eq!(grown.detach()[..], [3; 700]);
    assert_accounts_balance(&pool);
}

#[test]
fn a_size_above_the_largest_allocation_is_too_large() {
    let pool = pool_of(&[64, 1000]);
    for size in [NO_HEAP_HAS + 1, usize::MAX - 1, usize::MAX] {
        let refused = pool.try_get(size).unwrap_err();
        assert!(matches!(refused, GetError::TooLarge { size: said, .. } if said == size));
    }
    assert_eq!(
        pool.stats(),
        pool_of(&[64, 1000]).stats(),
        "it counts nothing"
    );
}

// With 32 bits the heap may give half of all addresses. `tests/no_memory.rs` has a heap that
// refuses on any machine.
#[cfg(target_pointer_width = "64")]
#[test]
fn a_get_that_the_heap_refuses_counts_nothing() {
    // As an oversize request, and as a request of a class.
    for classes in [&[64, 1000][..], &[64, 1000, NO_HEAP_HAS]] {
        let pool = pool_of(classes);
        let held = [60, 60, 900].map(|size| pool.try_get(size).unwrap());
        let before = pool.stats();
        for size in [NO_HEAP_HAS, NO_HEAP_HAS - 4096, NO_HEAP_HAS / 2] {
            let refused = pool.try_get(size).unwrap_err();
            assert!(matches!(refused, GetError::OutOfMemory { size: said, .. } if said == size));
            assert_eq!(pool.stats(), before);
        }
        drop(held);
        assert_accounts_balance(&pool);
    }
}

// Failed once: each such request freed all idle buffers.
#[cfg(target_pointer_width = "64")] // as above
#[test]
fn a_size_that_no_heap_has_leaves_the_idle_buffers_as_they_are() {
    const IDLE: usize = 50;
    // With a budget, and without one.
    for budget in [1 << 20, usize::MAX] {
        let pool = options(&[64, 1000]).retain_bytes(budget).build().unwrap();
        assert_eq!(pool.prefill(1000, IDLE), IDLE);
        let before = pool.stats();
        for size in [NO_HEAP_HAS, NO_HEAP_HAS / 2] {
            pool.try_get(size).unwrap_err();
            assert_eq!(pool.stats(), before);
        }
        let held: Vec<_> = (0..IDLE).map(|_| pool.try_get(900).unwrap()).collect();
        assert_eq!(total(&pool).misses, 0);
        drop(held);
        assert_accounts_balance(&pool);
    }
}

#[test]
fn an_error_names_the_requested_size_and_the_reason() {
    let pool = pool_of(&[64]);
    let too_large = pool.try_get(usize::MAX).unwrap_err();
    assert_eq!(
        too_large.to_string(),
        format!(
            "size ({} bytes) is above isize::MAX ({} bytes): no allocation can be that large; \
             ask for less",
            usize::MAX,
            isize::MAX
        )
    );
    let boxed: Box<dyn Error + Send + Sync> = too_large.into();
    assert!(boxed.downcast_ref::<GetError>().is_some());
    if cfg!(target_pointer_width = "64") {
        let refused = pool.try_get(NO_HEAP_HAS).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "the heap has no room for a buffer of {NO_HEAP_HAS} bytes; ask for less, or free \
                 memory first"
            )
        );
    }
}

#[test]
fn an_error_becomes_one_of_input_and_output_and_keeps_itself_as_the_source() {
    let pool = pool_of(&[64]);
    let of_io = |size| -> io::Error { pool.try_get(size).unwrap_err().into() };
    let too_large = of_io(usize::MAX);
    assert_eq!(too_large.kind(), io::ErrorKind::InvalidInput);
    let inner = too_large.get_ref().expect("it has one");
    assert_eq!(
        inner.downcast_ref(),
        Some(&pool.try_get(usize::MAX).unwrap_err())
    );
    if cfg!(target_pointer_width = "64") {
        let refused = of_io(NO_HEAP_HAS);
        assert_eq!(refused.kind(), io::ErrorKind::OutOfMemory);
        assert!(refused.to_string().starts_with("the heap has no room"));
    }
}

#[test]
fn a_get_that_no_allocation_can_serve_panics_with_the_size_and_the_limit() {
    let pool = pool_of(&[64]);
    let before = pool.stats();
    for size in [usize::MAX, NO_HEAP_HAS + 1] {
        let gets: [&dyn Fn(); 2] = [&|| drop(pool.get(size)), &|| drop(pool.get_zeroed(size))];
        for get in gets {
            let panic = catch_unwind(AssertUnwindSafe(get)).unwrap_err();
            let message = panic.downcast_ref::<String>().expect("it has numbers");
            let expected = format!(
                "capacity overflow: a buffer of {size} bytes is above isize::MAX ({} bytes)",
                isize::MAX
            );
            assert!(message.starts_with(&expected), "{message}");
        }
    }
    assert_eq!(pool.stats(), before);
}
