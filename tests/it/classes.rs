//! Which class a request and a return belong to.

use crate::{assert_accounts_balance, class, pool_of, total};
use bytes::BytesMut;
use std::panic::catch_unwind;
use tierpool::Pool;

#[test]
fn classes_double_from_the_minimum_and_end_with_the_maximum() {
    let classes = |min, max| {
        let pool = Pool::builder().min_size(min).max_size(max).build().unwrap();
        pool.classes().to_vec()
    };
    assert_eq!(classes(1024, 15_000), [1024, 2048, 4096, 8192, 15_000]);
    assert_eq!(classes(1024, 16_384), [1024, 2048, 4096, 8192, 16_384]);
    assert_eq!(classes(100, 101), [100, 101]);
    assert_eq!(classes(512, 512), [512]);
    assert_eq!(classes(1, 5), [1, 2, 4, 5]);
}

#[test]
fn a_request_gets_the_smallest_class_that_holds_it() {
    let pool = Pool::builder()
        .min_size(1024)
        .max_size(15_000)
        .build()
        .unwrap();
    for (request, capacity) in [
        (0, 1024),
        (1, 1024),
        (1023, 1024),
        (1024, 1024),
        (1025, 2048),
        (2048, 2048),
        (8192, 8192),
        (8193, 15_000),
        (15_000, 15_000),
    ] {
        let buf = pool.get(request);
        assert!(buf.is_empty());
        assert_eq!(buf.capacity(), capacity, "request {request}");
    }
    assert_eq!(total(&pool).oversize, 0);
}

#[test]
fn a_custom_list_of_classes_is_used_unchanged() {
    let pool = pool_of(&[512, 2048, 65_536]);
    assert_eq!(pool.classes(), [512, 2048, 65_536]);
    for (request, capacity) in [(0, 512), (513, 2048), (2049, 65_536), (65_536, 65_536)] {
        assert_eq!(pool.get(request).capacity(), capacity, "request {request}");
    }
}

#[test]
fn a_get_of_0_is_a_buffer_of_the_smallest_class_that_comes_home() {
    let pool = pool_of(&[512, 2048]);
    let mut buf = pool.get(0);
    assert_eq!((buf.len(), buf.capacity()), (0, 512));
    buf.extend_from_slice(b"usable");
    drop(buf);
    assert_eq!(pool.get(0).capacity(), 512);
    assert_eq!((total(&pool).misses, total(&pool).local_hits), (1, 1));
}

#[test]
fn an_oversize_request_gets_exactly_its_size_and_is_freed() {
    let pool = pool_of(&[512, 2048]);
    for request in [2049, 5000, 1 << 20] {
        let buf = pool.get(request);
        assert_eq!(buf.capacity(), request);
        drop(buf);
    }
    let stats = pool.stats();
    assert_eq!((stats.unclassed.oversize, stats.unclassed.gets), (3, 3));
    assert_eq!(stats.unclassed.discards.above_max, 3);
    assert_eq!((stats.total.retained_buffers, stats.total.misses), (0, 0));
    assert_accounts_balance(&pool);
}

#[test]
fn a_request_that_no_allocation_can_meet_panics_and_counts_nothing() {
    let pool = Pool::default();
    drop(pool.get(1));
    let before = pool.stats();
    for request in [usize::MAX, isize::MAX as usize + 1] {
        assert!(catch_unwind(|| pool.get(request)).is_err());
    }
    assert_eq!(pool.stats(), before);
    drop(pool.get(1));
    assert_eq!(total(&pool).local_hits, 1);
}

#[test]
fn a_return_joins_the_largest_class_that_is_not_above_its_capacity() {
    let pool = pool_of(&[512, 2048, 65_536]);
    for (capacity, home) in [
        (512, 512),
        (513, 512),
        (2047, 512),
        (2048, 2048),
        (65_535, 2048),
        (65_536, 65_536),
    ] {
        let before = class(&pool, home);
        drop(pool.adopt(BytesMut::with_capacity(capacity)));
        let after = class(&pool, home);
        assert_eq!(after.adopted - before.adopted, 1, "capacity {capacity}");
        assert_eq!(after.retained_buffers - before.retained_buffers, 1);
        assert_eq!(
            after.retained_bytes - before.retained_bytes,
            capacity as u64
        );
    }
}

// A class that rounded capacities up could have a 1500-byte buffer in the 2048-byte class.
#[test]
fn a_get_never_has_less_room_than_its_class_after_any_return() {
    let pool = pool_of(&[512, 1024, 2048]);
    for capacity in (400..2048).step_by(97) {
        drop(pool.adopt(BytesMut::with_capacity(capacity)));
    }
    for request in [2000, 1024, 1000, 600, 512, 100] {
        let held: Vec<_> = (0..20).map(|_| pool.get(request)).collect();
        for buf in &held {
            assert!(buf.capacity() >= request);
        }
        // Outstanding for good, so that the next request meets the remaining buffers.
        for buf in held {
            drop(buf.detach());
        }
    }
}

#[test]
fn an_adopted_buffer_keeps_its_contents_until_it_comes_home() {
    let pool = pool_of(&[512]);
    let mut buf = pool.adopt(BytesMut::from(&[7; 600][..]));
    assert_eq!(&buf[..], [7; 600]);
    buf.extend_from_slice(b"!");
    assert_eq!(buf.len(), 601);
    drop(buf);
    assert!(pool.get(1).is_empty());
}

#[test]
fn an_adopted_buffer_below_the_smallest_class_or_above_the_largest_is_freed_and_counted() {
    let pool = pool_of(&[512, 2048]);
    drop(pool.adopt(BytesMut::new()));
    drop(pool.adopt(BytesMut::with_capacity(511)));
    drop(pool.adopt(BytesMut::with_capacity(2049)));
    let unclassed = pool.stats().unclassed;
    assert_eq!((unclassed.adopted, unclassed.outstanding), (3, 0));
    assert_eq!(unclassed.discards.below_min, 2);
    assert_eq!(unclassed.discards.above_max, 1);
    assert_eq!(total(&pool).retained_buffers, 0);
    assert_accounts_balance(&pool);
}

#[test]
fn a_detached_buffer_is_the_users_and_is_counted() {
    let pool = pool_of(&[512, 2048]);
    let mut buf = pool.get(600);
    buf.extend_from_slice(b"kept");
    let address = buf.as_ptr();
    let own: BytesMut = buf.detach();
    assert_eq!((&own[..], own.capacity()), (&b"kept"[..], 2048));
    assert_eq!(own.as_ptr(), address);
    drop(pool);
    assert_eq!(&own[..], b"kept");
}

#[test]
fn a_request_never_takes_a_buffer_of_another_class() {
    let pool = pool_of(&[512, 2048, 65_536]);
    drop((pool.get(512), pool.get(2048), pool.get(65_536)));
    for _ in 0..2 {
        for capacity in [512, 2048, 65_536] {
            assert_eq!(pool.get(capacity).capacity(), capacity);
        }
    }
    for capacity in [512, 2048, 65_536] {
        let counts = class(&pool, capacity);
        assert_eq!((counts.gets, counts.misses, counts.local_hits), (3, 1, 2));
        assert_eq!((counts.retained_buffers, counts.returns), (1, 3));
    }
}
