//! The module `http`: bodies that are collected, with hyper and without.
//!
//! Each test ends with the pool's accounts: no buffer is outstanding.

#![cfg(feature = "http-body")]

mod common {
    pub mod accounts;
}

use bytes::{Buf, Bytes};
use common::accounts::assert_accounts_balance;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, client, server};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use tierpool::http::{CollectError, Collected, collect};
use tierpool::{GetError, Pool, PooledBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

// ---- bodies ----

/// A body's answer to one poll.
#[derive(Clone, Debug)]
enum Step {
    Data(Vec<u8>),
    Trailers(HeaderMap),
    /// Nothing yet. The task is woken at once.
    Waits,
    Fails,
}
use Step::{Data, Fails, Trailers, Waits};

/// A `SizeHint`, which is not `Copy` before `http-body` 1.1.
#[derive(Clone, Copy, Debug)]
struct Hint {
    lower: u64,
    upper: Option<u64>,
}

impl Hint {
    fn size_hint(self) -> SizeHint {
        let mut hint = SizeHint::default();
        hint.set_lower(self.lower);
        if let Some(upper) = self.upper {
            hint.set_upper(upper);
        }
        hint
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is reset")
    }
}

impl Error for Broken {}

/// A body that does the given steps. Its size hint is as given, and never changes.
#[derive(Clone, Debug)]
struct Scripted {
    steps: VecDeque<Step>,
    hint: Hint,
    polls: Rc<Cell<usize>>,
}

impl Scripted {
    fn new(hint: Hint, steps: impl IntoIterator<Item = Step>) -> Self {
        Scripted {
            steps: steps.into_iter().collect(),
            hint,
            polls: Rc::default(),
        }
    }
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.polls.set(self.polls.get() + 1);
        Poll::Ready(match self.steps.pop_front() {
            None => None,
            Some(Data(bytes)) => Some(Ok(Frame::data(bytes.into()))),
            Some(Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Fails) => Some(Err(Broken)),
            Some(Waits) => {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.hint.size_hint()
    }
}

/// A body whose frames have any type of data.
struct Frames<D>(VecDeque<D>, Hint);

impl<D: Buf + Unpin> Body for Frames<D> {
    type Data = D;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<D>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        self.1.size_hint()
    }
}

/// Data that claims to have `claimed` bytes, and lends `lent`.
struct Liar {
    claimed: usize,
    lent: &'static [u8],
}

impl Buf for Liar {
    fn remaining(&self) -> usize {
        self.claimed
    }

    fn chunk(&self) -> &[u8] {
        self.lent
    }

    fn advance(&mut self, count: usize) {
        self.claimed -= count;
    }
}

fn no_hint() -> Hint {
    at_least(0)
}

fn exactly(bytes: u64) -> Hint {
    let (lower, upper) = (bytes, Some(bytes));
    Hint { lower, upper }
}

fn at_least(lower: u64) -> Hint {
    Hint { lower, upper: None }
}

fn trailers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pairs = pairs.iter().map(|&(name, value)| {
        let name = hyper::header::HeaderName::from_static(name);
        (name, HeaderValue::from_static(value))
    });
    pairs.collect()
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

// ---- pools and futures ----

/// Frees nothing by time and learns nothing, so that counts are exact on any machine.
fn pool() -> Pool {
    let builder = Pool::builder().trim_interval(None).learn_sizes(false);
    builder.build().unwrap()
}

fn gets(pool: &Pool) -> u64 {
    pool.stats().total.gets
}

#[track_caller]
fn assert_all_home(pool: &Pool) {
    assert_eq!(pool.stats().total.outstanding, 0);
    assert_accounts_balance(pool);
}

/// Polls the future at most `most` times.
fn poll_up_to<F: Future>(future: F, most: usize) -> Option<F::Output> {
    let (mut future, mut context) = (pin!(future), Context::from_waker(Waker::noop()));
    for _ in 0..most {
        if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
            return Some(result);
        }
    }
    None
}

fn ready<F: Future>(future: F) -> F::Output {
    poll_up_to(future, 1_000_000).expect("it becomes ready")
}

fn collect_now<B: Body>(
    pool: &Pool,
    body: B,
    limit: usize,
) -> Result<Collected, CollectError<B::Error>> {
    ready(collect(pool, body, limit))
}

#[track_caller]
fn assert_too_large<E: fmt::Debug>(error: CollectError<E>, bytes: u64) {
    match error {
        CollectError::TooLarge { at_least, .. } => assert_eq!(at_least, bytes),
        error => panic!("{error:?}"),
    }
}

// ---- collecting ----

#[test]
fn a_body_of_known_length_is_copied_once_to_a_buffer_of_its_class() {
    for hint in [exactly(3000), at_least(3000)] {
        let pool = pool();
        let pieces = bytes(3000);
        let steps = pieces.chunks(7).map(|piece| Data(piece.to_vec()));
        let collected = collect_now(&pool, Scripted::new(hint, steps), 10_000).unwrap();
        assert_eq!(collected.buf, pieces);
        assert_eq!(collected.trailers, None);
        assert_eq!((gets(&pool), collected.buf.capacity()), (1, 4096));
        drop(collected);
        assert_all_home(&pool);
    }
}

#[test]
fn a_body_of_unknown_length_grows_the_buffer() {
    let pool = pool();
    let pieces = bytes(20_000);
    let steps = pieces.chunks(3).map(|piece| Data(piece.to_vec()));
    let collected = collect_now(&pool, Scripted::new(no_hint(), steps), 20_000).unwrap();
    assert_eq!(collected.buf, pieces);
    // 512 to 32 KiB, doubled each time.
    assert_eq!((gets(&pool), collected.buf.capacity()), (7, 32 << 10));
    drop(collected);
    assert_all_home(&pool);
}

#[test]
fn a_body_may_be_longer_or_shorter_than_it_announces() {
    for announced in [0, 1, 600, 5000] {
        let pool = pool();
        let steps = [Data(bytes(300)), Data(bytes(700))];
        let body = Scripted::new(exactly(announced), steps);
        let collected = collect_now(&pool, body, 5000).unwrap();
        assert_eq!(collected.buf, [bytes(300), bytes(700)].concat());
        drop(collected);
        assert_all_home(&pool);
    }
}

#[test]
fn an_empty_body_is_an_empty_buffer() {
    for (limit, hint) in [(0, exactly(0)), (0, no_hint()), (100, exactly(100))] {
        let pool = pool();
        let body = Scripted::new(hint, [Data(Vec::new()), Waits, Data(Vec::new())]);
        let collected = collect_now(&pool, body, limit).unwrap();
        assert!(collected.buf.is_empty() && collected.trailers.is_none());
        assert_eq!(collected.buf.capacity(), 512);
        drop(collected);
        assert_all_home(&pool);
    }
}

#[test]
fn a_body_that_has_sent_nothing_holds_no_buffer() {
    let pool = pool();
    let body = Scripted::new(
        exactly(100),
        [Waits, Data(Vec::new()), Waits, Data(bytes(1))],
    );
    let mut future = pin!(collect(&pool, body, 100));
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..2 {
        assert!(future.as_mut().poll(&mut context).is_pending());
        assert_eq!(gets(&pool), 0);
    }
    let Poll::Ready(Ok(collected)) = future.poll(&mut context) else {
        panic!("it is not ready");
    };
    assert_eq!(collected.buf, [0]);
    drop(collected);
    assert_all_home(&pool);
}

#[test]
fn the_limit_itself_is_not_too_large() {
    for hint in [exactly(1000), at_least(10), no_hint()] {
        for pieces in [1, 10, 1000] {
            let pool = pool();
            let body = bytes(1000);
            let steps = body.chunks(1000 / pieces).map(|piece| Data(piece.to_vec()));
            let body = Scripted::new(hint, steps);
            assert_eq!(collect_now(&pool, body, 1000).unwrap().buf, bytes(1000));
            assert_all_home(&pool);
        }
    }
}

#[test]
fn one_byte_above_the_limit_is_too_large() {
    let in_one_frame = vec![Data(bytes(1001)), Fails];
    let across_frames = vec![Data(bytes(1000)), Data(Vec::new()), Data(bytes(1)), Fails];
    for steps in [in_one_frame, across_frames] {
        for hint in [exactly(1000), at_least(10), no_hint()] {
            let pool = pool();
            let body = Scripted::new(hint, steps.clone());
            let error = collect_now(&pool, body, 1000).unwrap_err();
            assert_eq!(
                error.to_string(),
                "the body (at least 1001 bytes) is above limit (1000 bytes): no more is collected; \
                 send less, or raise limit"
            );
            assert!(error.source().is_none());
            assert_too_large(error, 1001);
            assert_all_home(&pool);
        }
    }
}

#[test]
fn a_body_that_announces_too_much_is_not_read() {
    for announced in [11, u64::from(u32::MAX) + 1, u64::MAX] {
        for hint in [exactly(announced), at_least(announced)] {
            let pool = pool();
            let body = Scripted::new(hint, [Data(bytes(1))]);
            let polls = Rc::clone(&body.polls);
            let error = collect_now(&pool, body, 10).unwrap_err();
            assert_too_large(error, announced);
            assert_eq!((polls.get(), gets(&pool)), (0, 0));
        }
    }
}

#[test]
fn trailers_are_kept_and_those_that_follow_are_added() {
    let pool = pool();
    let steps = [
        Data(bytes(1)),
        Trailers(trailers(&[
            ("checksum", "1"),
            ("checksum", "2"),
            ("kept", "3"),
        ])),
        Data(bytes(2)),
        Trailers(trailers(&[("checksum", "4"), ("more", "5")])),
    ];
    let body = Scripted::new(no_hint(), steps);
    let expected = ready(body.clone().collect()).unwrap();
    let collected = collect_now(&pool, body, 3).unwrap();
    assert_eq!(collected.trailers.as_ref(), expected.trailers());
    assert_eq!(collected.trailers.as_ref().unwrap()["more"], "5");
    assert_eq!(collected.buf, [0, 0, 1]);
    drop(collected);

    let only = trailers(&[("grpc-status", "0")]);
    let body = Scripted::new(exactly(0), [Trailers(only.clone())]);
    let collected = collect_now(&pool, body, 0).unwrap();
    assert!(collected.buf.is_empty());
    assert_eq!(collected.trailers, Some(only));
    drop(collected);
    assert_all_home(&pool);
}

#[test]
fn the_error_of_the_body_is_the_source() {
    for before in [vec![], vec![Data(bytes(10))], vec![Data(bytes(10)), Waits]] {
        let pool = pool();
        let steps = before.into_iter().chain([Fails, Data(bytes(1))]);
        let body = Scripted::new(exactly(20), steps);
        let error = collect_now(&pool, body, 100).unwrap_err();
        assert_eq!(error, CollectError::Body(Broken));
        assert_eq!(error.to_string(), "the body failed before its end");
        assert!(error.source().unwrap().is::<Broken>());
        assert_all_home(&pool);
    }
}

#[test]
fn a_heap_that_refuses_is_an_error_for_the_first_bytes_and_for_more() {
    let pool = pool();
    let body = Scripted::new(exactly(isize::MAX as u64), [Data(bytes(1))]);
    let error = collect_now(&pool, body, usize::MAX).unwrap_err();
    let CollectError::NoBuffer(refused @ GetError::OutOfMemory { .. }) = error else {
        panic!("{error:?}");
    };
    assert_eq!(error.to_string(), "no buffer for the body");
    let source = error.source().and_then(|source| source.downcast_ref());
    assert_eq!(source, Some(&refused));

    let huge = usize::MAX / 4; // below `isize::MAX`, and more than any heap has
    for (claimed, fits_no_allocation) in [(huge, false), (isize::MAX as usize, true)] {
        let liar = |claimed| Liar {
            claimed,
            lent: b"123",
        };
        let body = Frames([liar(3), liar(claimed)].into(), no_hint());
        let error = collect_now(&pool, body, usize::MAX).unwrap_err();
        let CollectError::NoBuffer(refused) = error else {
            panic!("{error:?}");
        };
        assert_eq!(
            matches!(refused, GetError::TooLarge { .. }),
            fits_no_allocation
        );
    }
    assert_all_home(&pool);
}

#[test]
fn data_that_lends_more_than_it_claims_does_not_pass_the_limit() {
    let pool = pool();
    let liar = Liar {
        claimed: 3,
        lent: &[7; 2000],
    };
    let collected = collect_now(&pool, Frames([liar].into(), no_hint()), 3).unwrap();
    assert_eq!(
        (&collected.buf[..], collected.buf.capacity()),
        (&[7; 3][..], 512)
    );
    drop(collected);
    assert_all_home(&pool);
}

#[test]
fn data_of_several_chunks_is_copied_whole() {
    let pool = pool();
    let chained = || Buf::chain(&b"one "[..], Buf::chain(&b""[..], &b"two "[..]));
    let body = Frames([chained(), chained()].into(), no_hint());
    assert_eq!(
        collect_now(&pool, body, 16).unwrap().buf,
        "one two one two "
    );
    assert_all_home(&pool);
}

#[test]
fn a_future_dropped_after_any_poll_leaves_nothing_outstanding() {
    let pool = pool();
    let steps = [
        Waits,
        Data(bytes(10)),
        Waits,
        Data(bytes(2000)),
        Waits,
        Trailers(trailers(&[("checksum", "1")])),
        Waits,
        Data(bytes(9000)),
        Waits,
    ];
    let mut cancelled = 0;
    for hint in [no_hint(), exactly(11_010), at_least(100)] {
        for polls in 0.. {
            let body = Scripted::new(hint, steps.clone());
            let done = poll_up_to(collect(&pool, body, 20_000), polls);
            let is_done = done.is_some();
            drop(done);
            assert_all_home(&pool);
            if is_done {
                break;
            }
            cancelled += 1;
        }
    }
    assert_eq!(cancelled, 3 * 6); // after 0 to 5 polls
}

#[test]
fn a_panic_of_the_body_leaves_nothing_outstanding() {
    let pool = pool();
    let empty_chunk = || Liar {
        claimed: 10,
        lent: b"",
    };
    let first = Liar {
        claimed: 3,
        lent: b"123",
    };
    let body = Frames([first, empty_chunk()].into(), exactly(13));
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        collect_now(&pool, body, 100).map(drop)
    }));
    assert!(caught.is_err());
    assert_all_home(&pool);
}

