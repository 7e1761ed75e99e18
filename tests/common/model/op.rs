//! What can be done to the model's pools, and how these are made.

/// The size classes that a pool may have. Of the first: one of which the levels hold
/// plenty, some between, and two of which they hold few.
pub const LADDERS: [&[usize]; 4] = [
    &[64, 200, 1024, 300_000, 3 << 20],
    &[100, 512, 3000, 16_384],
    &[1, 64, 65, 128, 4096, 5000, 8192, 65_536, 1 << 20],
    &[256],
];

/// What a pool of the model may retain.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Classes above it are left out: see [`Options::capacities`].
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

/// How a pool of the model is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which of [`LADDERS`].
    pub ladder: usize,
    pub bounds: Bounds,
    pub zero_on_return: bool,
    pub reuse_initialised: bool,
    pub compact_below: u8,
    /// How many returns of one step are not enough for a calibration.
    pub threshold: u64,
    /// Of which part of the lengths `max_size` holds at least.
    pub percentile: f64,
    /// In which place the pool is whose profile it begins with, if that has not ended.
    pub profile_of: Option<usize>,
}

impl Options {
    /// Of the first ladder, without bounds; calibrates when it is told to.
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

    /// The size classes: those of the ladder that the budget holds, since no pool can have
    /// others. All of them where it keeps nothing.
    pub(super) fn capacities(&self) -> &'static [usize] {
        let ladder = LADDERS[self.ladder % LADDERS.len()];
        let held = ladder.partition_point(|&class| class <= self.bounds.retain_bytes);
        match held {
            0 => ladder,
            held => &ladder[..held],
        }
    }

    /// As it is given to the builder: a budget below the smallest class keeps nothing.
    pub(super) fn retain_bytes(&self) -> usize {
        match self.bounds.retain_bytes < self.capacities()[0] {
            true => 0,
            false => self.bounds.retain_bytes,
        }
    }
}

/// What becomes of a room that was lent out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    Announced,
    Failed,
    Panicked,
    /// By a read of a file, which writes no more than it announces.
    Read,
}

/// What can be done to a part of a guard.
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

/// One operation. Places in lists count round their length, so that every
/// number means something; on an empty list the operation does nothing.
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
    /// A new `BytesMut` of this capacity, with this much in it at most.
    Adopt {
        pool: usize,
        capacity: usize,
        len: usize,
    },
    /// A part that was split off or detached.
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
    /// Cuts the `BytesMut` inside to the capacity with which it came, or to less.
    CutBack {
        guard: usize,
        less: usize,
        keep: bool,
    },
    /// Writes to one chunk of the guard, as much as fits there, and announces it except a few bytes.
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
    /// Lends a room to be filled with this much of it, and a bit more that is not announced.
    FillWith {
        guard: usize,
        room: usize,
        len: usize,
        how: Filled,
    },
    /// Writes to the spare room, and does not announce it.
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
    /// Never dropped, until all is compared; a few times at most.
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
    /// The last handle ends the pool; guards stay.
    DropHandle {
        pool: usize,
    },
    /// Ends the pool in this place, if it has not ended, and makes another there.
    NewPool {
        pool: usize,
        options: Options,
    },
    /// All operations from now on are this thread's, until the next of these. If it has
    /// not begun, or has ended, it begins. The first is the one that has the model.
    On {
        thread: usize,
    },
    /// Ends a thread, unless it is the first. If it was at work, that is next.
    EndThread {
        thread: usize,
    },
}
