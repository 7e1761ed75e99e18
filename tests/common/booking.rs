//! A global allocator that books each block to the ledger of the thread that asked for it,
//! whichever thread frees the block. It can refuse blocks.
//!
//! Owns the header of each block. Knows nothing of the ledgers' contents.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::marker::PhantomData;

/// A test's record of the blocks.
pub trait Books {
    /// Whether to refuse a block to a thread of `ledger` that asks for it.
    fn refuses(_ledger: usize, _layout: Layout) -> bool {
        false
    }

    /// A thread of `ledger` has received a block.
    fn allocated(ledger: usize, layout: Layout);

    /// A block that was booked to `ledger` is about to be freed.
    fn freed(ledger: usize, layout: Layout);
}

thread_local! {
    static LEDGER: Cell<usize> = const { Cell::new(0) };
}

/// Books the calling thread's allocations from now on to `ledger`. Before the first call, that is
/// ledger 0.
pub fn join(ledger: usize) {
    LEDGER.set(ledger);
}

/// The allocator.
pub struct Booking<B>(PhantomData<fn() -> B>);

impl<B> Booking<B> {
    pub const fn new() -> Self {
        Booking(PhantomData)
    }
}

/// The size of a block's header, which holds the number of its ledger.
fn header(layout: Layout) -> usize {
    layout.align().max(16)
}

fn with_header(layout: Layout) -> Option<Layout> {
    let size = layout.size().checked_add(header(layout))?;
    Layout::from_size_align(size, header(layout)).ok()
}

// SAFETY: blocks are the system allocator's, moved up by a header that is a
// multiple of the alignment asked for.
unsafe impl<B: Books> GlobalAlloc for Booking<B> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(outer) = with_header(layout) else {
            return std::ptr::null_mut();
        };
        let ledger = LEDGER.get();
        if B::refuses(ledger, layout) {
            return std::ptr::null_mut();
        }
        // SAFETY: `outer` has a size above 0.
        let start = unsafe { System.alloc(outer) };
        if start.is_null() {
            return start;
        }
        B::allocated(ledger, layout);
        // SAFETY: the block begins with a header of at least 16 bytes, whose size is a multiple of
        // 16. So its last word is aligned and belongs to this allocator.
        unsafe {
            let block = start.add(header(layout));
            block.cast::<usize>().sub(1).write(ledger);
            block
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let outer = with_header(layout).expect("`alloc` was called with this layout");
        // SAFETY: `alloc` wrote the ledger in front of the block.
        B::freed(unsafe { block.cast::<usize>().sub(1).read() }, layout);
        // SAFETY: the block is one of `alloc`'s, which put it this far behind
        // the start of an allocation with this layout.
        unsafe { System.dealloc(block.sub(header(layout)), outer) };
    }
}
