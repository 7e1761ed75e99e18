//! `copy` and `copy_bidirectional`: against those of `tokio`, and what they hold.

use super::*;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;
use tierpool::tokio::{copy, copy_bidirectional, copy_bidirectional_with_sizes, copy_with_size};

/// What a [`Duplex`] does when it is written to, flushed or shut down.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    /// Takes up to that many bytes.
    Take(usize),
    Wait,
    Interrupt,
    Fail,
}

/// Reads from a [`Source`], and takes one act after the other for what is written. Takes all behind the
/// last act.
#[derive(Debug, Default)]
pub(super) struct Duplex {
    source: Source,
    acts: VecDeque<Act>,
    pub(super) written: Vec<u8>,
    flushed: usize,
    pub(super) shut: bool,
}

impl Duplex {
    pub(super) fn new(source: Source) -> Self {
        Duplex {
            source,
            ..Duplex::default()
        }
    }

    fn acting(mut self, acts: &[Act]) -> Self {
        self.acts = acts.iter().copied().collect();
        self
    }

    /// Waits before each byte that it takes, before each flush and before the shutdown.
    pub(super) fn slow(self) -> Self {
        self.acting(&[Act::Wait, Act::Take(1)].repeat(100))
    }

    /// The bytes that are not read.
    pub(super) fn unread(&self) -> usize {
        let steps = self.source.steps.iter();
        steps
            .map(|step| match step {
                Step::Bytes(bytes) => bytes.len(),
                _ => 0,
            })
            .sum()
    }

