//! Code of the user that panics or returns wrong values, at each call of it. Also threads that a
//! panic ends.
//!
//! The guard keeps its earlier contents and comes home, and the pool works on.

use crate::{
    assert_accounts_balance, assert_idle_buffers_are_disjoint_and_whole, options, pool_of, rounds,
    total,
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;
use tierpool::{Histogram, Pool, PooledBuf, PooledBytes, SizeClasses};

const CLASSES: [usize; 4] = [64, 100, 300, 1000];

/// Panics at one chosen call of code that the user passed in.
#[derive(Debug)]
struct Fuse(Cell<usize>);

impl Fuse {
    fn new(calls: usize) -> Self {
        Fuse(Cell::new(calls))
    }

    /// Counts a call of the user's code.
    fn burn(&self) {
        match self.0.get().checked_sub(1) {
            Some(left) => self.0.set(left),
            None => resume_unwind(Box::new("the user's panic")),
        }
    }

    /// Counts a call of a destructor, which must not panic while the thread unwinds.
    fn burn_in_drop(&self) {
        if !thread::panicking() {
            self.burn();
        }
    }
}

/// Runs `work` once for each of its calls, and lets that call panic. Returns the number of calls.
fn at_each_call(mut work: impl FnMut(&Fuse) -> thread::Result<()>) -> usize {
    for calls in 0.. {
        if work(&Fuse::new(calls)).is_ok() {
            return calls;
        }
    }
    unreachable!("the calls come to an end")
}

/// The byte at a place of a source.
fn byte(at: usize) -> u8 {
    (at * 31 % 251) as u8
}

/// Lets `write` write to guards of several kinds. Asserts that each guard has its earlier contents
/// and a beginning of the source, and works on.
fn write_at_each_call(len: usize, write: impl Fn(&mut PooledBuf, &Fuse)) {
    for zero in [false, true] {
        let pool = options(&CLASSES).zero_on_return(zero).build().unwrap();
        for consumed in [0, 7] {
            let calls = at_each_call(|fuse| {
                let mut buf = pool.get(64);
                buf.put_bytes(b'<', 10);
                buf.advance(consumed);
                let outcome = catch_unwind(AssertUnwindSafe(|| write(&mut buf, fuse)));
                let (before, written) = buf.split_at(10 - consumed);
                assert!(before.iter().all(|&byte| byte == b'<'));
                assert!(written.len() <= len);
                assert!(
                    written
                        .iter()
                        .enumerate()
                        .all(|(at, &seen)| seen == byte(at))
                );
                if outcome.is_ok() {
                    assert_eq!(written.len(), len);
                }
                let so_far = buf.len();
                buf.put_bytes(b'>', 200);
                assert_eq!(buf[so_far..], [b'>'; 200]);
                drop(buf);
                assert_eq!(total(&pool).outstanding, 0);
                outcome
            });
            assert!(calls > 3, "it calls the source");
        }
        assert_accounts_balance(&pool);
        assert_eq!(total(&pool).discards.total(), 0);
        assert_idle_buffers_are_disjoint_and_whole(&pool);
    }
}

// ---- iterators ----

/// An iterator over a source, which panics at the call that the fuse selects.
struct Bytewise<'a> {
    fuse: &'a Fuse,
    at: usize,
    len: usize,
    hint: (usize, Option<usize>),
}

impl<'a> Bytewise<'a> {
    fn new(fuse: &'a Fuse, len: usize) -> Self {
        Bytewise {
            fuse,
            at: 0,
            len,
            hint: (0, None),
        }
    }
}

impl Iterator for Bytewise<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        self.fuse.burn();
        let at = self.at;
        self.at += 1;
        (at < self.len).then(|| byte(at))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.fuse.burn();
        self.hint
    }
}

impl Drop for Bytewise<'_> {
    fn drop(&mut self) {
        self.fuse.burn_in_drop();
    }
}

/// Becomes such an iterator, or panics.
struct Becomes<'a>(Bytewise<'a>);

impl<'a> IntoIterator for Becomes<'a> {
    type Item = u8;
    type IntoIter = Bytewise<'a>;

    fn into_iter(self) -> Bytewise<'a> {
        self.0.fuse.burn();
        self.0
    }
}

