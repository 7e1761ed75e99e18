//! Parts that share a guard's buffer: the bytes they show, and that the buffer comes home whole,
//! once, after the guard and all parts are gone.

use crate::{assert_accounts_balance, class, memory, options, pool_of, total};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::borrow::Borrow;
use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc;
use std::thread;
use tierpool::{ConfigError, GetError, Pool, PooledBuf, PooledBytes};

const SIZE: usize = 4096;

fn pool() -> Pool {
    pool_of(&[512, SIZE, 4 * SIZE])
}

/// Contents that differ from place to place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

fn filled(pool: &Pool, len: usize) -> PooledBuf {
    let mut buf = pool.get(SIZE);
    buf.extend_from_slice(&pattern(len));
    buf
}

/// Asserts that all buffers are home again, and none was freed.
#[track_caller]
fn assert_all_home(pool: &Pool) {
    let total = total(pool);
    assert_eq!(
        (total.outstanding, total.discards.total()),
        (0, 0),
        "{total:?}"
    );
    assert_accounts_balance(pool);
}

#[track_caller]
fn panic_message<R>(act: impl FnOnce() -> R) -> String {
    let panicked = panic::catch_unwind(AssertUnwindSafe(|| drop(act())));
    let message = panicked.expect_err("it should panic");
    match message.downcast_ref::<&str>() {
        Some(message) => String::from(*message),
        None => message
            .downcast_ref::<String>()
            .cloned()
            .unwrap_or_default(),
    }
}

#[test]
fn the_buffer_comes_home_with_its_last_holder() {
    let pool = pool();
    // The guard is dropped first, second or last.
    for order in [
        [0, 1, 2],
        [1, 0, 2],
        [1, 2, 0],
        [2, 1, 0],
        [0, 2, 1],
        [2, 0, 1],
    ] {
        let mut buf = filled(&pool, 3000);
        let address = memory(&buf).start;
        let first = buf.split_to(1000);
        let second = buf.split_to(1000);
        assert_eq!(first, pattern(3000)[..1000]);
        assert_eq!(second, pattern(3000)[1000..2000]);
        assert_eq!(buf[..], pattern(3000)[2000..]);
        let mut held: [Option<Box<dyn Send>>; 3] = [
            Some(Box::new(buf)),
            Some(Box::new(first)),
            Some(Box::new(second)),
        ];
        for (at, which) in order.into_iter().enumerate() {
            assert_eq!(total(&pool).outstanding, 1, "{order:?}, {at}");
            held[which] = None;
        }
        assert_all_home(&pool);
        assert_eq!(memory(&pool.get(SIZE)), address..address + SIZE);
    }
    assert_eq!(total(&pool).misses, 1);
}

#[test]
fn the_last_part_may_be_dropped_on_another_thread_and_after_the_pool() {
    let pool = pool();
    let mut buf = filled(&pool, 2000);
    let part = buf.split_to(500);
    let rest = buf.freeze();
    thread::spawn(move || assert_eq!(part, pattern(500)[..]))
        .join()
        .unwrap();
    assert_eq!(total(&pool).outstanding, 1);
    thread::spawn(move || assert_eq!(rest.len(), 1500))
        .join()
        .unwrap();
    assert_all_home(&pool);
    assert_eq!(class(&pool, SIZE).returns, 1);

    let mut buf = filled(&pool, 2000);
    let part = buf.split_to(500);
    drop(pool);
    drop(buf);
    assert_eq!(part, pattern(500)[..]);
}

#[test]
fn the_guard_goes_on_behind_its_parts() {
    let pool = pool();
    let mut buf = filled(&pool, 100);
    let capacity = buf.capacity();
    let part = buf.split();
    assert_eq!((buf.len(), buf.capacity()), (0, capacity - 100));
    buf.put_bytes(b'x', capacity - 100);
    assert_eq!(part, pattern(100)[..]);
    assert!(buf.iter().all(|&byte| byte == b'x'));
    assert_eq!(total(&pool).gets, 1);
    drop((buf, part));
    assert_all_home(&pool);
}

