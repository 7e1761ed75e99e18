//! `PooledBytes` as the data of an HTTP body: the bytes that hyper sends, and its allocations.
//!
//! Owns a count of allocations for each test. Server and client take turns on the test's thread, so
//! the counts are exact.

mod common {
    pub mod booking;
}

use bytes::{Buf, Bytes};
use common::booking::{self, Booking, Books};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Frame, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Response, client, server};
use hyper_util::rt::TokioIo;
use std::alloc::Layout;
use std::convert::Infallible;
use std::fmt::Debug;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use tierpool::{Pool, PooledBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Chunks of a body.
const CHUNKS: usize = 9;
const CHUNK_BYTES: usize = 16 << 10;
const BODY_BYTES: usize = CHUNKS * CHUNK_BYTES;

// ---- counted allocations ----

/// One count per test. Count 0 is for other threads.
static ALLOCATIONS: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

struct Allocations;

impl Books for Allocations {
    fn allocated(ledger: usize, _layout: Layout) {
        ALLOCATIONS[ledger].fetch_add(1, Ordering::Relaxed);
    }

    fn freed(_ledger: usize, _layout: Layout) {}
}

#[global_allocator]
static ALLOCATOR: Booking<Allocations> = Booking::new();

fn allocations(ledger: usize) -> usize {
    ALLOCATIONS[ledger].load(Ordering::Relaxed)
}

// ---- bodies ----

/// A body that makes each chunk on demand.
#[derive(Clone)]
struct Chunks<F> {
    make: F,
    made: usize,
    /// Whether the length is announced. If not, HTTP frames each chunk.
    has_length: bool,
}

impl<F> Chunks<F> {
    fn new(make: F, has_length: bool) -> Self {
        let made = 0;
        Chunks {
            make,
            made,
            has_length,
        }
    }
}

impl<D: Buf, F: FnMut(usize) -> D + Unpin> Body for Chunks<F> {
    type Data = D;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<D>, Infallible>>> {
        let at = self.made;
        if at == CHUNKS {
            return Poll::Ready(None);
        }
        self.made += 1;
        Poll::Ready(Some(Ok(Frame::data((self.make)(at)))))
    }

    fn size_hint(&self) -> SizeHint {
        match self.has_length {
            true => SizeHint::with_exact(((CHUNKS - self.made) * CHUNK_BYTES) as u64),
            false => SizeHint::default(),
        }
    }
}

/// The byte at a place of the body.
fn byte(at: usize) -> u8 {
    (at % 251) as u8
}

/// A body whose chunks are buffers of the pool.
fn pooled(
    pool: &Pool,
    has_length: bool,
) -> Chunks<impl FnMut(usize) -> PooledBytes + Clone + use<>> {
    let pool = pool.clone();
    let make = move |chunk| {
        let mut buf = pool.get(CHUNK_BYTES);
        let filled = buf.fill_with(CHUNK_BYTES, |room| {
            for (at, to) in room.iter_mut().enumerate() {
                *to = byte(chunk * CHUNK_BYTES + at);
            }
            Ok(room.len())
        });
        assert_eq!(filled.unwrap(), CHUNK_BYTES);
        buf.freeze()
    };
    Chunks::new(make, has_length)
}

/// A body that needs no memory.
fn constant() -> Chunks<impl FnMut(usize) -> Bytes + Clone> {
    Chunks::new(|_| Bytes::from_static(&[0; CHUNK_BYTES]), true)
}

/// Frees nothing by time, so that counts are exact on any machine.
fn pool() -> Pool {
    Pool::builder().trim_interval(None).build().unwrap()
}

// ---- a server, and a client that allocates nothing ----

/// Answers each request on the stream with a copy of the body, until the peer ends it.
async fn serve<B>(stream: DuplexStream, body: B)
where
    B: Body<Error = Infallible> + Clone + 'static,
    B::Data: Debug,
{
    let service = service_fn(|_request| {
        let body = body.clone();
        async { Ok::<_, Infallible>(Response::new(body)) }
    });
    let server = server::conn::http1::Builder::new();
    let served = server.serve_connection(TokioIo::new(stream), service);
    served.await.unwrap();
}

/// Runs server and client in turn.
fn block_on<T>(server: impl Future<Output = ()>, client: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async { tokio::join!(server, client).1 })
}

