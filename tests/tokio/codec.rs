//! `PooledFramedRead`: against `FramedRead` of `tokio_util`, and which buffers come home.

use super::*;
use bytes::{Buf, Bytes, BytesMut};
use std::fmt::Debug;
use tierpool::tokio::PooledFramedRead;
use tokio_util::codec::{
    BytesCodec, Decoder, Encoder, FramedRead, LengthDelimitedCodec, LinesCodec,
};

/// The next frame. Each wait of the source drops the future.
fn next_of<R: AsyncRead + Unpin, D: Decoder>(
    reader: &mut PooledFramedRead<R, D>,
) -> Option<Result<D::Item, D::Error>> {
    loop {
        if let Poll::Ready(frame) = poll_once(reader.next_frame()) {
            return frame;
        }
    }
}

/// Reads all frames, and keeps the last `kept` alive. Returns whether an error ended them.
fn all<R: AsyncRead + Unpin, D: Decoder>(
    reader: &mut PooledFramedRead<R, D>,
    kept: usize,
    mut see: impl FnMut(&D::Item),
) -> bool {
    let mut alive = VecDeque::new();
    loop {
        match next_of(reader) {
            None => return false,
            Some(Err(_)) => return true,
            Some(Ok(frame)) => {
                see(&frame);
                alive.push_back(frame);
                if alive.len() > kept {
                    alive.pop_front();
                }
            }
        }
    }
}

/// Asserts that the frames are those of `FramedRead`.
fn assert_same<D>(input: &[u8], pieces: &[(usize, bool)], size: usize, kept: usize, decoder: D)
where
    D: Decoder + Clone + Unpin,
    D::Item: PartialEq + Debug + Clone,
{
    let source = || Source::new(steps(input, pieces));
    let mut framed = FramedRead::new(source(), decoder.clone());
    let mut expected = Vec::new();
    let failed = loop {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(&mut framed).poll_next(&mut cx) {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => expected.push(frame),
            Poll::Ready(Some(Err(_))) => break true,
            Poll::Ready(None) => break false,
        }
    };
    let pool = Pool::new();
    let mut reader = PooledFramedRead::new(&pool, source(), decoder).buffer_bytes(size);
    let mut got = Vec::new();
    assert_eq!(
        all(&mut reader, kept, |frame| got.push(frame.clone())),
        failed
    );
    assert_eq!(got, expected);
    let polls = reader.get_ref().polls;
    assert!(next_of(&mut reader).is_none() && reader.buffer().is_empty());
    assert_eq!(reader.get_ref().polls, polls);
    drop(got);
    assert_all_home(&pool);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_are_those_of_framed_read(
        sizes in sizes(),
        cut_off in prop_oneof![2 => Just(0usize), 1 => 0..50usize],
        pieces in vec((prop_oneof![1..4usize, 1..3000usize], any::<bool>()), 1..8),
        size in 0..3000usize,
        kept in 0..30usize,
    ) {
        let message = |plain: &Plain| {
            let mut input = Vec::new();
            for (at, &size) in sizes.iter().enumerate() {
                input.extend(plain.encode(size, at as u8));
            }
            input.truncate(input.len().saturating_sub(cut_off));
            input
        };
        let field = Plain::Length { offset: 0, bytes: 4, little: false, adjustment: 0, skip: None };
        let limited = LengthDelimitedCodec::builder().max_frame_length(4000).new_codec();
        for codec in [LengthDelimitedCodec::new(), limited] {
            assert_same(&message(&field), &pieces, size, kept, codec);
        }
        let input = message(&Plain::Delimiter(b"\n".to_vec()));
        for codec in [LinesCodec::new(), LinesCodec::new_with_max_length(4000)] {
            assert_same(&input, &pieces, size, kept, codec);
        }
    }
}

#[test]
fn the_last_line_comes_from_decode_eof_and_half_a_frame_is_an_error() {
    let pool = Pool::new();
    let mut lines = PooledFramedRead::new(&pool, Source::slow(b"one\ntwo"), LinesCodec::new());
    let mut got = Vec::new();
    assert!(!all(&mut lines, 0, |line| got.push(line.clone())));
    assert_eq!(got, ["one", "two"]);
    let half = &b"\0\0\0\x09half"[..];
    let mut frames = PooledFramedRead::new(&pool, half, LengthDelimitedCodec::new());
    assert!(next_of(&mut frames).unwrap().is_err());
    assert!(next_of(&mut frames).is_none());
    assert_all_home(&pool);
}

