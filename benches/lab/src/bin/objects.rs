//! The time of a get and a drop of a small object, beside other pools of objects, in one run.
//!
//! ```text
//! cargo run --release -p tierpool-lab --features peers --bin objects             a table
//! cargo run --release -p tierpool-lab --features peers --bin objects -- ROUNDS   batches per figure; default 41
//! ```
//!
//! The object is 64 bytes on the heap. One operation takes it, adds 1 to it, and drops its guard. The
//! contenders run in turn, batch by batch, and the table has the medians. `two` is the time of an
//! operation of a thread, while two threads work with the same pool.
//!
//! A guard that is `owned` borrows nothing: it can be sent to another thread and outlive the pool's
//! variable. The others are cheaper to make, and cannot do that. The floor is a thread-local vector of
//! boxes, and plain is a `Box`.

use std::cell::RefCell;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};
use tierpool::ObjectPool;
use tierpool_lab as lab;

const OPERATIONS: u64 = 20_000;
const WARM_UP: u64 = 200;

/// The pooled object.
#[derive(Default)]
struct Object([u64; 8]);

impl Object {
    #[inline]
    fn touch(&mut self) {
        self.0[0] = self.0[0].wrapping_add(1);
    }

    fn reset(&mut self) {
        self.0[1] = 0;
    }
}

/// A way to take and to drop an object.
trait Contender: Sync {
    fn get_and_drop(&self);
}

struct Floor;

thread_local! {
    #[allow(clippy::vec_box)] // a guard is small, whatever the size of its object
    static STACK: RefCell<Vec<Box<Object>>> = const { RefCell::new(Vec::new()) };
}

impl Contender for Floor {
    #[inline]
    fn get_and_drop(&self) {
        let mut object = STACK.with_borrow_mut(Vec::pop).unwrap_or_default();
        object.touch();
        black_box(&mut object);
        STACK.with_borrow_mut(|stack| stack.push(object));
    }
}

struct Plain;

impl Contender for Plain {
    #[inline]
    fn get_and_drop(&self) {
        let mut object = Box::<Object>::default();
        object.touch();
        black_box(&mut object);
    }
}

/// Implements [`Contender`] for a pool whose guard dereferences to the object.
macro_rules! contender {
    ($type:ty, $pool:ident => $guard:expr) => {
        impl Contender for $type {
            #[inline]
            fn get_and_drop(&self) {
                let $pool = self;
                let mut guard = $guard;
                guard.touch();
                black_box(&mut guard);
            }
        }
    };
}

contender!(ObjectPool<Object>, pool => pool.get());

struct Opool(Arc<opool::Pool<Make, Object>>);
struct OpoolBorrowed(opool::Pool<Make, Object>);
struct Make;

impl opool::PoolAllocator<Object> for Make {
    fn allocate(&self) -> Object {
        Object::default()
    }
}

contender!(Opool, pool => Arc::clone(&pool.0).get_rc());
contender!(OpoolBorrowed, pool => pool.0.get());

struct ObjectPoolCrate(Arc<object_pool::Pool<Box<Object>>>);
struct ObjectPoolCrateBorrowed(object_pool::Pool<Box<Object>>);

contender!(ObjectPoolCrate, pool => pool.0.pull_owned(Box::default));
contender!(ObjectPoolCrateBorrowed, pool => pool.0.pull(Box::default));

struct Lockfree(Arc<lockfree_object_pool::LinearObjectPool<Object>>);
struct LockfreeBorrowed(lockfree_object_pool::LinearObjectPool<Object>);

contender!(Lockfree, pool => pool.0.pull_owned());
contender!(LockfreeBorrowed, pool => pool.0.pull());

struct Regex(regex_automata::util::pool::Pool<Box<Object>, fn() -> Box<Object>>);

contender!(Regex, pool => pool.0.get());

impl sharded_slab::Clear for Object {
    fn clear(&mut self) {
        self.reset();
    }
}

struct Slab(Arc<sharded_slab::Pool<Object>>);
struct SlabBorrowed(sharded_slab::Pool<Object>);

impl Contender for Slab {
    #[inline]
    fn get_and_drop(&self) {
        let mut guard = Arc::clone(&self.0).create_owned().expect("there is room");
        guard.touch();
        black_box(&mut guard);
        // Its drop keeps the object in use until its key is cleared.
        let key = guard.key();
        drop(guard);
        self.0.clear(key);
    }
}

