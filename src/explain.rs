//! What stands out in a snapshot, and the option that changes it.
//!
//! Owns the rules of [`Stats::explain`]. Counts nothing.

use crate::stats::{Counts, Stats};
use crate::units::Short;
use std::fmt;

/// One rule of [`Stats::explain`].
struct Rule {
    /// The number that it is about.
    counter: &'static str,
    /// The number as it prints, if it stands out.
    shows: fn(&Stats) -> Option<String>,
    meaning: &'static str,
    remedy: &'static str,
}

/// Of fewer events than these, no share stands out.
const EVENTS_LEAST: u64 = 100;

/// `part` of `all` as it prints, if it is more than `percent` of it.
fn share(part: u64, all: u64, percent: u64) -> Option<String> {
    let is_more = u128::from(part) * 100 > u128::from(all) * u128::from(percent);
    (all >= EVENTS_LEAST && is_more).then(|| {
        let share = 100.0 * part as f64 / all as f64;
        format!("{share:.1} % ({} of {})", Short(part), Short(all))
    })
}

/// Whether the pool may keep a buffer.
fn keeps(stats: &Stats) -> bool {
    stats.budget_bytes > 0
}

/// How many buffers came back.
fn came_back(counts: &Counts) -> u64 {
    counts.returns.saturating_add(counts.discards.total())
}

const RULES: [Rule; 15] = [
    Rule {
        counter: "budget_bytes",
        shows: |stats| (stats.budget_bytes == 0).then(|| String::from("0 B")),
        meaning: "the pool keeps nothing, so each get is an allocation and each drop frees",
        remedy: "raise `Builder::retain_bytes`, unless this is meant",
    },
    Rule {
        counter: "misses",
        shows: |stats| share(stats.total.misses, stats.total.gets, 10).filter(|_| keeps(stats)),
        meaning: "the heap served gets that a size class holds",
        remedy: "compare two snapshots with `Stats::since` to leave out the start; \
                 if it stays, raise `Builder::retain_bytes` or `Builder::trim_interval`, \
                 or keep buffers warm with `Builder::keep_idle`",
    },
    Rule {
        counter: "oversize",
        shows: |stats| share(stats.total.oversize, stats.total.gets, 1),
        meaning: "gets were above the largest size class: each is an allocation",
        remedy: "raise `Builder::max_size`, and `Builder::retain_bytes` with it",
    },
    Rule {
        counter: "growths",
        shows: |stats| share(stats.total.growths, stats.total.gets, 10),
        meaning: "guards outgrew their buffers, or left full ones to their parts, and copied the rest",
        remedy: "pass the size that is needed to `Pool::get`, or call `Pool::get_default`; if parts \
                 are out, take a larger buffer, so that fewer are filled",
    },
    Rule {
        counter: "discards.full",
        shows: |stats| {
            share(stats.total.discards.full, came_back(&stats.total), 1).filter(|_| keeps(stats))
        },
        meaning: "returned buffers found no room in the pool and were freed",
        remedy: "raise `Builder::retain_bytes`; raise `Builder::max_per_class` if that is set",
    },
    Rule {
        counter: "discards.above_max",
        shows: |stats| share(stats.total.discards.above_max, came_back(&stats.total), 5),
        meaning: "returned buffers were larger than what the pool keeps",
        remedy: "raise `Builder::max_size` if they are above it; otherwise ask for that size in \
                 `Pool::get`, or keep all sizes with `Builder::learn_sizes(false)`",
    },
    Rule {
        counter: "discards.below_min",
        shows: |stats| share(stats.total.discards.below_min, came_back(&stats.total), 1),
        meaning: "returned buffers were below the smallest size class",
        remedy: "lower `Builder::min_size`, or adopt no buffers that small",
    },
    Rule {
        counter: "discards.shared",
        shows: |stats| share(stats.total.discards.shared, came_back(&stats.total), 1),
        meaning: "a `BytesMut` that was split off behind `DerefMut` was still in use at the drop",
        remedy: "call the guard's own `split_to`, `split` or `freeze`: their parts bring the \
                 buffer home",
    },
    Rule {
        counter: "detached",
        shows: |stats| share(stats.total.detached, stats.total.gets, 10),
        meaning: "buffers left the pool for good, and the heap has to serve others for them",
        remedy: "use `PooledBuf::freeze` where an owner of bytes is needed, or copy small contents",
    },
    Rule {
        counter: "trimmed",
        shows: |stats| {
            share(stats.total.trimmed, stats.total.gets, 10)
                .filter(|_| share(stats.total.misses, stats.total.gets, 5).is_some())
        },
        meaning: "idle buffers were freed, and the heap made others soon after",
        remedy: "raise `Builder::trim_interval`, or keep buffers warm with `Builder::keep_idle`",
    },
    Rule {
        counter: "outstanding",
        shows: |stats| {
            let total = &stats.total;
            let taken = total.gets.saturating_add(total.adopted);
            let ended = came_back(total).saturating_add(total.detached);
            // Not `outstanding`: in a period, that includes buffers that were taken before it.
            share(taken.saturating_sub(ended), taken, 50)
        },
        meaning: "most buffers that were taken are still out",
        remedy: "look for guards or parts that live too long; a part keeps its whole buffer: copy a \
                 part that is stored (`Pool::copy_from_slice`), or use `PooledBuf::freeze_compact`",
    },
    Rule {
        counter: "waits",
        shows: |stats| share(stats.waits, stats.total.gets, 10),
        meaning: "gets waited until other buffers came home: the limit on outstanding bytes was reached",
        remedy: "raise `Builder::max_outstanding_bytes`, ask for smaller buffers, or drop them earlier",
    },
    Rule {
        counter: "refusals",
        shows: |stats| {
            let asked = stats.total.gets.saturating_add(stats.refusals);
            share(stats.refusals, asked, 1)
        },
        meaning: "the limit on outstanding bytes refused gets",
        remedy: "raise `Builder::max_outstanding_bytes`, or wait with `Pool::get_async` or \
                 `Pool::get_timeout`",
    },
    Rule {
        counter: "retained_bytes",
        shows: |stats| {
            let (idle, budget) = (stats.total.retained_bytes, stats.budget_bytes);
            // Without a budget, nothing is near it.
            share(idle, budget, 90).filter(|_| budget < usize::MAX as u64)
        },
        meaning: "the idle buffers fill the budget, so buffers that return may be freed",
        remedy: "raise `Builder::retain_bytes`; lower `Builder::trim_interval` if they are not used",
    },
    Rule {
        counter: "usage",
        shows: |stats| {
            let usage = &stats.usage;
            share(usage.wasted_bytes(), usage.capacity_bytes, 50)
                .filter(|_| came_back(&stats.total) >= EVENTS_LEAST)
                .map(|_| format!("{:.1} % unused (estimate)", 100.0 * usage.waste()))
        },
        meaning: "most of the capacity that was handed out was not used",
        remedy: "ask for less in `Pool::get`, call `Pool::get_default`, or set `Builder::classes` \
                 to what `SizeClasses::fit` chooses",
    },
];

