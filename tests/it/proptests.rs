//! Random operations on two pools, checked against the model.

use crate::model::{Model, Op};
use proptest::prelude::*;

/// Sizes at and around the classes, of every magnitude, and oversize.
fn any_size() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => 0_usize..300,
        2 => prop::sample::select(vec![0, 1, 63, 64, 65, 199, 200, 201, 1023, 1024, 1025]),
        2 => 300_usize..3000,
        1 => prop::sample::select(vec![299_999, 300_000, 300_001, 3 << 20, (3 << 20) + 1]),
    ]
}

/// What is written is filled byte by byte, so it stays small.
fn any_len() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0_usize..200, 2 => 200_usize..3000, 1 => Just(0_usize)]
}

fn any_op() -> impl Strategy<Value = Op> {
    let at = || 0_usize..1000;
    let pool = || 0_usize..2;
    prop_oneof![
        10 => (pool(), any_size()).prop_map(|(pool, size)| Op::Get { pool, size }),
        2 => (pool(), any_size(), 1_usize..80)
            .prop_map(|(pool, size, count)| Op::GetMany { pool, size, count }),
        3 => (pool(), any_size(), any_len())
            .prop_map(|(pool, capacity, len)| Op::Adopt { pool, capacity, len }),
        2 => (pool(), at()).prop_map(|(pool, part)| Op::AdoptPart { pool, part }),
        8 => (at(), any_len()).prop_map(|(guard, len)| Op::Write { guard, len }),
        3 => (at(), any_len()).prop_map(|(guard, len)| Op::WriteInside { guard, len }),
        3 => (at(), any_size()).prop_map(|(guard, additional)| Op::Reserve { guard, additional }),
        2 => (at(), any_len()).prop_map(|(guard, len)| Op::Resize { guard, len }),
        2 => (at(), any_len()).prop_map(|(guard, len)| Op::Truncate { guard, len }),
        4 => (at(), at()).prop_map(|(guard, count)| Op::Advance { guard, count }),
        3 => (at(), at(), any::<bool>())
            .prop_map(|(guard, at, keep)| Op::SplitTo { guard, at, keep }),
        3 => (at(), at(), any::<bool>())
            .prop_map(|(guard, at, keep)| Op::SplitOff { guard, at, keep }),
        3 => (at(), at(), any::<bool>())
            .prop_map(|(guard, at, keep)| Op::CopyToBytes { guard, at, keep }),
        2 => (at(), at()).prop_map(|(guard, other)| Op::Swap { guard, other }),
        12 => at().prop_map(|guard| Op::Drop { guard }),
        2 => (1_usize..100).prop_map(|count| Op::DropMany { count }),
        2 => at().prop_map(|guard| Op::Detach { guard }),
        1 => at().prop_map(|guard| Op::Forget { guard }),
        3 => at().prop_map(|guard| Op::Freeze { guard }),
        3 => (at(), at()).prop_map(|(frozen, from)| Op::Slice { frozen, from }),
        4 => at().prop_map(|frozen| Op::DropFrozen { frozen }),
        4 => at().prop_map(|part| Op::DropPart { part }),
        1 => pool().prop_map(|pool| Op::NewHandle { pool }),
        1 => pool().prop_map(|pool| Op::DropHandle { pool }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 128 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_pool_agrees_with_the_model(
        ops in prop::collection::vec(any_op(), 1..if cfg!(miri) { 30 } else { 200 }),
    ) {
        let mut model = Model::default();
        // More handles, so that most runs are not over early.
        for pool in [0, 0, 1, 1] {
            model.apply(&Op::NewHandle { pool });
        }
        for op in &ops {
            model.apply(op);
            model.check();
        }
        model.finish();
    }
}

fn run(ops: &[Op]) {
    let mut model = Model::default();
    for op in ops {
        model.apply(op);
        model.check();
    }
    model.finish();
}

// What random operations reach seldom: both levels full, and empty again.
#[test]
fn the_model_and_the_pool_agree_at_the_limits_of_every_class() {
    for pool in [0, 1] {
        for size in [64, 200, 1024, 300_000, 3 << 20] {
            let many = Op::GetMany {
                pool,
                size,
                count: 150,
            };
            let some = Op::GetMany {
                pool,
                size,
                count: 70,
            };
            run(&[
                many.clone(),
                Op::DropMany { count: 150 },
                some.clone(),
                Op::DropMany { count: 35 },
                some,
                Op::DropMany { count: 150 },
                many,
            ]);
            // And of those that are longer than their class.
            let mut loose = vec![
                Op::Adopt {
                    pool,
                    capacity: size + 1,
                    len: 0
                };
                40
            ];
            loose.push(Op::DropMany { count: 40 });
            loose.push(Op::GetMany {
                pool,
                size,
                count: 40,
            });
            run(&loose);
        }
    }
}

// Seldom, too: an empty part has no bytes, but it holds the allocation.
#[test]
fn the_model_and_the_pool_agree_on_a_long_buffer_of_which_an_empty_part_is_kept() {
    for pool in [0, 1] {
        for split in [
            Op::SplitTo {
                guard: 0,
                at: 0,
                keep: true,
            },
            Op::SplitOff {
                guard: 0,
                at: 201,
                keep: true,
            },
        ] {
            run(&[
                Op::Adopt {
                    pool,
                    capacity: 201,
                    len: 0,
                },
                Op::Drop { guard: 0 },
                Op::Get { pool, size: 200 },
                split,
                Op::Drop { guard: 0 },
                Op::Get { pool, size: 200 },
                Op::Drop { guard: 0 },
            ]);
        }
    }
}
