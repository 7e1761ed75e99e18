//! Numbers of what the pool did: counters that are written, snapshots that are read.
//!
//! Decides nothing; the calibrator asks for a few. The thread caches count frequent events, without
//! shared writes; the counters here are for the rest. `report` prints the snapshots, and `explain` names what stands out.

use crate::engine::Levels;
use crate::sync::{AtomicUsize, Counter, Ordering};

/// Events of one size class that are rare enough to share their counters.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) misses: Counter,
    pub(crate) oversize: Counter,
    /// Those that the thread caches do not count.
    pub(crate) growths: Counter,
    /// Buffers that were asked for and came back, except those that the thread caches count.
    pub(crate) requests: Counter,
    pub(crate) adopted: Counter,
    pub(crate) detached: Counter,
    pub(crate) prefilled: Counter,
    pub(crate) discards: DiscardCounters,
    /// Buffers that were outstanding in another class and returned to this one.
    pub(crate) moved_in: Counter,
    /// The same, seen from the other class.
    pub(crate) moved_out: Counter,
    /// How many bytes more the buffers of the class have than its capacity, all together,
    /// outstanding and idle; of those of no class, all their bytes.
    pub(crate) above_class: Gauge,
}

impl Counters {
    /// How many buffers have come from outside the class: made, adopted, or grown from another
    /// class.
    pub(crate) fn arrivals(&self) -> u64 {
        let arrivals = [
            &self.misses,
            &self.oversize,
            &self.adopted,
            &self.prefilled,
            &self.moved_in,
        ];
        arrivals.map(Counter::get).into_iter().sum()
    }
}

/// A number that rises and falls.
#[derive(Debug)]
pub(crate) struct Gauge(AtomicUsize);

impl Default for Gauge {
    fn default() -> Self {
        Gauge(AtomicUsize::new(0))
    }
}

impl Gauge {
    pub(crate) fn add(&self, more: usize) {
        // Relaxed, here and below: it orders nothing.
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Subtracts a number that was added before.
    pub(crate) fn subtract(&self, less: usize) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        // Relaxed: read for `Stats`.
        self.0.load(Ordering::Relaxed) as u64
    }
}

/// The capacity of all buffers that a pool has, outstanding and idle, and the most that it
/// was.
// Apart from all that a hit reads: written with each buffer that is made or ends.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Footprint {
    bytes: AtomicUsize,
    /// The most since the last [`reset_peaks`](Self::reset_peaks).
    most: AtomicUsize,
    /// The most that snapshots have shown since then.
    outstanding_shown: AtomicUsize,
    retained_shown: AtomicUsize,
}

impl Default for Footprint {
    fn default() -> Self {
        Footprint {
            bytes: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            outstanding_shown: AtomicUsize::new(0),
            retained_shown: AtomicUsize::new(0),
        }
    }
}

