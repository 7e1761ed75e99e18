//! The operations on the model's pools, and the options of these pools.

/// The size classes that a pool may have. In the first ladder, the levels hold many buffers of one
/// class, some of others, and few of two.
pub const LADDERS: [&[usize]; 4] = [
    &[64, 200, 1024, 300_000, 3 << 20],
    &[100, 512, 3000, 16_384],
    &[1, 64, 65, 128, 4096, 5000, 8192, 65_536, 1 << 20],
    &[256],
];

/// The limits on the bytes that a pool of the model may retain.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Classes above this are left out: see [`Options::capacities`].
    pub retain_bytes: usize,
    pub max_per_class: usize,
    pub thread_cache_bytes: usize,
}

impl Bounds {
    pub const NONE: Bounds = Bounds {
        retain_bytes: usize::MAX,
        max_per_class: usize::MAX,
        thread_cache_bytes: usize::MAX,
    };
}

/// The options of a pool of the model.
#[derive(Clone, Debug)]
pub struct Options {
    /// An index in [`LADDERS`].
    pub ladder: usize,
    pub bounds: Bounds,
    pub zero_on_return: bool,
    pub reuse_initialised: bool,
    pub compact_below: u8,
    /// A calibration is due when one step has more returns than this.
    pub threshold: u64,
    /// The part of the lengths that `max_size` must hold.
    pub percentile: f64,
    /// The place of the pool whose profile this pool begins with, if that pool has not ended.
    pub profile_of: Option<usize>,
}

impl Options {
    /// The first ladder, without bounds; only explicit calibrations.
    pub const PLAIN: Options = Options {
        ladder: 0,
        bounds: Bounds::NONE,
        zero_on_return: false,
        reuse_initialised: false,
        compact_below: 50,
        threshold: u64::MAX,
        percentile: 0.9,
        profile_of: None,
    };

    /// The size classes of the ladder that fit the budget, since no pool may have larger ones. All
    /// of them if the pool keeps nothing.
    pub(super) fn capacities(&self) -> &'static [usize] {
        let ladder = LADDERS[self.ladder % LADDERS.len()];
        let held = ladder.partition_point(|&class| class <= self.bounds.retain_bytes);
        match held {
            0 => ladder,
            held => &ladder[..held],
        }
    }

    /// The builder's option. A budget below the smallest class keeps nothing.
    pub(super) fn retain_bytes(&self) -> usize {
        match self.bounds.retain_bytes < self.capacities()[0] {
            true => 0,
            false => self.bounds.retain_bytes,
        }
    }
}

/// The way in which a lent room is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    Announced,
    Failed,
    Panicked,
    /// By a read of a file, which writes no more bytes than it announces.
    Read,
}

/// The operations on a part of a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPiece {
    Clone,
    Slice,
    SplitTo,
    SplitOff,
    Truncate,
    Advance,
    Clear,
    Drop,
    IntoBytes,
    IntoMut,
}

impl OnPiece {
    pub const ALL: [OnPiece; 10] = [
        OnPiece::Clone,
        OnPiece::Slice,
        OnPiece::SplitTo,
        OnPiece::SplitOff,
        OnPiece::Truncate,
        OnPiece::Advance,
        OnPiece::Clear,
        OnPiece::Drop,
        OnPiece::IntoBytes,
        OnPiece::IntoMut,
    ];
}

