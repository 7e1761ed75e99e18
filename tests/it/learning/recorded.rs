//! Which returns count, and with which length.

use super::{PERCENTILE, Watch, attach, by_count, by_hand, by_hand_of_all, pure, use_one};
use crate::{rounds, sizes, total};
use bytes::{Buf, BufMut, BytesMut};
use proptest::prelude::*;
use std::thread;
use tierpool::{Histogram, Pool, PooledBuf};

/// A way to use and return a buffer. It determines the length that counts.
#[derive(Clone, Copy, Debug)]
enum Used {
    Written,
    InPieces,
    Resized,
    /// It reserves room. That takes a larger buffer and returns this one without counting it.
    Reserved,
    Advanced,
    CopiedOut,
    /// The first part is dropped before the guard.
    SplitOffTheFront,
    /// The part is dropped after the guard, so the pool does not keep the buffer.
    SplitOffTheFrontAndKept,
    SplitOffTheEnd,
    SplitWhole,
    Truncated,
    Cleared,
    ClearedBehindTheGuard,
    SetToNothing,
    /// Written to its last byte, read to the end, and cleared.
    ReadToTheEndAndCleared,
    /// Used a second time, for fewer bytes.
    ClearedAndWritten,
    GrownOnTheHeap,
    Frozen,
    FrozenAndSliced,
    DroppedElsewhere,
    Adopted,
    AdoptedAndAdvanced,
    /// Not a return.
    Detached,
}

const ALL_USES: [Used; 23] = [
    Used::Written,
    Used::InPieces,
    Used::Resized,
    Used::Reserved,
    Used::Advanced,
    Used::CopiedOut,
    Used::SplitOffTheFront,
    Used::SplitOffTheFrontAndKept,
    Used::SplitOffTheEnd,
    Used::SplitWhole,
    Used::Truncated,
    Used::Cleared,
    Used::ClearedBehindTheGuard,
    Used::SetToNothing,
    Used::ReadToTheEndAndCleared,
    Used::ClearedAndWritten,
    Used::GrownOnTheHeap,
    Used::Frozen,
    Used::FrozenAndSliced,
    Used::DroppedElsewhere,
    Used::Adopted,
    Used::AdoptedAndAdvanced,
    Used::Detached,
];

impl Used {
    /// Takes a buffer, writes `len` bytes, and ends with it. Returns the length that must count, if
    /// the return counts. `cut` is at most `len`.
    fn run(self, pool: &Pool, request: usize, len: usize, cut: usize) -> Option<usize> {
        let mut buf = match self {
            Used::Adopted | Used::AdoptedAndAdvanced => {
                pool.adopt(BytesMut::with_capacity(len + 3)) // of unusual capacity
            }
            _ => pool.get(request),
        };
        match self {
            Used::InPieces => {
                let contents = vec![7; len];
                for piece in contents.chunks(1 + cut) {
                    buf.extend_from_slice(piece);
                }
            }
            _ => buf.put_bytes(7, len),
        }
        let capacity = buf.capacity();
        match self {
            Used::Written | Used::InPieces | Used::Adopted => Some(len),
            Used::Resized => {
                buf.resize(cut, 7);
                Some(len)
            }
            Used::Reserved => {
                buf.reserve(cut);
                Some(len)
            }
            Used::Advanced | Used::AdoptedAndAdvanced => {
                buf.advance(cut);
                Some(len)
            }
            Used::CopiedOut => {
                drop(buf.copy_to_bytes(cut));
                Some(len)
            }
            Used::SplitOffTheFront => {
                drop(buf.split_to(cut));
                Some(len)
            }
            Used::SplitOffTheFrontAndKept => {
                let _part = buf.split_to(cut);
                drop(buf);
                Some(len)
            }
            Used::SplitOffTheEnd => {
                drop(BytesMut::split_off(&mut buf, cut));
                Some(len)
            }
            Used::SplitWhole => {
                drop(buf.split());
                Some(len)
            }
            Used::Truncated => {
                buf.truncate(cut);
                Some(len)
            }
            Used::Cleared => {
                buf.clear();
                Some(len)
            }
            Used::ClearedBehindTheGuard => {
                BytesMut::clear(&mut buf);
                Some(len)
            }
            Used::SetToNothing => {
                // SAFETY: a length of 0 needs no initialised bytes.
                unsafe { buf.set_len(0) };
                Some(len)
            }
            Used::ReadToTheEndAndCleared => {
                buf.put_bytes(7, capacity - len);
                assert!(buf.chunk_mut().len() > 0); // the reader is at its end
                buf.clear();
                Some(capacity)
            }
            Used::ClearedAndWritten => {
                buf.clear();
                buf.put_bytes(7, cut);
                Some(len)
            }
            Used::GrownOnTheHeap => {
                let more = capacity - len + cut;
                BytesMut::extend_from_slice(&mut buf, &vec![7; more]);
                Some(len + more)
            }
            Used::Frozen => {
                drop(buf.freeze());
                Some(len)
            }
            Used::FrozenAndSliced => {
                let frozen = buf.freeze();
                let slice = frozen.slice(cut / 2..cut);
                drop(frozen);
                drop(slice);
                Some(len)
            }
            Used::DroppedElsewhere => {
                let elsewhere = || {
                    attach(pool);
                    let mut buf = buf; // dropped here
                    buf.advance(cut);
                };
                thread::scope(|scope| scope.spawn(elsewhere).join().unwrap());
                Some(len)
            }
            Used::Detached => {
                drop(buf.detach());
                None
            }
        }
    }
}

