//! Options from variables of the environment.

use super::{NAMES, Options, Reason};
use crate::builder::Builder;
use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fmt;

impl Builder {
    /// Reads options from the variables of the environment whose names begin with `prefix`.
    ///
    /// The same as [`with_env`](Self::with_env) on the default options.
    ///
    /// # Errors
    ///
    /// As `with_env`.
    ///
    /// ```
    /// use tierpool::Builder;
    ///
    /// // Without such variables, these are the default options.
    /// let pool = Builder::from_env("EXAMPLE_POOL_")?.build()?;
    /// assert_eq!(pool.classes().last(), Some(&(1 << 20)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_env(prefix: &str) -> Result<Self, EnvError> {
        Builder::default().with_env(prefix)
    }

    /// Sets the options that variables of the environment name, and leaves the others as they are.
    ///
    /// A name is `prefix` and the name of an option in upper case. With the prefix `APP_POOL_`, this is
    /// the environment of a program:
    ///
    /// ```sh
    /// APP_POOL_MAX_SIZE="256 KiB"                # or 262144
    /// APP_POOL_RETAIN_BYTES=unlimited            # or a size
    /// APP_POOL_TRIM_INTERVAL=never               # or "10 s", "500 ms", 0.5 for seconds
    /// APP_POOL_ZERO_ON_RETURN=true               # or false
    /// APP_POOL_CLASSES="512, 2 KiB, 64 KiB"
    /// APP_POOL_KEEP_IDLE="16 KiB: 100, 4 KiB: 10"
    /// ```
    ///
    /// The units are B, KiB, MiB, GiB and so on, and ns, us, ms, s, min and h. All options of the builder
    /// can be set, except [`on_trim`](Self::on_trim) and [`profile`](Self::profile).
    ///
    /// - `CLASSES` replaces `min_size` and `max_size` of the builder, and the other way round. So do
    ///   `RETAIN_SHARE` and `retain_bytes`. `KEEP_IDLE` replaces all calls of `keep_idle`.
    /// - `RELEASE_WHEN_IDLE` gives way to the three options that it is shorthand for.
    ///
    /// The environment is read by this call alone, and [`build`](Self::build) checks the options as always.
    ///
    /// # Errors
    ///
    /// - [`EnvError::Unknown`] if a variable with the prefix names no option. So a misspelt name is found.
    ///   Choose a prefix that the program uses for nothing else.
    /// - [`EnvError::Value`] if a value cannot be read. An empty value cannot.
    ///
    /// If several variables are wrong, the first by name is reported.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let options = Pool::builder().max_size(64 << 10);
    /// let pool = options.with_env("EXAMPLE_POOL_")?.build()?;
    /// assert_eq!(pool.classes().last(), Some(&(64 << 10)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_env(self, prefix: &str) -> Result<Self, EnvError> {
        with_variables(self, prefix, env::vars_os())
    }
}

/// Sets the options that these variables name. Ignores those without the prefix.
fn with_variables(
    builder: Builder,
    prefix: &str,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Builder, EnvError> {
    // Ordered, so that the same environment always gives the same error.
    let named: BTreeMap<String, OsString> = variables
        .into_iter()
        // A name that is not Unicode names no option, and is refused as such.
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
        .filter(|(name, _)| after(prefix, name).is_some())
        .collect();
    let mut options = Options::default();
    for (variable, value) in named {
        let name = after(prefix, &variable).unwrap_or_default();
        let known = NAMES
            .iter()
            .find(|known| same(&known.to_ascii_uppercase(), name));
        let Some(mut slot) = known.and_then(|known| options.slot(known)) else {
            return Err(EnvError::Unknown {
                variable,
                prefix: prefix.to_owned(),
            });
        };
        let set = match value.to_str() {
            Some(text) => slot.set_text(text),
            None => Err(Reason::NotUnicode),
        };
        set.map_err(|reason| EnvError::Value {
            variable,
            value: value.to_string_lossy().into_owned(),
            reason: reason.to_string(),
            allowed: slot.allowed(),
        })?;
    }
    Ok(options.apply(builder))
}

/// The rest of a variable's name after the prefix, if it has that.
fn after<'a>(prefix: &str, name: &'a str) -> Option<&'a str> {
    let (begin, rest) = name.split_at_checked(prefix.len())?;
    same(begin, prefix).then_some(rest)
}

/// Whether two names are the same variable. On Windows, the case of letters makes no difference.
fn same(a: &str, b: &str) -> bool {
    match cfg!(windows) {
        true => a.eq_ignore_ascii_case(b),
        false => a == b,
    }
}

