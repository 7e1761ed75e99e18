//! The buffers that a pool holds of one class, as lists: threads' caches, and the depot.
//!
//! Owns the order in which idle buffers come and go there, and which ones were not needed since the
//! last trim. Knows nothing of limits: its callers decide how many buffers to move.

use super::memory::{Memory, View, Zeros};
use std::collections::VecDeque;
use std::mem;

/// Names a thread of one model. Never used twice: a thread that takes an ended thread's place has
/// another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life(pub(super) usize);

/// A buffer that the pool holds.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) capacity: usize,
    /// `None` if `prefill` made it, and no guard has had it yet.
    pub(super) view: Option<View>,
    /// Which of its bytes the pool knows to be zero.
    pub(super) zeros: Zeros,
    /// Whether it has been in this cache since before the last trim. Not used in the depot, where a
    /// trim counts buffers.
    pub(super) unneeded: bool,
}

impl Idle {
    pub(super) fn end(self, memory: &mut Memory) {
        if let Some(view) = self.view {
            memory.end(&view);
        }
    }
}

/// The caches of one thread, and of the next thread after it.
#[derive(Debug)]
pub(super) struct CacheSet {
    /// The thread that has it; `None` once that has ended.
    pub(super) owner: Option<Life>,
    /// One per class.
    pub(super) caches: Vec<Cache>,
}

/// One thread's cache of one class: last in, first out.
#[derive(Debug, Default)]
pub(super) struct Cache {
    pub(super) held: Vec<Idle>,
    /// How many buffers it may hold now.
    pub(super) room: usize,
}

impl Cache {
    pub(super) fn has_room(&self) -> bool {
        self.held.len() < self.room
    }

    /// Whether a get finds a buffer here on the fast path.
    pub(super) fn has_needed(&self) -> bool {
        self.held.last().is_some_and(|idle| !idle.unneeded)
    }

    pub(super) fn unneeded(&self) -> usize {
        self.held.iter().filter(|idle| idle.unneeded).count()
    }

    /// Takes out the oldest buffers, and their room.
    pub(super) fn flush(&mut self, count: usize) -> Vec<Idle> {
        let mut magazine: Vec<Idle> = self.held.drain(..count).collect();
        self.room -= count;
        // Buffers from before the last trim come first, in reverse order.
        let before = magazine.iter().take_while(|idle| idle.unneeded).count();
        magazine[..before].reverse();
        magazine.iter_mut().for_each(|idle| idle.unneeded = false);
        magazine
    }

    /// Moves the `count` oldest buffers to the depot, and gives up all empty room.
    pub(super) fn hand_on(&mut self, depot: &mut Depot, mut count: usize) {
        while count > 0 {
            let out = count.min(depot.magazine);
            depot.keep(self.flush(out));
            count -= out;
        }
        self.room = self.held.len();
    }

    /// Takes out the buffers that were not needed, or all, in batches of the class's size, and
    /// gives up all empty room. The buffers that stay are not needed from now on.
    pub(super) fn take_idle(&mut self, all: bool, full: usize) -> Vec<Vec<Idle>> {
        /// The pool takes out as many at once.
        const MOST: usize = 32;
        let out = if all {
            self.held.len()
        } else {
            self.unneeded()
        };
        let mut batches = Vec::new();
        for mut taken in [out.min(MOST), out.saturating_sub(MOST)].map(|some| self.flush(some)) {
            while !taken.is_empty() {
                let rest = taken.split_off(full.min(taken.len()));
                batches.push(mem::replace(&mut taken, rest));
            }
        }
        self.held.iter_mut().for_each(|idle| idle.unneeded = true);
        self.room = self.held.len();
        batches
    }
}

/// The most that a piece of a trim frees, within a get or a drop.
pub(super) const PIECE: Allowance = Allowance {
    buffers: 64,
    bytes: 512 << 10,
};

/// How much more a piece of a trim may free.
pub(super) struct Allowance {
    pub(super) buffers: usize,
    pub(super) bytes: usize,
}

impl Allowance {
    pub(super) fn is_used_up(&self) -> bool {
        self.buffers == 0 || self.bytes == 0
    }

