//! All operations at once for a while: no guards share memory, no budget is passed, the accounts
//! balance, and nothing is left. At the same time, the reference model runs its operations on
//! separate pools and threads, and checks them exactly. Both use the same process-wide data.
//!
//! Runs a fixed number of operations, for a few seconds. For more, run `TIERPOOL_SOAK_ROUNDS=100
//! cargo test --release --test soak`.

mod common {
    pub mod accounts;
    pub mod booking;
    pub mod live;
    #[allow(dead_code, unused_imports)] // the property tests use more of it
    pub mod model;
}

use bytes::{Buf, BufMut, Bytes, BytesMut};
use common::accounts::assert_accounts_balance;
use common::live::{self, live_bytes};
use common::model::{self, Model};
use crossbeam_queue::ArrayQueue;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use tierpool::{Builder, Pool, PooledBuf, PooledBytes};

/// A thread whose allocations are counted, whichever thread frees them.
fn counted<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    live::counted(thread::Builder::new(), work)
}

// ---- operations ----

/// Whether each step costs microseconds. It does under Miri, and under valgrind, where
/// `scripts/sanitize.sh` sets `--cfg slow`.
const SLOW: bool = cfg!(any(miri, slow));

const THREADS: usize = if SLOW { 3 } else { 8 };
/// Models at once. Each has up to four threads that take turns.
const MODELS: usize = if SLOW { 1 } else { 2 };
const CLASSES: [usize; 5] = [100, 512, 3000, 16_384, 100_000];

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    fn size(&mut self) -> usize {
        let most = [90, 600, 4000, 20_000, 110_000][self.below(5)];
        1 + self.below(most)
    }
}

/// A guard or a part of it, and the byte that its owner wrote.
struct Stamped {
    bytes: Contents,
    stamp: u8,
}

enum Contents {
    Guard(PooledBuf),
    Frozen(PooledBytes),
    /// From a part, or from a split `BytesMut`.
    Bytes(Bytes),
}

impl Stamped {
    fn new(mut buf: PooledBuf, stamp: u8, len: usize) -> Self {
        assert!(buf.is_empty(), "no earlier contents are shown");
        buf.put_bytes(stamp, len);
        Stamped {
            bytes: Contents::Guard(buf),
            stamp,
        }
    }

    /// Asserts that no other thread wrote to it.
    fn verify(&self) {
        let bytes: &[u8] = match &self.bytes {
            Contents::Guard(buf) => buf,
            Contents::Frozen(bytes) => bytes,
            Contents::Bytes(bytes) => bytes,
        };
        let mine = bytes.iter().all(|&byte| byte == self.stamp);
        assert!(mine, "two owners of one buffer");
    }

    /// Changes a guard in one of the ways of users.
    fn change(mut self, random: &mut Random) -> Self {
        let mut buf = match self.bytes {
            Contents::Guard(buf) => buf,
            Contents::Frozen(bytes) => {
                self.bytes = changed_part(bytes, random);
                return self;
            }
            Contents::Bytes(bytes) => {
                self.bytes = Contents::Bytes(bytes.slice(bytes.len() / 2..));
                return self;
            }
        };
        let len = buf.len();
        match random.below(16) {
            0 => buf.put_bytes(self.stamp, random.size()), // grows
            1 => (*buf).put_bytes(self.stamp, random.below(300)), // on the heap
            2 => buf.advance(len / 3),
            6 => buf.truncate(len / 2),
            7 => buf.clear(),
            3 => drop(BytesMut::split_to(&mut buf, len / 2)),
            8 => drop(buf.split_to(len / 2)),
            9 => drop(buf.split_off(len / 2)),
            10 => {
                // If it is full while a part is outstanding, it moves to a fresh buffer.
                let part = buf.split_to(len / 2);
                buf.put_bytes(self.stamp, random.size());
                assert!(part.iter().all(|&byte| byte == self.stamp));
            }
            11 => {
                self.bytes = Contents::Frozen(buf.split());
                return self;
            }
            12 => {
                self.bytes = Contents::Frozen(buf.freeze_compact());
                return self;
            }
            13 => buf.shrink_to_fit(),
            14 => {
                let (room, written) = (random.size(), random.below(100));
                let filled = buf.fill_with(room, |room| {
                    assert!(room.iter().all(|&byte| byte == 0), "a room is zeroed");
                    let scribbled = room.len().min(2 * written);
                    room[..scribbled].fill(self.stamp);
                    match written % 4 {
                        0 => Err(io::ErrorKind::WouldBlock.into()),
                        _ => Ok(written.min(room.len())),
                    }
                });
                assert_eq!(filled.is_err(), written % 4 == 0);
            }
            4 => {
                self.bytes = Contents::Frozen(buf.freeze());
                return self;
            }
            _ => {
                // A part stays alive for some time.
                let part = BytesMut::split_off(&mut buf, len / 2).freeze();
                self.bytes = Contents::Bytes(part);
                return self;
            }
        }
        self.bytes = Contents::Guard(buf);
        self
    }
}

