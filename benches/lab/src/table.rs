//! Two columns of numbers, plain buffers and the pool: a table, and the result in words.
//!
//! The words come from the numbers alone.

use crate::median;
use std::fmt::Write as _;

/// A smaller difference is none: 1 %.
const TIE: f64 = 0.01;
/// A difference counts if chance gives as many rounds to one side at most this often.
const CHANCE: f64 = 0.05;

pub struct Row {
    pub name: String,
    pub more_is_better: bool,
    /// A smaller difference is none, in the row's own unit.
    pub least: f64,
    /// NaN if this system does not give the number. So is `pool`.
    pub plain: f64,
    pub pool: f64,
    /// The numbers of each round. Empty if there was one measurement.
    pub rounds: Vec<[f64; 2]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Better,
    Unclear,
    Worse,
}

impl Row {
    /// A row of the medians of its rounds.
    pub fn of_rounds(name: String, more_is_better: bool, rounds: Vec<[f64; 2]>) -> Self {
        let of = |side: usize| median(rounds.iter().map(|round| round[side]));
        Row {
            name,
            more_is_better,
            least: 0.0,
            plain: of(0),
            pool: of(1),
            rounds,
        }
    }

    fn is_known(&self) -> bool {
        !self.plain.is_nan() && !self.pool.is_nan()
    }

    fn is_better(&self, a: f64, b: f64) -> bool {
        if self.more_is_better { a > b } else { a < b }
    }

    /// The rounds in which the pool was better.
    fn ahead(&self) -> usize {
        let ahead = |round: &&[f64; 2]| self.is_better(round[1], round[0]);
        self.rounds.iter().filter(ahead).count()
    }

    fn behind(&self) -> usize {
        let behind = |round: &&[f64; 2]| self.is_better(round[0], round[1]);
        self.rounds.iter().filter(behind).count()
    }

    fn differ(&self) -> bool {
        (self.pool - self.plain).abs() > (TIE * self.plain.abs()).max(self.least)
    }

    fn outcome(&self) -> Outcome {
        let (plain, pool, of) = (self.plain, self.pool, self.rounds.len());
        match () {
            () if !self.differ() => Outcome::Unclear,
            () if self.is_better(pool, plain) && is_clear(self.ahead(), of) => Outcome::Better,
            () if self.is_better(plain, pool) && is_clear(self.behind(), of) => Outcome::Worse,
            () => Outcome::Unclear,
        }
    }
}

/// Whether one side is ahead in more rounds than chance explains. A single measurement is clear.
fn is_clear(ahead: usize, of: usize) -> bool {
    // The share of all ways to toss a coin `of` times that have at least `ahead` heads.
    let (mut ways, mut tail) = (0.5_f64.powi(of as i32), 0.0);
    for heads in 0..=of {
        if heads >= ahead {
            tail += ways;
        }
        ways *= (of - heads) as f64 / (heads + 1) as f64;
    }
    of == 0 || tail <= CHANCE
}

/// The rows that this system has numbers for.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut line = |name: &str, [plain, pool, ratio, ahead]: [&str; 4]| {
        let cells = format!("{plain:>12}{pool:>12}{ratio:>12}{ahead:>14}");
        let _ = writeln!(text, "{name:<34}{cells}");
    };
    line("", ["plain", "pool", "pool/plain", "pool ahead"]);
    for row in rows.iter().filter(|row| row.is_known()) {
        let [plain, pool, ratio] = [row.plain, row.pool, row.pool / row.plain].map(decimal);
        let ahead = match row.rounds.len() {
            0 => "-".into(),
            of => format!("{} of {of}", row.ahead()),
        };
        line(&row.name, [&plain, &pool, &ratio, &ahead]);
    }
    text
}

/// What [`sentences`] calls clear.
pub const CLEAR: &str = "\
A difference is clear if it is above 1 %, and if a coin that is tossed for each round would
favour one side as often in at most 1 of 20 runs.
";

