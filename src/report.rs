//! How snapshots print.
//!
//! Owns the layout of the table. Counts nothing.

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
        if self.limit_bytes > 0 {
            let (waits, refusals) = (counted(self.waits, "get"), Short(self.refusals));
            let limit = Rounded(self.limit_bytes);
            writeln!(
                f,
                "limit {limit} outstanding: {waits} waited, {refusals} refused"
            )?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Levels;
    use crate::explain::tests::quiet;
    use crate::stats::{ClassStats, Counters};

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
        (stats.limit_bytes, stats.waits, stats.refusals) = (1000 << 50, u64::MAX, u64::MAX);
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