#[test]
fn an_iterator_may_panic_at_each_call_inside_extend() {
    const LEN: usize = rounds(700, 70);
    write_at_each_call(LEN, |buf, fuse| {
        buf.extend(Becomes(Bytewise::new(fuse, LEN)));
    });
    // One hint makes the guard grow first, and one is too low.
    for hint in [(LEN, Some(LEN)), (5, Some(6))] {
        write_at_each_call(LEN, |buf, fuse| {
            let mut bytes = Bytewise::new(fuse, LEN);
            bytes.hint = hint;
            buf.extend(bytes);
        });
    }
    let contents: Vec<u8> = (0..LEN).map(byte).collect();
    write_at_each_call(LEN, |buf, fuse| {
        buf.extend(contents.iter().inspect(|_| fuse.burn()));
    });
}

/// The message with which `work` panics.
fn message_of(work: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(work)).expect_err("it panics");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => String::from(*payload.downcast::<&str>().expect("a message")),
    }
}

#[test]
fn a_hint_above_all_capacities_panics_as_a_vector_does_and_loses_nothing() {
    let lying = |lower: usize| {
        let mut left = 3;
        let bytes = std::iter::from_fn(move || {
            left -= 1;
            (left > 0).then_some(1_u8)
        });
        Hinted { bytes, lower }
    };
    struct Hinted<I> {
        bytes: I,
        lower: usize,
    }
    impl<I: Iterator<Item = u8>> Iterator for Hinted<I> {
        type Item = u8;
        fn next(&mut self) -> Option<u8> {
            self.bytes.next()
        }
        fn size_hint(&self) -> (usize, Option<usize>) {
            (self.lower, None)
        }
    }
    // In a class, in the largest, above it, and adopted.
    for size in [64, 1000, 5000, 0] {
        for lower in [usize::MAX, usize::MAX - 4, isize::MAX as usize + 1] {
            let pool = pool_of(&CLASSES);
            let mut buf = match size {
                0 => pool.adopt(BytesMut::with_capacity(70)),
                size => pool.get(size),
            };
            buf.put_slice(b"here");
            let before = pool.stats();
            let mut vector = Vec::from(*b"here");
            let expected = message_of(|| vector.extend(lying(lower)));
            assert_eq!(expected, "capacity overflow");
            let message = message_of(|| buf.extend(lying(lower)));
            assert!(message.starts_with(&expected), "{size}: {message}");
            assert!(message.contains(&lower.to_string()), "{message}");
            assert_eq!(buf[..], *b"here");
            assert_eq!(pool.stats(), before);
            buf.put_slice(b" still");
            assert_eq!(buf[..], *b"here still");
            drop(buf);
            assert_eq!(total(&pool).outstanding, 0);
            assert_accounts_balance(&pool);
        }
    }
}

// ---- sources ----

/// A source in pieces, which panics at the call that the fuse selects.
struct Pieces<'a> {
    fuse: &'a Fuse,
    contents: &'a [u8],
    at: usize,
    piece: usize,
}

impl<'a> Pieces<'a> {
    fn new(fuse: &'a Fuse, contents: &'a [u8], piece: usize) -> Self {
        Pieces {
            fuse,
            contents,
            at: 0,
            piece,
        }
    }
}

impl Buf for Pieces<'_> {
    fn remaining(&self) -> usize {
        self.fuse.burn();
        self.contents.len() - self.at
    }

    fn chunk(&self) -> &[u8] {
        self.fuse.burn();
        let end = self.contents.len().min(self.at + self.piece);
        &self.contents[self.at..end]
    }

    fn advance(&mut self, count: usize) {
        self.fuse.burn();
        self.at += count;
    }
}

impl Drop for Pieces<'_> {
    fn drop(&mut self) {
        self.fuse.burn_in_drop();
    }
}

#[test]
fn a_source_may_panic_at_each_call_inside_put() {
    const LEN: usize = 700;
    let contents: Vec<u8> = (0..LEN).map(byte).collect();
    for piece in [1000, 300, rounds(11, 150)] {
        write_at_each_call(LEN, |buf, fuse| {
            buf.put(Pieces::new(fuse, &contents, piece));
        });
    }
    // Several sources, chained by the library's adaptors.
    write_at_each_call(LEN, |buf, fuse| {
        let (front, back) = contents.split_at(200);
        let chain = Pieces::new(fuse, front, 90).chain(Pieces::new(fuse, back, 120));
        buf.put(chain.take(LEN));
    });
}

/// A source whose `remaining` is too large or too small.
struct Lying<'a> {
    contents: &'a [u8],
    says: isize,
}