#[test]
fn a_full_guard_takes_a_fresh_buffer_and_leaves_the_old_one_to_its_parts() {
    type Grow = fn(&mut PooledBuf);
    let ways: [Grow; 7] = [
        |buf| buf.extend_from_slice(b"more"),
        |buf| buf.reserve(4),
        |buf| buf.try_reserve(4).unwrap(),
        |buf| buf.put_bytes(b'm', 4),
        |buf| assert_eq!(buf.fill_with(4, |_| Ok(4)).unwrap(), 4),
        |buf| buf.resize(buf.len() + 4, 0),
        |buf| buf.extend([b'm'; 4]),
    ];
    for grow in ways {
        let pool = pool();
        let mut buf = filled(&pool, SIZE);
        let old = memory(&buf);
        let part = buf.split_to(4000);
        grow(&mut buf);
        assert!(!old.contains(&memory(&buf).start), "a fresh one");
        assert_eq!(memory(&buf).len(), SIZE, "of the same size");
        assert_eq!(buf[..96], pattern(SIZE)[4000..]);
        assert_eq!(part, pattern(SIZE)[..4000]);
        assert_eq!(total(&pool).outstanding, 2);
        drop(part);
        assert_eq!((total(&pool).outstanding, total(&pool).returns), (1, 1));
        drop(buf);
        assert_all_home(&pool);
        assert_eq!(total(&pool).returns, 2);
    }
}

// Read by `read_buf`, as a reader does at its end.
#[test]
fn a_read_at_the_end_takes_no_fresh_buffer() {
    let pool = pool();
    let mut buf = filled(&pool, SIZE);
    let header = buf.split_to(4);
    assert_eq!(buf.chunk_mut().len(), size_of::<usize>());
    assert_eq!((total(&pool).gets, memory(&buf).len()), (1, SIZE - 4));
    // The reader was not at its end.
    buf.chunk_mut().write_byte(0, b'm');
    // SAFETY: the line above wrote it.
    unsafe { buf.advance_mut(1) };
    assert_eq!(
        (&buf[..SIZE - 4], buf[SIZE - 4]),
        (&pattern(SIZE)[4..], b'm')
    );
    assert_eq!(header, pattern(4));
    assert_eq!((total(&pool).gets, total(&pool).growths), (2, 1));
    // The bytes beside the buffer are not known to be zero.
    let len = buf.len();
    buf.resize(len + 16, 0);
    assert_eq!(buf[len..], [0; 16]);
    drop((buf, header));
    assert_all_home(&pool);
}

// A class that the program requests is kept. A class that guards only grow into is not.
#[test]
fn the_fresh_buffer_of_a_guard_with_parts_counts_as_requested_if_it_was_reserved() {
    for (reserve, kept) in [(false, 0), (true, 1)] {
        let pool = options(&[512, SIZE, 16 * SIZE]).build().unwrap();
        let work = |large: bool| {
            let mut buf = pool.get(512);
            buf.put_bytes(1, 100);
            let part = buf.split_to(50);
            match (large, reserve) {
                (false, _) => {}
                (true, true) => buf.reserve(16 * SIZE - 100),
                (true, false) => buf.put_bytes(1, 16 * SIZE - 100),
            }
            drop(buf);
            drop(part);
        };
        for at in 0..2000 {
            work(at % 100 == 0);
        }
        pool.recalibrate();
        pool.clear();
        work(true);
        assert_eq!(class(&pool, 16 * SIZE).retained_buffers, kept, "{reserve}");
    }
}

#[test]
fn a_guard_alone_again_uses_the_space_before_its_contents() {
    let pool = pool();
    let mut buf = filled(&pool, SIZE);
    let old = memory(&buf);
    let part = buf.split_to(4000);
    let other = part.clone();
    drop((part, other));
    buf.extend_from_slice(&[b'x'; 4000]);
    assert_eq!(memory(&buf), old);
    assert_eq!(buf[..96], pattern(SIZE)[4000..]);
    assert_eq!(total(&pool).gets, 1);
    drop(buf);
    assert_all_home(&pool);
}

#[test]
fn a_guard_that_outgrows_its_class_while_parts_are_outstanding_takes_a_larger_one() {
    let pool = pool();
    let mut buf = filled(&pool, SIZE);
    let part = buf.split_to(10);
    buf.reserve(SIZE);
    assert_eq!(buf.capacity(), 4 * SIZE);
    assert_eq!(buf[..], pattern(SIZE)[10..]);
    let second = buf.split_to(100);
    buf.put_bytes(1, 5 * SIZE); // above the largest class
    assert_eq!(second, pattern(SIZE)[10..110]);
    assert_eq!(total(&pool).outstanding, 3);
    drop((part, second));
    assert_eq!(total(&pool).outstanding, 1);
    drop(buf);
    let total = total(&pool);
    assert_eq!((total.outstanding, total.discards.above_max), (0, 1));
    assert_accounts_balance(&pool);
}

