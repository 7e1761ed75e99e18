//! The pool as plain lists: what each operation must do, on one thread.
//!
//! Owns the rules: classes, the drop rule, growth, leases, trims, calibrations and
//! every counter. Runs each [`Op`] on real pools and on itself, and compares contents,
//! capacities, memory and counts after it. Knows nothing of where the operations
//! come from: a proptest and a fuzzer can both feed it.
//!
//! It predicts which idle buffer a get returns. That is not promised, but else
//! the model could not say which ones a trim has freed. It does not predict what
//! the heap gives to a `BytesMut` that grows by itself: it sees the new capacity. Nor
//! does it predict at which return a pool calibrates, but that it is not early and
//! not late: it sees that, and then predicts what comes of it.

use crate::targets_after;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::time::Instant;
use tierpool::{Calibrated, Calibration, Counts, Histogram, Pool, PooledBuf};

/// The classes of both pools: one of which the levels hold plenty, some
/// between, and two of which they hold few.
pub const CLASSES: [usize; 5] = [64, 200, 1024, 300_000, 3 << 20];

const CLASS_MAX: usize = CLASSES[CLASSES.len() - 1];

/// Of which part of the lengths the pools' `max_size` holds at least.
const PERCENTILE: f64 = 0.9;

/// How many returns of one class and one sort of lengths a pool may not have looked at.
const BATCH: u64 = 255;

/// Guards out at once: bounds what a run allocates.
const GUARDS_MAX: usize = 150;

/// Idle buffers above which there is no prefill, for the same reason.
const IDLE_MAX: usize = 300;