    pub(super) fn use_up(&mut self, buffers: usize, bytes: usize) {
        self.buffers = self.buffers.saturating_sub(buffers);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// A queue of the depot: first in, first out within each segment. The first segment with room, or
/// with an item, is used.
#[derive(Debug)]
pub(super) struct Queue<T> {
    segments: Vec<VecDeque<T>>,
    first: usize,
    /// How many segments were made.
    made: usize,
    /// Fewest items held since the last trim.
    low: usize,
}

impl<T> Queue<T> {
    fn new(first: usize) -> Self {
        Queue {
            segments: Vec::new(),
            first,
            made: 0,
            low: 0,
        }
    }

    /// The first segment with room.
    fn free_segment(&self) -> usize {
        let room = |at: usize| self.first << at.saturating_sub(1);
        let mut with_room = (0..).filter(|&at| {
            let segment = self.segments.get(at);
            segment.is_none_or(|segment| segment.len() < room(at))
        });
        with_room.next().unwrap()
    }

    pub(super) fn push(&mut self, item: T) {
        let at = self.free_segment();
        if at == self.segments.len() {
            self.segments.push(VecDeque::new());
        }
        self.made = self.made.max(at + 1);
        self.segments[at].push_back(item);
    }

    /// Pushes an item that was not needed, if that needs no new segment.
    fn push_unneeded(&mut self, item: T, low: usize) -> Result<(), T> {
        if self.free_segment() >= self.made {
            return Err(item);
        }
        self.push(item);
        self.low += low;
        Ok(())
    }

    /// Makes segments for `len` items in all.
    fn reserve(&mut self, len: usize) {
        let mut segments = 0;
        let mut room = 0;
        while room < len {
            room = self.first << segments;
            segments += 1;
        }
        self.made = self.made.max(segments);
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

/// The buffers of one class that all threads share. Buffers of exactly its capacity move by the
/// magazine between here and the caches. Others are kept loose here.
#[derive(Debug)]
pub(super) struct Depot {
    pub(super) capacity: usize,
    /// The most room that one cache may have.
    pub(super) cache_most: usize,
    /// How many buffers move at once between a cache and the depot.
    pub(super) magazine: usize,
    pub(super) magazines: Queue<Vec<Idle>>,
    pub(super) loose: Queue<Idle>,
    /// A buffer that is freed in parts, and how many bytes of it are left.
    freeing: Option<(Idle, usize)>,
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
            freeing: None,
        }
    }

    /// The leases of the buffers here: their number, and their bytes.
    pub(super) fn leased(&self) -> (usize, usize) {
        let ordinary = self.magazines.len() * self.magazine;
        let (buffers, bytes) = self.loose_idle().fold((0, 0), |(buffers, bytes), idle| {
            (buffers + 1, bytes + idle.capacity)
        });
        (ordinary + buffers, ordinary * self.capacity + bytes)
    }

    fn loose_idle(&self) -> impl Iterator<Item = &Idle> {
        let freeing = self.freeing.iter().map(|(idle, _)| idle);
        self.loose.iter().chain(freeing)
    }

    pub(super) fn idle(&self) -> impl Iterator<Item = &Idle> {
        self.magazines.iter().flatten().chain(self.loose_idle())
    }

    /// Keeps ordinary buffers, whole magazines as such.
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

    /// Keeps ordinary buffers that were not needed in a cache, as far as there is room without
    /// growing. Of the rest, returns those that `left` allows to free, and keeps the others. Unless
    /// `all`, the buffers that it keeps are the next ones that a trim frees.
    pub(super) fn keep_unneeded(
        &mut self,
        mut batch: Vec<Idle>,
        all: bool,
        left: &mut Allowance,
    ) -> Vec<Idle> {
        let low = usize::from(!all);
        if batch.len() == self.magazine {
            match self.magazines.push_unneeded(batch, low) {
                Ok(()) => return Vec::new(),
                Err(back) => batch = back,
            }
        }
        let in_parts = left.bytes <= PIECE.bytes;
        let mut freed = Vec::new();
        while let Some(idle) = batch.pop() {
            let Err(idle) = self.loose.push_unneeded(idle, low) else {
                continue;
            };
            if left.is_used_up() || in_parts && idle.capacity > PIECE.bytes {
                batch.push(idle);
                self.loose.low += low * batch.len();
                self.keep_loose(batch);
                break;
            }
            left.use_up(1, idle.capacity);
            freed.push(idle);
        }
        freed
    }

    /// Makes room for `len` buffers in all.
    pub(super) fn reserve(&mut self, len: usize) {
        match self.magazine {
            0 => self.loose.reserve(len),
            full => {
                self.magazines.reserve(len.div_ceil(full));
                self.loose.reserve(len.min(1)); // the model sets no `keep_idle`
            }
        }
    }

    /// Frees buffers that were not needed, until `left` of the allowance is used up.
    pub(super) fn free(&mut self, left: &mut Allowance) -> Vec<Idle> {
        let mut freed = self.end_freeing(left);
        while !left.is_used_up() {
            let mut more = if self.magazines.low > 0 {
                self.magazines.low -= 1;
                self.magazines.pop().unwrap()
            } else if self.loose.low > 0 {
                self.loose.low -= 1;
                vec![self.loose.pop().unwrap()]
            } else {
                break;
            };
            while !left.is_used_up() && self.freeing.is_none() {
                let Some(idle) = more.pop() else {
                    break;
                };
                if idle.capacity > PIECE.bytes {
                    let bytes = idle.capacity;
                    self.freeing = Some((idle, bytes));
                    freed.extend(self.end_freeing(left));
                } else {
                    left.use_up(1, idle.capacity);
                    freed.push(idle);
                }
            }
            self.loose.low += more.len();
            self.keep_loose(more);
        }
        freed
    }

    /// Continues with the buffer that is freed in parts, as far as is allowed.
    pub(super) fn end_freeing(&mut self, left: &mut Allowance) -> Vec<Idle> {
        let Some((idle, bytes)) = self.freeing.take() else {
            return Vec::new();
        };
        // On other systems, no part of a buffer can be freed.
        if cfg!(target_os = "linux") && bytes > left.bytes {
            self.freeing = Some((idle, bytes - left.bytes));
            left.use_up(0, left.bytes);
            return Vec::new();
        }
        left.use_up(1, bytes);
        vec![idle]
    }

    pub(super) fn reset_low(&mut self) {
        self.magazines.low = self.magazines.len();
        self.loose.low = self.loose.len();
    }
}
