//! Any options: `build` refuses the invalid ones with the right error, and the pool that it makes
//! keeps within the others.
//!
//! The rules are written here a second time, plainly, from the documentation of `Builder` and
//! `ConfigError`.

#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use std::iter;
use std::time::Duration;
use tierpool::{Builder, ConfigError, Histogram, Pool, PooledBuf, Profile};

/// 4 MiB: no buffer here is larger. A class may be larger, but is not requested.
const ALLOCATED_MAX: usize = 4 << 20;
/// The most guards at once.
const HELD_MAX: usize = 12;
/// 4 MiB of buffers that are kept idle. A pool with more at its start is not built.
const IDLE_BYTES_MAX: usize = 4 << 20;
const IDLE_MAX: usize = 2000;
/// An event with this interval does not happen here.
const LONG: Duration = Duration::from_secs(3600);

#[derive(Debug)]
struct Options {
    min_size: Option<usize>,
    max_size: Option<usize>,
    classes: Option<Classes>,
    retain_bytes: Option<usize>,
    /// Sizes and counts, one pair for each call.
    keep_idle: Vec<(usize, usize)>,
    max_per_class: Option<usize>,
    thread_cache_bytes: Option<usize>,
    trim_interval: Option<Option<Duration>>,
    background_trim: bool,
    malloc_trim: bool,
    zero_on_return: bool,
    learn_sizes: bool,
    calibrate_after: Option<u64>,
    calibrate_percentile: Option<f64>,
    calibrate_interval: Option<Option<Duration>>,
    profile: Option<Learned>,
}

#[derive(Debug)]
enum Classes {
    List(Vec<usize>),
    /// Endless, and wraps.
    Counting {
        from: usize,
        step: usize,
    },
}

#[derive(Debug)]
struct Learned {
    default_size: usize,
    max_size: usize,
    calls: u64,
    kept: Vec<usize>,
}