/// Some bytes, trailers or a wait.
fn step() -> impl Strategy<Value = Step> {
    let pair = prop::sample::select(vec![("a", "1"), ("a", "2"), ("b", "3")]);
    prop_oneof![
        6 => prop::collection::vec(any::<u8>(), 0..700).prop_map(Data),
        1 => prop::collection::vec(pair, 0..3).prop_map(|pairs| Trailers(trailers(&pairs))),
        1 => Just(Waits),
    ]
}

proptest! {
    #[test]
    fn a_collected_body_equals_that_of_http_body_util(
        steps in prop::collection::vec(step(), 0..20),
        lower in 0..6000_u64,
        above in prop::option::of(0..6000_u64),
        limit in 0..9000_usize,
    ) {
        let pool = pool();
        let hint = Hint { lower, upper: above.map(|above| lower + above) };
        let body = Scripted::new(hint, steps);
        let expected = ready(body.clone().collect()).unwrap();
        let expected_trailers = expected.trailers().cloned();
        let expected = expected.to_bytes();
        match collect_now(&pool, body, limit) {
            Ok(collected) => {
                prop_assert!(expected.len() <= limit && lower <= limit as u64);
                prop_assert_eq!(&collected.buf, &expected);
                prop_assert_eq!(collected.trailers, expected_trailers);
            }
            Err(CollectError::TooLarge { at_least, .. }) => {
                prop_assert!(at_least > limit as u64);
                prop_assert!(at_least == lower || at_least <= expected.len() as u64);
            }
            Err(error) => prop_assert!(false, "{error:?}"),
        }
        prop_assert_eq!(pool.stats().total.outstanding, 0);
        assert_accounts_balance(&pool);
    }
}

