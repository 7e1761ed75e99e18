//! Objects that are counted, and a model of a pool of them.
//!
//! Owns a second statement of what such a pool does on one thread. The property tests and the fuzz
//! target run operations on both.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tierpool::{ObjectPool, ObjectPoolBuilder, ObjectStats, Pooled};

/// Counts the objects of one test that are alive, and those that were ever made.
#[derive(Clone, Default)]
pub struct Census(Arc<(AtomicUsize, AtomicUsize)>);

impl Census {
    pub fn alive(&self) -> usize {
        self.0.0.load(Ordering::SeqCst)
    }

    pub fn made(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }

    pub fn member(&self) -> Member {
        self.0.0.fetch_add(1, Ordering::SeqCst);
        Member {
            id: self.0.1.fetch_add(1, Ordering::SeqCst),
            census: self.clone(),
            uses: Cell::new(0),
            end: Ends::Quietly,
        }
    }

    /// A pool of members. Drops nothing by time, so that counts are exact on any machine.
    pub fn builder(&self) -> ObjectPoolBuilder<Member> {
        let census = self.clone();
        ObjectPool::builder(move || census.member()).trim_interval(None)
    }

    pub fn pool(&self) -> ObjectPool<Member> {
        self.builder().build().unwrap()
    }
}

/// What an object does at its end.
#[derive(Clone, Copy, PartialEq)]
pub enum Ends {
    Quietly,
    ByPanic,
}

/// An object that is `Send` and not `Sync`.
pub struct Member {
    pub id: usize,
    pub census: Census,
    pub uses: Cell<usize>,
    pub end: Ends,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.census.0.0.fetch_sub(1, Ordering::SeqCst);
        if self.end == Ends::ByPanic {
            panic::resume_unwind(Box::new("the end of an object")); // without a report
        }
    }
}

/// Asserts everything that holds while no thread is inside the pool.
pub fn assert_balance<T: Send>(pool: &ObjectPool<T>) -> ObjectStats {
    let stats = pool.stats();
    assert_eq!(stats.gets, stats.hits() + stats.misses, "{stats}");
    assert_eq!(
        stats.gets + stats.adopted,
        stats.returns + stats.discards() + stats.detached + stats.outstanding,
        "{stats}"
    );
    assert_eq!(
        stats.returns + stats.prefilled,
        stats.hits() + stats.trimmed + stats.idle,
        "{stats}"
    );
    stats
}

#[derive(Clone, Debug)]
pub enum Op {
    Get,
    TryInit { fails: bool },
    Adopt,
    Drop { place: usize, kept: bool },
    Detach(usize),
    Trim,
    Clear,
}

/// The pool's options and the operations that any byte string stands for.
pub fn run(bytes: &[u8]) -> (Model, Vec<Op>) {
    let mut bytes = bytes.iter().map(|&byte| usize::from(byte));
    let mut next = move || bytes.next();
    let (max_idle, keep_idle) = (next().unwrap_or(0), next().unwrap_or(0) % 16);
    let model = Model::new(max_idle, keep_idle.min(max_idle));
    let mut ops = Vec::new();
    while let Some(op) = next() {
        let place = op / 16;
        ops.push(match op % 16 {
            0..6 => Op::Get,
            6 => Op::TryInit {
                fails: place % 2 == 1,
            },
            7 => Op::Adopt,
            8..13 => Op::Drop { place, kept: true },
            13 if place < 8 => Op::Drop { place, kept: false },
            13 => Op::Detach(place),
            14 => Op::Trim,
            _ if place == 0 => Op::Clear,
            _ => Op::Trim,
        });
    }
    (model, ops)
}

/// The pool as its user sees it on one thread: which objects are idle, and which are held.
pub struct Model {
    pool: ObjectPool<Member>,
    pub census: Census,
    idle: BTreeSet<usize>,
    held: Vec<Pooled<Member>>,
    max_idle: usize,
    keep_idle: usize,
    /// Whether the last operation was a trim.
    trimmed: bool,
}

impl Model {
    pub fn new(max_idle: usize, keep_idle: usize) -> Self {
        let census = Census::default();
        let pool = census
            .builder()
            .max_idle(max_idle)
            .keep_idle(keep_idle)
            .keep(|member| member.uses.get() == 0)
            .build()
            .unwrap();
        Model {
            pool,
            census,
            idle: (0..keep_idle).collect(),
            held: Vec::new(),
            max_idle,
            keep_idle,
            trimmed: false,
        }
    }

    fn got(&mut self, made: usize, member: Pooled<Member>) {
        let was_idle = self.idle.remove(&member.id);
        assert_eq!(was_idle, member.id < made, "an idle object, or a new one");
        self.held.push(member);
    }

    /// Does an operation, and checks its result and all counts.
    pub fn check(&mut self, op: &Op) {
        let made = self.census.made();
        match *op {
            Op::Get => {
                let member = self.pool.get();
                assert_eq!(self.census.made() > made, self.idle.is_empty());
                self.got(made, member);
            }
            Op::TryInit { fails } => {
                let census = self.census.clone();
                let init = move || {
                    if fails {
                        Err(made)
                    } else {
                        Ok(census.member())
                    }
                };
                match self.pool.get_or_try_init(init) {
                    Ok(member) => self.got(made, member),
                    Err(error) => assert!(error == made && self.idle.is_empty()),
                }
            }
            Op::Adopt => self.held.push(self.pool.adopt(self.census.member())),
            Op::Drop { place, kept } if !self.held.is_empty() => {
                let member = self.held.swap_remove(place % self.held.len());
                member.uses.set(usize::from(!kept));
                if kept && self.idle.len() < self.max_idle {
                    self.idle.insert(member.id);
                }
            }
            Op::Detach(place) if !self.held.is_empty() => {
                let member = self.held.swap_remove(place % self.held.len());
                assert!(!self.idle.contains(&member.detach().id));
            }
            Op::Drop { .. } | Op::Detach(_) => {}
            Op::Trim | Op::Clear => {
                let before = self.idle.len();
                let is_trim = matches!(op, Op::Trim);
                let freed = if is_trim {
                    self.pool.trim()
                } else {
                    self.pool.clear()
                };
                // Which ones are left shows when they are taken. Here, only how many.
                let left = before - freed;
                match is_trim {
                    true => assert!(left >= before.min(self.keep_idle)),
                    false => assert_eq!(left, 0),
                }
                if is_trim && self.trimmed {
                    assert!(left <= self.keep_idle, "nothing was needed in between");
                }
                // Takes all, and gives them back, if some were freed.
                if freed > 0 {
                    let all: Vec<_> = (0..left).map(|_| self.pool.get()).collect();
                    let ids: BTreeSet<_> = all.iter().map(|member| member.id).collect();
                    assert!(ids.len() == left && ids.is_subset(&self.idle));
                    self.idle = ids;
                    all.iter().for_each(|member| member.uses.set(0));
                    drop(all);
                }
                self.trimmed = is_trim && freed == 0;
            }
        }
        if !matches!(op, Op::Trim | Op::Clear) {
            self.trimmed = false;
        }
        let stats = assert_balance(&self.pool);
        assert_eq!(stats.idle as usize, self.idle.len(), "{stats}");
        assert_eq!(stats.outstanding as usize, self.held.len(), "{stats}");
        assert_eq!(self.census.alive(), self.idle.len() + self.held.len());
        assert_eq!(stats.panics, 0);
    }
}