/// Changes a part in one of the ways of users.
fn changed_part(mut bytes: PooledBytes, random: &mut Random) -> Contents {
    let len = bytes.len();
    match random.below(6) {
        0 => Contents::Frozen(bytes.slice(len / 2..)),
        1 => Contents::Frozen(bytes.split_off(len / 3)),
        2 => {
            drop(bytes.split_to(len / 3));
            Contents::Frozen(bytes)
        }
        3 => Contents::Bytes(bytes.into()),
        _ => match bytes.try_into_mut() {
            Ok(buf) => Contents::Guard(buf),
            Err(bytes) => Contents::Frozen(bytes),
        },
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.held.iter().for_each(Stamped::verify);
    }
}

/// The work of one thread.
struct Worker {
    random: Random,
    /// Different handles and pools in turn.
    pool: Pool,
    /// The pool that all threads use now and then, and that any of them may replace.
    shared: Arc<Mutex<Pool>>,
    mail: Arc<ArrayQueue<Stamped>>,
    held: Vec<Stamped>,
}

impl Worker {
    fn step(&mut self) {
        let random = &mut self.random;
        let held = &mut self.held;
        match random.below(64) {
            0..=21 => {
                let len = random.size();
                let buf = self.pool.get(len);
                held.push(Stamped::new(buf, random.below(256) as u8, len.min(500)));
            }
            22..=37 if !held.is_empty() => {
                held.swap_remove(random.below(held.len())).verify();
            }
            38..=46 if !held.is_empty() => {
                let one = held.swap_remove(random.below(held.len()));
                // If the queue is full, its oldest guard is dropped here.
                if let Some(other) = self.mail.force_push(one) {
                    other.verify();
                }
            }
            47..=51 => {
                if let Some(other) = self.mail.pop() {
                    other.verify();
                    held.push(other);
                }
            }
            52..=56 if !held.is_empty() => {
                let one = held.swap_remove(random.below(held.len()));
                held.push(one.change(random));
            }
            57 => {
                let foreign = BytesMut::with_capacity(random.size());
                held.push(Stamped::new(self.pool.adopt(foreign), 7, 50));
            }
            58 if !held.is_empty() => {
                let one = held.swap_remove(0);
                if let Contents::Guard(buf) = one.bytes {
                    drop(buf.detach());
                }
            }
            59 => drop(self.pool.clone()),
            60 if random.below(4) == 0 => held.drain(..).for_each(|one| one.verify()),
            61 if random.below(8) == 0 => match random.below(8) {
                0 => {
                    self.pool.clear();
                }
                1 => {
                    // The result depends on the other threads' use.
                    let targets = self.pool.recalibrate();
                    assert!(targets.default_size <= targets.max_size);
                }
                2 | 3 => {
                    let count = random.below(50);
                    assert!(self.pool.prefill(random.size(), count) <= count);
                }
                _ => {
                    self.pool.trim();
                }
            },
            62 if random.below(50) == 0 => {
                // This may drop the last handle of the old pool.
                self.pool = self.shared.lock().unwrap().clone();
            }
            63 if random.below(400) == 0 => {
                self.pool = new_pool(random);
                *self.shared.lock().unwrap() = self.pool.clone();
            }
            _ => {}
        }
        if held.len() > 150 {
            held.drain(..100).for_each(|one| one.verify());
        }
    }
}