impl Buf for Lying<'_> {
    fn remaining(&self) -> usize {
        self.contents.len().saturating_add_signed(self.says)
    }

    fn chunk(&self) -> &[u8] {
        self.contents
    }

    fn advance(&mut self, count: usize) {
        self.contents = &self.contents[count..];
    }
}

#[test]
fn a_source_with_a_wrong_remaining_loses_nothing() {
    let contents: Vec<u8> = (0..500).map(byte).collect();
    for (says, panics) in [
        (-500, None),
        (-499, None),
        (-1, None),
        (1, Some("put: the source has")),
        (400, Some("put: the source has")),
        (isize::MAX, Some("capacity overflow")),
    ] {
        let pool = pool_of(&CLASSES);
        let mut buf = pool.get(64);
        buf.put_slice(b"here");
        let put = |buf: &mut PooledBuf| {
            buf.put(Lying {
                contents: &contents,
                says,
            });
        };
        match panics {
            Some(why) => {
                let message = message_of(|| put(&mut buf));
                assert!(message.starts_with(why), "{message}");
            }
            None => put(&mut buf),
        }
        let (before, written) = buf.split_at(4);
        assert_eq!(*before, *b"here");
        let all = matches!(says, -499..=400);
        assert_eq!(*written, contents[..if all { 500 } else { 0 }], "{says}");
        buf.put_slice(b"still");
        drop(buf);
        assert_eq!(total(&pool).outstanding, 0);
        assert_accounts_balance(&pool);
    }
}

#[test]
fn an_owner_of_foreign_bytes_may_panic_when_it_ends() {
    struct Owner<'a>(&'a [u8], Arc<Mutex<usize>>);
    impl AsRef<[u8]> for Owner<'_> {
        fn as_ref(&self) -> &[u8] {
            self.0
        }
    }
    impl Drop for Owner<'_> {
        fn drop(&mut self) {
            *self.1.lock().unwrap() += 1;
            resume_unwind(Box::new("the user's panic"));
        }
    }
    let ended = Arc::new(Mutex::new(0));
    let pool = pool_of(&CLASSES);
    let mut buf = pool.get(64);
    buf.put_slice(b"<");
    let foreign = Bytes::from_owner(Owner(b"foreign", Arc::clone(&ended)));
    catch_unwind(AssertUnwindSafe(|| buf.put(foreign))).unwrap_err();
    assert_eq!((&buf[..], *ended.lock().unwrap()), (&b"<foreign"[..], 1));
    // Turned into a buffer, and adopted.
    let foreign = Bytes::from_owner(Owner(b"foreign", Arc::clone(&ended)));
    catch_unwind(AssertUnwindSafe(|| drop(pool.adopt(foreign.into())))).unwrap_err();
    assert_eq!(*ended.lock().unwrap(), 2);
    drop(buf);
    assert_eq!(total(&pool).outstanding, 0);
    assert_accounts_balance(&pool);
}

// ---- printing ----

/// Prints a source piece by piece, and panics at the call that the fuse selects.
struct Printed<'a>(&'a Fuse, usize);

impl fmt::Display for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.burn();
        for at in 0..self.1 {
            write!(f, "{}", at % 10)?;
            self.0.burn();
        }
        Ok(())
    }
}

#[test]
fn a_value_that_is_printed_to_a_guard_may_panic() {
    const LEN: usize = 200;
    let pool = pool_of(&CLASSES);
    let text: String = (0..LEN)
        .map(|at| char::from(b'0' + (at % 10) as u8))
        .collect();
    for as_text in [false, true] {
        at_each_call(|fuse| {
            let mut buf = pool.get(64);
            let outcome = catch_unwind(AssertUnwindSafe(|| match as_text {
                true => fmt::Write::write_fmt(&mut buf, format_args!("{}", Printed(fuse, LEN))),
                false => io::Write::write_fmt(&mut buf, format_args!("{}", Printed(fuse, LEN)))
                    .map_err(|_| fmt::Error),
            }));
            assert_eq!(buf[..], text.as_bytes()[..buf.len()]);
            drop(buf);
            assert_eq!(total(&pool).outstanding, 0);
            outcome.map(|written| written.unwrap())
        });
    }
    assert_accounts_balance(&pool);
}

/// Takes this many bytes of text, and then fails or panics.
struct Sink {
    room: usize,
    panics: bool,
    taken: String,
}

