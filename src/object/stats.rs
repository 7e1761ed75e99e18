//! Numbers of what a pool of objects did: counters that are written, a snapshot that is read.
//!
//! Decides nothing. The thread caches count frequent events; the counters here are for the rest.

use super::shared::Discard;
use crate::engine::Levels;
use crate::sync::Counter;
use crate::units::counted;
use std::fmt;

/// Events that are rare enough for all threads to share their counters.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) misses: Counter,
    pub(super) adopted: Counter,
    pub(super) detached: Counter,
    pub(super) prefilled: Counter,
    full: Counter,
    not_kept: Counter,
    panicked: Counter,
    pub(super) panics: Counter,
}

impl Counters {
    pub(super) fn discards(&self, reason: Discard) -> &Counter {
        match reason {
            Discard::Full => &self.full,
            Discard::NotKept => &self.not_kept,
            Discard::Panicked => &self.panicked,
        }
    }

    /// How many objects there are, outstanding and idle, and those that were
    /// [trimmed](ObjectStats::trimmed).
    pub(super) fn alive(&self) -> u64 {
        let came = [&self.misses, &self.adopted, &self.prefilled];
        let went = [&self.detached, &self.full, &self.not_kept, &self.panicked];
        let sum = |counters: &[&Counter]| -> u64 { counters.iter().map(|c| c.get()).sum() };
        // Saturating: while threads are busy, an object's end may be seen and its beginning not.
        sum(&came).saturating_sub(sum(&went))
    }

    pub(super) fn snapshot(&self, levels: Levels) -> ObjectStats {
        let mut stats = ObjectStats {
            gets: 0,
            local_hits: levels.local_hits,
            depot_hits: levels.depot_hits,
            misses: self.misses.get(),
            adopted: self.adopted.get(),
            returns: levels.returns,
            discarded_full: self.full.get(),
            discarded_by_keep: self.not_kept.get(),
            discarded_by_panic: self.panicked.get(),
            detached: self.detached.get(),
            prefilled: self.prefilled.get(),
            trimmed: levels.trimmed,
            panics: self.panics.get(),
            outstanding: 0,
            idle: levels.idle_items as u64,
        };
        stats.gets = stats.hits() + stats.misses;
        let came = stats.gets + stats.adopted;
        let went = stats.returns + stats.discards() + stats.detached;
        // Saturating: as in `alive`.
        stats.outstanding = came.saturating_sub(went);
        stats
    }
}

/// Shows what an [`ObjectPool`](crate::ObjectPool) did and what it has now, from
/// [`ObjectPool::stats`](crate::ObjectPool::stats).
///
/// `outstanding` and `idle` are of the present. All others count events, and never fall. `Display`
/// prints three lines. With the feature `serde` it can be serialized.
///
/// # Sums
///
/// While no thread is inside the pool, these equations hold:
///
/// ```text
/// gets                == local_hits + depot_hits + misses
/// gets + adopted      == returns + discards() + detached + outstanding
/// returns + prefilled == local_hits + depot_hits + trimmed + idle
/// ```
///
/// While threads are busy, a snapshot is not of one moment, so the sums may be off.
///
/// ```
/// use tierpool::ObjectPool;
///
/// let pool = ObjectPool::new(String::new);
/// drop(pool.get());
/// let _held = pool.get();
/// let stats = pool.stats();
/// assert_eq!((stats.gets, stats.misses, stats.local_hits), (2, 1, 1));
/// assert_eq!((stats.returns, stats.outstanding, stats.idle), (1, 1, 0));
/// assert_eq!(
///     stats.to_string(),
///     "2 gets: 1 local hit, 0 depot hits, 1 miss; 0 adopted\n\
///      1 return; 0 discards: 0 full, 0 by keep, 0 by panic; 0 detached\n\
///      1 outstanding, 0 idle; 0 prefilled, 0 trimmed; 0 panics"
/// );
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ObjectStats {
    /// Objects handed out.
    pub gets: u64,
    /// Gets served by the calling thread's cache.
    pub local_hits: u64,
    /// Gets served by the depot.
    pub depot_hits: u64,
    /// Gets for which an object was made.
    pub misses: u64,
    /// Objects taken in by [`ObjectPool::adopt`](crate::ObjectPool::adopt).
    pub adopted: u64,
    /// Objects that came back and were kept.
    pub returns: u64,
    /// Objects that came back and were dropped, since there was no room.
    ///
    /// Either the pool held [`max_idle`](crate::ObjectPoolBuilder::max_idle) objects, or its last
    /// handle was gone.
    pub discarded_full: u64,
    /// Objects that came back and were dropped, since
    /// [`keep`](crate::ObjectPoolBuilder::keep) refused them.
    pub discarded_by_keep: u64,
    /// Objects that came back and were dropped, since [`keep`](crate::ObjectPoolBuilder::keep) or
    /// [`reset`](crate::ObjectPoolBuilder::reset) panicked.
    pub discarded_by_panic: u64,
    /// Objects taken out for good by [`Pooled::detach`](crate::Pooled::detach).
    pub detached: u64,
    /// Objects made ahead of time, for [`keep_idle`](crate::ObjectPoolBuilder::keep_idle).
    pub prefilled: u64,
    /// Idle objects that were dropped: by a trim, by [`ObjectPool::clear`](crate::ObjectPool::clear), or
    /// since another place in the pool was full.
    pub trimmed: u64,
    /// Panics of the program's own code that the pool saw.
    ///
    /// They are of `init`, `keep` and `reset`, and of the `Drop` of objects that the pool dropped.
    pub panics: u64,
    /// Objects in callers' hands now. An object whose guard was forgotten stays one.
    pub outstanding: u64,
    /// Objects that the pool holds now.
    pub idle: u64,
}

