//! What may go wrong: each case has its error, closes the connection, and leaves nothing outstanding.

use crate::client::{Client, Error};
use crate::peer::{self, Limits, Server};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tierpool::Pool;
use tierpool_lab::random::Random;
use tierpool_lab::{MIB, Result, accounts};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::runtime;

/// Far more than an answer takes, on the slowest machine.
const PATIENT: Duration = Duration::from_secs(60);
/// For servers that never answer.
const IMPATIENT: Duration = Duration::from_millis(100);
const CONNECTIONS: usize = 4;

/// Tries all cases. Returns what was shown.
pub fn check() -> Result<String> {
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let pool = Pool::new();
    let shown = runtime.block_on(async {
        let shown = [
            values(&pool).await?,
            full(&pool).await?,
            killed(&pool).await?,
            paused(&pool).await?,
            broken_answers(&pool).await?,
        ];
        Result::<_>::Ok(shown.join("; "))
    })?;
    accounts::settled(&pool)?;
    Ok(format!("{}: {shown}.", peer::name()))
}

fn client(server: SocketAddr, timeout: Duration, pool: &Pool) -> Client<Pool> {
    Client::new(server, CONNECTIONS, timeout, pool.clone())
}

/// Fails unless the error is the right one, the connection is closed, and no buffer is out.
fn expect<T>(
    name: &str,
    result: Result<T, Error>,
    is_right: impl FnOnce(&Error) -> bool,
    client: &Client<Pool>,
    pool: &Pool,
) -> Result<()> {
    match result {
        Err(error) if is_right(&error) => {}
        Err(error) => return Err(format!("{name}: a wrong error, {error:?}").into()),
        Ok(_) => return Err(format!("{name}: no error").into()),
    }
    match client.connections() {
        0 => accounts::settled(pool).map_err(|error| format!("{name}: {error}").into()),
        open => Err(format!("{name}: {open} connections are still open").into()),
    }
}

/// Values of 1 B to 1 MiB. All parts are held at once.
async fn values(pool: &Pool) -> Result<String> {
    let server = Server::start(Limits {
        value_mib: 2,
        total_mib: 256,
    })?;
    let client = client(server.address, PATIENT, pool);
    let mut random = Random(1);
    let mut values = vec![random.bytes(1), random.bytes(MIB)];
    for _ in 0..62 {
        let len = (MIB as f64).powf(random.unit()) as usize;
        values.push(random.bytes(len));
    }
    let mut parts = Vec::new();
    for (key, value) in values.iter().enumerate() {
        client.set(&format!("value-{key}"), value).await?;
    }
    for key in 0..values.len() {
        parts.push(client.get(&format!("value-{key}")).await?.ok_or("lost")?);
    }
    if parts.iter().ne(&values) {
        return Err("a value has other bytes than were stored".into());
    }
    let deleted = [
        client.delete("value-0").await?,
        client.delete("value-0").await?,
    ];
    if deleted != [true, false] || client.get("value-0").await?.is_some() {
        return Err("a deleted value is still there".into());
    }
    for key in ["", "two words", "line\r\n", &"x".repeat(251)] {
        if !matches!(client.get(key).await, Err(Error::BadKey)) {
            return Err(format!("the key {key:?} was not refused").into());
        }
    }
    Ok(format!("{} values of 1 B to 1 MiB are right", parts.len()))
}

/// A value above the limit, and a server without room.
async fn full(pool: &Pool) -> Result<String> {
    let server = Server::start(Limits {
        value_mib: 1,
        total_mib: 4,
    })?;
    let client = client(server.address, PATIENT, pool);
    let too_large = client.set("large", &vec![1; 2 * MIB]).await;
    expect(
        "a large value",
        too_large,
        |e| matches!(e, Error::TooLarge),
        &client,
        pool,
    )?;
    let value = Random(2).bytes(100_000);
    let mut stored = 0;
    let refused = loop {
        match client.set(&format!("full-{stored}"), &value).await {
            Ok(()) => stored += 1,
            refused => break refused,
        }
    };
    expect(
        "a full server",
        refused,
        |e| matches!(e, Error::Full),
        &client,
        pool,
    )?;
    for key in 0..stored {
        match client.get(&format!("full-{key}")).await? {
            Some(kept) if kept == value => {}
            _ => return Err("a full server lost a value".into()),
        }
    }
    Ok(format!("full after {stored} values, none lost"))
}

