//! What a pool has learned goes on with another pool, and lasts where it is saved.

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

/// A pool that has learned 256 and 2048 bytes from 100 returns, and was asked for
/// some of 262,144 bytes.
fn learned() -> Pool {
    // It looks at each return, since none takes the fast path.
    let pool = by_hand().thread_cache_bytes(0).build().unwrap();
    (0..90).for_each(|_| pool.get(64).put_bytes(7, 200));
    (0..8).for_each(|_| pool.get(64).put_bytes(7, 2000));
    (0..2).for_each(|_| pool.get(200_000).put_bytes(7, 200));
    pool.recalibrate();
    pool
}

/// What it has learned: `default_size` and `max_size`.
const LEARNED: (usize, usize) = (256, 2048);

/// Whether a buffer of this capacity that nobody asked for is kept.
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
    // And a pool that begins with it is one without.
    let pool = pool_with(profile);
    assert_eq!(pool.profile().calls(), 0);
    assert_eq!(pool.targets().default_size, 4096);
    assert!(CLASSES.iter().all(|&capacity| keeps(&pool, capacity)));
    assert_eq!(pool.profile(), Profile::default());
}

#[test]
fn a_profile_says_the_targets_and_from_how_many_returns_they_were_made() {
    let profile = learned().profile();
    assert_eq!(profile.targets().map(sizes), Some(LEARNED));
    assert_eq!(profile.calls(), 100);
}

#[test]
fn a_pool_begins_with_the_targets_the_growth_and_the_kept_classes_of_a_profile() {
    let pool = pool_with(learned().profile());
    assert_eq!(
        (sizes(pool.targets()), pool.profile().calls()),
        (LEARNED, 100)
    );
    assert_eq!(sizes(pool.recalibrate()), LEARNED);
    assert_eq!(pool.stats().calibrations, 0, "nothing came back here");
    assert_eq!(pool.profile(), learned().profile());
    assert_eq!(pool.get_default().capacity(), 1024);
    // Grown by eight, to the maximum, and by 32.
    let mut buf = pool.get(64);
    let mut capacities = Vec::new();
    for len in [65, 1025, 16_385] {
        let more = len - buf.len();
        buf.put_bytes(7, more);
        capacities.push(buf.capacity());
    }
    drop(buf.detach());
    assert_eq!(capacities, [1024, 16_384, 1 << 20]);
    // The one that holds the maximum, and the one that was asked for.
    for (capacity, kept) in [
        (64, true),
        (1024, true),
        (16_384, true),
        (262_144, true),
        (1 << 20, false),
    ] {
        assert_eq!(keeps(&pool, capacity), kept, "{capacity}");
    }
    // From then on as any other: two requests bring it back, none let it go.
    drop((pool.get(1 << 20), pool.get(1 << 20)));
    assert!(keeps(&pool, 1 << 20));
    (0..10).for_each(|_| pool.get(64).put_bytes(7, 200));
    pool.recalibrate();
    assert_eq!(pool.stats().calibrations, 1);
    assert!(!keeps(&pool, 262_144), "not asked for here");
    assert!(keeps(&pool, 1 << 20));
}

#[test]
fn what_a_profile_says_gives_way_as_what_was_learned_here() {
    let pool = pool_with(learned().profile());
    // 55 of 100 are no clear lead over 45, and 3 % keep the maximum: so it is held.
    (0..43).for_each(|_| pool.get(64).put_bytes(7, 200));
    (0..53).for_each(|_| pool.get(64).put_bytes(7, 100));
    (0..4).for_each(|_| pool.get(64).put_bytes(7, 2000));
    assert_eq!(sizes(pool.recalibrate()), LEARNED);
}

#[test]
fn a_profile_is_for_pools_of_other_classes_too() {
    for (classes, kept) in [
        // The class that holds the 262,144 bytes asked for, which holds more.
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
fn a_profile_holds_where_the_pool_does_not_learn() {
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

    /// The format of version 1. It must be read for ever: whoever changes it makes a
    /// version 2, and another test.
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
        // And a program that goes on has the defaults.
        let profile: Profile = serde_json::from_str(saved).unwrap_or_default();
        assert_eq!(profile, Profile::default());
    }

    #[test]
    fn version_1_is_written_as_it_was_and_read_as_it_was() {
        let profile = learned().profile();
        assert_eq!(serde_json::to_string(&profile).unwrap(), VERSION_1);
        assert_eq!(read(VERSION_1).unwrap(), profile);
        let empty = Profile::default();
        assert_eq!(serde_json::to_string(&empty).unwrap(), VERSION_1_EMPTY);
        assert_eq!(read(VERSION_1_EMPTY).unwrap(), empty);
        assert_eq!(read(VERSION_1).unwrap().targets().map(sizes), Some(LEARNED));
    }

    #[test]
    fn it_is_read_in_any_order_with_fields_unknown_and_without_those_that_are_null() {
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
        // Where the steps end, and where one class is all that is kept.
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

    // As by a format that does not name what it has.
    #[test]
    fn it_is_read_from_a_sequence() {
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
        // Whatever else there is, or is missing.
        let newer = r#"{"version":7,"sizes":{"default":[1,2]},"calls":3}"#;
        assert_unusable(
            newer,
            "tierpool profile: version 7 cannot be read, only version 1",
        );
    }

    #[test]
    fn what_is_missing_is_an_error_that_names_it() {
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
    fn what_contradicts_itself_is_an_error_that_says_how() {
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
    fn what_is_of_another_type_or_too_large_is_an_error() {
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
                // As text: these may be more than a number of serde's holds.
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
    fn what_is_cut_off_anywhere_is_an_error() {
        for end in 0..VERSION_1.len() {
            assert_unusable(&VERSION_1[..end], "");
        }
    }

    #[test]
    fn what_is_changed_in_any_byte_is_an_error_or_a_profile_that_a_pool_can_begin_with() {
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
        fn what_any_pool_has_learned_is_read_as_it_was_saved(
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
            // And a pool that begins with it has learned the same.
            let again = Pool::builder().profile(profile.clone()).build().unwrap();
            prop_assert_eq!(again.profile(), profile);
            prop_assert_eq!(again.targets(), pool.targets());
        }
    }
}
