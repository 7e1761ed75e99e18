//! A guard that outgrows its buffer takes the next from the pool and gives the
//! old one back.

use crate::{assert_accounts_balance, class, memory, pool_of, total};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tierpool::{Pool, PooledBuf};

const CLASSES: [usize; 3] = [64, 512, 4096];

fn pool() -> Pool {
    pool_of(&CLASSES)
}

/// Appends bytes `at, at + 1, ...` in some way, at least one and at most 32.
type Append = fn(&mut PooledBuf, at: usize);

/// Asks for more than can be.
type Overflow = fn(&mut PooledBuf);

fn pattern(at: usize, len: usize) -> Vec<u8> {
    (at..at + len).map(|at| (at % 251) as u8).collect()
}

#[test]
fn every_method_that_appends_grows_through_the_pool() {
    let ways: [(&str, Append); 18] = [
        ("extend_from_slice", |buf, at| {
            buf.extend_from_slice(&pattern(at, 7))
        }),
        ("reserve", |buf, at| {
            buf.reserve(20);
            let capacity = buf.capacity();
            BytesMut::extend_from_slice(buf, &pattern(at, 20));
            assert_eq!(buf.capacity(), capacity, "there was room");
        }),
        ("resize", |buf, at| {
            let last = pattern(at, 1)[0];
            buf.resize(at + 1, last);
        }),
        ("put_u8", |buf, at| buf.put_u8(pattern(at, 1)[0])),
        ("put_u16", |buf, at| {
            buf.put_u16(u16::from_be_bytes(pattern(at, 2).try_into().unwrap()));
        }),
        ("put_u64_le", |buf, at| {
            buf.put_u64_le(u64::from_le_bytes(pattern(at, 8).try_into().unwrap()));
        }),
        ("put_slice", |buf, at| buf.put_slice(&pattern(at, 32))),
        ("put_bytes", |buf, at| buf.put_bytes(pattern(at, 1)[0], 1)),
        ("put of a slice", |buf, at| buf.put(&pattern(at, 9)[..])),
        ("put of Bytes", |buf, at| {
            buf.put(Bytes::from(pattern(at, 9)))
        }),
        ("put of a chain", |buf, at| {
            buf.put(Bytes::from(pattern(at, 5)).chain(&pattern(at + 5, 6)[..]));
        }),
        ("put through &mut dyn", |buf, at| {
            let mut source = &pattern(at, 9)[..];
            let source: &mut dyn Buf = &mut source;
            buf.put(&mut *source);
            assert!(!source.has_remaining());
        }),
        ("chunk_mut and advance_mut", |buf, at| {
            let chunk = buf.chunk_mut();
            let len = chunk.len().min(11);
            assert!(len > 0, "a chunk is never empty");
            chunk[..len].copy_from_slice(&pattern(at, len));
            // SAFETY: these bytes were written by the line before.
            unsafe { buf.advance_mut(len) };
        }),
        ("io::Write", |buf, at| {
            assert_eq!(buf.write(&pattern(at, 13)).unwrap(), 13);
        }),
        ("write!", |buf, at| {
            // Text: one byte per character below 128.
            let text: String = pattern(at, 1)
                .iter()
                .map(|&byte| char::from(byte % 128))
                .collect();
            write!(buf as &mut dyn std::fmt::Write, "{text}").unwrap();
            let last = buf.len() - 1;
            buf.as_mut()[last] = pattern(at, 1)[0];
        }),
        ("write_str", |buf, at| {
            buf.write_str("é").unwrap();
            let len = buf.len();
            assert_eq!(&buf[len - 2..], "é".as_bytes());
            buf.as_mut()[len - 2..].copy_from_slice(&pattern(at, 2));
        }),
        ("extend", |buf, at| buf.extend(pattern(at, 10))),
        ("extend of an iterator that says nothing", |buf, at| {
            let mut left = pattern(at, 10);
            left.reverse();
            buf.extend(&std::iter::from_fn(|| left.pop()).collect::<Vec<u8>>());
        }),
    ];
    for (name, append) in ways {
        let pool = pool();
        let mut buf = pool.get(1);
        assert_eq!(buf.capacity(), 64);
        while buf.len() < 3000 {
            let at = buf.len();
            append(&mut buf, at);
            assert!((1..=32).contains(&(buf.len() - at)), "{name}");
        }
        assert_eq!(buf[..], pattern(0, buf.len()), "{name}");
        assert_eq!(buf.capacity(), 4096, "{name}");
        // The two that were outgrown are back, and whole.
        for outgrown in [64, 512] {
            let counts = class(&pool, outgrown);
            assert_eq!(counts.growths, 1, "{name}");
            assert_eq!((counts.returns, counts.outstanding), (1, 0), "{name}");
            assert_eq!(counts.retained_bytes, outgrown as u64, "{name}");
        }
        assert_eq!(class(&pool, 4096).outstanding, 1, "{name}");
        drop(buf);
        let after = total(&pool);
        assert_eq!(
            (after.gets, after.returns, after.growths),
            (3, 3, 2),
            "{name}"
        );
        assert_eq!(after.discards.total(), 0, "{name}");
        assert_accounts_balance(&pool);
    }
}