impl ObjectStats {
    /// Returns the number of gets that a thread cache or the depot served.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.local_hits.saturating_add(self.depot_hits)
    }

    /// Returns the share of the [gets](Self::gets) that were [hits](Self::hits), from 0 to 1; 0 before
    /// the first get.
    ///
    /// ```
    /// use tierpool::ObjectPool;
    ///
    /// let pool = ObjectPool::new(String::new);
    /// drop(pool.get());
    /// drop(pool.get());
    /// assert_eq!(pool.stats().hit_rate(), 0.5);
    /// ```
    #[must_use]
    pub fn hit_rate(&self) -> f64 {
        match self.gets {
            0 => 0.0,
            gets => self.hits() as f64 / gets as f64,
        }
    }

    /// Returns the number of objects that came back and were dropped, for any reason.
    #[must_use]
    pub fn discards(&self) -> u64 {
        let reasons = [
            self.discarded_full,
            self.discarded_by_keep,
            self.discarded_by_panic,
        ];
        reasons.into_iter().fold(0, u64::saturating_add)
    }

    /// Returns the counts of the period from `earlier`, a snapshot of the same pool, to this one.
    ///
    /// A count of events is the difference, and 0 if `earlier` is above. `outstanding` and `idle` are
    /// those of this one.
    ///
    /// ```
    /// use tierpool::ObjectPool;
    ///
    /// let pool = ObjectPool::new(String::new);
    /// drop(pool.get()); // a miss
    /// let before = pool.stats();
    /// drop(pool.get());
    /// let period = pool.stats().since(&before);
    /// assert_eq!((period.gets, period.misses, period.idle), (1, 0, 1));
    /// ```
    #[must_use]
    pub fn since(&self, earlier: &ObjectStats) -> ObjectStats {
        let since = |count: fn(&ObjectStats) -> u64| count(self).saturating_sub(count(earlier));
        ObjectStats {
            gets: since(|stats| stats.gets),
            local_hits: since(|stats| stats.local_hits),
            depot_hits: since(|stats| stats.depot_hits),
            misses: since(|stats| stats.misses),
            adopted: since(|stats| stats.adopted),
            returns: since(|stats| stats.returns),
            discarded_full: since(|stats| stats.discarded_full),
            discarded_by_keep: since(|stats| stats.discarded_by_keep),
            discarded_by_panic: since(|stats| stats.discarded_by_panic),
            detached: since(|stats| stats.detached),
            prefilled: since(|stats| stats.prefilled),
            trimmed: since(|stats| stats.trimmed),
            panics: since(|stats| stats.panics),
            outstanding: self.outstanding,
            idle: self.idle,
        }
    }
}

impl fmt::Display for ObjectStats {
    /// Prints three lines: of gets, of returns, and of the objects that there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let misses = match self.misses {
            1 => String::from("1 miss"),
            misses => format!("{misses} misses"),
        };
        writeln!(
            f,
            "{}: {}, {}, {misses}; {} adopted",
            counted(self.gets, "get"),
            counted(self.local_hits, "local hit"),
            counted(self.depot_hits, "depot hit"),
            self.adopted
        )?;
        writeln!(
            f,
            "{}; {}: {} full, {} by keep, {} by panic; {} detached",
            counted(self.returns, "return"),
            counted(self.discards(), "discard"),
            self.discarded_full,
            self.discarded_by_keep,
            self.discarded_by_panic,
            self.detached
        )?;
        write!(
            f,
            "{} outstanding, {} idle; {} prefilled, {} trimmed; {}",
            self.outstanding,
            self.idle,
            self.prefilled,
            self.trimmed,
            counted(self.panics, "panic")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(scale: u64) -> ObjectStats {
        ObjectStats {
            gets: scale,
            local_hits: 2 * scale,
            depot_hits: 3 * scale,
            misses: 4 * scale,
            adopted: 5 * scale,
            returns: 6 * scale,
            discarded_full: 7 * scale,
            discarded_by_keep: 8 * scale,
            discarded_by_panic: 9 * scale,
            detached: 10 * scale,
            prefilled: 11 * scale,
            trimmed: 12 * scale,
            panics: 13 * scale,
            outstanding: 14 * scale,
            idle: 15 * scale,
        }
    }

    #[test]
    fn a_period_has_the_difference_of_each_count_of_events() {
        let expected = ObjectStats {
            outstanding: stats(10).outstanding,
            idle: stats(10).idle,
            ..stats(7)
        };
        assert_eq!(stats(10).since(&stats(3)), expected);
        let backwards = stats(3).since(&stats(10));
        assert_eq!((backwards.gets, backwards.idle), (0, 45));
    }

    #[test]
    fn each_number_prints_beside_its_name() {
        assert_eq!(
            stats(1).to_string(),
            "1 get: 2 local hits, 3 depot hits, 4 misses; 5 adopted\n\
             6 returns; 24 discards: 7 full, 8 by keep, 9 by panic; 10 detached\n\
             14 outstanding, 15 idle; 11 prefilled, 12 trimmed; 13 panics"
        );
        let most = ObjectStats {
            discarded_full: u64::MAX,
            ..stats(u64::MAX / 15)
        };
        assert_eq!(most.discards(), u64::MAX);
    }
}