/// Requests one response, and reads it to its end.
async fn ask(stream: &mut DuplexStream, room: &mut [u8]) {
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
        .await
        .unwrap();
    let (mut read, mut expected) = (0, usize::MAX);
    while read < expected {
        let len = stream.read(room).await.unwrap();
        assert!(len > 0, "the server ended the connection");
        if expected == usize::MAX {
            let head = room[..len].windows(4).position(|end| end == b"\r\n\r\n");
            expected = head.expect("the head comes in one piece") + 4 + BODY_BYTES;
        }
        read += len;
    }
    assert_eq!(read, expected);
}

/// The allocations for ten responses, after ten others.
fn allocations_of_ten<B>(ledger: usize, body: B) -> usize
where
    B: Body<Error = Infallible> + Clone + 'static,
    B::Data: Debug,
{
    let (server, mut stream) = tokio::io::duplex(64 << 10);
    block_on(serve(server, body), async move {
        let mut room = vec![0; 64 << 10];
        for _ in 0..10 {
            ask(&mut stream, &mut room).await;
        }
        let before = allocations(ledger);
        for _ in 0..10 {
            ask(&mut stream, &mut room).await;
        }
        allocations(ledger) - before
    })
}

/// Polls the body itself for all chunks.
fn poll_all(body: impl Body<Data = PooledBytes, Error = Infallible>) {
    let (mut body, mut context) = (pin!(body), Context::from_waker(Waker::noop()));
    let mut chunks = 0;
    while let Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut context) {
        assert_eq!(frame.into_data().unwrap().len(), CHUNK_BYTES);
        chunks += 1;
    }
    assert_eq!(chunks, CHUNKS);
}

// ---- tests ----

#[test]
fn a_response_of_pooled_chunks_arrives_byte_for_byte() {
    let expected = &(0..BODY_BYTES).map(byte).collect::<Vec<u8>>();
    for has_length in [true, false] {
        // The second size is smaller than a chunk, so each chunk is written in pieces.
        for pipe_bytes in [64 << 10, 1000] {
            let pool = pool();
            let (server, stream) = tokio::io::duplex(pipe_bytes);
            let client = async {
                let stream = TokioIo::new(stream);
                let (mut sender, connection) =
                    client::conn::http1::handshake(stream).await.unwrap();
                let asked = async move {
                    for _ in 0..3 {
                        let request = Request::new(Empty::<Bytes>::new());
                        let response = sender.send_request(request).await.unwrap();
                        assert_eq!(
                            response.headers().contains_key("content-length"),
                            has_length
                        );
                        let body = response.into_body().collect().await.unwrap().to_bytes();
                        assert!(body == expected, "the body differs");
                    }
                };
                let (_, ended) = tokio::join!(asked, connection);
                ended.unwrap();
            };
            block_on(serve(server, pooled(&pool, has_length)), client);
            let total = pool.stats().total;
            assert_eq!(total.gets, 3 * CHUNKS as u64);
            assert_eq!((total.outstanding, total.discards.total()), (0, 0));
        }
    }
}

#[test]
fn pooled_chunks_allocate_nothing_once_the_pool_is_warm() {
    const LEDGER: usize = 1;
    booking::join(LEDGER);
    let pool = pool();
    poll_all(pooled(&pool, true));
    let before = allocations(LEDGER);
    for _ in 0..10 {
        poll_all(pooled(&pool, true));
    }
    assert_eq!(allocations(LEDGER) - before, 0);
    assert_eq!(pool.stats().total.misses, 1);
}

#[test]
fn hyper_allocates_as_much_for_pooled_chunks_as_for_constants() {
    const LEDGER: usize = 2;
    booking::join(LEDGER);
    let pool = pool();
    let of_constants = allocations_of_ten(LEDGER, constant());
    assert!(of_constants > 0, "hyper's own are counted");
    assert_eq!(
        allocations_of_ten(LEDGER, pooled(&pool, true)),
        of_constants
    );
    assert_eq!(pool.stats().total.outstanding, 0);
}
