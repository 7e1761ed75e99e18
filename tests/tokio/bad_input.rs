//! Clients that send what no frame is, over sockets: a typed error, and the connection is closed.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Closes {
    /// Shuts down its side, and waits for the server's end.
    Half,
    /// Waits for the server's end.
    Not,
    /// Drops the socket, and reads nothing.
    Vanishes,
}

type Check = fn(&FrameError) -> bool;

/// A name, how frames are cut, what the client sends and then does, the number of frames, and the error.
type Case = (&'static str, Framing, Vec<u8>, Closes, usize, Check);

/// Sends `bytes` to a reader, until that ends. Returns the frames, and the error.
async fn serve(
    pool: &Pool,
    framing: Framing,
    bytes: Vec<u8>,
    closes: Closes,
) -> (Vec<PooledBytes>, Option<FrameError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (server, _) = listener.accept().await.unwrap();
    let client = tokio::spawn(async move {
        // The server may close before it has all.
        let sent = client.write_all(&bytes).await;
        match closes {
            Closes::Half => client.shutdown().await.unwrap_or(()),
            Closes::Not => {}
            Closes::Vanishes => return sent.unwrap(),
        }
        // The end, or a reset if the server has not read all.
        assert_eq!(client.read(&mut [0; 9]).await.unwrap_or(0), 0);
    });
    let mut reader = PooledReader::new(pool, framing, server).max_frame_bytes(10_000);
    let mut frames = Vec::new();
    let error = loop {
        match reader.next_frame().await {
            Some(Ok(frame)) => frames.push(frame),
            Some(Err(error)) => break Some(error),
            None => break None,
        }
    };
    assert!(reader.next_frame().await.is_none());
    drop(reader); // closes the connection
    client.await.unwrap();
    (frames, error)
}

fn two_bytes(adjustment: i64) -> Framing {
    let field = Framing::length_field().bytes(2);
    field.adjustment(adjustment).build().unwrap()
}

fn line() -> Framing {
    Framing::delimiter("\r\n").unwrap()
}

#[tokio::test]
async fn a_bad_client_gets_a_typed_error_and_its_connection_is_closed() {
    let too_large: Check = |error| matches!(error, FrameError::TooLarge { limit: 10_000, .. });
    let length: Check = |error| matches!(error, FrameError::Length { .. });
    let incomplete: Check = |error| matches!(error, FrameError::Incomplete { .. });
    let large = [&b"\0\x02ok\x27\x11"[..], &[7; 10_001]].concat();
    let cases: [Case; 9] = [
        (
            "larger than allowed",
            two_bytes(0),
            large,
            Closes::Not,
            1,
            too_large,
        ),
        (
            "a field that lies: too large",
            two_bytes(0),
            vec![0xff; 3],
            Closes::Not,
            0,
            too_large,
        ),
        (
            "a field that lies: negative",
            two_bytes(-9),
            vec![0; 8],
            Closes::Not,
            0,
            length,
        ),
        (
            "a field that lies: more than is sent",
            two_bytes(0),
            b"\0\x01x\0\x09abc".to_vec(),
            Closes::Half,
            1,
            incomplete,
        ),
        (
            "half of a field",
            two_bytes(0),
            b"\0\x01x\0".to_vec(),
            Closes::Half,
            1,
            incomplete,
        ),
        (
            "half of a frame",
            two_bytes(0),
            b"\x03\xe8half".to_vec(),
            Closes::Vanishes,
            0,
            incomplete,
        ),
        (
            "a delimiter that never comes",
            line(),
            vec![b'\r'; 10_002],
            Closes::Not,
            0,
            too_large,
        ),
        (
            "half of a delimiter",
            line(),
            b"one\r\ntwo\r".to_vec(),
            Closes::Half,
            1,
            incomplete,
        ),
        (
            "no delimiter at the end",
            line(),
            b"\r\n\r\nlast".to_vec(),
            Closes::Vanishes,
            2,
            incomplete,
        ),
    ];
    let pool = Pool::new();
    for (name, framing, bytes, closes, count, is_expected) in cases {
        let (frames, error) = serve(&pool, framing, bytes, closes).await;
        assert_eq!(frames.len(), count, "{name}");
        let error = error.unwrap_or_else(|| panic!("{name}"));
        assert!(is_expected(&error), "{name}: {error}");
        let kind = io::Error::from(error).kind();
        assert!(
            matches!(
                kind,
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ),
            "{name}"
        );
        drop(frames);
        assert_all_home(&pool);
    }
    // None of them has made the pool reserve more than the limit asks for.
    assert!(pool.stats().peaks.outstanding_bytes <= 32 << 10);
}

#[tokio::test]
async fn frames_without_bytes_are_frames_and_hold_no_buffer() {
    let pool = Pool::new();
    for (framing, bytes) in [
        (two_bytes(0), vec![0; 20_000]),
        (line(), b"\r\n".repeat(10_000)),
    ] {
        let (frames, error) = serve(&pool, framing, bytes, Closes::Half).await;
        assert!(error.is_none());
        assert_eq!(frames.len(), 10_000);
        assert!(frames.iter().all(|frame| frame.is_empty()));
        assert_all_home(&pool); // while the frames are here
    }
}

// A client that only ever sends the head of a large frame keeps one buffer out: the limit's.
#[test]
fn heads_without_frames_keep_out_no_more_than_the_limit() {
    const READERS: usize = 50;
    let pool = Pool::new();
    let source = || Source::new([Step::Bytes(b"\x27\x10.".to_vec()), Step::Wait, Step::Wait]);
    let reader = |_| PooledReader::new(&pool, by_two_bytes(), source()).max_frame_bytes(10_000);
    let mut readers: Vec<_> = (0..READERS).map(reader).collect();
    for reader in &mut readers {
        assert!(poll_once(reader.next_frame()).is_pending());
        assert!(poll_once(reader.next_frame()).is_pending());
    }
    let total = pool.stats().total;
    assert_eq!(total.outstanding, READERS as u64);
    assert!(total.outstanding_bytes <= READERS as u64 * (16 << 10));
    drop(readers);
    assert_all_home(&pool);
}

#[test]
fn a_chunk_reader_of_a_peer_that_vanishes_returns_its_error_once() {
    let pool = Pool::new();
    let steps = [Step::Bytes(b"half".to_vec()), Step::Fail, Step::Wait];
    let mut chunks = PooledChunks::new(&pool, Source::new(steps));
    let first = poll_times(chunks.next_chunk(), 1)
        .flatten()
        .unwrap()
        .unwrap();
    assert_eq!(first, "half");
    let error = poll_times(chunks.next_chunk(), 1)
        .flatten()
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(poll_times(chunks.next_chunk(), 1).unwrap().is_none());
    drop(first);
    assert_all_home(&pool);
}
