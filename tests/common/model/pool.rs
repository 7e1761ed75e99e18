//! One pool: the required effect of each get, drop, trim and calibration on it, on any thread.
//!
//! Owns the rules: classes, the drop rule, leases, trims, which thread has which cache, and every
//! counter. Knows nothing of the operations, or of the contents of guards.
//!
//! A parameter `me` is the acting thread.

use super::guard::GuardModel;
use super::learned::{Learned, Next, Saved, class_for_request};
use super::levels::{Allowance, Cache, CacheSet, Depot, Idle, Life, PIECE};
use super::memory::{Memory, View, Zeros};
use super::op::{Bounds, Options};
use bytes::BytesMut;
use std::mem;
use tierpool::{Counts, Pool};

/// The most caches that a reclaim visits.
const VISITS: usize = 16;

/// Why a returned buffer was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    ByClass,
    ByBudget,
}

/// The record that a pool keeps of the reclaims of one class.
#[derive(Debug, Default)]
struct Reclaims {
    /// Why a buffer was refused, if no miss has come since.
    refused: Option<Refused>,
    /// The cache set at which the next reclaim begins, counted from the latest set.
    next: usize,
    /// How many misses to pass without a reclaim.
    skip: usize,
    pause: usize,
    /// How often a thread's share of the class is halved.
    halved: usize,
}

impl Reclaims {
    fn tighten(&mut self) {
        self.halved = (self.halved + 1).min(7);
    }
}

/// The progress of a trim.
#[derive(Debug)]
struct Round {
    /// The cache sets that are yet to be visited, the last one first.
    sets: Vec<usize>,
    /// The next depot: those of the classes, then that of buffers without a class.
    depot: usize,
    freed_any: bool,
}

/// The visible state of a newly acquired buffer.
pub(super) struct Seen<'a> {
    pub(super) address: usize,
    /// `None` if it is frozen already.
    pub(super) buf: Option<&'a BytesMut>,
    /// How many bytes behind the contents may have been written since it was acquired.
    pub(super) behind: usize,
}

impl<'a> Seen<'a> {
    pub(super) fn all(buf: &'a BytesMut) -> Self {
        Seen {
            address: buf.as_ptr().addr(),
            buf: Some(buf),
            behind: 0,
        }
    }

    pub(super) fn contents(bytes: &[u8]) -> Self {
        Seen {
            address: bytes.as_ptr().addr(),
            buf: None,
            behind: 0,
        }
    }
}

/// The purpose for which a buffer is acquired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The user has named its size.
    ByUser,
    /// As `ByUser`, by a call that zeroes a new buffer.
    ForZeros,
    /// A guard appends.
    ToGrow,
}

/// The smallest capacity that a guard grows to.
pub(super) fn least_growth(capacity: usize) -> usize {
    capacity + capacity.div_ceil(2)
}

pub(super) struct OnePool {
    pub(super) handles: Vec<Pool>,
    capacities: &'static [usize],
    pub(super) options: Options,
    pub(super) learned: Learned,
    depots: Vec<Depot>,
    /// In the order in which they were made. None is ever removed.
    sets: Vec<CacheSet>,
    /// One per class, and one for buffers without a class.
    pub(super) counts: Vec<Counts>,
    /// One per class.
    reclaims: Vec<Reclaims>,
    /// The trim that the slow path of a get or a drop has begun.
    round: Option<Round>,
    /// Misses since the last trim that a larger budget would have avoided.
    shortages: usize,
    /// How many shortages make a trim due.
    shortages_limit: usize,
    /// For how many more trims the budget counts as short.
    short: usize,
    /// The fewest idle buffers of each class that `Stats` has shown since the last trim. No trim
    /// frees more.
    pub(super) fewest: Vec<u64>,
    /// Whether a trim has reset `fewest`, and `Stats` was not compared since.
    pub(super) trimmed: bool,
    /// The capacity of all its buffers, outstanding and idle, and its maximum since the peaks were
    /// reset.
    footprint: usize,
    peak: usize,
    /// Whether the present thread has surely taken the slow path, on which it remembers this pool.
    pub(super) is_remembered: bool,
}

