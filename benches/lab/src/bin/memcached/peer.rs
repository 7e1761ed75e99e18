//! The server: a `memcached` that this process starts and ends, or a stand-in if there is none.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;
use tierpool_lab::{MIB, Result};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::runtime::{self, Runtime};

/// What a server holds.
#[derive(Clone, Copy)]
pub struct Limits {
    pub value_mib: usize,
    /// Of all values. When they fill it, more are refused.
    pub total_mib: usize,
}

pub struct Server {
    pub address: SocketAddr,
    process: Option<Process>,
}

enum Process {
    Real(Child),
    StandIn(Runtime),
}

static VERSION: LazyLock<Option<String>> = LazyLock::new(|| {
    let output = Command::new("memcached").arg("--version").output().ok()?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(version)
});

/// The server's name and version.
pub fn name() -> &'static str {
    match &*VERSION {
        Some(version) => version,
        None => "memcached is NOT INSTALLED: a stand-in of this program",
    }
}

impl Server {
    /// Starts a server on a free port.
    pub fn start(limits: Limits) -> Result<Self> {
        if VERSION.is_none() {
            return stand_in(limits);
        }
        // Another process may take the port first.
        let mut attempts = std::iter::repeat_with(|| real(limits));
        let started = attempts.by_ref().take(5).find_map(Result::transpose);
        started.unwrap_or_else(|| Err("memcached does not start".into()))
    }

    /// Ends the server in the middle of what it does.
    pub fn kill(&mut self) {
        match self.process.take() {
            Some(Process::Real(mut child)) => {
                // It may have ended by itself.
                let _ = child.kill();
                let _ = child.wait();
            }
            Some(Process::StandIn(runtime)) => runtime.shutdown_background(),
            None => {}
        }
    }

    /// Stops the process, or lets it go on. Returns `false` for a stand-in.
    pub fn pause(&self, pause: bool) -> bool {
        let Some(Process::Real(child)) = &self.process else {
            return false;
        };
        let signal = if pause { libc::SIGSTOP } else { libc::SIGCONT };
        // SAFETY: the call reads no memory, and the process is a child that was not waited for.
        unsafe { libc::kill(child.id() as libc::pid_t, signal) == 0 }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts `memcached`. `None` if it has ended at once, or if another process has the port.
fn real(limits: Limits) -> Result<Option<Server>> {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = free.local_addr()?;
    drop(free);
    let child = Command::new("memcached")
        .args(["-l", "127.0.0.1", "-U", "0", "-t", "2"])
        .args(["-u", "nobody"]) // only root changes its user
        .arg("-M") // refuses what it has no room for
        .args(["-p", &address.port().to_string()])
        .args(["-I", &format!("{}m", limits.value_mib)])
        .args(["-m", &limits.total_mib.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let id = child.id().to_string();
    let mut server = Server {
        address,
        process: Some(Process::Real(child)),
    };
    loop {
        if let Some(Process::Real(child)) = &mut server.process {
            if child.try_wait()?.is_some() {
                return Ok(None);
            }
        }
        match std::net::TcpStream::connect(address) {
            Ok(stream) => {
                let is_ours = process_id(stream).is_ok_and(|answered| answered == id);
                return Ok(is_ours.then_some(server));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// The id of the memcached that answers.
fn process_id(mut stream: std::net::TcpStream) -> io::Result<String> {
    use std::io::{BufRead, Write};
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"stats\r\n")?;
    for line in std::io::BufReader::new(stream).lines() {
        match line?.strip_prefix("STAT pid ") {
            Some(id) => return Ok(id.into()),
            None => continue,
        }
    }
    Ok(String::new())
}

// ---- the stand-in

type Values = Arc<Mutex<HashMap<String, Vec<u8>>>>;

fn stand_in(limits: Limits) -> Result<Server> {
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let values = Values::default();
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(answer(stream, Arc::clone(&values), limits));
        }
        #[expect(unreachable_code, reason = "names the error's type")]
        io::Result::Ok(())
    });
    Ok(Server {
        address,
        process: Some(Process::StandIn(runtime)),
    })
}

async fn answer(mut stream: TcpStream, values: Values, limits: Limits) -> io::Result<()> {
    let lock = || values.lock().unwrap_or_else(PoisonError::into_inner);
    let (reader, mut writer) = stream.split();
    let (mut reader, mut line) = (BufReader::new(reader), String::new());
    while reader.read_line(&mut line).await? > 0 {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let answer = match words[..] {
            ["set", key, _, _, len] => {
                let len: usize = len.parse().map_err(io::Error::other)?;
                let mut value = vec![0; len + 2];
                reader.read_exact(&mut value).await?;
                value.truncate(len);
                let mut values = lock();
                let total: usize = values.values().map(Vec::len).sum();
                match () {
                    () if len > limits.value_mib * MIB => {
                        b"SERVER_ERROR object too large for cache\r\n".to_vec()
                    }
                    () if total + len > limits.total_mib * MIB => {
                        b"SERVER_ERROR out of memory storing object\r\n".to_vec()
                    }
                    () => {
                        values.insert(key.into(), value);
                        b"STORED\r\n".to_vec()
                    }
                }
            }
            ["get", key] => match lock().get(key) {
                Some(value) => {
                    let head = format!("VALUE {key} 0 {}\r\n", value.len());
                    [head.as_bytes(), value, b"\r\nEND\r\n"].concat()
                }
                None => b"END\r\n".to_vec(),
            },
            ["delete", key] => match lock().remove(key) {
                Some(_) => b"DELETED\r\n".to_vec(),
                None => b"NOT_FOUND\r\n".to_vec(),
            },
            _ => b"ERROR\r\n".to_vec(),
        };
        writer.write_all(&answer).await?;
        line.clear();
    }
    Ok(())
}