/// One operation. Places in lists count round their length, so that every
/// number means something; on an empty list the operation does nothing.
#[derive(Clone, Debug)]
pub enum Op {
    Get {
        pool: usize,
        size: usize,
    },
    GetDefault {
        pool: usize,
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
    Trim {
        pool: usize,
    },
    Clear {
        pool: usize,
    },
    Prefill {
        pool: usize,
        size: usize,
        count: usize,
    },
    Calibrate {
        pool: usize,
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

/// What a pool of the model may retain, as given to its builder.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub retain_bytes: usize,
    pub max_per_class: usize,
    pub thread_cache_bytes: usize,
}

impl Bounds {
    pub const NONE: Bounds = Bounds {
        retain_bytes: usize::MAX,
        max_per_class: usize::MAX,
        thread_cache_bytes: usize::MAX,
    };
}

/// A buffer that the pool holds.
#[derive(Debug)]
struct Idle {
    capacity: usize,
    /// `None` where it was made by `prefill`, and nobody has seen it yet.
    view: Option<View>,
    /// Whether it has been in this cache since before the last trim. Not used in
    /// the depot, where a trim goes by number.
    unneeded: bool,
}

impl Idle {
    fn end(self, memory: &mut Memory) {
        if let Some(view) = self.view {
            memory.end(&view);
        }
    }
}

/// A queue of the depot: first in, first out within each of its segments, the
/// first of which with room, or with an item, is used.
#[derive(Debug)]
struct Queue<T> {
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

    fn push(&mut self, item: T) {
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

    fn pop(&mut self) -> Option<T> {
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

/// What a pool holds of one class. Buffers of exactly its capacity go through
/// the cache and, by the magazine, the depot; others are loose there.
#[derive(Debug)]
struct Class {
    capacity: usize,
    /// The most that the cache may have room for.
    cache_most: usize,
    /// How many move at once between cache and depot.
    magazine: usize,
    /// This thread's cache: the last that came is the first that goes.
    cache: Vec<Idle>,
    /// How many the cache may hold now.
    room: usize,
    magazines: Queue<Vec<Idle>>,
    loose: Queue<Idle>,
    /// What a trim would have to visit to make room, if one was refused for want
    /// of it, and no miss since.
    refused: Option<Scope>,
}

impl Class {
    fn new(capacity: usize, bounds: &Bounds) -> Self {
        const CACHE_BYTES: usize = 512 << 10;
        let fewest = if capacity > 4 * CACHE_BYTES { 1 } else { 2 };
        let cache_most = (CACHE_BYTES / capacity)
            .clamp(fewest, 64)
            .min(bounds.thread_cache_bytes / capacity);
        Class {
            capacity,
            cache_most,
            magazine: cache_most.div_ceil(2),
            cache: Vec::new(),
            room: 0,
            magazines: Queue::new(16),
            loose: Queue::new(64),
            refused: None,
        }
    }

    /// What is leased: as many, and of so many bytes. All room in the cache is,
    /// whether it holds something or not.
    fn leased(&self) -> (usize, usize) {
        let ordinary = self.room + self.magazines.len() * self.magazine;
        let loose: usize = self.loose.iter().map(|idle| idle.capacity).sum();
        (
            ordinary + self.loose.len(),
            ordinary * self.capacity + loose,
        )
    }

    fn idle(&self) -> impl Iterator<Item = &Idle> {
        let shared = self.magazines.iter().flatten().chain(self.loose.iter());
        self.cache.iter().chain(shared)
    }

    /// Takes what came first out of the cache, and its room.
    fn flush(&mut self, count: usize) -> Vec<Idle> {
        let mut magazine: Vec<Idle> = self.cache.drain(..count).collect();
        self.room -= count;
        // Those of before the last trim come first, and the other way round.
        let before = magazine.iter().take_while(|idle| idle.unneeded).count();
        magazine[..before].reverse();
        magazine.iter_mut().for_each(|idle| idle.unneeded = false);
        magazine
    }

    /// Moves the `count` that came first to the depot, and gives up all room
    /// that holds nothing.
    fn hand_on(&mut self, mut count: usize) {
        while count > 0 {
            let out = count.min(self.magazine);
            let batch = self.flush(out);
            self.keep_shared(batch);
            count -= out;
        }
        self.room = self.cache.len();
    }

    /// Keeps ordinary ones in the depot, whole magazines as such.
    fn keep_shared(&mut self, batch: Vec<Idle>) {
        if batch.len() == self.magazine {
            self.magazines.push(batch);
        } else {
            self.keep_loose(batch);
        }
    }

    fn keep_loose(&mut self, batch: Vec<Idle>) {
        batch
            .into_iter()
            .rev()
            .for_each(|idle| self.loose.push(idle));
    }

    /// Frees what was not needed in the cache, or all, and gives up all room
    /// that holds nothing.
    fn free_cached(&mut self, all: bool) -> Vec<Idle> {
        let idle = mem::take(&mut self.cache).into_iter();
        let (freed, mut kept): (Vec<_>, Vec<_>) = idle.partition(|idle| all || idle.unneeded);
        kept.iter_mut().for_each(|idle| idle.unneeded = true);
        self.cache = kept;
        self.room = self.cache.len();
        freed
    }

    /// Frees what was not needed in the depot, until these are `most` or more.
    fn free_shared(&mut self, most: usize) -> Vec<Idle> {
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

    fn reset_low(&mut self) {
        self.magazines.low = self.magazines.len();
        self.loose.low = self.loose.len();
    }
}

/// How far a trim has got that is done in parts: which class's depot is next,
/// after the thread's cache.
#[derive(Debug)]
struct Round {
    scope: Scope,
    cache_done: bool,
    /// The class whose depot is next, and the one before which to end.
    class: usize,
    end: usize,
    freed_any: bool,
}

/// What a trim visits. All comes last, as it is more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Class(usize),
    All,
}

/// How many buffers one part of a trim frees at least, if there are so many.
const PART: usize = 64;

/// The index of what is in no class, in every list by class.
const UNCLASSED: usize = CLASSES.len();

/// What a pool has learned, and what it knows since.
struct Learned {
    /// How many returns of one step are not enough.
    threshold: u64,
    targets: Option<Calibration>,
    calls: u64,
    /// When the pool made these; seen, not predicted.
    at: Option<Instant>,
    /// The lengths that came back since.
    lengths: Histogram,
    /// Of which classes and sorts, ever: each of them is counted apart.
    sorts: BTreeSet<(usize, u32)>,
    /// How often each class was asked for since.
    requests: [usize; CLASSES.len()],
    /// Whether what returns to a class is freed.
    retired: [bool; CLASSES.len()],
    /// How often it was asked for while it was.
    noted: [usize; CLASSES.len()],
}

impl Learned {
    fn new(threshold: u64) -> Self {
        Learned {
            threshold,
            targets: None,
            calls: 0,
            at: None,
            lengths: Histogram::new(),
            sorts: BTreeSet::new(),
            requests: [0; CLASSES.len()],
            retired: [false; CLASSES.len()],
            noted: [0; CLASSES.len()],
        }
    }

    fn default_size(&self) -> usize {
        self.targets.map_or(4096, |targets| targets.default_size)
    }

    /// Notes that so many of a class were asked for. The second request brings a
    /// retired one back.
    fn request(&mut self, class: usize, count: usize) {
        self.noted[class] += count;
        self.retired[class] &= self.noted[class] < 2;
    }

    fn is_retired(&self, class: usize) -> bool {
        self.retired.get(class).copied().unwrap_or(false)
    }

    /// What a guard takes that appends to a full buffer of this capacity.
    fn larger_than(&self, capacity: usize) -> usize {
        match self.targets {
            None => capacity * 8,
            Some(targets) if capacity < targets.default_size => targets.default_size,
            Some(targets) if capacity < targets.max_size => targets.max_size.min(capacity * 8),
            Some(_) => capacity * 16,
        }
    }

    fn count(&mut self, class: usize, len: usize) {
        self.lengths.record(len);
        // By the power of two; none at all is a sort of its own.
        let sort = if len == 0 {
            0
        } else {
            len.next_power_of_two().max(64).ilog2()
        };
        self.sorts.insert((class, sort));
    }

    /// The most calls that one step has had.
    fn most_calls(&self) -> u64 {
        self.lengths.steps().into_iter().max().unwrap_or(0)
    }

    /// Chooses targets. Says which classes are retired by that.
    fn calibrate(&mut self) -> Vec<usize> {
        if self.lengths.is_empty() {
            return Vec::new();
        }
        self.targets = targets_after(self.targets, &self.lengths, PERCENTILE);
        self.calls = self.lengths.calls();
        self.lengths = Histogram::new();
        let max_size = self.targets.map_or(usize::MAX, |targets| targets.max_size);
        let before = self.retired;
        for at in 0..CLASSES.len() {
            let above = at > class_for_request(max_size);
            self.retired[at] = above && self.requests[at] < 2;
        }
        self.requests = Default::default();
        self.noted = Default::default();
        let classes = 0..CLASSES.len();
        classes
            .filter(|&at| self.retired[at] && !before[at])
            .collect()
    }
}

struct OnePool {
    handles: Vec<Pool>,
    zero_on_return: bool,
    bounds: Bounds,
    learned: Learned,
    classes: [Class; CLASSES.len()],
    counts: [Counts; CLASSES.len() + 1],
    /// The trim that the slow way of a get or a drop has begun.
    round: Option<Round>,
    /// What the trim that is due is to visit.
    due: Option<Scope>,
    /// Misses since the last trim of classes of which one had been refused.
    shortages: usize,
    /// How many of these begin a trim.
    shortages_limit: usize,
    /// Fewest idle buffers of each class that `Stats` has shown since the last
    /// trim: no trim frees more.
    fewest: [u64; CLASSES.len()],
    /// Whether a trim has begun these anew.
    trimmed: bool,
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
    fn new(zero_on_return: bool, bounds: Bounds, threshold: u64) -> Self {
        let pool = Pool::builder()
            .classes(CLASSES)
            .retain_bytes(bounds.retain_bytes)
            .max_per_class(bounds.max_per_class)
            .thread_cache_bytes(bounds.thread_cache_bytes)
            .trim_interval(None) // time plays no part in the model
            .calibrate_interval(None)
            .calibrate_after(threshold)
            .calibrate_percentile(PERCENTILE)
            .zero_on_return(zero_on_return)
            .build()
            .unwrap();
        OnePool {
            handles: vec![pool],
            zero_on_return,
            bounds,
            learned: Learned::new(threshold),
            classes: CLASSES.map(|capacity| Class::new(capacity, &bounds)),
            counts: Default::default(),
            round: None,
            due: None,
            shortages: 0,
            shortages_limit: 1,
            fewest: [0; CLASSES.len()],
            trimmed: false,
        }
    }

    // ---- out ----

    /// What a guard that was just taken for `request` must be, which somebody
    /// `asked` for or not.
    ///
    /// It may have contents already, if another guard grew into it.
    fn took(
        &mut self,
        memory: &mut Memory,
        buf: &PooledBuf,
        request: usize,
        asked: bool,
    ) -> GuardModel {
        let class = class_for_request(request);
        if asked && class != UNCLASSED {
            self.learned.requests[class] += 1;
            if self.learned.is_retired(class) {
                self.learned.request(class, 1);
            }
        }
        let idle = self.take_idle(memory, class);
        if self.learned.is_retired(class) {
            // What came along from the depot goes back there.
            self.give_up(class);
        }
        let counts = &mut self.counts[class];
        counts.gets += 1;
        counts.outstanding += 1;
        let capacity = match &idle {
            Some(idle) => idle.capacity,
            None if class == UNCLASSED => {
                counts.oversize += 1;
                request
            }
            None => {
                counts.misses += 1;
                CLASSES[class]
            }
        };
        assert_eq!(buf.capacity(), capacity);
        let view = match idle.and_then(|idle| idle.view) {
            Some(view) => {
                let address = buf.as_ptr().addr();
                assert_eq!(address, memory.address(&view), "not the one that was next");
                view
            }
            None => memory.seen(buf, 0, false),
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

    fn take_idle(&mut self, memory: &mut Memory, at: usize) -> Option<Idle> {
        let has_needed = |class: &Class| class.cache.last().is_some_and(|idle| !idle.unneeded);
        if self.zero_on_return || !self.classes.get(at).is_some_and(has_needed) {
            if at == UNCLASSED {
                return None;
            }
            self.trim_if_due(memory);
        }
        let thread_room = self.lease_of_thread(at, usize::MAX);
        let (class, counts) = (&mut self.classes[at], &mut self.counts[at]);
        if let Some(idle) = class.cache.pop() {
            counts.local_hits += 1;
            return Some(idle);
        }
        // Where half a magazine has no room, none is broken up without need.
        if class.room.saturating_add(thread_room) < class.magazine.div_ceil(2) {
            if let Some(idle) = class.loose.pop() {
                counts.depot_hits += 1;
                return Some(idle);
            }
        }
        if let Some(mut magazine) = class.magazines.pop() {
            counts.depot_hits += 1;
            let idle = magazine.pop();
            // Room for that one, too: it will come back.
            let more = class.magazine.saturating_sub(class.room);
            let leased = self.lease_of_thread(at, more);
            let class = &mut self.classes[at];
            class.room += leased;
            let rest = magazine.split_off(class.room.min(magazine.len()));
            class.cache = magazine;
            class.keep_loose(rest);
            return idle;
        }
        if let Some(idle) = class.loose.pop() {
            counts.depot_hits += 1;
            return Some(idle);
        }
        if let Some(scope) = class.refused.take() {
            self.shortages += 1;
            if self.shortages >= self.shortages_limit {
                self.due = self.due.max(Some(scope));
            }
        }
        None
    }

    // ---- back ----

    /// A guard that ends, with its contents.
    fn returned(&mut self, memory: &mut Memory, guard: GuardModel) {
        let used = guard.consumed(memory) + guard.view.contents.len();
        self.learned.count(guard.class, used);
        self.see_calibration();
        self.comes_home(memory, guard);
    }

    /// Finds out whether the return of just now has made the pool calibrate, which
    /// comes before that one is judged.
    fn see_calibration(&mut self) {
        let Some(handle) = self.handles.first() else {
            return;
        };
        let now = handle.calibration();
        let threshold = self.learned.threshold;
        if now.at != self.learned.at {
            let most = self.learned.most_calls();
            assert!(most > threshold, "early: {most} of {threshold}");
            self.calibrated(now);
        }
        let late = BATCH * self.learned.sorts.len() as u64;
        let most = self.learned.most_calls();
        assert!(
            most <= threshold.saturating_add(late),
            "{most}, {threshold}"
        );
    }

    /// The pool has calibrated: what must have come of that.
    fn calibrated(&mut self, now: Calibrated) {
        for class in self.learned.calibrate() {
            self.give_up(class);
        }
        self.learned.at = now.at;
        self.check_calibration(now);
    }

    fn check_calibration(&self, now: Calibrated) {
        let expected = self.learned.targets.unwrap_or(Calibration {
            default_size: 4096,
            max_size: CLASS_MAX,
        });
        assert_eq!((now.targets, now.calls), (expected, self.learned.calls));
        assert_eq!(now.at, self.learned.at);
    }

    /// Moves all that the cache holds of a class to the depot.
    fn give_up(&mut self, class: usize) {
        let held = self.classes[class].cache.len();
        self.classes[class].hand_on(held);
    }

    /// A buffer that a guard has given up.
    fn comes_home(&mut self, memory: &mut Memory, mut guard: GuardModel) {
        self.counts[guard.class].outstanding -= 1;
        match guard.make_whole(memory) {
            // Kept, with its view of the allocation.
            Some(capacity) if self.keep(memory, &guard, capacity) => {}
            Some(_) => memory.end(&guard.view),
            None => {
                self.counts[guard.class].discards.shared += 1;
                memory.end(&guard.view);
            }
        }
    }

    /// Keeps what is whole, or counts why not.
    fn keep(&mut self, memory: &mut Memory, guard: &GuardModel, capacity: usize) -> bool {
        if self.handles.is_empty() {
            return false;
        }
        let discards = &mut self.counts[guard.class].discards;
        let would_hold = class_for_request(capacity);
        if would_hold == UNCLASSED || self.learned.is_retired(would_hold) {
            discards.above_max += 1;
            return false;
        }
        let at = class_for_capacity(capacity);
        if at == UNCLASSED {
            discards.below_min += 1;
            return false;
        }
        let idle = Idle {
            capacity,
            view: Some(View {
                offset: 0,
                capacity,
                ..guard.view.clone()
            }),
            unneeded: false,
        };
        let ordinary = capacity == CLASSES[at];
        let has_room = |class: &Class| class.cache.len() < class.room;
        if !(ordinary && at == guard.class && has_room(&self.classes[at])) {
            self.trim_if_due(memory);
        }
        if ordinary && (has_room(&self.classes[at]) || self.widen(at) || self.flush_full(at)) {
            self.classes[at].cache.push(idle);
        } else if self.lease(at, capacity, 1) == 1 {
            self.classes[at].loose.push(idle);
        } else {
            let of_class = self.classes[at].leased().0;
            if of_class >= self.bounds.max_per_class && self.bounds.max_per_class > 0 {
                self.classes[at].refused = Some(Scope::Class(at));
            } else if of_class < self.bounds.max_per_class && capacity <= self.bounds.retain_bytes {
                self.classes[at].refused = Some(Scope::All);
            }
            self.counts[guard.class].discards.full += 1;
            return false;
        }
        self.counts[at].returns += 1;
        true
    }

    /// Doubles a full cache's room, as far as may be.
    fn widen(&mut self, at: usize) -> bool {
        let (room, most) = (self.classes[at].room, self.classes[at].cache_most);
        if room == most {
            return false;
        }
        let more = room.max(1).min(most - room);
        let mut leased = self.lease_of_thread(at, more);
        if leased == 0 {
            // What this thread has not needed, of any class, makes way.
            for class in &mut self.classes {
                let unneeded = class.cache.iter().filter(|idle| idle.unneeded).count();
                class.hand_on(unneeded);
            }
            leased = self.lease_of_thread(at, more);
        }
        leased = self.lease(at, CLASSES[at], leased);
        self.classes[at].room += leased;
        leased > 0
    }

    /// Moves a magazine of a full cache to the depot, if there is room for what
    /// comes instead.
    fn flush_full(&mut self, at: usize) -> bool {
        let magazine = self.classes[at].magazine;
        let more = self.lease(at, CLASSES[at], magazine);
        let class = &mut self.classes[at];
        if class.cache.len() < magazine || more == 0 {
            return false;
        }
        let batch = class.flush(magazine);
        class.magazines.push(batch);
        class.room += more;
        true
    }

    fn prefill(&mut self, request: usize, count: usize) -> usize {
        let at = class_for_request(request);
        if at == UNCLASSED {
            return 0;
        }
        let mut made = 0;
        while made < count {
            let batch = self.classes[at].magazine.max(1).min(count - made);
            let leased = self.lease(at, CLASSES[at], batch);
            if leased == 0 {
                break;
            }
            let new = || Idle {
                capacity: CLASSES[at],
                view: None,
                unneeded: false,
            };
            let batch = (0..leased).map(|_| new()).collect();
            self.classes[at].keep_shared(batch);
            made += leased;
        }
        self.counts[at].prefilled += made as u64;
        self.learned.requests[at] += made;
        self.learned.request(at, count);
        made
    }

    // ---- leases ----

    /// For how many of `count` buffers of a class, each of `capacity` bytes,
    /// the budget and the class have room.
    fn lease(&self, at: usize, capacity: usize, count: usize) -> usize {
        let all: usize = self.classes.iter().map(|class| class.leased().1).sum();
        let of_class = self.bounds.max_per_class - self.classes[at].leased().0;
        let of_budget = (self.bounds.retain_bytes - all) / capacity;
        count.min(of_class).min(of_budget)
    }

    /// For how many of `count` ordinary buffers of a class this thread's caches
    /// have room.
    fn lease_of_thread(&self, at: usize, count: usize) -> usize {
        let rooms = self.classes.iter().map(|class| class.room * class.capacity);
        let all: usize = rooms.sum();
        count.min((self.bounds.thread_cache_bytes - all) / CLASSES[at])
    }

    // ---- trims ----

    fn is_due(&self) -> bool {
        self.due.is_some() && !self.handles.is_empty()
    }

    /// Does what the slow way of a get or a drop does of a trim: until 64 are
    /// free, or as much was done otherwise.
    fn trim_if_due(&mut self, memory: &mut Memory) {
        let mut done = 0;
        while self.is_due() && done < PART {
            done += match &self.round {
                Some(round) if round.cache_done => 1,
                _ => PART / 4,
            };
            match self.free_part(memory, false) {
                Some((buffers, _)) => done += buffers,
                None => self.end_round(),
            }
        }
    }

    /// Frees what was not needed, or all that is idle: how many, and their bytes.
    fn free_idle(&mut self, memory: &mut Memory, all: bool) -> (usize, usize) {
        self.round = None; // a trim that had got half way begins anew
        self.due = Some(Scope::All);
        if all {
            self.classes.iter_mut().for_each(Class::reset_low);
        }
        let mut freed = (0, 0);
        while let Some((buffers, bytes)) = self.free_part(memory, all) {
            freed = (freed.0 + buffers, freed.1 + bytes);
        }
        self.end_round();
        freed
    }

    /// Frees the next part: the thread's cache, or at most some of one class's depot.
    fn free_part(&mut self, memory: &mut Memory, all: bool) -> Option<(usize, usize)> {
        self.trimmed = true;
        let begin = || {
            let scope = self.due.unwrap_or(Scope::All);
            let (class, end) = match scope {
                Scope::Class(at) => (at, at + 1),
                Scope::All => (0, CLASSES.len()),
            };
            Round {
                scope,
                cache_done: false,
                class,
                end,
                freed_any: false,
            }
        };
        let round = self.round.get_or_insert_with(begin);
        let mut freed: Vec<(usize, Vec<Idle>)> = Vec::new();
        if !round.cache_done {
            round.cache_done = true;
            for at in round.class..round.end {
                let room = self.classes[at].room;
                freed.push((at, self.classes[at].free_cached(all)));
                round.freed_any |= self.classes[at].room < room;
            }
        } else {
            let class = self.classes[..round.end].get_mut(round.class)?;
            freed.push((round.class, class.free_shared(PART)));
            if freed[0].1.len() < PART {
                class.reset_low();
                round.class += 1;
            }
        }
        let (mut buffers, mut bytes) = (0, 0);
        for (at, idle) in freed {
            self.counts[at].trimmed += idle.len() as u64;
            for idle in idle {
                buffers += 1;
                bytes += idle.capacity;
                idle.end(memory);
            }
        }
        round.freed_any |= buffers > 0;
        Some((buffers, bytes))
    }

    /// The more trims in a row free nothing, the rarer they are.
    fn end_round(&mut self) {
        let round = self.round.take();
        let scope = round.as_ref().map_or(Scope::All, |round| round.scope);
        let freed_any = round.is_some_and(|round| round.freed_any);
        // What has come to be due for more than was visited stays due.
        self.due = self.due.filter(|&due| due > scope);
        self.shortages_limit = match freed_any {
            true => 8,
            false => (2 * self.shortages_limit).clamp(8, 256),
        };
        self.shortages = 0;
    }

    /// Notes how few are idle in fact, begun anew at each trim.
    fn note_fewest(&mut self) {
        let Some(handle) = self.handles.first() else {
            return;
        };
        let anew = mem::take(&mut self.trimmed);
        for (fewest, class) in self.fewest.iter_mut().zip(handle.stats().classes) {
            let now = class.counts.retained_buffers;
            *fewest = if anew { now } else { now.min(*fewest) };
        }
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
    /// How much was taken from the front, as far as the pool knows where that was.
    fn consumed(&self, memory: &Memory) -> usize {
        let address = memory.address(&self.view);
        let known = self.base != 0 && (self.base..=self.base + self.capacity).contains(&address);
        if known { address - self.base } else { 0 }
    }

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
    /// The pool whose thread cache was used last.
    turn: usize,
}

fn round(at: usize, len: usize) -> Option<usize> {
    at.checked_rem(len)
}

impl Model {
    /// Two pools that calibrate when they are told to.
    pub fn new(bounds: [Bounds; 2]) -> Self {
        Self::calibrating(bounds, [u64::MAX; 2])
    }

    /// Two pools that calibrate after so many returns.
    pub fn calibrating(bounds: [Bounds; 2], thresholds: [u64; 2]) -> Self {
        Model {
            pools: [
                OnePool::new(false, bounds[0], thresholds[0]),
                OnePool::new(true, bounds[1], thresholds[1]),
            ],
            guards: Vec::new(),
            parts: Vec::new(),
            frozen: Vec::new(),
            forgotten: Vec::new(),
            memory: Memory::default(),
            next: 0,
            turn: 0,
        }
    }

    /// What a pool has done; all 0 if it has ended.
    pub fn total(&self, pool: usize) -> Counts {
        let handle = self.pools[pool % 2].handles.first();
        handle.map_or(Counts::default(), |handle| handle.stats().total)
    }

    /// Runs one operation on the pools and on the model.
    ///
    /// # Panics
    ///
    /// - If the pool does what it must not. [`check`](Self::check) sees more.
    pub fn apply(&mut self, op: &Op) {
        self.run(op);
        self.pools.iter_mut().for_each(OnePool::note_fewest);
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Get { pool, size } => self.get(pool, size),
            Op::GetDefault { pool } => {
                let size = self.pools[pool % 2].learned.default_size();
                self.get_by(pool, size, Pool::get_default);
            }
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
                self.guard_needed(at, len, false, before);
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
                self.guard_needed(at, more, false, before);
                self.guards[at].model.view.contents.resize(len, value);
            }
            Op::Reserve { guard, additional } => {
                let Some(at) = round(guard, self.guards.len()) else {
                    return;
                };
                let before = self.observe(at);
                self.guards[at].real.reserve(additional);
                self.guard_needed(at, additional, true, before);
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
                if self.forgotten.len() == 2 {
                    return;
                }
                let guard = self.guards.swap_remove(at);
                crate::forget::forget(guard.real);
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
                self.turn_to(self.frozen[at].pool);
                self.frozen[at].slices.pop();
                if self.frozen[at].slices.is_empty() {
                    let Frozen { model, pool, .. } = self.frozen.swap_remove(at);
                    self.pools[pool].returned(&mut self.memory, model);
                }
            }
            Op::DropPart { part } => {
                let Some(at) = round(part, self.parts.len()) else {
                    return;
                };
                let part = self.parts.swap_remove(at);
                self.memory.end(&part.view);
            }
            Op::Trim { pool } => self.free_idle(pool % 2, false),
            Op::Clear { pool } => self.free_idle(pool % 2, true),
            Op::Prefill { pool, size, count } => {
                let pool = &mut self.pools[pool % 2];
                let idle = pool.classes.iter().flat_map(Class::idle).count();
                if let (Some(handle), true) = (pool.handles.last(), idle <= IDLE_MAX) {
                    let made = handle.prefill(size, count);
                    assert_eq!(made, pool.prefill(size, count));
                }
            }
            Op::Calibrate { pool } => {
                let pool = &mut self.pools[pool % 2];
                if let Some(handle) = pool.handles.last() {
                    let now = handle.calibrate();
                    let made = now.at != pool.learned.at;
                    assert_eq!(made, !pool.learned.lengths.is_empty());
                    pool.calibrated(now);
                }
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
                    pool.free_idle(&mut self.memory, true);
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

    /// Before a pool's thread cache is used: the thread may forget where the
    /// other pool's is, since it remembers some by their number only. What that
    /// pool does then goes the slow way, and finds out if a trim is due there. So
    /// as to know when, that trim is done now, by what goes that way in any case.
    fn turn_to(&mut self, pool: usize) {
        let before = mem::replace(&mut self.turn, pool);
        while before != pool && self.pools[before].is_due() {
            let size = CLASSES[0] + 1;
            let guard = match self.pools[before]
                .learned
                .is_retired(class_for_request(size))
            {
                // What comes back would be freed, and no trim looked for.
                true => self.take(before, size, |pool| pool.get(size)),
                false => {
                    let buf = BytesMut::with_capacity(size);
                    let view = self.memory.seen(&buf, 0, false);
                    self.adopt(before, buf, view);
                    self.guards.pop().unwrap()
                }
            };
            drop(guard.real);
            self.pools[before].returned(&mut self.memory, guard.model);
        }
    }

    /// A trim, or a clear.
    fn free_idle(&mut self, pool: usize, all: bool) {
        let of = &mut self.pools[pool];
        let Some(handle) = of.handles.last() else {
            return;
        };
        let before = handle.stats();
        let freed = if all { handle.clear() } else { handle.trim() };
        let after = handle.stats();
        let classes = before.classes.iter().zip(&after.classes);
        for ((before, after), &fewest) in classes.zip(&of.fewest) {
            let trimmed = after.counts.trimmed - before.counts.trimmed;
            assert!(
                all || trimmed <= fewest,
                "{trimmed} freed, {fewest} unneeded"
            );
            assert!(!all || after.counts.retained_buffers == 0);
        }
        let expected = of.free_idle(&mut self.memory, all);
        assert_eq!((freed.buffers, freed.bytes), expected);
    }

    fn get(&mut self, pool: usize, size: usize) {
        self.get_by(pool, size, |pool| pool.get(size));
    }

    /// Takes a buffer of `size` bytes in some way.
    fn get_by(&mut self, pool: usize, size: usize, take: impl FnOnce(&Pool) -> PooledBuf) {
        let pool = pool % 2;
        self.turn_to(pool);
        if !self.pools[pool].handles.is_empty() && self.guards.len() < GUARDS_MAX {
            let guard = self.take(pool, size, take);
            self.guards.push(guard);
        }
    }

    fn take(&mut self, pool: usize, size: usize, take: impl FnOnce(&Pool) -> PooledBuf) -> Guard {
        let of = &mut self.pools[pool];
        let real = take(&of.handles[0]);
        assert!(real.is_empty(), "a new guard is empty");
        let model = of.took(&mut self.memory, &real, size, true);
        Guard { real, model, pool }
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
        self.turn_to(guard.pool);
        drop(guard.real);
        self.pools[guard.pool].returned(&mut self.memory, guard.model);
    }

    /// Spare room before an operation that may grow.
    fn observe(&mut self, at: usize) -> usize {
        self.turn_to(self.guards[at].pool);
        let real = &self.guards[at].real;
        real.capacity() - real.len()
    }

    /// What a guard must have done that had room for `spare` bytes and needed
    /// `additional`, which somebody `asked` for or not.
    fn guard_needed(&mut self, at: usize, additional: usize, asked: bool, spare: usize) {
        let guard = &mut self.guards[at];
        let view = &mut guard.model.view;
        if spare >= additional || self.memory.try_reclaim(view, additional) {
            return;
        }
        let pool = &mut self.pools[guard.pool];
        let needed = view.contents.len() + additional;
        let request = if needed <= CLASS_MAX {
            let expected = match (asked, pool.handles.is_empty()) {
                (true, _) => 0,
                (false, false) => pool.learned.larger_than(view.capacity).min(CLASS_MAX),
                // What an ended pool still learns, nobody can see.
                (false, true) => guard.real.capacity(),
            };
            needed.max(expected)
        } else if guard.model.class == UNCLASSED && !pool.zero_on_return {
            return guard.heap_grew(&mut self.memory, additional);
        } else {
            needed.max(view.capacity * 2)
        };
        pool.counts[guard.model.class].growths += 1;
        let contents = view.contents.clone();
        // Taken before the old one is given back. The real one has its contents
        // already; the model's come from the caller.
        let mut grown = pool.took(&mut self.memory, &guard.real, request, asked);
        grown.view.contents = contents;
        let old = mem::replace(&mut guard.model, grown);
        pool.comes_home(&mut self.memory, old);
    }

    // ---- the comparisons ----

    fn check_memory(&self) {
        let out = self.guards.iter().map(|guard| &guard.model.view);
        let parts = self.parts.iter().map(|part| &part.view);
        let frozen = self.frozen.iter().map(|frozen| &frozen.model.view);
        let classes = self.pools.iter().flat_map(|pool| &pool.classes);
        let idle = classes.flat_map(Class::idle);
        let idle = idle.filter_map(|idle| idle.view.as_ref());
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
        pool.check_calibration(handle.calibration());
        let stats = handle.stats();
        let mut sum = Counts::default();
        let lines = stats.classes.iter().map(|class| class.counts);
        for (class, real) in lines.chain([stats.unclassed]).enumerate() {
            let mut expected = pool.counts[class];
            if let Some(class) = pool.classes.get(class) {
                expected.retained_buffers = class.idle().count() as u64;
                expected.retained_bytes = class.idle().map(|idle| idle.capacity as u64).sum();
            }
            assert_eq!(real, expected, "line {class}");
            assert!(real.retained_buffers <= pool.bounds.max_per_class as u64);
            sum.retained_bytes += real.retained_bytes;
            sum.gets += real.gets;
            sum.adopted += real.adopted;
            sum.returns += real.returns;
            sum.detached += real.detached;
            sum.outstanding += real.outstanding;
            assert_eq!(real.gets, real.hits() + real.misses + real.oversize);
            assert_eq!(
                real.returns + real.prefilled,
                real.hits() + real.trimmed + real.retained_buffers
            );
        }
        let total = stats.total;
        assert_eq!(total.gets, sum.gets);
        assert_eq!(total.outstanding, sum.outstanding);
        // The total itself never shows more than is leased.
        assert_eq!(total.retained_bytes, sum.retained_bytes);
        assert!(sum.retained_bytes <= pool.bounds.retain_bytes as u64);
        assert_eq!(
            sum.gets + sum.adopted,
            sum.returns + total.discards.total() + sum.detached + sum.outstanding
        );
    }
}