impl Footprint {
    /// Counts that one buffer's capacity goes from `before` to `after`.
    #[inline]
    pub(crate) fn changes(&self, before: usize, after: usize) {
        if after > before {
            self.grows(after - before);
        } else {
            // Relaxed: moves no peak, and orders nothing.
            self.bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    fn grows(&self, more: usize) {
        // SeqCst, both: pairs with the two in `reset_peaks`. There the peak begins anew and
        // then the bytes are read; here the bytes grow and then the peak is read. So either
        // that one sees these bytes, or this one sees the new peak, and raises it.
        let bytes = self.bytes.fetch_add(more, Ordering::SeqCst) + more;
        if self.most.load(Ordering::SeqCst) < bytes {
            // Relaxed: one exchange keeps the higher of two.
            self.most.fetch_max(bytes, Ordering::Relaxed);
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        // Relaxed: read for `Stats`.
        self.bytes.load(Ordering::Relaxed) as u64
    }

    /// Begins all peaks anew.
    pub(crate) fn reset_peaks(&self) {
        // SeqCst, both: see `grows`.
        self.most.store(0, Ordering::SeqCst);
        let bytes = self.bytes.load(Ordering::SeqCst);
        // Relaxed, here and below: one exchange keeps the higher of two.
        self.most.fetch_max(bytes, Ordering::Relaxed);
        self.outstanding_shown.store(0, Ordering::Relaxed);
        self.retained_shown.store(0, Ordering::Relaxed);
    }

    /// The peaks, with those that `total` shows.
    pub(crate) fn peaks(&self, total: &Counts) -> Peaks {
        let raise = |peak: &AtomicUsize, now: u64| {
            let now = now as usize; // as which it was counted
            // Relaxed: as above.
            peak.fetch_max(now, Ordering::Relaxed).max(now) as u64
        };
        Peaks {
            // A buffer that is just being made may be in the one, and not yet in the other.
            footprint_bytes: raise(&self.most, total.footprint_bytes()),
            outstanding_bytes: raise(&self.outstanding_shown, total.outstanding_bytes),
            retained_bytes: raise(&self.retained_shown, total.retained_bytes),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct DiscardCounters {
    above_max: Counter,
    below_min: Counter,
    shared: Counter,
    full: Counter,
}

impl Counters {
    /// How many buffers of the class there are, outstanding and idle, and those
    /// that were [trimmed](Counts::trimmed).
    pub(crate) fn alive(&self) -> u64 {
        let came = [&self.misses, &self.adopted, &self.prefilled, &self.moved_in];
        let discards = &self.discards;
        let went = [
            &self.detached,
            &self.moved_out,
            &discards.above_max,
            &discards.below_min,
            &discards.shared,
            &discards.full,
        ];
        let sum = |counters: &[&Counter]| -> u64 { counters.iter().map(|c| c.get()).sum() };
        // Saturating: while threads are busy, a buffer's end may be seen and its
        // beginning not.
        sum(&came).saturating_sub(sum(&went))
    }
}

/// Why a returned buffer was freed instead of kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discard {
    AboveMax,
    BelowMin,
    Shared,
    Full,
}

impl DiscardCounters {
    pub(crate) fn of(&self, reason: Discard) -> &Counter {
        match reason {
            Discard::AboveMax => &self.above_max,
            Discard::BelowMin => &self.below_min,
            Discard::Shared => &self.shared,
            Discard::Full => &self.full,
        }
    }
}

/// Shows what a pool did and what it has now, from [`Pool::stats`](crate::Pool::stats).
///
/// `Display` prints a table that fits 100 columns. [`explain`](Self::explain) names the numbers
/// that stand out, and what to do. [`since`](Self::since) gives the numbers of a period. With the
/// feature `serde` it can be serialized.
///
/// # Sums
///
/// While no thread is inside the pool, these equations hold:
///
/// ```text
/// gets                == local_hits + depot_hits + misses + oversize
/// gets + adopted      == returns + discards + detached + outstanding
/// returns + prefilled == local_hits + depot_hits + trimmed + retained_buffers
/// ```
///
/// The first and the last hold in every [`Counts`], the second in the total: a guard that grows
/// behind `DerefMut` is taken in one class and returned to another.
///
/// While threads are busy, a snapshot is not of one moment. An event may be counted in one place and
/// not yet in another, so the sums may be off. Three things always hold: no count of events ever
/// falls, the total's `retained_bytes` is never above the budget unless that has just been lowered, and the total's
/// [`footprint_bytes`](Counts::footprint_bytes) is exact.
///
/// ```
/// use tierpool::Pool;
///
/// let pool = Pool::default();
/// let buf = pool.get(3000);
/// assert_eq!((pool.stats().total.misses, pool.stats().total.outstanding), (1, 1));
/// assert_eq!(pool.stats().total.outstanding_bytes, 4096);
/// drop(buf);
/// assert_eq!(pool.stats().total.retained_bytes, 4096);
/// assert_eq!(pool.stats().peaks.footprint_bytes, 4096);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stats {
    /// The size classes, ascending.
    pub classes: Vec<ClassStats>,
    /// The buffers of no size class: those above the largest one, and adopted ones below the smallest.
    pub unclassed: Counts,
    /// The sum of `classes` and `unclassed`.
    pub total: Counts,
    /// The most bytes since [`Pool::reset_peaks`](crate::Pool::reset_peaks), or since the
    /// pool was made.
    pub peaks: Peaks,
    /// How much of the capacity that came back was used: an estimate.
    pub usage: Usage,
    /// The most bytes that the pool retains, as
    /// [`Builder::retain_bytes`](crate::Builder::retain_bytes) has set it.
    pub budget_bytes: u64,
    /// The most bytes that may be outstanding before gets wait, as `Builder::max_outstanding_bytes` has
    /// set it; 0 if there is no limit.
    pub limit_bytes: u64,
    /// How many gets waited for room under the limit.
    pub waits: u64,
    /// How many gets the limit refused: at once, or when they had waited long enough.
    pub refusals: u64,
    /// How often the pool has chosen its [targets](crate::Pool::targets).
    pub calibrations: u64,
}

/// Estimates how much of the capacity that was handed out was used.
///
/// Counts each buffer that came back with its capacity, and with the most bytes that it held while
/// it was out. It is an estimate: of the returns on the fast path, the pool looks at the first ones
/// and then at about one in 64, at random, and each of these counts for those before it. Not counted
/// are buffers that guards outgrew, buffers that are still out, and returns on a thread that is
/// ending. Nor are buffers that a reader of the module `tokio` took when there was nothing to read.
/// A buffer that grew behind `DerefMut` counts with the capacity that it had before.
///
/// Nothing is recorded on the fast path, so this costs nothing there.
///
/// ```
/// use tierpool::Pool;
///
/// let pool = Pool::default();
/// pool.get(4096).extend_from_slice(&[7; 1024]);
/// let usage = pool.stats().usage;
/// assert_eq!((usage.capacity_bytes, usage.used_bytes), (4096, 1024));
/// assert_eq!((usage.wasted_bytes(), usage.waste()), (3072, 0.75));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Usage {
    /// The capacity of the buffers that came back, in bytes.
    pub capacity_bytes: u64,
    /// The bytes of it that were used; at most `capacity_bytes`.
    pub used_bytes: u64,
}

impl Usage {
    /// Returns the bytes of capacity that were not used.
    #[must_use]
    pub fn wasted_bytes(&self) -> u64 {
        self.capacity_bytes.saturating_sub(self.used_bytes)
    }

    /// Returns the share of the capacity that was not used, from 0 to 1; 0 before the first return.
    #[must_use]
    pub fn waste(&self) -> f64 {
        match self.capacity_bytes {
            0 => 0.0,
            capacity => self.wasted_bytes() as f64 / capacity as f64,
        }
    }

    /// The bytes since `earlier`: the differences, and 0 if `earlier` is above.
    fn since(&self, earlier: &Usage) -> Usage {
        let capacity_bytes = self.capacity_bytes.saturating_sub(earlier.capacity_bytes);
        let used_bytes = self.used_bytes.saturating_sub(earlier.used_bytes);
        Usage {
            capacity_bytes,
            // A buffer that grew behind `DerefMut` counts with its capacity before that. In the total,
            // the unused capacity of others hides it.
            used_bytes: used_bytes.min(capacity_bytes),
        }
    }
}

/// Holds the most bytes that a pool had since [`Pool::reset_peaks`](crate::Pool::reset_peaks), or since
/// it was made.
///
/// The three need not be of the same moment. `footprint_bytes` is exact: it is counted when a buffer is
/// made. The other two are the most that any [`Pool::stats`](crate::Pool::stats) has shown, since
/// counting them at each moment would slow down every get and drop. So call `stats` often to follow them.
/// Neither is ever above `footprint_bytes`.
///
/// `Display` prints one line.
///
/// ```
/// use tierpool::Pool;
///
/// let pool = Pool::new();
/// drop((pool.get(4096), pool.get(4096)));
/// pool.reset_peaks();
/// let _one = pool.get(4096);
/// let peaks = pool.stats().peaks;
/// assert_eq!((peaks.footprint_bytes, peaks.outstanding_bytes), (8192, 4096));
/// assert_eq!(
///     peaks.to_string(),
///     "peaks: footprint 8.0 KiB, outstanding 4.0 KiB, retained 4.0 KiB"
/// );
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Peaks {
    /// The most that was outstanding and retained together, in bytes.
    ///
    /// Exact, and never too low. If other threads make buffers or call `stats` while the peaks are reset, it
    /// may begin with the footprint of the moment before.
    pub footprint_bytes: u64,
    /// The most outstanding bytes that a snapshot has shown, this one included.
    pub outstanding_bytes: u64,
    /// The most retained bytes that a snapshot has shown, this one included.
    pub retained_bytes: u64,
}

/// Counts the events and the buffers of one size class.
///
/// ```
/// use tierpool::Pool;
///
/// let pool = Pool::builder().classes([512, 4096]).build()?;
/// drop(pool.get(3000));
/// let stats = pool.stats();
/// assert_eq!((stats.classes[1].capacity, stats.classes[1].counts.misses), (4096, 1));
/// # Ok::<(), tierpool::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ClassStats {
    /// The class's capacity in bytes.
    pub capacity: usize,
    /// The number of idle buffers of it that no trim frees, from
    /// [`Builder::keep_idle`](crate::Builder::keep_idle).
    pub keep_idle: usize,
    /// Its events and its present buffers.
    pub counts: Counts,
}

/// Counts the events since the pool was made, and the buffers that there are now.
///
/// `outstanding` and `retained_buffers`, with their bytes, are of the present. All others are events, and
/// never fall. `Display` prints one line.
///
/// ```
/// use tierpool::Pool;
///
/// let pool = Pool::new();
/// let held = pool.get(4096);
/// drop(pool.get(4096));
/// drop(pool.get(4096));
/// let total = pool.stats().total;
/// assert_eq!((total.gets, total.misses, total.local_hits), (3, 2, 1));
/// assert_eq!((total.returns, total.outstanding, total.retained_buffers), (2, 1, 1));
/// drop(held);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Counts {
    /// Buffers handed out. Includes the buffers that guards took to [grow](Counts::growths).
    pub gets: u64,
    /// Gets served by the calling thread's cache.
    pub local_hits: u64,
    /// Gets served by the depot.
    pub depot_hits: u64,
    /// Gets served by the heap, although a size class holds the request.
    pub misses: u64,
    /// Gets above the largest size class. The heap serves them.
    pub oversize: u64,
    /// Guards that outgrew their buffer, or left it to the parts that were cut from it.
    ///
    /// Each is one more get, and one more return or discard. Growth from one buffer above the largest size
    /// class to another is not counted: the heap does it, perhaps in place. A move of contents by `shrink_to_fit`,
    /// `freeze_compact` or `split_off` is not counted here: it is a get as any other.
    pub growths: u64,
    /// Buffers taken in by [`Pool::adopt`](crate::Pool::adopt).
    pub adopted: u64,
    /// Buffers that came back and were kept.
    pub returns: u64,
    /// Buffers that came back and were freed.
    pub discards: Discards,
    /// Buffers taken out for good by [`PooledBuf::detach`](crate::PooledBuf::detach).
    pub detached: u64,
    /// Buffers made ahead of time, by [`Pool::prefill`](crate::Pool::prefill) and for
    /// [`Builder::keep_idle`](crate::Builder::keep_idle).
    pub prefilled: u64,
    /// Idle buffers that were freed.
    ///
    /// The causes are [`Pool::trim`](crate::Pool::trim), [`Pool::clear`](crate::Pool::clear), a trim by time,
    /// a budget that was short, and a heap without memory.
    pub trimmed: u64,
    /// Buffers in callers' hands now. A buffer whose guard or part was forgotten stays one.
    pub outstanding: u64,
    /// The capacity of the outstanding buffers, in bytes. Includes oversize, adopted and shared ones.
    ///
    /// A buffer counts with the capacity that the pool knows. Growth by methods of `BytesMut` behind
    /// [`DerefMut`](std::ops::DerefMut) counts when the buffer comes home. A `BytesMut` that was split off
    /// counts with its guard, until the guard ends.
    pub outstanding_bytes: u64,
    /// Idle buffers that the pool holds now.
    pub retained_buffers: u64,
    /// The capacity of the idle buffers, in bytes.
    pub retained_bytes: u64,
}

/// Counts the returned buffers that were freed, by reason.
///
/// `Display` prints one line.
///
/// ```
/// use tierpool::Pool;
///
/// let pool = Pool::builder().max_size(4096).build()?;
/// drop(pool.get(5000));
/// let discards = pool.stats().total.discards;
/// assert_eq!(
///     discards.to_string(),
///     "1 discard: 1 above max, 0 below min, 0 shared, 0 full"
/// );
/// # Ok::<(), tierpool::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Discards {
    /// The capacity was above the largest size class: the buffer was oversize, or had grown past it.
    ///
    /// Or the capacity was above the `max_size` of the [targets](crate::Pool::targets), and of a size that no
    /// one asks for.
    pub above_max: u64,
    /// The capacity was below the smallest size class.
    pub below_min: u64,
    /// A `BytesMut` that was split off behind `DerefMut` is still in use.
    ///
    /// Or there was no memory for the check whether one is.
    pub shared: u64,
    /// The pool had no room: its [budget](crate::Builder::retain_bytes) was full, or the class had
    /// [`max_per_class`](crate::Builder::max_per_class) buffers.
    ///
    /// Or there was no memory for the pool's own queues.
    pub full: u64,
}

