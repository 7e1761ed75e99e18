//! Bodies that are sent: `http::ReaderBody`, alone and with hyper, and the answers of `axum`.
//!
//! Each test ends with the pool's accounts: no buffer is outstanding.

#![cfg(all(feature = "http-body", feature = "tokio"))]

mod common {
    pub mod accounts;
}

use bytes::Bytes;
use common::accounts::assert_accounts_balance;
use http_body_util::{BodyExt, Collected, Empty};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TE, TRAILER, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{Request, Response, client, server};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tierpool::http::{BodyError, ReaderBody, collect};
use tierpool::{GetError, Pool, PooledBytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf};

// ---- sources ----

/// A source's answer to one poll.
#[derive(Clone, Debug)]
enum Step {
    Data(Vec<u8>),
    /// Nothing yet. The task is woken at once.
    Waits,
    Fails,
}
use Step::{Data, Fails, Waits};

/// Does the given steps, and is at its end after the last one.
#[derive(Clone, Debug)]
struct Source(VecDeque<Step>);

impl Source {
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Source(steps.into_iter().collect())
    }

    /// These bytes in pieces, with a wait before each.
    fn slow(bytes: &[u8], piece: usize) -> Self {
        let pieces = bytes.chunks(piece);
        Source::new(pieces.flat_map(|piece| [Waits, Data(piece.to_vec())]))
    }

    fn bytes(&self) -> Vec<u8> {
        let data = self.0.iter().filter_map(|step| match step {
            Data(bytes) => Some(&bytes[..]),
            _ => None,
        });
        data.collect::<Vec<_>>().concat()
    }
}

impl AsyncRead for Source {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(match self.0.pop_front() {
            None => Ok(()),
            Some(Data(mut bytes)) => {
                let rest = bytes.split_off(bytes.len().min(room.remaining()));
                room.put_slice(&bytes);
                if !rest.is_empty() {
                    self.0.push_front(Data(rest));
                }
                Ok(())
            }
            Some(Fails) => Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "the disk is gone",
            )),
            Some(Waits) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        })
    }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

fn trailers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pairs = pairs.iter().map(|&(name, value)| {
        let name = hyper::header::HeaderName::from_static(name);
        (name, HeaderValue::from_static(value))
    });
    pairs.collect()
}

// ---- pools and polls ----

/// Frees nothing by time and learns nothing, so that counts are exact on any machine.
fn pool() -> Pool {
    let builder = Pool::builder().trim_interval(None).learn_sizes(false);
    builder.build().unwrap()
}

#[track_caller]
fn assert_all_home(pool: &Pool) {
    assert_eq!(pool.stats().total.outstanding, 0);
    assert_accounts_balance(pool);
}

type Polled = Poll<Option<Result<hyper::body::Frame<PooledBytes>, BodyError>>>;

fn poll<R: AsyncRead + Unpin>(body: &mut ReaderBody<R>) -> Polled {
    Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
}

/// What a body has sent until it returned `None`.
#[derive(Debug, Default)]
struct Sent {
    data: Vec<PooledBytes>,
    trailers: Option<HeaderMap>,
    error: Option<BodyError>,
}

/// Polls the body to its end. Checks what holds after each poll.
fn send<R: AsyncRead + Unpin>(pool: &Pool, body: &mut ReaderBody<R>) -> Sent {
    let mut sent = Sent::default();
    let exact = body.size_hint().exact();
    loop {
        let len: usize = sent.data.iter().map(|chunk| chunk.len()).sum();
        if let (Some(exact), None) = (exact, &sent.error) {
            assert_eq!(body.size_hint().exact(), Some(exact - len as u64));
        }
        let was_at_end = body.is_end_stream();
        let polled = poll(body);
        match polled {
            Poll::Pending => {
                assert!(!was_at_end);
                let out = pool.stats().total.outstanding;
                assert_eq!(out, sent.data.len() as u64, "a wait holds no buffer");
            }
            Poll::Ready(Some(Ok(frame))) => {
                assert!(!was_at_end && sent.trailers.is_none());
                match frame.into_data() {
                    Ok(chunk) => sent.data.push(chunk),
                    Err(frame) => sent.trailers = frame.into_trailers().ok(),
                }
            }
            Poll::Ready(Some(Err(error))) => {
                assert!(!was_at_end && sent.error.is_none() && sent.trailers.is_none());
                sent.error = Some(error);
            }
            Poll::Ready(None) => break,
        }
    }
    assert!(body.is_end_stream());
    assert_eq!(body.size_hint().exact(), Some(0));
    assert!(matches!(poll(body), Poll::Ready(None)), "it stays ended");
    sent
}

// ---- alone ----

