//! A pool's learned state can be given to another pool, and can be saved.

use crate::{class, options, sizes};
use bytes::{BufMut, BytesMut};
use tierpool::{Builder, Pool, Profile};

const CLASSES: [usize; 5] = [64, 1024, 16_384, 262_144, 1 << 20];

/// Options for a pool that calibrates only when the test calls `recalibrate`.
fn by_hand() -> Builder {
    options(&CLASSES)
        .calibrate_after(u64::MAX)
        .calibrate_interval(None)
}

fn pool_with(profile: Profile) -> Pool {
    by_hand().profile(profile).build().unwrap()
}

/// A pool that has learned 256 and 2048 bytes from 100 returns. Some requests were of 262,144
/// bytes.
fn learned() -> Pool {
    // Each return is a sample, since none takes the fast path.
    let pool = by_hand().thread_cache_bytes(0).build().unwrap();
    (0..90).for_each(|_| pool.get(64).put_bytes(7, 200));
    (0..8).for_each(|_| pool.get(64).put_bytes(7, 2000));
    (0..2).for_each(|_| pool.get(200_000).put_bytes(7, 200));
    pool.recalibrate();
    pool
}

/// The learned targets: `default_size` and `max_size`.
const LEARNED: (usize, usize) = (256, 2048);

/// Whether a buffer of this capacity is kept, though no caller asked for the size.
fn keeps(pool: &Pool, capacity: usize) -> bool {
    let freed = || class(pool, capacity).discards.above_max;
    let before = freed();
    drop(pool.adopt(BytesMut::with_capacity(capacity)));
    freed() == before
}

#[test]
fn a_pool_that_has_learned_nothing_has_an_empty_profile() {
    let pool = pool_with(Profile::default());
    pool.get(1000).put_bytes(7, 1000); // counted, but not calibrated
    let profile = pool.profile();
    assert_eq!(profile, Profile::default());
    assert_eq!((profile.targets(), profile.calls()), (None, 0));
    // A pool that begins with it is like a pool without a profile.
    let pool = pool_with(profile);
    assert_eq!(pool.profile().calls(), 0);
    assert_eq!(pool.targets().default_size, 4096);
    assert!(CLASSES.iter().all(|&capacity| keeps(&pool, capacity)));
    assert_eq!(pool.profile(), Profile::default());
}

#[test]
fn a_profile_has_the_targets_and_the_number_of_their_returns() {
    let profile = learned().profile();
    assert_eq!(profile.targets().map(sizes), Some(LEARNED));
    assert_eq!(profile.calls(), 100);
}

#[test]
fn a_profile_gives_a_pool_its_targets_growth_and_kept_classes() {
    let pool = pool_with(learned().profile());
    assert_eq!(
        (sizes(pool.targets()), pool.profile().calls()),
        (LEARNED, 100)
    );
    assert_eq!(sizes(pool.recalibrate()), LEARNED);
    assert_eq!(pool.stats().calibrations, 0, "nothing came back here");
    assert_eq!(pool.profile(), learned().profile());
    assert_eq!(pool.get_default().capacity(), 1024);
    // It grows eightfold, to the maximum, and by a factor of 32.
    let mut buf = pool.get(64);
    let mut capacities = Vec::new();
    for len in [65, 1025, 16_385] {
        let more = len - buf.len();
        buf.put_bytes(7, more);
        capacities.push(buf.capacity());
    }
    drop(buf.detach());
    assert_eq!(capacities, [1024, 16_384, 1 << 20]);
    // The class of the maximum is kept, and the class that was requested.
    for (capacity, kept) in [
        (64, true),
        (1024, true),
        (16_384, true),
        (262_144, true),
        (1 << 20, false),
    ] {
        assert_eq!(keeps(&pool, capacity), kept, "{capacity}");
    }
    // From then on as any other class: two requests bring it back, and none retires it.
    drop((pool.get(1 << 20), pool.get(1 << 20)));
    assert!(keeps(&pool, 1 << 20));
    (0..10).for_each(|_| pool.get(64).put_bytes(7, 200));
    pool.recalibrate();
    assert_eq!(pool.stats().calibrations, 1);
    assert!(!keeps(&pool, 262_144), "it was not requested here");
    assert!(keeps(&pool, 1 << 20));
}

