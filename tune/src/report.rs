//! Chooses the best candidate. Prints all of them as a table, and the best as code.

use crate::replay::{Candidate, Options, Outcome, Requests};
use std::fmt::{self, Write};

/// Half of the bytes requested. Doubling classes and evenly spread sizes waste a third.
pub const WASTE_MAX: f64 = 0.5;
/// 0.1 percentage points: of a million gets, a thousand more misses.
pub const HIT_RATE_SLACK: f64 = 0.001;
/// 20 %: a peak depends on chance. Those of two traces of one shape differed by 14 %.
pub const MEMORY_SLACK: f64 = 1.2;

/// The index of the best candidate. The first candidate is the defaults.
///
/// 1. A candidate is left out if it wastes more than [`WASTE_MAX`], and more than the defaults. A
///    few classes that are far too large for most requests share their buffers. If the budget is
///    short, that alone gives them the highest hit rate.
/// 2. Nearly the highest hit rate: a pool is there to avoid misses.
/// 3. Of these, nearly the least memory. Waste alone would always choose the most classes. But each
///    class keeps its own buffers for its own peak. Above some number of classes, that takes more
///    memory than they save. The number depends on the sizes and on how many buffers are
///    outstanding.
/// 4. Of these, the least waste; then the fewest classes; then the first.
///
/// "Nearly" is measured from the highest or the least, not from one to the next. So the order of
/// the candidates only decides between equals.
pub fn best(candidates: &[Candidate], outcomes: &[Outcome]) -> usize {
    let waste = |index: usize| outcomes[index].waste_rate().unwrap_or(0.0);
    let mut left: Vec<usize> = (0..outcomes.len()).collect();
    left.retain(|&index| waste(index) <= waste(0).max(WASTE_MAX));
    let hit_rate = left.iter().map(|&index| outcomes[index].hit_rate());
    let hit_rate = hit_rate.fold(0.0, f64::max) - HIT_RATE_SLACK;
    left.retain(|&index| outcomes[index].hit_rate() >= hit_rate);
    let memory = left.iter().map(|&index| outcomes[index].memory);
    let memory = memory.min().unwrap_or(0) as f64 * MEMORY_SLACK;
    left.retain(|&index| outcomes[index].memory as f64 <= memory);
    let order = |&index: &usize| (outcomes[index].waste, candidates[index].classes.len());
    left.into_iter().min_by_key(order).unwrap_or(0)
}

/// Everything that is printed.
pub struct Report<'a> {
    pub requests: &'a Requests,
    pub candidates: &'a [Candidate],
    pub outcomes: &'a [Outcome],
    pub best: usize,
    pub gets: u64,
    pub outstanding: usize,
    pub notes: &'a [String],
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = &self.requests.all;
        writeln!(
            f,
            "{}, {} in all, from {} to {}; replayed {}: {} gets, {} outstanding",
            count(all.calls()),
            bytes(self.requests.bytes),
            bytes(self.requests.least as u128),
            bytes(self.requests.most as u128),
            match self.gets / all.calls().max(1) {
                1 => String::from("once"),
                times => format!("{} times", grouped(times, ",")),
            },
            grouped(self.gets, ","),
            self.outstanding
        )?;
        for candidate in self.candidates {
            if let Options::Calibrated(targets) = candidate.options {
                writeln!(
                    f,
                    "calibrated: default_size {}, max_size {}",
                    bytes(targets.default_size as u128),
                    bytes(targets.max_size as u128)
                )?;
            }
        }
        write!(f, "\n{}", self.table())?;
        for note in self.notes {
            writeln!(f, "{note}")?;
        }
        if self.outcomes[self.best].refused > 0 {
            writeln!(
                f,
                "the best one's budget was full: a larger `retain_bytes` gives fewer misses"
            )?;
        }
        let best = &self.candidates[self.best];
        write!(f, "\n{}", code(best, all.calls()))
    }
}

impl Report<'_> {
    fn table(&self) -> String {
        const HEAD: [&str; 10] = [
            "", "classes", "waste", "", "hit rate", "misses", "oversize", "retained", "memory", "",
        ];
        let mut rows = vec![HEAD.map(String::from)];
        for (index, (candidate, outcome)) in self.candidates.iter().zip(self.outcomes).enumerate() {
            rows.push([
                candidate.name.clone(),
                candidate.classes.len().to_string(),
                bytes(outcome.waste),
                match outcome.waste_rate() {
                    Some(rate) => format!("{:.1} %", 100.0 * rate),
                    None => String::from("-"),
                },
                percent_below_100(outcome.hits, outcome.gets),
                grouped(outcome.misses, ","),
                grouped(outcome.oversize, ","),
                bytes(outcome.retained.into()),
                bytes(outcome.memory.into()),
                String::from(if index == self.best { "<- best" } else { "" }),
            ]);
        }
        let widths: [usize; HEAD.len()] = std::array::from_fn(|column| {
            let cells = rows.iter().map(|row| row[column].len());
            cells.max().unwrap_or(0)
        });
        let mut table = String::new();
        for row in &rows {
            let mut line = format!("{:<width$}", row[0], width = widths[0]);
            for (cell, width) in row.iter().zip(widths).skip(1) {
                let _ = write!(line, "  {cell:>width$}"); // a string never fails
            }
            table += line.trim_end();
            table.push('\n');
        }
        table
    }
}