/// One operation. Places in lists wrap at their length, so that every number is valid. On an empty
/// list the operation does nothing.
#[derive(Clone, Debug)]
pub enum Op {
    Get {
        pool: usize,
        size: usize,
    },
    TryGet {
        pool: usize,
        size: usize,
    },
    GetZeroed {
        pool: usize,
        size: usize,
    },
    GetDefault {
        pool: usize,
    },
    GetMany {
        pool: usize,
        size: usize,
        count: usize,
    },
    /// Adopts a new `BytesMut` of this capacity, with at most this many bytes of contents.
    Adopt {
        pool: usize,
        capacity: usize,
        len: usize,
    },
    /// Adopts a part that was split off or detached.
    AdoptPart {
        pool: usize,
        part: usize,
    },
    /// `extend_from_slice` on the guard.
    Write {
        guard: usize,
        len: usize,
    },
    /// `extend_from_slice` on the `BytesMut` inside.
    WriteInside {
        guard: usize,
        len: usize,
    },
    /// `reserve` on the `BytesMut` inside.
    ReserveInside {
        guard: usize,
        additional: usize,
    },
    /// Cuts the `BytesMut` inside to the capacity that it came with, or to less.
    CutBack {
        guard: usize,
        less: usize,
        keep: bool,
    },
    /// Writes as much as fits to one chunk of the guard, and announces all but a few bytes.
    Fill {
        guard: usize,
        len: usize,
    },
    Reserve {
        guard: usize,
        additional: usize,
    },
    TryReserve {
        guard: usize,
        additional: usize,
    },
    Resize {
        guard: usize,
        len: usize,
    },
    Truncate {
        guard: usize,
        len: usize,
    },
    /// `clear` on the guard.
    Empty {
        guard: usize,
    },
    Advance {
        guard: usize,
        count: usize,
    },
    SplitTo {
        guard: usize,
        at: usize,
        keep: bool,
    },
    SplitOff {
        guard: usize,
        at: usize,
        keep: bool,
    },
    /// `copy_to_bytes` on the `BytesMut` inside.
    CopyInside {
        guard: usize,
        at: usize,
        keep: bool,
    },
    /// `split_to` on the guard; `split` if that is all.
    CutTo {
        guard: usize,
        at: usize,
        keep: bool,
    },
    /// `split_off` on the guard.
    CutOff {
        guard: usize,
        at: usize,
        keep: bool,
    },
    /// `copy_to_bytes` on the guard.
    CopyToBytes {
        guard: usize,
        at: usize,
        keep: bool,
    },
    ShrinkToFit {
        guard: usize,
    },
    /// `resize` with zeros.
    ResizeZero {
        guard: usize,
        len: usize,
    },
    /// Lends a room, fills this much of it, and writes a few more bytes without announcing them.
    FillWith {
        guard: usize,
        room: usize,
        len: usize,
        how: Filled,
    },
    /// Writes to the spare room, without announcing it.
    Scribble {
        guard: usize,
        len: usize,
    },
    /// Exchanges the `BytesMut`s of two guards.
    Swap {
        guard: usize,
        other: usize,
    },
    Drop {
        guard: usize,
    },
    DropMany {
        count: usize,
    },
    Detach {
        guard: usize,
    },
    /// Forgets a guard until the end of the run; a few times at most.
    Forget {
        guard: usize,
    },
    Freeze {
        guard: usize,
    },
    FreezeCompact {
        guard: usize,
    },
    /// On a part of a guard.
    Piece {
        piece: usize,
        what: OnPiece,
        at: usize,
    },
    Slice {
        frozen: usize,
        from: usize,
    },
    DropFrozen {
        frozen: usize,
    },
    DropPart {
        part: usize,
    },
    Trim {
        pool: usize,
    },
    Clear {
        pool: usize,
    },
    Prefill {
        pool: usize,
        size: usize,
        count: usize,
    },
    ResetPeaks {
        pool: usize,
    },
    Calibrate {
        pool: usize,
    },
    NewHandle {
        pool: usize,
    },
    /// Drops the last handle, which ends the pool. Its guards stay.
    DropHandle {
        pool: usize,
    },
    /// Ends the pool in this place, unless it has ended, and makes another one there.
    NewPool {
        pool: usize,
        options: Options,
    },
    /// Lets this thread run the operations up to the next `On`. Starts the thread if it has not
    /// begun or has ended. Thread 0 has the model.
    On {
        thread: usize,
    },
    /// Ends a thread, except thread 0. If it was acting, thread 0 acts next.
    EndThread {
        thread: usize,
    },
}
