//! The pool as plain lists: the required effect of each operation, on up to four threads that take
//! turns.
//!
//! Runs each [`Op`] on real pools and on lists. After it, compares contents, capacities, memory and
//! counts. Knows nothing of the source of the operations: the property tests, the fuzz target `ops`
//! and the soak test.
//!
//! It predicts which idle buffer a get returns. That is not promised, but otherwise the model could
//! not tell which buffers a trim has freed. It does not predict the capacity that the heap gives to
//! a `BytesMut` that grows by itself: it reads the new capacity.
//!
//! It does not predict which returns a pool samples at random, once a thread's cache has had many.
//! As long as each return is a sample, it predicts each calibration. After that, it adopts the time
//! and the result of the pool's calibrations, if they are possible, and predicts their effects. A
//! return that the model does not know of could continue a due trim. So the model makes the pool
//! finish a due trim first.
//!
//! One thread acts at a time, so all of it is exact. The loom models and the free-for-all of the
//! soak test check threads that act at the same time.
//!
//! | file | owns |
//! |---|---|
//! | `mod.rs` | which thread acts |
//! | `world.rs` | the effect of an operation on guards; the comparisons |
//! | `pieces.rs` | parts that share a guard's buffer |
//! | `rooms.rs` | rooms that are lent for writing, and zeros |
//! | `guard.rs` | a pool's notes on an outstanding buffer |
//! | `pool.rs` | the rules of one pool, and its counts |
//! | `levels.rs` | threads' caches and depots, as lists |
//! | `learned.rs` | targets, and retired classes |
//! | `memory.rs` | allocations, and their parts in use |
//! | `crew.rs` | the threads |
//! | `op.rs` | the operations, and how pools are made |
//! | `bytes.rs` | any byte string as operations |

pub mod bytes;
mod crew;
mod guard;
mod learned;
mod levels;
mod memory;
mod op;
mod pieces;
mod pool;
mod rooms;
mod world;

pub use op::{Bounds, Filled, OnPiece, Op, Options};

use crew::Crew;
use tierpool::Counts;
use world::World;

/// How many threads take turns, including the one that has the model.
pub const THREADS: usize = 4;

/// Two pools at a time and their buffers, real and modelled.
pub struct Model {
    /// `None` while another thread acts.
    world: Option<World>,
    crew: Crew<World, THREADS>,
    /// The thread that acts. Thread 0 is the calling thread, and not of the crew.
    acting: usize,
}

impl Model {
    /// A model of two pools with these options.
    pub fn new(options: &[Options; 2]) -> Self {
        Self::with_threads(options, || ())
    }

    /// As [`new`](Self::new). Each other thread calls `at_start` first.
    pub fn with_threads(options: &[Options; 2], at_start: fn()) -> Self {
        Model {
            world: Some(World::new(options)),
            crew: Crew::new(at_start),
            acting: 0,
        }
    }

    /// A pool's counts; all 0 if it has ended.
    pub fn total(&self, pool: usize) -> Counts {
        self.world().total(pool)
    }

    /// Runs one operation on the pools and on the model.
    ///
    /// # Panics
    ///
    /// - If the pool breaks a rule. [`check`](Self::check) finds more.
    pub fn apply(&mut self, op: &Op) {
        match *op {
            Op::On { thread } => self.act_on(thread % THREADS),
            Op::EndThread { thread } => self.end_thread(thread % THREADS),
            _ if self.acting == 0 => self.world_mut().apply(op),
            _ => {
                let (world, op) = (self.world.take(), op.clone());
                let world = world.expect("no earlier panic");
                let world = self
                    .crew
                    .act(self.acting, world, move |world| world.apply(&op));
                self.world = Some(world);
            }
        }
    }

    /// Compares all visible state.
    ///
    /// # Panics
    ///
    /// - If pool and model differ.
    pub fn check(&mut self) {
        self.world_mut().check();
    }

    /// Ends the other threads and drops all outstanding buffers, with a check after each.
    ///
    /// # Panics
    ///
    /// - If pool and model differ.
    pub fn finish(mut self) {
        for thread in 1..THREADS {
            self.end_thread(thread);
            self.check();
        }
        self.world_mut().finish();
    }

    fn act_on(&mut self, thread: usize) {
        let begins = thread > 0 && self.crew.begin(thread);
        self.acting = thread;
        self.world_mut().act_on(thread, begins);
    }

    fn end_thread(&mut self, thread: usize) {
        if self.crew.end(thread) {
            self.world_mut().thread_ended(thread);
            if self.acting == thread {
                self.act_on(0);
            }
        }
    }

    fn world(&self) -> &World {
        self.world.as_ref().expect("no earlier panic")
    }

    fn world_mut(&mut self) -> &mut World {
        self.world.as_mut().expect("no earlier panic")
    }
}
