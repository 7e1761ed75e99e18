//! Numbers of bytes and times as people read and write them. Prints and parses; decides nothing.

use std::fmt;
use std::time::Duration;

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
/// Units of time, each with its nanoseconds.
const TIMES: [(&str, u64); 6] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("min", 60 * SECOND),
    ("h", 3600 * SECOND),
];
const SECOND: u64 = 1_000_000_000;

/// A number of bytes, to the byte: in the largest unit that divides it, or in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Exact(pub(crate) usize);

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exact(bytes) = *self;
        let unit = match bytes {
            0 => 0,
            bytes => (bytes.trailing_zeros() / 10) as usize,
        };
        match unit {
            0 if bytes == 1 => f.write_str("1 byte"),
            0 => write!(f, "{bytes} bytes"),
            unit => write!(f, "{} {}", bytes >> (10 * unit), UNITS[unit - 1]),
        }
    }
}

/// A time, to the nanosecond: in the largest unit that divides it.
#[cfg(any(feature = "serde", test))]
#[derive(Clone, Copy)]
pub(crate) struct ExactTime(pub(crate) Duration);

#[cfg(any(feature = "serde", test))]
impl fmt::Display for ExactTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0 s");
        }
        let divides = |(_, unit): &&(_, u64)| nanos % u128::from(*unit) == 0;
        let (name, unit) = TIMES.iter().rev().find(divides).unwrap_or(&TIMES[0]);
        write!(f, "{} {name}", nanos / u128::from(*unit))
    }
}

/// Why a text is no number of bytes, or no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// It does not begin with a digit.
    NoNumber,
    /// Something other than a known unit follows the number.
    Unit,
    /// Smaller than the smallest unit, such as half a byte.
    NotWhole,
    TooLarge,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoNumber => "does not begin with a number",
            Self::Unit => "has no known unit",
            Self::NotWhole => "has a fraction of the smallest unit",
            Self::TooLarge => "is too large",
        })
    }
}

/// Reads a number of bytes: `65536`, `64 KiB`, `1.5MiB`. What [`Exact`] prints is read back.
///
/// Units of 1000, such as `KB`, are refused: too many mean 1024 by them.
pub(crate) fn parse_bytes(text: &str) -> Result<usize, Unreadable> {
    let bytes = parse(text, |unit| match unit {
        "" | "B" | "byte" | "bytes" => Some(1),
        unit => {
            let at = UNITS.iter().position(|name| *name == unit)?;
            Some(1 << (10 * (at + 1)))
        }
    })?;
    usize::try_from(bytes).map_err(|_| Unreadable::TooLarge)
}

/// Reads a time: `10 s`, `500ms`, `1.5 min`, or `0.5` for seconds.
pub(crate) fn parse_time(text: &str) -> Result<Duration, Unreadable> {
    let nanos = parse(text, |unit| {
        let unit = if unit.is_empty() { "s" } else { unit };
        let known = TIMES.iter().find(|(name, _)| *name == unit);
        known.map(|(_, nanos)| *nanos)
    })?;
    let seconds = u64::try_from(nanos / u128::from(SECOND)).map_err(|_| Unreadable::TooLarge)?;
    let rest = (nanos % u128::from(SECOND)) as u32; // below 10^9
    Ok(Duration::new(seconds, rest))
}

/// A decimal number times its unit.
fn parse(text: &str, unit: impl FnOnce(&str) -> Option<u64>) -> Result<u128, Unreadable> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, name) = text.split_at(end.unwrap_or(text.len()));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() {
        return Err(Unreadable::NoNumber);
    }
    // "1." and "1.2.3".
    if fraction.is_empty() || fraction.contains('.') {
        return Err(Unreadable::Unit);
    }
    let unit = u128::from(unit(name.trim_start()).ok_or(Unreadable::Unit)?);
    let whole = digits(whole).and_then(|whole| whole.checked_mul(unit));
    // Digits without end never make a whole number of the smallest unit.
    let fraction = fraction.trim_end_matches('0');
    let below = digits(fraction).and_then(|digits| digits.checked_mul(unit));
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).unwrap_or(u32::MAX));
    let below = match (below, scale) {
        (Some(below), Some(scale)) if below % scale == 0 => below / scale,
        _ => return Err(Unreadable::NotWhole),
    };
    let sum = whole.and_then(|whole| whole.checked_add(below));
    sum.ok_or(Unreadable::TooLarge)
}