#[test]
fn errors_are_those_of_the_decoder() {
    let pool = Pool::new();
    // The source's.
    let steps = [Step::Bytes(b"half".to_vec()), Step::Fail, Step::Wait];
    let mut lines = PooledFramedRead::new(&pool, Source::new(steps), LinesCodec::new());
    let error = next_of(&mut lines).unwrap().unwrap_err();
    let error = io::Error::other(error).to_string();
    assert_eq!(
        error,
        io::Error::from(io::ErrorKind::ConnectionReset).to_string()
    );
    assert!(next_of(&mut lines).is_none());
    // The heap's.
    let lines = PooledFramedRead::new(&pool, &b"x"[..], BytesCodec::new());
    let error = next_of(&mut lines.buffer_bytes(usize::MAX))
        .unwrap()
        .unwrap_err();
    let error = error.get_ref().and_then(|error| error.downcast_ref());
    assert!(matches!(error, Some(GetError::TooLarge { .. })));
    // The decoder's.
    let codec = LengthDelimitedCodec::builder()
        .max_frame_length(3)
        .new_codec();
    let mut frames = PooledFramedRead::new(&pool, &b"\0\0\0\x04four"[..], codec);
    let error = next_of(&mut frames).unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(next_of(&mut frames).is_none());
    assert_all_home(&pool);
}

// ---- memory ----

#[test]
fn idle_readers_of_a_codec_hold_no_buffer() {
    const READERS: usize = if cfg!(miri) { 10 } else { 1000 };
    let pool = Pool::new();
    let steps = || {
        [
            Step::Wait,
            Step::Bytes(b"\0\0\0\x02ok".to_vec()),
            Step::Wait,
        ]
    };
    let codec = LengthDelimitedCodec::new;
    let reader = |_| PooledFramedRead::new(&pool, Source::new(steps()), codec());
    let mut readers: Vec<_> = (0..READERS).map(reader).collect();
    let mut poll = || -> Vec<_> {
        let polled = readers
            .iter_mut()
            .map(|reader| poll_times(reader.next_frame(), 1));
        polled.flatten().flatten().map(Result::unwrap).collect()
    };
    assert_eq!((poll().len(), outstanding(&pool)), (0, 0));
    let frames = poll(); // each is a part of its reader's buffer
    assert_eq!(
        (frames.len(), outstanding(&pool)),
        (READERS, READERS as u64)
    );
    drop(frames);
    assert_eq!((poll().len(), outstanding(&pool)), (0, 0)); // they wait again
    assert_eq!(pool.stats().total.discards.total(), 0);
    assert_accounts_balance(&pool);
}

/// Reads 1000 frames of 100 bytes, and keeps some of them alive. Returns the buffers that were freed.
fn freed<D: Decoder>(decoder: D, plain: &Plain, kept: usize, wait: bool) -> u64 {
    let mut steps = Vec::new();
    for batch in 0..100 {
        let frames = (0..10).flat_map(|at| plain.encode(100, batch + at));
        steps.push(Step::Bytes(frames.collect()));
        steps.extend(wait.then_some(Step::Wait));
    }
    let pool = Pool::builder().trim_interval(None).build().unwrap();
    let mut reader = PooledFramedRead::new(&pool, Source::new(steps), decoder);
    let mut count = 0;
    assert!(!all(&mut reader, kept, |_| count += 1));
    assert_eq!(count, 1000);
    assert_all_home(&pool);
    let total = pool.stats().total;
    assert_eq!(total.discards.total(), total.discards.shared);
    total.discards.shared
}

#[test]
fn a_codec_loses_the_buffers_whose_parts_are_kept_and_no_others() {
    let line = Plain::Delimiter(b"\n".to_vec());
    let field = Plain::Length {
        offset: 0,
        bytes: 4,
        little: false,
        adjustment: 0,
        skip: None,
    };
    for wait in [false, true] {
        // It copies each line.
        assert_eq!(freed(LinesCodec::new(), &line, 20, wait), 0);
        // It cuts frames off, and they are dropped before the next call.
        assert_eq!(freed(LengthDelimitedCodec::new(), &field, 0, wait), 0);
    }
    // Frames are kept. Of 104,000 bytes, some 7 KiB are in each buffer.
    let busy = freed(LengthDelimitedCodec::new(), &field, 20, false);
    assert!((12..=18).contains(&busy), "{busy}");
    // A buffer for each of 100 reads, since the reader has to wait in between.
    let waiting = freed(LengthDelimitedCodec::new(), &field, 20, true);
    assert!((90..=100).contains(&waiting), "{waiting}");
}