#[test]
fn a_refused_growth_leaves_guard_and_parts_as_they_are() {
    let pool = pool();
    let mut buf = filled(&pool, SIZE);
    let part = buf.split_to(10);
    let refused = buf.try_reserve(usize::MAX).unwrap_err();
    assert!(matches!(refused, GetError::TooLarge { .. }));
    let refused = buf.try_reserve(isize::MAX as usize - SIZE).unwrap_err();
    assert!(matches!(refused, GetError::OutOfMemory { .. }));
    assert_eq!(buf[..], pattern(SIZE)[10..]);
    assert_eq!(part, pattern(10)[..]);
    drop((buf, part));
    assert_all_home(&pool);
}

#[test]
fn lending_the_bytes_mut_moves_the_guard_away_from_its_parts() {
    type Lend = fn(PooledBuf) -> Option<PooledBuf>;
    let ways: [Lend; 5] = [
        // Calls that would regain the space before the contents.
        |mut buf| {
            BytesMut::reserve(&mut buf, SIZE);
            Some(buf)
        },
        |mut buf| {
            let _regained = BytesMut::try_reclaim(&mut buf, SIZE);
            buf.put_bytes(b'x', 4);
            Some(buf)
        },
        |mut buf| {
            *buf = BytesMut::zeroed(SIZE);
            Some(buf)
        },
        |buf| {
            let mut own = buf.detach();
            own.reserve(SIZE);
            own.put_bytes(b'x', SIZE);
            None
        },
        |mut buf| {
            drop(BytesMut::split(&mut buf));
            Some(buf)
        },
    ];
    for lend in ways {
        let pool = pool();
        let mut buf = filled(&pool, 2000);
        let parts = [buf.split_to(1000), buf.split_to(10)];
        let buf = lend(buf);
        pool.get(SIZE).put_bytes(b'y', SIZE); // the pool has no memory of a part
        assert_eq!(parts[0], pattern(2000)[..1000]);
        assert_eq!(parts[1], pattern(2000)[1000..1010]);
        drop(buf);
        drop(parts);
        assert_eq!(total(&pool).outstanding, 0);
        assert_accounts_balance(&pool);
    }
}

#[test]
fn split_off_gives_the_tail_and_the_guard_can_grow() {
    for at in [0, 1, 700, 1999, 2000] {
        let pool = pool();
        let mut buf = filled(&pool, 2000);
        let tail = buf.split_off(at);
        buf.put_bytes(b'x', 3000);
        assert_eq!(tail, pattern(2000)[at..]);
        assert_eq!(buf[..at], pattern(2000)[..at]);
        assert!(buf[at..].iter().all(|&byte| byte == b'x'));
        drop((buf, tail));
        assert_all_home(&pool);
    }
}

#[test]
fn an_out_of_bounds_position_panics_and_changes_nothing() {
    let pool = pool();
    let mut buf = filled(&pool, 10);
    assert_eq!(
        panic_message(|| buf.split_to(11)),
        "split_to: at (11) is above the length (10)"
    );
    assert_eq!(
        panic_message(|| buf.split_off(11)),
        "split_off: at (11) is above the length (10)"
    );
    assert_eq!(
        panic_message(|| buf.copy_to_bytes(11)),
        "split_to: at (11) is above the length (10)"
    );
    assert_eq!(
        panic_message(|| buf.advance(11)),
        "advance: count (11) is above the length (10)"
    );
    let mut bytes = buf.freeze();
    for (message, act) in [
        (
            "split_to: at (11) is above the length (10)",
            (|bytes| drop(bytes.split_to(11))) as fn(&mut PooledBytes),
        ),
        ("split_off: at (11) is above the length (10)", |bytes| {
            drop(bytes.split_off(11));
        }),
        ("advance: count (11) is above the length (10)", |bytes| {
            bytes.advance(11);
        }),
        (
            "slice: the end of the range (11) is above the length (10)",
            |bytes| {
                drop(bytes.slice(..11));
            },
        ),
        (
            "slice: the begin of the range (5) is above its end (4)",
            |bytes| {
                let (begin, end) = (5, 4);
                drop(bytes.slice(begin..end));
            },
        ),
    ] {
        assert_eq!(panic_message(|| act(&mut bytes)), message);
        assert_eq!(bytes, pattern(10)[..]);
    }
    assert!(bytes.is_unique());
    drop(bytes);
    assert_all_home(&pool);
}

