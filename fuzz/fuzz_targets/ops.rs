//! Any byte string as operations on pools, on up to four threads in lock-step, checked
//! against the model of the property tests.

#![no_main]

#[allow(dead_code, unused_imports)] // the property tests use more of it
#[path = "../../tests/model/mod.rs"]
mod model;

use libfuzzer_sys::fuzz_target;
use model::Model;

/// Operations of one input: as many as leave time for others.
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
