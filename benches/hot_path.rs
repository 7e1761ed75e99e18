//! The time of a get and a drop, each figure beside its alternatives, in one run.
//!
//! ```text
//! cargo bench --bench hot_path                          criterion, all groups
//! cargo bench --bench hot_path -- mixed                 criterion, names that contain "mixed"
//! cargo bench --bench hot_path -- --ratios              one table: medians, ratios, requirements
//! cargo bench --bench hot_path -- --ratios mixed growth only names that contain one of these
//!     --alone floor|plain|pool     run only this contender, in its own process
//!     --csv FILE                   append one row per workload (path from the package's root)
//!     --rounds N                   batches per figure; default 41
//!     --stats                      print the counts of each pool
//! ```
//!
//! The claims are ratios, and machines are noisy. So `--ratios` runs the contenders of a workload
//! in turn, batch by batch, and takes medians. That favours pools: plain `BytesMut` is often faster
//! with the process and its heap to itself. `--alone plain` gives that number. Quote both.
//!
//! # Contenders
//!
//! - **floor**: the least time of the workload without the work of a pool: no buffer goes home by
//!   itself or to another thread, and none is bounded, counted or freed. It is a unit, not an
//!   alternative.
//! - **plain**: `BytesMut::with_capacity` and drop, on the system's allocator.
//! - **pool**: `Pool::default()`, a new one for each workload.
//!
//! # Workloads
//!
//! | name | one operation | its floor |
//! |---|---|---|
//! | local | get and drop on one thread; `touched` writes one byte per 4 KiB page | pop and push on a thread-local vector of pointers, one per size class |
//! | threads | the same at 4 KiB on one thread and on two at once; time per operation of a thread | the same |
//! | mixed | 64 outstanding, sizes log-uniform from 64 B to 64 KiB; get one, drop a random one for it | the same |
//! | producer_consumer | get 4 KiB, push to an `ArrayQueue` of 256; another thread pops and drops | the queue carrying a pointer to nothing |
//! | calibration | local at 4 KiB, in a pool that calibrates and in one that does not | the same |
//! | pools | local at 4 KiB, in one pool, and in 32 pools in turn | the same |
//! | unkept | local, in a pool that may keep nothing: each get misses, and each drop frees | the same |
//! | growth | get 64 B, put 256 bytes at a time up to a log-normal 3 KiB (1 % are 100 KiB), drop | put into one retained buffer that has room |
//!
//! Sizes and buffers pass through `black_box` by reference. So the compiler knows no size
//! beforehand, and each buffer (floor 2 words, plain 4, pool 3) is written to the stack and read
//! back, as for a caller that keeps it.
//!
//! # Noise
//!
//! `threads` and `producer_consumer` need two free cores. On one core, the heap's lock is never
//! contended, and plain looks six times as fast. A row whose batches vary much is marked `noisy`;
//! run it again.

use std::array;
use std::cell::{Cell as StdCell, OnceCell, RefCell};
use std::env;
use std::f64::consts::TAU;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::hint::{black_box, spin_loop};
use std::io::{self, Write as _};
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop, MaybeUninit};
use std::process::{Command, ExitCode};
use std::ptr::NonNull;
use std::slice;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bytes::{BufMut, BytesMut};
use criterion::{BenchmarkId, Criterion};
use crossbeam_queue::ArrayQueue;
use tierpool::{Builder, Pool, PooledBuf};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const PAGE: usize = 4 * KIB;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    if !args.iter().any(|arg| arg == "--ratios") {
        criterion_groups();
        return ExitCode::SUCCESS;
    }
    let done =
        Options::parse(&args).and_then(|options| ratios(&options).map_err(|e| e.to_string()));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("hot_path: {message}");
            ExitCode::FAILURE
        }
    }
}