#[test]
fn an_empty_part_holds_no_buffer() {
    let pool = pool();
    let mut buf = filled(&pool, 10);
    let (front, back) = (buf.split_to(0), buf.split_off(10));
    drop(buf);
    assert_eq!(total(&pool).outstanding, 0);
    let empty = pool.get(10).freeze();
    assert_eq!(total(&pool).outstanding, 0);
    for empty in [
        front,
        back,
        empty,
        PooledBytes::new(),
        PooledBytes::default(),
    ] {
        assert!(empty.is_empty() && empty.is_unique());
        assert_eq!(empty.clone(), b""[..]);
        assert!(Bytes::from(empty.clone()).is_empty());
        assert_eq!(empty.try_into_mut().unwrap_err(), b""[..]);
    }
    let whole = filled(&pool, 10).freeze();
    assert!(whole.slice(3..3).is_unique() && !whole.slice(3..4).is_unique());
    drop(whole);
    assert_all_home(&pool);
}

#[test]
fn parts_of_parts_show_the_same_bytes_as_bytes_does() {
    let pool = pool();
    let buf = filled(&pool, 1000);
    let mut same = Bytes::copy_from_slice(&buf);
    let mut bytes = buf.freeze();
    let (head, same_head) = (bytes.split_to(300), same.split_to(300));
    assert_eq!(
        (&bytes, &head),
        (&PooledBytes::from(filled(&pool, 1000)).slice(300..), &head)
    );
    assert_eq!((&bytes[..], &head[..]), (&same[..], &same_head[..]));
    let (tail, same_tail) = (bytes.split_off(400), same.split_off(400));
    assert_eq!((&bytes[..], &tail[..]), (&same[..], &same_tail[..]));
    bytes.advance(7);
    same.advance(7);
    bytes.truncate(300);
    same.truncate(300);
    assert_eq!(bytes, same);
    assert_eq!(bytes.slice(1..=5), same.slice(1..=5));
    assert_eq!(bytes.slice(..), same);
    let (mut left, mut right) = (bytes.clone(), same.clone());
    assert_eq!(left.copy_to_bytes(50), right.copy_to_bytes(50));
    assert_eq!(
        (left.get_u32(), left.remaining()),
        (right.get_u32(), right.remaining())
    );
    assert_eq!(
        format!("{left:?} {left:x} {left:X}"),
        format!("{right:?} {right:x} {right:X}")
    );
    bytes.clear();
    assert!(bytes.is_empty());
    assert_eq!(total(&pool).outstanding, 1);
    drop((head, tail, left));
    assert_all_home(&pool);
}

#[test]
fn comparisons_and_hashes_are_those_of_a_slice() {
    let pool = pool();
    let mut buf = pool.get(10);
    buf.put_slice(b"abc");
    let bytes = buf.freeze();
    assert_eq!(bytes, *b"abc");
    assert_eq!(bytes, b"abc");
    assert_eq!(bytes, b"abc"[..]);
    assert_eq!(bytes, &b"abc"[..]);
    assert_eq!(bytes, *"abc");
    assert_eq!(bytes, "abc");
    assert_eq!(bytes, String::from("abc"));
    assert_eq!(bytes, b"abc".to_vec());
    assert_eq!(bytes, Bytes::from_static(b"abc"));
    assert_eq!(bytes, BytesMut::from(&b"abc"[..]));
    assert_eq!(*b"abc", bytes);
    assert_eq!("abc", bytes);
    assert_eq!(b"abc".to_vec(), bytes);
    assert_eq!(Bytes::from_static(b"abc"), bytes);
    assert!(bytes < *"abd" && *"abb" < bytes && bytes > b"ab"[..]);
    assert!(bytes < bytes.slice(1..));
    assert_eq!(bytes.iter().max(), Some(&b'c'));
    assert_eq!((&bytes).into_iter().count(), 3);
    assert_eq!(bytes.clone().into_iter().collect::<Vec<_>>(), b"abc");
    assert_eq!(Vec::from(bytes.clone()), b"abc");
    let borrowed: &[u8] = bytes.borrow();
    assert_eq!(borrowed, b"abc");
    let mut guard = pool.get(10);
    guard.put_slice(b"abc");
    assert!(bytes == guard);
    assert!(guard == bytes);
    assert_eq!(bytes, &bytes.to_vec());
    assert_eq!(bytes, &Bytes::from_static(b"abc"));
    assert_eq!(BytesMut::from(bytes.clone()), b"abc"[..]);
    assert_eq!(bytes.slice_ref(&bytes[1..]), "bc");
    assert!(bytes.slice_ref(&[]).is_empty());
    assert_eq!(
        panic_message(|| bytes.slice_ref(b"abc")),
        "slice_ref: the subset (3 bytes) is not a slice of these 3 bytes: pass a part of what they \
         deref to"
    );
    let map = HashMap::from([(bytes, 1)]);
    assert_eq!(map.get(&b"abc"[..]), Some(&1));
}