impl OnePool {
    /// A pool that begins with the profile of another one, if `saved` is given. `saved` has the
    /// real profile and the modelled one.
    pub(super) fn new(options: &Options, saved: Option<(tierpool::Profile, Saved)>) -> Self {
        let capacities = options.capacities();
        let (profile, saved) = saved.unzip();
        let bounds = Bounds {
            retain_bytes: options.retain_bytes(),
            ..options.bounds
        };
        let pool = Pool::builder()
            .classes(capacities.iter().copied())
            .retain_bytes(bounds.retain_bytes)
            .max_per_class(bounds.max_per_class)
            .thread_cache_bytes(bounds.thread_cache_bytes)
            .trim_interval(None) // the model has no clock
            .calibrate_interval(None)
            .calibrate_after(options.threshold)
            .calibrate_percentile(options.percentile)
            .zero_on_return(options.zero_on_return)
            .reuse_initialised(options.reuse_initialised)
            .compact_below(options.compact_below)
            .profile(profile.unwrap_or_default())
            .build()
            .unwrap();
        let (percentile, threshold) = (options.percentile, options.threshold);
        let depot = |&capacity: &usize| Depot::new(capacity, bounds.thread_cache_bytes);
        OnePool {
            handles: vec![pool],
            capacities,
            options: Options {
                bounds,
                ..options.clone()
            },
            learned: Learned::new(capacities, percentile, threshold, saved.as_ref()),
            depots: capacities.iter().map(depot).collect(),
            sets: Vec::new(),
            counts: vec![Counts::default(); capacities.len() + 1],
            reclaims: capacities.iter().map(|_| Reclaims::default()).collect(),
            round: None,
            shortages: 0,
            shortages_limit: 1,
            short: 0,
            fewest: vec![0; capacities.len()],
            trimmed: false,
            footprint: 0,
            peak: 0,
            is_remembered: false,
        }
    }

    // ---- bytes ----

    /// Counts that a buffer is made, or found to be larger.
    fn grows(&mut self, bytes: usize) {
        self.footprint += bytes;
        self.peak = self.peak.max(self.footprint);
    }

    pub(super) fn reset_peaks(&mut self) {
        if let Some(handle) = self.handles.first() {
            handle.reset_peaks();
            self.peak = self.footprint;
        }
    }

    /// Counts the new capacity of a guard's buffer, which the pool sees now.
    fn sees_capacity(&mut self, guard: &mut GuardModel, capacity: usize) {
        let outstanding = &mut self.counts[guard.class].outstanding_bytes;
        *outstanding = *outstanding - guard.capacity as u64 + capacity as u64;
        self.footprint -= guard.capacity;
        self.grows(capacity);
        guard.capacity = capacity;
    }

    /// Notes that a guard has grown on the heap by itself.
    pub(super) fn grown_on_heap(&mut self, guard: &mut GuardModel) {
        guard.base = 0;
        self.sees_capacity(guard, guard.view.capacity);
    }

    /// Notes that a guard's buffer leaves the pool for good.
    pub(super) fn detached(&mut self, guard: &GuardModel) {
        let counts = &mut self.counts[guard.class];
        counts.outstanding -= 1;
        counts.outstanding_bytes -= guard.capacity as u64;
        counts.detached += 1;
        self.footprint -= guard.capacity;
    }

    /// The index of buffers without a class, in every list by class.
    pub(super) fn unclassed(&self) -> usize {
        self.capacities.len()
    }

    /// The capacity of a new buffer for a request.
    pub(super) fn capacity_for(&self, request: usize) -> usize {
        let class = self.class_for_request(request);
        self.capacities.get(class).copied().unwrap_or(request)
    }

    /// The largest class's capacity.
    pub(super) fn largest(&self) -> usize {
        self.capacities[self.capacities.len() - 1]
    }

    fn class_for_request(&self, request: usize) -> usize {
        class_for_request(self.capacities, request)
    }

    pub(super) fn class_for_capacity(&self, capacity: usize) -> usize {
        let filled = self.capacities.partition_point(|&class| class <= capacity);
        match filled.checked_sub(1) {
            Some(class) if capacity <= self.largest() => class,
            _ => self.unclassed(),
        }
    }

    /// All buffers of a class that the pool holds.
    fn idle_of(&self, class: usize) -> impl Iterator<Item = &Idle> {
        let caches = self
            .sets
            .iter()
            .flat_map(move |set| &set.caches[class].held);
        caches.chain(self.depots[class].idle())
    }

    /// All buffers that the pool holds.
    pub(super) fn idle(&self) -> impl Iterator<Item = &Idle> {
        (0..self.unclassed()).flat_map(|class| self.idle_of(class))
    }

    // ---- threads ----

    /// The cache set of a thread, if it has one.
    fn set_of(&self, me: Life) -> Option<usize> {
        self.sets.iter().position(|set| set.owner == Some(me))
    }

    pub(super) fn has_caches(&self, me: Life) -> bool {
        self.set_of(me).is_some()
    }

    /// The cache set of a thread. A thread without one takes the latest set that an ended thread
    /// has left, or a new one if there is none.
    fn attach(&mut self, me: Life) -> usize {
        self.is_remembered = true;
        self.set_of(me).unwrap_or_else(|| {
            let left = self.sets.iter().rposition(|set| set.owner.is_none());
            let at = left.unwrap_or_else(|| {
                let caches = self.depots.iter().map(|_| Cache::default()).collect();
                let owner = None;
                self.sets.push(CacheSet { owner, caches });
                self.sets.len() - 1
            });
            self.sets[at].owner = Some(me);
            at
        })
    }