#[test]
fn a_body_of_known_length_takes_buffers_of_no_more_than_is_left() {
    let pool = pool();
    let mut source = &bytes(5000)[..];
    let mut body = ReaderBody::new(&pool, &mut source)
        .content_length(4200)
        .chunk_bytes(4096);
    let sent = send(&pool, &mut body);
    assert_eq!(sent.data.concat(), bytes(4200));
    assert_eq!(pool.stats().total.outstanding_bytes, 4096 + 512);
    drop((sent, body));
    assert_eq!(source, &bytes(5000)[4200..], "the rest is in the source");
    assert_all_home(&pool);
}

#[test]
fn a_body_of_no_bytes_does_not_read_its_source() {
    let pool = pool();
    let mut body = ReaderBody::new(&pool, Source::new([Fails])).content_length(0);
    assert!(body.is_end_stream());
    assert!(send(&pool, &mut body).error.is_none());
    assert_eq!(pool.stats().total.gets, 0);
}

#[test]
fn a_source_that_is_too_short_is_an_error_and_no_trailers_follow() {
    let pool = pool();
    let mut body = ReaderBody::new(&pool, Source::slow(&bytes(10), 4))
        .content_length(11)
        .trailers(trailers(&[("checksum", "1")]));
    let sent = send(&pool, &mut body);
    assert!(sent.trailers.is_none());
    let (data, error) = (sent.data, sent.error.unwrap());
    assert_eq!(data.concat(), bytes(10));
    let BodyError::TooShort { expected, sent, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!((expected, sent), (11, 10));
    assert!(error.source().is_none());
    drop(data);
    assert_all_home(&pool);
}

#[test]
fn the_error_of_the_source_is_kept_and_nothing_follows_it() {
    for length in [None, Some(20)] {
        let pool = pool();
        let steps = [Data(bytes(10)), Waits, Fails, Data(bytes(10))];
        let mut body =
            ReaderBody::new(&pool, Source::new(steps)).trailers(trailers(&[("checksum", "1")]));
        if let Some(length) = length {
            body = body.content_length(length);
        }
        let sent = send(&pool, &mut body);
        assert_eq!(sent.data.concat(), bytes(10));
        assert!(sent.trailers.is_none());
        let error = sent.error.unwrap();
        assert_eq!(error.to_string(), "the source of the body failed");
        let source = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
        assert_eq!(source.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(source.to_string(), "the disk is gone");
        drop(sent.data);
        assert_all_home(&pool);
    }
}

#[test]
fn a_heap_that_refuses_is_the_pools_error() {
    let pool = pool();
    let mut body = ReaderBody::new(&pool, &b"bytes"[..]).chunk_bytes(usize::MAX);
    let error = send(&pool, &mut body).error.unwrap();
    assert!(matches!(
        error,
        BodyError::NoBuffer(GetError::TooLarge { .. })
    ));
    assert!(error.source().unwrap().is::<GetError>());
    assert_all_home(&pool);
}

#[test]
fn a_length_below_what_was_sent_ends_the_body() {
    let pool = pool();
    let mut body = ReaderBody::new(&pool, &b"bytes"[..]).chunk_bytes(4);
    assert!(matches!(poll(&mut body), Poll::Ready(Some(Ok(_)))));
    let mut body = body.content_length(3);
    assert!(send(&pool, &mut body).data.is_empty());
    assert_all_home(&pool);
}

/// Some bytes or a wait.
fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 1..700).prop_map(Data),
        1 => Just(Waits),
    ]
}

proptest! {
    #[test]
    fn a_body_sends_its_source_up_to_its_length(
        steps in prop::collection::vec(step(), 0..10),
        length in prop::option::of(0..4000_u64),
        chunk in 0..1000_usize,
        with_trailers: bool,
    ) {
        let pool = pool();
        let source = Source::new(steps);
        let all = source.bytes();
        let mut body = ReaderBody::new(&pool, source).chunk_bytes(chunk);
        if let Some(length) = length {
            body = body.content_length(length);
        }
        let last = with_trailers.then(|| trailers(&[("checksum", "1")]));
        if let Some(last) = last.clone() {
            body = body.trailers(last);
        }
        let sent = send(&pool, &mut body);
        let most = length.map_or(all.len(), |length| all.len().min(length as usize));
        prop_assert_eq!(sent.data.concat(), &all[..most]);
        prop_assert!(sent.data.iter().all(|data| (1..=chunk.max(1)).contains(&data.len())));
        match sent.error {
            None => prop_assert_eq!(sent.trailers, last),
            Some(BodyError::TooShort { expected, sent, .. }) => {
                prop_assert_eq!(Some(expected), length);
                prop_assert_eq!(sent, all.len() as u64);
                prop_assert!(sent < expected);
            }
            Some(error) => prop_assert!(false, "{error:?}"),
        }
        drop(sent.data);
        prop_assert_eq!(pool.stats().total.outstanding, 0);
        assert_accounts_balance(&pool);
    }
}