#[test]
fn a_part_becomes_bytes_and_brings_its_buffer_home() {
    let pool = pool();
    let mut buf = filled(&pool, 100);
    let whole: Bytes = buf.copy_to_bytes(60);
    let part = whole.slice(10..20);
    drop(whole);
    drop(buf);
    assert_eq!(part, pattern(100)[10..20]);
    assert_eq!(total(&pool).outstanding, 1);
    drop(part);
    assert_all_home(&pool);
    let bytes = Bytes::from(filled(&pool, 10));
    assert_eq!(bytes, pattern(10));
    drop(bytes);
    assert_all_home(&pool);
}

#[test]
fn a_part_without_other_holders_can_be_written_again() {
    let pool = pool();
    let mut buf = filled(&pool, 1000);
    let address = memory(&buf).start;
    let first = buf.split_to(100);
    let second = buf.split_to(200);
    let rest = buf.freeze();
    let first = first.try_into_mut().unwrap_err();
    drop((first, rest));
    // Its bytes are in the middle of the buffer, and the guard that knew it is gone.
    let mut again = second.try_into_mut().unwrap();
    assert_eq!(again[..], pattern(1000)[100..300]);
    assert_eq!(memory(&again), address + 100..address + SIZE);
    again.put_bytes(b'x', 1000);
    assert_eq!(again[..200], pattern(1000)[100..300]);
    let half = again.split_to(50);
    again[0] = b'!';
    assert_eq!(half, pattern(1000)[100..150]);
    drop((again, half));
    assert_all_home(&pool);
    assert_eq!(memory(&pool.get(SIZE)), address..address + SIZE);
    assert_eq!(total(&pool).misses, 1);
}

#[test]
fn try_into_mut_may_be_called_on_a_part_of_any_buffer() {
    let pool = pool();
    // The guard was cleared, consumed or dropped meanwhile; the buffer was adopted or lent.
    let adopted = || {
        let mut buf = pool.adopt(BytesMut::with_capacity(SIZE));
        buf.extend_from_slice(&pattern(1000));
        buf
    };
    let lent = || {
        let mut buf = filled(&pool, 500);
        BytesMut::extend_from_slice(&mut buf, &pattern(1000)[500..]);
        buf
    };
    for mut buf in [filled(&pool, 1000), adopted(), lent()] {
        let part = buf.split_to(300);
        buf.put_bytes(b'x', 100);
        buf.clear();
        buf.put_bytes(b'y', 100);
        drop(buf);
        match part.try_into_mut() {
            Ok(mut again) => {
                assert_eq!(again[..], pattern(1000)[..300]);
                again.put_bytes(b'z', 2000);
                assert_eq!(again[..300], pattern(1000)[..300]);
            }
            Err(part) => assert_eq!(part, pattern(300)[..]),
        }
    }
    for buf in [filled(&pool, 1000), adopted(), lent()] {
        let frozen = buf.freeze();
        let mut again = frozen.slice(10..900).try_into_mut().unwrap_err();
        drop(frozen);
        again.advance(5);
        let again = again.try_into_mut().expect("all of it is there");
        assert_eq!(again[..], pattern(1000)[15..900]);
    }
    assert_all_home(&pool);
}

#[test]
fn freeze_compact_does_not_keep_a_large_buffer_for_a_few_bytes() {
    let pool = Pool::default();
    let kept: Vec<_> = (0..2000)
        .map(|_| {
            let mut buf = pool.get(64 << 10);
            buf.extend_from_slice(&pattern(512));
            buf.freeze_compact()
        })
        .collect();
    assert!(kept.iter().all(|kept| *kept == pattern(512)[..]));
    assert!(total(&pool).outstanding_bytes <= 2 << 20);
    assert_eq!(class(&pool, 64 << 10).outstanding, 0);
    drop(kept);
    assert_all_home(&pool);
}

