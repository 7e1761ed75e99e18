//! A TCP relay over real files: plain `BytesMut::with_capacity` against the pool.
//!
//! ```text
//! cargo run --release -p tierpool-lab --bin relay             # this repository and its `target`
//! cargo run --release -p tierpool-lab --bin relay -- DIR      # the files under DIR
//! cargo run --release -p tierpool-lab --bin relay -- --help
//! ```
//!
//! The server reads length-prefixed frames, each into a buffer for this frame alone. It echoes the
//! frame, with a checksum, out of the same buffer. A connection's reader and writer are two tasks,
//! so a buffer is often dropped on another thread than the one that took it. The clients verify
//! every byte.
//!
//! Both modes run the same code; only [`BufferSource`] differs. Their rounds alternate in one
//! process. Peak RSS takes one more process per mode: one process cannot tell the two apart.
//!
//! Do not expect a faster relay: the kernel copies every byte four times. That costs far more than
//! one allocation per frame. The last lines name the rows that the pool does not win, computed from
//! the run.

use bytes::{Buf, BufMut, BytesMut};
use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tierpool::{Pool, PooledBuf, Stats};
use tierpool_lab::table::{CLEAR, Row, sentences, table};
use tierpool_lab::{Result, heap, mib, percentile, print, resident_bytes, resident_bytes_max};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// A longer frame closes its connection before anything is allocated for it.
const FRAME_BYTES_MAX: usize = 16 << 20;
/// Frames a client has in flight, and frames a connection queues between its reader and its writer.
const WINDOW: usize = 4;
/// A small corpus is sent again within a round until it makes this many frames: enough for a p99.
const ROUND_FRAMES_MIN: usize = 500;
/// Once this many files are found no further directory is opened, so that `relay /` starts.
const FOUND_MAX: usize = 100_000;
/// Files from this many bytes on are medium, below it small.
const MEDIUM: usize = 64 << 10;
/// Files from this many bytes on are large.
const LARGE: usize = 1 << 20;

fn main() -> ExitCode {
    tierpool_lab::run(
        "relay",
        |args| Options::parse(args),
        |options| run(&options),
    )
}

/// Both modes in turn, then one child process per mode, then the report.
fn run(options: &Options) -> Result<()> {
    if options.help {
        return print(HELP);
    }
    let mut bench = Bench::new(options)?;
    if let Some(mode) = options.child {
        return run_child(options, &mut bench, mode);
    }
    print(&describe(options, &bench.corpus))?;
    if let Some(path) = &options.sizes {
        return write_sizes(path, &bench.corpus);
    }

    heap::count();
    let mut tallies = [Tally::default(), Tally::default()];
    for round in 0..=options.rounds {
        let mut order = [Mode::Plain, Mode::Pool];
        order.rotate_left(round % 2);
        for mode in order {
            let measured = bench.round(mode)?;
            if round > 0 {
                tallies[mode as usize].add(measured);
            }
        }
    }
    let rss = [spawn_child(Mode::Plain)?, spawn_child(Mode::Pool)?];
    print(&report(tallies, rss, &bench.pool.stats()))
}

/// Writes the sizes of one round's frames, in their order.
fn write_sizes(path: &Path, corpus: &Corpus) -> Result<()> {
    let mut text = String::new();
    let payloads = corpus.payloads.iter().cycle();
    for payload in payloads.take(corpus.round_frames) {
        let _ = writeln!(text, "{}", payload.bytes.len());
    }
    Ok(fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?)
}

// ---- options

const HELP: &str = "\
Relays real files over loopback TCP, with plain BytesMut buffers and with pooled ones.

Usage: relay [OPTIONS] [DIR]

  DIR            its files become the frames [this repository, with what is under target]
  --rounds N     counted rounds per mode, 1 to 1000 [100]
  --clients N    connections, 1 to 64 [4]
  --max-bytes N  payload bytes per round, 1 to 1073741824 [67108864]
  --pool-max N   largest size class of the pool in bytes, 512 to 67108864 [8388608]
  --sizes FILE   write the frames' sizes to FILE, one per line, and relay nothing
  --help         this text

Exit code: 0 done, 1 failed, 2 bad usage.
";

#[derive(Clone, Copy)]
enum Mode {
    Plain,
    Pool,
}