/// All workloads. Rows of one block are interleaved with each other.
fn blocks() -> Vec<Vec<Row>> {
    let mut blocks = Vec::new();
    for (size, label) in [
        (64, "64 B"),
        (512, "512 B"),
        (KIB, "1 KiB"),
        (4 * KIB, "4 KiB"),
        (16 * KIB, "16 KiB"),
        (64 * KIB, "64 KiB"),
        (256 * KIB, "256 KiB"),
        (MIB, "1 MiB"),
    ] {
        blocks.push(vec![Row::new::<_, Stack>(
            "local",
            label.to_string(),
            Required::NearFloor(1.45),
            Local::<false> { size },
        )]);
        blocks.push(vec![Row::new::<_, Stack>(
            "local",
            format!("{label} touched"),
            Required::NearFloor(1.65),
            Local::<true> { size },
        )]);
    }
    blocks.push(
        [
            (1, "one", Required::Nothing),
            (2, "two", Required::AsOneThread),
        ]
        .map(|(threads, label, required)| {
            let workload = Threads {
                threads,
                each: Local::<false> { size: 4 * KIB },
            };
            Row::new::<_, Stack>("threads", label.to_string(), required, workload)
        })
        .into(),
    );
    blocks.push(vec![Row::new::<_, Stacks>(
        "mixed",
        "64 outstanding".to_string(),
        Required::Speedup(8.0),
        Mixed,
    )]);
    blocks.push(vec![Row::new::<_, NoBuffer>(
        "producer_consumer",
        "4 KiB".to_string(),
        Required::Speedup(15.0),
        ProducerConsumer { size: 4 * KIB },
    )]);
    blocks.push(vec![Row::new::<_, Retained>(
        "growth",
        "64 B to ~3 KiB".to_string(),
        Required::Speedup(2.3),
        Growth,
    )]);
    let local = Local::<false> { size: 4 * KIB };
    blocks.push(vec![
        Row::with_pool::<_, Stack, Other<Uncalibrated>>(
            "calibration",
            "off".to_string(),
            Required::Nothing,
            local.clone(),
        ),
        Row::new::<_, Stack>("calibration", "on".to_string(), Required::AsWithout, local),
    ]);
    let local = Local::<false> { size: 4 * KIB };
    blocks.push(vec![
        Row::with_pool::<_, Stack, Pools<1>>(
            "pools",
            "one".to_string(),
            Required::Nothing,
            local.clone(),
        ),
        Row::with_pool::<_, Stack, Pools<32>>(
            "pools",
            "32 in turn".to_string(),
            Required::AsOnePool,
            local,
        ),
    ]);
    for (size, label) in [(512, "512 B"), (4 * KIB, "4 KiB"), (64 * KIB, "64 KiB")] {
        blocks.push(vec![Row::with_pool::<_, Stack, Other<Unkept>>(
            "unkept",
            label.to_string(),
            Required::Nothing,
            Local::<false> { size },
        )]);
    }
    blocks
}

// ---------------------------------------------------------------------------
// Contenders

/// A way to acquire and release a buffer.
trait Contender: Default + Sync {
    const NAME: &'static str;
    type Buf;

    /// An empty buffer with room for `size` bytes.
    fn get(&self, size: usize) -> Self::Buf;

    /// Releases a buffer, on any thread.
    fn release(buf: Self::Buf) {
        drop(buf);
    }

    /// The contender's counts, if it has any.
    fn stats(&self) -> Option<String> {
        None
    }
}

/// A contender whose buffers give access to their spare room.
trait Roomy: Contender {
    fn room(buf: &mut Self::Buf) -> &mut [MaybeUninit<u8>];
}

/// `BytesMut::with_capacity` and drop.
#[derive(Default)]
struct Plain;

impl Contender for Plain {
    const NAME: &'static str = "plain";
    type Buf = BytesMut;

    #[inline]
    fn get(&self, size: usize) -> BytesMut {
        BytesMut::with_capacity(size)
    }
}

impl Roomy for Plain {
    #[inline]
    fn room(buf: &mut BytesMut) -> &mut [MaybeUninit<u8>] {
        buf.spare_capacity_mut()
    }
}

/// The pool with default options.
#[derive(Default)]
struct Tierpool(Pool);

impl Contender for Tierpool {
    const NAME: &'static str = "pool";
    type Buf = PooledBuf;

    #[inline]
    fn get(&self, size: usize) -> PooledBuf {
        self.0.get(size)
    }

    fn stats(&self) -> Option<String> {
        Some(self.0.stats().to_string())
    }
}

impl Roomy for Tierpool {
    #[inline]
    fn room(buf: &mut PooledBuf) -> &mut [MaybeUninit<u8>] {
        buf.spare_capacity_mut()
    }
}

/// A pool with other options than the defaults.
struct Other<O>(Tierpool, PhantomData<fn(O)>);

trait Setting: 'static {
    fn set(builder: Builder) -> Builder;
}

/// It learns nothing.
struct Uncalibrated;

impl Setting for Uncalibrated {
    fn set(builder: Builder) -> Builder {
        builder.learn_sizes(false)
    }
}