#[test]
fn compact_below_decides_which_contents_move() {
    for (percent, len, capacity) in [
        (0, 1, SIZE),
        (50, SIZE / 2 - 48, 4 * 512),
        (50, SIZE / 2, SIZE),
        (100, SIZE / 2, 4 * 512),
        (100, SIZE / 2 + 1, SIZE),
        (10, 410, SIZE),
        (10, 399, 512),
    ] {
        let builder = options(&[512, 2048, SIZE]).compact_below(percent);
        let pool = builder.build().unwrap();
        let frozen = filled(&pool, len).freeze_compact();
        let out = total(&pool).outstanding_bytes;
        assert_eq!(out, capacity as u64, "{percent}, {len}");
        assert_eq!(frozen, pattern(len));
    }
    let refused = Pool::builder().compact_below(101).build().unwrap_err();
    assert!(matches!(
        refused,
        ConfigError::CompactBelow { percent: 101, .. }
    ));
    assert_eq!(
        refused.to_string(),
        "compact_below (101) is above 100: it is a percentage of the capacity; use 0 to 100"
    );
}

#[test]
fn shrink_to_fit_moves_the_contents_to_the_smallest_class_for_them() {
    let pool = pool();
    let mut buf = filled(&pool, 500);
    let part = buf.split_to(100);
    buf.shrink_to_fit();
    assert_eq!((&buf[..], buf.capacity()), (&pattern(500)[100..], 512));
    assert_eq!(part, pattern(100)[..]);
    buf.shrink_to_fit();
    assert_eq!(total(&pool).gets, 2);
    drop((buf, part));
    assert_all_home(&pool);
}

// Wiping waits for the last part, and covers the bytes of all parts.
#[test]
fn a_pool_that_wipes_wipes_the_bytes_of_parts() {
    let pool = options(&[SIZE]).zero_on_return(true).build().unwrap();
    let mut buf = filled(&pool, 3000);
    let parts = [buf.split_to(1000), buf.split_to(500)];
    buf.clear();
    drop(buf);
    drop(parts);
    let mut again = pool.get(SIZE);
    assert_eq!(total(&pool).local_hits, 1);
    let spare = again.spare_capacity_mut();
    // SAFETY: the contents or the wiping wrote all bytes of this range.
    let written = unsafe { &*(std::ptr::from_mut(&mut spare[..3000]) as *const [u8]) };
    assert!(written.iter().all(|&byte| byte == 0));
}

// The length when the guard left the buffer counts, and not that of a part.
#[test]
fn the_length_of_a_shared_buffer_is_learned() {
    let pool = Pool::default();
    for _ in 0..200 {
        let mut buf = pool.get(64 << 10);
        for _ in 0..20 {
            buf.put_bytes(7, 1000);
            drop(buf.split());
        }
    }
    let targets = pool.recalibrate();
    assert_eq!(
        (targets.default_size, targets.max_size),
        (32 << 10, 32 << 10)
    );
}

#[test]
fn threads_that_share_one_buffer_see_their_bytes_and_bring_it_home_once() {
    const THREADS: usize = 3;
    const FRAMES: usize = if cfg!(miri) { 50 } else { 20_000 };
    let pool = options(&[SIZE]).build().unwrap();
    let (senders, workers): (Vec<_>, Vec<_>) = (0..THREADS)
        .map(|_| {
            let (sender, frames) = mpsc::channel::<(u8, PooledBytes)>();
            let work = move || {
                let mut kept = Vec::new();
                for (at, (value, frame)) in frames.into_iter().enumerate() {
                    assert!(frame.iter().all(|&byte| byte == value), "{at}");
                    match at % 3 {
                        0 => kept.push(frame.slice(..frame.len() / 2)),
                        1 => drop(frame.clone()),
                        _ => kept.clear(),
                    }
                }
            };
            (sender, thread::spawn(work))
        })
        .unzip();
    let mut buf = pool.get(SIZE);
    for at in 0..FRAMES {
        let (value, len) = (at as u8, 1 + at * 7 % 700);
        buf.put_bytes(value, len);
        let frame = buf.split_to(len);
        senders[at % THREADS].send((value, frame)).unwrap();
    }
    drop((buf, senders));
    workers
        .into_iter()
        .for_each(|worker| worker.join().unwrap());
    assert_all_home(&pool);
}
