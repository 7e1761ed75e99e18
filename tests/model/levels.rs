//! What a pool holds of one class, as lists: threads' caches, and the depot.
//!
//! Owns in which order idle buffers come and go there, and which ones were not needed
//! since the last trim. Knows nothing of limits: it is told what to move.

use super::memory::{Memory, View};
use std::collections::VecDeque;
use std::mem;

/// Names a thread of one model. Never used twice: one that takes an ended thread's
/// place is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life(pub(super) usize);

/// A buffer that the pool holds.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) capacity: usize,
    /// `None` where it was made by `prefill`, and nobody has seen it yet.
    pub(super) view: Option<View>,
    /// Whether it has been in this cache since before the last trim. Not used in
    /// the depot, where a trim goes by number.
    pub(super) unneeded: bool,
}

impl Idle {
    pub(super) fn end(self, memory: &mut Memory) {
        if let Some(view) = self.view {
            memory.end(&view);
        }
    }
}

/// What a pool keeps for one thread at a time, and for the next one after it.
#[derive(Debug)]
pub(super) struct CacheSet {
    /// The thread that has it; `None` once that has ended.
    pub(super) owner: Option<Life>,
    /// One per class.
    pub(super) caches: Vec<Cache>,
}

/// One thread's cache of one class: the last that came is the first that goes.
#[derive(Debug, Default)]
pub(super) struct Cache {
    pub(super) held: Vec<Idle>,
    /// How many it may hold now.
    pub(super) room: usize,
}

impl Cache {
    pub(super) fn has_room(&self) -> bool {
        self.held.len() < self.room
    }

    /// Whether a get finds one here without going the slow way.
    pub(super) fn has_needed(&self) -> bool {
        self.held.last().is_some_and(|idle| !idle.unneeded)
    }

    pub(super) fn unneeded(&self) -> usize {
        self.held.iter().filter(|idle| idle.unneeded).count()
    }

    /// Takes out what came first, and its room.
    pub(super) fn flush(&mut self, count: usize) -> Vec<Idle> {
        let mut magazine: Vec<Idle> = self.held.drain(..count).collect();
        self.room -= count;
        // Those of before the last trim come first, and the other way round.
        let before = magazine.iter().take_while(|idle| idle.unneeded).count();
        magazine[..before].reverse();
        magazine.iter_mut().for_each(|idle| idle.unneeded = false);
        magazine
    }

    /// Moves the `count` that came first to the depot, and gives up all room
    /// that holds nothing.
    pub(super) fn hand_on(&mut self, depot: &mut Depot, mut count: usize) {
        while count > 0 {
            let out = count.min(depot.magazine);
            depot.keep(self.flush(out));
            count -= out;
        }
        self.room = self.held.len();
    }

    /// Frees what was not needed, or all, and gives up all room that holds nothing.
    pub(super) fn free(&mut self, all: bool) -> Vec<Idle> {
        let idle = mem::take(&mut self.held).into_iter();
        let (freed, mut kept): (Vec<_>, Vec<_>) = idle.partition(|idle| all || idle.unneeded);
        kept.iter_mut().for_each(|idle| idle.unneeded = true);
        self.held = kept;
        self.room = self.held.len();
        freed
    }
}

/// A queue of the depot: first in, first out within each of its segments, the
/// first of which with room, or with an item, is used.
#[derive(Debug)]
pub(super) struct Queue<T> {
    segments: Vec<VecDeque<T>>,
    first: usize,
    /// Fewest held since the last trim.
    low: usize,
}

impl<T> Queue<T> {
    fn new(first: usize) -> Self {
        Queue {
            segments: Vec::new(),
            first,
            low: 0,
        }
    }

    pub(super) fn push(&mut self, item: T) {
        let room = |at: usize| self.first << at.saturating_sub(1);
        let mut with_room = (0..).filter(|&at| {
            let segment = self.segments.get(at);
            segment.is_none_or(|segment| segment.len() < room(at))
        });
        let at = with_room.next().unwrap();
        if at == self.segments.len() {
            self.segments.push(VecDeque::new());
        }
        self.segments[at].push_back(item);
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let item = self.segments.iter_mut().find_map(VecDeque::pop_front);
        self.low = self.low.min(self.len());
        item
    }

    fn len(&self) -> usize {
        self.segments.iter().map(VecDeque::len).sum()
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.segments.iter().flatten()
    }
}

/// What all threads share of one class. Buffers of exactly its capacity go through
/// the caches and, by the magazine, through here; others are loose here.
#[derive(Debug)]
pub(super) struct Depot {
    pub(super) capacity: usize,
    /// The most that one cache may have room for.
    pub(super) cache_most: usize,
    /// How many move at once between a cache and here.
    pub(super) magazine: usize,
    pub(super) magazines: Queue<Vec<Idle>>,
    pub(super) loose: Queue<Idle>,
}

impl Depot {
    pub(super) fn new(capacity: usize, thread_cache_bytes: usize) -> Self {
        const CACHE_BYTES: usize = 512 << 10;
        let fewest = if capacity > 4 * CACHE_BYTES { 1 } else { 2 };
        let cache_most = (CACHE_BYTES / capacity)
            .clamp(fewest, 64)
            .min(thread_cache_bytes / capacity);
        Depot {
            capacity,
            cache_most,
            magazine: cache_most.div_ceil(2),
            magazines: Queue::new(16),
            loose: Queue::new(64),
        }
    }

    /// What is leased for what is here: as many, and of so many bytes.
    pub(super) fn leased(&self) -> (usize, usize) {
        let ordinary = self.magazines.len() * self.magazine;
        let loose: usize = self.loose.iter().map(|idle| idle.capacity).sum();
        (
            ordinary + self.loose.len(),
            ordinary * self.capacity + loose,
        )
    }

    pub(super) fn idle(&self) -> impl Iterator<Item = &Idle> {
        self.magazines.iter().flatten().chain(self.loose.iter())
    }

    /// Keeps ordinary ones, whole magazines as such.
    pub(super) fn keep(&mut self, batch: Vec<Idle>) {
        if batch.len() == self.magazine {
            self.magazines.push(batch);
        } else {
            self.keep_loose(batch);
        }
    }

    pub(super) fn keep_loose(&mut self, batch: Vec<Idle>) {
        batch
            .into_iter()
            .rev()
            .for_each(|idle| self.loose.push(idle));
    }

    /// Frees what was not needed, until these are `most` or more.
    pub(super) fn free(&mut self, most: usize) -> Vec<Idle> {
        let mut freed = Vec::new();
        while freed.len() < most && self.magazines.low > 0 {
            self.magazines.low -= 1;
            freed.extend(self.magazines.pop().unwrap());
        }
        while freed.len() < most && self.loose.low > 0 {
            self.loose.low -= 1;
            freed.push(self.loose.pop().unwrap());
        }
        freed
    }

    pub(super) fn reset_low(&mut self) {
        self.magazines.low = self.magazines.len();
        self.loose.low = self.loose.len();
    }
}