/// It keeps no buffer: each get misses, and each drop frees.
struct Unkept;

impl Setting for Unkept {
    fn set(builder: Builder) -> Builder {
        builder.retain_bytes(0)
    }
}

impl<O: Setting> Default for Other<O> {
    fn default() -> Self {
        let pool = O::set(Pool::builder()).build();
        let pool = pool.expect("the options are valid");
        Other(Tierpool(pool), PhantomData)
    }
}

impl<O: Setting> Contender for Other<O> {
    const NAME: &'static str = "pool";
    type Buf = PooledBuf;

    #[inline]
    fn get(&self, size: usize) -> PooledBuf {
        self.0.get(size)
    }

    fn stats(&self) -> Option<String> {
        self.0.stats()
    }
}

impl<O: Setting> Roomy for Other<O> {
    #[inline]
    fn room(buf: &mut PooledBuf) -> &mut [MaybeUninit<u8>] {
        Tierpool::room(buf)
    }
}

/// Several pools, used in turn, as in a program that has one for each service or library.
struct Pools<const COUNT: usize> {
    pools: [Pool; COUNT],
    next: AtomicUsize,
}

impl<const COUNT: usize> Default for Pools<COUNT> {
    fn default() -> Self {
        Pools {
            pools: array::from_fn(|_| Pool::default()),
            next: AtomicUsize::new(0),
        }
    }
}

impl<const COUNT: usize> Contender for Pools<COUNT> {
    const NAME: &'static str = "pool";
    type Buf = PooledBuf;

    #[inline]
    fn get(&self, size: usize) -> PooledBuf {
        // Relaxed: only one thread uses it.
        let at = self.next.load(Ordering::Relaxed);
        self.next.store((at + 1) % COUNT, Ordering::Relaxed);
        self.pools[at].get(size)
    }
}

impl<const COUNT: usize> Roomy for Pools<COUNT> {
    #[inline]
    fn room(buf: &mut PooledBuf) -> &mut [MaybeUninit<u8>] {
        Tierpool::room(buf)
    }
}

/// The floor for buffers of one size: pop and push on a thread-local vector of pointers.
///
/// It ignores the size: every buffer has room for the largest one. Pages that no one writes to
/// never get memory. All buffers are leaked.
#[derive(Default)]
struct Stack;

const STACK_BUF: usize = MIB;

thread_local! {
    static ONE: RefCell<ManuallyDrop<Vec<<Stack as Contender>::Buf>>> =
        const { RefCell::new(ManuallyDrop::new(Vec::new())) };
}

impl Contender for Stack {
    const NAME: &'static str = "floor";
    type Buf = &'static mut [MaybeUninit<u8>; STACK_BUF];

    #[inline]
    fn get(&self, _size: usize) -> Self::Buf {
        #[cold]
        fn allocate() -> <Stack as Contender>::Buf {
            let room = Box::leak(Box::<[u8]>::new_uninit_slice(STACK_BUF));
            room.try_into().expect("the length is right")
        }
        let kept = ONE.with_borrow_mut(|stack| stack.pop());
        kept.unwrap_or_else(allocate)
    }

    #[inline]
    fn release(buf: Self::Buf) {
        ONE.with_borrow_mut(|stack| stack.push(buf));
    }
}

impl Roomy for Stack {
    #[inline]
    fn room(buf: &mut Self::Buf) -> &mut [MaybeUninit<u8>] {
        &mut buf[..]
    }
}

/// The floor for mixed sizes: the same, with one vector per size class.
///
/// The buffers are leaked.
#[derive(Default)]
struct Stacks;

/// 512 B to 1 MiB by doubling, as the pool's classes.
const STACKS: usize = 12;
const STACKS_SHIFT: u32 = 9;

/// A pointer to `512 << class` bytes with one owner.
struct StackBuf {
    room: NonNull<MaybeUninit<u8>>,
    class: u32,
}

// `ManuallyDrop`: without a destructor, the access is one address and no check.
type PointerStack = RefCell<ManuallyDrop<Vec<NonNull<MaybeUninit<u8>>>>>;

thread_local! {
    static LOCAL: [PointerStack; STACKS] =
        const { [const { RefCell::new(ManuallyDrop::new(Vec::new())) }; STACKS] };
}

impl Contender for Stacks {
    const NAME: &'static str = "floor";
    type Buf = StackBuf;

