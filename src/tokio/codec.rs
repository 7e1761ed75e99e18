//! A reader of the frames that a decoder of `tokio_util` cuts, which gives its buffer back when it is empty.

use super::poll_room;
use super::turn::{Turn, until_ready};
use crate::buf::PooledBuf;
use crate::io::SIZE_DEFAULT;
use crate::pool::Pool;
use ::bytes::BytesMut;
use ::tokio::io::AsyncRead;
use ::tokio_util::codec::Decoder;
use futures_core::Stream;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Returns the frames that a [`Decoder`] finds in the bytes of `R`, read into buffers of a pool.
///
/// It is a [`Stream`], as `tokio_util::codec::FramedRead`, for codecs that you have already. It needs the
/// feature `codec`. For a length field or a delimiter, [`PooledReader`](super::PooledReader) costs less.
///
/// ```
/// use tierpool::Pool;
/// use tierpool::tokio::PooledFramedRead;
/// use tokio_util::codec::LinesCodec;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::new();
/// let mut lines = PooledFramedRead::new(&pool, &b"one\ntwo\n"[..], LinesCodec::new());
/// let mut got = Vec::new();
/// while let Some(line) = lines.next_frame().await {
///     got.push(line?);
/// }
/// assert_eq!(got, ["one", "two"]);
/// assert_eq!(pool.stats().total.discards.shared, 0); // `LinesCodec` copies each line
/// # Ok(())
/// # }
/// ```
///
/// # The decoder
///
/// It is called as `FramedRead` calls it: after each read until it returns no frame, then for the end of the
/// input (`decode_eof`). There is one difference: after the end or an error, this reader returns only `None`,
/// reads nothing and holds no buffer. **Limit the frames in the decoder**: this reader does not.
///
/// # Memory and cost
///
/// It holds a buffer only while there are bytes in it that belong to no frame yet. A decoder sees the guard's
/// `BytesMut`, so it depends on the decoder whether that buffer comes home:
///
/// - A decoder that copies what it needs (`LinesCodec`, and most that parse) loses nothing.
/// - A decoder that cuts frames off with `BytesMut::split_to` (`LengthDelimitedCodec`, `BytesCodec`) returns
///   parts of the buffer that the pool does not see. If they are dropped before the next call, the buffer
///   comes home. While they live, the reader reads on behind them. If it is full, or has to wait for the
///   source, it takes another buffer. The one it leaves is freed with its last part, and counted as
///   [`discards.shared`](crate::Discards::shared). That costs two allocations for each buffer, as
///   in `FramedRead`.
/// - A decoder that makes room for a large frame (`BytesMut::reserve`) does so on the heap. The pool keeps
///   that buffer afterwards, if it has a size class for it.
///
/// The return of each buffer costs some 50 ns more than that of a buffer that was not lent: see
/// [Pitfalls](PooledBuf#pitfalls).
///
/// # Encoders
///
/// An `Encoder` writes to a guard as it is:
///
/// ```
/// use tierpool::Pool;
/// use tierpool::tokio::write_all_vectored;
/// use tokio_util::codec::{Encoder, LinesCodec};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut buf = Pool::new().get(64);
/// LinesCodec::new().encode("a line", &mut buf)?;
/// let mut written = Vec::new();
/// write_all_vectored(&mut written, &mut [buf.freeze()]).await?;
/// assert_eq!(written, b"a line\n");
/// # Ok(())
/// # }
/// ```
pub struct PooledFramedRead<R, D> {
    pool: Pool,
    size: usize,
    /// Between two calls, it may be empty while parts of it are in use.
    buf: Option<PooledBuf>,
    stage: Stage,
    turn: Turn,
    inner: R,
    decoder: D,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The decoder has asked for more bytes.
    Reading,
    /// The decoder may have more frames.
    Decoding,
    /// As `Decoding`, at the end of the input.
    DecodingEnd,
    Ended,
}

impl<R, D> PooledFramedRead<R, D> {
    /// Makes a reader with buffers of 8 KiB.
    pub fn new(pool: &Pool, inner: R, decoder: D) -> Self {
        PooledFramedRead {
            pool: pool.clone(),
            size: SIZE_DEFAULT,
            buf: None,
            stage: Stage::Reading,
            turn: Turn::default(),
            inner,
            decoder,
        }
    }

