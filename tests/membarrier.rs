//! The pool where the system call `membarrier` is refused: from the start, or by a
//! sandbox that the process enters later.
//!
//! Each scenario runs in its own process, with a seccomp filter. A filter stays for the life of the
//! process, and the pool decides once per process. No test harness: its threads would be under the
//! filter, too.
//!
//! Fails if no filter can be installed, or if the kernel has no `membarrier` to refuse.
//! `TIERPOOL_SKIP_SECCOMP=1` lets it pass, and it prints that it checked nothing.

#[cfg(all(target_os = "linux", not(miri)))]
mod common {
    pub mod accounts;
    pub mod booking;
    pub mod forget;
    pub mod live;
    pub mod membarrier;
}

#[cfg(all(target_os = "linux", not(miri)))]
fn main() {
    common::membarrier::main();
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn main() {
    println!("only Linux has membarrier: nothing to check");
}
