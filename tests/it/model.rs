//! The pool as plain lists: what each operation must do, on one thread.
//!
//! Owns the rules: classes, the drop rule, growth, the limits of each level and
//! every counter. Runs each [`Op`] on real pools and on itself, and compares
//! contents, capacities, memory and counts after it. Knows nothing of where the
//! operations come from: a proptest and a fuzzer can both feed it.
//!
//! It does not predict which idle buffer a get returns, since that is not
//! promised: it sees which, and says whether that one was idle. Nor what the
//! heap gives to a `BytesMut` that grows by itself: it sees the new capacity.

use bytes::{Buf, Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use std::mem;
use tierpool::{Counts, Pool, PooledBuf};

/// The classes of both pools: one of which the levels hold plenty, some
/// between, and two of which they hold few.
pub const CLASSES: [usize; 5] = [64, 200, 1024, 300_000, 3 << 20];

const CLASS_MAX: usize = CLASSES[CLASSES.len() - 1];

/// Guards out at once: bounds what a run allocates.
const GUARDS_MAX: usize = 150;

/// One operation. Places in lists count round their length, so that every
/// number means something; on an empty list the operation does nothing.
#[derive(Clone, Debug)]
pub enum Op {
    Get {
        pool: usize,
        size: usize,
    },
    GetMany {
        pool: usize,
        size: usize,
        count: usize,
    },
    /// A new `BytesMut` of this capacity, with this much in it at most.
    Adopt {
        pool: usize,
        capacity: usize,
        len: usize,
    },
    /// A part that was split off or detached.
    AdoptPart {
        pool: usize,
        part: usize,
    },
    /// `extend_from_slice` on the guard.
    Write {
        guard: usize,
        len: usize,
    },
    /// `extend_from_slice` on the `BytesMut` inside.
    WriteInside {
        guard: usize,
        len: usize,
    },
    Reserve {
        guard: usize,
        additional: usize,
    },
    Resize {
        guard: usize,
        len: usize,
    },
    Truncate {
        guard: usize,
        len: usize,
    },
    Advance {
        guard: usize,
        count: usize,
    },
    SplitTo {
        guard: usize,
        at: usize,
        keep: bool,
    },
    SplitOff {
        guard: usize,
        at: usize,
        keep: bool,
    },
    CopyToBytes {
        guard: usize,
        at: usize,
        keep: bool,
    },
    /// Exchanges the `BytesMut`s of two guards.
    Swap {
        guard: usize,
        other: usize,
    },
    Drop {
        guard: usize,
    },
    DropMany {
        count: usize,
    },
    Detach {
        guard: usize,
    },
    /// `mem::forget`, a few times at most.
    Forget {
        guard: usize,
    },
    Freeze {
        guard: usize,
    },
    Slice {
        frozen: usize,
        from: usize,
    },
    DropFrozen {
        frozen: usize,
    },
    DropPart {
        part: usize,
    },
    NewHandle {
        pool: usize,
    },
    /// The last handle ends the pool; guards stay.
    DropHandle {
        pool: usize,
    },
}

// ---- memory ----

/// One allocation, which views share.
#[derive(Clone, Debug)]
struct Allocation {
    base: usize,
    capacity: usize,
    views: usize,
    /// Whether its `BytesMut` counts its parts; it does from the first split on.
    counted: bool,
}

/// What one `BytesMut` or `Bytes` covers of an allocation.
#[derive(Clone, Debug)]
struct View {
    allocation: usize,
    offset: usize,
    capacity: usize,
    contents: Vec<u8>,
}

#[derive(Debug, Default)]
struct Memory {
    allocations: BTreeMap<usize, Allocation>,
    last: usize,
}

impl Memory {
    /// The view of a `BytesMut` that is alone on its allocation.
    fn seen(&mut self, buf: &BytesMut, offset: usize, counted: bool) -> View {
        self.last += 1;
        self.allocations.insert(
            self.last,
            Allocation {
                base: buf.as_ptr().addr() - offset,
                capacity: buf.capacity() + offset,
                views: 1,
                counted,
            },
        );
        View {
            allocation: self.last,
            offset,
            capacity: buf.capacity(),
            contents: buf.to_vec(),
        }
    }

    fn of(&self, view: &View) -> &Allocation {
        &self.allocations[&view.allocation]
    }

    fn address(&self, view: &View) -> usize {
        self.of(view).base + view.offset
    }

    fn is_alone(&self, view: &View) -> bool {
        self.of(view).views == 1
    }

    fn end(&mut self, view: &View) {
        let allocation = self.allocations.get_mut(&view.allocation).unwrap();
        allocation.views -= 1;
        if allocation.views == 0 {
            self.allocations.remove(&view.allocation);
        }
    }

    /// Cuts off what lies before `at`, and returns it.
    fn split_to(&mut self, view: &mut View, at: usize) -> View {
        let allocation = self.allocations.get_mut(&view.allocation).unwrap();
        allocation.views += 1;
        allocation.counted = true;
        let rest = view.contents.split_off(at);
        let head = View {
            allocation: view.allocation,
            offset: view.offset,
            capacity: at,
            contents: mem::replace(&mut view.contents, rest),
        };
        view.offset += at;
        view.capacity -= at;
        head
    }

    /// Cuts off what lies from `at` on, and returns it.
    fn split_off(&mut self, view: &mut View, at: usize) -> View {
        let allocation = self.allocations.get_mut(&view.allocation).unwrap();
        allocation.views += 1;
        allocation.counted = true;
        let len = view.contents.len();
        let tail = View {
            allocation: view.allocation,
            offset: view.offset + at,
            capacity: view.capacity - at,
            contents: view.contents.split_off(at.min(len)),
        };
        view.capacity = at;
        tail
    }

    /// `BytesMut::try_reclaim`: room without the heap.
    fn try_reclaim(&self, view: &mut View, additional: usize) -> bool {
        let (len, allocation) = (view.contents.len(), self.of(view));
        if view.capacity - len >= additional {
            return true;
        }
        if allocation.counted {
            if allocation.views > 1 {
                return false;
            }
            if view.offset + len + additional <= allocation.capacity {
                view.capacity = len + additional;
                return true;
            }
        }
        let fits = len + additional <= allocation.capacity && view.offset >= len;
        if fits {
            view.offset = 0;
            view.capacity = allocation.capacity;
        }
        fits
    }
}

// ---- one pool ----

/// How much of a class each level holds: `limits` in `src/config.rs`.
struct Limits {
    cache: usize,
    magazine: usize,
    depot_magazines: usize,
    loose_bytes: usize,
}

impl Limits {
    fn of(capacity: usize) -> Self {
        const CACHE_BYTES: usize = 512 << 10;
        const LOOSE_BYTES: usize = 512 << 10;
        const DEPOT_BYTES: usize = 16 << 20;
        let fewest = if capacity > 4 * CACHE_BYTES { 1 } else { 2 };
        let cache = (CACHE_BYTES / capacity).clamp(fewest, 64);
        let magazine = cache.div_ceil(2);
        Limits {
            cache,
            magazine,
            depot_magazines: (DEPOT_BYTES / capacity / magazine).clamp(1, 128),
            loose_bytes: LOOSE_BYTES.max(2 * capacity),
        }
    }
}

/// The idle buffers of one class. Those of exactly its capacity go through
/// cache and depot by number; others are loose in the depot.
#[derive(Debug, Default)]
struct Idle {
    exact: Vec<View>,
    loose: Vec<View>,
    cached: usize,
    magazines: VecDeque<usize>,
}

/// The index of what is in no class, in every list by class.
const UNCLASSED: usize = CLASSES.len();

struct OnePool {
    handles: Vec<Pool>,
    zero_on_return: bool,
    idle: [Idle; CLASSES.len()],
    counts: [Counts; CLASSES.len() + 1],
}

fn class_for_request(request: usize) -> usize {
    let fits = CLASSES.iter().position(|&class| class >= request);
    fits.unwrap_or(UNCLASSED)
}

fn class_for_capacity(capacity: usize) -> usize {
    let filled = CLASSES.iter().rposition(|&class| class <= capacity);
    filled
        .filter(|_| capacity <= CLASS_MAX)
        .unwrap_or(UNCLASSED)
}

impl OnePool {
    fn new(zero_on_return: bool) -> Self {
        let pool = Pool::builder()
            .classes(CLASSES)
            .zero_on_return(zero_on_return)
            .build()
            .unwrap();
        OnePool {
            handles: vec![pool],
            zero_on_return,
            idle: Default::default(),
            counts: Default::default(),
        }
    }

    /// What a guard that was just taken for `request` must be.
    ///
    /// It may have contents already, if another guard grew into it.
    fn took(&mut self, memory: &mut Memory, buf: &PooledBuf, request: usize) -> GuardModel {
        let class = class_for_request(request);
        let counts = &mut self.counts[class];
        counts.gets += 1;
        counts.outstanding += 1;
        let view = if class == UNCLASSED {
            counts.oversize += 1;
            assert_eq!(buf.capacity(), request, "oversize is exact");
            memory.seen(buf, 0, false)
        } else {
            let idle = &mut self.idle[class];
            let from = if idle.cached > 0 {
                counts.local_hits += 1;
                idle.cached -= 1;
                Some(&mut idle.exact)
            } else if let Some(magazine) = idle.magazines.pop_front() {
                counts.depot_hits += 1;
                idle.cached = magazine - 1;
                Some(&mut idle.exact)
            } else if !idle.loose.is_empty() {
                counts.depot_hits += 1;
                Some(&mut idle.loose)
            } else {
                counts.misses += 1;
                None
            };
            if let Some(from) = from {
                let address = buf.as_ptr().addr();
                let at = from.iter().position(|idle| memory.address(idle) == address);
                let idle = from.swap_remove(at.expect("a hit is one of the idle buffers"));
                assert_eq!(buf.capacity(), idle.capacity, "a hit is whole");
                idle
            } else {
                assert_eq!(buf.capacity(), CLASSES[class], "a miss is of its class");
                memory.seen(buf, 0, false)
            }
        };
        let view = View {
            contents: Vec::new(),
            ..view
        };
        // Of no ordinary capacity: looked at whenever it comes home.
        let irregular = CLASSES.get(class).is_some_and(|&c| c != view.capacity);
        GuardModel {
            base: if irregular { 0 } else { memory.address(&view) },
            capacity: view.capacity,
            view,
            class,
        }
    }

    /// A guard that ends.
    fn comes_home(&mut self, memory: &mut Memory, mut guard: GuardModel) {
        self.counts[guard.class].outstanding -= 1;
        match guard.make_whole(memory) {
            // Kept, with its view of the allocation.
            Some(capacity) if self.keep(&guard, capacity) => {}
            Some(_) => memory.end(&guard.view),
            None => {
                self.counts[guard.class].discards.shared += 1;
                memory.end(&guard.view);
            }
        }
    }

    /// Keeps what is whole, or counts why not.
    fn keep(&mut self, guard: &GuardModel, capacity: usize) -> bool {
        if self.handles.is_empty() {
            return false;
        }
        let discards = &mut self.counts[guard.class].discards;
        if capacity > CLASS_MAX {
            discards.above_max += 1;
            return false;
        }
        let class = class_for_capacity(capacity);
        if class == UNCLASSED {
            discards.below_min += 1;
            return false;
        }
        let (idle, limits) = (&mut self.idle[class], Limits::of(CLASSES[class]));
        let view = View {
            offset: 0,
            capacity,
            ..guard.view.clone()
        };
        if capacity != CLASSES[class] {
            let loose: usize = idle.loose.iter().map(|idle| idle.capacity).sum();
            if loose + capacity > limits.loose_bytes {
                discards.full += 1;
                return false;
            }
            idle.loose.push(view);
        } else {
            if idle.cached == limits.cache {
                if idle.magazines.len() == limits.depot_magazines {
                    discards.full += 1;
                    return false;
                }
                idle.magazines.push_back(limits.magazine);
                idle.cached -= limits.magazine;
            }
            idle.cached += 1;
            idle.exact.push(view);
        }
        self.counts[class].returns += 1;
        true
    }
}

// ---- one guard ----

#[derive(Debug)]
struct GuardModel {
    view: View,
    /// The whole buffer, as the pool last saw it; 0 where it did not.
    base: usize,
    capacity: usize,
    /// Where it is counted as outstanding.
    class: usize,
}

impl GuardModel {
    /// Empties the buffer. Its capacity if it is the whole of its allocation
    /// then; `None` if a part is in use elsewhere.
    fn make_whole(&mut self, memory: &mut Memory) -> Option<usize> {
        self.view.contents.clear();
        let (address, view) = (memory.address(&self.view), &mut self.view);
        if address == self.base && view.capacity == self.capacity {
            return Some(self.capacity);
        }
        if self.base != 0 && (self.base..=self.base + self.capacity).contains(&address) {
            if memory.try_reclaim(view, self.capacity)
                && memory.address(view) == self.base
                && view.capacity == self.capacity
            {
                return Some(self.capacity);
            }
        } else if view.capacity == 0 && !memory.try_reclaim(view, 1) {
            return Some(0); // taken out, and nothing left in its place
        }
        if !memory.is_alone(view) {
            return None;
        }
        let allocation = memory.allocations.get_mut(&view.allocation).unwrap();
        allocation.counted = false;
        Some(allocation.capacity)
    }
}

struct Guard {
    real: PooledBuf,
    model: GuardModel,
    pool: usize,
}

impl Guard {
    /// What `BytesMut::reserve` did.
    fn heap_grew(&mut self, memory: &mut Memory, additional: usize) {
        let view = &mut self.model.view;
        if memory.try_reclaim(view, additional) {
            return;
        }
        let contents = mem::take(&mut view.contents);
        let (alone, counted) = (memory.is_alone(view), memory.of(view).counted);
        memory.end(view);
        // Alone, the allocation moves as it is; from a shared one it parts.
        let offset = if alone { view.offset } else { 0 };
        let grown = memory.seen(&self.real, offset, alone && counted);
        assert!(grown.capacity >= contents.len() + additional);
        self.model.view = View { contents, ..grown };
    }
}

enum PartKind {
    Mut(BytesMut),
    Frozen(Bytes),
}

struct Part {
    real: PartKind,
    view: View,
}

struct Frozen {
    slices: Vec<(Bytes, Vec<u8>)>,
    model: GuardModel,
    pool: usize,
}

// ---- all of it ----

/// Two pools and what was taken from them, real and modelled. The second one
/// wipes what is returned.
pub struct Model {
    pools: [OnePool; 2],
    guards: Vec<Guard>,
    parts: Vec<Part>,
    frozen: Vec<Frozen>,
    forgotten: Vec<View>,
    memory: Memory,
    /// The next byte to write.
    next: u8,
}

impl Default for Model {
    fn default() -> Self {
        Model {
            pools: [OnePool::new(false), OnePool::new(true)],
            guards: Vec::new(),
            parts: Vec::new(),
            frozen: Vec::new(),
            forgotten: Vec::new(),
            memory: Memory::default(),
            next: 0,
        }
    }
}

fn round(at: usize, len: usize) -> Option<usize> {
    at.checked_rem(len)
}

impl Model {
    /// Runs one operation on the pools and on the model.
    ///
    /// # Panics
    ///
    /// - If the pool does what it must not. [`check`](Self::check) sees more.
    pub fn apply(&mut self, op: &Op) {
        match *op {
            Op::Get { pool, size } => self.get(pool, size),
            Op::GetMany { pool, size, count } => (0..count).for_each(|_| self.get(pool, size)),
            Op::Adopt {
                pool,
                capacity,
                len,
            } => {
                let mut buf = BytesMut::with_capacity(capacity);
                let bytes = self.bytes(len.min(capacity));
                buf.extend_from_slice(&bytes);
                let view = self.memory.seen(&buf, 0, false);
                self.adopt(pool % 2, buf, view);
            }
            Op::AdoptPart { pool, part } => {
                let Some(at) = round(part, self.parts.len()) else {
                    return;
                };
                if self.pools[pool % 2].handles.is_empty() {
                    return;
                }
                let part = self.parts.swap_remove(at);
                match part.real {
                    PartKind::Mut(buf) => self.adopt(pool % 2, buf, part.view),
                    PartKind::Frozen(_) => self.parts.push(part),
                }
            }
            Op::Write { guard, len } => {
                let bytes = self.bytes(len);
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                let before = self.observe(at);
                self.guards[at].real.extend_from_slice(&bytes);
                self.guard_needed(at, len, 8, before);
                self.guards[at]
                    .model
                    .view
                    .contents
                    .extend_from_slice(&bytes);
            }
            Op::Resize { guard, len } => {
                let value = self.bytes(1)[0];
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                let before = self.observe(at);
                let more = len.saturating_sub(self.guards[at].real.len());
                self.guards[at].real.resize(len, value);
                self.guard_needed(at, more, 8, before);
                self.guards[at].model.view.contents.resize(len, value);
            }
            Op::Reserve { guard, additional } => {
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                let before = self.observe(at);
                self.guards[at].real.reserve(additional);
                self.guard_needed(at, additional, 1, before);
            }
            Op::WriteInside { guard, len } => {
                let bytes = self.bytes(len);
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                let guard = &mut self.guards[at];
                BytesMut::extend_from_slice(&mut guard.real, &bytes);
                let real = guard.real.to_vec();
                guard.heap_grew(&mut self.memory, len);
                guard.model.view.contents.extend_from_slice(&bytes);
                assert_eq!(real, guard.model.view.contents);
            }
            Op::Truncate { guard, len } => {
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                self.guards[at].real.truncate(len);
                self.guards[at].model.view.contents.truncate(len);
            }
            Op::Advance { guard, count } => {
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                let Guard { real, model, .. } = &mut self.guards[at];
                let count = count % (real.len() + 1);
                real.advance(count);
                model.view.contents.drain(..count);
                model.view.offset += count;
                model.view.capacity -= count;
            }
            Op::SplitTo { guard, at, keep } => {
                self.split(guard, keep, |memory, Guard { real, model, .. }| {
                    let at = at % (real.len() + 1);
                    let part = PartKind::Mut(real.split_to(at));
                    (part, memory.split_to(&mut model.view, at))
                });
            }
            Op::SplitOff { guard, at, keep } => {
                self.split(guard, keep, |memory, Guard { real, model, .. }| {
                    let at = at % (real.capacity() + 1);
                    let part = PartKind::Mut(real.split_off(at));
                    (part, memory.split_off(&mut model.view, at))
                });
            }
            Op::CopyToBytes { guard, at, keep } => {
                self.split(guard, keep, |memory, Guard { real, model, .. }| {
                    let at = at % (real.len() + 1);
                    let part = PartKind::Frozen(real.copy_to_bytes(at));
                    (part, memory.split_to(&mut model.view, at))
                });
            }
            Op::Swap { guard, other } => {
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                let other = other % self.guards.len();
                if at == other {
                    return;
                }
                let (low, high) = self.guards.split_at_mut(at.max(other));
                let (one, two) = (&mut low[at.min(other)], &mut high[0]);
                mem::swap(&mut *one.real, &mut *two.real);
                mem::swap(&mut one.model.view, &mut two.model.view);
            }
            Op::Drop { guard } => {
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                let guard = self.guards.swap_remove(at);
                self.drop_guard(guard);
            }
            Op::DropMany { count } => {
                for _ in 0..count {
                    let Some(guard) = self.guards.pop() else {
                        return;
                    };
                    self.drop_guard(guard);
                }
            }
            Op::Detach { guard } => {
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                let Guard { real, model, pool } = self.guards.swap_remove(at);
                let counts = &mut self.pools[pool].counts[model.class];
                counts.outstanding -= 1;
                counts.detached += 1;
                self.parts.push(Part {
                    real: PartKind::Mut(real.detach()),
                    view: model.view,
                });
            }
            Op::Forget { guard } => {
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                // Under Miri a leak is an error.
                if self.forgotten.len() == 2 || cfg!(miri) {
                    return;
                }
                let guard = self.guards.swap_remove(at);
                mem::forget(guard.real);
                self.forgotten.push(guard.model.view);
            }
            Op::Freeze { guard } => {
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                let Guard { real, model, pool } = self.guards.swap_remove(at);
                let contents = model.view.contents.clone();
                let slices = vec![(real.freeze(), contents)];
                self.frozen.push(Frozen {
                    slices,
                    model,
                    pool,
                });
            }
            Op::Slice { frozen, from } => {
                let Some(at) = round(frozen, self.frozen.len()) else {
                    return;
                };
                let slices = &mut self.frozen[at].slices;
                let (bytes, contents) = &slices[from % slices.len()];
                let from = from % (contents.len() + 1);
                // Not an empty one: `Bytes` lets go of the buffer for that.
                if from < contents.len() {
                    let slice = (bytes.slice(from..), contents[from..].to_vec());
                    slices.push(slice);
                }
            }
            Op::DropFrozen { frozen } => {
                let Some(at) = round(frozen, self.frozen.len()) else {
                    return;
                };
                self.frozen[at].slices.pop();
                if self.frozen[at].slices.is_empty() {
                    let Frozen { model, pool, .. } = self.frozen.swap_remove(at);
                    self.pools[pool].comes_home(&mut self.memory, model);
                }
            }
            Op::DropPart { part } => {
                let Some(at) = round(part, self.parts.len()) else {
                    return;
                };
                let part = self.parts.swap_remove(at);
                self.memory.end(&part.view);
            }
            Op::NewHandle { pool } => {
                let handles = &mut self.pools[pool % 2].handles;
                if let Some(handle) = handles.first() {
                    let handle = handle.clone();
                    handles.push(handle);
                }
            }
            Op::DropHandle { pool } => {
                let pool = &mut self.pools[pool % 2];
                pool.handles.pop();
                if pool.handles.is_empty() {
                    for idle in mem::take(&mut pool.idle) {
                        let all = idle.exact.iter().chain(&idle.loose);
                        all.for_each(|view| self.memory.end(view));
                    }
                }
            }
        }
    }

    /// Compares everything that can be seen.
    ///
    /// # Panics
    ///
    /// - If pool and model differ.
    pub fn check(&self) {
        for Guard { real, model, .. } in &self.guards {
            assert_eq!(real[..], model.view.contents);
            assert_eq!(real.capacity(), model.view.capacity);
            assert_eq!(real.as_ptr().addr(), self.memory.address(&model.view));
        }
        for Part { real, view } in &self.parts {
            match real {
                PartKind::Mut(real) => assert_eq!(real[..], view.contents),
                PartKind::Frozen(real) => assert_eq!(real[..], view.contents),
            }
        }
        for (real, contents) in self.frozen.iter().flat_map(|frozen| &frozen.slices) {
            assert_eq!(real[..], contents[..]);
        }
        self.check_memory();
        self.pools.iter().for_each(Self::check_counts);
    }

    /// Drops all guards, parts and handles, with a check after each.
    pub fn finish(mut self) {
        while !self.guards.is_empty() {
            self.apply(&Op::Drop { guard: 0 });
            self.check();
        }
        while !self.frozen.is_empty() {
            self.apply(&Op::DropFrozen { frozen: 0 });
            self.check();
        }
        self.parts.clear();
        for pool in &self.pools {
            if let Some(handle) = pool.handles.first() {
                let forgotten = self.forgotten.len() as u64;
                assert!(handle.stats().total.outstanding <= forgotten);
            }
        }
    }

    // ---- the operations ----

    /// Bytes that were not written just before.
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len)
            .map(|_| {
                self.next = self.next.wrapping_add(1);
                self.next
            })
            .collect()
    }

    fn get(&mut self, pool: usize, size: usize) {
        let pool = pool % 2;
        let of = &mut self.pools[pool];
        let Some(handle) = of.handles.last() else {
            return;
        };
        if self.guards.len() == GUARDS_MAX {
            return;
        }
        let real = handle.get(size);
        assert!(real.is_empty(), "a new guard is empty");
        let model = of.took(&mut self.memory, &real, size);
        self.guards.push(Guard { real, model, pool });
    }

    fn adopt(&mut self, pool: usize, buf: BytesMut, view: View) {
        let of = &mut self.pools[pool];
        let Some(handle) = of.handles.last() else {
            self.memory.end(&view);
            return;
        };
        let class = class_for_capacity(buf.capacity());
        of.counts[class].adopted += 1;
        of.counts[class].outstanding += 1;
        self.guards.push(Guard {
            real: handle.adopt(buf),
            model: GuardModel {
                view,
                base: 0,
                capacity: 0,
                class,
            },
            pool,
        });
    }

    fn split(
        &mut self,
        guard: usize,
        keep: bool,
        split: impl FnOnce(&mut Memory, &mut Guard) -> (PartKind, View),
    ) {
        let Some(at) = round(guard, self.guards.len()) else {
            return;
        };
        let (real, view) = split(&mut self.memory, &mut self.guards[at]);
        if keep {
            self.parts.push(Part { real, view });
        } else {
            drop(real);
            self.memory.end(&view);
        }
    }

    fn drop_guard(&mut self, guard: Guard) {
        drop(guard.real);
        self.pools[guard.pool].comes_home(&mut self.memory, guard.model);
    }

    /// Spare room before an operation that may grow.
    fn observe(&self, at: usize) -> usize {
        let real = &self.guards[at].real;
        real.capacity() - real.len()
    }

    /// What a guard must have done that had room for `spare` bytes and needed
    /// `additional`.
    fn guard_needed(&mut self, at: usize, additional: usize, step: usize, spare: usize) {
        let guard = &mut self.guards[at];
        let view = &mut guard.model.view;
        if spare >= additional || self.memory.try_reclaim(view, additional) {
            return;
        }
        let pool = &mut self.pools[guard.pool];
        let needed = view.contents.len() + additional;
        let request = if needed <= CLASS_MAX {
            needed.max((view.capacity * step).min(CLASS_MAX))
        } else if guard.model.class == UNCLASSED && !pool.zero_on_return {
            return guard.heap_grew(&mut self.memory, additional);
        } else {
            needed.max(view.capacity * 2)
        };
        pool.counts[guard.model.class].growths += 1;
        let contents = view.contents.clone();
        // Taken before the old one is given back. The real one has its contents
        // already; the model's come from the caller.
        let mut grown = pool.took(&mut self.memory, &guard.real, request);
        grown.view.contents = contents;
        let old = mem::replace(&mut guard.model, grown);
        pool.comes_home(&mut self.memory, old);
    }

    // ---- the comparisons ----

    fn check_memory(&self) {
        let out = self.guards.iter().map(|guard| &guard.model.view);
        let parts = self.parts.iter().map(|part| &part.view);
        let frozen = self.frozen.iter().map(|frozen| &frozen.model.view);
        let idle = self.pools.iter().flat_map(|pool| &pool.idle);
        let idle = idle.flat_map(|idle| idle.exact.iter().chain(&idle.loose));
        let taken = out.chain(parts).chain(frozen).chain(&self.forgotten);
        let mut ranges: Vec<(usize, usize)> = taken
            .chain(idle)
            .map(|view| (self.memory.address(view), view.capacity))
            .filter(|&(_, capacity)| capacity > 0)
            .collect();
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "two owners: {pair:x?}");
        }
    }

    fn check_counts(pool: &OnePool) {
        let Some(handle) = pool.handles.first() else {
            return;
        };
        let stats = handle.stats();
        let mut sum = Counts::default();
        let lines = stats.classes.iter().map(|class| class.counts);
        for (class, real) in lines.chain([stats.unclassed]).enumerate() {
            let mut expected = pool.counts[class];
            if let Some(idle) = pool.idle.get(class) {
                let all = || idle.exact.iter().chain(&idle.loose);
                expected.retained_buffers = all().count() as u64;
                expected.retained_bytes = all().map(|idle| idle.capacity as u64).sum();
                let by_level = idle.cached + idle.magazines.iter().sum::<usize>();
                assert_eq!(by_level, idle.exact.len(), "the model itself");
            }
            assert_eq!(real, expected, "line {class}");
            sum.gets += real.gets;
            sum.adopted += real.adopted;
            sum.returns += real.returns;
            sum.detached += real.detached;
            sum.outstanding += real.outstanding;
            assert_eq!(real.gets, real.hits() + real.misses + real.oversize);
        }
        let total = stats.total;
        assert_eq!(total.gets, sum.gets);
        assert_eq!(total.outstanding, sum.outstanding);
        assert_eq!(
            sum.gets + sum.adopted,
            sum.returns + total.discards.total() + sum.detached + sum.outstanding
        );
    }
}
