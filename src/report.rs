//! How snapshots print, and what stands out in them.
//!
//! Owns the layout of the table and the rules of [`Stats::explain`]. Counts nothing.

use crate::stats::{Counts, Discards, Peaks, Stats};
use crate::units::{Rounded, Short, counted};
use std::fmt;

/// The most characters in a line of the table.
const COLUMNS_MAX: usize = 100;

/// The columns behind the class: a heading, and the number below it.
type Column = (&'static str, fn(&Counts) -> Cell);

/// A number in the table.
enum Cell {
    Count(u64),
    Bytes(u64),
}

impl Cell {
    fn is_zero(&self) -> bool {
        matches!(self, Cell::Count(0) | Cell::Bytes(0))
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Cell::Count(count) => Short(count).fmt(f),
            Cell::Bytes(bytes) => Rounded(bytes).fmt(f),
        }
    }
}

/// What was handed out.
const OUT: [Column; 7] = [
    ("gets", |counts| Cell::Count(counts.gets)),
    ("local", |counts| Cell::Count(counts.local_hits)),
    ("depot", |counts| Cell::Count(counts.depot_hits)),
    ("miss", |counts| Cell::Count(counts.misses)),
    ("oversize", |counts| Cell::Count(counts.oversize)),
    ("growths", |counts| Cell::Count(counts.growths)),
    ("adopted", |counts| Cell::Count(counts.adopted)),
];

/// What came back, and where the buffers are.
const BACK: [Column; 9] = [
    ("returns", |counts| Cell::Count(counts.returns)),
    ("discards", |counts| Cell::Count(counts.discards.total())),
    ("detached", |counts| Cell::Count(counts.detached)),
    ("prefill", |counts| Cell::Count(counts.prefilled)),
    ("trimmed", |counts| Cell::Count(counts.trimmed)),
    ("outst.", |counts| Cell::Count(counts.outstanding)),
    // Of the column before it, here and below.
    ("bytes", |counts| Cell::Bytes(counts.outstanding_bytes)),
    ("idle", |counts| Cell::Count(counts.retained_buffers)),
    ("bytes", |counts| Cell::Bytes(counts.retained_bytes)),
];

impl Stats {
    /// The rows: one for each class that was used, one for no class, and the sum.
    fn rows(&self) -> Vec<(String, &Counts)> {
        let used = |counts: &&Counts| **counts != Counts::default();
        let classes = self.classes.iter().map(|class| {
            let name = match class.capacity {
                bytes @ 0..100_000_000 => bytes.to_string(),
                bytes => Rounded(bytes as u64).to_string(),
            };
            (name, &class.counts)
        });
        let none = (String::from("none"), &self.unclassed);
        let mut rows: Vec<_> = classes.chain([none]).collect();
        rows.retain(|(_, counts)| used(counts));
        rows.push((String::from("total"), &self.total));
        rows
    }

    /// The lines of a table, without columns that are zero in all rows.
    fn table(&self, columns: &[Column]) -> Vec<String> {
        let rows = self.rows();
        let is_empty = |(_, cell): &Column| rows.iter().all(|(_, counts)| cell(counts).is_zero());
        let columns: Vec<&Column> = columns.iter().filter(|column| !is_empty(column)).collect();
        let head = columns.iter().map(|(head, _)| String::from(*head));
        let mut cells = vec![[String::from("class")].into_iter().chain(head).collect()];
        for (name, counts) in rows {
            let numbers = columns.iter().map(|(_, cell)| cell(counts).to_string());
            let row: Vec<String> = [name].into_iter().chain(numbers).collect();
            cells.push(row);
        }
        let width = |column: usize| cells.iter().map(|row| row[column].len()).max();
        let widths: Vec<usize> = (0..=columns.len()).filter_map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths);
            let cells: Vec<String> = cells
                .map(|(cell, &width)| format!("{cell:>width$}"))
                .collect();
            cells.join("  ")
        };
        cells.iter().map(line).collect()
    }
}

impl fmt::Display for Stats {
    /// Prints one line per size class that was used, then the sum, in at most 100 columns.
    ///
    /// Leaves out columns that are zero in all lines. Prints two tables if one would be too wide.
    /// Cuts counts from ten million on to thousands (`k`), millions (`M`) and so on, and rounds bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<Column> = OUT.into_iter().chain(BACK).collect();
        let one = self.table(&all);
        let lines = match one.iter().all(|line| line.len() <= COLUMNS_MAX) {
            true => one,
            false => {
                let gap = [String::new()];
                let (out, back) = (self.table(&OUT), self.table(&BACK));
                out.into_iter().chain(gap).chain(back).collect()
            }
        };
        for line in lines {
            writeln!(f, "{line}")?;
        }
        write!(f, "hit rate {:.2} %", 100.0 * self.total.hit_rate())?;
        if self.usage.capacity_bytes > 0 {
            let waste = 100.0 * self.usage.waste();
            write!(f, "; about {waste:.0} % of the capacity unused")?;
        }
        writeln!(f)?;
        if self.total.discards.total() > 0 {
            writeln!(f, "{}", self.total.discards)?;
        }
        write!(
            f,
            "footprint {}, {} at its peak",
            Rounded(self.total.footprint_bytes()),
            Rounded(self.peaks.footprint_bytes),
        )
    }
}