// ---- with hyper, on the loopback interface ----

const LIMIT: usize = 100_000;

/// Collects the request, and answers with the same bytes, or with an error. The header `at-least` is
/// that of `TooLarge`.
async fn echo(pool: &Pool, request: Request<Incoming>) -> Response<Full<PooledBytes>> {
    let (status, body, at_least) = match collect(pool, request.into_body(), LIMIT).await {
        Ok(Collected { buf, .. }) => (StatusCode::OK, Full::new(buf.freeze()), 0),
        Err(CollectError::TooLarge { at_least, .. }) => {
            (StatusCode::PAYLOAD_TOO_LARGE, Full::default(), at_least)
        }
        Err(_) => (StatusCode::BAD_REQUEST, Full::default(), 0),
    };
    let builder = Response::builder().status(status);
    builder.header("at-least", at_least).body(body).unwrap()
}

/// Two ends of a connection.
async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let there = TcpStream::connect(address).await.unwrap();
    (listener.accept().await.unwrap().0, there)
}

/// Serves one connection to its end. Returns whether it ended well.
async fn serve(pool: &Pool, stream: TcpStream) -> bool {
    let service = service_fn(|request| async { Ok::<_, Infallible>(echo(pool, request).await) });
    let server = server::conn::http1::Builder::new();
    let served = server.serve_connection(TokioIo::new(stream), service);
    served.await.is_ok()
}

