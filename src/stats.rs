//! Numbers of what the pool did: counters that are written, snapshots that are read.
//!
//! Decides nothing; the calibrator asks for a few. The thread caches count frequent events, without
//! shared writes; the counters here are for the rest.

use crate::engine::Levels;
use crate::sync::{AtomicUsize, Counter, Ordering};
use std::fmt;

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

/// A pool's event counts and its present buffers, from [`Pool::stats`](crate::Pool::stats).
///
/// While no thread is inside the pool, these hold: the first and the last in every
/// [`Counts`], the second in the total (a guard may be taken in one class and,
/// having grown behind `DerefMut`, be returned to another):
///
/// ```text
/// gets           == local_hits + depot_hits + misses + oversize
/// gets + adopted == returns + discards + detached + outstanding
/// returns + prefilled == local_hits + depot_hits + trimmed + retained_buffers
/// ```
///
/// A snapshot taken while threads are busy is not of one moment: an event may be counted in one
/// place and not yet in another. So the sums may be off, and `outstanding` and `outstanding_bytes`
/// with them. No count of events ever falls, and the total's `retained_bytes` is never above the
/// budget. The total's [`footprint_bytes`](Counts::footprint_bytes) is exact at any moment.
///
/// `Display` prints an aligned table, with a column of bytes beside the outstanding buffers and one
/// beside the retained ones.
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
#[non_exhaustive]
pub struct Stats {
    /// One entry per size class, ascending.
    pub classes: Vec<ClassStats>,
    /// Buffers of no size class: oversize ones, and adopted ones below the smallest class.
    pub unclassed: Counts,
    /// The sum of all of these.
    pub total: Counts,
    /// The most bytes since [`Pool::reset_peaks`](crate::Pool::reset_peaks), or since the
    /// pool was made.
    pub peaks: Peaks,
    /// How often the pool has chosen its [targets](crate::Pool::targets).
    pub calibrations: u64,
}

/// The most bytes that a pool had since [`Pool::reset_peaks`](crate::Pool::reset_peaks), or
/// since it was made.
///
/// The three need not be of the same moment. `footprint_bytes` is counted when a buffer is
/// made, so it misses nothing. To count the other two at each moment would slow down every
/// get and drop; so they are the most that [`Pool::stats`](crate::Pool::stats) has shown:
/// call it as often as you want to know. Neither is ever above `footprint_bytes`.
///
/// ```
/// use tierpool::Pool;
///
/// let pool = Pool::default();
/// drop((pool.get(4096), pool.get(4096)));
/// pool.reset_peaks();
/// let _one = pool.get(4096);
/// let peaks = pool.stats().peaks;
/// assert_eq!((peaks.footprint_bytes, peaks.outstanding_bytes), (8192, 4096));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peaks {
    /// The most that was outstanding and retained together, in bytes.
    ///
    /// Exact: never too low. If other threads make buffers or call `stats` while the peaks
    /// are reset, it may begin with the footprint of just before.
    pub footprint_bytes: u64,
    /// The most outstanding bytes that a snapshot has shown, this one included.
    pub outstanding_bytes: u64,
    /// The most retained bytes that a snapshot has shown, this one included.
    pub retained_bytes: u64,
}

/// The counts of one size class.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassStats {
    /// The class's capacity in bytes.
    pub capacity: usize,
    /// How many idle buffers of it no trim frees, as
    /// [`Builder::keep_idle`](crate::Builder::keep_idle) has set it.
    pub keep_idle: usize,
    /// The events in it.
    pub counts: Counts,
}

