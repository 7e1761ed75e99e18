//! Any byte string as operations on a pool of objects, checked against the model of the property
//! tests.

#![no_main]

#[path = "../../tests/common"]
mod common {
    #[allow(dead_code)] // the tests use more of it
    pub mod objects;
}

use libfuzzer_sys::fuzz_target;

/// The most operations of one input, to leave time for others.
const OPS_MAX: usize = 500;

fuzz_target!(|bytes: &[u8]| {
    let (mut model, ops) = common::objects::run(bytes);
    for op in ops.iter().take(OPS_MAX) {
        model.check(op);
    }
    let census = model.census.clone();
    drop(model);
    assert_eq!(census.alive(), 0);
});