struct Options {
    dir: PathBuf,
    rounds: usize,
    clients: usize,
    round_bytes_max: usize,
    pool_bytes_max: usize,
    /// A trace for `tierpool-tune`, and then no round is run.
    sizes: Option<PathBuf>,
    help: bool,
    /// For the child process: runs one mode only, and prints its RSS for the parent.
    child: Option<Mode>,
}

impl Options {
    fn parse(args: &mut dyn Iterator<Item = OsString>) -> Result<Self> {
        let mut options = Self {
            dir: PathBuf::new(),
            rounds: 100,
            clients: 4,
            round_bytes_max: 64 << 20,
            // The pool's default of 1 MiB would leave every larger file to the heap.
            pool_bytes_max: 8 << 20,
            sizes: None,
            help: false,
            child: None,
        };
        while let Some(arg) = args.next() {
            let name = arg.to_string_lossy();
            let mut number = |min: usize, max: usize| {
                let text = args.next().unwrap_or_default();
                match text.to_str().map(str::parse) {
                    Some(Ok(n)) if (min..=max).contains(&n) => Ok(n),
                    _ => Err(format!(
                        "{name} takes a number from {min} to {max}, not {text:?}"
                    )),
                }
            };
            match &*name {
                "--help" | "-h" => options.help = true,
                "--rounds" => options.rounds = number(1, 1000)?,
                "--clients" => options.clients = number(1, 64)?,
                "--max-bytes" => options.round_bytes_max = number(1, 1 << 30)?,
                "--pool-max" => options.pool_bytes_max = number(512, 64 << 20)?,
                "--sizes" => match args.next() {
                    Some(path) => options.sizes = Some(path.into()),
                    None => return Err("--sizes takes a file".into()),
                },
                "--child-plain" => options.child = Some(Mode::Plain),
                "--child-pool" => options.child = Some(Mode::Pool),
                _ if name.starts_with('-') => return Err(format!("unknown option {name}").into()),
                "" => return Err("an empty directory name".into()),
                _ if options.dir == Path::new("") => options.dir = arg.into(),
                _ => return Err(format!("a second directory: {name}").into()),
            }
        }
        if options.dir == Path::new("") {
            // Cargo sets it to the directory of this package.
            let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
            options.dir = package.map_or(".".into(), |package| package.join("../.."));
        }
        Ok(options)
    }
}

// ---- corpus

struct Payload {
    bytes: Vec<u8>,
    checksum: u64,
}

/// The files, in memory once for both modes, so that no round reads the disk.
#[derive(Default)]
struct Corpus {
    payloads: Vec<Payload>,
    bytes: usize,
    /// How many frames one round sends: each file once, or equally often.
    round_frames: usize,
    found: usize,
    unreadable: usize,
    above_limit: usize,
    not_files: usize,
}

impl Corpus {
    /// Reads the files of one round, selected by their paths and lengths only.
    ///
    /// Small files get a quarter of the bytes, medium files half of the rest, and large files all
    /// that is left. Bytes that one kind does not use go to the others.
    fn load(dir: &Path, bytes_max: usize) -> Result<Self> {
        let mut corpus = Self::default();
        let mut found = Vec::new();
        fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        corpus.walk(dir, &mut found);
        found.sort();
        corpus.found = found.len();
        let kinds = [0..MEDIUM, MEDIUM..LARGE, LARGE..usize::MAX, 0..usize::MAX];
        for (kind, part) in kinds.into_iter().zip([4, 2, 1, 1]) {
            let mut room = (bytes_max - corpus.bytes) / part;
            found.retain(|(_, path, len)| {
                if !kind.contains(len) || *len > room {
                    return true;
                }
                match Payload::read(path, *len) {
                    Ok(payload) => {
                        room -= payload.bytes.len();
                        corpus.bytes += payload.bytes.len();
                        corpus.payloads.push(payload);
                    }
                    Err(_) => corpus.unreadable += 1,
                }
                false
            });
        }
        if corpus.payloads.is_empty() {
            let (dir, skipped) = (dir.display(), corpus.skipped());
            let limit = bytes_max.min(FRAME_BYTES_MAX);
            let problem = "no readable, non-empty file of at most";
            return Err(format!("{dir}: {problem} {limit} bytes; {skipped}").into());
        }
        // Any fixed order that mixes the sizes.
        corpus.payloads.sort_by_key(|payload| payload.checksum);
        let files = corpus.payloads.len();
        let enough = ROUND_FRAMES_MIN.div_ceil(files);
        corpus.round_frames = files * enough.min(bytes_max / corpus.bytes);
        Ok(corpus)
    }