impl Contender for SlabBorrowed {
    #[inline]
    fn get_and_drop(&self) {
        let mut guard = self.0.create().expect("there is room");
        guard.touch();
        black_box(&mut guard);
        let key = guard.key();
        drop(guard);
        self.0.clear(key);
    }
}

/// The time of all operations on this thread.
#[inline(never)]
fn time<C: Contender>(contender: &C) -> Duration {
    (0..WARM_UP).for_each(|_| contender.get_and_drop());
    let start = Instant::now();
    for _ in 0..OPERATIONS {
        contender.get_and_drop();
    }
    start.elapsed()
}

/// The mean time of two threads that begin together.
fn time_two<C: Contender>(contender: &C) -> Duration {
    let start = Barrier::new(2);
    let work = || {
        start.wait();
        time(contender)
    };
    thread::scope(|scope| {
        let other = scope.spawn(work);
        (work() + other.join().expect("it does not panic")) / 2
    })
}

/// A line of the table.
struct Row {
    name: &'static str,
    owned: bool,
    run: Box<dyn Fn(usize) -> Duration>,
    /// Nanoseconds per operation, of each round: with one thread and with two.
    each: [Vec<f64>; 2],
}

impl Row {
    fn new(name: &'static str, owned: bool, contender: impl Contender + 'static) -> Self {
        Row {
            name,
            owned,
            run: Box::new(move |threads| match threads {
                1 => time(&contender),
                _ => time_two(&contender),
            }),
            each: [Vec::new(), Vec::new()],
        }
    }

    fn median(&self, threads: usize) -> f64 {
        lab::median(self.each[threads - 1].iter().copied())
    }
}

fn rows() -> Vec<Row> {
    let with_functions = ObjectPool::builder(Object::default)
        .keep(|object| object.0[2] == 0)
        .reset(Object::reset)
        .build()
        .expect("the options are valid");
    let linear = || lockfree_object_pool::LinearObjectPool::new(Object::default, Object::reset);
    let vector = || object_pool::Pool::new(2, Box::default);
    let opool = || opool::Pool::new(64, Make);
    vec![
        Row::new("floor", false, Floor),
        Row::new("plain Box", true, Plain),
        Row::new("tierpool", true, ObjectPool::new(Object::default)),
        Row::new("tierpool, keep and reset", true, with_functions),
        Row::new("opool", true, Opool(opool().to_rc())),
        Row::new("object-pool", true, ObjectPoolCrate(Arc::new(vector()))),
        Row::new(
            "sharded-slab",
            true,
            Slab(Arc::new(sharded_slab::Pool::new())),
        ),
        Row::new("lockfree-object-pool", true, Lockfree(Arc::new(linear()))),
        Row::new("opool, borrowing", false, OpoolBorrowed(opool())),
        Row::new(
            "object-pool, borrowing",
            false,
            ObjectPoolCrateBorrowed(vector()),
        ),
        Row::new(
            "sharded-slab, borrowing",
            false,
            SlabBorrowed(sharded_slab::Pool::new()),
        ),
        Row::new(
            "lockfree-object-pool, borrowing",
            false,
            LockfreeBorrowed(linear()),
        ),
        Row::new(
            "regex-automata, borrowing",
            false,
            Regex(regex_automata::util::pool::Pool::new(Box::default)),
        ),
    ]
}

fn compare(rounds: usize) -> lab::Result<()> {
    let mut rows = rows();
    for _ in 0..rounds {
        for row in &mut rows {
            for threads in [1, 2] {
                let time = (row.run)(threads);
                row.each[threads - 1].push(time.as_nanos() as f64 / OPERATIONS as f64);
            }
        }
    }
    let ours = rows.iter().find(|row| row.name == "tierpool");
    let ours = ours.expect("it is in the list").median(1);
    let mut table = format!(
        "{:32} {:>5} {:>8} {:>8} {:>8}\n",
        "ns", "owned", "one", "two", "ratio"
    );
    for row in &rows {
        let owned = if row.owned { "yes" } else { "no" };
        let (one, two) = (row.median(1), row.median(2));
        table += &format!(
            "{:32} {owned:>5} {one:8.1} {two:8.1} {:8.2}\n",
            row.name,
            one / ours
        );
    }
    lab::print(&table)
}

fn main() -> ExitCode {
    lab::run(
        "objects",
        |args| {
            let rounds = match args.next() {
                None => 41,
                Some(rounds) => rounds.to_string_lossy().parse()?,
            };
            lab::no_more(args)?;
            Ok(rounds)
        },
        compare,
    )
}
