//! The parts of `tierpool-tune`: reading a trace, replaying it, choosing, drawing.
//!
//! For the program and its tests only. This interface is not stable: it changes with the program,
//! in any release. The pool's interface is the crate `tierpool`.

pub mod plot;
pub mod replay;
pub mod report;
pub mod trace;