/// Runs a server for one connection, and a client with the other end of it. Returns whether the
/// connection ended well, and the client's result.
fn with_server<T, F: Future<Output = T>>(
    pool: &Pool,
    client: impl FnOnce(TcpStream) -> F,
) -> (bool, T) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_io().build().unwrap();
    runtime.block_on(async {
        let (server, stream) = connected().await;
        tokio::join!(serve(pool, server), client(stream))
    })
}

/// As [`with_server`], but drops the server's future, in the middle of its work, once the client is done.
fn with_server_until(pool: &Pool, client: impl AsyncFnOnce(TcpStream)) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_io().build().unwrap();
    runtime.block_on(async {
        let (server, stream) = connected().await;
        tokio::select! {
            _ = serve(pool, server) => panic!("the server ends first"),
            () = client(stream) => {}
        }
    });
}

/// Posts these bytes, and reads to the end of the connection.
async fn post(mut stream: TcpStream, head: &str, body: &[u8]) -> String {
    let head = format!("POST / HTTP/1.1\r\nhost: here\r\n{head}");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Sends each body in turn on one connection. Returns the answers: status, contents and the number
/// in `at-least`.
async fn upload<B>(stream: TcpStream, bodies: Vec<B>) -> Vec<(StatusCode, Bytes, String)>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Error + Send + Sync,
{
    let stream = TokioIo::new(stream);
    let (mut sender, connection) = client::conn::http1::handshake(stream).await.unwrap();
    let asked = async move {
        let mut answers = Vec::new();
        for body in bodies {
            let mut answer = sender
                .send_request(Request::post("/").body(body).unwrap())
                .await
                .unwrap();
            let contents = answer.body_mut().collect().await.unwrap().to_bytes();
            assert_eq!(answer.headers()[CONTENT_LENGTH], contents.len().to_string());
            let at_least = answer.headers()["at-least"].to_str().unwrap().to_owned();
            answers.push((answer.status(), contents, at_least));
        }
        answers
    };
    let (answers, _ended) = tokio::join!(asked, connection);
    answers
}

#[test]
fn uploads_of_known_and_unknown_length_come_back() {
    let lens = [0, 1, 5000, 65_536, LIMIT];
    let pool = pool();
    let known = lens.iter().map(|&len| Full::new(Bytes::from(bytes(len))));
    let (ended_well, answers) = with_server(&pool, |stream| upload(stream, known.collect()));
    assert!(ended_well);
    for (&len, answer) in lens.iter().zip(answers) {
        assert!(answer == (StatusCode::OK, bytes(len).into(), "0".to_owned()));
    }
    assert_eq!(gets(&pool), lens.len() as u64); // none has grown
    assert_all_home(&pool);

    let chunked = lens.iter().map(|&len| {
        let sent = bytes(len);
        let steps = sent
            .chunks(999)
            .flat_map(|piece| [Data(piece.to_vec()), Waits]);
        Scripted::new(no_hint(), steps)
    });
    let (ended_well, answers) = with_server(&pool, |stream| upload(stream, chunked.collect()));
    assert!(ended_well);
    for (&len, answer) in lens.iter().zip(answers) {
        assert!(answer == (StatusCode::OK, bytes(len).into(), "0".to_owned()));
    }
    assert_all_home(&pool);
}

#[test]
fn uploads_miss_nothing_once_the_pool_is_warm() {
    let pool = pool();
    let bodies = |count| vec![Full::new(Bytes::from(bytes(50_000))); count];
    with_server(&pool, |stream| upload(stream, bodies(3)));
    let misses = pool.stats().total.misses;
    let (_, answers) = with_server(&pool, |stream| upload(stream, bodies(20)));
    assert!(answers.iter().all(|answer| answer.1 == bytes(50_000)));
    assert_eq!(pool.stats().total.misses, misses);
    assert_eq!(pool.stats().total.local_hits, gets(&pool) - misses);
    assert_all_home(&pool);
}

#[test]
fn an_upload_that_announces_too_much_is_refused_before_a_byte_of_it_is_sent() {
    let pool = pool();
    let head = format!("{CONTENT_LENGTH}: {}\r\n\r\n", LIMIT + 1);
    let (_, answer) = with_server(&pool, |stream| post(stream, &head, &[]));
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("at-least: 100001\r\n"), "{answer}");
    assert_eq!(gets(&pool), 0);
}