    /// Sets the bytes of the buffer that a frame's first bytes are read into. With 0, it is 1.
    ///
    /// The pool rounds them up to a size class, and a read may fill all of that.
    #[must_use]
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.size = bytes.max(1);
        self
    }

    /// Returns the source.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// Returns the source. A read from it skips the bytes that are in the buffer.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Returns the source. Bytes that are in the buffer are lost.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// Returns the decoder.
    pub fn decoder(&self) -> &D {
        &self.decoder
    }

    /// Returns the decoder.
    pub fn decoder_mut(&mut self) -> &mut D {
        &mut self.decoder
    }

    /// Returns the bytes that were read, and belong to no frame that was returned.
    #[must_use]
    pub fn buffer(&self) -> &[u8] {
        self.buf.as_deref().map_or(&[], |buf| buf)
    }

    fn end(&mut self) {
        self.buf = None;
        self.stage = Stage::Ended;
    }
}

impl<R: AsyncRead + Unpin, D: Decoder> PooledFramedRead<R, D> {
    /// Returns the next frame, and `None` at the end of the input or after an error.
    ///
    /// It is cancel safe: if the future is dropped, no byte is lost. If it waits for room under the
    /// pool's limit then, it leaves the queue.
    ///
    /// # Errors
    ///
    /// - The error of the decoder. For bytes that are left at the end of the input, most return one.
    /// - The error of the source, as an [`io::Error`] in the decoder's error.
    /// - A [`GetError`](crate::GetError) in such an error, if there is no buffer: see [the limit](crate::tokio#a-limit-on-outstanding-bytes).
    ///
    /// # Panics
    ///
    /// - If the source or the decoder panics.
    pub async fn next_frame(&mut self) -> Option<Result<D::Item, D::Error>> {
        until_ready(self, |reader| &mut reader.turn, Self::poll_next_frame).await
    }

    /// As [`next_frame`](Self::next_frame), for code that polls.
    ///
    /// A reader that waits for room under the pool's limit keeps its place in the queue between two polls. So
    /// poll it again when it wakes you, or drop it: others wait behind it.
    pub fn poll_next_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<D::Item, D::Error>>> {
        if self.stage == Stage::Ended {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_frame(cx)).transpose();
        if !matches!(next, Some(Ok(_))) {
            self.end();
        }
        Poll::Ready(next)
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<D::Item>, D::Error>> {
        loop {
            if self.stage != Stage::Reading {
                let frame = self.decode()?;
                if frame.is_some() || self.stage == Stage::DecodingEnd {
                    return Poll::Ready(Ok(frame));
                }
            }
            self.stage = Stage::Reading;
            self.stage = match ready!(self.poll_read(cx))? {
                0 => Stage::DecodingEnd,
                _ => Stage::Decoding,
            };
        }
    }

    /// Calls the decoder. Gives the buffer back if there is nothing in it then.
    fn decode(&mut self) -> Result<Option<D::Item>, D::Error> {
        let mut none = BytesMut::new();
        let bytes = match &mut self.buf {
            Some(buf) => &mut **buf,
            None => &mut none,
        };
        let frame = match self.stage {
            Stage::DecodingEnd => self.decoder.decode_eof(bytes),
            _ => self.decoder.decode(bytes),
        }?;
        if !none.is_empty() {
            self.buf = Some(self.pool.adopt(none)); // the decoder has put bytes back
        }
        // Not while the frame is a part of it: the buffer would be freed.
        self.buf
            .take_if(|buf| buf.is_empty() && buf.try_reclaim_all());
        Ok(frame)
    }

    /// Reads once. Gives the buffer back if there is nothing in it then.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // The frames that were parts of it may be dropped by now.
        if let Some(empty) = self.buf.as_mut().filter(|buf| buf.is_empty()) {
            empty.try_reclaim_all();
        }
        let was_used = self.buf.is_some();
        let room = (1, usize::MAX);
        ready!(poll_room(
            &self.pool,
            &mut self.turn,
            &mut self.buf,
            self.size,
            room,
            cx
        ))?;
        let buf = self.buf.as_mut().expect("it has room");
        let read = buf.poll_read_from(&mut self.inner, cx, usize::MAX);
        match self.buf.take_if(|buf| buf.is_empty()) {
            Some(unused) if !was_used => unused.give_back_unused(),
            _ => {}
        }
        read
    }
}

impl<R: AsyncRead + Unpin, D: Decoder + Unpin> Stream for PooledFramedRead<R, D> {
    type Item = Result<D::Item, D::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_next_frame(cx)
    }
}

impl<R: fmt::Debug, D: fmt::Debug> fmt::Debug for PooledFramedRead<R, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledFramedRead")
            .field("reader", &self.inner)
            .field("decoder", &self.decoder)
            .field("buffered", &self.buffer().len())
            .finish_non_exhaustive()
    }
}