/// Tells which variable of the environment [`Builder::from_env`] or [`Builder::with_env`] refused, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnvError {
    /// A variable has the prefix, and the rest of its name is no option.
    #[non_exhaustive]
    Unknown {
        /// The name of the variable.
        variable: String,
        /// The prefix.
        prefix: String,
    },
    /// The value of a variable cannot be read.
    #[non_exhaustive]
    Value {
        /// The name of the variable.
        variable: String,
        /// Its value. What is not Unicode is replaced.
        value: String,
        /// What is wrong with it, to follow the value in a sentence.
        reason: String,
        /// Which values are allowed.
        allowed: &'static str,
    },
}

impl fmt::Display for EnvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { variable, prefix } => {
                write!(
                    f,
                    "{variable:?} names no option of a pool; unset it, or use "
                )?;
                for (at, name) in NAMES.iter().enumerate() {
                    let before = match at {
                        0 => "",
                        at if at + 1 == NAMES.len() => " or ",
                        _ => ", ",
                    };
                    write!(f, "{before}{prefix}{}", name.to_ascii_uppercase())?;
                }
                Ok(())
            }
            Self::Value {
                variable,
                value,
                reason,
                allowed,
            } => write!(f, "{variable} ({value:?}) {reason}; use {allowed}"),
        }
    }
}