/// The function that makes a pool with this configuration, as rustfmt formats it.
pub fn code(candidate: &Candidate, sizes: u64) -> String {
    /// The longest array or call chain that rustfmt puts on one line.
    const SHORT: usize = 60;
    const LINE: usize = 100;
    let (option, list) = match candidate.options {
        Options::Defaults => (String::new(), None),
        Options::Calibrated(targets) => {
            let max_size = grouped(targets.max_size as u64, "_");
            (format!(".max_size({max_size})"), None)
        }
        Options::Fitted => {
            let classes = candidate.classes.iter();
            let classes: Vec<String> = classes.map(|&class| grouped(class as u64, "_")).collect();
            (format!(".classes([{}])", classes.join(", ")), Some(classes))
        }
    };
    let chain = format!("tierpool::Pool::builder(){option}.build()");
    let array_len = option.len() - ".classes()".len().min(option.len());
    let body = match list {
        _ if chain.len() <= SHORT => format!("    {chain}\n"),
        Some(list) if array_len > SHORT => {
            let mut lines = vec![String::from("            ")];
            for class in list {
                let line = lines.last_mut().expect("there is one from the start");
                if line.len() + class.len() + ", ,".len() > LINE {
                    lines.push(format!("            {class},"));
                } else {
                    let gap = if line.ends_with(',') { " " } else { "" };
                    let _ = write!(line, "{gap}{class},"); // a string never fails
                }
            }
            format!(
                "    tierpool::Pool::builder()\n        .classes([\n{}\n        ])\n        .build()\n",
                lines.join("\n")
            )
        }
        _ => format!("    tierpool::Pool::builder()\n        {option}\n        .build()\n"),
    };
    let what = match candidate.options {
        Options::Defaults => "The default size classes, best for",
        Options::Calibrated(_) => "Size classes calibrated to",
        Options::Fitted => "Size classes fitted to",
    };
    let sizes = count(sizes);
    format!(
        "/// {what} {sizes}.\n\
         fn pool() -> Result<tierpool::Pool, tierpool::ConfigError> {{\n{body}}}\n"
    )
}

/// A number of sizes, in words.
pub fn count(sizes: u64) -> String {
    match sizes {
        1 => String::from("1 size"),
        sizes => format!("{} sizes", grouped(sizes, ",")),
    }
}

/// A number with a separator before each three digits.
fn grouped(number: u64, separator: &str) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text += separator;
        }
        text.push(digit);
    }
    text
}