#[test]
fn a_chunked_upload_is_refused_at_the_byte_above_the_limit() {
    let pool = pool();
    // One chunk of twice the limit. Only as much is sent as is refused, so the server reads it all.
    let head = format!("{TRANSFER_ENCODING}: chunked\r\n\r\n{:x}\r\n", 2 * LIMIT);
    let (_, answer) = with_server(&pool, |stream| post(stream, &head, &[0; LIMIT + 1]));
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("at-least: 100001\r\n"), "{answer}");
    assert!(gets(&pool) > 0);
    assert_all_home(&pool);
}

#[test]
fn a_client_that_vanishes_leaves_nothing_outstanding() {
    let heads = [
        format!("{CONTENT_LENGTH}: 5000\r\n\r\nsome of the bytes"),
        format!("{CONTENT_LENGTH}: 5000\r\n\r\n"),
        format!("{TRANSFER_ENCODING}: chunked\r\n\r\n4\r\nsome\r\n"),
        format!("{TRANSFER_ENCODING}: chunked\r\n\r\n4\r\nso"),
        format!("{TRANSFER_ENCODING}: chunked\r\n\r\nthis is no length\r\n"),
    ];
    let mut taken = 0;
    for head in heads {
        let pool = pool();
        with_server(&pool, async |mut stream: TcpStream| {
            let head = format!("POST / HTTP/1.1\r\nhost: here\r\n{head}");
            stream.write_all(head.as_bytes()).await.unwrap();
        });
        taken += gets(&pool);
        assert_all_home(&pool);
    }
    assert!(taken > 0, "some of them had sent a part of the body");
}

#[test]
fn a_server_that_gives_up_leaves_nothing_outstanding() {
    let pool = pool();
    with_server_until(&pool, async |mut stream: TcpStream| {
        let head = b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 5000\r\n\r\nsome";
        stream.write_all(head).await.unwrap();
        while pool.stats().total.outstanding == 0 {
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(gets(&pool), 1);
    assert_all_home(&pool);
}

/// The future may go to another thread if the body may.
#[test]
fn the_future_is_send() {
    fn assert_send<T: Send>(_: &T) {}
    let pool = pool();
    assert_send(&collect(&pool, Full::<PooledBytes>::default(), 0));
    assert_send(&collect(&pool, Full::<Bytes>::default(), 0));
}