    #[inline]
    fn get(&self, size: usize) -> StackBuf {
        #[cold]
        fn allocate(class: u32) -> NonNull<MaybeUninit<u8>> {
            let room = Box::<[u8]>::new_uninit_slice(1 << (STACKS_SHIFT + class));
            NonNull::from(Box::leak(room)).cast()
        }
        let smallest = (1 << STACKS_SHIFT) - 1;
        let class = usize::BITS - ((size - 1) | smallest).leading_zeros() - STACKS_SHIFT;
        let room = LOCAL
            .with(|stacks| stacks[class as usize].borrow_mut().pop())
            .unwrap_or_else(|| allocate(class));
        StackBuf { room, class }
    }

    #[inline]
    fn release(buf: StackBuf) {
        LOCAL.with(|stacks| stacks[buf.class as usize].borrow_mut().push(buf.room));
    }
}

impl Roomy for Stacks {
    #[inline]
    fn room(buf: &mut StackBuf) -> &mut [MaybeUninit<u8>] {
        let len = 1 << (STACKS_SHIFT + buf.class);
        // SAFETY: `allocate` leaked `len` bytes there. Each pointer is in one place, a vector or a
        // `StackBuf`, and `buf` is borrowed as long as the result.
        unsafe { slice::from_raw_parts_mut(buf.room.as_ptr(), len) }
    }
}

/// The floor of a queue between threads: it carries a pointer, without a get or a drop.
#[derive(Default)]
struct NoBuffer;

impl Contender for NoBuffer {
    const NAME: &'static str = "floor";
    type Buf = &'static u8;

    #[inline]
    fn get(&self, _size: usize) -> &'static u8 {
        &0
    }
}

/// The floor of growth: one thread-local buffer that always has room.
#[derive(Default)]
struct Retained;

thread_local! {
    static RETAINED: StdCell<BytesMut> = StdCell::new(BytesMut::with_capacity(GROWTH_RARE));
}

impl Contender for Retained {
    const NAME: &'static str = "floor";
    type Buf = BytesMut;

    #[inline]
    fn get(&self, _size: usize) -> BytesMut {
        RETAINED.take()
    }

    #[inline]
    fn release(mut buf: BytesMut) {
        buf.clear();
        RETAINED.set(buf);
    }
}

// ---------------------------------------------------------------------------
// Workloads

/// An operation on a contender, to be repeated.
trait Workload<C: Contender>: Clone + 'static {
    /// The time of `n` operations, without their preparation.
    fn time(&self, contender: &C, n: u64) -> Duration;
}

/// Get and drop on one thread; if `TOUCH`, one byte is written per page.
#[derive(Clone)]
struct Local<const TOUCH: bool> {
    size: usize,
}

impl<C: Roomy, const TOUCH: bool> Workload<C> for Local<TOUCH> {
    #[inline(never)]
    fn time(&self, contender: &C, n: u64) -> Duration {
        let start = Instant::now();
        for _ in 0..n {
            let size = *black_box(&self.size);
            let mut buf = contender.get(size);
            if TOUCH {
                for page in C::room(&mut buf)[..size].chunks_mut(PAGE) {
                    page[0].write(1);
                }
            }
            black_box(&mut buf);
            C::release(buf);
        }
        start.elapsed()
    }
}

/// `threads` threads at once. The time is the mean of theirs.
///
/// The threads are new in each batch, and have got and dropped a buffer before it starts.
#[derive(Clone)]
struct Threads<W> {
    threads: usize,
    each: W,
}

impl<C: Contender, W: Workload<C> + Sync> Workload<C> for Threads<W> {
    fn time(&self, contender: &C, n: u64) -> Duration {
        const WARM_UP: u64 = 1000;
        let ready = AtomicUsize::new(0);
        let work = || {
            self.each.time(contender, WARM_UP);
            // Relaxed: it lets the threads start together and publishes nothing.
            ready.fetch_add(1, Ordering::Relaxed);
            let mut wait = Wait::default();
            while ready.load(Ordering::Relaxed) < self.threads {
                wait.once();
            }
            self.each.time(contender, n)
        };
        thread::scope(|scope| {
            let running: Vec<_> = (0..self.threads).map(|_| scope.spawn(work)).collect();
            let times = running.into_iter().map(|t| t.join().expect("no panic"));
            times.sum::<Duration>() / self.threads as u32
        })
    }
}

/// 64 outstanding buffers. Each operation gets a new one and drops a random one.
#[derive(Clone)]
struct Mixed;

