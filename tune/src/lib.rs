//! What `tierpool-tune` is made of: reading a trace, replaying it, choosing, drawing.
//!
//! For the program, and for what tests it. No promise is made of this interface: it
//! changes with the program, in any release. The pool's own is the crate `tierpool`.

pub mod plot;
pub mod replay;
pub mod report;
pub mod trace;
