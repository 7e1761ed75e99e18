//! Options by serde. A value is what its text would be in the environment, or a number, a flag or a list.

use super::{INTERVAL_NEVER, LIMIT_UNLIMITED, NAMES, Options, Reason, Slot};
use crate::builder::{Builder, RELEASE_WHEN_IDLE};
use crate::engine::UNLIMITED;
use crate::sizing::profile::Profile;
use crate::sizing::size_class::CLASSES_MAX;
use crate::units::{self, Exact, ExactTime};
use ::serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Unexpected, Visitor,
};
use ::serde::ser::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

const PROFILE: &str = "profile";

/// Reads the options that are named, and leaves the others at their defaults. A name that is no option is
/// an error, and so is a value that cannot be read. [`build`](Builder::build) checks the rest.
///
/// | value | as |
/// |---|---|
/// | a size | 65536, `"64 KiB"`, `"1.5 MiB"`; a limit may be `"unlimited"` |
/// | a time | `"10 s"`, `"500 ms"`, or a number of seconds; an interval may be `"never"` |
/// | `classes` | a list of sizes, or a text with commas |
/// | `keep_idle` | a map from sizes to counts, or a text as in [`with_env`](Builder::with_env) |
/// | `profile` | as a [`Profile`] |
///
/// [`on_trim`](Builder::on_trim) is code, so it has no name here.
/// [`release_when_idle`](Builder::release_when_idle) gives way to the options that it is shorthand for, in
/// any order.
///
/// The format must describe itself, as JSON, TOML and YAML do.
///
/// ```
/// use tierpool::Builder;
///
/// let options: Builder = serde_json::from_str(
///     r#"{
///         "max_size": "256 KiB",
///         "release_when_idle": "10 s",
///         "keep_idle": { "16 KiB": 32 }
///     }"#,
/// )?;
/// assert_eq!(options.build()?.stats().total.retained_bytes, 512 << 10);
///
/// let error = serde_json::from_str::<Builder>(r#"{"max_size": "256 KB"}"#).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "max_size (\"256 KB\") has no known unit; use a size such as 65536, \"64 KiB\" or \"1.5 MiB\" \
///      at line 1 column 21"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
impl<'de> Deserialize<'de> for Builder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As a map: a struct of some formats is a list without names.
        deserializer
            .deserialize_map(Named)
            .map(|options| options.apply(Builder::default()))
    }
}

/// Reads a map from names of options to values.
struct Named;

impl<'de> Visitor<'de> for Named {
    type Value = Options;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the options of a tierpool pool")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Options, A::Error> {
        let mut options = Options::default();
        let mut seen = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let known = NAMES.iter().chain([&PROFILE]).find(|known| **known == name);
            let Some(&name) = known else {
                return Err(de::Error::custom(format_args!(
                    "{name:?} is no option of a tierpool pool; use one of {}, {PROFILE}",
                    NAMES.join(", ")
                )));
            };
            if seen.contains(&name) {
                return Err(de::Error::duplicate_field(name));
            }
            seen.push(name);
            match options.slot(name) {
                Some(slot) => map.next_value_seed(Value { name, slot })?,
                None => options.profile = Some(map.next_value::<Profile>()?),
            }
        }
        Ok(options)
    }
}

/// Reads the value of the option `name`.
struct Value<'a> {
    name: &'static str,
    slot: Slot<'a>,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}", self.slot.allowed(), self.name)
    }

    // A number or a flag is read as its text, so that all sources accept the same.

    fn visit_str<E: de::Error>(mut self, text: &str) -> Result<(), E> {
        let set = self.slot.set_text(text);
        set.map_err(|reason| self.refuse(text, reason))
    }

    fn visit_bool<E: de::Error>(self, on: bool) -> Result<(), E> {
        self.visit_str(&on.to_string())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<(), E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<(), E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<(), E> {
        match self.slot {
            // Seconds, to the nanosecond.
            Slot::Time(_) | Slot::Interval(_) => self.visit_str(&format!("{number:.9}")),
            _ => self.visit_str(&number.to_string()),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        let mut sizes = Vec::new();
        while let Some(Text(text)) = list.next_element()? {
            if sizes.len() == CLASSES_MAX {
                return Err(self.refuse("a list", Reason::TooMany));
            }
            let size = units::parse_bytes(&text);
            sizes.push(size.map_err(|why| self.refuse(&text, why.into()))?);
        }
        match &mut self.slot {
            Slot::Sizes(slot) => **slot = Some(sizes),
            _ => return Err(de::Error::invalid_type(Unexpected::Seq, &self)),
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut kept = Vec::new();
        if !matches!(self.slot, Slot::Kept(_)) {
            return Err(de::Error::invalid_type(Unexpected::Map, &self));
        }
        while let Some((Text(size), Text(count))) = map.next_entry()? {
            let bytes = units::parse_bytes(&size);
            let bytes = bytes.map_err(|why| self.refuse(&size, why.into()))?;
            let buffers = super::number(&count, Reason::NotACount);
            kept.push((bytes, buffers.map_err(|why| self.refuse(&count, why))?));
        }
        if let Slot::Kept(slot) = &mut self.slot {
            **slot = Some(kept);
        }
        Ok(())
    }
}

impl Value<'_> {
    fn refuse<E: de::Error>(&self, value: &str, reason: Reason) -> E {
        let Value { name, slot } = self;
        E::custom(format_args!(
            "{name} ({value:?}) {reason}; use {}",
            slot.allowed()
        ))
    }
}

/// A number or a text, as text.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;

        impl Visitor<'_> for Scalar {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size or a count, in classes or keep_idle")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }
        }

        deserializer.deserialize_any(Scalar)
    }
}