#[test]
fn the_next_guard_to_grow_takes_what_the_last_one_left() {
    let pool = pool();
    for _ in 0..3 {
        let mut buf = pool.get(1);
        for at in 0..1000 {
            buf.put_u8(at as u8);
        }
    }
    assert_eq!(
        total(&pool).misses,
        3,
        "one of each class, for all three rounds"
    );
    assert_eq!(total(&pool).local_hits, 6);
}

#[test]
fn appending_takes_a_class_eight_times_as_large() {
    let pool = Pool::default();
    for (class, next) in [(512, 4096), (1024, 8192), (65_536, 524_288)] {
        let mut buf = pool.get(class);
        buf.put_bytes(1, class);
        assert_eq!(buf.capacity(), class);
        buf.put_u8(2);
        assert_eq!(buf.capacity(), next, "from {class}");
        assert_eq!((buf.len(), buf[class - 1], buf[class]), (class + 1, 1, 2));
    }
}

#[test]
fn appending_more_than_eight_times_as_much_takes_the_class_that_holds_it() {
    let pool = Pool::default();
    let mut buf = pool.get(512);
    buf.put_u8(1);
    buf.put_bytes(2, 70_000);
    assert_eq!((buf.len(), buf.capacity()), (70_001, 131_072));
}

#[test]
fn appending_stops_at_the_largest_class_while_that_holds_the_contents() {
    let pool = pool_of(&[512, 1024]);
    let mut buf = pool.get(512);
    buf.put_bytes(1, 513);
    assert_eq!(buf.capacity(), 1024);
    assert_eq!(total(&pool).oversize, 0);
}

#[test]
fn what_just_fits_the_largest_class_is_not_oversize_where_twice_the_last_one_is() {
    let pool = pool_of(&[512, 768]);
    for grow in [(|buf| buf.reserve(256)) as fn(&mut PooledBuf), |buf| {
        buf.put_bytes(1, 256)
    }] {
        let mut buf = pool.get(512);
        buf.put_bytes(1, 512);
        grow(&mut buf);
        assert_eq!(buf.capacity(), 768);
    }
    assert_eq!(total(&pool).oversize, 0);
}

#[test]
fn reserve_takes_the_smallest_class_that_holds_the_contents_and_what_was_asked() {
    let pool = Pool::default();
    let mut buf = pool.get(512);
    buf.put_bytes(1, 500);
    buf.reserve(12);
    assert_eq!((buf.capacity(), total(&pool).growths), (512, 0));
    buf.reserve(13);
    assert_eq!((buf.capacity(), total(&pool).growths), (1024, 1));
    buf.reserve(1024 - 500);
    assert_eq!((buf.capacity(), total(&pool).growths), (1024, 1));
    buf.reserve(10_000);
    assert_eq!((buf.capacity(), total(&pool).growths), (16_384, 2));
    assert_eq!(buf[..], [1; 500]);
    for outgrown in [512, 1024] {
        assert_eq!(class(&pool, outgrown).retained_buffers, 1);
    }
}