impl fmt::Write for Sink {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.taken.len() + text.len() > self.room {
            if self.panics {
                resume_unwind(Box::new("the user's panic"));
            }
            return Err(fmt::Error);
        }
        self.taken.push_str(text);
        Ok(())
    }
}

#[test]
fn the_sink_that_a_pool_is_printed_to_may_fail_or_panic_at_each_place() {
    let pool = pool_of(&CLASSES);
    let mut buf = pool.get(64);
    buf.put_slice(b"held\0");
    drop((pool.get(64), pool.get(5000)));
    let stats = pool.stats();
    let no_classes = Pool::builder().classes([]).build().unwrap_err();
    let not_fitted = SizeClasses::fit(&Histogram::new(), 1).unwrap_err();
    let refused = pool.try_get(usize::MAX).unwrap_err();
    type Print<'a> = &'a dyn Fn(&mut Sink) -> fmt::Result;
    let prints: [Print<'_>; 8] = [
        &|sink| write!(sink, "{stats}"),
        &|sink| write!(sink, "{stats:?}"),
        &|sink| write!(sink, "{pool:?}"),
        &|sink| write!(sink, "{buf:?}"),
        &|sink| write!(sink, "{:?}", pool.profile()),
        &|sink| write!(sink, "{no_classes} {no_classes:?}"),
        &|sink| write!(sink, "{not_fitted} {not_fitted:?}"),
        &|sink| write!(sink, "{refused} {refused:?}"),
    ];
    for print in prints {
        let mut all = Sink {
            room: usize::MAX,
            panics: false,
            taken: String::new(),
        };
        print(&mut all).unwrap();
        assert!(!all.taken.is_empty());
        for room in (0..all.taken.len()).step_by(rounds(1, 50)) {
            for panics in [false, true] {
                let mut sink = Sink {
                    room,
                    panics,
                    taken: String::new(),
                };
                let outcome = catch_unwind(AssertUnwindSafe(|| print(&mut sink)));
                match panics {
                    true => assert!(outcome.is_err()),
                    false => assert_eq!(outcome.unwrap(), Err(fmt::Error)),
                }
                assert!(all.taken.starts_with(&sink.taken));
            }
        }
    }
    assert_eq!(pool.stats(), stats, "printing changes nothing");
    drop(buf);
    assert_accounts_balance(&pool);
}

// ---- readers and writers that borrow a guard ----

#[test]
fn code_that_borrows_a_guard_may_panic() {
    type Borrow = fn(&mut PooledBuf);
    let ways: [(&str, &[u8], Borrow); 6] = [
        ("room asked for", b"before", |buf| {
            let room = buf.chunk_mut();
            room[..3].copy_from_slice(b"abc");
        }),
        ("room filled", b"beforeabc", |buf| {
            buf.chunk_mut()[..3].copy_from_slice(b"abc");
            // SAFETY: the line before wrote these three bytes.
            unsafe { buf.advance_mut(3) };
        }),
        ("grown behind the guard", b"before", |buf| {
            BytesMut::reserve(buf, 5000);
        }),
        ("split", b"ore", |buf| drop(buf.split_to(3))),
        ("taken out", b"", |buf| drop(std::mem::take(&mut **buf))),
        ("exchanged", b"other", |buf| **buf = BytesMut::from("other")),
    ];
    for (name, left, borrow) in ways {
        let pool = pool_of(&CLASSES);
        let mut buf = pool.get(64);
        buf.put_slice(b"before");
        let caught = catch_unwind(AssertUnwindSafe(|| {
            borrow(&mut buf);
            resume_unwind(Box::new("the user's panic"));
        }));
        assert!(caught.is_err());
        assert_eq!(buf[..], *left, "{name}");
        buf.put_bytes(1, 400);
        drop(buf);
        assert_eq!(total(&pool).outstanding, 0, "{name}");
        assert_accounts_balance(&pool);
        assert_idle_buffers_are_disjoint_and_whole(&pool);
    }
}

#[test]
fn a_reader_that_panics_while_it_fills_a_guard_loses_nothing() {
    struct Reader(usize);
    impl Read for Reader {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.0 -= 1;
            if self.0 == 0 {
                resume_unwind(Box::new("the user's panic"));
            }
            let some = into.len().min(60);
            into[..some].fill(b'r');
            Ok(some)
        }
    }
    let pool = pool_of(&CLASSES);
    for reads in 1..8 {
        let mut buf = pool.get(64);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            io::copy(&mut Reader(reads), &mut (&mut buf).writer())
        }));
        assert!(caught.is_err());
        assert!(buf.iter().all(|&byte| byte == b'r'));
        drop(buf);
        assert_eq!(total(&pool).outstanding, 0);
    }
    assert_accounts_balance(&pool);
}