    /// Ends a thread: moves its cached buffers to the depots, and leaves its cache set to the next
    /// thread.
    pub(super) fn thread_ends(&mut self, me: Life) {
        if let Some(set) = self.set_of(me) {
            for (cache, depot) in self.sets[set].caches.iter_mut().zip(&mut self.depots) {
                cache.hand_on(depot, cache.held.len());
            }
            self.sets[set].owner = None;
        }
    }

    /// Whether this thread may take buffers of a retired class on the fast path: another thread has
    /// calibrated.
    pub(super) fn caches_retired(&self, me: Life) -> bool {
        self.set_of(me).is_some_and(|set| {
            let mut caches = self.sets[set].caches.iter().enumerate();
            caches.any(|(class, cache)| cache.has_needed() && self.learned.is_retired(class))
        })
    }

    fn cache(&self, me: Life, class: usize) -> Option<&Cache> {
        let set = self.set_of(me)?;
        self.sets[set].caches.get(class)
    }

    /// Moves all buffers of a class in this thread's cache to the depot.
    fn give_up(&mut self, me: Life, class: usize) {
        if let Some(set) = self.set_of(me) {
            let cache = &mut self.sets[set].caches[class];
            cache.hand_on(&mut self.depots[class], cache.held.len());
        }
    }

    // ---- acquire ----

    /// Notes a newly acquired guard for `request` bytes, and compares it with the
    /// expected one.
    ///
    /// It may have contents already, if another guard grew into it.
    pub(super) fn took(
        &mut self,
        memory: &mut Memory,
        me: Life,
        seen: &Seen<'_>,
        request: usize,
        asked: Asked,
    ) -> GuardModel {
        let (for_zeros, asked) = (asked == Asked::ForZeros, asked != Asked::ToGrow);
        let class = self.class_for_request(request);
        let (idle, origin) = match class == self.unclassed() {
            true => (None, None),
            false => self.take_idle(memory, me, class, asked),
        };
        let is_made = idle.is_none();
        let counts = &mut self.counts[class];
        counts.gets += 1;
        counts.outstanding += 1;
        let capacity = match &idle {
            Some(idle) => idle.capacity,
            None if class == self.capacities.len() => {
                counts.oversize += 1;
                request
            }
            None => {
                counts.misses += 1;
                self.capacities[class]
            }
        };
        counts.outstanding_bytes += capacity as u64;
        if is_made {
            self.grows(capacity);
        }
        if let Some(buf) = seen.buf {
            assert_eq!(buf.capacity(), capacity);
        }
        let zeros = match &idle {
            Some(idle) => idle.zeros,
            None if for_zeros => Zeros::all(capacity),
            None => Zeros::default(),
        };
        let view = match (idle.and_then(|idle| idle.view), seen.buf) {
            (Some(view), buf) => {
                let address = memory.address(&view);
                assert_eq!(seen.address, address, "not the expected buffer");
                if let (true, Some(buf)) = (self.options.zero_on_return, buf) {
                    memory.assert_wiped(buf, &view, seen.behind);
                }
                view
            }
            (None, Some(buf)) => memory.seen(buf, 0, false),
            (None, None) => memory.made(seen.address, capacity),
        };
        let view = View {
            contents: Vec::new(),
            ..view
        };
        // Its capacity is unusual, so each return checks it.
        let irregular = self
            .capacities
            .get(class)
            .is_some_and(|&c| c != view.capacity);
        GuardModel {
            base: if irregular { 0 } else { memory.address(&view) },
            capacity: view.capacity,
            view,
            class,
            origin,
            lent: false,
            probed: false,
            most: 0,
            asked,
            cell: None,
            shared: false,
            unseen: false,
            knows: false,
            zeros,
        }
    }

    /// An idle buffer for a request, if there is one, and the thread to whose cache the guard may
    /// return on the fast path.
    fn take_idle(
        &mut self,
        memory: &mut Memory,
        me: Life,
        class: usize,
        asked: bool,
    ) -> (Option<Idle>, Option<Life>) {
        if self.handles.is_empty() {
            return (None, None);
        }
        let retired = self.learned.is_retired(class);
        let has_needed = self.cache(me, class).is_some_and(Cache::has_needed);
        if has_needed && !self.options.zero_on_return && (asked || !retired) {
            self.counts[class].local_hits += 1;
            let set = self.set_of(me).unwrap();
            return (self.sets[set].caches[class].held.pop(), Some(me));
        }
        let set = self.attach(me);
        let idle = self.take_slow(memory, set, class);
        if idle.is_none() {
            self.reserve(class, 1);
        }
        if asked {
            self.learned.note_requests(class, 1);
            self.adopt(me); // an earlier request may have counted
        }
        if self.learned.is_retired(class) {
            // Buffers that came along from the depot go back there.
            self.give_up(me, class);
            return (idle, None);
        }
        (idle, (!self.options.zero_on_return).then_some(me))
    }

