//! A guard is a `Buf` and a `BufMut`, and a part is a `Buf`, in whichever state they are: what
//! generic code over `bytes` relies on.
//!
//! `reads` takes bytes out, `writes` puts bytes in. Both run over each state of this file.

mod reads;
mod writes;

use bytes::{Buf, BufMut, BytesMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tierpool::{Pool, PooledBuf, PooledBytes};

/// Has classes of 64, 256 and 1024 bytes.
fn pool() -> Pool {
    crate::pool_of(&[64, 256, 1024])
}

/// A guard in some state, with contents, and what must live as long.
struct Guard {
    /// The name of the state, for messages.
    state: &'static str,
    buf: PooledBuf,
    _beside: Option<PooledBytes>,
}

/// Guards in all states, each with these contents.
fn guards(pool: &Pool, contents: &[u8]) -> Vec<Guard> {
    let filled = |mut buf: PooledBuf| {
        buf.extend_from_slice(contents);
        buf
    };
    let alone = |state, buf| Guard {
        state,
        buf,
        _beside: None,
    };
    // With other bytes, so that these would show.
    let used = |size| {
        let mut buf = pool.get(size);
        buf.put_bytes(0xee, size);
        buf
    };
    drop((used(64), used(256)));
    let recycled = pool.get(contents.len());

    let mut grown = pool.get(1);
    for byte in contents {
        grown.put_u8(*byte);
    }

    let mut advanced = pool.get(1);
    advanced.put_bytes(0xee, 40);
    advanced.extend_from_slice(contents);
    advanced.advance(40);

    let mut split = pool.get(1024);
    split.put_bytes(0xee, 10);
    let part = split.split_to(10);
    split.extend_from_slice(contents);

    let mut lent = pool.get(1);
    BytesMut::extend_from_slice(&mut lent, contents); // on the heap

    let thawed = filled(pool.get(256)).freeze().try_into_mut();

    let mut guards = vec![
        alone("fresh", filled(pool.get(1024))),
        alone("tight", filled(pool.get(contents.len()))),
        alone("recycled", filled(recycled)),
        alone("adopted", pool.adopt(BytesMut::from(contents))),
        alone("oversize", filled(pool.get(5000))),
        alone("grown", grown),
        alone("advanced", advanced),
        alone("lent", lent),
        Guard {
            state: "with a part out",
            buf: split,
            _beside: Some(part),
        },
    ];
    // Empty bytes have no buffer to make writable.
    guards.extend(thawed.ok().map(|buf| alone("thawed", buf)));
    for guard in &guards {
        assert_eq!(guard.buf, contents, "{}", guard.state);
    }
    guards
}

/// Parts in all states, each with these bytes, by the names of the states.
fn parts(pool: &Pool, contents: &[u8]) -> Vec<(&'static str, PooledBytes)> {
    let around = |contents: &[u8]| {
        let mut buf = pool.copy_from_slice(&[0xee; 5]);
        buf.extend_from_slice(contents);
        buf.put_bytes(0xee, 7);
        buf
    };
    let end = 5 + contents.len();
    let mut cut = around(contents);
    drop(cut.split_to(5));
    let mut consumed = around(contents).freeze();
    consumed.advance(5);
    consumed.truncate(contents.len());
    let whole = pool.copy_from_slice(contents).freeze();
    vec![
        ("cloned", whole.clone()),
        ("frozen", whole),
        ("sliced", around(contents).freeze().slice(5..end)),
        ("cut off a guard", cut.split_to(contents.len())),
        ("advanced and truncated", consumed),
        ("compact", around(contents).freeze_compact().slice(5..end)),
        ("adopted", pool.adopt(BytesMut::from(contents)).freeze()),
    ]
}

/// Calls `check` with each reader that has these contents: all guards, all parts, and adapters of
/// them that have more than one chunk.
fn for_each_reader(contents: &[u8], mut check: impl FnMut(&str, &mut dyn Buf)) {
    let pool = pool();
    for Guard { state, buf, .. } in &mut guards(&pool, contents) {
        check(state, buf);
    }
    for (state, mut part) in parts(&pool, contents) {
        check(state, &mut part);
    }
    let middle = contents.len() / 2;
    let (front, back) = contents.split_at(middle);
    let (front, back) = (pool.copy_from_slice(front), pool.copy_from_slice(back));
    check("chained", &mut front.chain(back.freeze()));
    let mut longer = pool.copy_from_slice(contents);
    longer.put_bytes(0xee, 9);
    check("taken from", &mut longer.take(contents.len()));
    assert_eq!(crate::total(&pool).detached, 0);
}

/// Calls `check` with each guard that has no contents.
fn for_each_writer(mut check: impl FnMut(&str, &mut PooledBuf)) {
    let pool = pool();
    for Guard { state, buf, .. } in &mut guards(&pool, b"") {
        check(state, buf);
    }
}

/// Asserts that `act` panics.
#[track_caller]
fn assert_panics<R>(what: &str, act: impl FnOnce() -> R) {
    let panicked = catch_unwind(AssertUnwindSafe(|| drop(act())));
    assert!(panicked.is_err(), "{what}: it should panic");
}