// ---- with hyper ----

/// Serves what `answer` makes of each request, to the end of the connection.
async fn serve<B, F>(stream: DuplexStream, answer: F) -> Result<(), hyper::Error>
where
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    F: AsyncFn(Request<Incoming>) -> Response<B>,
{
    let service = service_fn(|request| async { Ok::<_, Infallible>(answer(request).await) });
    let server = server::conn::http1::Builder::new();
    server.serve_connection(TokioIo::new(stream), service).await
}

/// Runs server and client in turn on this thread. Returns the results of both.
fn with_server<T, B, C: Future<Output = T>>(
    answer: impl AsyncFn(Request<Incoming>) -> Response<B>,
    client: impl FnOnce(DuplexStream) -> C,
) -> (Result<(), hyper::Error>, T)
where
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let builder = &mut tokio::runtime::Builder::new_current_thread();
    builder.build().unwrap().block_on(async {
        let (server, stream) = tokio::io::duplex(16 << 10);
        tokio::join!(serve(server, answer), client(stream))
    })
}

/// An answer: its headers, and its body or why that ended.
type Answer = (HeaderMap, Result<Collected<Bytes>, hyper::Error>);

/// Sends the requests in turn on one connection, as long as that lives.
async fn ask<B>(stream: DuplexStream, requests: Vec<Request<B>>) -> Vec<Answer>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let connected = client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = connected.unwrap();
    let asked = async move {
        let mut answers = Vec::new();
        for request in requests {
            if sender.ready().await.is_err() {
                break; // the server has closed the connection
            }
            let (head, body) = sender.send_request(request).await.unwrap().into_parts();
            answers.push((head.headers, body.collect().await));
        }
        answers
    };
    let (answers, _ended) = tokio::join!(asked, connection);
    answers
}

fn gets(count: usize) -> Vec<Request<Empty<Bytes>>> {
    let get = || Request::get("/").header(TE, "trailers");
    (0..count)
        .map(|_| get().body(Empty::new()).unwrap())
        .collect()
}

/// The error of the body that the server's error has as its cause.
fn body_error(error: &hyper::Error) -> &BodyError {
    let mut cause: &dyn Error = error;
    loop {
        if let Some(error) = cause.downcast_ref() {
            return error;
        }
        cause = cause.source().expect("one of the causes is a `BodyError`");
    }
}

#[test]
fn answers_of_known_and_unknown_length_arrive_on_one_connection() {
    for len in [0, 1, 4096, 100_000] {
        for known in [true, false] {
            let pool = pool();
            let answer = async |_| {
                // The source has more than is announced.
                let source = Source::slow(&bytes(len + usize::from(known)), 5000);
                let body = ReaderBody::new(&pool, source);
                Response::new(match known {
                    true => body.content_length(len as u64),
                    false => body,
                })
            };
            let (ended, answers) = with_server(answer, |stream| ask(stream, gets(3)));
            ended.unwrap();
            assert_eq!(answers.len(), 3, "the connection is used again");
            for (headers, body) in answers {
                assert_eq!(headers.contains_key(CONTENT_LENGTH), known);
                assert_eq!(headers.contains_key(TRANSFER_ENCODING), !known);
                assert_eq!(body.unwrap().to_bytes(), bytes(len));
            }
            assert_all_home(&pool);
        }
    }
}

#[test]
fn trailers_arrive_after_the_data() {
    let pool = pool();
    let answer = async |_| {
        let body = ReaderBody::new(&pool, Source::slow(&bytes(9000), 4000))
            .trailers(trailers(&[("checksum", "17")]));
        let builder = Response::builder().header(TRAILER, "checksum");
        builder.body(body).unwrap()
    };
    let (ended, answers) = with_server(answer, |stream| ask(stream, gets(1)));
    ended.unwrap();
    assert_eq!(answers.len(), 1);
    for (_, body) in answers {
        let body = body.unwrap();
        assert_eq!(body.trailers().unwrap()["checksum"], "17");
        assert_eq!(body.to_bytes(), bytes(9000));
    }
    assert_all_home(&pool);
}

#[test]
fn a_source_that_ends_early_or_fails_closes_the_connection() {
    for fails in [false, true] {
        for known in [true, false] {
            if !fails && !known {
                continue; // that is the end of the body
            }
            let pool = pool();
            let answer = async |_| {
                let mut source = Source::slow(&bytes(50_000), 3000);
                source.0.extend(fails.then_some(Fails));
                let body = ReaderBody::new(&pool, source);
                Response::new(match known {
                    true => body.content_length(50_001),
                    false => body,
                })
            };
            let (ended, answers) = with_server(answer, |stream| ask(stream, gets(2)));
            let ended = ended.unwrap_err();
            match (fails, body_error(&ended)) {
                (true, BodyError::Source(error)) => {
                    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                }
                (false, BodyError::TooShort { expected, sent, .. }) => {
                    assert_eq!((*expected, *sent), (50_001, 50_000));
                }
                (_, error) => panic!("{error:?}"),
            }
            assert_eq!(answers.len(), 1, "the connection is not used again");
            assert!(
                answers[0].1.is_err(),
                "the client sees that bytes are missing"
            );
            assert_all_home(&pool);
        }
    }
}

