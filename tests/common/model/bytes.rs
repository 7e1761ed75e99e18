//! Turns any byte string into a run: the options of two pools, and operations on them.
//!
//! Owns how often each operation occurs if the bytes are random. Every string is a valid run:
//! missing bytes at its end count as 0.

use super::op::{Bounds, Filled, LADDERS, OnPiece, Op, Options};

/// The rest of a byte string.
struct Rest<'a>(&'a [u8]);

/// The run that a byte string stands for.
pub fn run(bytes: &[u8]) -> ([Options; 2], Vec<Op>) {
    let mut rest = Rest(bytes);
    let options = [rest.options(), rest.options()];
    let mut ops = Vec::new();
    while !rest.0.is_empty() {
        ops.push(rest.op());
    }
    (options, ops)
}

impl Rest<'_> {
    fn byte(&mut self) -> usize {
        let Some((&byte, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        usize::from(byte)
    }

    fn two_bytes(&mut self) -> usize {
        self.byte() + 256 * self.byte()
    }

    fn flag(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    /// A place in a list.
    fn place(&mut self) -> usize {
        self.byte()
    }

    /// Sizes of every magnitude: those at and around the classes, and oversize.
    fn size(&mut self) -> usize {
        match self.byte() {
            small @ 0..=127 => 2 * small,
            128..=191 => self.two_bytes() % 3000,
            192..=239 => {
                let ladder = LADDERS[self.byte() % LADDERS.len()];
                let at = self.byte();
                // Few of the largest classes.
                let few = ladder.len().min(3);
                ladder[at / 3 % few] + at % 3 - 1
            }
            240..=251 => self.two_bytes(),
            _ => {
                let ladder = LADDERS[self.byte() % LADDERS.len()];
                ladder[ladder.len() - 1 - self.byte() % 2 % ladder.len()] + self.byte() % 2
            }
        }
    }

    /// How many bytes to write: not many.
    fn len(&mut self) -> usize {
        match self.byte() {
            small @ 0..=199 => small,
            200..=249 => self.two_bytes() % 3000,
            _ => self.two_bytes() % 10_000,
        }
    }

    fn bounds(&mut self) -> Bounds {
        let retain_bytes = match self.byte() % 8 {
            0..=2 => usize::MAX,
            3 => self.two_bytes() % 300,
            4 | 5 => self.two_bytes() % 20_000,
            6 => 300_000 + 16 * self.two_bytes(),
            _ => (3 << 20) + 1024 * self.two_bytes(),
        };
        let max_per_class = match self.byte() % 8 {
            0..=5 => usize::MAX,
            6 => self.byte() % 4,
            _ => self.byte() % 100,
        };
        let thread_cache_bytes = match self.byte() % 8 {
            0..=3 => usize::MAX,
            4 => 0,
            5 | 6 => self.two_bytes() % 6000,
            _ => 300_000 + 128 * self.two_bytes(),
        };
        Bounds {
            retain_bytes,
            max_per_class,
            thread_cache_bytes,
        }
    }

    fn options(&mut self) -> Options {
        let sort = self.byte();
        Options {
            ladder: if sort % 2 == 0 { 0 } else { self.byte() },
            bounds: self.bounds(),
            zero_on_return: sort / 2 % 4 == 1,
            reuse_initialised: sort / 2 % 4 == 2,
            compact_below: [50, 100, 0][sort % 3],
            // No calibrations by count; after few returns; or after enough to use the fast path.
            threshold: match sort / 8 % 4 {
                0 | 1 => u64::MAX,
                2 => self.byte() as u64 % 10,
                _ => self.byte() as u64 % 60,
            },
            percentile: [0.9, 0.95, 0.5, 1.0][sort / 32 % 4],
            profile_of: (sort / 128 == 1).then(|| self.byte()),
        }
    }

    fn op(&mut self) -> Op {
        let op = self.byte();
        let pool = op % 2;
        match op / 2 {
            0..=9 => Op::Get {
                pool,
                size: self.size(),
            },
            10 => Op::GetZeroed {
                pool,
                size: self.size(),
            },
            11 | 12 => Op::FillWith {
                guard: self.place(),
                room: self.size(),
                len: self.len(),
                how: match self.byte() % 8 {
                    0 => Filled::Failed,
                    1 => Filled::Panicked,
                    2..=4 => Filled::Read,
                    _ => Filled::Announced,
                },
            },
            13 => Op::ResizeZero {
                guard: self.place(),
                len: self.len(),
            },
            14 => match self.flag() {
                true => Op::Scribble {
                    guard: self.place(),
                    len: self.len(),
                },
                false => Op::ShrinkToFit {
                    guard: self.place(),
                },
            },
            15 => Op::TryGet {
                pool,
                size: self.size(),
            },
            16 => Op::GetDefault { pool },
            17..=20 => Op::GetMany {
                pool,
                size: self.size(),
                count: self.byte() % 80,
            },
            21..=24 => Op::Adopt {
                pool,
                capacity: self.size(),
                len: self.len(),
            },
            25 | 26 => Op::AdoptPart {
                pool,
                part: self.place(),
            },
            27..=31 => Op::Write {
                guard: self.place(),
                len: self.len(),
            },
            32..=34 => Op::Fill {
                guard: self.place(),
                len: self.len(),
            },
            35 => Op::WriteInside {
                guard: self.place(),
                len: self.len(),
            },
            36 => Op::ReserveInside {
                guard: self.place(),
                additional: self.size(),
            },
            37 => Op::CutBack {
                guard: self.place(),
                less: self.byte(),
                keep: self.flag(),
            },
            38 | 39 => Op::Reserve {
                guard: self.place(),
                additional: self.size(),
            },
            40 => Op::TryReserve {
                guard: self.place(),
                additional: self.size(),
            },
            41 | 42 => Op::Resize {
                guard: self.place(),
                len: self.len(),
            },
            43 => Op::Truncate {
                guard: self.place(),
                len: self.len(),
            },
            44 => Op::Empty {
                guard: self.place(),
            },
            45..=48 => Op::Advance {
                guard: self.place(),
                count: self.two_bytes(),
            },
            49 => Op::SplitTo {
                guard: self.place(),
                at: self.two_bytes(),
                keep: self.flag(),
            },
            50 | 51 => Op::CutTo {
                guard: self.place(),
                at: self.two_bytes(),
                keep: self.byte() % 4 > 0,
            },
            52 => Op::SplitOff {
                guard: self.place(),
                at: self.two_bytes(),
                keep: self.flag(),
            },
            53 => Op::CutOff {
                guard: self.place(),
                at: self.two_bytes(),
                keep: self.flag(),
            },
            54 => Op::CopyInside {
                guard: self.place(),
                at: self.two_bytes(),
                keep: self.flag(),
            },
            55 | 56 => Op::CopyToBytes {
                guard: self.place(),
                at: self.two_bytes(),
                keep: self.flag(),
            },
            57 | 58 => Op::Swap {
                guard: self.place(),
                other: self.place(),
            },
            59..=74 => Op::Drop {
                guard: self.place(),
            },
            75..=79 => Op::DropMany {
                count: self.byte() % 100,
            },
            80 | 81 => Op::Detach {
                guard: self.place(),
            },
            82 => Op::Forget {
                guard: self.place(),
            },
            83 | 84 => Op::Freeze {
                guard: self.place(),
            },
            85 => Op::FreezeCompact {
                guard: self.place(),
            },
            86 => Op::Slice {
                frozen: self.place(),
                from: self.two_bytes(),
            },
            87 | 88 => Op::DropFrozen {
                frozen: self.place(),
            },
            89..=92 => Op::Piece {
                piece: self.place(),
                what: OnPiece::ALL[self.byte() % OnPiece::ALL.len()],
                at: self.two_bytes(),
            },
            93 | 94 => Op::DropPart { part: self.place() },
            95..=98 => Op::Trim { pool },
            99 => Op::Clear { pool },
            100 | 101 => Op::Prefill {
                pool,
                size: self.size(),
                count: self.byte() % 80,
            },
            102..=105 => Op::Calibrate { pool },
            106 => Op::NewHandle { pool },
            107 => Op::ResetPeaks { pool },
            108 => Op::DropHandle { pool },
            109 => Op::NewPool {
                pool,
                options: self.options(),
            },
            110..=124 => Op::On {
                thread: self.byte(),
            },
            _ => Op::EndThread {
                thread: self.byte(),
            },
        }
    }
}