    /// Finds the regular, non-empty files. Follows no symlink below `root`, and skips `.git`.
    fn walk(&mut self, root: &Path, found: &mut Vec<(u64, PathBuf, usize)>) {
        let mut dirs = vec![root.to_path_buf()];
        while let Some(dir) = dirs.pop().filter(|_| found.len() < FOUND_MAX) {
            let Ok(entries) = fs::read_dir(&dir) else {
                self.unreadable += 1;
                continue;
            };
            for entry in entries.filter_map(|entry| entry.ok()) {
                let path = entry.path();
                // `DirEntry::metadata` looks at a symlink itself, not through it.
                match entry.metadata() {
                    _ if entry.file_name() == ".git" => {}
                    Err(_) => self.unreadable += 1,
                    Ok(meta) if meta.is_dir() => dirs.push(path),
                    Ok(meta) if !meta.is_file() => self.not_files += 1,
                    Ok(meta) if meta.len() > FRAME_BYTES_MAX as u64 => self.above_limit += 1,
                    Ok(meta) if meta.len() == 0 => {}
                    Ok(meta) => {
                        // Sorted by this hash, the first files are a sample of the whole tree.
                        let name = path.strip_prefix(root).unwrap_or(&path).as_os_str();
                        let order = checksum(name.as_encoded_bytes());
                        found.push((order, path, meta.len() as usize));
                    }
                }
            }
        }
    }

    fn skipped(&self) -> String {
        format!(
            "skipped: {} unreadable or vanished, {} above {} MiB, {} symlinks and special files",
            self.unreadable,
            self.above_limit,
            FRAME_BYTES_MAX >> 20,
            self.not_files
        )
    }
}

impl Payload {
    /// Reads no more than the walk saw, even if the file has grown. An empty file is an error.
    fn read(path: &Path, len: usize) -> io::Result<Self> {
        let mut bytes = Vec::with_capacity(len);
        let mut file = fs::File::open(path)?.take(len as u64);
        if file.read_to_end(&mut bytes)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let checksum = checksum(&bytes);
        Ok(Self { bytes, checksum })
    }
}

/// FNV-1a over zero-padded little-endian words of 8 bytes instead of bytes, with a rotation and the
/// length. It finds transmission errors, and does not stop an attacker.
fn checksum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, word: &[u8]| {
        let mut padded = [0; 8];
        padded[..word.len()].copy_from_slice(word);
        let mixed = sum ^ u64::from_le_bytes(padded);
        mixed.wrapping_mul(0x100_0000_01b3).rotate_left(23)
    };
    let words = bytes.chunks_exact(8);
    let tail = words.remainder();
    let sum = words.fold(0xcbf2_9ce4_8422_2325 ^ bytes.len() as u64, step);
    step(sum, tail)
}

// ---- server

/// Where the buffer of a frame comes from: all that differs between the modes.
trait BufferSource: Clone + Send + Sync + 'static {
    type Buffer: BufMut + AsRef<[u8]> + Send + 'static;

    /// An empty buffer with room for at least `len` bytes.
    fn buffer(&self, len: usize) -> Self::Buffer;
}

#[derive(Clone)]
struct Plain;

impl BufferSource for Plain {
    type Buffer = BytesMut;

    fn buffer(&self, len: usize) -> BytesMut {
        BytesMut::with_capacity(len)
    }
}

impl BufferSource for Pool {
    type Buffer = PooledBuf;

    fn buffer(&self, len: usize) -> PooledBuf {
        self.get(len)
    }
}

/// Serves `connections` connections to their ends. The first error ends them all.
async fn serve(listener: TcpListener, source: impl BufferSource, connections: usize) -> Result<()> {
    let mut serving = JoinSet::new();
    for _ in 0..connections {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        serving.spawn(serve_connection(stream, source.clone()));
    }
    while let Some(joined) = serving.join_next().await {
        joined??;
    }
    Ok(())
}

/// Reads in this task and writes in another. The queue between the two is bounded. So a client that
/// never reads its echoes stalls itself in the end, and no other client.
async fn serve_connection(stream: TcpStream, source: impl BufferSource) -> Result<()> {
    let (reader, writer) = stream.into_split();
    let (queue, frames) = mpsc::channel(WINDOW);
    let writing = tokio::spawn(write_frames(writer, frames));
    tokio::try_join!(read_frames(reader, source, queue), async { writing.await? })?;
    Ok(())
}

