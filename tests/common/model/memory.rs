//! Allocations, and which part of one each `BytesMut` or `Bytes` covers.
//!
//! Owns the rules of `bytes`: splits, and room that comes back. Knows nothing of pools.

use bytes::BytesMut;
use std::collections::BTreeMap;
use std::mem;

/// One allocation, which views share.
#[derive(Clone, Debug)]
pub(super) struct Allocation {
    pub(super) base: usize,
    pub(super) capacity: usize,
    pub(super) views: usize,
    /// Whether its `BytesMut` counts its parts. It does from the first split on.
    pub(super) counted: bool,
    /// How far contents have ever reached from its beginning.
    written: usize,
}

/// The part of an allocation that one `BytesMut` or `Bytes` covers.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) allocation: usize,
    pub(super) offset: usize,
    pub(super) capacity: usize,
    pub(super) contents: Vec<u8>,
}

/// Which bytes of a buffer its pool knows to be initialised, and to be zero. Offsets are from the
/// buffer's beginning.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Zeros {
    pub(super) initialised: usize,
    /// If `known`, the bytes from here to `initialised` are zero, except used ones.
    pub(super) from: usize,
    pub(super) known: bool,
}

impl Zeros {
    /// For a new buffer that the system has zeroed.
    pub(super) fn all(capacity: usize) -> Self {
        Zeros {
            initialised: capacity,
            from: 0,
            known: capacity > 0,
        }
    }

    pub(super) fn note_from(&mut self, start: usize) {
        if start < self.initialised {
            self.from = start;
            self.known = true;
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) allocations: BTreeMap<usize, Allocation>,
    last: usize,
}

impl Memory {
    /// The view of a `BytesMut` that shares its allocation with no other.
    pub(super) fn seen(&mut self, buf: &BytesMut, offset: usize, counted: bool) -> View {
        self.last += 1;
        self.allocations.insert(
            self.last,
            Allocation {
                base: buf.as_ptr().addr() - offset,
                capacity: buf.capacity() + offset,
                views: 1,
                counted,
                written: offset + buf.len(),
            },
        );
        View {
            allocation: self.last,
            offset,
            capacity: buf.capacity(),
            contents: buf.to_vec(),
        }
    }

    /// The view of a new buffer. Only its address is known.
    pub(super) fn made(&mut self, base: usize, capacity: usize) -> View {
        self.last += 1;
        self.allocations.insert(
            self.last,
            Allocation {
                base,
                capacity,
                views: 1,
                counted: false,
                written: 0,
            },
        );
        View {
            allocation: self.last,
            offset: 0,
            capacity,
            contents: Vec::new(),
        }
    }

    /// Notes that bytes behind a view's contents were written.
    pub(super) fn note_written_behind(&mut self, view: &View, count: usize) {
        let allocation = self.allocations.get_mut(&view.allocation).unwrap();
        let end = view.offset + view.contents.len() + count;
        allocation.written = end.min(allocation.capacity).max(allocation.written);
    }

    pub(super) fn of(&self, view: &View) -> &Allocation {
        &self.allocations[&view.allocation]
    }

    pub(super) fn address(&self, view: &View) -> usize {
        self.of(view).base + view.offset
    }

    /// Notes which bytes of a view are contents.
    pub(super) fn note_written(&mut self, view: &View) {
        let allocation = self.allocations.get_mut(&view.allocation).unwrap();
        let end = view.offset + view.contents.len();
        allocation.written = end.max(allocation.written);
    }

    /// Asserts that a buffer with all of an allocation shows no old contents. Up to `behind` bytes
    /// behind its contents may have been written since.
    ///
    /// # Panics
    ///
    /// - If old contents are left.
    pub(super) fn assert_wiped(&self, buf: &BytesMut, view: &View, behind: usize) {
        let written = self.of(view).written;
        assert!(view.offset == 0 && written <= buf.capacity());
        // Under Miri, a `BytesMut` gives no right to read behind its contents.
        if !cfg!(miri) {
            // SAFETY: the bytes are within the buffer's capacity, and they were written.
            let bytes = unsafe { std::slice::from_raw_parts(buf.as_ptr(), written) };
            // A guard that grew into it may have written the bytes lent beside its old buffer.
            let probe = if buf.is_empty() {
                0
            } else {
                size_of::<usize>()
            };
            let left = bytes.iter().skip(buf.len() + behind.max(probe));
            assert!(left.into_iter().all(|&byte| byte == 0), "it was not wiped");
        }
    }

    pub(super) fn is_alone(&self, view: &View) -> bool {
        self.of(view).views == 1
    }

    pub(super) fn end(&mut self, view: &View) {
        let allocation = self.allocations.get_mut(&view.allocation).unwrap();
        allocation.views -= 1;
        if allocation.views == 0 {
            self.allocations.remove(&view.allocation);
        }
    }

    /// Cuts off the bytes before `at`, and returns them.
    pub(super) fn split_to(&mut self, view: &mut View, at: usize) -> View {
        let allocation = self.allocations.get_mut(&view.allocation).unwrap();
        allocation.views += 1;
        allocation.counted = true;
        let rest = view.contents.split_off(at);
        let head = View {
            allocation: view.allocation,
            offset: view.offset,
            capacity: at,
            contents: mem::replace(&mut view.contents, rest),
        };
        view.offset += at;
        view.capacity -= at;
        head
    }

    /// Cuts off the bytes from `at` on, and returns them.
    pub(super) fn split_off(&mut self, view: &mut View, at: usize) -> View {
        let allocation = self.allocations.get_mut(&view.allocation).unwrap();
        allocation.views += 1;
        allocation.counted = true;
        let len = view.contents.len();
        let tail = View {
            allocation: view.allocation,
            offset: view.offset + at,
            capacity: view.capacity - at,
            contents: view.contents.split_off(at.min(len)),
        };
        view.capacity = at;
        tail
    }

    /// `BytesMut::try_reclaim`: room without the heap.
    pub(super) fn try_reclaim(&self, view: &mut View, additional: usize) -> bool {
        let (len, allocation) = (view.contents.len(), self.of(view));
        if view.capacity - len >= additional {
            return true;
        }
        if allocation.counted {
            if allocation.views > 1 {
                return false;
            }
            if view.offset + len + additional <= allocation.capacity {
                view.capacity = len + additional;
                return true;
            }
        }
        let fits = len + additional <= allocation.capacity && view.offset >= len;
        if fits {
            view.offset = 0;
            view.capacity = allocation.capacity;
        }
        fits
    }
}
