//! Threads that compress the files of a directory tree.
//!
//! ```text
//! cargo run --release -p tierpool-lab --features peers --bin workers              # plain against the pools
//! cargo run --release -p tierpool-lab --features peers --bin workers -- --help
//! ```
//!
//! The threads are rayon's: worker pools are its job, and tokio's. Pooled are what the workers use: a
//! compressor and a decompressor of zstd, which are one object, and the buffers. Each result is
//! decompressed, and compared with the file. The tree is this repository's, or the directory that the variable
//! `WORKERS_TREE` names.

use bytes::Buf;
use rayon::ThreadPool;
use rayon::prelude::*;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use tierpool::ObjectPool;
use tierpool_lab::served::{
    self, Buffer, Buffers, Fresh, Load, Objects, Plain, Program, Source, checked,
};
use tierpool_lab::{MIB, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{WriteBuf, compress_bound};

const THREADS: usize = 2;
const LEVEL: i32 = 1;
/// Larger files are left out: they would be read at once.
const FILE_BYTES_MAX: u64 = 64 * MIB as u64;

/// Directories of cargo, git, and the fuzzer.
const LEFT_OUT: [&str; 3] = ["target", ".git", "corpus"];

fn main() -> ExitCode {
    served::run::<Workers>()
}

struct Workers;

impl Program for Workers {
    const NAME: &str = "workers";
    const UNIT: &str = "file";
    const ABOUT: &str = "\
Two threads of rayon compress each file of a tree with zstd, decompress it, and compare. Pooled are the
compressors and the buffers. Plain is a new compressor for each file, and `BytesMut`.";
    const CONNECTIONS: usize = 1;
    const CHECKS: bool = true;

    async fn serve(buffers: Buffers, listener: TcpListener) -> io::Result<()> {
        let (mut client, _) = listener.accept().await?;
        let workers = rayon::ThreadPoolBuilder::new().num_threads(THREADS);
        let workers = Arc::new(workers.build().map_err(io::Error::other)?);
        let files: Arc<[PathBuf]> = tree()?.into();
        // One thread may take the object that another has dropped.
        let codecs = ObjectPool::builder(codec).max_idle(THREADS).build();
        let codecs = codecs.map_err(io::Error::other)?;
        served::watch(&codecs);
        while client.read(&mut [0]).await? > 0 {
            let (workers, files) = (Arc::clone(&workers), Arc::clone(&files));
            let (buffers, codecs) = (buffers.clone(), codecs.clone());
            let count = files.len() as u32;
            let work = move || match buffers {
                Buffers::Plain => compress_all(&workers, &files, &Plain, &Fresh(codec)),
                Buffers::Pool(pool) => compress_all(&workers, &files, &pool, &codecs),
            };
            let outcome = tokio::task::spawn_blocking(work).await?;
            outcome.map_err(io::Error::other)?;
            client.write_u32(count).await?;
        }
        Ok(())
    }

    async fn load(_: usize, stream: &mut TcpStream, load: Arc<Load>) -> io::Result<()> {
        while !load.is_over() {
            let begun = Instant::now();
            stream.write_all(b"?").await?;
            let files = stream.read_u32().await?;
            load.answered(files.into(), begun.elapsed());
        }
        Ok(())
    }
}

/// What a worker needs for a file. Neither keeps anything of the last one.
struct Codec {
    compressor: Compressor<'static>,
    decompressor: Decompressor<'static>,
}

fn codec() -> Codec {
    Codec {
        compressor: Compressor::new(LEVEL).expect("the level is one of zstd's"),
        decompressor: Decompressor::new().expect("has no dictionary"),
    }
}

fn compress_all<S: Source>(
    workers: &ThreadPool,
    files: &[PathBuf],
    source: &S,
    codecs: &impl Objects<Codec>,
) -> Result<()> {
    let one = |file: &PathBuf| {
        compress(file, source, &mut codecs.object())
            .map_err(|error| format!("{}: {error}", file.display()))
    };
    Ok(workers.install(|| files.par_iter().try_for_each(one))?)
}

/// Compresses a file, decompresses the result, and compares it with the file.
fn compress<S: Source>(path: &Path, source: &S, codec: &mut Codec) -> Result<()> {
    let file = File::open(path)?;
    let len = file.metadata()?.len() as usize;
    let mut input = source.get(len);
    while input.remaining() < len {
        let at = input.remaining();
        if input.read_at(&file, len - at, at as u64)? == 0 {
            return Err("it has become shorter".into());
        }
    }
    let mut output = Room::new(source.get(compress_bound(len)));
    codec
        .compressor
        .compress_to_buffer(input.chunk(), &mut output)?;
    let mut back = Room::new(source.get(len.max(1)));
    codec
        .decompressor
        .decompress_to_buffer(output.as_slice(), &mut back)?;
    if back.as_slice() != input.chunk() {
        return Err("it has other bytes after compression".into());
    }
    checked(1);
    Ok(())
}

/// A buffer that zstd writes to once. Nothing is zeroed before.
struct Room<B> {
    buf: B,
    capacity: usize,
}

impl<B: Buffer> Room<B> {
    /// The buffer must be empty.
    fn new(mut buf: B) -> Self {
        let capacity = buf.chunk_mut().len();
        Room { buf, capacity }
    }
}

// SAFETY: zstd asks for the pointer while nothing is written, so it points to the room that `new` has
// measured.
unsafe impl<B: Buffer> WriteBuf for Room<B> {
    fn as_slice(&self) -> &[u8] {
        self.buf.chunk()
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.buf.chunk_mut().as_mut_ptr()
    }

    unsafe fn filled_until(&mut self, len: usize) {
        // SAFETY: zstd has written these bytes.
        unsafe { self.buf.advance_mut(len) }
    }
}

/// The tree's files that are small enough.
fn tree() -> io::Result<Vec<PathBuf>> {
    let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let root = std::env::var_os("WORKERS_TREE").unwrap_or(repository.into());
    let (mut directories, mut files) = (vec![PathBuf::from(root)], Vec::new());
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let (kind, name) = (entry.file_type()?, entry.file_name());
            if kind.is_dir() && !LEFT_OUT.iter().any(|&left_out| name == left_out) {
                directories.push(entry.path());
            } else if kind.is_file() && entry.metadata()?.len() <= FILE_BYTES_MAX {
                files.push(entry.path());
            }
        }
    }
    match files.is_empty() {
        true => Err(io::Error::other("the tree has no files")),
        false => Ok(files),
    }
}