async fn read_frames<S: BufferSource>(
    mut stream: OwnedReadHalf,
    source: S,
    queue: mpsc::Sender<S::Buffer>,
) -> Result<()> {
    while let Some(len) = read_len(&mut stream).await? {
        // The limit ends the read with the frame, whatever the capacity. Nothing is zeroed first.
        let mut frame = source.buffer(len).limit(len);
        while frame.has_remaining_mut() {
            if stream.read_buf(&mut frame).await? == 0 {
                return Err("server: the connection closed within a frame".into());
            }
        }
        if queue.send(frame.into_inner()).await.is_err() {
            break; // the writer has failed, and returns the reason
        }
    }
    Ok(())
}

/// `None` if the client closes the connection between two frames.
async fn read_len(stream: &mut OwnedReadHalf) -> Result<Option<usize>> {
    let mut header = [0; 4];
    let n = stream.read(&mut header).await?;
    if n == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut header[n..]).await?;
    match u32::from_be_bytes(header) as usize {
        len if len > FRAME_BYTES_MAX => {
            Err(format!("server: refused a frame of {len} bytes").into())
        }
        len => Ok(Some(len)),
    }
}

async fn write_frames<B: AsRef<[u8]>>(
    mut stream: OwnedWriteHalf,
    mut frames: mpsc::Receiver<B>,
) -> Result<()> {
    while let Some(frame) = frames.recv().await {
        let payload = frame.as_ref();
        let mut header = [0; 12];
        header[..4].copy_from_slice(&(payload.len() as u32).to_be_bytes());
        header[4..].copy_from_slice(&checksum(payload).to_be_bytes());
        stream
            .write_all_buf(&mut Buf::chain(&header[..], payload))
            .await?;
    }
    Ok(())
}

// ---- client

/// One connection's client. Allocates when made, and not while it runs.
struct Client {
    /// Client `index` of `clients` sends every `clients`-th frame of the round.
    index: usize,
    clients: usize,
    /// When each frame was started, in ns after `epoch`. Atomic only to make the future `Send`.
    started: Vec<AtomicU64>,
    /// In ns, from the start of a frame's write to the last byte of its echo verified.
    latencies: Vec<u64>,
    echo: Vec<u8>,
    epoch: Instant,
}

impl Client {
    fn new(index: usize, clients: usize, round_frames: usize) -> Self {
        let frames = (index..round_frames).step_by(clients).len();
        Self {
            index,
            clients,
            started: (0..frames).map(|_| AtomicU64::new(0)).collect(),
            latencies: Vec::with_capacity(frames),
            echo: vec![0; 256 << 10],
            epoch: Instant::now(),
        }
    }

    /// Sends the first `count` frames and verifies their echoes, at the same time. The window bounds
    /// the frames in flight.
    async fn exchange(
        &mut self,
        stream: &mut TcpStream,
        corpus: &Corpus,
        count: usize,
    ) -> Result<()> {
        let (latencies, echo, epoch) = (&mut self.latencies, &mut self.echo, self.epoch);
        let payloads = corpus.payloads.iter().cycle().skip(self.index);
        let frames = payloads.step_by(self.clients).zip(&self.started);
        let frames = frames.take(count);
        let now = || epoch.elapsed().as_nanos() as u64;
        let (mut reader, mut writer) = stream.split();
        let window = Semaphore::new(WINDOW);
        latencies.clear();
        let send = async {
            for (payload, started) in frames.clone() {
                window.acquire().await?.forget();
                started.store(now(), Ordering::Relaxed);
                let header = (payload.bytes.len() as u32).to_be_bytes();
                let mut frame = Buf::chain(&header[..], &payload.bytes[..]);
                writer.write_all_buf(&mut frame).await?;
            }
            Ok(())
        };
        let receive = async {
            for (payload, started) in frames.clone() {
                receive_echo(&mut reader, payload, echo).await?;
                latencies.push(now() - started.load(Ordering::Relaxed));
                window.add_permits(1);
            }
            Ok(())
        };
        tokio::try_join!(send, receive).map(|_| ())
    }
}

/// Reads one echo, piece by piece, and compares it with what was sent.
async fn receive_echo(
    stream: &mut (impl AsyncReadExt + Unpin),
    sent: &Payload,
    echo: &mut [u8],
) -> Result<()> {
    let head = (stream.read_u32().await? as usize, stream.read_u64().await?);
    if head != (sent.bytes.len(), sent.checksum) {
        return Err("client: an echo with a wrong length or checksum".into());
    }
    let mut expected = &sent.bytes[..];
    while !expected.is_empty() {
        let room = echo.len().min(expected.len());
        let n = stream.read(&mut echo[..room]).await?;
        if n == 0 {
            return Err("client: the connection closed within an echo".into());
        }
        if echo[..n] != expected[..n] {
            return Err("client: an echo with a wrong byte".into());
        }
        expected = &expected[n..];
    }
    Ok(())
}