    fn take_slow(&mut self, memory: &mut Memory, set: usize, class: usize) -> Option<Idle> {
        if let Some(idle) = self.sets[set].caches[class].held.pop() {
            self.counts[class].local_hits += 1;
            return Some(idle);
        }
        self.trim_if_due(memory);
        let mut found = self.take_from_depot(set, class);
        if found.is_none() && self.reclaim(set, class) {
            found = self.take_from_depot(set, class);
        }
        if found.is_some() {
            self.counts[class].depot_hits += 1;
            return found;
        }
        if let Some(refused) = self.reclaims[class].refused.take() {
            self.reclaims[class].tighten();
            if refused == Refused::ByBudget {
                self.shortages += 1;
            }
        }
        None
    }

    fn take_from_depot(&mut self, set: usize, class: usize) -> Option<Idle> {
        let thread_room = self.lease_of_thread(set, class, usize::MAX);
        let share = self.share(class);
        let cache = &mut self.sets[set].caches[class];
        let depot = &mut self.depots[class];
        // If there is no room for half a magazine, loose buffers come first.
        let room = cache.room.saturating_add(thread_room).min(share);
        if room < depot.magazine.div_ceil(2) {
            if let Some(idle) = depot.loose.pop() {
                return Some(idle);
            }
        }
        let Some(mut magazine) = depot.magazines.pop() else {
            return depot.loose.pop();
        };
        let idle = magazine.pop();
        // Includes room for the acquired buffer: it will come back.
        let more = depot.magazine.min(share).saturating_sub(cache.room);
        cache.room += more.min(thread_room);
        let rest = magazine.split_off(cache.room.min(magazine.len()));
        cache.held = magazine;
        depot.keep_loose(rest);
        idle
    }

    /// How many threads have cache sets.
    fn threads(&self) -> usize {
        self.sets.iter().filter(|set| set.owner.is_some()).count()
    }

    /// How many buffers of a class the acting thread may cache now.
    fn share(&self, at: usize) -> usize {
        let most = self.depots[at].cache_most;
        if self.threads() <= 1 {
            return most;
        }
        let bounds = &self.options.bounds;
        let budget = bounds.retain_bytes / self.capacities[at];
        let share = most.min(bounds.max_per_class).min(budget) >> self.reclaims[at].halved;
        match self.short {
            0 => share,
            // 1: the pool counts buffers without a class as one class.
            _ => share.min(budget / (2 * self.threads() * (self.capacities.len() + 1))),
        }
    }

    /// Moves buffers that threads cache and do not use to the depot, if room is short. Returns
    /// whether there were any.
    fn reclaim(&mut self, set: usize, at: usize) -> bool {
        let bounds = &self.options.bounds;
        let capacity = self.capacities[at];
        let short_of_class = bounds.max_per_class > 0 && self.lease(at, 0, 1) == 0;
        let short_of_bytes = capacity <= bounds.retain_bytes && self.lease(at, capacity, 1) == 0;
        let refused = self.reclaims[at].refused.is_some();
        if self.sets.len() <= 1 || !(refused || short_of_class || short_of_bytes) {
            return false;
        }
        let own = &mut self.sets[set].caches[at];
        own.room = own.held.len();
        let reclaims = &mut self.reclaims[at];
        if reclaims.skip > 0 {
            reclaims.skip -= 1;
            return false;
        }
        let (mut visits, mut moved, mut any) = (0, false, false);
        let depot = &mut self.depots[at];
        for _ in 0..self.sets.len() {
            // The latest set is number 0.
            let set = self.sets.len() - 1 - reclaims.next;
            let cache = &mut self.sets[set].caches[at];
            if cache.room > 0 {
                if visits == VISITS {
                    break;
                }
                visits += 1;
                self.trimmed = true; // its buffers rest from now on
                let room = cache.room;
                for batch in cache.take_idle(false, depot.magazine) {
                    moved = true;
                    depot.keep(batch);
                }
                any |= cache.room < room;
            }
            reclaims.next = (reclaims.next + 1) % self.sets.len();
        }
        if any {
            (reclaims.skip, reclaims.pause) = (0, 0);
            reclaims.tighten();
        } else {
            reclaims.skip = reclaims.pause;
            reclaims.pause = (2 * reclaims.pause + 1).min(63);
        }
        moved
    }

    /// Makes room in the depot's queues for `more` new buffers, and for some later ones.
    fn reserve(&mut self, at: usize, more: usize) {
        let bounds = &self.options.bounds;
        let there = self.counts[at].outstanding as usize + self.idle_of(at).count() + more;
        let most = bounds
            .max_per_class
            .min(bounds.retain_bytes / self.capacities[at]);
        let depot = &mut self.depots[at];
        let ahead = (there * 7).min(4096 * depot.magazine);
        depot.reserve((there + ahead).min(most));
    }

    // ---- release ----

