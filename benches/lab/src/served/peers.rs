//! Programs that others wrote, as clients of a server here.

use crate::Result;
use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Whether a client is installed. Says so aloud if it is not.
pub fn is_installed(client: &'static str) -> bool {
    static FOUND: Mutex<Option<HashMap<&str, bool>>> = Mutex::new(None);
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let found = found.get_or_insert_default();
    *found.entry(client).or_insert_with(|| {
        let found = Command::new(client).arg("--version").output().is_ok();
        if !found {
            eprintln!("{client} is NOT INSTALLED: the program's own client does its work");
        }
        found
    })
}

/// Runs `curl` with an input, and returns the body of the answer.
pub fn curl(args: &[&str], server: SocketAddr, path: &str, input: &[u8]) -> Result<Vec<u8>> {
    let mut curl = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--noproxy", "*"])
        .args(args)
        .arg(format!("http://{server}{path}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    curl.stdin.take().ok_or("no stdin")?.write_all(input)?;
    let output = curl.wait_with_output()?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(format!("curl {path} failed: {}", output.status).into()),
    }
}

/// `wrk`, with a script of this package that prints what `Program::outside` asks for.
pub fn wrk(script: &str, server: SocketAddr, connections: usize, seconds: u64) -> Command {
    let script = format!("{}/src/{script}", env!("CARGO_MANIFEST_DIR"));
    let mut wrk = Command::new("wrk");
    wrk.args(["--threads", "1", "--timeout", "10", "--script", &script])
        .arg(format!("--connections={connections}"))
        .arg(format!("--duration={seconds}"))
        .arg(format!("http://{server}"));
    wrk
}
