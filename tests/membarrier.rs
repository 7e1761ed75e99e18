//! The pool where the system call `membarrier` is refused: from the start, or by a
//! sandbox that the process enters later.
//!
//! Each scenario is a process of its own, with a seccomp filter, since a filter stays for
//! life and the pool decides once per process. No test harness: its threads would be under
//! the filter, too.
//!
//! Where no filter can be installed, or the kernel has no `membarrier` to refuse, this
//! fails; `TIERPOOL_SKIP_SECCOMP=1` lets it pass, and it says that it checked nothing.

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