#[test]
fn the_targets_of_a_profile_change_as_learned_targets_do() {
    let pool = pool_with(learned().profile());
    // 55 of 100 are no clear lead over 45, and 3 % keep the maximum, so the targets stay.
    (0..43).for_each(|_| pool.get(64).put_bytes(7, 200));
    (0..53).for_each(|_| pool.get(64).put_bytes(7, 100));
    (0..4).for_each(|_| pool.get(64).put_bytes(7, 2000));
    assert_eq!(sizes(pool.recalibrate()), LEARNED);
}

#[test]
fn a_profile_also_serves_pools_of_other_classes() {
    for (classes, kept) in [
        // The class for the requested 262,144 bytes, which is larger.
        (vec![4096, 300_000, 400_000], vec![4096, 300_000]),
        (vec![4096, 8192, 262_144], vec![4096, 262_144]),
        (vec![100_000], vec![100_000]),
        (vec![100], vec![100]),
        (vec![64, 128], vec![64, 128]),
    ] {
        let builder = options(&classes).calibrate_after(u64::MAX);
        let pool = builder.profile(learned().profile()).build().unwrap();
        assert_eq!(sizes(pool.targets()), LEARNED);
        for capacity in classes {
            assert_eq!(
                keeps(&pool, capacity),
                kept.contains(&capacity),
                "{capacity}"
            );
        }
    }
}

#[test]
fn a_profile_also_serves_a_pool_that_does_not_learn() {
    let builder = options(&CLASSES).learn_sizes(false).calibrate_after(0);
    let pool = builder.profile(learned().profile()).build().unwrap();
    (0..300).for_each(|_| pool.get(10).put_bytes(7, 10));
    assert_eq!(sizes(pool.targets()), LEARNED);
    assert!(!keeps(&pool, 1 << 20));
}

#[test]
fn the_last_profile_counts() {
    let builder = options(&CLASSES).profile(learned().profile());
    let pool = builder.profile(Profile::default()).build().unwrap();
    assert_eq!(pool.profile().calls(), 0);
}

#[cfg(feature = "serde")]
mod saved {
    use super::{LEARNED, learned, pool_with, sizes};
    use crate::rounds;
    use bytes::BufMut;
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde::de::IntoDeserializer;
    use serde::de::value::SeqDeserializer;
    use tierpool::{Pool, Profile};

    /// The format of version 1. It must be readable for ever. A change of the format needs a
    /// version 2, and a new test.
    const VERSION_1: &str =
        r#"{"version":1,"default_size":256,"max_size":2048,"calls":100,"kept":[262144]}"#;
    const VERSION_1_EMPTY: &str =
        r#"{"version":1,"default_size":null,"max_size":null,"calls":0,"kept":[]}"#;

    fn read(saved: &str) -> Result<Profile, String> {
        serde_json::from_str(saved).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn assert_unusable(saved: &str, says: &str) {
        let error = read(saved).expect_err(saved);
        assert!(error.contains(says), "{saved}: {error}");
        // A program that goes on without it has the defaults.
        let profile: Profile = serde_json::from_str(saved).unwrap_or_default();
        assert_eq!(profile, Profile::default());
    }

    #[test]
    fn version_1_is_written_and_read_without_a_change() {
        let profile = learned().profile();
        assert_eq!(serde_json::to_string(&profile).unwrap(), VERSION_1);
        assert_eq!(read(VERSION_1).unwrap(), profile);
        let empty = Profile::default();
        assert_eq!(serde_json::to_string(&empty).unwrap(), VERSION_1_EMPTY);
        assert_eq!(read(VERSION_1_EMPTY).unwrap(), empty);
        assert_eq!(read(VERSION_1).unwrap().targets().map(sizes), Some(LEARNED));
    }

    #[test]
    fn fields_may_be_in_any_order_unknown_or_null() {
        let same = [
            r#"{"kept":[262144],"calls":100,"max_size":2048,"default_size":256,"version":1}"#,
            r#"{"version":1,"default_size":256,"max_size":2048,"calls":100,"kept":[262144],
                "note":{"by":["hand"]}}"#,
        ];
        for saved in same {
            assert_eq!(read(saved).unwrap(), learned().profile(), "{saved}");
        }
        let empty = r#"{"version":1,"calls":0,"kept":[]}"#;
        assert_eq!(read(empty).unwrap(), Profile::default());
        // The largest step, and a single kept class.
        let largest = format!(
            r#"{{"version":1,"default_size":64,"max_size":64,"calls":1,"kept":[{}]}}"#,
            isize::MAX
        );
        for good in [
            r#"{"version":1,"default_size":64,"max_size":64,"calls":1,"kept":[65]}"#,
            r#"{"version":1,"default_size":64,"max_size":33554432,"calls":18446744073709551615,"kept":[]}"#,
            &largest,
        ] {
            let profile = read(good).unwrap();
            assert_eq!(serde_json::to_string(&profile).unwrap(), good);
            assert_eq!(
                pool_with(profile.clone()).profile().targets(),
                profile.targets()
            );
        }
    }