// ---- decoders that do what they like ----

/// How a decoder leaves the bytes, after it has seen `N` of them.
#[derive(Clone, Copy, Debug)]
enum Whim {
    /// Takes all, and leaves a `BytesMut` without an allocation.
    Take,
    /// Leaves another buffer in the place.
    Exchange,
    /// Makes room for a megabyte.
    Reserve,
    /// Copies all bytes, and returns them one by one.
    Hoard,
    /// Puts the bytes back, twice each, and returns them then.
    PutBack,
}

#[derive(Clone, Debug)]
struct Whimsical {
    whim: Whim,
    hoard: VecDeque<u8>,
}

impl Decoder for Whimsical {
    type Item = Bytes;
    type Error = io::Error;

    fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<Bytes>> {
        match self.whim {
            Whim::Hoard => {
                self.hoard.extend(src.split());
                let first = self.hoard.pop_front();
                return Ok(first.map(|byte| Bytes::copy_from_slice(&[byte])));
            }
            Whim::PutBack if src.is_empty() && !self.hoard.is_empty() => {
                src.extend(self.hoard.drain(..));
                let first = src.split_to(1).freeze();
                return Ok(Some(first));
            }
            Whim::PutBack if src.len() > 1 => {
                // The last byte comes again when there is no buffer.
                self.hoard.push_back(src[src.len() - 1]);
            }
            _ => {}
        }
        if src.is_empty() {
            return Ok(None);
        }
        Ok(Some(match self.whim {
            Whim::Take => std::mem::take(src).freeze(),
            Whim::Exchange => {
                let mut other = BytesMut::with_capacity(600);
                other.extend_from_slice(&src[1..]);
                std::mem::replace(src, other).split_to(1).freeze()
            }
            Whim::Reserve => {
                src.reserve(1 << 20);
                src.copy_to_bytes(1)
            }
            _ => src.split().freeze(),
        }))
    }
}

#[test]
fn a_decoder_may_do_with_the_bytes_what_it_likes() {
    let input = b"some bytes, and more of them";
    let pieces = [(5, true), (3, false), (1, true)];
    for whim in [
        Whim::Take,
        Whim::Exchange,
        Whim::Reserve,
        Whim::Hoard,
        Whim::PutBack,
    ] {
        for kept in [0, 100] {
            let hoard = VecDeque::new();
            assert_same(input, &pieces, 16, kept, Whimsical { whim, hoard });
        }
    }
}

struct Panics(usize);

impl Decoder for Panics {
    type Item = u8;
    type Error = io::Error;

    fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<u8>> {
        self.0 += 1;
        assert!(self.0 != 2, "the decoder panics");
        Ok(src.has_remaining().then(|| src.get_u8()))
    }
}

#[test]
fn a_panic_of_the_decoder_or_the_source_loses_no_byte() {
    let pool = Pool::new();
    let steps = [
        Step::Bytes(b"ab".to_vec()),
        Step::Panic,
        Step::Bytes(b"c".to_vec()),
    ];
    let mut reader = PooledFramedRead::new(&pool, Source::new(steps), Panics(0));
    let mut got = Vec::new();
    let mut panics = 0;
    loop {
        match catch_unwind(AssertUnwindSafe(|| next_of(&mut reader))) {
            Ok(Some(byte)) => got.push(byte.unwrap()),
            Ok(None) => break,
            Err(_) => panics += 1,
        }
    }
    assert_eq!((&got[..], panics), (&b"abc"[..], 2));
    assert_all_home(&pool);
}

// ---- the way out ----

#[test]
fn an_encoder_writes_to_a_guard() {
    let pool = Pool::new();
    let mut codec = LengthDelimitedCodec::new();
    let body = pool.copy_from_slice(b"body").freeze();
    let mut buf = pool.get(64);
    codec.encode(Bytes::from(body), &mut buf).unwrap();
    LinesCodec::new().encode("a line", &mut buf).unwrap();
    assert_eq!(buf, b"\0\0\0\x04bodya line\n");
    drop(buf);
    assert_eq!(pool.stats().total.returns, 2);
    assert_all_home(&pool);
}