const BUDGETS: [usize; 4] = [0, 50_000, 1 << 20, 64 << 20];

/// A budget, and the classes that fit it; all classes if the budget is 0.
fn with_budget(budget: usize) -> Builder {
    let held = CLASSES.into_iter();
    Pool::builder()
        .classes(held.filter(|&class| class <= budget || budget == 0))
        .retain_bytes(budget)
}

fn new_pool(random: &mut Random) -> Pool {
    let mut builder =
        with_budget(BUDGETS[random.below(BUDGETS.len())]).zero_on_return(random.below(4) == 0);
    if random.below(4) == 0 {
        builder = builder.max_per_class(random.below(50));
    }
    if random.below(4) == 0 {
        builder = builder.thread_cache_bytes(random.below(100_000));
    }
    builder = match random.below(3) {
        0 => builder.trim_interval(None),
        1 => builder.trim_interval(Duration::from_millis(1)),
        _ => builder,
    };
    builder.build().unwrap()
}

/// Runs of the model, one after the other, until the free-for-all is `done`; at least one run.
fn follow_model(mut random: Random, done: &AtomicBool) {
    const LEN: usize = if SLOW { 100 } else { 1000 };
    loop {
        let bytes: Vec<u8> = (0..LEN).map(|_| random.below(256) as u8).collect();
        let (options, ops) = model::bytes::run(&bytes);
        let mut model = Model::with_threads(&options, live::count_here);
        for op in &ops {
            model.apply(op);
            model.check();
        }
        model.finish();
        if done.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// Threads that use one pool of a known budget, and others that they make; also the models.
fn round(seed: u64, steps: usize) {
    let budget = BUDGETS[seed as usize % BUDGETS.len()];
    let pool = with_budget(budget)
        .trim_interval(Duration::from_millis(2))
        .build()
        .unwrap();
    let shared = Arc::new(Mutex::new(pool.clone()));
    let mail = Arc::new(ArrayQueue::new(64));
    let threads: Vec<_> = (0..THREADS as u64)
        .map(|at| {
            let mut worker = Worker {
                random: Random((seed * 100 + at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                pool: pool.clone(),
                shared: Arc::clone(&shared),
                mail: Arc::clone(&mail),
                held: Vec::new(),
            };
            counted(move || {
                for _ in 0..steps {
                    worker.step();
                }
            })
        })
        .collect();
    let done = Arc::new(AtomicBool::new(false));
    let watcher = counted({
        let (pool, done) = (pool.clone(), Arc::clone(&done));
        move || {
            while !done.load(Ordering::Relaxed) {
                let shown = pool.stats().total.retained_bytes;
                assert!(shown <= budget as u64, "{shown} of {budget} bytes");
                thread::yield_now();
            }
        }
    });
    let models: Vec<_> = (0..MODELS as u64)
        .map(|at| {
            let random = Random((seed * 100 + at + 51).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let done = Arc::clone(&done);
            counted(move || follow_model(random, &done))
        })
        .collect();
    let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
    done.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
    models.into_iter().for_each(|model| model.join().unwrap());
    ended.into_iter().for_each(|end| end.unwrap());
    while let Some(one) = mail.pop() {
        one.verify();
    }
    for pool in [&pool, &shared.lock().unwrap()] {
        assert_accounts_balance(pool);
        assert_eq!(pool.stats().total.outstanding, 0);
    }
    // With only one thread left, the pool works as at first.
    pool.clear();
    assert_eq!(pool.stats().total.retained_bytes, 0);
    drop(pool.get(3000));
    assert_accounts_balance(&pool);
}

#[test]
fn a_soak_leaves_balanced_accounts_and_no_live_byte() {
    let rounds = match std::env::var("TIERPOOL_SOAK_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("a number of rounds"),
        Err(_) => {
            if SLOW {
                2
            } else {
                8
            }
        }
    };
    let steps = if SLOW { 100 } else { 20_000 };
    // Allocates everything that a process allocates once.
    counted(|| round(1, 10)).join().unwrap();
    let before = live_bytes();
    for seed in 0..rounds {
        counted(move || round(seed, steps)).join().unwrap();
        assert_eq!(live_bytes(), before, "after round {seed}");
    }
}