/// The errors that `build` returns for invalid options. `ConfigError` can only be read.
#[derive(Debug, PartialEq)]
enum Refusal {
    Zero(&'static str),
    TooLarge(&'static str, usize),
    MaxBelowMin {
        min: usize,
        max: usize,
    },
    KeepIdleAboveLargest {
        size: usize,
        field: &'static str,
        largest: usize,
        is_default: bool,
    },
    KeepIdleAbovePerClass(usize, usize, usize),
    KeepIdleAboveRetain(usize, usize, bool),
    NoClasses,
    TooManyClasses(usize),
    NotAscending(usize, usize, usize),
    Conflict(&'static str, usize),
    RetainBelowLargest {
        retain_bytes: usize,
        field: &'static str,
        largest: usize,
        is_default: bool,
    },
    ZeroInterval(&'static str),
    Percentile(String),
    BackgroundWithoutInterval,
    Background,
}

// ---- from bytes ----

/// A size of any magnitude. Sizes at a border are frequent.
fn size(u: &mut Unstructured) -> Result<usize> {
    Ok(match u.int_in_range(0..=9_u8)? {
        0 => 0,
        1 => usize::from(u8::arbitrary(u)?),
        2 | 3 => usize::from(u16::arbitrary(u)?),
        4 => u.int_in_range(0..=ALLOCATED_MAX)?,
        5 => 1 << u.int_in_range(0..=usize::BITS - 1)?,
        6 => (1_usize << u.int_in_range(0..=usize::BITS - 1)?) - 1,
        7 => (1_usize << u.int_in_range(0..=usize::BITS - 1)?) + 1,
        8 => *u.choose(&[isize::MAX as usize, isize::MAX as usize + 1, usize::MAX])?,
        _ => usize::arbitrary(u)?,
    })
}

fn classes(u: &mut Unstructured) -> Result<Classes> {
    Ok(match u.int_in_range(0..=7_u8)? {
        // Ascending, as in most lists that build.
        0..=3 => {
            let mut list = Vec::new();
            let mut last = 0_usize;
            for _ in 0..u.int_in_range(1..=12)? {
                let bits = u.int_in_range(0..=19)?;
                let more = u.int_in_range(1..=1_usize << bits)?;
                last = last.saturating_add(more);
                list.push(last);
            }
            Classes::List(list)
        }
        4 => Classes::List((1..=u.int_in_range(120..=136)?).map(|n| n * 100).collect()),
        5 => Classes::Counting {
            from: size(u)?,
            step: u.int_in_range(0..=2)?,
        },
        _ => {
            let count = u.int_in_range(0..=6)?;
            let list = iter::repeat_with(|| size(u)).take(count);
            Classes::List(list.collect::<Result<_>>()?)
        }
    })
}

fn interval(u: &mut Unstructured) -> Result<Option<Duration>> {
    Ok(match u.int_in_range(0..=6_u8)? {
        0 => Some(Duration::ZERO),
        1 => Some(Duration::from_nanos(1)),
        2 => Some(Duration::from_millis(u.int_in_range(1..=5)?)),
        3 => Some(LONG),
        4 => Some(Duration::MAX),
        5 => Some(Duration::new(u64::arbitrary(u)?, 999_999_999)),
        _ => None,
    })
}

fn percentile(u: &mut Unstructured) -> Result<f64> {
    Ok(match u.int_in_range(0..=3_u8)? {
        0 => f64::from_bits(u64::arbitrary(u)?),
        1 => *u.choose(&[
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            -0.0,
            1.0,
            1.0 + f64::EPSILON,
            -f64::MIN_POSITIVE,
            95.0,
        ])?,
        _ => f64::from(u.int_in_range(0..=1000_u16)?) / 1000.0,
    })
}

fn learned(u: &mut Unstructured) -> Result<Learned> {
    let default_step = u.int_in_range(0..=19)?;
    let max_step = u.int_in_range(default_step..=19)?;
    let mut kept = Vec::new();
    let mut last = 64 << max_step;
    for _ in 0..u.int_in_range(0..=3)? {
        last += u.int_in_range(1..=1 << 20)?;
        kept.push(last);
    }
    Ok(Learned {
        default_size: 64 << default_step,
        max_size: 64 << max_step,
        calls: u.int_in_range(1..=u64::MAX)?,
        kept,
    })
}

/// `Some` in one of `of` cases.
fn seldom<'a, T>(
    u: &mut Unstructured<'a>,
    of: u8,
    make: impl FnOnce(&mut Unstructured<'a>) -> Result<T>,
) -> Result<Option<T>> {
    match u.ratio(1, of)? {
        true => make(u).map(Some),
        false => Ok(None),
    }
}

impl Arbitrary<'_> for Options {
    fn arbitrary(u: &mut Unstructured) -> Result<Self> {
        let classes = seldom(u, 2, classes)?;
        // Beside classes they are an error, which hides the later options.
        let of = if classes.is_some() { 16 } else { 2 };
        Ok(Options {
            min_size: seldom(u, of, size)?,
            max_size: seldom(u, of, size)?,
            classes,
            // Most drawn sizes are below the largest class, which is an error.
            retain_bytes: seldom(u, 3, size)?,
            keep_idle: seldom(u, 4, |u| {
                let calls = u.int_in_range(1..=3)?;
                let call = iter::repeat_with(|| match u.ratio(3, 4)? {
                    true => Ok((usize::from(u16::arbitrary(u)?), u.int_in_range(0..=8)?)),
                    false => Ok((size(u)?, size(u)?)),
                });
                call.take(calls).collect()
            })?
            .unwrap_or_default(),
            max_per_class: seldom(u, 3, |u| match u.ratio(3, 4)? {
                true => u.int_in_range(0..=8),
                false => size(u),
            })?,
            thread_cache_bytes: seldom(u, 3, size)?,
            trim_interval: seldom(u, 2, interval)?,
            // Each needs a thread.
            background_trim: u8::arbitrary(u)? == 7,
            malloc_trim: u8::arbitrary(u)? == 7,
            zero_on_return: u.ratio(1, 4)?,
            learn_sizes: u.ratio(2, 3)?,
            calibrate_after: seldom(u, 2, |u| match u.ratio(1, 2)? {
                true => u.int_in_range(0..=4),
                false => u64::arbitrary(u),
            })?,
            calibrate_percentile: seldom(u, 2, percentile)?,
            calibrate_interval: seldom(u, 3, interval)?,
            profile: seldom(u, 4, learned)?,
        })
    }
}

// ---- the expected result ----

impl Options {
    fn builder(&self) -> Builder {
        let mut builder = Pool::builder()
            .background_trim(self.background_trim)
            .malloc_trim(self.malloc_trim)
            .zero_on_return(self.zero_on_return)
            .learn_sizes(self.learn_sizes);
        if let Some(bytes) = self.min_size {
            builder = builder.min_size(bytes);
        }
        if let Some(bytes) = self.max_size {
            builder = builder.max_size(bytes);
        }
        builder = match &self.classes {
            None => builder,
            Some(Classes::List(list)) => builder.classes(list.iter().copied()),
            &Some(Classes::Counting { from, step }) => builder
                .classes(iter::successors(Some(from), move |n| {
                    Some(n.wrapping_add(step))
                })),
        };
        if let Some(bytes) = self.retain_bytes {
            builder = builder.retain_bytes(bytes);
        }
        for &(size, count) in &self.keep_idle {
            builder = builder.keep_idle(size, count);
        }
        if let Some(buffers) = self.max_per_class {
            builder = builder.max_per_class(buffers);
        }
        if let Some(bytes) = self.thread_cache_bytes {
            builder = builder.thread_cache_bytes(bytes);
        }
        if let Some(interval) = self.trim_interval {
            builder = builder.trim_interval(interval);
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
        if let Some(learned) = &self.profile {
            builder = builder.profile(learned.profile());
        }
        builder
    }

    /// The size classes, or the first error.
    fn expected(&self) -> std::result::Result<Vec<usize>, Refusal> {
        let classes = match &self.classes {
            Some(_) if self.min_size.is_some() => {
                return Err(Refusal::Conflict("min_size", self.min_size.unwrap()));
            }
            Some(_) if self.max_size.is_some() => {
                return Err(Refusal::Conflict("max_size", self.max_size.unwrap()));
            }
            Some(Classes::Counting { .. }) => return Err(Refusal::TooManyClasses(128)),
            Some(Classes::List(list)) if list.is_empty() => return Err(Refusal::NoClasses),
            Some(Classes::List(list)) if list.len() > 128 => {
                return Err(Refusal::TooManyClasses(128));
            }
            Some(Classes::List(list)) => {
                for (index, &value) in list.iter().enumerate() {
                    sized("classes", value)?;
                    if index > 0 && list[index - 1] >= value {
                        return Err(Refusal::NotAscending(index, list[index - 1], value));
                    }
                }
                list.clone()
            }
            None => {
                let (min, max) = match (self.min_size, self.max_size) {
                    (None, None) => (512, 1 << 20),
                    (Some(min), None) => (min, min.max(1 << 20)),
                    // A maximum of 0 is the error, not the minimum that follows from it.
                    (None, Some(max)) => (max.clamp(1, 512), max),
                    (Some(min), Some(max)) => (min, max),
                };
                sized("min_size", min)?;
                sized("max_size", max)?;
                if max < min {
                    return Err(Refusal::MaxBelowMin { min, max });
                }
                let doubled = (0..usize::BITS).map(|times| (min as u128) << times);
                let below = doubled.take_while(|&size| size < max as u128);
                below.map(|size| size as usize).chain([max]).collect()
            }
        };
        if let Some(retain_bytes) = self.retain_bytes {
            let largest = classes[classes.len() - 1];
            if (1..largest).contains(&retain_bytes) {
                let (field, is_default) = self.largest_comes_from(largest);
                return Err(Refusal::RetainBelowLargest {
                    retain_bytes,
                    field,
                    largest,
                    is_default,
                });
            }
        }
        if self.trim_interval == Some(Some(Duration::ZERO)) {
            return Err(Refusal::ZeroInterval("trim_interval"));
        }
        if self.calibrate_interval == Some(Some(Duration::ZERO)) {
            return Err(Refusal::ZeroInterval("calibrate_interval"));
        }
        match self.calibrate_percentile {
            // NaN is refused, too: it differs from itself after `clamp`.
            Some(part) if part.clamp(0.0, 1.0) != part => {
                return Err(Refusal::Percentile(format!("{part}")));
            }
            _ => {}
        }
        if self.background_trim && self.trim_interval == Some(None) {
            return Err(Refusal::BackgroundWithoutInterval);
        }
        let largest = classes[classes.len() - 1];
        for &(size, _) in &self.keep_idle {
            if size > largest {
                let (field, is_default) = self.largest_comes_from(largest);
                return Err(Refusal::KeepIdleAboveLargest {
                    size,
                    field,
                    largest,
                    is_default,
                });
            }
        }
        let most = self.max_per_class();
        for &capacity in &classes {
            let count = self.idle_of(&classes, capacity);
            if count > most {
                return Err(Refusal::KeepIdleAbovePerClass(capacity, count, most));
            }
        }
        let (bytes, retain_bytes) = (self.idle_bytes(&classes), self.retain_bytes(&classes));
        if bytes > isize::MAX as usize {
            return Err(Refusal::TooLarge("keep_idle", bytes));
        }
        if bytes > retain_bytes {
            let is_default = self.retain_bytes.is_none();
            return Err(Refusal::KeepIdleAboveRetain(
                bytes,
                retain_bytes,
                is_default,
            ));
        }
        Ok(classes)
    }

    /// The option that sets the largest class, and whether it does so by its default.
    fn largest_comes_from(&self, largest: usize) -> (&'static str, bool) {
        if self.classes.is_some() {
            ("classes", false)
        } else if self.max_size.is_some() {
            ("max_size", false)
        } else if largest == 1 << 20 {
            ("max_size", true)
        } else {
            ("min_size", false)
        }
    }

    /// How many buffers of a class are kept idle.
    fn idle_of(&self, classes: &[usize], capacity: usize) -> usize {
        let below = classes.iter().rev().find(|&&class| class < capacity);
        let of_class = |&&(size, _): &&(usize, usize)| {
            size <= capacity && below.is_none_or(|&below| size > below)
        };
        let counts = self.keep_idle.iter().filter(of_class);
        counts.fold(0, |sum, &(_, count)| sum.saturating_add(count))
    }

    /// The capacity of all buffers that are kept idle.
    fn idle_bytes(&self, classes: &[usize]) -> usize {
        classes.iter().fold(0, |sum, &capacity| {
            let count = self.idle_of(classes, capacity) as u128;
            let bytes = (count * capacity as u128).min(usize::MAX as u128);
            sum.saturating_add(bytes as usize)
        })
    }

    /// The budget of a pool with these classes.
    fn retain_bytes(&self, classes: &[usize]) -> usize {
        let twice = (classes[classes.len() - 1] as u128 * 2).min(usize::MAX as u128);
        self.retain_bytes.unwrap_or((twice as usize).max(64 << 20))
    }

    fn max_per_class(&self) -> usize {
        self.max_per_class.unwrap_or(usize::MAX)
    }

    /// Whether only explicit calls trim.
    fn never_trims(&self) -> bool {
        let by_time = self.trim_interval.unwrap_or(Some(Duration::from_secs(10)));
        by_time.is_none_or(|interval| interval >= LONG) && !self.background_trim
    }

    /// Whether only explicit calls calibrate, and the pool starts without a profile. (A calibration
    /// by time needs a thousand returns, which are more than there are here.)
    fn never_calibrates(&self) -> bool {
        let after = self.calibrate_after.unwrap_or(42_000);
        (!self.learn_sizes || after >= 1000) && self.profile.is_none()
    }
}

fn sized(option: &'static str, value: usize) -> std::result::Result<(), Refusal> {
    match value {
        0 => Err(Refusal::Zero(option)),
        value if value > isize::MAX as usize => Err(Refusal::TooLarge(option, value)),
        _ => Ok(()),
    }
}

impl Learned {
    fn profile(&self) -> Profile {
        let saved = serde_json::json!({
            "version": 1,
            "default_size": self.default_size,
            "max_size": self.max_size,
            "calls": self.calls,
            "kept": self.kept,
        });
        serde_json::from_value(saved).expect("it is consistent")
    }
}

impl Refusal {
    fn of(error: &ConfigError) -> Self {
        match *error {
            ConfigError::Zero { field, .. } => Refusal::Zero(field),
            ConfigError::TooLarge { field, value, .. } => Refusal::TooLarge(field, value),
            ConfigError::MaxBelowMin { min, max, .. } => Refusal::MaxBelowMin { min, max },
            ConfigError::NoClasses => Refusal::NoClasses,
            ConfigError::TooManyClasses { max, .. } => Refusal::TooManyClasses(max),
            ConfigError::NotAscending {
                index,
                previous,
                value,
                ..
            } => Refusal::NotAscending(index, previous, value),
            ConfigError::Conflict { field, value, .. } => Refusal::Conflict(field, value),
            ConfigError::RetainBelowLargest {
                retain_bytes,
                field,
                largest,
                is_default,
                ..
            } => Refusal::RetainBelowLargest {
                retain_bytes,
                field,
                largest,
                is_default,
            },
            ConfigError::KeepIdleAboveLargest {
                size,
                field,
                largest,
                is_default,
                ..
            } => Refusal::KeepIdleAboveLargest {
                size,
                field,
                largest,
                is_default,
            },
            ConfigError::KeepIdleAbovePerClass {
                capacity,
                count,
                max_per_class,
                ..
            } => Refusal::KeepIdleAbovePerClass(capacity, count, max_per_class),
            ConfigError::KeepIdleAboveRetain {
                bytes,
                retain_bytes,
                is_default,
                ..
            } => Refusal::KeepIdleAboveRetain(bytes, retain_bytes, is_default),
            ConfigError::ZeroInterval { field, .. } => Refusal::ZeroInterval(field),
            ConfigError::Percentile { ref value, .. } => Refusal::Percentile(value.clone()),
            ConfigError::BackgroundWithoutInterval { .. } => Refusal::BackgroundWithoutInterval,
            ConfigError::Background { .. } => Refusal::Background,
            ref other => panic!("this target does not know the error: {other:?}"),
        }
    }

    /// The option that the message must begin with, and the other text that must be in it.
    fn says(&self) -> (&'static str, Vec<String>) {
        let text = |numbers: &[usize]| numbers.iter().map(usize::to_string).collect();
        let sizes = |sizes: &[usize]| sizes.iter().map(|&size| shown(size)).collect();
        match self {
            Refusal::Zero(field) => (field, sizes(&[0])),
            Refusal::ZeroInterval(field) => (field, text(&[0])),
            Refusal::TooLarge(field, value) | Refusal::Conflict(field, value) => {
                (field, sizes(&[*value]))
            }
            Refusal::MaxBelowMin { min, max } => ("max_size", sizes(&[*min, *max])),
            &Refusal::RetainBelowLargest {
                retain_bytes,
                field,
                largest,
                is_default,
            } => {
                let mut parts: Vec<String> = sizes(&[retain_bytes, largest]);
                parts.push(String::from("retain_bytes"));
                if is_default {
                    parts.push(String::from("the default"));
                }
                match field {
                    "classes" => ("the largest of classes", parts),
                    field => (field, parts),
                }
            }
            &Refusal::KeepIdleAboveLargest {
                size,
                field,
                largest,
                is_default,
            } => {
                let mut parts: Vec<String> = sizes(&[size, largest]);
                parts.push(String::from(field));
                if is_default {
                    parts.push(String::from("the default"));
                }
                ("keep_idle", parts)
            }
            Refusal::KeepIdleAbovePerClass(capacity, count, most) => {
                let mut parts: Vec<String> = text(&[*count, *most]);
                parts.push(shown(*capacity));
                parts.push(String::from("max_per_class"));
                ("keep_idle", parts)
            }
            &Refusal::KeepIdleAboveRetain(bytes, retain_bytes, is_default) => {
                let mut parts: Vec<String> = sizes(&[bytes, retain_bytes]);
                parts.push(String::from("retain_bytes"));
                if is_default {
                    parts.push(String::from("the default"));
                }
                ("keep_idle", parts)
            }
            Refusal::NoClasses => ("classes", vec![String::from("empty")]),
            Refusal::TooManyClasses(max) => ("classes", text(&[*max])),
            Refusal::NotAscending(index, previous, value) => {
                let mut parts: Vec<String> = sizes(&[*previous, *value]);
                parts.push(index.to_string());
                ("classes", parts)
            }
            Refusal::Percentile(value) => ("calibrate_percentile", vec![value.clone()]),
            Refusal::BackgroundWithoutInterval => {
                ("background_trim", vec![String::from("trim_interval")])
            }
            Refusal::Background => ("background_trim", Vec::new()),
        }
    }
}

/// A size as texts show it: in the largest unit that divides it.
fn shown(size: usize) -> String {
    let mut units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].iter();
    let (mut number, mut unit) = (size, if size == 1 { "byte" } else { "bytes" });
    while number > 0 && number % 1024 == 0 {
        number /= 1024;
        unit = units.next().expect("no size is that large");
    }
    format!("{number} {unit}")
}

fn check_text(error: &ConfigError, refusal: &Refusal) {
    let text = error.to_string();
    let (option, values) = refusal.says();
    assert!(text.starts_with(&format!("{option} ")), "{text}");
    assert!(!text.contains(char::is_control), "{text:?}");
    for value in values {
        assert!(text.contains(&value), "{value} is not in: {text}");
    }
}

// ---- a short use of the pool ----

struct Use<'a> {
    options: &'a Options,
    classes: &'a [usize],
    pool: Pool,
    held: Vec<PooledBuf>,
    gets: u64,
    adopted: u64,
    detached: u64,
    prefilled: u64,
    trimmed: u64,
    /// The lengths that came back before the first calibration. `None` after that, or if the pool
    /// has not recorded all of them.
    lengths: Option<Histogram>,
    /// Whether this thread has caches. Without them it records nothing.
    has_caches: bool,
}

impl Use<'_> {
    /// The class of a request; `None` above the largest.
    fn class_of(&self, request: usize) -> Option<usize> {
        self.classes.iter().copied().find(|&class| class >= request)
    }

    /// Whether a buffer for this request is small enough to be allocated here.
    fn is_allocated(&self, request: usize) -> bool {
        self.class_of(request).unwrap_or(request) <= ALLOCATED_MAX
    }

    /// A size at a class's border, or any other size, that can be allocated here.
    fn request(&self, u: &mut Unstructured) -> Result<usize> {
        let size = match u.ratio(3, 4)? {
            true => {
                let class = *u.choose(self.classes)?;
                match u.int_in_range(0..=3_u8)? {
                    0 => class - 1,
                    1 | 2 => class,
                    _ => class + 1,
                }
            }
            false => u.int_in_range(0..=ALLOCATED_MAX)?,
        };
        Ok(match self.is_allocated(size) {
            true => size,
            false => self.small(),
        })
    }

    /// A size that can be allocated here: that of the smallest class if there is one.
    fn small(&self) -> usize {
        let classes = self.classes;
        match classes[0] <= ALLOCATED_MAX {
            true => classes[0],
            false => usize::MAX,
        }
    }

    fn get(&mut self, size: usize) {
        if self.held.len() == HELD_MAX || !self.is_allocated(size) {
            return;
        }
        let buf = self.pool.get(size);
        self.gets += 1;
        self.has_caches |= self.class_of(size).is_some();
        assert!(buf.is_empty());
        let class = self.class_of(size).unwrap_or(size);
        assert!(buf.capacity() >= class, "{} for {size}", buf.capacity());
        if self.adopted == 0 && self.pool.stats().total.growths == 0 {
            assert_eq!(buf.capacity(), class, "for {size}");
        }
        self.held.push(buf);
    }

    fn give_back(&mut self, index: usize) {
        let buf = self.held.swap_remove(index);
        match &mut self.lengths {
            Some(lengths) if self.has_caches => lengths.record(buf.len()),
            lengths => *lengths = None,
        }
        drop(buf);
    }

    /// The first use of a pool shows its limits.
    fn begin(&mut self, u: &mut Unstructured) -> Result<()> {
        let options = self.options;
        if !options.keep_idle.is_empty() {
            return Ok(()); // the other threads have taken their part of the limits
        }
        let size = self.request(u)?;
        let Some(class) = self.class_of(size).filter(|&class| class <= ALLOCATED_MAX) else {
            return Ok(());
        };
        let room = options
            .max_per_class()
            .min(options.retain_bytes(self.classes) / class);
        if u.ratio(1, 2)? {
            let count = u.int_in_range(0..=6)?;
            let made = self.pool.prefill(size, count);
            self.prefilled += made as u64;
            if !options.background_trim {
                assert_eq!(made, count.min(room), "of {count} of {class}");
            }
        } else if options.never_trims() && options.never_calibrates() {
            let kept = room > 0;
            self.get(size);
            self.give_back(0);
            let total = self.pool.stats().total;
            assert_eq!(total.retained_buffers, u64::from(kept));
            assert_eq!(total.discards.full, u64::from(!kept));
            self.get(size);
            assert_eq!(self.pool.stats().total.hits(), u64::from(kept));
        }
        Ok(())
    }

    fn step(&mut self, u: &mut Unstructured) -> Result<()> {
        let quiet = !self.options.background_trim;
        match u.int_in_range(0..=15_u8)? {
            0..=4 => {
                let size = self.request(u)?;
                self.get(size);
            }
            5..=7 if !self.held.is_empty() => {
                let index = u.choose_index(self.held.len())?;
                self.give_back(index);
            }
            8 => {
                let capacity = match self.request(u)? {
                    usize::MAX => 100,
                    size => size + u.int_in_range(0..=9)?,
                };
                if self.held.len() < HELD_MAX {
                    let buf = BytesMut::with_capacity(capacity);
                    self.held.push(self.pool.adopt(buf));
                    self.adopted += 1;
                }
            }
            9 => {
                let before = self.pool.stats().total;
                let freed = self.pool.trim();
                let after = self.pool.stats().total;
                if quiet {
                    let less = before.retained_buffers - after.retained_buffers;
                    assert_eq!(freed.buffers as u64, less);
                    let less = before.retained_bytes - after.retained_bytes;
                    assert_eq!(freed.bytes as u64, less);
                }
                self.trimmed += freed.buffers as u64;
            }
            10 => {
                let before = self.pool.stats().total;
                let freed = self.pool.clear();
                if quiet {
                    assert_eq!(freed.buffers as u64, before.retained_buffers);
                    assert_eq!(freed.bytes as u64, before.retained_bytes);
                }
                let after = self.pool.stats().total;
                assert_eq!((after.retained_buffers, after.retained_bytes), (0, 0));
                self.trimmed += freed.buffers as u64;
                self.pool.reset_peaks();
                let peaks = self.pool.stats().peaks;
                if quiet {
                    let outstanding = after.outstanding_bytes;
                    let now = (peaks.footprint_bytes, peaks.outstanding_bytes);
                    assert_eq!((now, peaks.retained_bytes), ((outstanding, outstanding), 0));
                }
            }
            11 => {
                let size = self.request(u)?;
                let count = u.int_in_range(0..=6)?;
                if self.is_allocated(size) {
                    let made = self.pool.prefill(size, count);
                    assert!(made <= count);
                    assert!(made == 0 || self.class_of(size).is_some());
                    self.prefilled += made as u64;
                }
            }
            12 | 13 if !self.held.is_empty() => {
                let index = u.choose_index(self.held.len())?;
                let len = u.int_in_range(0..=9000)?;
                // A growing buffer takes a class that the pool chooses.
                let any_class = self.classes[self.classes.len() - 1] <= ALLOCATED_MAX;
                let buf = &mut self.held[index];
                let before = buf.len();
                if any_class || buf.capacity() - before >= len {
                    buf.extend_from_slice(&vec![before as u8; len]);
                    assert_eq!(buf.len(), before + len);
                    assert!(buf[before..].iter().all(|&byte| byte == before as u8));
                }
            }
            14 if !self.held.is_empty() => {
                let index = u.choose_index(self.held.len())?;
                drop(self.held.swap_remove(index).detach());
                self.detached += 1;
            }
            15 => {
                let now = self.pool.recalibrate();
                if let Some(lengths) = self.lengths.take_if(|all| !all.is_empty()) {
                    let part = self.options.calibrate_percentile.unwrap_or(0.95);
                    assert_eq!(Some(now), lengths.targets(part));
                    assert_eq!(self.pool.profile().calls(), lengths.calls());
                    assert_eq!(self.pool.stats().calibrations, 1);
                }
                let default_size = now.default_size;
                if self.is_allocated(default_size)
                    && self.held.len() < HELD_MAX
                    && !self.options.background_trim
                {
                    let buf = self.pool.get_default();
                    self.gets += 1;
                    assert!(buf.capacity() >= self.class_of(default_size).unwrap_or(default_size));
                    self.held.push(buf);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks the limits at any moment, and the sums while no thread is inside the pool.
    fn check(&self) {
        let options = self.options;
        let stats = self.pool.stats();
        let total = stats.total;
        let budget = options.retain_bytes(self.classes) as u64;
        assert!(total.retained_bytes <= budget, "{total:?}");
        if options.background_trim {
            return;
        }
        assert_eq!(total.outstanding, self.held.len() as u64);
        let capacities = self.held.iter().map(|buf| buf.capacity() as u64);
        assert_eq!(total.outstanding_bytes, capacities.sum::<u64>());
        assert!(total.footprint_bytes() <= stats.peaks.footprint_bytes);
        assert_eq!(total.gets, self.gets + total.growths);
        assert_eq!(total.adopted, self.adopted);
        assert_eq!(total.detached, self.detached);
        assert_eq!(total.prefilled, self.prefilled);
        assert!(total.trimmed >= self.trimmed);
        let came = total.gets + total.adopted;
        let went = total.returns + total.discards.total() + total.detached;
        assert_eq!(came, went + total.outstanding, "{total:?}");
        let all = stats.classes.iter().map(|class| &class.counts);
        let lines = all.clone().chain([&stats.unclassed]);
        let outstanding: u64 = lines.map(|counts| counts.outstanding_bytes).sum();
        assert_eq!(total.outstanding_bytes, outstanding, "{stats}");
        for counts in all.chain([&stats.unclassed, &total]) {
            let gets = counts.local_hits + counts.depot_hits + counts.misses + counts.oversize;
            assert_eq!(counts.gets, gets, "{counts:?}");
            let kept = counts.returns + counts.prefilled;
            let gone = counts.hits() + counts.trimmed + counts.retained_buffers;
            assert_eq!(kept, gone, "{counts:?}");
        }
        assert_eq!(stats.unclassed.retained_buffers, 0);
        let thread_cache = options.thread_cache_bytes.unwrap_or(8 << 20);
        for class in &stats.classes {
            let counts = &class.counts;
            let most = options.max_per_class() as u64;
            assert!(counts.retained_buffers <= most, "{class:?}");
            let least = counts.retained_buffers * class.capacity as u64;
            assert!(counts.retained_bytes >= least, "{class:?}");
            assert!(
                class.capacity <= thread_cache || counts.local_hits == 0,
                "{class:?}"
            );
        }
    }
}

fn run(u: &mut Unstructured) -> Result<()> {
    let options = Options::arbitrary(u)?;
    let mut idle = 0;
    if let Ok(classes) = options.expected() {
        let counts = classes
            .iter()
            .map(|&class| options.idle_of(&classes, class));
        idle = counts.fold(0, usize::saturating_add);
        if idle > IDLE_MAX || options.idle_bytes(&classes) > IDLE_BYTES_MAX {
            return Ok(());
        }
    }
    let pool = match (options.builder().build(), options.expected()) {
        (Err(error), Err(expected)) => {
            assert_eq!(Refusal::of(&error), expected, "{options:?}");
            check_text(&error, &expected);
            return Ok(());
        }
        (Err(error), Ok(_)) => panic!("refused: {error}: {options:?}"),
        (Ok(_), Err(expected)) => panic!("built, but {expected:?}: {options:?}"),
        (Ok(pool), Ok(classes)) => {
            assert_eq!(pool.classes(), classes, "{options:?}");
            pool
        }
    };
    let classes = pool.classes().to_vec();
    for class in pool.stats().classes {
        let kept = options.idle_of(&classes, class.capacity);
        assert_eq!(class.keep_idle, kept);
        if !options.background_trim {
            assert_eq!(class.counts.retained_buffers, kept as u64);
            assert_eq!(class.counts.retained_bytes, (kept * class.capacity) as u64);
        }
    }
    let now = pool.targets();
    let largest = classes[classes.len() - 1];
    if !options.background_trim {
        assert_eq!(pool.stats().calibrations, 0);
    }
    let (default_size, max_size, calls) = match &options.profile {
        Some(learned) => (learned.default_size, learned.max_size, learned.calls),
        None => (largest.min(4096), largest, 0),
    };
    assert_eq!((now.default_size, now.max_size), (default_size, max_size));
    assert_eq!(pool.profile().calls(), calls);

    let lengths = options.never_calibrates() && !options.background_trim;
    let mut using = Use {
        options: &options,
        classes: &classes,
        pool,
        held: Vec::new(),
        gets: 0,
        adopted: 0,
        detached: 0,
        prefilled: idle as u64,
        trimmed: 0,
        lengths: lengths.then(Histogram::new),
        has_caches: false,
    };
    let mut steps = using.begin(u);
    using.check();
    for _ in 0..24 {
        if u.is_empty() || steps.is_err() {
            break;
        }
        steps = using.step(u);
        using.check();
    }
    // Half of the guards outlive the pool.
    while using.held.len() > HELD_MAX / 2 {
        using.give_back(0);
    }
    using.check();
    let Use { pool, held, .. } = using;
    drop(pool);
    for mut buf in held {
        buf.extend_from_slice(&[7; 3][..3.min(buf.capacity() - buf.len())]);
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    // Too short an input ends the run early.
    let _ = run(&mut Unstructured::new(data));
});
