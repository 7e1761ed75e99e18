//! What a pool has learned, in a form that outlasts it.
//!
//! Owns the saved format and its version. Knows nothing of how it is learned.

use crate::sizing::targets::Targets;

/// Holds what a pool has learned, so that another pool can begin with it.
///
/// [`Pool::profile`](crate::Pool::profile) returns one, and
/// [`Builder::profile`](crate::Builder::profile) takes it. The default has learned nothing.
///
/// With the feature `serde`, any format of serde can save and read it. It is saved with a version.
/// Reading returns an error if the version is another, a field is missing, or fields contradict each
/// other. A program then begins with the default.
#[cfg_attr(feature = "serde", doc = "```")]
#[cfg_attr(not(feature = "serde"), doc = "```ignore")]
/// use tierpool::{Pool, Profile};
///
/// let pool = Pool::default();
/// pool.get(100).extend_from_slice(b"learned");
/// pool.recalibrate();
/// let saved = serde_json::to_string(&pool.profile())?;
///
/// let read = |saved: &str| {
///     serde_json::from_str(saved).unwrap_or_else(|error| {
///         eprintln!("the pool learns anew: {error}");
///         Profile::default()
///     })
/// };
/// assert_eq!(read(&saved), pool.profile());
/// assert_eq!(read("{\"version\": 0}"), Profile::default());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(into = "saved::Saved", try_from = "saved::Saved")
)]
pub struct Profile {
    pub(crate) targets: Option<Targets>,
    /// The number of returns that they were made from.
    pub(crate) calls: u64,
    /// Size classes above `max_size` that were asked for, ascending.
    pub(crate) kept: Vec<usize>,
}

impl Profile {
    /// Returns the targets, or `None` if nothing was learned.
    ///
    /// ```
    /// use tierpool::Profile;
    ///
    /// assert_eq!(Profile::default().targets(), None);
    /// ```
    #[must_use]
    pub fn targets(&self) -> Option<Targets> {
        self.targets
    }

    /// Returns the number of returned buffers that the targets were made from.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::new();
    /// pool.get(100).extend_from_slice(b"learned");
    /// pool.recalibrate();
    /// assert_eq!(pool.profile().calls(), 1);
    /// ```
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls
    }
}

#[cfg(feature = "serde")]
mod saved {
    use super::Profile;
    use crate::sizing::size_class::CLASSES_MAX;
    use crate::sizing::targets::{self, Targets};
    use crate::system::CAPACITY_MAX;
    use serde::{Deserialize, Serialize};
    use std::fmt;

    /// Changes with the meaning of any field.
    const VERSION: u32 = 1;

    /// A profile as it is saved. All fields are optional, so that the version is checked before a
    /// field is missed.
    #[derive(Serialize, Deserialize)]
    #[serde(rename = "Profile", expecting = "a tierpool profile")]
    pub(super) struct Saved {
        #[serde(default)]
        version: Option<u32>,
        #[serde(default)]
        default_size: Option<u64>,
        #[serde(default)]
        max_size: Option<u64>,
        #[serde(default)]
        calls: Option<u64>,
        #[serde(default)]
        kept: Option<Vec<u64>>,
    }

    /// Why a saved profile is of no use.
    #[derive(Debug)]
    pub(super) enum Unusable {
        NoVersion,
        Version(u32),
        Missing(&'static str),
        NoStep(&'static str, u64),
        MaxBelowDefault { default_size: u64, max_size: u64 },
        NoCalls,
        Kept,
    }

    impl fmt::Display for Unusable {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "tierpool profile: ")?;
            match self {
                Self::NoVersion => write!(f, "version is missing"),
                Self::Version(version) => {
                    write!(
                        f,
                        "version {version} cannot be read, only version {VERSION}"
                    )
                }
                Self::Missing(field) => write!(f, "{field} is missing"),
                Self::NoStep(field, size) => write!(
                    f,
                    "{field}: {size} bytes is not a power of two from 64 to 33554432"
                ),
                Self::MaxBelowDefault {
                    default_size,
                    max_size,
                } => write!(
                    f,
                    "max_size: {max_size} bytes is below default_size, {default_size} bytes"
                ),
                Self::NoCalls => write!(f, "calls: 0, but there are sizes"),
                Self::Kept => write!(
                    f,
                    "kept: not an ascending list of at most {CLASSES_MAX} sizes above max_size"
                ),
            }
        }
    }

    impl From<Profile> for Saved {
        fn from(profile: Profile) -> Self {
            let bytes = |size: usize| size as u64;
            Saved {
                version: Some(VERSION),
                default_size: profile.targets.map(|targets| bytes(targets.default_size)),
                max_size: profile.targets.map(|targets| bytes(targets.max_size)),
                calls: Some(profile.calls),
                kept: Some(profile.kept.into_iter().map(bytes).collect()),
            }
        }
    }

    impl TryFrom<Saved> for Profile {
        type Error = Unusable;

        fn try_from(saved: Saved) -> Result<Self, Unusable> {
            match saved.version {
                None => return Err(Unusable::NoVersion),
                Some(VERSION) => {}
                Some(other) => return Err(Unusable::Version(other)),
            }
            let calls = saved.calls.ok_or(Unusable::Missing("calls"))?;
            let kept = saved.kept.ok_or(Unusable::Missing("kept"))?;
            let (default_size, max_size) = match (saved.default_size, saved.max_size) {
                (None, None) if calls == 0 && kept.is_empty() => return Ok(Profile::default()),
                (None, _) => return Err(Unusable::Missing("default_size")),
                (_, None) => return Err(Unusable::Missing("max_size")),
                (Some(default_size), Some(max_size)) => (default_size, max_size),
            };
            if max_size < default_size {
                return Err(Unusable::MaxBelowDefault {
                    default_size,
                    max_size,
                });
            }
            if calls == 0 {
                return Err(Unusable::NoCalls);
            }
            let targets = Targets {
                default_size: step("default_size", default_size)?,
                max_size: step("max_size", max_size)?,
            };
            Ok(Profile {
                targets: Some(targets),
                calls,
                kept: above(max_size, &kept).ok_or(Unusable::Kept)?,
            })
        }
    }

    /// A size that calibration can give.
    fn step(field: &'static str, size: u64) -> Result<usize, Unusable> {
        let steps = (0..targets::STEPS).map(targets::step_size);
        steps
            .into_iter()
            .find(|&step| step as u64 == size)
            .ok_or(Unusable::NoStep(field, size))
    }

    /// The sizes, if they ascend from above `max_size`.
    fn above(max_size: u64, sizes: &[u64]) -> Option<Vec<usize>> {
        if sizes.len() > CLASSES_MAX {
            return None;
        }
        let mut previous = max_size;
        let ascending = sizes.iter().map(|&size| {
            let above = size > std::mem::replace(&mut previous, size);
            usize::try_from(size)
                .ok()
                .filter(|&size| above && size <= CAPACITY_MAX)
        });
        ascending.collect()
    }
}