#[test]
fn a_return_counts_with_the_most_bytes_that_the_buffer_held_at_once() {
    for used in ALL_USES {
        for (request, len, cut) in [
            (0, 0, 0),
            (64, 64, 33),
            (200, 65, 65),
            (200, 190, 120),
            (1000, 513, 1),
            (100, 4000, 3000), // grows
            (5000, 4097, 4000),
            (2 << 20, 700_000, 600_000), // oversize
            (100, (1 << 20) + 1, 1 << 19),
        ] {
            let pool = by_hand();
            attach(&pool);
            let counted = used.run(&pool, request, len, cut);
            let made = pool.recalibrate();
            let case = format!("{used:?}, {request}, {len}, {cut}");
            let calls = pool.profile().calls();
            assert_eq!(calls, u64::from(counted.is_some()), "{case}");
            if let Some(counted) = counted {
                assert_eq!(made, pure([counted]), "{case}");
            }
        }
    }
}

#[test]
fn an_outgrown_buffer_is_not_counted() {
    let pool = by_hand();
    let mut buf = pool.get(0);
    while buf.len() < 3 << 20 {
        buf.extend_from_slice(&[7; 10_000]);
    }
    buf.reserve(5 << 20);
    assert!(total(&pool).growths > 2);
    pool.recalibrate();
    assert_eq!(pool.profile().calls(), 0);
    drop(buf);
    assert_eq!(pool.recalibrate(), pure([3 << 20]));
    assert_eq!(pool.profile().calls(), 1);
}