const OUTSTANDING: usize = 64;

/// Evenly spaced quantiles of a log-uniform distribution from 64 B to 64 KiB.
static MIXED_SIZES: LazyLock<[u32; 1024]> = LazyLock::new(|| {
    array::from_fn(|i| (64.0 * 1024_f64.powf((i as f64 + 0.5) / 1024.0)).round() as u32)
});

impl<C: Contender> Workload<C> for Mixed {
    #[inline(never)]
    fn time(&self, contender: &C, n: u64) -> Duration {
        let sizes: &[u32; 1024] = &MIXED_SIZES;
        let mut random = Random::new();
        let mut size = || {
            let bits = random.next();
            // The upper bits are the better ones. The two ranges do not overlap.
            let (size, place) = (sizes[(bits >> 54) as usize], (bits >> 48) as usize);
            (size as usize, place % OUTSTANDING)
        };
        let mut held: [C::Buf; OUTSTANDING] = array::from_fn(|_| contender.get(size().0));
        let start = Instant::now();
        for _ in 0..n {
            let (size, place) = size();
            let mut buf = contender.get(size);
            black_box(&mut buf);
            C::release(mem::replace(&mut held[place], buf));
        }
        let time = start.elapsed();
        held.into_iter().for_each(C::release);
        time
    }
}

/// This thread gets and pushes, and a new one pops and drops. The time ends with the last drop.
#[derive(Clone)]
struct ProducerConsumer {
    size: usize,
}

impl<C: Contender<Buf: Send>> Workload<C> for ProducerConsumer {
    #[inline(never)]
    fn time(&self, contender: &C, n: u64) -> Duration {
        // Many times the queue's length, so that all circulating buffers have been allocated.
        const WARM_UP: u64 = 2000;
        let queue = ArrayQueue::new(256);
        let consume = |n: u64| {
            for _ in 0..n {
                let mut wait = Wait::default();
                let buf = loop {
                    match queue.pop() {
                        Some(buf) => break buf,
                        None => wait.once(),
                    }
                };
                C::release(buf);
            }
        };
        let produce = |n: u64| {
            for _ in 0..n {
                let mut buf = contender.get(*black_box(&self.size));
                black_box(&mut buf);
                let mut wait = Wait::default();
                while let Err(back) = queue.push(buf) {
                    buf = back;
                    wait.once();
                }
            }
        };
        thread::scope(|scope| {
            let consumer = scope.spawn(|| {
                consume(WARM_UP + n);
                Instant::now()
            });
            produce(WARM_UP);
            let mut wait = Wait::default();
            while !queue.is_empty() {
                wait.once();
            }
            let start = Instant::now();
            produce(n);
            consumer.join().expect("no panic").duration_since(start)
        })
    }
}

/// From 64 bytes to a length that is not known beforehand, 256 bytes at a time.
#[derive(Clone)]
struct Growth;

/// The length of the rare 1 %.
const GROWTH_RARE: usize = 100 * KIB;

/// Lengths: 99 % log-normal (median 3 KiB, sigma 0.5), 1 % rare.
static LENGTHS: LazyLock<[usize; 4000]> = LazyLock::new(|| {
    let mut random = Random::new();
    array::from_fn(|i| match i % 100 {
        50 => GROWTH_RARE,
        _ => (3.0 * KIB as f64 * (0.5 * random.normal()).exp()).round() as usize,
    })
});

impl<C: Contender<Buf: BufMut>> Workload<C> for Growth {
    #[inline(never)]
    fn time(&self, contender: &C, n: u64) -> Duration {
        let chunk = [b'x'; 256];
        let mut lengths = LENGTHS.iter().cycle();
        let start = Instant::now();
        for _ in 0..n {
            let mut left = *lengths.next().expect("a cycle has no end");
            let mut buf = contender.get(*black_box(&64));
            while left > 0 {
                let put = left.min(chunk.len());
                buf.put_slice(&chunk[..put]);
                left -= put;
            }
            black_box(&mut buf);
            C::release(buf);
        }
        start.elapsed()
    }
}

/// Spins for a short while, then lets others run.
#[derive(Default)]
struct Wait(u32);

impl Wait {
    #[inline]
    fn once(&mut self) {
        self.0 += 1;
        if self.0 % 128 == 0 {
            thread::yield_now();
        } else {
            spin_loop();
        }
    }
}

/// SplitMix64 with a fixed seed: every contender gets the same numbers.
struct Random(u64);

