//! The owned-buffer traits of io_uring runtimes. Owns nothing: each trait asks for an address, the
//! room there, and the bytes that are initialised.
//!
//! One reason holds for all addresses: a guard or a part owns its buffer, which lies on the heap. A
//! move of the guard or the part does not move the buffer, and nothing else does while a runtime
//! owns them. The bytes of a part never change while it exists. Contents and room of a guard are the
//! guard's alone: parts that share the buffer lie before them.

#[cfg(feature = "compio")]
mod compio;
#[cfg(all(feature = "monoio", unix))]
mod monoio;
#[cfg(all(feature = "tokio-uring", target_os = "linux"))]
mod tokio_uring;