// ---- options, histograms, profiles ----

#[test]
fn an_iterator_may_panic_at_each_call_inside_the_options() {
    struct Sizes<'a>(&'a Fuse, std::ops::Range<usize>);
    impl Iterator for Sizes<'_> {
        type Item = usize;
        fn next(&mut self) -> Option<usize> {
            self.0.burn();
            self.1.next().map(|at| 64 << at)
        }
        fn size_hint(&self) -> (usize, Option<usize>) {
            self.0.burn();
            (usize::MAX, None) // a lie
        }
    }
    impl Drop for Sizes<'_> {
        fn drop(&mut self) {
            self.0.burn_in_drop();
        }
    }
    let calls = at_each_call(|fuse| {
        let options = catch_unwind(AssertUnwindSafe(|| {
            Pool::builder().classes(Sizes(fuse, 0..5))
        }))?;
        assert_eq!(
            options.build().unwrap().classes(),
            [64, 128, 256, 512, 1024]
        );
        Ok(())
    });
    assert!(calls > 6);

    struct Interval<'a>(&'a Fuse);
    impl From<Interval<'_>> for Option<Duration> {
        fn from(interval: Interval<'_>) -> Self {
            interval.0.burn();
            Some(Duration::from_secs(1))
        }
    }
    let calls = at_each_call(|fuse| {
        let options = Pool::builder();
        let options = catch_unwind(AssertUnwindSafe(|| options.trim_interval(Interval(fuse))))?;
        let options = catch_unwind(AssertUnwindSafe(|| {
            options.calibrate_interval(Interval(fuse))
        }))?;
        options.build().unwrap();
        Ok(())
    });
    assert_eq!(calls, 2);
}

#[test]
fn a_histogram_keeps_the_sizes_before_a_panic_of_the_iterator() {
    let all = [1_usize, 100, 100, 4000, usize::MAX];
    for panics_at in 0..all.len() {
        let sizes = || {
            all.into_iter().enumerate().map(|(at, size)| match at {
                at if at == panics_at => resume_unwind(Box::new("the user's panic")),
                _ => size,
            })
        };
        let mut histogram = Histogram::new();
        let caught = catch_unwind(AssertUnwindSafe(|| histogram.extend(sizes())));
        assert!(caught.is_err());
        let so_far: Histogram = all[..panics_at].iter().copied().collect();
        assert_eq!(histogram, so_far);
        assert!(catch_unwind(|| sizes().collect::<Histogram>()).is_err());
    }
}

#[cfg(feature = "serde")]
#[test]
fn a_reader_or_writer_of_a_profile_may_fail_or_panic_at_each_place() {
    struct Slow<'a> {
        saved: &'a mut Vec<u8>,
        room: usize,
        panics: bool,
    }
    impl Slow<'_> {
        fn burn(&mut self) -> io::Result<()> {
            match self.room.checked_sub(1) {
                Some(left) => self.room = left,
                None if self.panics => resume_unwind(Box::new("the user's panic")),
                None => return Err(io::Error::other("the user's error")),
            }
            Ok(())
        }
    }
    impl io::Write for Slow<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.burn()?;
            self.saved.write(&bytes[..1])
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.burn()?;
            (&self.saved[self.saved.len() - 1 - self.room..][..1]).read(into)
        }
    }
    let pool = pool_of(&CLASSES);
    (0..10).for_each(|_| pool.get(64).put_bytes(1, 60));
    pool.recalibrate();
    let stats = pool.stats();
    let whole = serde_json::to_vec(&pool.profile()).unwrap();
    for room in 0..whole.len() {
        for panics in [false, true] {
            let mut saved = Vec::new();
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let slow = Slow {
                    saved: &mut saved,
                    room,
                    panics,
                };
                serde_json::to_writer(slow, &pool.profile())
            }));
            assert_eq!(outcome.is_err(), panics);
            assert!(outcome.map_or(true, |saved| saved.is_err()));
            assert_eq!(saved, whole[..room]);

            let mut saved = whole[..room].to_vec();
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let slow = Slow {
                    saved: &mut saved,
                    room,
                    panics,
                };
                serde_json::from_reader::<_, tierpool::Profile>(slow)
            }));
            assert_eq!(outcome.is_err(), panics);
            assert!(outcome.map_or(true, |read| read.is_err()));
        }
    }
    assert_eq!(pool.stats(), stats);
}