impl Error for EnvError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ConfigError;
    use crate::pool::Pool;
    use std::time::Duration;

    fn set(builder: Builder, variables: &[(&str, &str)]) -> Result<Builder, EnvError> {
        let variables = variables
            .iter()
            .map(|(name, value)| (name.into(), value.into()));
        with_variables(builder, "APP_", variables)
    }

    /// The options as they print: a `Builder` cannot be compared.
    fn shown(builder: Builder) -> String {
        format!("{builder:?}")
    }

    #[track_caller]
    fn assert_sets(variables: &[(&str, &str)], expected: Builder) {
        assert_eq!(
            shown(set(Pool::builder(), variables).unwrap()),
            shown(expected)
        );
    }

    #[test]
    fn each_option_is_set_by_its_variable() {
        let never = None::<Duration>;
        assert_sets(&[], Pool::builder());
        assert_sets(&[("APP_MIN_SIZE", "1 KiB")], Pool::builder().min_size(1024));
        assert_sets(
            &[("APP_MAX_SIZE", "65536")],
            Pool::builder().max_size(65_536),
        );
        assert_sets(
            &[("APP_CLASSES", "512,2 KiB, 64KiB")],
            Pool::builder().classes([512, 2048, 65_536]),
        );
        assert_sets(
            &[("APP_RETAIN_BYTES", "0")],
            Pool::builder().retain_bytes(0),
        );
        assert_sets(
            &[("APP_RETAIN_BYTES", "unlimited")],
            Pool::builder().retain_bytes(usize::MAX),
        );
        assert_sets(
            &[("APP_RETAIN_SHARE", "0.05")],
            Pool::builder().retain_share(0.05),
        );
        assert_sets(
            &[("APP_KEEP_IDLE", "16 KiB: 100,4KiB:10")],
            Pool::builder()
                .keep_idle(16 << 10, 100)
                .keep_idle(4 << 10, 10),
        );
        assert_sets(
            &[("APP_MAX_PER_CLASS", "7")],
            Pool::builder().max_per_class(7),
        );
        assert_sets(&[("APP_MAX_PER_CLASS", "unlimited")], Pool::builder());
        assert_sets(
            &[("APP_THREAD_CACHE_BYTES", "1.5 MiB")],
            Pool::builder().thread_cache_bytes(3 << 19),
        );
        assert_sets(
            &[("APP_TRIM_INTERVAL", "0.5")],
            Pool::builder().trim_interval(Duration::from_millis(500)),
        );
        assert_sets(
            &[("APP_TRIM_INTERVAL", "never")],
            Pool::builder().trim_interval(never),
        );
        assert_sets(
            &[("APP_RELEASE_WHEN_IDLE", "10s")],
            Pool::builder().release_when_idle(Duration::from_secs(10)),
        );
        assert_sets(
            &[("APP_BACKGROUND_TRIM", "true")],
            Pool::builder().background_trim(true),
        );
        assert_sets(
            &[("APP_MALLOC_TRIM", " true ")],
            Pool::builder().malloc_trim(true),
        );
        assert_sets(
            &[("APP_ZERO_ON_RETURN", "true")],
            Pool::builder().zero_on_return(true),
        );
        assert_sets(
            &[("APP_REUSE_INITIALISED", "true")],
            Pool::builder().reuse_initialised(true),
        );
        assert_sets(
            &[("APP_COMPACT_BELOW", "10")],
            Pool::builder().compact_below(10),
        );
        assert_sets(
            &[("APP_LEARN_SIZES", "false")],
            Pool::builder().learn_sizes(false),
        );
        assert_sets(
            &[("APP_CALIBRATE_AFTER", "1000")],
            Pool::builder().calibrate_after(1000),
        );
        assert_sets(
            &[("APP_CALIBRATE_PERCENTILE", "0.5")],
            Pool::builder().calibrate_percentile(0.5),
        );
        assert_sets(
            &[("APP_CALIBRATE_INTERVAL", "1 min")],
            Pool::builder().calibrate_interval(Duration::from_secs(60)),
        );
    }

    #[test]
    #[cfg(feature = "limit")]
    fn the_limit_on_outstanding_bytes_is_set_and_lifted() {
        let limited = Pool::builder().max_outstanding_bytes(1 << 20);
        assert_sets(&[("APP_MAX_OUTSTANDING_BYTES", "1 MiB")], limited.clone());
        let lifted = set(limited, &[("APP_MAX_OUTSTANDING_BYTES", "unlimited")]);
        assert_eq!(shown(lifted.unwrap()), shown(Pool::builder()));
    }

    #[test]
    fn variables_without_the_prefix_are_ignored() {
        assert_sets(
            &[
                ("MAX_SIZE", "x"),
                ("app_MAX_SIZE", "x"),
                ("APP", "x"),
                ("XAPP_MAX_SIZE", "x"),
                ("\u{e4}\u{e4}\u{e4}", "x"),
            ],
            Pool::builder(),
        );
    }

    #[test]
    fn options_of_the_program_stay_unless_they_are_named() {
        let program = Pool::builder()
            .max_size(4096)
            .retain_bytes(1 << 20)
            .keep_idle(512, 3)
            .zero_on_return(true);
        let both = set(
            program,
            &[
                ("APP_RETAIN_SHARE", "0.5"),
                ("APP_CLASSES", "64"),
                ("APP_KEEP_IDLE", "64:1"),
            ],
        );
        let expected = Pool::builder()
            .classes([64])
            .retain_share(0.5)
            .keep_idle(64, 1)
            .zero_on_return(true);
        assert_eq!(shown(both.unwrap()), shown(expected));
        let listed = Pool::builder().classes([64]).retain_share(0.5);
        let both = set(
            listed,
            &[("APP_RETAIN_BYTES", "8 KiB"), ("APP_MAX_SIZE", "4 KiB")],
        );
        let expected = Pool::builder().max_size(4096).retain_bytes(8192);
        assert_eq!(shown(both.unwrap()), shown(expected));
    }

    #[test]
    fn a_shorthand_gives_way_to_what_it_stands_for() {
        let second = Duration::from_secs(1);
        assert_sets(
            &[
                ("APP_RELEASE_WHEN_IDLE", "10 s"),
                ("APP_MALLOC_TRIM", "false"),
                ("APP_BACKGROUND_TRIM", "false"),
                ("APP_TRIM_INTERVAL", "1"),
            ],
            Pool::builder()
                .release_when_idle(second)
                .malloc_trim(false)
                .background_trim(false)
                .trim_interval(second),
        );
    }

    #[test]
    fn build_refuses_what_it_refuses_of_the_program() {
        let refused = |variables: &[_]| {
            set(Pool::builder(), variables)
                .unwrap()
                .build()
                .unwrap_err()
        };
        assert!(matches!(
            refused(&[("APP_MAX_SIZE", "0")]),
            ConfigError::Zero { field: "max_size" }
        ));
        assert!(matches!(
            refused(&[("APP_MAX_SIZE", "1"), ("APP_CLASSES", "1")]),
            ConfigError::Conflict {
                field: "max_size",
                ..
            }
        ));
        assert!(matches!(
            refused(&[("APP_RETAIN_SHARE", "nan")]),
            ConfigError::Share { .. }
        ));
        assert!(matches!(
            refused(&[("APP_RETAIN_SHARE", "1"), ("APP_RETAIN_BYTES", "0")]),
            ConfigError::ShareBesideBytes { .. }
        ));
        assert!(matches!(
            refused(&[("APP_COMPACT_BELOW", "101")]),
            ConfigError::CompactBelow { .. }
        ));
        assert!(matches!(
            refused(&[("APP_RELEASE_WHEN_IDLE", "0")]),
            ConfigError::ZeroInterval {
                field: "release_when_idle"
            }
        ));
    }

    #[test]
    fn a_value_that_cannot_be_read_is_named_with_what_is_allowed() {
        const SIZE: &str = r#"a size such as 65536, "64 KiB" or "1.5 MiB""#;
        const TIME: &str =
            r#"a time such as "10 s", "500 ms" or "1.5 min", or a number of seconds"#;
        for (name, value, text) in [
            ("MAX_SIZE", "64 KB", format!(r#"("64 KB") has no known unit; use {SIZE}"#)),
            ("MAX_SIZE", "", format!(r#"("") does not begin with a number; use {SIZE}"#)),
            ("MAX_SIZE", "unlimited", format!(r#"("unlimited") does not begin with a number; use {SIZE}"#)),
            ("MIN_SIZE", "0.5", format!(r#"("0.5") has a fraction of the smallest unit; use {SIZE}"#)),
            ("RETAIN_BYTES", "-1", format!(r#"("-1") does not begin with a number; use {SIZE}, or "unlimited""#)),
            ("THREAD_CACHE_BYTES", "99 EiB", format!(r#"("99 EiB") is too large; use {SIZE}, or "unlimited""#)),
            ("RETAIN_SHARE", "5%", r#"("5%") is no number; use a number from 0 to 1, such as 0.05"#.into()),
            ("MAX_PER_CLASS", "-1", r#"("-1") is no whole number of this range; use a whole number from 0, or "unlimited""#.into()),
            ("CALIBRATE_AFTER", "1.5", r#"("1.5") is no whole number of this range; use a whole number from 0"#.into()),
            ("COMPACT_BELOW", "256", r#"("256") is no whole number of this range; use a whole number from 0 to 100"#.into()),
            ("ZERO_ON_RETURN", "yes", r#"("yes") is neither true nor false; use true or false"#.into()),
            ("RELEASE_WHEN_IDLE", "10 m", format!(r#"("10 m") has no known unit; use {TIME}"#)),
            ("TRIM_INTERVAL", "off", format!(r#"("off") does not begin with a number; use {TIME}, or "never""#)),
            ("CLASSES", "512,,64", r#"("512,,64") does not begin with a number; use sizes such as "512, 2 KiB, 64 KiB""#.into()),
            ("KEEP_IDLE", "16 KiB", r#"("16 KiB") has no colon between a size and a count; use sizes and counts such as "16 KiB: 100, 4 KiB: 10""#.into()),
            ("KEEP_IDLE", "16 KiB: x", r#"("16 KiB: x") is no whole number of this range; use sizes and counts such as "16 KiB: 100, 4 KiB: 10""#.into()),
        ] {
            let variable = format!("APP_{name}");
            let error = set(Pool::builder(), &[(&variable, value)]).unwrap_err();
            assert_eq!(error.to_string(), format!("{variable} {text}"));
        }
        let many = ["1"; 129].join(",");
        let error = set(Pool::builder(), &[("APP_CLASSES", &many)]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("has more than 128 entries; use sizes"),
            "{error}"
        );
    }

    #[test]
    fn a_name_that_is_no_option_is_refused_with_the_names_that_are() {
        for name in [
            "APP_RETAIN_BYTE",
            "APP_",
            "APP_max_size",
            "APP_ON_TRIM",
            "APP_PROFILE",
            "APP_\u{fffd}",
        ] {
            let error = set(Pool::builder(), &[("APP_MAX_SIZE", "1"), (name, "1")]).unwrap_err();
            assert!(matches!(&error, EnvError::Unknown { variable, .. } if variable == name));
            let text = error.to_string();
            let begin = format!(
                "{name:?} names no option of a pool; unset it, or use APP_MIN_SIZE, APP_MAX_SIZE, "
            );
            assert!(text.starts_with(&begin), "{text}");
            assert!(
                text.ends_with("APP_CALIBRATE_PERCENTILE or APP_CALIBRATE_INTERVAL"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_first_wrong_variable_by_name_is_reported() {
        let wrong = [("APP_MIN_SIZE", "x"), ("APP_MAX_SIZE", "x"), ("APP_X", "x")];
        let error = set(Pool::builder(), &wrong).unwrap_err();
        assert!(matches!(error, EnvError::Value { variable, .. } if variable == "APP_MAX_SIZE"));
    }

    #[test]
    #[cfg(unix)]
    fn a_value_that_is_not_unicode_is_refused() {
        use std::os::unix::ffi::OsStringExt;
        let odd = || OsString::from_vec(vec![b'1', 0xff]);
        let error =
            with_variables(Pool::builder(), "APP_", [("APP_MAX_SIZE".into(), odd())]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("APP_MAX_SIZE (\"1\u{fffd}\") is not Unicode; use a size"),
            "{error}"
        );
        let mut name = OsString::from("APP_");
        name.push(odd());
        let error = with_variables(Pool::builder(), "APP_", [(name, "1".into())]).unwrap_err();
        assert!(matches!(error, EnvError::Unknown { .. }));
    }
}