/// The number that these digits make; 0 if there are none. `None` if it is too large.
fn digits(text: &str) -> Option<u128> {
    text.bytes().try_fold(0_u128, |sum, digit| {
        sum.checked_mul(10)?.checked_add(u128::from(digit - b'0'))
    })
}

/// A number of bytes, rounded to a tenth of its unit: at most 10 characters.
#[derive(Clone, Copy)]
pub(crate) struct Rounded(pub(crate) u64);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rounded(bytes) = *self;
        if bytes < 1024 {
            // By way of a string, here and below, so that a width counts the unit, too.
            return f.pad(&format!("{bytes} B"));
        }
        let mut value = bytes as f64 / 1024.0;
        let mut unit = 0;
        // 1023.95: that is the least to be printed as 1024.0.
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        f.pad(&format!("{value:.1} {}", UNITS[unit]))
    }
}

/// A count in at most 7 characters: exact below ten million, and cut to thousands, millions and so
/// on above.
#[derive(Clone, Copy)]
pub(crate) struct Short(pub(crate) u64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Short(mut count) = *self;
        if count < 10_000_000 {
            return f.pad(&count.to_string());
        }
        let mut units = "kMGTP".chars();
        let mut unit = ' ';
        while count >= 1_000_000 {
            count /= 1000;
            unit = units.next().unwrap_or(unit);
        }
        f.pad(&format!("{count}{unit}"))
    }
}