impl Random {
    fn new() -> Self {
        Random(0x5eed)
    }

    #[inline]
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A standard normal number, by Box and Muller.
    fn normal(&mut self) -> f64 {
        let [a, b] =
            [self.next(), self.next()].map(|bits| (bits >> 11) as f64 / (1_u64 << 53) as f64);
        (-2.0 * (1.0 - a).ln()).sqrt() * (TAU * b).cos()
    }
}

// ---------------------------------------------------------------------------
// Rows: a workload with its contenders

/// A workload, its contenders, and the requirement on the pool.
struct Row {
    group: &'static str,
    label: String,
    required: Required,
    cells: Vec<Box<dyn Cell>>,
}

impl Row {
    /// `Floor` beside plain and the default pool.
    fn new<W, Floor: Contender + 'static>(
        group: &'static str,
        label: String,
        required: Required,
        workload: W,
    ) -> Self
    where
        W: Workload<Floor> + Workload<Plain> + Workload<Tierpool>,
    {
        Self::with_pool::<W, Floor, Tierpool>(group, label, required, workload)
    }

    /// The same with another pool instead of the default one.
    fn with_pool<W, Floor: Contender + 'static, Other: Contender + 'static>(
        group: &'static str,
        label: String,
        required: Required,
        workload: W,
    ) -> Self
    where
        W: Workload<Floor> + Workload<Plain> + Workload<Other>,
    {
        fn cell<C: Contender + 'static>(workload: &(impl Workload<C> + 'static)) -> Box<dyn Cell> {
            Box::new(Contest {
                contender: OnceCell::<C>::new(),
                workload: workload.clone(),
            })
        }
        let cells = vec![
            cell::<Floor>(&workload),
            cell::<Plain>(&workload),
            cell::<Other>(&workload),
        ];
        Row {
            group,
            label,
            required,
            cells,
        }
    }

    fn name(&self) -> String {
        format!("{}, {}", self.group, self.label)
    }
}

/// One contender at one workload.
trait Cell {
    fn contender(&self) -> &'static str;
    fn time(&self, n: u64) -> Duration;
    fn stats(&self) -> Option<String>;
}

struct Contest<C, W> {
    /// Made when it is first timed, so that contenders that do not run leave no trace in the heap.
    contender: OnceCell<C>,
    workload: W,
}

impl<C: Contender, W: Workload<C>> Cell for Contest<C, W> {
    fn contender(&self) -> &'static str {
        C::NAME
    }

    fn time(&self, n: u64) -> Duration {
        self.workload
            .time(self.contender.get_or_init(C::default), n)
    }

    fn stats(&self) -> Option<String> {
        self.contender.get().and_then(C::stats)
    }
}

// ---------------------------------------------------------------------------
// Criterion

fn criterion_groups() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(50)
        .configure_from_args();
    for row in blocks().into_iter().flatten() {
        let mut group = criterion.benchmark_group(row.group);
        for cell in &row.cells {
            let id = BenchmarkId::new(&row.label, cell.contender());
            group.bench_function(id, |bencher| bencher.iter_custom(|n| cell.time(n)));
        }
        group.finish();
    }
    criterion.final_summary();
}

// ---------------------------------------------------------------------------
// Ratios

/// One batch. Long enough to hide the effect of the contender before, and short enough that a slow
/// second of the machine slows all contenders down.
const BATCH: Duration = Duration::from_millis(3);

/// The requirement on the pool's median.
#[derive(Clone, Copy)]
enum Required {
    Nothing,
    /// At most this many times the floor, and faster than plain.
    NearFloor(f64),
    /// Per operation within 5 % of the row before, which has one thread.
    AsOneThread,
    /// Within 2 % of the row before, which has a pool that learns nothing.
    AsWithout,
    /// Within 2.5 times the row before, which has one pool.
    AsOnePool,
    /// Plain takes at least this many times as long.
    Speedup(f64),
}

/// Medians in nanoseconds per operation; `None` where the contender did not run.
#[derive(Clone, Copy, Default)]
struct Medians {
    floor: Option<f64>,
    plain: Option<f64>,
    pool: Option<f64>,
    /// Whether the middle half of a contender's batches spans more than [`NOISY`] of the median.
    noisy: bool,
}

const NOISY: f64 = 0.25;

