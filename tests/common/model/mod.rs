//! The pool as plain lists: what each operation must do, on up to four threads in
//! lock-step.
//!
//! Runs each [`Op`] on real pools and on lists, and compares contents, capacities, memory
//! and counts after it. Knows nothing of where the operations come from: the property
//! tests, the fuzz target `ops` and the soak test all feed it.
//!
//! It predicts which idle buffer a get returns. That is not promised, but else
//! the model could not say which ones a trim has freed. It does not predict what
//! the heap gives to a `BytesMut` that grows by itself: it sees the new capacity.
//!
//! Nor does it predict at which returns a pool looks, once a thread's cache has had so many that
//! only some are drawn, at random. As long as each is looked at, it predicts each calibration.
//! From then on it takes over when the pool calibrates and what it decides, if that can have
//! come of what came back, and predicts what follows from it. A trim that is due would be gone on
//! with at returns that it does not know, so it has the pool do all of it first.
//!
//! One thread acts at a time, so all of it is exact. What threads do to each other while
//! both are at it is for the loom models and for the free-for-all of the soak test.
//!
//! | file | owns |
//! |---|---|
//! | `mod.rs` | which thread acts |
//! | `world.rs` | what an operation does to guards; the comparisons |
//! | `pieces.rs` | parts that share a guard's buffer |
//! | `rooms.rs` | rooms that are lent to be filled, and zeros |
//! | `guard.rs` | what a pool notes on a buffer that is out |
//! | `pool.rs` | the rules of one pool, and its counts |
//! | `levels.rs` | threads' caches and depots, as lists |
//! | `learned.rs` | targets, and what is retired |
//! | `memory.rs` | allocations, and what parts of them are used |
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

/// How many threads take turns, the one that has the model included.
pub const THREADS: usize = 4;

/// Two pools at a time and what was taken from them, real and modelled.
pub struct Model {
    /// On its way while another thread acts.
    world: Option<World>,
    crew: Crew<World, THREADS>,
    /// The thread that acts. The first is the one that calls, and not of the crew.
    acting: usize,
}

impl Model {
    /// Two pools that are made like this.
    pub fn new(options: &[Options; 2]) -> Self {
        Self::with_threads(options, || ())
    }

    /// As [`new`](Self::new). Each other thread does `at_start` first.
    pub fn with_threads(options: &[Options; 2], at_start: fn()) -> Self {
        Model {
            world: Some(World::new(options)),
            crew: Crew::new(at_start),
            acting: 0,
        }
    }

    /// What a pool has done; all 0 if it has ended.
    pub fn total(&self, pool: usize) -> Counts {
        self.world().total(pool)
    }

    /// Runs one operation on the pools and on the model.
    ///
    /// # Panics
    ///
    /// - If the pool does what it must not. [`check`](Self::check) sees more.
    pub fn apply(&mut self, op: &Op) {
        match *op {
            Op::On { thread } => self.act_on(thread % THREADS),
            Op::EndThread { thread } => self.end_thread(thread % THREADS),
            _ if self.acting == 0 => self.world_mut().apply(op),
            _ => {
                let (world, op) = (self.world.take(), op.clone());
                let world = world.expect("no panic came before");
                let world = self
                    .crew
                    .act(self.acting, world, move |world| world.apply(&op));
                self.world = Some(world);
            }
        }
    }

    /// Compares everything that can be seen.
    ///
    /// # Panics
    ///
    /// - If pool and model differ.
    pub fn check(&mut self) {
        self.world_mut().check();
    }

    /// Ends the other threads and drops all that is out, with a check after each.
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
        self.world.as_ref().expect("no panic came before")
    }

    fn world_mut(&mut self) -> &mut World {
        self.world.as_mut().expect("no panic came before")
    }
}