// ---- rounds

struct Bench {
    corpus: Arc<Corpus>,
    clients: Vec<Client>,
    pool: Pool,
    runtime: Runtime,
}

/// What one round measured, or all counted rounds of one mode.
#[derive(Default)]
struct Tally {
    /// Of each round: frames/s, MB/s, p50 and p99 in µs.
    rounds: Vec<[f64; 4]>,
    /// Of every frame, in ns.
    latencies: Vec<u64>,
    /// Number and bytes.
    allocations: [u64; 2],
}

impl Tally {
    fn add(&mut self, round: Tally) {
        self.rounds.extend(round.rounds);
        self.latencies.extend(round.latencies);
        self.allocations[0] += round.allocations[0];
        self.allocations[1] += round.allocations[1];
    }
}

impl Bench {
    fn new(options: &Options) -> Result<Self> {
        let corpus = Corpus::load(&options.dir, options.round_bytes_max)?;
        let client = |index| Client::new(index, options.clients, corpus.round_frames);
        Ok(Self {
            clients: (0..options.clients).map(client).collect(),
            corpus: Arc::new(corpus),
            pool: Pool::builder().max_size(options.pool_bytes_max).build()?,
            runtime: Runtime::new()?,
        })
    }

    fn round(&mut self, mode: Mode) -> Result<Tally> {
        let (corpus, clients, pool) = (&self.corpus, &mut self.clients, self.pool.clone());
        match mode {
            Mode::Plain => self.runtime.block_on(round(Plain, corpus, clients)),
            Mode::Pool => self.runtime.block_on(round(pool, corpus, clients)),
        }
    }
}

/// Starts a server, connects the clients, and measures from their common start to the end of all.
async fn round(
    source: impl BufferSource,
    corpus: &Arc<Corpus>,
    clients: &mut Vec<Client>,
) -> Result<Tally> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let start = Arc::new(Semaphore::new(0));
    // The first error returns from here, which drops the set, which ends all the others.
    let mut tasks: JoinSet<Result<Option<Client>>> = JoinSet::new();
    let server = serve(listener, source, clients.len());
    tasks.spawn(async { server.await.map(|()| None) });
    for mut client in clients.drain(..) {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        // A frame before the clock starts, so that accepting the connection is not measured.
        let frames = client.started.len();
        client.exchange(&mut stream, corpus, frames.min(1)).await?;
        let (corpus, start) = (Arc::clone(corpus), Arc::clone(&start));
        tasks.spawn(async move {
            start.acquire().await?.forget();
            client.exchange(&mut stream, &corpus, frames).await?;
            Ok(Some(client))
        });
    }

    let before = heap::allocations();
    let clock = Instant::now();
    start.add_permits(tasks.len());
    while let Some(joined) = tasks.join_next().await {
        clients.extend(joined??);
    }
    let seconds = clock.elapsed().as_secs_f64();
    let after = heap::allocations();

    let latencies = clients.iter().flat_map(|client| &client.latencies);
    let mut latencies: Vec<u64> = latencies.copied().collect();
    latencies.sort_unstable();
    let frames = corpus.round_frames as f64;
    let bytes = corpus.bytes as f64 * frames / corpus.payloads.len() as f64;
    let [p50, p99] = [50, 99].map(|part| percentile(&latencies, part) / 1e3);
    Ok(Tally {
        rounds: vec![[frames / seconds, bytes / 1e6 / seconds, p50, p99]],
        latencies,
        allocations: [after[0] - before[0], after[1] - before[1]],
    })
}

// ---- peak RSS, one process per mode

/// The same rounds of one mode, and one line for the parent: RSS before them, with the files
/// loaded, and at the peak.
fn run_child(options: &Options, bench: &mut Bench, mode: Mode) -> Result<()> {
    let before = resident_bytes().map_or(f64::NAN, mib);
    for _ in 0..=options.rounds {
        bench.round(mode)?;
    }
    let peak = resident_bytes_max().map_or(f64::NAN, mib);
    print(&format!("{before} {peak}\n"))
}

