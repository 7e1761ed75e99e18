//! The module `tokio`: frames and chunks against a plain reader, cancellation, memory, and real sockets.
#![cfg(feature = "tokio")]

#[path = "../common"]
mod common {
    pub mod accounts;
}

mod bad_input;
mod cancel;
#[cfg(feature = "codec")]
mod codec;
mod copy;

use common::accounts::assert_accounts_balance;
use futures_core::Stream;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::error::Error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use tierpool::tokio::{
    FrameError, Framing, FramingError, PooledChunks, PooledReader, write_all_vectored,
};
use tierpool::{GetError, Pool, PooledBytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

// ---- sources ----

/// What a source does when it is polled.
#[derive(Debug)]
enum Step {
    Bytes(Vec<u8>),
    Wait,
    Fail,
    Interrupt,
    Panic,
    /// Puts another `ReadBuf` in the place of the caller's.
    Exchange,
    /// Puts there one that begins that many bytes behind it, and fills what is left of its first 4.
    Shift(usize),
}

/// Takes one step at each poll. It is at its end after the last one.
#[derive(Debug, Default)]
struct Source {
    steps: VecDeque<Step>,
    polls: usize,
}

impl Source {
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        let steps = steps.into_iter().collect();
        Source { steps, polls: 0 }
    }

    /// Gives one byte at a time, and waits before each.
    fn slow(bytes: &[u8]) -> Self {
        let steps = bytes
            .iter()
            .flat_map(|&b| [Step::Wait, Step::Bytes(vec![b])]);
        Source::new(steps)
    }
}

/// As [`Box::leak`]. Leak checkers do not count it, since a static has the address.
fn leak<'a, T: 'a>(value: T) -> &'a mut T {
    static LEAKED: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    let leaked = Box::leak(Box::new(value));
    LEAKED
        .lock()
        .unwrap()
        .push(std::ptr::from_mut(leaked).expose_provenance());
    leaked
}

/// A `ReadBuf` without an owner, and full.
fn filled() -> ReadBuf<'static> {
    let mut room = ReadBuf::new(leak([0; 9]));
    room.set_filled(9);
    room
}

