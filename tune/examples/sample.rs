//! Writes a trace of sizes, one per line, for `tierpool-tune` to read. Its shape is one that is
//! often used to describe traffic.
//!
//! ```sh
//! cargo run --release -p tierpool-tune --example sample -- log-normal 1000000 > trace
//! cargo run --release -p tierpool-tune -- trace
//! ```
//!
//! The same shape and number of lines give the same trace each time, on one platform. (On another
//! one, the last bit of a logarithm may differ.)

use std::env;
use std::f64::consts::TAU;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

const SEED: u64 = 20_240_229;

#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// A median of 3 KiB, and a standard deviation of the natural logarithm of 0.8: 95 % are below
    /// 11.2 KiB. 1 % are 100 KiB instead.
    LogNormal,
    /// Each doubling from 64 B to 64 KiB equally often.
    LogUniform,
    /// 60 % of 600 B and 40 % of 16 KiB, each within 10 %.
    Bimodal,
}

impl Shape {
    pub const ALL: [(&str, Shape); 3] = [
        ("log-normal", Shape::LogNormal),
        ("log-uniform", Shape::LogUniform),
        ("bimodal", Shape::Bimodal),
    ];

    fn size(self, random: &mut Random) -> usize {
        let size = match self {
            Shape::LogNormal if random.unit() < 0.01 => 100.0 * 1024.0,
            Shape::LogNormal => 3.0 * 1024.0 * (0.8 * random.normal()).exp(),
            Shape::LogUniform => 64.0 * 1024_f64.powf(random.unit()),
            Shape::Bimodal => {
                let mode = if random.unit() < 0.6 {
                    600.0
                } else {
                    16.0 * 1024.0
                };
                mode * (0.9 + 0.2 * random.unit())
            }
        };
        (size as usize).max(1)
    }
}

/// The first `count` sizes of a shape.
pub fn sizes(shape: Shape, count: usize) -> impl Iterator<Item = usize> {
    let mut random = Random(SEED);
    (0..count).map(move |_| shape.size(&mut random))
}

/// A counter, mixed: random enough for a trace, and always the same.
struct Random(u64);

impl Random {
    /// A number from 0 to below 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        for (shift, factor) in [(30, 0xbf58_476d_1ce4_e5b9), (27, 0x94d0_49bb_1331_11eb)] {
            bits = (bits ^ (bits >> shift)).wrapping_mul(factor);
        }
        bits ^= bits >> 31;
        // A float holds 53 bits.
        (bits >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number of mean 0 and standard deviation 1, by the method of Box and Muller.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (TAU * self.unit()).cos()
    }
}

#[allow(dead_code)] // tests include this file as a module
fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let shape = args.first().and_then(|name| {
        let named = Shape::ALL.iter().find(|(known, _)| known == name);
        named.map(|&(_, shape)| shape)
    });
    let count = args.get(1).map_or(Ok(1_000_000), |count| count.parse());
    let (Some(shape), Ok(count), true) = (shape, count, args.len() <= 2) else {
        eprintln!("usage: sample log-normal|log-uniform|bimodal [lines]");
        return ExitCode::FAILURE;
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let lines = sizes(shape, count).try_for_each(|size| writeln!(out, "{size}"));
    match lines.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("standard output: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