    /// Releases a guard, with its contents.
    pub(super) fn returned(&mut self, memory: &mut Memory, me: Life, guard: GuardModel) {
        if self.handles.is_empty() {
            return self.comes_home(memory, me, guard, false, true);
        }
        let as_it_left = guard.is_as_it_left(memory, me);
        if as_it_left {
            self.returned_as_it_left(memory, me, &guard);
        } else {
            let set = self.attach(me);
            let (used, asked) = (guard.most_used(memory), guard.was_asked_for());
            self.record(memory, me, set, guard.class, used, asked);
        }
        self.comes_home(memory, me, guard, as_it_left, true);
    }

    /// Records a guard that returns to the cache that it came from, unless the pool does not sample
    /// it.
    fn returned_as_it_left(&mut self, memory: &mut Memory, me: Life, guard: &GuardModel) {
        let set = self.set_of(me).expect("it came from there");
        let (used, asked) = (guard.most_used(memory), guard.was_asked_for());
        if self.learned.is_looked_at(set, guard.class) {
            if asked {
                self.learned.note_requests(guard.class, 1);
            }
            return self.record(memory, me, set, guard.class, used, asked);
        }
        assert!(!self.is_due(), "a trim would be seen too late");
        let has_room = self.sets[set].caches[guard.class].has_room();
        self.learned
            .perhaps_record(guard.class, used, asked, !has_room);
        if !self.learned.is_due_for_discards_alone() {
            self.adopt(me);
        }
    }

    /// Records a return, and follows the calibration or trim that the pool does then.
    fn record(
        &mut self,
        memory: &mut Memory,
        me: Life,
        set: usize,
        class: usize,
        used: usize,
        asked: bool,
    ) {
        let next = self.learned.record(set, class, used, asked);
        self.recorded(memory, me, next);
    }

    fn recorded(&mut self, memory: &mut Memory, me: Life, next: Next) {
        let Next { calibrates, looks } = next;
        if !self.learned.is_sure() {
            assert!(!self.is_due(), "a trim would be seen too late");
            if !self.learned.is_due_for_discards_alone() {
                self.adopt(me);
            }
            return;
        }
        if calibrates {
            let retired = self.learned.calibrate();
            self.give_up_all(me, retired);
        }
        if looks {
            self.trim_if_due(memory);
        }
    }

    /// Adopts the pool's learned state, if the model cannot know the recorded returns.
    fn adopt(&mut self, me: Life) {
        if !self.learned.is_sure() {
            let handle = self.handles.first().expect("not ended");
            let retired = self.learned.adopt(handle, false);
            self.give_up_all(me, retired);
        }
    }

    /// Follows a calibration on this thread, if there was one: its next returns are samples, and it
    /// caches none of these classes.
    fn give_up_all(&mut self, me: Life, retired: Option<Vec<usize>>) {
        if let (Some(set), Some(_)) = (self.set_of(me), &retired) {
            self.learned.restart_samples(set);
        }
        for class in retired.into_iter().flatten() {
            self.give_up(me, class);
        }
    }

    /// Notes that a guard has left its buffer to its parts.
    pub(super) fn moved_on(&mut self, left: &GuardModel) {
        self.counts[left.class].growths += 1;
    }

    /// Releases the buffer that a guard has exchanged for a larger one.
    pub(super) fn outgrown(&mut self, memory: &mut Memory, me: Life, guard: GuardModel) {
        self.counts[guard.class].growths += 1;
        if guard.was_asked_for() {
            self.learned.count_request(guard.class);
        }
        let as_it_left = guard.is_as_it_left(memory, me);
        self.comes_home(memory, me, guard, as_it_left, false);
    }

    /// Follows discards by the drop rule. After many, the pool calibrates.
    fn see_many_discarded(&mut self, me: Life) {
        if !self.learned.discard() {
            return;
        }
        let retired = match self.learned.is_sure() {
            true => self.learned.calibrate_if_many_discarded(),
            false => {
                let handle = self.handles.first().expect("not ended");
                self.learned.adopt_if_many_discarded(handle)
            }
        };
        self.give_up_all(me, retired);
    }

    /// Follows an explicit calibration.
    pub(super) fn recalibrated(&mut self, me: Life) {
        let handle = self.handles.first().expect("not ended");
        let retired = self.learned.recalibrated(handle);
        self.give_up_all(me, retired);
    }

    /// Releases a buffer that a guard has given up.
    fn comes_home(
        &mut self,
        memory: &mut Memory,
        me: Life,
        mut guard: GuardModel,
        as_it_left: bool,
        recorded: bool,
    ) {
        let zeros = guard.zeros_at_home(memory, as_it_left, self.options.zero_on_return);
        let whole = guard.make_whole(memory);
        guard.zeros = zeros;
        if let Some(capacity) = whole {
            self.sees_capacity(&mut guard, capacity);
        }
        let counts = &mut self.counts[guard.class];
        counts.outstanding -= 1;
        counts.outstanding_bytes -= guard.capacity as u64;
        let kept = match whole {
            // Kept, with its view of the allocation.
            Some(capacity) => self.keep(me, &guard, capacity, as_it_left, recorded),
            None => {
                self.counts[guard.class].discards.shared += 1;
                false
            }
        };
        if !kept {
            self.footprint -= guard.capacity;
            memory.end(&guard.view);
        }
    }