    // As from a format without field names.
    #[test]
    fn a_profile_is_read_from_a_sequence() {
        let all = (VERSION_1, learned().profile());
        for (saved, profile) in [all, (VERSION_1_EMPTY, Profile::default())] {
            let value: serde_json::Value = serde_json::from_str(saved).unwrap();
            let object = value.as_object().unwrap();
            let names = ["version", "default_size", "max_size", "calls", "kept"];
            let values = names.map(|name| object[name].clone());
            let sequence = SeqDeserializer::<_, serde_json::Error>::new(
                values.into_iter().map(IntoDeserializer::into_deserializer),
            );
            assert_eq!(Profile::deserialize(sequence).unwrap(), profile);
        }
    }

    #[test]
    fn another_version_is_an_error_that_names_it() {
        for (version, says) in [
            ("0", "version 0 cannot be read, only version 1"),
            ("2", "version 2 cannot be read, only version 1"),
            (
                "4294967295",
                "version 4294967295 cannot be read, only version 1",
            ),
            ("null", "tierpool profile: version is missing"),
        ] {
            let saved = VERSION_1.replace("\"version\":1", &format!("\"version\":{version}"));
            assert_unusable(&saved, says);
        }
        assert_unusable("{}", "tierpool profile: version is missing");
        // Whatever other fields there are, or are missing.
        let newer = r#"{"version":7,"sizes":{"default":[1,2]},"calls":3}"#;
        assert_unusable(
            newer,
            "tierpool profile: version 7 cannot be read, only version 1",
        );
    }

    #[test]
    fn a_missing_field_is_an_error_that_names_it() {
        for (field, says) in [
            ("\"default_size\":256,", "default_size is missing"),
            ("\"max_size\":2048,", "max_size is missing"),
            ("\"calls\":100,", "calls is missing"),
            (",\"kept\":[262144]", "kept is missing"),
        ] {
            let saved = VERSION_1.replace(field, "");
            assert_ne!(saved, VERSION_1);
            assert_unusable(&saved, &format!("tierpool profile: {says}"));
        }
        assert_unusable(
            r#"{"version":1,"calls":7,"kept":[]}"#,
            "default_size is missing",
        );
        assert_unusable(
            r#"{"version":1,"calls":0,"kept":[128]}"#,
            "default_size is missing",
        );
    }

    #[test]
    fn a_contradiction_is_an_error_that_explains_it() {
        let with = |default: &str, max: &str, calls: &str, kept: &str| {
            format!(
                r#"{{"version":1,"default_size":{default},"max_size":{max},"calls":{calls},"kept":{kept}}}"#
            )
        };
        for (saved, says) in [
            (
                with("2048", "256", "1", "[]"),
                "max_size: 256 bytes is below default_size, 2048 bytes",
            ),
            (
                with("256", "2048", "0", "[]"),
                "calls: 0, but there are sizes",
            ),
            (
                with("0", "2048", "1", "[]"),
                "default_size: 0 bytes is not a power of two from 64 to 33554432",
            ),
            (with("63", "64", "1", "[]"), "default_size: 63 bytes is not"),
            (with("32", "64", "1", "[]"), "default_size: 32 bytes is not"),
            (with("64", "65", "1", "[]"), "max_size: 65 bytes is not"),
            (
                with("64", "67108864", "1", "[]"),
                "max_size: 67108864 bytes is not a power of two",
            ),
            (
                with("64", &usize::MAX.to_string(), "1", "[]"),
                &format!("max_size: {} bytes is not", usize::MAX),
            ),
            (with("64", "64", "1", "[64]"), "kept: not an ascending list"),
            (with("64", "64", "1", "[0]"), "kept: not an ascending list"),
            (with("64", "64", "1", "[128,128]"), "kept: not an ascending"),
            (with("64", "64", "1", "[256,128]"), "kept: not an ascending"),
            (
                with("64", "64", "1", &format!("[{}]", isize::MAX as usize + 1)),
                "kept: not an ascending list of at most 128 sizes above max_size",
            ),
        ] {
            assert_unusable(&saved, &format!("tierpool profile: {says}"));
        }
        let long: Vec<usize> = (100..100 + 129).collect();
        let long = serde_json::to_string(&long).unwrap();
        assert_unusable(&with("64", "64", "1", &long), "at most 128 sizes");
        let fits: Vec<usize> = (100..100 + 128).collect();
        let fits = serde_json::to_string(&fits).unwrap();
        read(&with("64", "64", "1", &fits)).unwrap();
    }

