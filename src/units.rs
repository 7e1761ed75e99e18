//! Numbers of bytes as people read them. Prints; decides nothing.

use std::fmt;

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

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