    /// Keeps a whole buffer, or counts why not.
    fn keep(
        &mut self,
        me: Life,
        guard: &GuardModel,
        capacity: usize,
        as_it_left: bool,
        recorded: bool,
    ) -> bool {
        if self.handles.is_empty() {
            return false;
        }
        let idle = Idle {
            capacity,
            view: Some(View {
                offset: 0,
                capacity,
                ..guard.view.clone()
            }),
            zeros: guard.zeros,
            unneeded: false,
        };
        // To the cache that it came from, whether its class is retired or not.
        if let (true, Some(set)) = (as_it_left, self.set_of(me)) {
            let cache = &mut self.sets[set].caches[guard.class];
            if cache.has_room() {
                cache.held.push(idle);
                self.counts[guard.class].returns += 1;
                return true;
            }
        }
        let would_hold = self.class_for_request(capacity);
        let discards = &mut self.counts[guard.class].discards;
        if would_hold == self.capacities.len() || self.learned.is_retired(would_hold) {
            discards.above_max += 1;
            if recorded && would_hold < self.capacities.len() {
                self.see_many_discarded(me);
            }
            return false;
        }
        let at = self.class_for_capacity(capacity);
        if at == self.unclassed() {
            self.counts[guard.class].discards.below_min += 1;
            return false;
        }
        if capacity == self.capacities[at] {
            let set = self.attach(me);
            let has_room = |pool: &OnePool| pool.sets[set].caches[at].has_room();
            if has_room(self) || self.widen(set, at) || self.flush_full(set, at) {
                self.sets[set].caches[at].held.push(idle);
                self.counts[at].returns += 1;
                return true;
            }
        }
        let mut idle = idle;
        if capacity != self.capacities[at] {
            idle.zeros.initialised = 0;
        }
        if self.lease(at, capacity, 1) == 1 {
            self.depots[at].loose.push(idle);
            self.counts[at].returns += 1;
            return true;
        }
        let bounds = &self.options.bounds;
        let of_class = self.leased(at).0;
        if of_class >= bounds.max_per_class && bounds.max_per_class > 0 {
            self.reclaims[at].refused = Some(Refused::ByClass);
        } else if of_class < bounds.max_per_class && capacity <= bounds.retain_bytes {
            self.reclaims[at].refused = Some(Refused::ByBudget);
        }
        self.counts[at].discards.full += 1;
        false
    }

    /// Doubles the room of a full cache, as far as the limits allow.
    fn widen(&mut self, set: usize, at: usize) -> bool {
        let (room, most) = (self.sets[set].caches[at].room, self.share(at));
        if room >= most {
            return false;
        }
        // Leased first: the room that is given up below goes to the pool, not to this lease.
        let more = self.lease(at, self.capacities[at], room.max(1).min(most - room));
        if more == 0 {
            return false;
        }
        let mut leased = self.lease_of_thread(set, at, more);
        if leased == 0 {
            // Buffers and room that this thread has not needed, of any class, are given up.
            for (cache, depot) in self.sets[set].caches.iter_mut().zip(&mut self.depots) {
                cache.hand_on(depot, cache.unneeded());
            }
            leased = self.lease_of_thread(set, at, more);
        }
        self.sets[set].caches[at].room += leased;
        leased > 0
    }

    /// Moves a magazine of a full cache to the depot, or half of it, and makes room again as far as
    /// the limits allow.
    fn flush_full(&mut self, set: usize, at: usize) -> bool {
        let share = self.share(at);
        let cache = &self.sets[set].caches[at];
        let (held, above) = (cache.held.len(), cache.room.saturating_sub(share));
        if held == 0 {
            return false;
        }
        let magazine = self.depots[at].magazine;
        let out = match held >= magazine {
            true => magazine,
            false => held.div_ceil(2).max(above).min(held),
        };
        let more = self.lease(at, self.capacities[at], out.saturating_sub(above));
        if more == 0 && above == 0 {
            return false;
        }
        let cache = &mut self.sets[set].caches[at];
        let batch = cache.flush(out);
        cache.room += more;
        self.depots[at].keep(batch);
        more > 0
    }

    pub(super) fn prefill(&mut self, request: usize, count: usize) -> usize {
        let at = self.class_for_request(request);
        if at == self.unclassed() {
            return 0;
        }
        let capacity = self.capacities[at];
        self.reserve(at, count);
        let mut made = 0;
        while made < count {
            let batch = self.depots[at].magazine.max(1).min(count - made);
            let leased = self.lease(at, capacity, batch);
            if leased == 0 {
                break;
            }
            let new = || Idle {
                capacity,
                view: None,
                zeros: Zeros::default(),
                unneeded: false,
            };
            self.depots[at].keep((0..leased).map(|_| new()).collect());
            made += leased;
        }
        self.grows(made * capacity);
        self.counts[at].prefilled += made as u64;
        self.learned.prefilled(at, made, count);
        made
    }

