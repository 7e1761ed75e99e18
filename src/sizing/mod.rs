//! Size classes, and what is learned of sizes.
//!
//! From top to bottom: `profile` (what was learned, as it is saved), `calibrator` (when to
//! choose targets, and what follows from them), `size_class`, `histogram`, and `targets` (the
//! pure function from counts to targets). Knows nothing of buffers.

pub(crate) mod calibrator;
pub(crate) mod histogram;
pub(crate) mod profile;
pub(crate) mod samples;
pub(crate) mod size_class;
pub(crate) mod targets;
