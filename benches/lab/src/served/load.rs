//! The load on a server: connections of this process, or another program such as `wrk`.

use super::child::{Server, Usage};
use super::{Options, Program};
use crate::{Result, percentile};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::runtime::{self, Runtime};
use tokio::sync::OnceCell;

/// The load before the measurement begins.
pub(super) const WARM_UP: Duration = Duration::from_millis(500);

/// What the connections of a load have done.
#[derive(Debug, Default)]
pub struct Load {
    over: AtomicBool,
    units: AtomicU64,
    /// In nanoseconds.
    latencies: Mutex<Vec<u64>>,
    /// Of a server that the load itself has started.
    pub port: OnceCell<u16>,
}

// Relaxed, in all of these: one thread runs the whole load.
impl Load {
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Records that a request for `units` was answered.
    pub fn answered(&self, units: u64, after: Duration) {
        self.units.fetch_add(units, Ordering::Relaxed);
        let mut latencies = self.latencies.lock();
        let latencies = latencies.as_mut().unwrap_or_else(PoisonError::get_mut);
        latencies.push(after.as_nanos() as u64);
    }

    fn units(&self) -> u64 {
        self.units.load(Ordering::Relaxed)
    }

    /// The latencies since the last call, sorted.
    fn take_latencies(&self) -> Vec<u64> {
        let latencies = self.latencies.lock();
        let mut latencies = latencies.unwrap_or_else(PoisonError::into_inner);
        let mut latencies = std::mem::take(&mut *latencies);
        latencies.sort_unstable();
        latencies
    }
}

/// A load that is over, and the server's numbers around its measurement.
pub(super) struct Loaded {
    /// All units that were answered, also before the measurement began. `None` if not known.
    pub(super) sent: Option<u64>,
    pub(super) units: u64,
    pub(super) seconds: f64,
    pub(super) p50_micros: f64,
    pub(super) p99_micros: f64,
    pub(super) begin: Usage,
    pub(super) end: Usage,
    /// Connections that stay open while the server rests, and the tasks at their other ends.
    pub(super) open: Option<(Vec<TcpStream>, Runtime)>,
}

impl Loaded {
    pub(super) fn by<P: Program>(server: &mut Server, options: &Options) -> Result<Self> {
        let loaded = match P::outside(server.address, 1, 1) {
            Some(_) => by_another::<P>(server, options)?,
            None => {
                P::check(server.address)?;
                by_connections::<P>(server, options)?
            }
        };
        match loaded.units {
            0 => Err("the server answered nothing".into()),
            _ => Ok(loaded),
        }
    }
}

fn by_connections<P: Program>(server: &mut Server, options: &Options) -> Result<Loaded> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let load = Arc::new(Load::default());
    let loaded = runtime.block_on(async {
        let mut tasks = Vec::new();
        for number in 0..options.connections::<P>() {
            let mut stream = TcpStream::connect(server.address).await?;
            stream.set_nodelay(true)?;
            let load = Arc::clone(&load);
            tasks.push(tokio::spawn(async move {
                P::load(number, &mut stream, load).await?;
                std::io::Result::Ok(stream)
            }));
        }
        tokio::time::sleep(WARM_UP).await;
        let (begin, before) = (server.usage()?, load.units());
        load.take_latencies();
        let begun = Instant::now();
        tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
        let (end, seconds) = (server.usage()?, begun.elapsed().as_secs_f64());
        let (units, latencies) = (load.units() - before, load.take_latencies());
        load.over.store(true, Ordering::Relaxed);
        let mut open = Vec::new();
        for task in tasks {
            let stream = task.await??;
            if P::STAYS_OPEN {
                open.push(stream);
            }
        }
        Result::<_>::Ok((begin, end, seconds, units, latencies, open))
    });
    let (begin, end, seconds, units, latencies, open) = loaded?;
    Ok(Loaded {
        sent: Some(load.units()),
        units,
        seconds,
        p50_micros: percentile(&latencies, 50) / 1e3,
        p99_micros: percentile(&latencies, 99) / 1e3,
        begin,
        end,
        open: P::STAYS_OPEN.then_some((open, runtime)),
    })
}

/// The program takes whole seconds. So does the warm-up, while the answers are checked.
fn by_another<P: Program>(server: &mut Server, options: &Options) -> Result<Loaded> {
    let (address, connections) = (server.address, options.connections::<P>());
    let start = |seconds: f64| -> Result<Child> {
        let command = P::outside(address, connections, seconds.ceil() as u64);
        let mut command = command.ok_or("there is no such program")?;
        Ok(command.stdout(Stdio::piped()).spawn()?)
    };
    let finish = |child: Child| -> Result<[f64; 4]> {
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let words = text.lines().last().unwrap_or_default().split(' ');
        let numbers: Vec<f64> = words.filter_map(|word| word.parse().ok()).collect();
        match numbers[..] {
            [_, _, _, _, errors] if errors > 0.0 => Err(format!("{errors} requests failed").into()),
            [units, micros, p50, p99, _] => Ok([units, micros, p50, p99]),
            _ => Err(format!("the load failed: {}, {text}", output.status).into()),
        }
    };
    let warming_up = start(WARM_UP.as_secs_f64())?;
    P::check(address)?;
    finish(warming_up)?;
    let begin = server.usage()?;
    let [units, micros, p50_micros, p99_micros] = finish(start(options.seconds)?)?;
    Ok(Loaded {
        sent: None,
        units: units as u64,
        seconds: micros / 1e6,
        p50_micros,
        p99_micros,
        begin,
        end: server.usage()?,
        open: None,
    })
}