/// Runs this program again for one mode. Returns the peak RSS and the part of it above the RSS
/// before the rounds, both in MiB. NaN if the system does not give them.
fn spawn_child(mode: Mode) -> Result<[f64; 2]> {
    let output = Command::new(env::current_exe()?)
        .arg(["--child-plain", "--child-pool"][mode as usize])
        .args(env::args_os().skip(1))
        .stderr(Stdio::inherit())
        .output()?;
    let line = String::from_utf8_lossy(&output.stdout);
    match line.trim().split_once(' ') {
        Some((before, peak)) if output.status.success() => {
            let (before, peak): (f64, f64) = (before.parse()?, peak.parse()?);
            Ok([peak, peak - before])
        }
        _ => Err(format!("the child process for peak RSS failed: {}", output.status).into()),
    }
}

// ---- report

fn describe(options: &Options, corpus: &Corpus) -> String {
    let lens = || corpus.payloads.iter().map(|payload| payload.bytes.len());
    let from = |min| lens().filter(|len| *len >= min).count();
    let (files, medium, large) = (from(0), from(MEDIUM), from(LARGE));
    let (found, frames) = (corpus.found, corpus.round_frames);
    let (rounds, clients, max) = (options.rounds, options.clients, options.pool_bytes_max);
    format!(
        "{files} of {found} files, {:.1} MiB: {} below 64 KiB, {} below 1 MiB, {large} larger\n\
         {}\n\
         {frames} frames a round over {clients} connections, {WINDOW} in flight on each\n\
         {rounds} rounds per mode, interleaved, after one to warm up; every byte is verified\n\
         the pool's largest size class: {max} bytes; larger files, so from the heap: {}\n\n",
        mib(corpus.bytes),
        files - medium,
        medium - large,
        corpus.skipped(),
        from(max + 1),
    )
}

/// The table, the pool's own numbers, and the result in words, from the numbers alone.
fn report(mut tallies: [Tally; 2], rss: [[f64; 2]; 2], stats: &Stats) -> String {
    let frames = tallies[0].latencies.len() as f64;
    let [plain, pool] = tallies.each_mut().map(|tally| {
        tally.latencies.sort_unstable();
        let [p50, p99] = [50, 99].map(|part| percentile(&tally.latencies, part) / 1e3);
        let [count, bytes] = tally.allocations.map(|n| n as f64 / frames);
        [p50, p99, count, bytes]
    });
    let of_rounds = |name: &str, more_is_better, column: usize| {
        let rounds = tallies[0].rounds.iter().zip(&tallies[1].rounds);
        let rounds = rounds.map(|(plain, pool)| [plain[column], pool[column]]);
        Row::of_rounds(name.into(), more_is_better, rounds.collect())
    };
    // Each round has its own percentiles. The row gives those of all frames.
    let latency = |name, column: usize| Row {
        plain: plain[column],
        pool: pool[column],
        ..of_rounds(name, false, 2 + column)
    };
    let once = |name: &str, least, plain, pool| Row {
        name: name.into(),
        more_is_better: false,
        least,
        plain,
        pool,
        rounds: Vec::new(),
    };
    // 1 MiB: one peak RSS differs by some hundred KiB from the next.
    let rows = [
        of_rounds("frames/s", true, 0),
        of_rounds("MB/s", true, 1),
        latency("p50 per frame, µs", 0),
        latency("p99 per frame, µs", 1),
        once("allocations per frame", 0.0, plain[2], pool[2]),
        once("bytes allocated per frame", 0.0, plain[3], pool[3]),
        once("peak RSS, MiB", 1.0, rss[0][0], rss[1][0]),
        once("peak above start, MiB", 1.0, rss[0][1], rss[1][1]),
    ];
    let mut text = table(&rows);
    let hit_rate = 100.0 * stats.total.hit_rate();
    let _ = writeln!(
        text,
        "The pool's hit rate, with the warm-up: {hit_rate:.2} %"
    );
    text.push_str(
        "\nframes/s, MB/s: the median round, payload counted once. p50, p99: of all rounds. They\n\
         include the time that a frame waits behind others. pool ahead: in pairs of rounds.\n\
         allocations: those of the whole process, tokio's queues too. RSS: each mode in a process\n\
         alone. The start is after the files are loaded and before the first round.\n\n",
    );
    let _ = writeln!(text, "{}\n", stats.to_string().trim_end());
    text + CLEAR + "\n" + &sentences(&rows)
}