#[test]
fn a_client_that_vanishes_half_way_leaves_nothing_outstanding() {
    for (known, reads) in [
        (true, 0),
        (true, 1),
        (false, 1),
        (true, 60_000),
        (false, 60_000),
    ] {
        let pool = pool();
        let answer = async |_| {
            let body = ReaderBody::new(&pool, tokio::io::repeat(7));
            Response::new(match known {
                true => body.content_length(1 << 40),
                false => body,
            })
        };
        let client = async |mut stream: DuplexStream| {
            let head = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n";
            stream.write_all(head).await.unwrap();
            let mut room = vec![0; reads];
            stream.read_exact(&mut room).await.unwrap();
        };
        let (ended, ()) = with_server(answer, client);
        assert!(ended.is_err());
        assert!(reads == 0 || pool.stats().total.gets > 0);
        assert_all_home(&pool);
    }
}

#[test]
fn a_server_that_gives_up_half_way_leaves_nothing_outstanding() {
    let pool = pool();
    let answer = async |_| Response::new(ReaderBody::new(&pool, tokio::io::repeat(7)));
    let builder = &mut tokio::runtime::Builder::new_current_thread();
    builder.build().unwrap().block_on(async {
        let (server, mut stream) = tokio::io::duplex(16 << 10);
        let client = async {
            let head = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n";
            stream.write_all(head).await.unwrap();
            stream.read_exact(&mut [0; 50_000]).await.unwrap();
        };
        tokio::select! {
            _ = serve(server, answer) => panic!("the server ends first"),
            () = client => {}
        }
    });
    assert!(pool.stats().total.gets > 0);
    assert_all_home(&pool);
}

#[test]
fn uploads_of_known_and_unknown_length_are_collected_with_their_trailers() {
    let pool = pool();
    let upload = |known| {
        let body = ReaderBody::new(&pool, Source::slow(&bytes(30_000), 999));
        let body = match known {
            true => body.content_length(30_000),
            false => body.trailers(trailers(&[("checksum", "17")])),
        };
        let builder = Request::post("/").header(TRAILER, "checksum");
        builder.body(body).unwrap()
    };
    let uploads = [true, true, false].map(upload).into();
    let answer = async |request: Request<Incoming>| {
        let known = request.headers().contains_key(CONTENT_LENGTH);
        let collected = collect(&pool, request.into_body(), 30_000).await.unwrap();
        assert_eq!(collected.buf, bytes(30_000));
        let checksum = collected
            .trailers
            .map(|trailers| trailers["checksum"].clone());
        assert_eq!(checksum, (!known).then(|| HeaderValue::from_static("17")));
        Response::new(Empty::<Bytes>::new())
    };
    let (ended, answers) = with_server(answer, |stream| ask(stream, uploads));
    ended.unwrap();
    assert_eq!(answers.len(), 3);
    assert_all_home(&pool);
}

/// A body may go to another thread if its source may.
#[test]
fn a_body_is_send_and_unpin() {
    fn assert_send<T: Send + Unpin + 'static>() {}
    assert_send::<ReaderBody<tokio::net::TcpStream>>();
}

// ---- axum ----

#[cfg(feature = "axum")]
#[test]
fn a_guard_and_a_part_are_answers_without_a_copy() {
    use axum_core::response::{IntoResponse, Response};
    let pool = pool();
    let answers: [fn(tierpool::PooledBuf) -> Response; 2] = [
        |guard| guard.into_response(),
        |guard| guard.freeze().into_response(),
    ];
    let builder = &mut tokio::runtime::Builder::new_current_thread();
    let runtime = builder.build().unwrap();
    for answer in answers {
        let guard = pool.copy_from_slice(b"some bytes");
        let at = guard.as_ptr();
        let answer = answer(guard);
        assert_eq!(answer.headers()["content-type"], "application/octet-stream");
        assert_eq!(answer.body().size_hint().exact(), Some(10));
        let collected = runtime.block_on(answer.into_body().collect()).unwrap();
        let bytes = collected.to_bytes();
        assert_eq!((&bytes[..], bytes.as_ptr()), (&b"some bytes"[..], at));
        assert_eq!(pool.stats().total.outstanding, 1);
        drop(bytes);
        assert_all_home(&pool);
    }
}