impl Medians {
    fn set(&mut self, contender: &str, mut batches: Vec<f64>) {
        batches.sort_by(f64::total_cmp);
        let quantile = |q: f64| batches[((batches.len() - 1) as f64 * q).round() as usize];
        let median = quantile(0.5);
        *match contender {
            "floor" => &mut self.floor,
            "plain" => &mut self.plain,
            _ => &mut self.pool,
        } = Some(median);
        self.noisy |= quantile(0.75) - quantile(0.25) > NOISY * median;
    }
}

impl Required {
    /// The requirement as text, and whether it was met; `None` if a needed figure is missing.
    fn judge(self, here: Medians, before: Option<Medians>) -> Option<(String, bool)> {
        let pool = here.pool?;
        match self {
            Self::Nothing => None,
            Self::NearFloor(most) => {
                let met = pool <= most * here.floor? && pool < here.plain?;
                Some((format!("<= {most} floor, < plain"), met))
            }
            Self::AsOneThread => {
                let before = before?;
                let [floor, plain, times] = [
                    here.floor? / before.floor?,
                    here.plain? / before.plain?,
                    pool / before.pool?,
                ];
                let text = format!(
                    "<= 1.05 of one thread: {times:.2} (floor {floor:.2}, plain {plain:.2})"
                );
                Some((text, times <= 1.05))
            }
            Self::AsWithout => {
                let times = pool / before?.pool?;
                Some((format!("<= 1.02 of without: {times:.2}"), times <= 1.02))
            }
            Self::AsOnePool => {
                let times = pool / before?.pool?;
                Some((format!("<= 2.5 of one pool: {times:.2}"), times <= 2.5))
            }
            Self::Speedup(least) => Some((
                format!("plain/pool >= {least}"),
                here.plain? / pool >= least,
            )),
        }
    }
}

/// The options of `--ratios`.
struct Options {
    alone: Option<String>,
    csv: Option<String>,
    rounds: usize,
    stats: bool,
    /// Parts of names; all workloads if there are none.
    names: Vec<String>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self, String> {
        let mut options = Options {
            alone: None,
            csv: None,
            rounds: 41,
            stats: false,
            names: Vec::new(),
        };
        let mut args = args.iter().cloned();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg}: a value is missing"));
            match arg.as_str() {
                "--ratios" | "--bench" => {}
                "--stats" => options.stats = true,
                "--csv" => options.csv = Some(value()?),
                "--alone" => match value()? {
                    name if ["floor", "plain", "pool"].contains(&&*name) => {
                        options.alone = Some(name);
                    }
                    name => return Err(format!("--alone {name}: not floor, plain or pool")),
                },
                "--rounds" => match value()?.parse() {
                    Ok(rounds) if rounds > 0 => options.rounds = rounds,
                    _ => return Err("--rounds: not a number above 0".to_string()),
                },
                _ if arg.starts_with('-') => return Err(format!("{arg}: no such option")),
                _ => options.names.push(arg),
            }
        }
        Ok(options)
    }

    fn wants(&self, row: &Row) -> bool {
        let name = row.name();
        self.names.is_empty() || self.names.iter().any(|part| name.contains(&**part))
    }
}

fn ratios(options: &Options) -> io::Result<()> {
    let cpu = cpu_model();
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    println!("{cpu}; {cores} cores; allocator: {ALLOCATOR}");
    match &options.alone {
        Some(name) => println!("{name} alone in its process"),
        None => println!("contenders interleaved in one process"),
    }
    println!(
        "ns per operation, medians of {} batches of {BATCH:?}\n",
        options.rounds
    );
    println!(
        "{:<28} {:>9} {:>9} {:>9} {:>11} {:>11}  required of the pool",
        "workload", "floor", "plain", "pool", "pool/floor", "plain/pool"
    );
    let mut measured = Vec::new();
    for mut block in blocks() {
        block.retain(|row| options.wants(row));
        if let Some(name) = &options.alone {
            for row in &mut block {
                row.cells.retain(|cell| cell.contender() == name);
            }
        }
        let mut before = None;
        for (row, medians) in block.iter().zip(interleave(&block, options.rounds)) {
            print_row(row, medians, before);
            measured.push((row.name(), medians));
            before = Some(medians);
        }
        if options.stats {
            let stats = block.iter().flat_map(|row| &row.cells);
            for stats in stats.filter_map(|cell| cell.stats()) {
                println!("\n{stats}\n");
            }
        }
    }
    match &options.csv {
        Some(file) => append_csv(file, &cpu, &measured),
        None => Ok(()),
    }
}

