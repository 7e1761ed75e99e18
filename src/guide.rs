//! The guide: pages for users of the crate. Documentation only; no code.
//!
//! | page | question |
//! |---|---|
//! | [`getting_started`] | How do I write a server with it? |
//! | [`frames`] | How do I share parts of a buffer, and what keeps it out? |
//! | [`framing`] | Which reader fits my protocol? |
//! | [`bodies`] | How do I stream HTTP bodies? |
//! | [`io_uring`] | How do I use guards with an io_uring runtime? |
//! | [`size_classes`] | Which size classes do I set? |
//! | [`options`] | What do the limits mean together, for N threads? |
//! | [`limits`] | How do I bound what is in flight? |
//! | [`threads`] | What happens with many threads, and under tokio? |
//! | [`memory`] | Who holds memory, and when does it go back? |
//! | [`learned_sizes`] | Which sizes does the pool learn, and what for? |
//! | [`troubleshooting`] | Which number is high, and what do I do? |
//! | [`coming_from`] | I know another pool: what is its counterpart? |
//! | [`terms`] | What does a word mean here? |

// The pages link to one another's files, for a reader of the repository. The definitions above each
// page come first, so here the same links lead to the modules.

/// A network server, line by line.
///
/// [frames]: crate::guide::frames
/// [options]: crate::guide::options
/// [troubleshooting]: crate::guide::troubleshooting
#[doc = include_str!("../docs/guide/getting_started.md")]
pub mod getting_started {}

/// Parts that share a buffer, rooms for reads, and pitfalls.
#[doc = include_str!("../docs/guide/frames.md")]
pub mod frames {}

/// Length fields, delimiters and codecs, and limits on frames.
#[doc = include_str!("../docs/guide/framing.md")]
#[cfg_attr(feature = "tokio", doc = "```no_run")]
#[cfg_attr(not(feature = "tokio"), doc = "```ignore")]
#[doc = include_str!("../examples/framed_server.rs")]
#[doc = "```"]
pub mod framing {}

/// HTTP bodies that are streamed or collected, and a complete program.
#[doc = include_str!("../docs/guide/bodies.md")]
#[cfg_attr(all(feature = "http-body", feature = "tokio"), doc = "```no_run")]
#[cfg_attr(not(all(feature = "http-body", feature = "tokio")), doc = "```ignore")]
#[doc = include_str!("../examples/http_bodies.rs")]
#[doc = "```"]
pub mod bodies {}

/// Guards and parts as buffers of io_uring runtimes, and a complete program.
#[doc = include_str!("../docs/guide/io_uring.md")]
#[cfg_attr(all(feature = "monoio", unix), doc = "```no_run")]
#[cfg_attr(not(all(feature = "monoio", unix)), doc = "```ignore")]
#[doc = include_str!("../examples/io_uring.rs")]
#[doc = "```"]
pub mod io_uring {}

/// How requests map to size classes, and how to choose them.
#[doc = include_str!("../docs/guide/size_classes.md")]
pub mod size_classes {}

/// What the limits mean together, with a worked example.
///
/// [limits]: crate::guide::limits
/// [memory]: crate::guide::memory
#[doc = include_str!("../docs/guide/options.md")]
pub mod options {}

/// A limit on outstanding bytes: shed load, or wait.
///
/// [options]: crate::guide::options
/// [program]: crate::guide::limits#the-program
#[doc = include_str!("../docs/guide/limits.md")]
///
/// # The program
///
#[cfg_attr(feature = "limit", doc = "```no_run")]
#[cfg_attr(not(feature = "limit"), doc = "```ignore")]
#[doc = include_str!("../examples/udp_receiver.rs")]
/// ```
pub mod limits {}

/// Handles, thread caches, runtimes and threads that end.
///
/// [memory]: crate::guide::memory
#[doc = include_str!("../docs/guide/threads.md")]
pub mod threads {}

/// Who holds memory, how much, and when it goes back.
#[doc = include_str!("../docs/memory.md")]
pub mod memory {}

/// What the pool records, and what it decides by that.
#[doc = include_str!("../docs/learning.md")]
pub mod learned_sizes {}

/// What each counter means, and what to do.
///
/// [classes]: crate::guide::size_classes
/// [frames]: crate::guide::frames
#[doc = include_str!("../docs/guide/troubleshooting.md")]
pub mod troubleshooting {}

/// The pools of Go, Java and C#, each with its counterpart here.
#[doc = include_str!("../docs/guide/coming_from.md")]
pub mod coming_from {}

/// The words of this crate.
#[doc = include_str!("../docs/guide/terms.md")]
pub mod terms {}