/// Writes the options that differ from the defaults, in the form that is read back.
///
/// [`on_trim`](Builder::on_trim) is code, and is left out: set it again after reading.
///
/// ```
/// use tierpool::Pool;
///
/// let options = Pool::builder().max_size(256 << 10).zero_on_return(true);
/// let text = serde_json::to_string(&options)?;
/// assert_eq!(text, r#"{"max_size":"256 KiB","zero_on_return":true}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
impl Serialize for Builder {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(changed(self))
    }
}

/// The value of an option, as it is written.
#[derive(::serde::Serialize)]
#[serde(untagged)]
enum Written {
    Flag(bool),
    Number(u64),
    Share(f64),
    Text(String),
    Sizes(Vec<String>),
    Kept(BTreeMap<String, usize>),
    Profile(Profile),
}

fn size(bytes: usize) -> Written {
    Written::Text(Exact(bytes).to_string())
}

fn limit(bytes: usize) -> Written {
    match bytes {
        UNLIMITED => Written::Text(LIMIT_UNLIMITED.to_owned()),
        bytes => size(bytes),
    }
}

fn count(buffers: usize) -> Written {
    match buffers {
        UNLIMITED => Written::Text(LIMIT_UNLIMITED.to_owned()),
        buffers => Written::Number(buffers as u64),
    }
}

/// What is no finite number is a text: JSON would write `null`. `build` refuses it, and names it.
fn share(share: f64) -> Written {
    match share.is_finite() {
        true => Written::Share(share),
        false => Written::Text(share.to_string()),
    }
}

fn interval(time: Option<Duration>) -> Written {
    Written::Text(match time {
        Some(time) => ExactTime(time).to_string(),
        None => INTERVAL_NEVER.to_owned(),
    })
}

/// The options that differ from the defaults.
fn changed(builder: &Builder) -> Vec<(&'static str, Written)> {
    let default = Builder::default();
    let mut changed = Vec::new();
    let mut write = |name, value: Option<Written>| {
        if let Some(value) = value {
            changed.push((name, value));
        }
    };
    let flag = |now: bool, before: bool| (now != before).then_some(Written::Flag(now));

    write("min_size", builder.min_size.map(size));
    write("max_size", builder.max_size.map(size));
    let sizes = |classes: &Vec<usize>| {
        Written::Sizes(
            classes
                .iter()
                .map(|&bytes| Exact(bytes).to_string())
                .collect(),
        )
    };
    write("classes", builder.classes.as_ref().map(sizes));
    write("retain_bytes", builder.retain_bytes.map(limit));
    write("retain_share", builder.retain_share.map(share));
    let mut kept = BTreeMap::new();
    for &(bytes, buffers) in &builder.keep_idle {
        // Calls for the same size add up.
        let sum = kept.entry(Exact(bytes).to_string()).or_insert(0_usize);
        *sum = sum.saturating_add(buffers);
    }
    write(
        "keep_idle",
        (!kept.is_empty()).then_some(Written::Kept(kept)),
    );
    write(
        "max_outstanding_bytes",
        builder.max_outstanding_bytes.map(limit),
    );
    let differs = builder.max_per_class != default.max_per_class;
    write(
        "max_per_class",
        differs.then(|| count(builder.max_per_class)),
    );
    let differs = builder.thread_cache_bytes != default.thread_cache_bytes;
    write(
        "thread_cache_bytes",
        differs.then(|| limit(builder.thread_cache_bytes)),
    );
    // The shorthand, if it set the interval. Then the other two are written if they differ from it.
    let idle = builder
        .trim_interval
        .filter(|_| builder.interval_set_by == RELEASE_WHEN_IDLE);
    let differs = idle.is_none() && builder.trim_interval != default.trim_interval;
    write(
        "trim_interval",
        differs.then(|| interval(builder.trim_interval)),
    );
    write("release_when_idle", idle.map(|idle| interval(Some(idle))));
    write(
        "background_trim",
        flag(builder.background_trim, idle.is_some()),
    );
    write("malloc_trim", flag(builder.malloc_trim, idle.is_some()));
    write(
        "zero_on_return",
        flag(builder.zero_on_return, default.zero_on_return),
    );
    write(
        "reuse_initialised",
        flag(builder.reuse_initialised, default.reuse_initialised),
    );
    let differs = builder.compact_below != default.compact_below;
    let percent = Written::Number(builder.compact_below.into());
    write("compact_below", differs.then_some(percent));
    write(
        "learn_sizes",
        flag(builder.learn_sizes, default.learn_sizes),
    );
    let differs = builder.calibrate_after != default.calibrate_after;
    write(
        "calibrate_after",
        differs.then_some(Written::Number(builder.calibrate_after)),
    );
    let differs = builder.calibrate_percentile != default.calibrate_percentile;
    let percentile = builder.calibrate_percentile;
    write("calibrate_percentile", differs.then(|| share(percentile)));
    let differs = builder.calibrate_interval != default.calibrate_interval;
    write(
        "calibrate_interval",
        differs.then(|| interval(builder.calibrate_interval)),
    );
    let differs = builder.profile != default.profile;
    write(
        PROFILE,
        differs.then(|| Written::Profile(builder.profile.clone())),
    );
    changed
}