#[test]
fn room_before_the_contents_is_used_before_a_larger_buffer_is_taken() {
    let pool = pool();
    let mut buf = pool.get(512);
    buf.put_bytes(1, 500);
    let address = buf.as_ptr().addr();
    buf.advance(400);
    buf.put_bytes(2, 300);
    assert_eq!(memory(&buf), address..address + 512);
    assert_eq!(total(&pool).growths, 0);
    assert_eq!((&buf[..100], &buf[100..]), (&[1; 100][..], &[2; 300][..]));
    // The same where a part was split off and is gone.
    drop(buf.copy_to_bytes(350));
    buf.put_bytes(3, 400);
    assert_eq!(memory(&buf), address..address + 512);
    assert_eq!(total(&pool).growths, 0);
    assert_eq!((&buf[..50], &buf[50..]), (&[2; 50][..], &[3; 400][..]));
}

#[test]
fn a_guard_that_was_advanced_to_its_end_can_be_filled_again() {
    let pool = pool();
    let mut buf = pool.get(64);
    for value in 0..20 {
        buf.put_bytes(value, 64);
        assert_eq!(buf[..], [value; 64]);
        buf.advance(64);
    }
    assert_eq!((total(&pool).gets, total(&pool).growths), (1, 0));
}

#[test]
fn growth_while_a_part_is_in_use_leaves_the_part_alone() {
    let pool = pool();
    let mut buf = pool.get(64);
    buf.put_bytes(b'a', 64);
    let head = buf.copy_to_bytes(40);
    buf.put_bytes(b'b', 100);
    assert_eq!(
        (&buf[..24], &buf[24..]),
        (&[b'a'; 24][..], &[b'b'; 100][..])
    );
    assert_eq!(head[..], [b'a'; 40]);
    // What is left of the old buffer cannot come home.
    let old = class(&pool, 64);
    assert_eq!(
        (old.growths, old.discards.shared, old.outstanding),
        (1, 1, 0)
    );
    assert_eq!(class(&pool, 512).outstanding, 1);
    drop(buf);
    assert_eq!(head[..], [b'a'; 40]);
    assert_accounts_balance(&pool);
}

#[test]
fn growth_past_the_largest_class_is_an_oversize_get() {
    let pool = pool();
    let mut buf = pool.get(4096);
    buf.put_bytes(1, 4096);
    buf.put_u8(2);
    assert!(
        buf.capacity() >= 2 * 4096,
        "so that appending costs constant time per byte"
    );
    assert_eq!((buf.len(), buf[4095], buf[4096]), (4097, 1, 2));
    let after = pool.stats();
    assert_eq!(
        (after.unclassed.oversize, after.unclassed.outstanding),
        (1, 1)
    );
    let largest = class(&pool, 4096);
    assert_eq!(
        (
            largest.growths,
            largest.retained_buffers,
            largest.outstanding
        ),
        (1, 1, 0)
    );
    drop(buf);
    assert_eq!(pool.stats().unclassed.discards.above_max, 1);
    assert_eq!(total(&pool).retained_bytes, 4096);
    assert_accounts_balance(&pool);
}

#[test]
fn a_request_far_past_the_largest_class_gets_what_it_asks() {
    let pool = pool();
    let mut buf = pool.get(64);
    buf.put_bytes(1, 10);
    buf.reserve(100_000);
    assert!(buf.capacity() - buf.len() >= 100_000);
    assert_eq!(buf[..], [1; 10]);
    assert_eq!(class(&pool, 64).retained_buffers, 1);
}

#[test]
fn an_oversize_buffer_grows_with_its_contents_and_is_freed() {
    for zero in [false, true] {
        let pool = Pool::builder()
            .classes(CLASSES)
            .zero_on_return(zero)
            .build()
            .unwrap();
        let mut buf = pool.get(5000);
        let mut len = 0;
        while len < 50_000 {
            buf.extend_from_slice(&pattern(len, 777));
            len += 777;
        }
        assert_eq!(buf[..], pattern(0, len));
        buf.reserve(100_000);
        assert_eq!(buf[..], pattern(0, len));
        drop(buf);
        let unclassed = pool.stats().unclassed;
        assert_eq!(
            (unclassed.outstanding, unclassed.discards.total()),
            (0, unclassed.gets)
        );
        assert_eq!(unclassed.discards.above_max, unclassed.gets);
        assert_eq!(total(&pool).retained_buffers, 0);
        assert_accounts_balance(&pool);
    }
}