/// The server ends while connections wait for it.
async fn killed(pool: &Pool) -> Result<String> {
    let mut server = Server::start(Limits {
        value_mib: 2,
        total_mib: 64,
    })?;
    let client = std::sync::Arc::new(client(server.address, PATIENT, pool));
    let (began, mut begun) = tokio::sync::mpsc::channel(CONNECTIONS);
    let users: Vec<_> = (0..CONNECTIONS)
        .map(|user| {
            let (client, began) = (client.clone(), began.clone());
            tokio::spawn(async move {
                let (key, value) = (format!("user-{user}"), vec![7; MIB / 2]);
                loop {
                    client.set(&key, &value).await?;
                    if client.get(&key).await?.is_none_or(|got| got != value) {
                        return Ok::<(), Error>(()); // a wrong answer
                    }
                    let _ = began.try_send(()); // fails if they are enough
                }
            })
        })
        .collect();
    drop(began); // so that the next loop ends if all users have ended
    for _ in 0..CONNECTIONS {
        begun.recv().await;
    }
    server.kill();
    let is_right = |error: &Error| matches!(error, Error::Broken(_) | Error::Connect(_));
    for user in users {
        match user.await? {
            Err(error) if is_right(&error) => {}
            other => return Err(format!("a killed server: {other:?}").into()),
        }
    }
    // Connections at rest are found broken when they are next used.
    while client.connections() > 0 {
        if client.get("user-0").await.is_ok() {
            return Err("a killed server answers".into());
        }
    }
    let refused = client.get("user-0").await;
    expect(
        "a killed server",
        refused,
        |e| matches!(e, Error::Connect(_)),
        &client,
        pool,
    )?;
    Ok("killed".into())
}

/// The server stands still, and then goes on.
async fn paused(pool: &Pool) -> Result<String> {
    let server = Server::start(Limits {
        value_mib: 2,
        total_mib: 64,
    })?;
    let patient = client(server.address, PATIENT, pool);
    patient.set("first", b"1").await?;
    patient.set("second", b"2").await?;
    if !server.pause(true) {
        return Ok("not paused".into());
    }
    let impatient = client(server.address, IMPATIENT, pool);
    let late = impatient.get("first").await;
    expect(
        "a slow server",
        late,
        |e| matches!(e, Error::TimedOut),
        &impatient,
        pool,
    )?;
    server.pause(false);
    // The late answer is not taken for this one.
    match patient.get("second").await? {
        Some(got) if got == "2" => Ok("paused".into()),
        _ => Err("a wrong answer after a late one".into()),
    }
}

/// A name, an answer, the time that the client waits, and the right error.
type Case<'a> = (&'a str, &'a str, Duration, fn(&Error) -> bool);

/// Answers that memcached does not give.
async fn broken_answers(pool: &Pool) -> Result<String> {
    let endless = "x".repeat(4096);
    let late = |error: &Error| matches!(error, Error::TimedOut);
    let unexpected = |error: &Error| matches!(error, Error::Unexpected(_));
    let cases: [Case<'_>; 8] = [
        ("no answer", "", IMPATIENT, late),
        ("half a line", "VALUE ke", IMPATIENT, late),
        ("half a value", "VALUE key 0 10\r\nhalf", IMPATIENT, late),
        ("no end", "VALUE key 0 4\r\nhalf\r\n", IMPATIENT, late),
        ("an endless line", &endless, PATIENT, unexpected),
        (
            "another key",
            "VALUE other 0 1\r\n1\r\nEND\r\n",
            PATIENT,
            unexpected,
        ),
        (
            "a huge length",
            "VALUE key 0 99999999999\r\n",
            PATIENT,
            unexpected,
        ),
        (
            "a long value",
            "VALUE key 0 1\r\n12345678\r\nEND\r\n",
            PATIENT,
            unexpected,
        ),
    ];
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    for (name, answer, timeout, is_right) in cases {
        let client = client(listener.local_addr()?, timeout, pool);
        // Ends when the client has closed the connection.
        let serve = async {
            let mut stream = BufReader::new(listener.accept().await?.0);
            stream.read_until(b'\n', &mut Vec::new()).await?;
            stream.write_all(answer.as_bytes()).await?;
            // A client that closes with unread bytes resets the connection.
            match stream.read(&mut [0]).await {
                Ok(1..) => Err(std::io::Error::other("a second command")),
                _ => Ok(()),
            }
        };
        let (served, got) = tokio::join!(serve, client.get("key"));
        served?;
        expect(name, got, is_right, &client, pool)?;
    }
    Ok(format!("{} broken answers refused", cases.len()))
}