    // ---- leases ----

    /// The leases of a class: buffers, and bytes. All room in caches is leased, whether it holds a
    /// buffer or not.
    fn leased(&self, at: usize) -> (usize, usize) {
        let room: usize = self.sets.iter().map(|set| set.caches[at].room).sum();
        let (buffers, bytes) = self.depots[at].leased();
        (room + buffers, room * self.capacities[at] + bytes)
    }

    /// For how many of `count` buffers of a class, each of `capacity` bytes, the budget and the
    /// class have room.
    fn lease(&self, at: usize, capacity: usize, count: usize) -> usize {
        let bounds = &self.options.bounds;
        let all: usize = (0..self.unclassed()).map(|at| self.leased(at).1).sum();
        let of_class = bounds.max_per_class - self.leased(at).0;
        let of_budget = (bounds.retain_bytes - all).checked_div(capacity);
        count.min(of_class).min(of_budget.unwrap_or(count))
    }

    /// For how many of `count` ordinary buffers of a class the caches of one thread have
    /// room.
    fn lease_of_thread(&self, set: usize, at: usize, count: usize) -> usize {
        let caches = self.sets[set].caches.iter().zip(self.capacities);
        let all: usize = caches.map(|(cache, capacity)| cache.room * capacity).sum();
        count.min((self.options.bounds.thread_cache_bytes - all) / self.capacities[at])
    }

    // ---- trims ----

    pub(super) fn is_due(&self) -> bool {
        self.shortages >= self.shortages_limit && !self.handles.is_empty()
    }

    /// As [`may_trim_unseen`](Self::may_trim_unseen), if a miss comes before the next return.
    pub(super) fn may_trim_unseen_after_a_miss(&self) -> bool {
        let due = self.shortages + 1 >= self.shortages_limit && !self.handles.is_empty();
        due && !self.learned.stays_sure()
    }

    /// Whether the model cannot know if the next return continues a trim.
    pub(super) fn may_trim_unseen(&self) -> bool {
        self.is_due() && !self.learned.stays_sure()
    }

    /// Does the piece of a trim that belongs to the slow path of a get or a drop.
    fn trim_if_due(&mut self, memory: &mut Memory) {
        if !self.is_due() {
            return;
        }
        if self.round.is_none() {
            self.begin();
        }
        let mut left = PIECE;
        while !left.is_used_up() {
            if self.free_piece(memory, false, &mut left).is_none() {
                return self.end_round();
            }
        }
    }

    /// Frees the buffers that were not needed, or all idle ones. Returns their number and bytes.
    pub(super) fn free_idle(&mut self, memory: &mut Memory, all: bool) -> (usize, usize) {
        let mut left = Allowance {
            buffers: usize::MAX,
            bytes: usize::MAX,
        };
        let mut freed = (0, 0);
        // A trim in progress begins again, except for the buffer that it has begun to free.
        for at in 0..self.depots.len() {
            let begun = self.depots[at].end_freeing(&mut left);
            let (buffers, bytes) = self.note_freed(memory, at, begun);
            freed = (freed.0 + buffers, freed.1 + bytes);
        }
        self.begin();
        while let Some((buffers, bytes)) = self.free_piece(memory, all, &mut left) {
            freed = (freed.0 + buffers, freed.1 + bytes);
        }
        self.end_round();
        freed
    }

    fn begin(&mut self) {
        self.round = Some(Round {
            sets: (0..self.sets.len()).collect(),
            depot: 0,
            freed_any: false,
        });
    }

    /// Moves one thread's cached buffers to the depots, or frees some of one class's depot.
    fn free_piece(
        &mut self,
        memory: &mut Memory,
        all: bool,
        left: &mut Allowance,
    ) -> Option<(usize, usize)> {
        self.trimmed = true;
        let round = self.round.as_mut().expect("a trim has begun");
        let mut freed: Vec<(usize, Vec<Idle>)> = Vec::new();
        if let Some(set) = round.sets.pop() {
            let mut moved = 0;
            for (at, depot) in self.depots.iter_mut().enumerate() {
                let cache = &mut self.sets[set].caches[at];
                let room = cache.room;
                for batch in cache.take_idle(all, depot.magazine) {
                    moved += batch.len();
                    freed.push((at, depot.keep_unneeded(batch, all, left)));
                }
                round.freed_any |= cache.room < room;
            }
            left.use_up(16 + moved / 64, 0);
        } else {
            if round.depot > self.capacities.len() {
                return None;
            }
            if let Some(depot) = self.depots.get_mut(round.depot) {
                if all {
                    depot.reset_low();
                }
                freed.push((round.depot, depot.free(left)));
                if !left.is_used_up() {
                    depot.reset_low();
                }
            }
            round.depot += usize::from(!left.is_used_up());
            left.use_up(1, 0);
        }
        let (mut buffers, mut bytes) = (0, 0);
        for (at, idle) in freed {
            let more = self.note_freed(memory, at, idle);
            (buffers, bytes) = (buffers + more.0, bytes + more.1);
        }
        if buffers > 0 {
            self.round.as_mut().expect("the trim goes on").freed_any = true;
        }
        Some((buffers, bytes))
    }