    #[test]
    fn a_value_of_another_type_or_too_large_is_an_error() {
        for value in [
            "-1",
            "1.5",
            "\"1\"",
            "true",
            "[]",
            "{}",
            "1e3",
            "18446744073709551616",
            "[[]]",
        ] {
            for field in ["version", "default_size", "max_size", "calls", "kept"] {
                let mut saved: serde_json::Map<String, _> =
                    serde_json::from_str(VERSION_1).unwrap();
                // As text: the value may be too large for serde's numbers.
                saved.remove(field);
                let rest = serde_json::to_string(&saved).unwrap();
                let saved = rest.replacen('{', &format!("{{\"{field}\":{value},"), 1);
                if (field, value) == ("kept", "[]") {
                    read(&saved).unwrap();
                } else {
                    assert_unusable(&saved, "");
                }
            }
        }
        for saved in [
            "",
            "null",
            "1",
            "[]",
            "\"\"",
            "[1]",
            "[1,64,64]",
            "nonsense",
        ] {
            assert_unusable(saved, "");
        }
        let twice = VERSION_1.replacen('{', "{\"version\":1,", 1);
        assert_unusable(&twice, "duplicate field `version`");
    }

    #[test]
    fn a_text_that_is_cut_off_anywhere_is_an_error() {
        for end in 0..VERSION_1.len() {
            assert_unusable(&VERSION_1[..end], "");
        }
    }

    #[test]
    fn a_text_with_any_byte_changed_is_an_error_or_a_valid_profile() {
        let mut read_anyway = 0;
        for at in (0..VERSION_1.len()).step_by(rounds(1, 7)) {
            for byte in (0..=u8::MAX).step_by(rounds(1, 3)) {
                let mut saved = VERSION_1.as_bytes().to_vec();
                saved[at] = byte;
                let Ok(profile) = serde_json::from_slice::<Profile>(&saved) else {
                    continue;
                };
                read_anyway += 1;
                let pool = pool_with(profile.clone());
                assert_eq!(pool.profile().calls(), profile.calls());
                let again = serde_json::to_string(&profile).unwrap();
                assert_eq!(read(&again).unwrap(), profile);
            }
        }
        assert!(read_anyway > 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if crate::SLOW { 2 } else { 64 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn any_learned_profile_is_read_without_a_change(
            uses in prop::collection::vec((0_usize..2 << 20, 0_usize..20_000, any::<bool>()), 0..40),
            calibrations in 0..3,
        ) {
            let pool = Pool::builder().calibrate_after(u64::MAX).build().unwrap();
            for _ in 0..calibrations {
                for &(request, len, twice) in &uses {
                    pool.get(request).put_bytes(7, len);
                    if twice {
                        drop(pool.get(request));
                    }
                }
                pool.recalibrate();
            }
            let profile = pool.profile();
            let saved = serde_json::to_string(&profile).unwrap();
            prop_assert_eq!(&read(&saved).unwrap(), &profile);
            let pretty = serde_json::to_vec_pretty(&profile).unwrap();
            prop_assert_eq!(&serde_json::from_slice::<Profile>(&pretty).unwrap(), &profile);
            // A pool that begins with it has the same state.
            let again = Pool::builder().profile(profile.clone()).build().unwrap();
            prop_assert_eq!(again.profile(), profile);
            prop_assert_eq!(again.targets(), pool.targets());
        }
    }
}