/// Prints the numbers of a snapshot that stand out, from [`Stats::explain`].
///
/// There are three lines for each: the number, its meaning, and what to do.
#[derive(Clone, Copy, Debug)]
#[must_use = "it says something only where it is printed"]
pub struct Explanation<'a>(&'a Stats);

impl Stats {
    /// Explains the numbers that stand out: what they mean, and which option changes them.
    ///
    /// Print the result. It has three lines for each such number, or one if nothing stands out.
    /// No share stands out of fewer than 100 events. The wording is for people and may change.
    ///
    /// To look at a period and not at all since the start, explain the result of
    /// [`since`](Self::since).
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::builder().max_size(4096).build()?;
    /// assert_eq!(pool.stats().explain().to_string(), "nothing stands out");
    /// for _ in 0..100 {
    ///     drop(pool.get(5000));
    /// }
    /// let text = pool.stats().explain().to_string();
    /// assert!(text.starts_with("oversize: 100.0 % (100 of 100)\n"));
    /// assert!(text.contains("raise `Builder::max_size`"));
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn explain(&self) -> Explanation<'_> {
        Explanation(self)
    }
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explanation(stats) = self;
        let mut gap = "";
        for rule in &RULES {
            if let Some(shown) = (rule.shows)(stats) {
                let (counter, meaning, remedy) = (rule.counter, rule.meaning, rule.remedy);
                write!(
                    f,
                    "{gap}{counter}: {shown}\n  means: {meaning}\n  to do: {remedy}"
                )?;
                gap = "\n";
            }
        }
        match gap {
            "" => f.write_str("nothing stands out"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::stats::{Counters, Usage};
    use std::iter;

    /// A snapshot in which nothing stands out: 1000 gets, and nearly all of them hits.
    pub(crate) fn quiet() -> Stats {
        let mut stats = Stats::collect(iter::empty(), &Counters::default());
        stats.total = Counts {
            gets: 1000,
            local_hits: 950,
            depot_hits: 40,
            misses: 10,
            returns: 995,
            outstanding: 5,
            outstanding_bytes: 5 * 4096,
            retained_buffers: 5,
            retained_bytes: 5 * 4096,
            ..Counts::default()
        };
        stats.budget_bytes = 64 << 20;
        stats.usage.capacity_bytes = 995 * 4096;
        stats.usage.used_bytes = 995 * 3000;
        stats
    }

    /// The counters that are explained.
    fn explained(stats: &Stats) -> Vec<String> {
        let text = stats.explain().to_string();
        let heads = text.lines().filter(|line| !line.starts_with(' '));
        let names = heads.map(|line| line.split(':').next().unwrap_or(line));
        names.map(String::from).collect()
    }

    #[test]
    fn nothing_stands_out_of_a_quiet_pool_nor_of_a_new_one() {
        assert_eq!(explained(&quiet()), ["nothing stands out"]);
        let mut new = quiet();
        new.total = Counts::default();
        new.usage = Usage::default();
        assert_eq!(explained(&new), ["nothing stands out"]);
    }

    #[test]
    fn each_rule_has_a_snapshot_in_which_it_alone_stands_out() {
        type Case = (&'static str, fn(&mut Stats));
        let cases: [Case; RULES.len()] = [
            ("budget_bytes", |stats| {
                // These follow from it, and get no lines of their own.
                stats.budget_bytes = 0;
                (stats.total.local_hits, stats.total.depot_hits) = (0, 0);
                (stats.total.misses, stats.total.discards.full) = (1000, 1000);
                (stats.total.returns, stats.total.retained_buffers) = (0, 0);
                stats.total.retained_bytes = 0;
            }),
            ("misses", |stats| {
                (stats.total.local_hits, stats.total.misses) = (850, 110);
            }),
            ("oversize", |stats| {
                (stats.total.local_hits, stats.total.oversize) = (939, 11);
            }),
            ("growths", |stats| stats.total.growths = 101),
            ("discards.full", |stats| stats.total.discards.full = 11),
            ("discards.above_max", |stats| {
                stats.total.discards.above_max = 60;
            }),
            ("discards.below_min", |stats| {
                stats.total.discards.below_min = 11;
            }),
            ("discards.shared", |stats| stats.total.discards.shared = 11),
            ("detached", |stats| stats.total.detached = 101),
            ("trimmed", |stats| {
                (stats.total.trimmed, stats.total.misses) = (101, 51);
            }),
            ("outstanding", |stats| stats.total.returns = 499),
            ("waits", |stats| stats.waits = 101),
            ("refusals", |stats| stats.refusals = 11),
            ("retained_bytes", |stats| {
                stats.total.retained_bytes = stats.budget_bytes / 100 * 91;
            }),
            ("usage", |stats| stats.usage.used_bytes = 995 * 2000),
        ];
        for (rule, (counter, change)) in RULES.iter().zip(cases) {
            assert_eq!(rule.counter, counter);
            let mut stats = quiet();
            change(&mut stats);
            assert_eq!(explained(&stats), [counter]);
        }
    }

    #[test]
    fn a_share_stands_out_above_its_limit_and_of_enough_events() {
        assert_eq!(share(10, 100, 10), None);
        assert_eq!(share(11, 100, 10).as_deref(), Some("11.0 % (11 of 100)"));
        assert_eq!(share(99, 99, 10), None);
        assert_eq!(share(0, 0, 10), None);
        let all = share(u64::MAX, u64::MAX, 99);
        assert_eq!(all.as_deref(), Some("100.0 % (18446P of 18446P)"));
    }

    #[test]
    fn unused_capacity_of_few_returns_does_not_stand_out() {
        let mut stats = quiet();
        (stats.total.gets, stats.total.local_hits) = (104, 94);
        (stats.total.returns, stats.usage.used_bytes) = (99, 0);
        assert_eq!(explained(&stats), ["nothing stands out"]);
        (stats.total.returns, stats.total.outstanding) = (100, 4);
        assert_eq!(explained(&stats), ["usage"]);
    }

    #[test]
    fn adopted_and_detached_buffers_count_as_taken_and_as_gone() {
        let mut stats = quiet();
        (stats.total.adopted, stats.total.outstanding) = (900, 905);
        assert_eq!(explained(&stats), ["nothing stands out"]);
        (stats.total.adopted, stats.total.outstanding) = (1000, 1005);
        assert_eq!(explained(&stats), ["outstanding"]);
        (stats.total.detached, stats.total.outstanding) = (100, 905);
        assert_eq!(explained(&stats), ["nothing stands out"]);
    }

    #[test]
    fn buffers_that_were_out_before_a_period_do_not_stand_out_in_it() {
        let mut stats = quiet();
        // A hundred thousand connections, each with a buffer.
        (stats.total.outstanding, stats.total.outstanding_bytes) = (100_000, 100_000 * 4096);
        assert_eq!(explained(&stats), ["nothing stands out"]);
    }

    #[test]
    fn what_is_trimmed_and_not_missed_does_not_stand_out() {
        let mut stats = quiet();
        stats.total.trimmed = 900;
        assert_eq!(explained(&stats), ["nothing stands out"]);
    }

    #[test]
    fn idle_buffers_without_a_budget_do_not_stand_out() {
        let mut stats = quiet();
        stats.total.retained_bytes = u64::MAX;
        stats.budget_bytes = usize::MAX as u64;
        assert_eq!(explained(&stats), ["nothing stands out"]);
    }

    #[test]
    fn an_explanation_names_the_number_its_meaning_and_an_option() {
        let mut stats = quiet();
        stats.total.discards.full = 11;
        stats.total.growths = 500;
        assert_eq!(
            stats.explain().to_string(),
            "\
growths: 50.0 % (500 of 1000)
  means: guards outgrew their buffers, or left full ones to their parts, and copied the rest
  to do: pass the size that is needed to `Pool::get`, or call `Pool::get_default`; if parts are out, \
take a larger buffer, so that fewer are filled
discards.full: 1.1 % (11 of 1006)
  means: returned buffers found no room in the pool and were freed
  to do: raise `Builder::retain_bytes`; raise `Builder::max_per_class` if that is set"
        );
    }
}