impl AsyncRead for Source {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.polls += 1;
        assert!(room.remaining() > 0, "it would look like the end");
        match self.steps.pop_front() {
            None => {}
            Some(Step::Bytes(mut bytes)) => {
                let rest = bytes.split_off(bytes.len().min(room.remaining()));
                room.put_slice(&bytes);
                if !rest.is_empty() {
                    self.steps.push_front(Step::Bytes(rest));
                }
            }
            Some(Step::Wait) => return Poll::Pending,
            Some(Step::Fail) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Some(Step::Interrupt) => return Poll::Ready(Err(io::ErrorKind::Interrupted.into())),
            Some(Step::Panic) => panic!("the source panics"),
            Some(Step::Exchange) => *room = filled(),
            Some(Step::Shift(by)) => {
                let whole = leak(std::mem::replace(room, filled()));
                whole.put_slice(&b"full"[..by]);
                *room = whole.take(4 - by);
                room.put_slice(&b"full"[by..]);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Polls once, and drops the future.
fn poll_once<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls up to `times` times, and drops the future.
fn poll_times<T>(future: impl Future<Output = T>, times: usize) -> Option<T> {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..times {
        if let Poll::Ready(result) = future.as_mut().poll(&mut cx) {
            return Some(result);
        }
    }
    None
}

/// The next frame. Each wait of the source drops the future, or polls the stream again.
fn next<R: AsyncRead + Unpin>(
    reader: &mut PooledReader<R>,
    stream: bool,
) -> Option<Result<PooledBytes, FrameError>> {
    loop {
        let mut cx = Context::from_waker(Waker::noop());
        let polled = match stream {
            true => Pin::new(&mut *reader).poll_next(&mut cx),
            false => poll_once(reader.next_frame()),
        };
        if let Poll::Ready(frame) = polled {
            return frame;
        }
    }
}

fn outstanding(pool: &Pool) -> u64 {
    pool.stats().total.outstanding
}

fn assert_all_home(pool: &Pool) {
    assert_eq!(outstanding(pool), 0);
    assert_accounts_balance(pool);
}

// ---- a plain reader ----

#[derive(Clone, Debug)]
enum Plain {
    Length {
        offset: usize,
        bytes: usize,
        little: bool,
        adjustment: i64,
        skip: Option<usize>,
    },
    Delimiter(Vec<u8>),
}

#[derive(Debug, PartialEq)]
enum End {
    Clean,
    TooLarge(u64),
    Length,
    Incomplete(usize),
}

impl Plain {
    fn framing(&self) -> Framing {
        match self {
            Plain::Length {
                offset,
                bytes,
                little,
                adjustment,
                skip,
            } => {
                let mut field = Framing::length_field()
                    .offset(*offset)
                    .bytes(*bytes)
                    .adjustment(*adjustment);
                if *little {
                    field = field.little_endian();
                }
                if let Some(skip) = skip {
                    field = field.skip(*skip);
                }
                field.build().unwrap()
            }
            Plain::Delimiter(delimiter) => Framing::delimiter(delimiter).unwrap(),
        }
    }

    /// A message with a frame of about `len` bytes.
    fn encode(&self, len: usize, seed: u8) -> Vec<u8> {
        let body =
            |len: usize| (0..len).map(move |at| (at as u8).wrapping_mul(31).wrapping_add(seed));
        match self {
            Plain::Length {
                offset,
                bytes,
                little,
                adjustment,
                skip,
            } => {
                let skip = skip.unwrap_or(offset + bytes);
                let len = len.max((offset + bytes).saturating_sub(skip));
                let field = (len as i64 - adjustment).max(0) as u64;
                let field = field.to_le_bytes();
                let mut message: Vec<u8> = body(skip + len).collect();
                for (at, &byte) in field[..*bytes].iter().enumerate() {
                    let at = if *little { at } else { bytes - 1 - at };
                    message[offset + at] = byte;
                }
                message
            }
            Plain::Delimiter(delimiter) => {
                let mut message: Vec<u8> = body(len).map(|byte| b'a' + byte % 3).collect();
                message.extend_from_slice(delimiter);
                message
            }
        }
    }

    /// The frames of the whole input, and how it ends.
    fn cut(&self, mut input: &[u8], limit: usize) -> (Vec<Vec<u8>>, End) {
        let mut frames = Vec::new();
        while !input.is_empty() {
            let (skip, len, behind) = match self {
                Plain::Length {
                    offset,
                    bytes,
                    little,
                    adjustment,
                    skip,
                } => {
                    let field_end = offset + bytes;
                    let skip = skip.unwrap_or(field_end);
                    if input.len() < field_end.max(skip) {
                        return (frames, End::Incomplete(input.len()));
                    }
                    let mut octets = [0; 16];
                    octets[..*bytes].copy_from_slice(&input[*offset..field_end]);
                    if !little {
                        octets[..*bytes].reverse();
                    }
                    let len = i128::from_le_bytes(octets) + i128::from(*adjustment);
                    if len < 0
                        || len > i128::from(u64::MAX)
                        || len + (skip as i128) < field_end as i128
                    {
                        return (frames, End::Length);
                    }
                    if len > limit as i128 {
                        return (frames, End::TooLarge(len as u64));
                    }
                    (skip, len as usize, 0)
                }
                Plain::Delimiter(delimiter) => {
                    let size = delimiter.len();
                    match input.windows(size).position(|window| window == delimiter) {
                        Some(at) if at <= limit => (0, at, size),
                        _ if input.len() >= limit + size => {
                            return (frames, End::TooLarge(limit as u64 + 1));
                        }
                        _ => return (frames, End::Incomplete(input.len())),
                    }
                }
            };
            if input.len() < skip + len {
                return (frames, End::Incomplete(input.len()));
            }
            frames.push(input[skip..skip + len].to_vec());
            input = &input[skip + len + behind..];
        }
        (frames, End::Clean)
    }
}

fn plain() -> impl Strategy<Value = Plain> {
    let bytes = prop_oneof![1..=8usize, Just(2usize)];
    let length = (
        0..4usize,
        bytes,
        any::<bool>(),
        -6..6i64,
        prop::option::of(0..12usize),
    );
    prop_oneof![
        length.prop_map(|(offset, bytes, little, adjustment, skip)| Plain::Length {
            offset,
            bytes,
            little,
            adjustment,
            skip
        }),
        vec(prop::sample::select(&b"ab"[..]), 1..4).prop_map(Plain::Delimiter),
    ]
}

/// Sizes of frames, most of them small.
fn sizes() -> impl Strategy<Value = Vec<usize>> {
    vec(
        prop_oneof![5 => 0..40usize, 2 => 0..256usize, 1 => 0..5000usize],
        0..20,
    )
}

/// Cuts the input into pieces, with waits between some of them.
fn steps(input: &[u8], pieces: &[(usize, bool)]) -> Vec<Step> {
    let (mut steps, mut rest) = (Vec::new(), input);
    for &(len, wait) in pieces.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, behind) = rest.split_at(len.min(rest.len()));
        steps.push(Step::Bytes(piece.to_vec()));
        steps.extend(wait.then_some(Step::Wait));
        rest = behind;
    }
    steps
}

/// A random source of frames, and how the reader is used.
#[derive(Clone, Debug)]
struct Case {
    plain: Plain,
    sizes: Vec<usize>,
    noise: Vec<u8>,
    cut_off: usize,
    pieces: Vec<(usize, bool)>,
    limit: usize,
    copy_below: usize,
    buffer: usize,
    stream: bool,
    kept: usize,
}

fn case() -> impl Strategy<Value = Case> {
    let pieces = vec((prop_oneof![1..4usize, 1..3000usize], any::<bool>()), 1..8);
    let limit = prop_oneof![3 => Just(8 << 20usize), 1 => 0..300usize];
    let noise = prop_oneof![3 => Just(Vec::new()), 1 => vec(any::<u8>(), 0..60)];
    let cut_off = prop_oneof![2 => Just(0usize), 1 => 0..50usize];
    let usage = (0..300usize, 0..3000usize, any::<bool>(), 0..30usize);
    (plain(), sizes(), noise, cut_off, pieces, limit, usage).prop_map(
        |(plain, sizes, noise, cut_off, pieces, limit, (copy_below, buffer, stream, kept))| Case {
            plain,
            sizes,
            noise,
            cut_off,
            pieces,
            limit,
            copy_below,
            buffer,
            stream,
            kept,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_are_those_that_a_plain_reader_cuts(case in case()) {
        let mut input = Vec::new();
        for (at, &size) in case.sizes.iter().enumerate() {
            input.extend(case.plain.encode(size, at as u8));
        }
        input.extend_from_slice(&case.noise);
        input.truncate(input.len().saturating_sub(case.cut_off));
        let (expected, end) = case.plain.cut(&input, case.limit);

        let pool = Pool::new();
        let source = Source::new(steps(&input, &case.pieces));
        let mut reader = PooledReader::new(&pool, case.plain.framing(), source)
            .max_frame_bytes(case.limit)
            .copy_below(case.copy_below)
            .buffer_bytes(case.buffer);
        let (mut kept, mut count) = (VecDeque::new(), 0);
        let ended = loop {
            match next(&mut reader, case.stream) {
                None => break End::Clean,
                Some(Ok(frame)) => {
                    prop_assert_eq!(Some(&frame[..]), expected.get(count).map(|frame| &frame[..]));
                    kept.push_back((count, frame));
                    count += 1;
                    if kept.len() > case.kept {
                        kept.pop_front();
                    }
                    // What is kept does not change.
                    for (at, frame) in &kept {
                        prop_assert_eq!(&frame[..], &expected[*at][..]);
                    }
                }
                Some(Err(error)) => break match error {
                    FrameError::TooLarge { size, limit, .. } => {
                        prop_assert_eq!(limit, case.limit);
                        End::TooLarge(size)
                    }
                    FrameError::Length { .. } => End::Length,
                    FrameError::Incomplete { received, .. } => End::Incomplete(received),
                    error => panic!("{error}"),
                },
            }
        };
        prop_assert_eq!((count, ended), (expected.len(), end));

        let polls = reader.get_ref().polls;
        prop_assert!(next(&mut reader, case.stream).is_none());
        prop_assert!(reader.buffer().is_empty());
        prop_assert_eq!(reader.into_inner().polls, polls);
        prop_assert!(outstanding(&pool) <= kept.len() as u64);
        drop(kept);
        assert_all_home(&pool);
    }

    #[test]
    fn chunks_are_the_reads(
        input in vec(any::<u8>(), 0..9000),
        pieces in vec((1..3000usize, any::<bool>()), 1..8),
        size in 0..4000usize,
        copy_below in 0..2000usize,
    ) {
        let pool = Pool::new();
        let source = Source::new(steps(&input, &pieces));
        let mut chunks = PooledChunks::new(&pool, source).chunk_bytes(size).copy_below(copy_below);
        let mut got = Vec::new();
        loop {
            match poll_once(chunks.next_chunk()) {
                Poll::Pending => {}
                Poll::Ready(None) => break,
                Poll::Ready(Some(chunk)) => {
                    let chunk = chunk.unwrap();
                    prop_assert!((1..=size.max(1)).contains(&chunk.len()));
                    got.extend_from_slice(&chunk);
                }
            }
            prop_assert_eq!(outstanding(&pool), 0);
        }
        prop_assert_eq!(got, input);
        assert_all_home(&pool);
    }

    #[test]
    fn parts_are_written_in_order_however_little_the_writer_takes(
        lens in vec(prop_oneof![0..4usize, 0..600usize], 0..150),
        takes in vec((1..2000usize, any::<bool>()), 1..8),
        vectored in any::<bool>(),
    ) {
        let pool = Pool::new();
        let part = |(at, &len): (usize, &usize)| pool.copy_from_slice(&vec![at as u8; len]).freeze();
        let mut parts: Vec<PooledBytes> = lens.iter().enumerate().map(part).collect();
        let expected = parts.iter().map(|part| part.to_vec()).collect::<Vec<_>>().concat();
        let mut writer = Writer { written: Vec::new(), takes, calls: 0, vectored };
        loop {
            match poll_once(write_all_vectored(&mut writer, &mut parts)) {
                Poll::Ready(result) => break result.unwrap(),
                // Each byte is written, or left for the next call.
                Poll::Pending => {
                    let left: usize = parts.iter().map(|part| part.len()).sum();
                    prop_assert_eq!(left + writer.written.len(), expected.len());
                    let held = parts.iter().filter(|part| !part.is_empty()).count();
                    prop_assert!(outstanding(&pool) <= held as u64);
                }
            }
        }
        prop_assert_eq!(writer.written, expected);
        assert_all_home(&pool);
    }
}

/// Returns one result after the other, and takes nothing. Notes how many parts it got.
struct Results {
    results: VecDeque<io::Result<usize>>,
    parts: Vec<usize>,
}

impl AsyncWrite for Results {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.parts.push(slices.len());
        Poll::Ready(self.results.pop_front().unwrap())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Writes 100 parts of 2 bytes. Returns the result, the parts of each write, and the bytes left.
fn write_to(
    results: impl IntoIterator<Item = io::Result<usize>>,
) -> (io::Result<()>, Vec<usize>, usize) {
    let pool = Pool::new();
    let mut parts: Vec<_> = (0..100)
        .map(|_| pool.copy_from_slice(b"ab").freeze())
        .collect();
    let mut writer = Results {
        results: results.into_iter().collect(),
        parts: Vec::new(),
    };
    let Poll::Ready(result) = poll_once(write_all_vectored(&mut writer, &mut parts)) else {
        panic!("the writer never waits");
    };
    let left = parts.iter().map(|part| part.len()).sum();
    let held = parts.iter().filter(|part| !part.is_empty()).count();
    assert_eq!(outstanding(&pool), held as u64);
    (result, writer.parts, left)
}

#[test]
fn a_writer_that_fails_or_takes_no_more_leaves_the_bytes_it_did_not_take() {
    for (last, kind) in [
        (Ok(0), io::ErrorKind::WriteZero),
        (
            Err(io::ErrorKind::BrokenPipe.into()),
            io::ErrorKind::BrokenPipe,
        ),
    ] {
        let (result, parts, left) = write_to([Ok(7), last]);
        assert_eq!(result.unwrap_err().kind(), kind);
        assert_eq!((parts, left), (vec![64, 64], 193));
    }
}

#[test]
fn a_writer_that_claims_too_much_loses_no_part_that_it_did_not_get() {
    let (result, parts, left) = write_to([Ok(usize::MAX), Ok(72)]);
    assert!(result.is_ok());
    assert_eq!((parts, left), (vec![64, 36], 0));
}

/// Takes a few bytes at each call, or waits.
struct Writer {
    written: Vec<u8>,
    takes: Vec<(usize, bool)>,
    calls: usize,
    vectored: bool,
}

impl AsyncWrite for Writer {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let (takes, wait) = self.takes[self.calls / 2 % self.takes.len()];
        self.calls += 1;
        if wait && self.calls % 2 == 1 {
            return Poll::Pending;
        }
        let slices = if self.vectored { slices } else { &slices[..1] };
        let bytes = slices.iter().flat_map(|slice| slice.iter()).take(takes);
        let before = self.written.len();
        self.written.extend(bytes);
        Poll::Ready(Ok(self.written.len() - before))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

// ---- memory ----

fn by_two_bytes() -> Framing {
    Framing::length_field().bytes(2).build().unwrap()
}

#[test]
fn idle_readers_hold_no_buffer() {
    const READERS: usize = if cfg!(miri) { 10 } else { 10_000 };
    let pool = Pool::new();
    let steps = || {
        let wait = || Step::Wait;
        let first = Step::Bytes(b"\0".to_vec());
        [
            wait(),
            first,
            wait(),
            Step::Bytes(b"\x02ok".to_vec()),
            wait(),
        ]
    };
    let reader = |_| PooledReader::new(&pool, by_two_bytes(), Source::new(steps()));
    let mut readers: Vec<_> = (0..READERS).map(reader).collect();
    let mut poll = || -> usize {
        let polled = readers
            .iter_mut()
            .map(|reader| poll_once(reader.next_frame()));
        polled.filter(|poll| poll.is_ready()).count() // and drops the frame
    };
    assert_eq!((poll(), outstanding(&pool)), (0, 0));
    assert_eq!((poll(), outstanding(&pool)), (0, READERS as u64)); // each has one byte
    assert_eq!((poll(), outstanding(&pool)), (READERS, 0));
    assert_eq!((poll(), outstanding(&pool)), (0, 0)); // they wait again
    assert_eq!((poll(), outstanding(&pool)), (READERS, 0)); // the end
    assert_accounts_balance(&pool);
}

#[test]
fn a_reader_that_has_only_the_head_of_a_frame_holds_no_buffer() {
    let pool = Pool::new();
    let steps = [b"\x10\0", b"ab"].map(|bytes| Step::Bytes(bytes.to_vec()));
    let steps = steps.into_iter().flat_map(|bytes| [bytes, Step::Wait]);
    let mut reader = PooledReader::new(&pool, by_two_bytes(), Source::new(steps));
    assert!(poll_once(reader.next_frame()).is_pending());
    assert_eq!((reader.buffer(), outstanding(&pool)), (&b""[..], 0));
    assert!(poll_once(reader.next_frame()).is_pending());
    assert_eq!((reader.buffer(), outstanding(&pool)), (&b"ab"[..], 1));
    let end = next(&mut reader, false).unwrap();
    assert!(matches!(
        end,
        Err(FrameError::Incomplete { received: 4, .. })
    ));
    assert_all_home(&pool);
}

#[test]
fn a_small_frame_that_is_copied_keeps_no_receive_buffer_out() {
    let pool = Pool::new();
    for (copy_below, kept) in [(0, 64 << 10), (6, 512), (5, 64 << 10)] {
        let mut reader = PooledReader::new(&pool, by_two_bytes(), &b"\0\x05small"[..])
            .buffer_bytes(64 << 10)
            .copy_below(copy_below);
        let frame = next(&mut reader, false).unwrap().unwrap();
        assert_eq!(frame, "small");
        assert_eq!(pool.stats().total.outstanding_bytes, kept);
    }
    let mut chunks = PooledChunks::new(&pool, &b"small"[..]).copy_below(100);
    let chunk = poll_once(chunks.next_chunk());
    assert!(matches!(chunk, Poll::Ready(Some(Ok(ref chunk))) if chunk == "small"));
    assert_eq!(pool.stats().total.outstanding_bytes, 512);
    drop(chunk);
    assert_all_home(&pool);
}

#[test]
fn a_buffer_behind_a_large_frame_is_small_again() {
    let pool = Pool::new();
    let mut input = b"\xff\xff".to_vec();
    input.resize(2 + 0xffff, b'.');
    input.extend_from_slice(&[0; 2 * 1024]); // empty frames, the first of them read with the large one
    input.push(0);
    let mut reader = PooledReader::new(&pool, by_two_bytes(), &input[..]);
    let large = next(&mut reader, false).unwrap().unwrap();
    let alone = pool.stats().total.outstanding_bytes;
    assert_eq!(alone, 64 << 10); // without the length field
    for _ in 0..1024 {
        assert!(next(&mut reader, false).unwrap().is_ok());
    }
    assert!(next(&mut reader, false).unwrap().is_err());
    assert!(pool.stats().peaks.outstanding_bytes <= alone + (16 << 10));
    drop(large);
    assert_all_home(&pool);
}

#[test]
fn a_delimiter_that_comes_late_makes_the_buffer_grow_by_doubling() {
    // No class is larger, and would round up.
    let pool = Pool::builder().max_size(8 << 10).build().unwrap();
    let mut input = vec![b'.'; 1 << 20];
    input.push(b'\n');
    let newline = Framing::delimiter("\n").unwrap();
    let mut reader = PooledReader::new(&pool, newline, &input[..]);
    assert_eq!(next(&mut reader, false).unwrap().unwrap().len(), 1 << 20);
    let total = pool.stats().total;
    assert!((7..=9).contains(&total.gets), "{}", total.gets); // from 8 KiB to above 1 MiB
    assert_all_home(&pool);
}

#[test]
fn the_last_bytes_of_a_buffer_are_not_read_alone() {
    let pool = Pool::new();
    let first = [&[b'.'; 8180][..], b"\nbegin of "].concat(); // leaves 2 of 8192 bytes
    let second = b"the next line\n".to_vec();
    let source = Source::new([first, second].map(Step::Bytes));
    let mut reader = PooledReader::new(&pool, Framing::delimiter("\n").unwrap(), source);
    assert_eq!(next(&mut reader, false).unwrap().unwrap().len(), 8180);
    assert_eq!(
        next(&mut reader, false).unwrap().unwrap(),
        "begin of the next line"
    );
    assert_eq!(reader.get_ref().polls, 2);
}

#[test]
fn misses_do_not_rise_once_the_pool_is_warm() {
    let plain = Plain::Length {
        offset: 0,
        bytes: 4,
        little: false,
        adjustment: 0,
        skip: None,
    };
    let input: Vec<u8> = (0..200)
        .flat_map(|at| plain.encode(at * 977 % 20_000, 1))
        .collect();
    let pool = Pool::builder().learn_sizes(false).build().unwrap();
    let pass = || {
        let source = Source::new(steps(&input, &[(3000, true), (1, false), (9000, true)]));
        let mut reader = PooledReader::new(&pool, plain.framing(), source);
        let mut kept = VecDeque::new();
        while let Some(frame) = next(&mut reader, false) {
            kept.push_back(frame.unwrap());
            if kept.len() > 8 {
                kept.pop_front();
            }
        }
    };
    pass();
    let warm = pool.stats().total.misses;
    for _ in 0..5 {
        pass();
    }
    assert_eq!(pool.stats().total.misses, warm);
    assert_all_home(&pool);
}

#[cfg(feature = "limit")]
#[test]
fn at_the_limit_of_the_pool_a_reader_waits_and_idle_readers_take_nothing_of_it() {
    let pool = Pool::builder()
        .max_outstanding_bytes(16 << 10)
        .build()
        .unwrap();
    let first = || Step::Bytes(b"\0".to_vec());
    let steps = || Source::new([Step::Wait, first(), Step::Wait]);
    let reader = |_| PooledReader::new(&pool, by_two_bytes(), steps());
    let mut readers: Vec<_> = (0..100).map(reader).collect();
    for reader in &mut readers {
        assert!(poll_once(reader.next_frame()).is_pending());
    }
    let Ok([mut one, mut two, mut three]) = <[_; 3]>::try_from(readers.split_off(97)) else {
        panic!("three");
    };
    assert!(poll_once(one.next_frame()).is_pending());
    assert!(poll_once(two.next_frame()).is_pending()); // both have a byte now
    assert_eq!(pool.stats().total.outstanding_bytes, 16 << 10);
    assert!(poll_once(three.next_frame()).is_pending()); // waits for a buffer
    assert_eq!((three.buffer().len(), pool.stats().waits), (0, 1));
    drop((one, two));
    assert!(poll_once(three.next_frame()).is_pending());
    assert_eq!(three.buffer().len(), 1);
    assert!(poll_once(readers[0].next_frame()).is_pending());
    drop((readers, three));
    assert_all_home(&pool);
    // All of the limit is free.
    assert!(pool.try_get(16 << 10).is_ok());
}

// Failed once: the task then waited behind its own reader.
#[cfg(feature = "limit")]
#[test]
fn a_reader_whose_future_is_given_up_leaves_the_queue_of_the_pool() {
    let builder = Pool::builder().max_outstanding_bytes(8192);
    let pool = builder.build().unwrap();
    let source = || Source::new([Step::Wait]);
    let mut reader = PooledReader::new(&pool, by_two_bytes(), source());
    let mut chunks = PooledChunks::new(&pool, source());
    let held = pool.try_get(8192).unwrap();
    assert!(poll_once(reader.next_frame()).is_pending());
    assert!(poll_once(chunks.next_chunk()).is_pending());
    assert_eq!(pool.stats().waits, 2);
    drop(held);
    assert!(pool.try_get(8192).is_ok());

    // One that is polled keeps its place.
    let held = pool.try_get(8192).unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(reader.poll_next_frame(&mut cx).is_pending());
    drop(held);
    assert!(pool.try_get(8192).is_err());
    drop(reader);
    assert!(pool.try_get(8192).is_ok());
    assert_all_home(&pool);
}

// Each such poll gives back a buffer in which no byte was used.
#[test]
fn the_pool_learns_nothing_from_polls_that_find_nothing() {
    const BODY: usize = 3000;
    const MESSAGES: usize = 60; // each of the first 64 returns is a sample
    let input = [&b"\x0b\xb8"[..], &[7; BODY]].concat();
    let steps = |waits: usize| -> Source {
        let message = || Step::Bytes(input.clone());
        let waits = || (0..waits).map(|_| Step::Wait);
        Source::new((0..MESSAGES).flat_map(|_| waits().chain([message()])))
    };
    let learned = |read: &dyn Fn(&Pool, usize)| {
        let [busy, idle] = [0, 60].map(|waits| {
            let pool = Pool::new();
            read(&pool, waits);
            pool.recalibrate();
            assert_all_home(&pool);
            assert_eq!(pool.stats().total.gets as usize / MESSAGES, 1 + waits);
            let (targets, usage) = (pool.targets(), pool.stats().usage);
            (targets.default_size, targets.max_size, usage)
        });
        assert_eq!(busy, idle);
        assert_eq!(busy.0, 4096);
    };
    learned(&|pool, waits| {
        let mut frames = PooledReader::new(pool, by_two_bytes(), steps(waits));
        while let Some(frame) = next(&mut frames, false) {
            assert_eq!(frame.unwrap().len(), BODY);
        }
    });
    learned(&|pool, waits| {
        let mut chunks = PooledChunks::new(pool, steps(waits));
        while let Some(chunk) = poll_times(chunks.next_chunk(), 100).unwrap() {
            assert_eq!(chunk.unwrap().len(), 2 + BODY);
        }
    });
    learned(&|pool, waits| {
        let mut written = Vec::new();
        let mut reader = steps(waits);
        let copied = tierpool::tokio::copy(pool, &mut reader, &mut written);
        assert!(poll_times(copied, 10_000).unwrap().is_ok());
        assert_eq!(written.len(), MESSAGES * (2 + BODY));
    });
}

// ---- errors ----

#[test]
fn after_an_error_of_the_source_the_buffer_is_home_and_the_source_is_left_alone() {
    let pool = Pool::new();
    let steps = [Step::Bytes(b"\0\x09half".to_vec()), Step::Fail, Step::Wait];
    let mut reader = PooledReader::new(&pool, by_two_bytes(), Source::new(steps));
    let error = next(&mut reader, false).unwrap().unwrap_err();
    let source = error.source().and_then(|source| source.downcast_ref());
    assert_eq!(
        source.map(io::Error::kind),
        Some(io::ErrorKind::ConnectionReset)
    );
    assert_eq!(
        io::Error::from(error).kind(),
        io::ErrorKind::ConnectionReset
    );
    assert!(next(&mut reader, false).is_none());
    assert_eq!(reader.get_ref().polls, 2);
    assert_all_home(&pool);

    let mut chunks = PooledChunks::new(&pool, Source::new([Step::Fail, Step::Wait]));
    assert!(matches!(
        poll_once(chunks.next_chunk()),
        Poll::Ready(Some(Err(_)))
    ));
    assert!(matches!(poll_once(chunks.next_chunk()), Poll::Ready(None)));
    assert_all_home(&pool);
}

#[test]
fn a_length_that_the_heap_refuses_is_an_error() {
    let pool = Pool::new();
    let framing = Framing::length_field().bytes(8).build().unwrap();
    let mut reader = PooledReader::new(&pool, framing, &[0x80; 20][..]).max_frame_bytes(usize::MAX);
    let error = next(&mut reader, false).unwrap().unwrap_err();
    assert!(
        matches!(error, FrameError::NoBuffer(GetError::TooLarge { .. })),
        "{error}"
    );
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidInput);
    assert_all_home(&pool);
}

#[test]
fn nothing_is_reserved_for_a_frame_above_the_limit() {
    let pool = Pool::new();
    let framing = Framing::length_field().build().unwrap();
    let mut reader = PooledReader::new(&pool, framing, &[0x7f; 20][..]);
    let error = next(&mut reader, false).unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "a frame (2139062143 bytes or more) is above max_frame_bytes (8 MiB); raise that, or have the \
         sender send less"
    );
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidData);
    assert!(pool.stats().peaks.footprint_bytes <= 8 << 10);
    assert_all_home(&pool);
}

#[test]
fn a_frame_as_large_as_the_limit_is_returned_and_no_larger_one() {
    let pool = Pool::new();
    for (framing, largest, larger) in [
        (by_two_bytes(), &b"\0\x041234"[..], &b"\0\x0512345"[..]),
        (
            Framing::delimiter("\r\n").unwrap(),
            b"1234\r\n",
            b"12345\r\n",
        ),
    ] {
        for source in [largest, larger] {
            let source_slow = Source::slow(source);
            let mut reader =
                PooledReader::new(&pool, framing.clone(), source_slow).max_frame_bytes(4);
            match next(&mut reader, false).unwrap() {
                Ok(frame) => assert_eq!((&frame[..], source), (&b"1234"[..], largest)),
                Err(FrameError::TooLarge {
                    size: 5, limit: 4, ..
                }) => assert_eq!(source, larger),
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert_all_home(&pool);
}

#[test]
fn a_framing_that_cannot_work_is_refused() {
    let field = Framing::length_field;
    for bytes in [0, 9, usize::MAX] {
        let error = field().bytes(bytes).build().unwrap_err();
        assert!(matches!(error, FramingError::FieldBytes { value, .. } if value == bytes));
    }
    for field in [field().offset(usize::MAX), field().skip(usize::MAX)] {
        let error = field.build().unwrap_err();
        assert!(matches!(error, FramingError::HeadTooLarge { .. }));
    }
    assert_eq!(Framing::delimiter(""), Err(FramingError::EmptyDelimiter));
}

#[test]
fn a_panic_of_the_source_loses_no_byte() {
    let pool = Pool::new();
    let whole = b"\0\x04word";
    for at in 0..whole.len() {
        let (first, second) = whole.split_at(at);
        let first = (at > 0).then(|| Step::Bytes(first.to_vec()));
        let steps = first
            .into_iter()
            .chain([Step::Panic, Step::Bytes(second.to_vec())]);
        let mut reader = PooledReader::new(&pool, by_two_bytes(), Source::new(steps));
        catch_unwind(AssertUnwindSafe(|| next(&mut reader, false))).unwrap_err();
        assert_eq!(next(&mut reader, false).unwrap().unwrap(), "word");
    }
    assert_all_home(&pool);
}

#[test]
fn a_source_that_exchanges_its_room_adds_no_bytes() {
    let pool = Pool::new();
    let steps = [Step::Exchange, Step::Shift(1), Step::Shift(4)];
    let wrong = steps.len();
    let steps = steps.into_iter().chain([Step::Shift(0)]);
    let mut chunks = PooledChunks::new(&pool, Source::new(steps));
    for _ in 0..wrong {
        catch_unwind(AssertUnwindSafe(|| poll_once(chunks.next_chunk()))).unwrap_err();
    }
    // A part of the room that begins where the room does is as good as all of it.
    let chunk = poll_once(chunks.next_chunk());
    assert!(matches!(chunk, Poll::Ready(Some(Ok(ref chunk))) if chunk == "full"));
    drop(chunk);
    assert_all_home(&pool);
}

#[test]
fn a_byte_at_a_time_with_each_future_dropped_gives_all_frames() {
    let pool = Pool::new();
    let input = b"\0\x05hello\0\0\0\x03and\0\x05world";
    let mut reader = PooledReader::new(&pool, by_two_bytes(), Source::slow(input));
    for word in ["hello", "", "and", "world"] {
        assert_eq!(next(&mut reader, false).unwrap().unwrap(), word);
    }
    assert!(next(&mut reader, false).is_none());
    assert_eq!(reader.get_ref().polls, 2 * input.len() + 1);
    assert_all_home(&pool);
}

// ---- sockets ----

/// Returns each frame to its sender, until the input ends or fails.
async fn echo(mut socket: TcpStream, pool: Pool) -> (usize, Result<(), FrameError>) {
    let (from, mut to) = socket.split();
    let framing = Framing::length_field()
        .skip(0)
        .adjustment(4)
        .build()
        .unwrap();
    let mut frames = PooledReader::new(&pool, framing, from).copy_below(100);
    let mut count = 0;
    while let Some(frame) = frames.next_frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return (count, Err(error)),
        };
        count += 1;
        if write_all_vectored(&mut to, &mut [frame]).await.is_err() {
            break; // the client is gone
        }
    }
    (count, Ok(()))
}

fn message(len: usize) -> Vec<u8> {
    let mut message = (len as u32).to_be_bytes().to_vec();
    message.resize(4 + len, len as u8);
    message
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_survives_half_closed_and_vanishing_clients() {
    const CLIENTS: usize = 12;
    let pool = Pool::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (mut clients, mut servers) = (JoinSet::new(), JoinSet::new());
    for kind in 0..CLIENTS {
        clients.spawn(async move {
            let input: Vec<u8> = (0..50).flat_map(|at| message(at * at * 7)).collect();
            let socket = TcpStream::connect(address).await.unwrap();
            let (mut from, mut to) = socket.into_split();
            match kind % 3 {
                // Closes its side, and reads all answers.
                0 => {
                    let sender = tokio::spawn(async move {
                        to.write_all(&input).await.unwrap();
                        to.shutdown().await.unwrap();
                        input
                    });
                    let mut output = Vec::new();
                    from.read_to_end(&mut output).await.unwrap();
                    assert!(sender.await.unwrap() == output);
                }
                // Vanishes within a frame, with answers unread.
                1 => {
                    to.write_all(&input[..40_001]).await.unwrap();
                }
                // Closes its side within a frame.
                _ => {
                    to.write_all(b"\0\0\0\x09half").await.unwrap();
                    to.shutdown().await.unwrap();
                    assert_eq!(from.read(&mut [0; 9]).await.unwrap(), 0);
                }
            }
        });
        let (socket, _) = listener.accept().await.unwrap();
        servers.spawn(echo(socket, pool.clone()));
    }
    clients.join_all().await;
    let ended = servers.join_all().await;
    let clean = ended
        .iter()
        .filter(|(count, end)| *count == 50 && end.is_ok());
    assert_eq!(clean.count(), CLIENTS / 3);
    let halves = ended.iter().filter(|(count, end)| {
        *count == 0 && matches!(end, Err(FrameError::Incomplete { received: 8, .. }))
    });
    assert_eq!(halves.count(), CLIENTS / 3);
    assert_all_home(&pool);
}