/// A number of bytes with three digits, in the largest unit that gives 1 or more.
pub fn bytes(number: u128) -> String {
    const UNITS: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];
    let unit = (number.max(1).ilog2() / 10) as usize;
    let unit = unit.min(UNITS.len() - 1);
    let value = number as f64 / 1024_f64.powi(unit as i32);
    // A whole number needs no decimals.
    let decimals = match value {
        _ if value.fract() == 0.0 => 0,
        _ if value < 10.0 => 2,
        _ if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// A share in percent, with two decimals, rounded down: 100 % only if it is all.
fn percent_below_100(part: u64, all: u64) -> String {
    let hundredths = u128::from(part) * 10_000 / u128::from(all.max(1));
    format!("{}.{:02} %", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tierpool::Histogram;

    fn candidate(options: Options, classes: &[usize]) -> Candidate {
        Candidate {
            name: String::from("one"),
            options,
            classes: classes.to_vec(),
        }
    }

    /// Chooses among rows of a number of classes, waste in % of the bytes requested, hits of 10,000
    /// gets, and memory.
    fn choose(rows: &[(usize, u128, u64, u64)]) -> usize {
        let all = 0..100;
        let classes: Vec<usize> = all.map(|class| 64 << (class % 8)).collect();
        let candidates = rows
            .iter()
            .map(|row| candidate(Options::Fitted, &classes[..row.0]));
        let outcomes = rows.iter().map(|&(_, waste, hits, memory)| Outcome {
            gets: 10_000,
            hits,
            requested: 1000,
            waste: waste * 10,
            memory,
            ..Outcome::default()
        });
        best(
            &candidates.collect::<Vec<_>>(),
            &outcomes.collect::<Vec<_>>(),
        )
    }

    #[test]
    fn a_hit_rate_lower_by_more_than_a_tenth_of_a_percentage_point_is_not_the_best() {
        assert_eq!(choose(&[(8, 40, 9990, 1000), (4, 10, 9979, 100)]), 0);
        assert_eq!(choose(&[(8, 40, 9990, 1000), (4, 10, 9980, 100)]), 1);
    }

    #[test]
    fn more_memory_by_more_than_a_fifth_is_not_the_best() {
        assert_eq!(choose(&[(8, 40, 9990, 1000), (12, 10, 9990, 1201)]), 0);
        assert_eq!(choose(&[(8, 40, 9990, 1000), (12, 10, 9990, 1200)]), 1);
    }

    #[test]
    fn hits_bought_with_far_too_large_buffers_do_not_count() {
        assert_eq!(choose(&[(8, 40, 9000, 1000), (2, 51, 9990, 1000)]), 0);
        assert_eq!(choose(&[(8, 40, 9000, 1000), (2, 50, 9990, 1000)]), 1);
        // The defaults waste more, so this much is allowed.
        assert_eq!(choose(&[(8, 60, 9000, 1000), (2, 60, 9990, 1000)]), 1);
        assert_eq!(choose(&[(8, 60, 9000, 1000), (2, 61, 9990, 1000)]), 0);
    }

    #[test]
    fn with_equal_waste_the_fewest_classes_are_the_best_and_then_the_first() {
        let (eight, four) = ((8, 20, 9990, 1000), (4, 20, 9990, 1000));
        assert_eq!(choose(&[eight, four]), 1);
        assert_eq!(choose(&[four, four, eight]), 0);
    }

    #[test]
    fn a_trace_of_zeros_has_a_best_candidate() {
        assert_eq!(choose(&[(8, 0, 0, 0), (4, 0, 0, 0)]), 1);
    }

    // tests/cli.rs compiles and calls the same files, so the printed code compiles.
    #[test]
    fn the_printed_code_equals_the_code_that_the_tests_compile() {
        let defaults = candidate(Options::Defaults, &[512, 1024]);
        assert_eq!(
            code(&defaults, 1),
            include_str!("../tests/code/defaults.rs")
        );
        let sizes = [(3000, 90), (10_000, 10)].into_iter();
        let mut histogram = Histogram::new();
        sizes.for_each(|(size, calls)| histogram.record_many(size, calls));
        let targets = histogram.targets(0.95).expect("something is recorded");
        assert_eq!((targets.default_size, targets.max_size), (4096, 16_384));
        let calibrated = candidate(Options::Calibrated(targets), &[512, 16_384]);
        let expected = include_str!("../tests/code/calibrated.rs");
        assert_eq!(code(&calibrated, 1000), expected);
        let one = candidate(Options::Fitted, &[700]);
        assert_eq!(
            code(&one, 12_345_678),
            include_str!("../tests/code/fitted_one.rs")
        );
        let few = candidate(Options::Fitted, &[659, 15_872, 17_408, 18_022]);
        assert_eq!(code(&few, 20), include_str!("../tests/code/fitted_few.rs"));
        let many: Vec<usize> = (1..=32).map(|n| n * n * 1000).collect();
        let many = candidate(Options::Fitted, &many);
        assert_eq!(
            code(&many, 20),
            include_str!("../tests/code/fitted_many.rs")
        );
    }

    #[test]
    fn a_number_of_bytes_has_three_digits() {
        let expected = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1500, "1.46 KiB"),
            (15_000, "14.6 KiB"),
            (1_000_000, "977 KiB"),
            (64 << 20, "64 MiB"),
            (u64::MAX as u128, "16 EiB"),
            (u128::MAX, "281474976710656 YiB"),
        ];
        for (number, text) in expected {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn a_hit_rate_is_rounded_down() {
        assert_eq!(percent_below_100(999_999, 1_000_000), "99.99 %");
        assert_eq!(percent_below_100(7, 7), "100.00 %");
        assert_eq!(percent_below_100(u64::MAX - 1, u64::MAX), "99.99 %");
    }

    #[test]
    fn digits_are_grouped_by_three_from_the_right() {
        assert_eq!(grouped(0, ","), "0");
        assert_eq!(grouped(999, ","), "999");
        assert_eq!(grouped(1000, "_"), "1_000");
        assert_eq!(grouped(1_234_567, ","), "1,234,567");
    }
}