/// Runs all cells of a block in turn, a batch each. Each round starts with a different cell.
/// Returns the medians of each row.
fn interleave(rows: &[Row], rounds: usize) -> Vec<Medians> {
    struct Series<'a> {
        row: usize,
        cell: &'a dyn Cell,
        n: u64,
        nanos: Vec<f64>,
    }
    let mut series = Vec::new();
    for (row, cells) in rows.iter().map(|row| &row.cells).enumerate() {
        for cell in cells {
            series.push(Series {
                row,
                n: operations_per_batch(&**cell),
                cell: &**cell,
                nanos: Vec::with_capacity(rounds),
            });
        }
    }
    for round in 0..rounds {
        let count = series.len();
        for turn in 0..count {
            let Series { cell, n, nanos, .. } = &mut series[(round + turn) % count];
            nanos.push(cell.time(*n).as_nanos() as f64 / *n as f64);
        }
    }
    let mut medians = vec![Medians::default(); rows.len()];
    for Series {
        row, cell, nanos, ..
    } in series
    {
        medians[row].set(cell.contender(), nanos);
    }
    medians
}

/// How many operations take about one [`BATCH`]. Also warms up.
fn operations_per_batch(cell: &dyn Cell) -> u64 {
    let mut n = 1;
    loop {
        let time = cell.time(n);
        if time > BATCH / 2 {
            let share = BATCH.as_secs_f64() / time.as_secs_f64();
            return ((n as f64 * share) as u64).max(1);
        }
        n *= 2;
    }
}

/// A figure, or a dash where there is none.
struct Figure(Option<f64>, usize);

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => f.pad(&format!("{value:.*}", self.1)),
            None => f.pad("-"),
        }
    }
}

fn print_row(row: &Row, here: Medians, before: Option<Medians>) {
    let quotient = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
    print!(
        "{:<28} {:>9} {:>9} {:>9} {:>11} {:>11}",
        row.name(),
        Figure(here.floor, 1),
        Figure(here.plain, 1),
        Figure(here.pool, 1),
        Figure(quotient(here.pool, here.floor), 2),
        Figure(quotient(here.plain, here.pool), 2),
    );
    match row.required.judge(here, before) {
        Some((required, true)) => print!("  met: {required}"),
        Some((required, false)) => print!("  NOT MET: {required}"),
        None => {}
    }
    println!("{}", if here.noisy { "  (noisy)" } else { "" });
}

// ---------------------------------------------------------------------------
// The record

const ALLOCATOR: &str = if cfg!(target_env = "gnu") && cfg!(target_os = "linux") {
    "system (glibc)"
} else if cfg!(target_env = "musl") {
    "system (musl)"
} else {
    "system"
};

fn append_csv(file: &str, cpu: &str, measured: &[(String, Medians)]) -> io::Result<()> {
    let new = fs::metadata(file).map_or(true, |file| file.len() == 0);
    let mut out = OpenOptions::new().create(true).append(true).open(file)?;
    if new {
        writeln!(
            out,
            "unix_seconds,commit,cpu,workload,floor_ns,plain_ns,pool_ns,command"
        )?;
    }
    let date = SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_secs());
    let commit = commit();
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let command = format!("cargo bench --bench hot_path -- {}", args.join(" "));
    let figure = |nanos: Option<f64>| nanos.map(|nanos| format!("{nanos:.2}")).unwrap_or_default();
    for (workload, medians) in measured {
        writeln!(
            out,
            "{date},{},{},{},{},{},{},{}",
            quoted(&commit),
            quoted(cpu),
            quoted(workload),
            figure(medians.floor),
            figure(medians.plain),
            figure(medians.pool),
            quoted(&command),
        )?;
    }
    Ok(())
}

fn quoted(field: &str) -> String {
    format!("\"{}\"", field.replace('"', "\"\""))
}

/// `GIT_COMMIT` if set. Otherwise git's commit, with `-dirty` if the tree differs.
fn commit() -> String {
    let git = || {
        let describe = ["describe", "--always", "--dirty", "--exclude=*"];
        let output = Command::new("git").args(describe).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        (output.status.success()).then(|| text.trim().to_string())
    };
    env::var("GIT_COMMIT")
        .ok()
        .or_else(git)
        .unwrap_or_else(|| "unknown".to_string())
}

fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_string())
        .unwrap_or_else(|| env::consts::ARCH.to_string())
}