// ---- threads that a panic ends ----

/// A source that panics after its last piece.
fn panicking_source(contents: &[u8]) -> impl Buf + '_ {
    struct End;
    impl Buf for End {
        fn remaining(&self) -> usize {
            100
        }
        fn chunk(&self) -> &[u8] {
            resume_unwind(Box::new("the user's panic"))
        }
        fn advance(&mut self, _: usize) {}
    }
    Buf::chain(contents, End)
}

/// Ends the thread by a panic, at one of several places, while it holds many buffers.
fn die(pool: Pool, place: usize) {
    let other = pool.clone();
    let mut held: Vec<PooledBuf> = (0..40).map(|at| pool.get(at * 30)).collect();
    held.iter_mut().for_each(|buf| buf.put_bytes(1, 20));
    let frozen: Vec<PooledBytes> = held.drain(..10).map(PooledBuf::freeze).collect();
    let parts: Vec<PooledBytes> = frozen.iter().map(|all| all.slice(3..9)).collect();
    drop(held.drain(..10)); // into its cache
    let mut growing = pool.get(64);
    let fuse = Fuse::new(120);
    match place % 5 {
        0 => (),
        1 => growing.put(panicking_source(&[2; 700])), // after it has grown
        2 => growing.extend(Bytewise::new(&fuse, 500)), // between two pieces
        3 => {
            drop((pool, other)); // the handles are dropped first
            growing.put(panicking_source(&[2; 90]));
        }
        _ => {
            let split = BytesMut::split_off(&mut growing, 32);
            growing.unsplit(split);
            drop(frozen);
        }
    }
    drop(parts);
    resume_unwind(Box::new("the user's panic"));
}

#[test]
fn threads_that_a_panic_ends_leave_their_buffers_to_others() {
    for threads in [1, 2, 4] {
        let pool = pool_of(&CLASSES);
        for round in 0..rounds(10, 1) {
            let start = Barrier::new(threads);
            thread::scope(|scope| {
                let dying: Vec<_> = (0..threads)
                    .map(|at| {
                        let (pool, start) = (pool.clone(), &start);
                        scope.spawn(move || {
                            start.wait();
                            die(pool, round + at);
                        })
                    })
                    .collect();
                for thread in dying {
                    assert!(thread.join().is_err());
                }
            });
            assert_eq!(total(&pool).outstanding, 0);
            assert_accounts_balance(&pool);
        }
        let after = total(&pool);
        assert!(after.retained_buffers > 0);
        assert_idle_buffers_are_disjoint_and_whole(&pool);
        // The next thread inherits the caches and goes on.
        thread::scope(|scope| {
            scope.spawn(|| drop(pool.get(64))).join().unwrap();
        });
        pool.clear();
        assert_eq!(total(&pool).retained_buffers, 0);
        assert_accounts_balance(&pool);
    }
}

#[test]
fn a_thread_that_a_panic_ends_may_have_had_the_last_handle() {
    for place in 0..5 {
        let pool = pool_of(&CLASSES);
        let mut kept = pool.get(64);
        kept.put_slice(b"kept");
        let frozen = {
            let mut buf = pool.get(300);
            buf.put_bytes(9, 300);
            buf.freeze()
        };
        let part = frozen.slice(100..);
        let ended = thread::spawn(move || {
            let _part = part;
            die(pool, place);
        });
        assert!(ended.join().is_err());
        assert_eq!((&kept[..], &frozen[..]), (&b"kept"[..], &[9; 300][..]));
        kept.put_bytes(b'!', 2000);
        assert_eq!(kept.len(), 2004);
    }
}

#[test]
fn a_scope_that_a_panic_ends_returns_its_guards() {
    let pool = pool_of(&CLASSES);
    let caught = catch_unwind(AssertUnwindSafe(|| {
        thread::scope(|scope| {
            let mut lent = pool.get(300);
            let thread = scope.spawn(move || {
                lent.put_bytes(1, 500);
                resume_unwind(Box::new("the user's panic"));
            });
            // The end of a scope does not wait for the thread's destructors, which move the buffer.
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        });
    }));
    assert!(caught.is_err());
    assert_eq!(total(&pool).outstanding, 0);
    assert_accounts_balance(&pool);
}