    /// The number of bytes to take now.
    fn act(&mut self) -> Poll<io::Result<usize>> {
        match self.acts.pop_front() {
            None => Poll::Ready(Ok(usize::MAX)),
            Some(Act::Take(bytes)) => Poll::Ready(Ok(bytes)),
            Some(Act::Wait) => Poll::Pending,
            Some(Act::Interrupt) => Poll::Ready(Err(io::ErrorKind::Interrupted.into())),
            Some(Act::Fail) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Waits if that is the next act.
    fn wait(&mut self) -> Poll<io::Result<()>> {
        match self.acts.front() {
            Some(Act::Wait) => self.act().map_ok(drop),
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncRead for Duplex {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.source).poll_read(cx, room)
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        assert!(!self.shut && !bytes.is_empty());
        self.act().map_ok(|most| {
            let taken = most.min(bytes.len());
            self.written.extend_from_slice(&bytes[..taken]);
            taken
        })
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wait().map_ok(|()| self.flushed = self.written.len())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        assert_eq!(self.flushed, self.written.len());
        self.wait().map_ok(|()| self.shut = true)
    }
}

/// Polls until it is ready.
fn finish<T>(future: impl Future<Output = T>) -> T {
    poll_times(future, 100_000).expect("it ends")
}

fn bytes(bytes: &[u8]) -> Step {
    Step::Bytes(bytes.to_vec())
}

// ---- against tokio ----

type Pieces = Vec<(usize, bool)>;

/// A stream's bytes, how they come, and how it takes the other one's.
fn side() -> impl Strategy<Value = (usize, Pieces, Vec<Act>)> {
    let act = prop_oneof![(1..3000usize).prop_map(Act::Take), Just(Act::Wait),];
    let pieces = vec((prop_oneof![1..4usize, 1..3000usize], any::<bool>()), 1..8);
    (0..20_000usize, pieces, vec(act, 0..20))
}

fn duplex((len, pieces, acts): &(usize, Pieces, Vec<Act>), seed: u8) -> Duplex {
    let input: Vec<u8> = (0..*len).map(|at| (at * 7) as u8 ^ seed).collect();
    Duplex::new(Source::new(steps(&input, pieces))).acting(acts)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_result_is_that_of_tokio(a in side(), b in side(), size in 0..5000usize) {
        let streams = || (duplex(&a, 1), duplex(&b, 2));
        let (mut a1, mut b1) = streams();
        let theirs = finish(tokio::io::copy_bidirectional(&mut a1, &mut b1)).unwrap();

        let pool = Pool::new();
        let (mut a2, mut b2) = streams();
        let ours = finish(copy_bidirectional_with_sizes(&pool, &mut a2, &mut b2, size, 3000));
        prop_assert_eq!(ours.unwrap(), theirs);
        prop_assert_eq!((&a2.written, &b2.written), (&a1.written, &b1.written));
        prop_assert!(a2.shut && b2.shut);
        assert_all_home(&pool);

        // One way: the writer stays open.
        let (mut reader, mut writer) = streams();
        let count = finish(copy_with_size(&pool, &mut reader, &mut writer, size)).unwrap();
        prop_assert_eq!((count, &writer.written), (theirs.0, &b1.written));
        prop_assert_eq!((writer.flushed, writer.shut), (count as usize, false));
        assert_all_home(&pool);
    }
}

// ---- memory ----

#[test]
fn idle_connections_hold_no_buffer() {
    const CONNECTIONS: usize = if cfg!(miri) { 10 } else { 10_000 };
    let pool = Pool::new();
    let side = |reply: &[u8]| {
        Duplex::new(Source::new([Step::Wait, bytes(reply), Step::Wait])).acting(&[Act::Wait])
    };
    let mut streams: Vec<_> = (0..CONNECTIONS)
        .map(|_| (side(b"ask"), side(b"answer")))
        .collect();
    let copies = streams.iter_mut();
    let mut copies: Vec<_> = copies
        .map(|(a, b)| Box::pin(copy_bidirectional(&pool, a, b)))
        .collect();
    let mut poll = || {
        let mut cx = Context::from_waker(Waker::noop());
        let polled = copies.iter_mut().map(|copy| copy.as_mut().poll(&mut cx));
        polled.filter(|poll| poll.is_ready()).count()
    };
    assert_eq!((poll(), outstanding(&pool)), (0, 0));
    assert_eq!(pool.stats().total.misses, 1); // all of them have used the same buffer
    // Each side has bytes, and waits to write.
    assert_eq!((poll(), outstanding(&pool)), (0, 2 * CONNECTIONS as u64));
    assert_eq!((poll(), outstanding(&pool)), (0, 0)); // written, and idle again
    assert_eq!((poll(), outstanding(&pool)), (CONNECTIONS, 0));
    assert_accounts_balance(&pool);
}

#[test]
fn the_state_of_an_idle_connection_is_small() {
    let (pool, mut a, mut b) = (Pool::new(), Duplex::default(), Duplex::default());
    let copy = copy_bidirectional(&pool, &mut a, &mut b);
    assert!(size_of_val(&copy) <= 512, "{}", size_of_val(&copy));
}

#[test]
fn a_read_fills_the_size_class_and_no_more() {
    let pool = Pool::new();
    let mut writer = Duplex::default().acting(&[Act::Wait]);
    let mut reader = Source::new([bytes(&[7; 10_000])]);
    let mut copying = pin!(copy_with_size(&pool, &mut reader, &mut writer, 3000));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(copying.as_mut().poll(&mut cx).is_pending());
    assert_eq!(pool.stats().total.outstanding_bytes, 4096);
    assert!(matches!(copying.poll(&mut cx), Poll::Ready(Ok(10_000))));
    assert_all_home(&pool);
}

// ---- the ends ----

#[test]
fn one_side_may_end_long_before_the_other() {
    let pool = Pool::new();
    let mut a = Duplex::new(Source::new([bytes(b"ask")]));
    let mut b = Duplex::new(Source::slow(b"a long answer"));
    {
        let mut copying = pin!(copy_bidirectional(&pool, &mut a, &mut b));
        let mut cx = Context::from_waker(Waker::noop());
        while copying.as_mut().poll(&mut cx).is_pending() {
            assert_eq!(outstanding(&pool), 0);
        }
    }
    assert_eq!(
        (&a.written[..], &b.written[..]),
        (&b"a long answer"[..], &b"ask"[..])
    );
    assert!(a.shut && b.shut);
}

#[test]
fn bytes_are_flushed_before_the_reader_is_waited_for() {
    let pool = Pool::new();
    let mut reader = Source::new([bytes(b"one"), bytes(b"two"), Step::Wait, Step::Wait]);
    let mut writer = Duplex::default();
    {
        let mut copying = pin!(copy(&pool, &mut reader, &mut writer));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(copying.as_mut().poll(&mut cx).is_pending());
    }
    assert_eq!((writer.written.len(), writer.flushed), (6, 6));
}

// ---- errors ----

#[test]
fn an_error_of_either_side_ends_both_directions_and_brings_the_buffers_home() {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, WriteZero};
    let reads = || Source::new([bytes(b"some"), Step::Wait, bytes(b" more"), Step::Fail]);
    let idle = || Source::new([Step::Wait, Step::Wait, Step::Wait, Step::Wait]);
    for (a, acts, kind) in [
        (reads(), &[][..], ConnectionReset),
        (reads(), &[Act::Take(2), Act::Wait, Act::Fail], BrokenPipe),
        (reads(), &[Act::Take(0)], WriteZero),
    ] {
        let pool = Pool::new();
        // What `a` gets waits in a buffer meanwhile.
        let mut a = Duplex::new(a).acting(&[Act::Wait; 9]);
        let mut b = idle();
        b.steps.push_front(bytes(b"waits"));
        let mut b = Duplex::new(b).acting(acts);
        let copied = finish(copy_bidirectional(&pool, &mut a, &mut b));
        assert_eq!(copied.unwrap_err().kind(), kind);
        assert!(b"some more".starts_with(&b.written));
        assert_all_home(&pool);
        let copied = finish(copy(
            &pool,
            &mut reads(),
            &mut Duplex::default().acting(acts),
        ));
        assert_eq!(copied.unwrap_err().kind(), kind);
        assert_all_home(&pool);
    }
}

// As in the newest tokio. In older ones, they are errors.
#[test]
fn interrupted_calls_are_repeated_and_let_other_tasks_run() {
    let pool = Pool::new();
    let steps = [Step::Interrupt, bytes(b"some"), Step::Interrupt];
    let mut reader = Source::new(steps);
    let acts = [Act::Interrupt, Act::Take(2), Act::Interrupt];
    let mut writer = Duplex::default().acting(&acts);
    let copied = poll_once(copy(&pool, &mut reader, &mut writer));
    assert!(matches!(copied, Poll::Ready(Ok(4))));
    assert_eq!(writer.written, b"some");
    let mut reader = Source::new((0..1000).map(|_| Step::Interrupt));
    assert!(poll_once(copy(&pool, &mut reader, &mut writer)).is_pending());
    assert_eq!(reader.polls, 64);
    assert_all_home(&pool);
}

#[test]
fn a_size_that_the_heap_refuses_is_an_error() {
    let pool = Pool::new();
    let copied = finish(copy_with_size(
        &pool,
        &mut &b"x"[..],
        &mut Vec::new(),
        usize::MAX,
    ));
    let error = copied.unwrap_err();
    let error = error.get_ref().and_then(|error| error.downcast_ref());
    assert!(matches!(error, Some(GetError::TooLarge { .. })));
    assert_all_home(&pool);
}

/// Claims to have written more than it got.
struct Boaster(Cell<usize>);

impl AsyncWrite for Boaster {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.set(self.0.get() + bytes.len());
        Poll::Ready(Ok(usize::MAX))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_writer_that_claims_too_much_is_not_believed() {
    let pool = Pool::new();
    let mut writer = Boaster(Cell::new(0));
    let input = [7; 20_000];
    assert_eq!(
        finish(copy(&pool, &mut &input[..], &mut writer)).unwrap(),
        20_000
    );
    assert_eq!(writer.0.get(), 20_000);
}

#[test]
fn a_panic_of_a_stream_brings_the_buffers_home() {
    let pool = Pool::new();
    let mut a = Duplex::new(Source::new([bytes(b"some"), Step::Panic]));
    let mut b = Duplex::new(Source::new([bytes(b"more")])).acting(&[Act::Take(2), Act::Take(2)]);
    let copying = AssertUnwindSafe(|| finish(copy_bidirectional(&pool, &mut a, &mut b)));
    catch_unwind(copying).unwrap_err();
    assert_eq!(b.written, b"some");
    assert_all_home(&pool);
}

// ---- fairness ----

/// Always has bytes, and takes all.
struct Endless;

impl AsyncRead for Endless {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        room.put_slice(b"more");
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn an_endless_direction_starves_neither_the_other_one_nor_the_task() {
    let pool = Pool::new();
    let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&wakes));
    let mut cx = Context::from_waker(&waker);
    for endless_first in [true, false] {
        let mut finite = Duplex::new(Source::new([bytes(b"some"), bytes(b"more")]));
        let polled = match endless_first {
            true => pin!(copy_bidirectional(&pool, &mut Endless, &mut finite)).poll(&mut cx),
            false => pin!(copy_bidirectional(&pool, &mut finite, &mut Endless)).poll(&mut cx),
        };
        assert!(polled.is_pending());
        assert_eq!(finite.source.steps.len(), 0);
        assert_eq!(finite.written.len(), 4 * 32); // 32 reads and 32 writes
    }
    assert_eq!(wakes.0.load(Ordering::Relaxed), 2);
    // A writer that takes a byte at a time lets other tasks run as well.
    let mut writer = Duplex::default().acting(&[Act::Take(1); 1000]);
    assert!(poll_once(copy(&pool, &mut &[7; 1000][..], &mut writer)).is_pending());
    assert_eq!(writer.written.len(), 63);
    assert_all_home(&pool);
}

// ---- sockets ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_of_sockets_passes_all_bytes_and_the_ends() {
    const CLIENTS: usize = 6;
    let pool = Pool::new();
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut tasks = JoinSet::new();
    for kind in 0..CLIENTS {
        let address = relay.local_addr().unwrap();
        let vanishes = kind % 2 == 1;
        tasks.spawn(async move {
            let input: Vec<u8> = (0..300_000).map(|at: u32| (at / 7) as u8).collect();
            let socket = TcpStream::connect(address).await.unwrap();
            let (mut from, mut to) = socket.into_split();
            if vanishes {
                to.write_all(&input[..1000]).await.unwrap();
                return; // closes both ways, with the answer unread
            }
            let sender = tokio::spawn(async move {
                to.write_all(&input).await.unwrap();
                to.shutdown().await.unwrap();
                input
            });
            let mut output = Vec::new();
            from.read_to_end(&mut output).await.unwrap();
            assert!(output == sender.await.unwrap());
        });
        let (mut near, _) = relay.accept().await.unwrap();
        let mut far = TcpStream::connect(server.local_addr().unwrap())
            .await
            .unwrap();
        let (mut socket, _) = server.accept().await.unwrap();
        let pool = pool.clone();
        tasks.spawn(async move {
            // Answers only after it has all.
            let mut input = Vec::new();
            if socket.read_to_end(&mut input).await.is_ok() {
                let _client_may_be_gone = socket.write_all(&input).await;
            }
        });
        tasks.spawn(async move {
            let copied = copy_bidirectional(&pool, &mut near, &mut far).await;
            if !vanishes {
                assert_eq!(copied.unwrap(), (300_000, 300_000));
            }
        });
    }
    tasks.join_all().await;
    assert_all_home(&pool);
}

// Failed once: the direction that went above the limit left its place in the queue, which kept its share.
#[cfg(feature = "limit")]
#[test]
fn a_direction_that_goes_above_the_limit_leaves_the_queue() {
    let builder = Pool::builder().max_size(8192).max_outstanding_bytes(8192);
    let pool = builder.build().unwrap();
    let [small, large, rest] = [512, 4096, 2048].map(|size| pool.try_get(size).unwrap());
    let more = [1024, 512].map(|size| pool.try_get(size).unwrap());
    let source = |steps: Vec<Step>| Duplex::new(Source::new(steps)).acting(&[Act::Wait; 9]);
    let mut a = source(vec![Step::Wait, Step::Bytes(b"one".to_vec()), Step::Wait]);
    let mut b = source(vec![Step::Bytes(b"other".to_vec()), Step::Wait]);
    let mut relay = pin!(copy_bidirectional_with_sizes(
        &pool, &mut a, &mut b, 512, 4096
    ));
    let mut poll = || assert!(poll_once(relay.as_mut()).is_pending());
    poll(); // both wait, `a` first
    drop(small);
    poll(); // `a` has its turn, and nothing to read
    poll(); // it waits again, now behind `b`
    assert_eq!(pool.stats().waits, 3);
    drop(large);
    poll(); // one of them has bytes, and the other one goes above the limit
    poll();
    drop((rest, more));
    assert_eq!(pool.stats().total.outstanding_bytes, 4096 + 512);
    let _room = [2048, 1024, 512].map(|size| pool.try_get(size).unwrap());
}
