//! Options from outside of the program: from variables of its environment, and by serde.
//!
//! Owns the names of the options and how their values are read. Checks no value against another one:
//! `Builder::build` does.

mod env;
#[cfg(feature = "serde")]
mod serde;

pub use env::EnvError;

use crate::builder::Builder;
use crate::engine::UNLIMITED;
#[cfg(feature = "serde")]
use crate::sizing::profile::Profile;
use crate::sizing::size_class::CLASSES_MAX;
use crate::units::{self, Unreadable};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The options that text can set, in the order of the builder's documentation.
const NAMES: &[&str] = &[
    "min_size",
    "max_size",
    "classes",
    "retain_bytes",
    "retain_share",
    "keep_idle",
    #[cfg(feature = "limit")]
    "max_outstanding_bytes",
    "max_per_class",
    "thread_cache_bytes",
    "trim_interval",
    "release_when_idle",
    "background_trim",
    "malloc_trim",
    "zero_on_return",
    "reuse_initialised",
    "compact_below",
    "learn_sizes",
    "calibrate_after",
    "calibrate_percentile",
    "calibrate_interval",
];

/// The options that were named outside.
#[derive(Clone, Debug, Default)]
struct Options {
    min_size: Option<usize>,
    max_size: Option<usize>,
    classes: Option<Vec<usize>>,
    retain_bytes: Option<usize>,
    retain_share: Option<f64>,
    keep_idle: Option<Vec<(usize, usize)>>,
    #[cfg(feature = "limit")]
    max_outstanding_bytes: Option<usize>,
    max_per_class: Option<usize>,
    thread_cache_bytes: Option<usize>,
    trim_interval: Option<Option<Duration>>,
    release_when_idle: Option<Duration>,
    background_trim: Option<bool>,
    malloc_trim: Option<bool>,
    zero_on_return: Option<bool>,
    reuse_initialised: Option<bool>,
    compact_below: Option<u8>,
    learn_sizes: Option<bool>,
    calibrate_after: Option<u64>,
    calibrate_percentile: Option<f64>,
    calibrate_interval: Option<Option<Duration>>,
    /// Never from text.
    #[cfg(feature = "serde")]
    profile: Option<Profile>,
}

