//! One measurement: a server, its load, its rest, and its numbers.

use super::child::Server;
use super::load::Loaded;
use super::{Mode, Options, Program, Variant};
use crate::{Result, mib};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A server whose load is over, with its numbers up to there.
pub(super) struct Running {
    server: Server,
    loaded: Loaded,
    rest: Duration,
    mode: Mode,
}

/// The numbers of one server. NaN for what this system does not give.
#[derive(Clone, Copy)]
pub(super) struct Measured {
    pub(super) per_second: f64,
    pub(super) cpu_micros: f64,
    pub(super) user_micros: f64,
    pub(super) p50_micros: f64,
    pub(super) p99_micros: f64,
    pub(super) faults: f64,
    pub(super) peak_mib: f64,
    pub(super) rest_mib: f64,
    pub(super) allocations: f64,
}

impl Running {
    /// Starts a server and its load, and returns when the load is over.
    pub(super) fn start<P: Program>(variant: &Variant, options: &Options) -> Result<Self> {
        let mut server = Server::start(variant, options)?;
        Ok(Running {
            loaded: Loaded::by::<P>(&mut server, options)?,
            server,
            rest: options.rest,
            mode: variant.mode,
        })
    }

    /// Looks at the memory again some seconds after the load, on another thread.
    pub(super) fn finish_later<P: Program>(self) -> JoinHandle<Result<Measured>> {
        let ended = Instant::now();
        thread::spawn(move || {
            thread::sleep(self.rest.saturating_sub(ended.elapsed()));
            self.stop::<P>()
        })
    }

    /// Stops the server. Fails if it has not received all units, or has not dropped all buffers.
    fn stop<P: Program>(mut self) -> Result<Measured> {
        let loaded = self.loaded;
        let rest = self.server.usage()?;
        self.server.stop()?;
        drop(loaded.open);
        if let (true, Some(sent)) = (P::CHECKS, loaded.sent) {
            if rest.checked != sent {
                let (got, unit) = (rest.checked, P::UNIT);
                return Err(format!("{sent} {unit}s were sent, and {got} arrived").into());
            }
        }
        if rest.outstanding > P::HOLDS {
            let (left, mode) = (rest.outstanding, self.mode.name());
            return Err(format!(
                "{mode}: {left} buffers or objects are outstanding after the load"
            )
            .into());
        }
        let (begin, end) = (&loaded.begin, &loaded.end);
        let per_unit = |begin: Option<u64>, end: Option<u64>| match (begin, end) {
            (Some(begin), Some(end)) => (end - begin) as f64 / loaded.units as f64,
            _ => f64::NAN,
        };
        Ok(Measured {
            per_second: loaded.units as f64 / loaded.seconds,
            cpu_micros: per_unit(begin.cpu_nanos, end.cpu_nanos) / 1e3,
            user_micros: per_unit(begin.user_nanos, end.user_nanos) / 1e3,
            p50_micros: loaded.p50_micros,
            p99_micros: loaded.p99_micros,
            faults: per_unit(begin.faults, end.faults),
            peak_mib: end.peak_bytes.map_or(f64::NAN, mib),
            rest_mib: rest.resident_bytes.map_or(f64::NAN, mib),
            allocations: per_unit(Some(begin.allocations), Some(end.allocations)),
        })
    }
}

pub(super) fn joined(measuring: JoinHandle<Result<Measured>>) -> Result<Measured> {
    match measuring.join() {
        Ok(measured) => measured,
        Err(_) => Err("a thread that measures has panicked".into()),
    }
}