impl Discards {
    /// Returns the sum of all reasons.
    #[must_use]
    pub fn total(&self) -> u64 {
        // Saturating, as in `hits`: a program may write any numbers.
        let freed = [self.above_max, self.below_min, self.shared, self.full];
        freed.into_iter().fold(0, u64::saturating_add)
    }

    /// Those since `earlier`: the differences, and 0 if `earlier` is above.
    fn since(&self, earlier: &Discards) -> Discards {
        Discards {
            above_max: self.above_max.saturating_sub(earlier.above_max),
            below_min: self.below_min.saturating_sub(earlier.below_min),
            shared: self.shared.saturating_sub(earlier.shared),
            full: self.full.saturating_sub(earlier.full),
        }
    }
}

impl Counts {
    /// Returns the number of gets that a thread cache or the depot served.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.local_hits.saturating_add(self.depot_hits)
    }

    /// Returns the share of the [gets](Self::gets) that were [hits](Self::hits), from 0 to 1; 0 before the
    /// first get.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::new();
    /// drop(pool.get(4096));
    /// drop(pool.get(4096));
    /// assert_eq!(pool.stats().total.hit_rate(), 0.5);
    /// ```
    #[must_use]
    pub fn hit_rate(&self) -> f64 {
        match self.gets {
            0 => 0.0,
            gets => self.hits() as f64 / gets as f64,
        }
    }

    /// Returns the counts of the period from `earlier` to this: see [`Stats::since`].
    ///
    /// A count of events is the difference, and 0 if `earlier` is above. `outstanding`,
    /// `outstanding_bytes`, `retained_buffers` and `retained_bytes` are those of this.
    #[must_use]
    pub fn since(&self, earlier: &Counts) -> Counts {
        Counts {
            gets: self.gets.saturating_sub(earlier.gets),
            local_hits: self.local_hits.saturating_sub(earlier.local_hits),
            depot_hits: self.depot_hits.saturating_sub(earlier.depot_hits),
            misses: self.misses.saturating_sub(earlier.misses),
            oversize: self.oversize.saturating_sub(earlier.oversize),
            growths: self.growths.saturating_sub(earlier.growths),
            adopted: self.adopted.saturating_sub(earlier.adopted),
            returns: self.returns.saturating_sub(earlier.returns),
            discards: self.discards.since(&earlier.discards),
            detached: self.detached.saturating_sub(earlier.detached),
            prefilled: self.prefilled.saturating_sub(earlier.prefilled),
            trimmed: self.trimmed.saturating_sub(earlier.trimmed),
            outstanding: self.outstanding,
            outstanding_bytes: self.outstanding_bytes,
            retained_buffers: self.retained_buffers,
            retained_bytes: self.retained_bytes,
        }
    }

    /// Returns the outstanding and the retained bytes together.
    #[must_use]
    pub fn footprint_bytes(&self) -> u64 {
        self.outstanding_bytes.saturating_add(self.retained_bytes)
    }

    /// `capacity` is the class's; 0 for no class.
    fn of(capacity: usize, counters: &Counters, levels: Levels) -> Self {
        let discards = Discards {
            above_max: counters.discards.above_max.get(),
            below_min: counters.discards.below_min.get(),
            shared: counters.discards.shared.get(),
            full: counters.discards.full.get(),
        };
        let mut counts = Counts {
            gets: 0,
            local_hits: levels.local_hits,
            depot_hits: levels.depot_hits,
            misses: counters.misses.get(),
            oversize: counters.oversize.get(),
            growths: levels.growths + counters.growths.get(),
            adopted: counters.adopted.get(),
            returns: levels.returns,
            discards,
            detached: counters.detached.get(),
            prefilled: counters.prefilled.get(),
            trimmed: levels.trimmed,
            outstanding: 0,
            outstanding_bytes: 0,
            retained_buffers: levels.idle_items as u64,
            retained_bytes: levels.idle_weight as u64,
        };
        counts.gets = counts.hits() + counts.misses + counts.oversize;
        let came = counts.gets + counts.adopted + counters.moved_in.get();
        let went = counts.returns + discards.total() + counts.detached + counters.moved_out.get();
        // Saturating: while threads are busy, a buffer's end may be read here
        // and its beginning not yet.
        counts.outstanding = came.saturating_sub(went);
        let buffers = counts.outstanding.saturating_add(counts.retained_buffers);
        let bytes = buffers.saturating_mul(capacity as u64);
        let bytes = bytes.saturating_add(counters.above_class.get());
        counts.outstanding_bytes = bytes.saturating_sub(counts.retained_bytes);
        counts
    }

    fn add(&mut self, other: &Counts) {
        self.gets += other.gets;
        self.local_hits += other.local_hits;
        self.depot_hits += other.depot_hits;
        self.misses += other.misses;
        self.oversize += other.oversize;
        self.growths += other.growths;
        self.adopted += other.adopted;
        self.returns += other.returns;
        self.discards.above_max += other.discards.above_max;
        self.discards.below_min += other.discards.below_min;
        self.discards.shared += other.discards.shared;
        self.discards.full += other.discards.full;
        self.detached += other.detached;
        self.prefilled += other.prefilled;
        self.trimmed += other.trimmed;
        self.outstanding += other.outstanding;
        self.outstanding_bytes = self
            .outstanding_bytes
            .saturating_add(other.outstanding_bytes);
        self.retained_buffers += other.retained_buffers;
        self.retained_bytes += other.retained_bytes;
    }
}