/// Where the value of an option goes, by what it may be.
enum Slot<'a> {
    Size(&'a mut Option<usize>),
    /// A size, or without limit.
    Limit(&'a mut Option<usize>),
    /// A number of buffers, or without limit.
    Count(&'a mut Option<usize>),
    Calls(&'a mut Option<u64>),
    Percent(&'a mut Option<u8>),
    Share(&'a mut Option<f64>),
    Flag(&'a mut Option<bool>),
    Time(&'a mut Option<Duration>),
    /// A time, or never.
    Interval(&'a mut Option<Option<Duration>>),
    Sizes(&'a mut Option<Vec<usize>>),
    Kept(&'a mut Option<Vec<(usize, usize)>>),
}

const LIMIT_UNLIMITED: &str = "unlimited";
const INTERVAL_NEVER: &str = "never";

impl Options {
    /// Where the value of the option with this name goes; `None` if there is no such option.
    fn slot(&mut self, name: &str) -> Option<Slot<'_>> {
        Some(match name {
            "min_size" => Slot::Size(&mut self.min_size),
            "max_size" => Slot::Size(&mut self.max_size),
            "classes" => Slot::Sizes(&mut self.classes),
            "retain_bytes" => Slot::Limit(&mut self.retain_bytes),
            "retain_share" => Slot::Share(&mut self.retain_share),
            "keep_idle" => Slot::Kept(&mut self.keep_idle),
            #[cfg(feature = "limit")]
            "max_outstanding_bytes" => Slot::Limit(&mut self.max_outstanding_bytes),
            "max_per_class" => Slot::Count(&mut self.max_per_class),
            "thread_cache_bytes" => Slot::Limit(&mut self.thread_cache_bytes),
            "trim_interval" => Slot::Interval(&mut self.trim_interval),
            "release_when_idle" => Slot::Time(&mut self.release_when_idle),
            "background_trim" => Slot::Flag(&mut self.background_trim),
            "malloc_trim" => Slot::Flag(&mut self.malloc_trim),
            "zero_on_return" => Slot::Flag(&mut self.zero_on_return),
            "reuse_initialised" => Slot::Flag(&mut self.reuse_initialised),
            "compact_below" => Slot::Percent(&mut self.compact_below),
            "learn_sizes" => Slot::Flag(&mut self.learn_sizes),
            "calibrate_after" => Slot::Calls(&mut self.calibrate_after),
            "calibrate_percentile" => Slot::Share(&mut self.calibrate_percentile),
            "calibrate_interval" => Slot::Interval(&mut self.calibrate_interval),
            _ => return None,
        })
    }

    /// Sets these options on `builder`. Those that name the same thing in two ways replace one another.
    fn apply(self, mut builder: Builder) -> Builder {
        // Two ways in one source are left for `build` to refuse.
        if self.classes.is_some() {
            (builder.min_size, builder.max_size) = (None, None);
        }
        if self.min_size.is_some() || self.max_size.is_some() {
            builder.classes = None;
        }
        if self.retain_bytes.is_some() || self.retain_share.is_some() {
            (builder.retain_bytes, builder.retain_share) = (None, None);
        }
        if let Some(bytes) = self.min_size {
            builder = builder.min_size(bytes);
        }
        if let Some(bytes) = self.max_size {
            builder = builder.max_size(bytes);
        }
        if let Some(classes) = self.classes {
            builder = builder.classes(classes);
        }
        if let Some(bytes) = self.retain_bytes {
            builder = builder.retain_bytes(bytes);
        }
        if let Some(share) = self.retain_share {
            builder = builder.retain_share(share);
        }
        if let Some(kept) = self.keep_idle {
            builder.keep_idle = kept;
        }
        #[cfg(feature = "limit")]
        if let Some(bytes) = self.max_outstanding_bytes {
            builder.max_outstanding_bytes = Some(bytes).filter(|&bytes| bytes != UNLIMITED);
        }
        if let Some(buffers) = self.max_per_class {
            builder = builder.max_per_class(buffers);
        }
        if let Some(bytes) = self.thread_cache_bytes {
            builder = builder.thread_cache_bytes(bytes);
        }
        // Before those that it is shorthand for: they count, in whatever order they are named.
        if let Some(idle) = self.release_when_idle {
            builder = builder.release_when_idle(idle);
        }
        if let Some(interval) = self.trim_interval {
            builder = builder.trim_interval(interval);
        }
        if let Some(on) = self.background_trim {
            builder = builder.background_trim(on);
        }
        if let Some(on) = self.malloc_trim {
            builder = builder.malloc_trim(on);
        }
        if let Some(zero) = self.zero_on_return {
            builder = builder.zero_on_return(zero);
        }
        if let Some(on) = self.reuse_initialised {
            builder = builder.reuse_initialised(on);
        }
        if let Some(percent) = self.compact_below {
            builder = builder.compact_below(percent);
        }
        if let Some(on) = self.learn_sizes {
            builder = builder.learn_sizes(on);
        }
        if let Some(calls) = self.calibrate_after {
            builder = builder.calibrate_after(calls);
        }
        if let Some(percentile) = self.calibrate_percentile {
            builder = builder.calibrate_percentile(percentile);
        }
        if let Some(interval) = self.calibrate_interval {
            builder = builder.calibrate_interval(interval);
        }
        #[cfg(feature = "serde")]
        if let Some(profile) = self.profile {
            builder = builder.profile(profile);
        }
        builder
    }
}

/// Why a text is no value of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Unreadable(Unreadable),
    /// Neither `true` nor `false`.
    NotAFlag,
    NotACount,
    NotANumber,
    NoColon,
    TooMany,
    NotUnicode,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => why.fmt(f),
            Self::NotAFlag => f.write_str("is neither true nor false"),
            Self::NotACount => f.write_str("is no whole number of this range"),
            Self::NotANumber => f.write_str("is no number"),
            Self::NoColon => f.write_str("has no colon between a size and a count"),
            Self::NotUnicode => f.write_str("is not Unicode"),
            Self::TooMany => write!(f, "has more than {CLASSES_MAX} entries"),
        }
    }
}

impl From<Unreadable> for Reason {
    fn from(why: Unreadable) -> Self {
        Self::Unreadable(why)
    }
}

impl Slot<'_> {
    /// The values that are allowed, to follow "use".
    fn allowed(&self) -> &'static str {
        match self {
            Slot::Size(_) => r#"a size such as 65536, "64 KiB" or "1.5 MiB""#,
            Slot::Limit(_) => r#"a size such as 65536, "64 KiB" or "1.5 MiB", or "unlimited""#,
            Slot::Count(_) => r#"a whole number from 0, or "unlimited""#,
            Slot::Calls(_) => "a whole number from 0",
            Slot::Percent(_) => "a whole number from 0 to 100",
            Slot::Share(_) => "a number from 0 to 1, such as 0.05",
            Slot::Flag(_) => "true or false",
            Slot::Time(_) => {
                r#"a time such as "10 s", "500 ms" or "1.5 min", or a number of seconds"#
            }
            Slot::Interval(_) => {
                r#"a time such as "10 s", "500 ms" or "1.5 min", or a number of seconds, or "never""#
            }
            Slot::Sizes(_) => r#"sizes such as "512, 2 KiB, 64 KiB""#,
            Slot::Kept(_) => r#"sizes and counts such as "16 KiB: 100, 4 KiB: 10""#,
        }
    }

    /// Reads the value from a text.
    fn set_text(&mut self, text: &str) -> Result<(), Reason> {
        let text = text.trim();
        match self {
            Slot::Size(slot) => **slot = Some(units::parse_bytes(text)?),
            Slot::Limit(slot) => {
                **slot = Some(match text {
                    LIMIT_UNLIMITED => UNLIMITED,
                    text => units::parse_bytes(text)?,
                });
            }
            Slot::Count(slot) => {
                **slot = Some(match text {
                    LIMIT_UNLIMITED => UNLIMITED,
                    text => number(text, Reason::NotACount)?,
                });
            }
            Slot::Calls(slot) => **slot = Some(number(text, Reason::NotACount)?),
            Slot::Percent(slot) => **slot = Some(number(text, Reason::NotACount)?),
            Slot::Share(slot) => **slot = Some(number(text, Reason::NotANumber)?),
            Slot::Flag(slot) => **slot = Some(number(text, Reason::NotAFlag)?),
            Slot::Time(slot) => **slot = Some(units::parse_time(text)?),
            Slot::Interval(slot) => {
                **slot = Some(match text {
                    INTERVAL_NEVER => None,
                    text => Some(units::parse_time(text)?),
                });
            }
            Slot::Sizes(slot) => {
                let sizes = entries(text)?.map(|entry| Ok(units::parse_bytes(entry)?));
                **slot = Some(sizes.collect::<Result<_, Reason>>()?);
            }
            Slot::Kept(slot) => {
                // Any number of entries: sizes of the same class add up.
                let kept = text.split(',').map(|entry| {
                    let (size, count) = entry.split_once(':').ok_or(Reason::NoColon)?;
                    let count = number(count.trim(), Reason::NotACount)?;
                    Ok((units::parse_bytes(size)?, count))
                });
                **slot = Some(kept.collect::<Result<_, Reason>>()?);
            }
        }
        Ok(())
    }
}

fn number<T: FromStr>(text: &str, reason: Reason) -> Result<T, Reason> {
    text.parse().map_err(|_| reason)
}

/// The entries of a list with commas between them.
fn entries(text: &str) -> Result<impl Iterator<Item = &str>, Reason> {
    match text.split(',').nth(CLASSES_MAX) {
        Some(_) => Err(Reason::TooMany),
        None => Ok(text.split(',')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_a_slot() {
        let mut options = Options::default();
        for name in NAMES {
            assert!(options.slot(name).is_some(), "{name}");
        }
        assert!(options.slot("on_trim").is_none());
    }
}