/// A sentence for each row, and one that names the rows that the pool does not win.
pub fn sentences(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows.iter().filter(|row| row.is_known()) {
        let verdict = match row.outcome() {
            Outcome::Better => "the pool wins",
            Outcome::Unclear => "no clear difference",
            Outcome::Worse => "the pool loses",
        };
        let change = 100.0 * (row.pool / row.plain - 1.0);
        let word = if change < 0.0 { "less" } else { "more" };
        let change = match change.abs() {
            percent if percent < 0.5 => "The same with both".into(),
            percent if percent < 100.0 => format!("{percent:.0} % {word} with the pool"),
            _ => format!(
                "{} times as much with the pool",
                decimal(row.pool / row.plain)
            ),
        };
        let ahead = match row.rounds.len() {
            0 => String::new(),
            of => format!(", ahead in {} of {of} rounds", row.ahead()),
        };
        let _ = writeln!(text, "- {}: {verdict}. {change}{ahead}.", row.name);
    }
    text + &not_won(rows) + "\n"
}

/// Three sentences, which name the rows by their outcome.
pub fn outcomes(rows: &[Row]) -> String {
    let kinds = [
        (Outcome::Better, "The pool wins"),
        (Outcome::Unclear, "No clear difference"),
        (Outcome::Worse, "The pool loses"),
    ];
    let mut text = Vec::new();
    for (kind, verdict) in kinds {
        let rows = rows
            .iter()
            .filter(|row| row.is_known() && row.outcome() == kind);
        let names: Vec<String> = rows
            .map(|row| match row.differ() {
                true => format!("{} ({})", row.name, brief(row.pool / row.plain)),
                false => row.name.clone(),
            })
            .collect();
        if !names.is_empty() {
            text.push(format!("{verdict}: {}.", names.join("; ")));
        }
    }
    text.join(" ")
}

/// A sentence that names the rows that the pool does not win.
fn not_won(rows: &[Row]) -> String {
    let not_won = rows
        .iter()
        .filter(|row| row.is_known() && row.outcome() != Outcome::Better);
    let names: Vec<&str> = not_won.map(|row| &*row.name).collect();
    match &names[..] {
        [] => "The pool wins each row.".into(),
        names => format!("Where the pool does not win: {}.", names.join("; ")),
    }
}

/// Three digits.
pub fn brief(value: f64) -> String {
    match value.abs() {
        v if !v.is_finite() => "n/a".into(),
        v if v >= 99.5 => grouped(&format!("{value:.0}")),
        v if v >= 9.95 => format!("{value:.1}"),
        v if v >= 0.995 => format!("{value:.2}"),
        v if v >= 0.0005 => format!("{value:.3}"),
        _ => "0".into(),
    }
}

/// A few digits, whatever the size of the number.
fn decimal(value: f64) -> String {
    match value {
        v if !v.is_finite() => "n/a".into(),
        v if v >= 1000.0 => grouped(&format!("{v:.0}")),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 0.1 => format!("{v:.3}"),
        v => format!("{v:.4}"),
    }
}

/// Commas between the thousands.
fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_rounds_of_five_are_clear_and_four_are_not() {
        assert!(is_clear(5, 5) && !is_clear(4, 5));
        assert!(is_clear(7, 8) && !is_clear(6, 8));
        assert!(is_clear(0, 0) && !is_clear(1, 1));
    }

    #[test]
    fn thousands_have_commas() {
        assert_eq!(decimal(1_234_567.8), "1,234,568");
        assert_eq!(decimal(123.45), "123.5");
        assert_eq!(
            [123.45, 12.345, 0.0123, 0.0].map(brief),
            ["123", "12.3", "0.012", "0"]
        );
    }

    #[test]
    fn a_row_that_the_pool_loses_is_said_to_be_lost() {
        let rows = [
            Row::of_rounds("time".into(), false, vec![[1.0, 2.0]; 5]),
            Row::of_rounds("speed".into(), true, vec![[1.0, 2.0]; 5]),
        ];
        let text = sentences(&rows);
        assert!(text.contains("time: the pool loses"), "{text}");
        assert!(text.contains("speed: the pool wins"), "{text}");
        let change = "2.000 times as much with the pool, ahead in 5 of 5 rounds";
        assert!(text.contains(change), "{text}");
        assert!(text.ends_with("Where the pool does not win: time.\n"));
    }
}