impl Stats {
    pub(crate) fn collect<'a>(
        classes: impl Iterator<Item = (usize, &'a Counters, Levels, usize)>,
        unclassed: &Counters,
    ) -> Self {
        let classes: Vec<ClassStats> = classes
            .map(|(capacity, counters, levels, keep_idle)| ClassStats {
                capacity,
                keep_idle,
                counts: Counts::of(capacity, counters, levels),
            })
            .collect();
        let unclassed = Counts::of(0, unclassed, Levels::default());
        let mut total = unclassed;
        for class in &classes {
            total.add(&class.counts);
        }
        Stats {
            classes,
            unclassed,
            total,
            peaks: Peaks::default(),
            usage: Usage::default(),
            budget_bytes: 0,
            limit_bytes: 0,
            waits: 0,
            refusals: 0,
            calibrations: 0,
        }
    }

    /// Returns the numbers of the period from an earlier snapshot of the same pool to this one.
    ///
    /// A count of events is the difference. What is there now is as in this snapshot: `outstanding`,
    /// `outstanding_bytes`, `retained_buffers`, `retained_bytes`, `keep_idle`, `budget_bytes`,
    /// `limit_bytes` and all peaks. So of the [sums](Self#sums), only the first one holds for a period.
    ///
    /// No difference is below 0: if `earlier` is the later one, the counts are 0. A size class that
    /// `earlier` does not have counts from the beginning. So the result means nothing if `earlier` is
    /// of another pool.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::default();
    /// drop(pool.get(4096)); // a miss
    /// let before = pool.stats();
    /// drop(pool.get(4096));
    /// let period = pool.stats().since(&before);
    /// assert_eq!((period.total.gets, period.total.misses), (1, 0));
    /// assert_eq!(period.total.hit_rate(), 1.0);
    /// assert_eq!(period.total.retained_buffers, 1); // now
    /// ```
    #[must_use]
    pub fn since(&self, earlier: &Stats) -> Stats {
        let classes = self.classes.iter().map(|class| {
            let same = |other: &&ClassStats| other.capacity == class.capacity;
            let before = earlier.classes.iter().find(same);
            let before = before.map_or(Counts::default(), |class| class.counts);
            ClassStats {
                counts: class.counts.since(&before),
                ..class.clone()
            }
        });
        Stats {
            classes: classes.collect(),
            unclassed: self.unclassed.since(&earlier.unclassed),
            total: self.total.since(&earlier.total),
            peaks: self.peaks,
            usage: self.usage.since(&earlier.usage),
            budget_bytes: self.budget_bytes,
            limit_bytes: self.limit_bytes,
            waits: self.waits.saturating_sub(earlier.waits),
            refusals: self.refusals.saturating_sub(earlier.refusals),
            calibrations: self.calibrations.saturating_sub(earlier.calibrations),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All numbers different: `from`, `from + step` and so on.
    fn counts(from: u64, step: u64) -> Counts {
        let mut numbers = (0..).map(|at| from + at * step);
        let mut next = || numbers.next().expect("it does not end");
        Counts {
            gets: next(),
            local_hits: next(),
            depot_hits: next(),
            misses: next(),
            oversize: next(),
            growths: next(),
            adopted: next(),
            returns: next(),
            discards: Discards {
                above_max: next(),
                below_min: next(),
                shared: next(),
                full: next(),
            },
            detached: next(),
            prefilled: next(),
            trimmed: next(),
            outstanding: next(),
            outstanding_bytes: next(),
            retained_buffers: next(),
            retained_bytes: next(),
        }
    }

    #[test]
    fn a_period_has_the_difference_of_each_count_of_events() {
        let (earlier, now) = (counts(1, 1), counts(1000, 10));
        let expected = Counts {
            outstanding: now.outstanding,
            outstanding_bytes: now.outstanding_bytes,
            retained_buffers: now.retained_buffers,
            retained_bytes: now.retained_bytes,
            ..counts(999, 9)
        };
        assert_eq!(now.since(&earlier), expected);
        let backwards = earlier.since(&now);
        assert_eq!((backwards.gets, backwards.trimmed), (0, 0));
        assert_eq!(backwards.discards, Discards::default());
    }

    #[test]
    fn a_sum_of_lines_has_the_sum_of_each_number() {
        let mut sum = counts(1, 1);
        sum.add(&counts(1000, 10));
        assert_eq!(sum, counts(1001, 11));
    }
}