/// `count` and its noun: `1 buffer`, `2 buffers`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_exact_number_has_a_unit_if_that_divides_it() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1025, "1025 bytes"),
            (1536, "1536 bytes"),
            (48 << 10, "48 KiB"),
            (64 << 20, "64 MiB"),
            (3 << 30, "3 GiB"),
        ] {
            assert_eq!(Exact(bytes).to_string(), text);
        }
        let most = usize::MAX;
        assert_eq!(Exact(most).to_string(), format!("{most} bytes"));
        assert!(!Exact(most - (most >> 1)).to_string().contains("bytes"));
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", Ok(0)),
            ("65536", Ok(65_536)),
            ("64KiB", Ok(64 << 10)),
            (" 64 KiB ", Ok(64 << 10)),
            ("1MiB", Ok(1 << 20)),
            ("1.5 MiB", Ok(3 << 19)),
            ("1.50 MiB", Ok(3 << 19)),
            ("0.5 KiB", Ok(512)),
            ("7 B", Ok(7)),
            ("1 byte", Ok(1)),
            ("1023 bytes", Ok(1023)),
            ("2.0", Ok(2)),
            ("", Err(Unreadable::NoNumber)),
            ("KiB", Err(Unreadable::NoNumber)),
            ("-1", Err(Unreadable::NoNumber)),
            ("+1", Err(Unreadable::NoNumber)),
            (".5 KiB", Err(Unreadable::NoNumber)),
            ("many", Err(Unreadable::NoNumber)),
            ("64 KB", Err(Unreadable::Unit)),
            ("64 kib", Err(Unreadable::Unit)),
            ("64K", Err(Unreadable::Unit)),
            ("1. KiB", Err(Unreadable::Unit)),
            ("1.2.3 KiB", Err(Unreadable::Unit)),
            ("1 KiB 2", Err(Unreadable::Unit)),
            ("1e3", Err(Unreadable::Unit)),
            ("0.3 KiB", Err(Unreadable::NotWhole)),
            ("0.5", Err(Unreadable::NotWhole)),
            ("16777216 EiB", Err(Unreadable::TooLarge)),
            (
                "1000000000000000000000000000000000000000",
                Err(Unreadable::TooLarge),
            ),
            (
                "0.0000000000000000000000000000000000000001 EiB",
                Err(Unreadable::NotWhole),
            ),
        ] {
            assert_eq!(parse_bytes(text), bytes, "{text:?}");
        }
        assert_eq!(parse_bytes(&usize::MAX.to_string()), Ok(usize::MAX));
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, time) in [
            ("0", Ok(Duration::ZERO)),
            ("10", Ok(Duration::from_secs(10))),
            ("0.5", Ok(Duration::from_millis(500))),
            ("10s", Ok(Duration::from_secs(10))),
            ("500 ms", Ok(Duration::from_millis(500))),
            ("1.5 min", Ok(Duration::from_secs(90))),
            ("2 h", Ok(Duration::from_secs(7200))),
            ("250 us", Ok(Duration::from_micros(250))),
            ("1 ns", Ok(Duration::from_nanos(1))),
            ("", Err(Unreadable::NoNumber)),
            ("soon", Err(Unreadable::NoNumber)),
            ("10 m", Err(Unreadable::Unit)),
            ("10 s 5 ms", Err(Unreadable::Unit)),
            ("0.1 ns", Err(Unreadable::NotWhole)),
            ("18446744073709551616 s", Err(Unreadable::TooLarge)),
        ] {
            assert_eq!(parse_time(text), time, "{text:?}");
        }
    }

    #[test]
    fn an_exact_time_has_the_largest_unit_that_divides_it() {
        for (time, text) in [
            (Duration::ZERO, "0 s"),
            (Duration::from_nanos(1), "1 ns"),
            (Duration::from_micros(1500), "1500 us"),
            (Duration::from_millis(500), "500 ms"),
            (Duration::from_secs(10), "10 s"),
            (Duration::from_secs(90), "90 s"),
            (Duration::from_secs(60), "1 min"),
            (Duration::from_secs(7200), "2 h"),
        ] {
            assert_eq!(ExactTime(time).to_string(), text);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if crate::SLOW { 8 } else { 512 }))]

        #[test]
        fn what_is_printed_is_read_back(
            bytes in any::<usize>(),
            zeros in 0..usize::BITS,
            time in any::<Duration>(),
            unit in 0..TIMES.len(),
        ) {
            let bytes = bytes >> zeros << zeros;
            prop_assert_eq!(parse_bytes(&Exact(bytes).to_string()), Ok(bytes));
            prop_assert_eq!(parse_time(&ExactTime(time).to_string()), Ok(time));
            // Of whole units, so that each is printed.
            let count = u32::from(time.subsec_nanos() as u16);
            let whole = Duration::from_nanos(TIMES[unit].1).saturating_mul(count);
            prop_assert_eq!(parse_time(&ExactTime(whole).to_string()), Ok(whole));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[0-9.]{0,60} ?[a-zA-Z]{0,4}") {
            let _read = (parse_bytes(&text), parse_time(&text));
        }
    }

    #[test]
    fn a_rounded_number_is_short_whatever_it_is() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (1 << 20, "1.0 MiB"),
            (1000 << 20, "1000.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(Rounded(bytes).to_string(), text);
            assert!(text.len() <= 10);
        }
        assert_eq!(format!("{:>9}|", Rounded(1024)), "  1.0 KiB|");
    }

    #[test]
    fn a_count_has_at_most_7_characters() {
        for (count, text) in [
            (0, "0"),
            (9_999_999, "9999999"),
            (10_000_000, "10000k"),
            (999_999_999, "999999k"),
            (1_000_000_000, "1000M"),
            (u64::MAX, "18446P"),
        ] {
            assert_eq!(Short(count).to_string(), text);
            assert!(text.len() <= 7);
        }
    }

    #[test]
    fn one_thing_has_no_plural() {
        assert_eq!(counted(0, "buffer"), "0 buffers");
        assert_eq!(counted(1, "buffer"), "1 buffer");
        assert_eq!(counted(2, "buffer"), "2 buffers");
    }
}