fn any_use() -> impl Strategy<Value = (Used, usize, usize, usize)> {
    let size = || {
        prop_oneof![
            4 => 0_usize..300,
            2 => prop::sample::select(vec![0, 1, 63, 64, 65, 128, 129, 1024, 1025]),
            2 => 300_usize..9000,
            1 => 60_000_usize..150_000,
        ]
    };
    let used = prop::sample::select(ALL_USES.to_vec());
    (used, size(), size(), any::<prop::sample::Index>())
        .prop_map(|(used, request, len, cut)| (used, request, len, cut.index(len + 1)))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if crate::SLOW { 2 } else { 96 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    // At whatever return calibrations come by count, each has exactly the returns since the one
    // before. Runs with thresholds up to 30, where each return is a sample, and without the fast
    // path.
    #[test]
    fn each_calibration_uses_exactly_the_lengths_since_the_one_before(
        threshold in prop_oneof![0_u64..40, Just(u64::MAX)],
        percentile in prop::sample::select(vec![0.0, 0.5, PERCENTILE, 1.0]),
        wipe in any::<bool>(),
        cached in any::<bool>(),
        uses in prop::collection::vec((any_use(), 0_usize..40), 1..if crate::SLOW { 12 } else { 150 }),
    ) {
        let pool = by_count(threshold)
            .calibrate_percentile(percentile)
            .thread_cache_bytes(if cached { usize::MAX } else { 0 })
            .zero_on_return(wipe)
            .build()
            .unwrap();
        attach(&pool);
        let mut watch = Watch::new();
        let mut lengths = Histogram::new();
        let mut is_first = true;
        let few = if cached { 30 } else { uses.len() };
        for ((used, request, len, cut), then) in uses.into_iter().take(few) {
            if let Some(len) = used.run(&pool, request, len, cut) {
                lengths.record(len);
            }
            match then {
                0 => _ = pool.trim(),
                1 => _ = pool.clear(),
                2 => _ = pool.recalibrate(),
                _ => {}
            }
            if let Some(calls) = watch.next(&pool) {
                prop_assert_eq!(calls, lengths.calls());
                // Later calibrations also depend on the targets before.
                let pure = lengths.targets(percentile).unwrap();
                let targets = pool.targets();
                prop_assert!(!is_first || targets == pure);
                prop_assert!(targets.max_size >= pure.max_size);
                lengths = Histogram::new();
                is_first = false;
            }
        }
        pool.recalibrate();
        if !lengths.is_empty() {
            prop_assert_eq!(pool.profile().calls(), lengths.calls());
        }
    }

    #[test]
    fn the_order_of_returns_changes_nothing(
        (lengths, shuffled) in prop::collection::vec(0_usize..5000, 1..200)
            .prop_flat_map(|lengths| (Just(lengths.clone()), Just(lengths).prop_shuffle())),
    ) {
        let calibrated = |lengths: &[usize]| {
            let pool = by_hand_of_all();
            lengths.iter().for_each(|&len| use_one(&pool, len, len));
            let made = pool.recalibrate();
            (pool.profile().calls(), made)
        };
        prop_assert_eq!(calibrated(&lengths), calibrated(&shuffled));
        prop_assert_eq!(calibrated(&lengths).1, pure(lengths));
    }
}

// ---- buffers that are emptied before they come back ----

/// A way to empty a buffer of `len` bytes before it returns.
type Empty = fn(&mut PooledBuf, len: usize);

const EMPTY: [(&str, Empty); 7] = [
    ("clear", |buf, _| buf.clear()),
    ("truncate", |buf, _| buf.truncate(0)),
    ("advance", |buf, len| buf.advance(len)),
    ("copy_to_bytes", |buf, len| drop(buf.copy_to_bytes(len))),
    ("split", |buf, _| drop(buf.split())),
    // SAFETY: a length of 0 needs no initialised bytes.
    ("set_len", |buf, _| unsafe { buf.set_len(0) }),
    ("clear behind the guard", |buf, _| BytesMut::clear(buf)),
];

/// Takes many messages of 1 to 2 KiB by `take`, which gets their lengths and empties them. Asserts
/// that the pool learns to keep buffers for them, and serves them all.
fn assert_learns_emptied(name: &str, zero: bool, take: impl Fn(&Pool, usize)) {
    const MESSAGES: usize = rounds(200_000, 2000);
    let pool = Pool::builder()
        .trim_interval(None)
        .calibrate_interval(None)
        .calibrate_after(rounds(42_000, 400) as u64)
        .zero_on_return(zero)
        .build()
        .unwrap();
    let mut half = total(&pool);
    for at in 0..MESSAGES {
        if at == MESSAGES / 2 {
            half = total(&pool);
        }
        // In mixed order, between 1025 and 2048.
        take(&pool, 1025 + at * 7919 % 1024);
    }
    let case = format!("{name}, zero_on_return({zero})");
    assert!(pool.stats().calibrations > 0, "{case}");
    assert_eq!(sizes(pool.targets()), (2048, 2048), "{case}");
    let end = total(&pool);
    assert_eq!(end.misses, half.misses, "{case}");
    assert_eq!(end.discards, half.discards, "{case}");
    assert!(end.hits() >= (MESSAGES - 10) as u64, "{case}: {end:?}");
}

// Failed once: each counted as empty. So the default was the smallest class, and each message grew
// and was freed.
#[test]
fn buffers_emptied_before_they_return_count_with_their_earlier_length() {
    for (name, empty) in EMPTY {
        for zero in [false, true] {
            assert_learns_emptied(name, zero, |pool, len| {
                let mut buf = pool.get_default();
                buf.put_bytes(7, len);
                empty(&mut buf, len);
                assert!(buf.is_empty());
            });
        }
    }
}

#[test]
fn buffers_that_a_message_filled_and_a_reader_probed_count_as_full() {
    for zero in [false, true] {
        assert_learns_emptied("read to the end", zero, |pool, _| {
            let mut buf = pool.get(2048);
            buf.put_bytes(7, 2048);
            assert!(buf.chunk_mut().len() > 0); // at its end, the reader writes nothing
            assert_eq!(buf.capacity(), 2048);
            buf.clear();
        });
    }
}