    /// Notes the buffers of a class that a trim has freed. Returns their number and bytes.
    fn note_freed(&mut self, memory: &mut Memory, at: usize, freed: Vec<Idle>) -> (usize, usize) {
        self.counts[at].trimmed += freed.len() as u64;
        let buffers = freed.len();
        let bytes = freed.iter().map(|idle| idle.capacity).sum();
        self.footprint -= bytes;
        freed.into_iter().for_each(|idle| idle.end(memory));
        (buffers, bytes)
    }

    /// Ends a trim. Trims become rarer while they free nothing.
    fn end_round(&mut self) {
        let round = self.round.take().expect("a trim has begun");
        self.short = match self.shortages >= self.shortages_limit {
            true => 8,
            false => self.short.saturating_sub(1),
        };
        self.shortages_limit = match round.freed_any {
            true => 8,
            false => (2 * self.shortages_limit).clamp(8, 256),
        };
        self.shortages = 0;
        for reclaims in &mut self.reclaims {
            reclaims.halved = reclaims.halved.saturating_sub(1);
        }
    }

    // ---- the comparisons ----

    pub(super) fn check(&mut self) {
        let Some(handle) = self.handles.first() else {
            return;
        };
        self.learned.check(handle);
        let bounds = &self.options.bounds;
        let stats = handle.stats();
        let mut sum = Counts::default();
        let lines = stats.classes.iter().map(|class| class.counts);
        for (class, real) in lines.chain([stats.unclassed]).enumerate() {
            let mut expected = self.counts[class];
            if class < self.unclassed() {
                expected.retained_buffers = self.idle_of(class).count() as u64;
                let bytes = self.idle_of(class).map(|idle| idle.capacity as u64);
                expected.retained_bytes = bytes.sum();
            }
            assert_eq!(real, expected, "line {class}");
            assert!(real.retained_buffers <= bounds.max_per_class as u64);
            sum.retained_bytes += real.retained_bytes;
            sum.gets += real.gets;
            sum.adopted += real.adopted;
            sum.returns += real.returns;
            sum.detached += real.detached;
            sum.outstanding += real.outstanding;
            sum.outstanding_bytes += real.outstanding_bytes;
            assert_eq!(real.gets, real.hits() + real.misses + real.oversize);
            assert_eq!(
                real.returns + real.prefilled,
                real.hits() + real.trimmed + real.retained_buffers
            );
        }
        let total = stats.total;
        assert_eq!(total.gets, sum.gets);
        assert_eq!(total.outstanding, sum.outstanding);
        assert_eq!(total.outstanding_bytes, sum.outstanding_bytes);
        assert_eq!(total.footprint_bytes(), self.footprint as u64);
        let peaks = stats.peaks;
        assert_eq!(peaks.footprint_bytes, self.peak as u64);
        // The bounds that snapshots have shown.
        let outstanding = total.outstanding_bytes..=peaks.footprint_bytes;
        assert!(outstanding.contains(&peaks.outstanding_bytes));
        let retained = total.retained_bytes..=peaks.footprint_bytes;
        assert!(retained.contains(&peaks.retained_bytes));
        // The total itself never shows more than the leased bytes.
        assert_eq!(total.retained_bytes, sum.retained_bytes);
        assert!(sum.retained_bytes <= bounds.retain_bytes as u64);
        assert_eq!(
            sum.gets + sum.adopted,
            sum.returns + total.discards.total() + sum.detached + sum.outstanding
        );
        // `fewest` restarts at each trim.
        let anew = mem::take(&mut self.trimmed);
        for (fewest, class) in self.fewest.iter_mut().zip(&stats.classes) {
            let now = class.counts.retained_buffers;
            *fewest = if anew { now } else { now.min(*fewest) };
        }
    }

    // ---- guards that were not acquired ----

    /// A guard for a buffer that the pool did not make.
    pub(super) fn adopted(&mut self, view: View) -> GuardModel {
        let class = self.class_for_capacity(view.capacity);
        let capacity = view.capacity;
        let counts = &mut self.counts[class];
        counts.adopted += 1;
        counts.outstanding += 1;
        counts.outstanding_bytes += capacity as u64;
        self.grows(capacity);
        GuardModel {
            view,
            base: 0,
            capacity,
            class,
            origin: None,
            lent: false,
            probed: false,
            most: 0,
            asked: false,
            cell: None,
            shared: false,
            unseen: false,
            knows: false,
            zeros: Zeros::default(),
        }
    }
}