#[test]
fn an_adopted_buffer_below_the_smallest_class_grows_into_one() {
    let pool = pool();
    let mut buf = pool.adopt(BytesMut::from(&b"tiny"[..]));
    buf.put_bytes(b'!', 60);
    assert_eq!((buf.capacity(), &buf[..5]), (64, &b"tiny!"[..]));
    let unclassed = pool.stats().unclassed;
    assert_eq!(
        (unclassed.discards.below_min, unclassed.outstanding),
        (1, 0)
    );
    assert_eq!(class(&pool, 64).outstanding, 1);
    drop(buf);
    assert_eq!(class(&pool, 64).retained_buffers, 1);
    assert_accounts_balance(&pool);
}

#[test]
fn a_guard_grows_after_its_pool_is_gone() {
    let pool = pool();
    let (mut first, mut second) = (pool.get(1), pool.get(1));
    first.put_bytes(1, 64);
    drop(pool.get(512)); // idle, and gone with the pool
    drop(pool);
    for len in 65..6000 {
        first.put_u8(1);
        assert_eq!(first.len(), len);
    }
    assert_eq!(first[..], [1; 5999]);
    std::thread::spawn(move || {
        second.put_bytes(2, 300);
        second.reserve(1000);
        assert_eq!(second[..], [2; 300]);
    })
    .join()
    .unwrap();
}

#[test]
fn a_capacity_that_overflows_panics_and_loses_nothing() {
    let ways: [(&str, Overflow); 5] = [
        ("reserve all", |buf| buf.reserve(usize::MAX)),
        ("reserve above isize::MAX", |buf| {
            buf.reserve(isize::MAX as usize)
        }),
        ("put_bytes", |buf| buf.put_bytes(0, usize::MAX)),
        ("resize", |buf| buf.resize(usize::MAX, 0)),
        ("extend", |buf| buf.extend(std::iter::repeat(0_u8))),
    ];
    for (name, overflow) in ways {
        // In a class, oversize, and adopted.
        for size in [64, 5000] {
            let pool = pool();
            let mut buf = pool.get(size);
            buf.extend_from_slice(b"here");
            let (address, before) = (memory(&buf), pool.stats());
            let caught = catch_unwind(AssertUnwindSafe(|| overflow(&mut buf)));
            assert!(caught.is_err(), "{name}");
            assert_eq!((&buf[..], memory(&buf)), (&b"here"[..], address), "{name}");
            assert_eq!(pool.stats(), before, "{name}");
            buf.extend_from_slice(b" still");
            assert_eq!(&buf[..], b"here still");
            drop(buf);
            assert_eq!(total(&pool).outstanding, 0);
            assert_accounts_balance(&pool);
        }
    }
}

#[test]
fn there_is_always_room_until_the_largest_allocation() {
    let pool = pool();
    let mut buf = pool.get(64);
    assert_eq!(buf.remaining_mut(), isize::MAX as usize);
    buf.put_bytes(1, 100);
    assert_eq!(buf.remaining_mut(), isize::MAX as usize - 100);
    assert!(buf.has_remaining_mut());
}

#[test]
fn truncate_clear_and_a_shorter_resize_keep_the_buffer() {
    let pool = pool();
    let mut buf = pool.get(64);
    buf.extend_from_slice(b"0123456789");
    let address = memory(&buf);
    buf.truncate(20);
    assert_eq!(buf.len(), 10);
    buf.truncate(5);
    assert_eq!(&buf[..], b"01234");
    buf.resize(3, b'x');
    assert_eq!(&buf[..], b"012");
    buf.resize(5, b'x');
    assert_eq!(&buf[..], b"012xx");
    buf.clear();
    assert!(buf.is_empty());
    assert_eq!(memory(&buf), address);
}

/// Says that it has one byte, and shows a hundred.
struct Lying(bool);

impl Buf for Lying {
    fn remaining(&self) -> usize {
        usize::from(!self.0)
    }

    fn chunk(&self) -> &[u8] {
        &[7; 100]
    }

    fn advance(&mut self, _count: usize) {
        self.0 = true;
    }
}

// Failed once: the buffer grew on the heap, behind the pool's back.
#[test]
fn a_source_longer_than_it_says_grows_the_guard_through_the_pool() {
    let pool = pool_of(&[64, 1024]);
    let mut buf = pool.get(64);
    buf.put(Lying(false));
    assert_eq!((&buf[..], buf.capacity()), (&[7; 100][..], 1024));
    assert_eq!(total(&pool).growths, 1);
    drop(buf);
    assert_accounts_balance(&pool);
}
