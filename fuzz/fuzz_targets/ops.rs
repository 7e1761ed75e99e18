//! Any byte string as operations on pools, on up to four threads that take turns, checked against
//! the model of the property tests.

#![no_main]

#[path = "../../tests/common"]
mod common {
    #[allow(dead_code, unused_imports)] // the property tests use more of it
    pub mod model;
}

use common::model::{self, Model};
use libfuzzer_sys::fuzz_target;

/// The most operations of one input, to leave time for others.
const OPS_MAX: usize = 500;

fuzz_target!(|bytes: &[u8]| {
    let (options, ops) = model::bytes::run(bytes);
    let mut model = Model::new(&options);
    for op in ops.iter().take(OPS_MAX) {
        model.apply(op);
        model.check();
    }
    model.finish();
});