/// Events since the pool was made, and the present buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Buffers handed out, those that a guard took to [grow](Counts::growths) included.
    pub gets: u64,
    /// Gets served by the calling thread's cache.
    pub local_hits: u64,
    /// Gets served by the depot.
    pub depot_hits: u64,
    /// Gets served by the heap although a size class holds the request.
    pub misses: u64,
    /// Gets above the largest size class, served by the heap.
    pub oversize: u64,
    /// Guards that outgrew their buffer, or left it to the parts that were cut from it: each is one
    /// get and one return (or discard) more. (A move of contents that was asked for, by
    /// `shrink_to_fit`, `freeze_compact` or `split_off`, is a get like any other.)
    pub growths: u64,
    /// Foreign buffers taken in by [`Pool::adopt`](crate::Pool::adopt).
    pub adopted: u64,
    /// Buffers that came back and were kept.
    pub returns: u64,
    /// Buffers that came back and were freed.
    pub discards: Discards,
    /// Buffers that left by [`PooledBuf::detach`](crate::PooledBuf::detach).
    pub detached: u64,
    /// Buffers made ahead of time: by [`Pool::prefill`](crate::Pool::prefill), and at the
    /// start for [`Builder::keep_idle`](crate::Builder::keep_idle).
    pub prefilled: u64,
    /// Idle buffers that were freed: by [`Pool::trim`](crate::Pool::trim), by
    /// [`Pool::clear`](crate::Pool::clear), by time, to make room, or because the heap was out of
    /// memory.
    pub trimmed: u64,
    /// Buffers in callers' hands now; a buffer whose guard or part was forgotten stays one.
    pub outstanding: u64,
    /// The capacity of these, in bytes: oversize, adopted and shared ones included.
    ///
    /// A buffer counts with the capacity that the pool knows. Growth that the pool does not see, by
    /// methods of `BytesMut` behind [`DerefMut`](std::ops::DerefMut), counts when the buffer comes
    /// home. A `BytesMut` that was split off counts with its guard, until the guard ends.
    pub outstanding_bytes: u64,
    /// Idle buffers that the pool holds now.
    pub retained_buffers: u64,
    /// The capacity of these, in bytes.
    pub retained_bytes: u64,
}

/// Returned buffers that were freed, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Discards {
    /// The capacity was above the largest size class: oversize, or grown past it. Or it
    /// was above the [calibration](crate::Pool::targets)'s `max_size`, and of a size that
    /// is not asked for.
    pub above_max: u64,
    /// The capacity was below the smallest size class.
    pub below_min: u64,
    /// A `BytesMut` that was split off it is still in use elsewhere, or there was no memory to
    /// find out whether one is.
    pub shared: u64,
    /// There was no room: the pool held as much as it may, in all or of the class, or
    /// there was no memory for its own queues.
    pub full: u64,
}

impl Discards {
    /// All reasons together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.above_max + self.below_min + self.shared + self.full
    }
}

impl Counts {
    /// Gets served without the heap, by a thread cache or the depot.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.local_hits + self.depot_hits
    }

    /// [`hits`](Self::hits) over [`gets`](Self::gets), from 0 to 1; 0 before the first get.
    #[must_use]
    pub fn hit_rate(&self) -> f64 {
        match self.gets {
            0 => 0.0,
            gets => self.hits() as f64 / gets as f64,
        }
    }

    /// The outstanding and the retained bytes together.
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
            calibrations: 0,
        }
    }
}

impl fmt::Display for Stats {
    /// Prints one line per size class that was used, then the sum.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Each `bytes` is of the column before it.
        const HEAD: [&str; 17] = [
            "class", "gets", "local", "depot", "miss", "oversize", "growths", "adopted", "returns",
            "discards", "detached", "prefill", "trimmed", "outst.", "bytes", "retained", "bytes",
        ];
        let row = |name: String, counts: &Counts| -> [String; HEAD.len()] {
            [
                name,
                counts.gets.to_string(),
                counts.local_hits.to_string(),
                counts.depot_hits.to_string(),
                counts.misses.to_string(),
                counts.oversize.to_string(),
                counts.growths.to_string(),
                counts.adopted.to_string(),
                counts.returns.to_string(),
                counts.discards.total().to_string(),
                counts.detached.to_string(),
                counts.prefilled.to_string(),
                counts.trimmed.to_string(),
                counts.outstanding.to_string(),
                counts.outstanding_bytes.to_string(),
                counts.retained_buffers.to_string(),
                counts.retained_bytes.to_string(),
            ]
        };
        let mut rows = vec![HEAD.map(String::from)];
        for class in &self.classes {
            if class.counts != Counts::default() {
                rows.push(row(class.capacity.to_string(), &class.counts));
            }
        }
        if self.unclassed != Counts::default() {
            rows.push(row(String::from("none"), &self.unclassed));
        }
        rows.push(row(String::from("total"), &self.total));
        let widths: [usize; HEAD.len()] = std::array::from_fn(|column| {
            let cells = rows.iter().map(|row| row[column].len());
            cells.max().unwrap_or(0)
        });
        for row in &rows {
            for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
                let gap = if column == 0 { "" } else { "  " };
                write!(f, "{gap}{cell:>width$}")?;
            }
            writeln!(f)?;
        }
        let Discards {
            above_max,
            below_min,
            shared,
            full,
        } = self.total.discards;
        write!(
            f,
            "hit rate {:.2} %; discards: {above_max} above max, {below_min} below min, \
             {shared} shared, {full} full\n\
             footprint {} bytes, {} at its peak",
            100.0 * self.total.hit_rate(),
            self.total.footprint_bytes(),
            self.peaks.footprint_bytes,
        )
    }
}