impl fmt::Display for Counts {
    /// Prints one line, with the bytes rounded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({} local, {} depot, {} missed, {} oversize), {}, {} adopted, {}, {}, {} detached, \
             {} prefilled, {} trimmed, {} outstanding ({}), {} idle ({})",
            counted(self.gets, "get"),
            self.local_hits,
            self.depot_hits,
            self.misses,
            self.oversize,
            counted(self.growths, "growth"),
            self.adopted,
            counted(self.returns, "return"),
            counted(self.discards.total(), "discard"),
            self.detached,
            self.prefilled,
            self.trimmed,
            self.outstanding,
            Rounded(self.outstanding_bytes),
            self.retained_buffers,
            Rounded(self.retained_bytes),
        )
    }
}

impl fmt::Display for Discards {
    /// Prints one line: the sum, and the number for each reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let discards = counted(self.total(), "discard");
        let [above_max, below_min, shared, full] =
            [self.above_max, self.below_min, self.shared, self.full].map(Short);
        write!(
            f,
            "{discards}: {above_max} above max, {below_min} below min, {shared} shared, {full} full"
        )
    }
}

impl fmt::Display for Peaks {
    /// Prints one line, with the bytes rounded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [footprint, outstanding, retained] = [
            self.footprint_bytes,
            self.outstanding_bytes,
            self.retained_bytes,
        ]
        .map(Rounded);
        write!(
            f,
            "peaks: footprint {footprint}, outstanding {outstanding}, retained {retained}"
        )
    }
}

// ---- what stands out ----

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

const RULES: [Rule; 13] = [
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
mod tests {
    use super::*;
    use crate::engine::Levels;
    use crate::stats::{ClassStats, Counters, Usage};
    use std::iter;

    /// A snapshot in which nothing stands out: 1000 gets, and nearly all of them hits.
    fn quiet() -> Stats {
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

    /// All numbers as large as can be.
    fn largest() -> Counts {
        const MOST: u64 = u64::MAX;
        Counts {
            gets: MOST,
            local_hits: MOST,
            depot_hits: MOST,
            misses: MOST,
            oversize: MOST,
            growths: MOST,
            adopted: MOST,
            returns: MOST,
            discards: Discards {
                above_max: MOST,
                below_min: MOST,
                shared: MOST,
                full: MOST,
            },
            detached: MOST,
            prefilled: MOST,
            trimmed: MOST,
            outstanding: MOST,
            // Of all numbers of bytes, these have the most characters.
            outstanding_bytes: 1000 << 50,
            retained_buffers: MOST,
            retained_bytes: 1000 << 50,
        }
    }

    #[test]
    fn the_table_fits_100_columns_whatever_the_numbers() {
        let counters = Counters::default();
        let capacities = [64, 99_999_999, 1000 << 20];
        let classes = capacities.map(|capacity| (capacity, &counters, Levels::default(), 0));
        let mut stats = Stats::collect(classes.into_iter(), &counters);
        for ClassStats { counts, .. } in &mut stats.classes {
            *counts = largest();
        }
        (stats.unclassed, stats.total) = (largest(), largest());
        (stats.budget_bytes, stats.calibrations) = (u64::MAX, u64::MAX);
        stats.usage.capacity_bytes = u64::MAX;
        let text = stats.to_string();
        assert!(text.lines().all(|line| line.len() <= COLUMNS_MAX), "{text}");
        let gap = text.lines().position(str::is_empty);
        assert_eq!(
            gap,
            Some(6),
            "two tables of a head, three classes, none and the sum"
        );
        let (out, rest): (Vec<&str>, Vec<&str>) = {
            let lines: Vec<&str> = text.lines().collect();
            (lines[..6].to_vec(), lines[7..13].to_vec())
        };
        for table in [out, rest] {
            assert!(
                table.iter().all(|line| line.len() == table[0].len()),
                "{text}"
            );
        }
    }

    #[test]
    fn each_part_prints_in_a_line() {
        let stats = quiet();
        assert_eq!(
            stats.total.to_string(),
            "1000 gets (950 local, 40 depot, 10 missed, 0 oversize), 0 growths, 0 adopted, \
             995 returns, 0 discards, 0 detached, 0 prefilled, 0 trimmed, \
             5 outstanding (20.0 KiB), 5 idle (20.0 KiB)"
        );
        let discards = Discards {
            shared: 1,
            ..Discards::default()
        };
        assert_eq!(
            discards.to_string(),
            "1 discard: 0 above max, 0 below min, 1 shared, 0 full"
        );
        let peaks = Peaks {
            footprint_bytes: 1 << 20,
            outstanding_bytes: 1536,
            retained_bytes: 0,
        };
        assert_eq!(
            peaks.to_string(),
            "peaks: footprint 1.0 MiB, outstanding 1.5 KiB, retained 0 B"
        );
    }
}
