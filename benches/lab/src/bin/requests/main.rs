//! An HTTP server (hyper) whose handlers share one context for each request.
//!
//! ```text
//! cargo run --release -p tierpool-lab --bin requests              # plain against the pools
//! cargo run --release -p tierpool-lab --bin requests -- --help
//! ```
//!
//! The context is new for each request, or an object of a pool, as gin's `Context` is. A pooled one is reset
//! when it comes back. The answer shows all that is in the context, and the clients compare it with their
//! request. Half of the requests leave out what the others send, so a leftover would be seen.

mod client;

use bytes::{Buf, BufMut};
use client::{Sent, read_answer};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context as Waker, Poll};
use std::time::Instant;
use tierpool::ObjectPool;
use tierpool_lab::random::Random;
use tierpool_lab::served::{
    self, Buffer, Buffers, Fresh, Load, Objects, Plain, Program, Source, checked,
};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

/// More than most answers have, so that their buffer does not grow.
const ANSWER_BYTES: usize = 4 << 10;
/// A context with more room than this is not kept.
const KEPT_BYTES_MAX: usize = 64 << 10;

fn main() -> ExitCode {
    served::run::<Requests>()
}

struct Requests;

impl Program for Requests {
    const NAME: &str = "requests";
    const UNIT: &str = "request";
    const ABOUT: &str = "\
An HTTP server (hyper) puts what it knows of a request into a context, and answers with its contents.
Pooled are the contexts, and the buffers of the answers. Plain is a new context, and `BytesMut`.";
    const CONNECTIONS: usize = 64;
    const CHECKS: bool = true;

    async fn serve(buffers: Buffers, listener: TcpListener) -> io::Result<()> {
        match buffers {
            Buffers::Plain => accept(listener, Plain, Fresh(Context::default)).await,
            Buffers::Pool(pool) => {
                let contexts = contexts();
                served::watch(&contexts);
                accept(listener, pool, contexts).await
            }
        }
    }

    async fn load(number: usize, stream: &mut TcpStream, load: Arc<Load>) -> io::Result<()> {
        let mut random = Random(number as u64);
        let mut answer = Vec::new();
        while !load.is_over() {
            let sent = Sent::new(&mut random);
            let begun = Instant::now();
            stream.write_all(&sent.request()).await?;
            let body = read_answer(stream, &mut answer).await?;
            if answer[body] != *sent.answer() {
                return Err(io::Error::other("an answer has what was not sent"));
            }
            load.answered(1, begun.elapsed());
        }
        Ok(())
    }
}

/// What the handlers know of a request. All text is in one string.
#[derive(Debug, Default, PartialEq, Eq)]
struct Context {
    text: String,
    path: Range<usize>,
    /// Who has logged in.
    user: Option<Range<usize>>,
    /// Names and values of the query.
    fields: Vec<[Range<usize>; 2]>,
    body: Vec<u8>,
}

impl Context {
    /// Leaves nothing of the request. A new field is an error here, until it is reset as well.
    fn reset(&mut self) {
        let Context {
            text,
            path,
            user,
            fields,
            body,
        } = self;
        text.clear();
        *path = 0..0;
        *user = None;
        fields.clear();
        body.clear();
    }

    fn is_small(&self) -> bool {
        let fields = self.fields.capacity() * size_of::<[Range<usize>; 2]>();
        self.text.capacity() + fields + self.body.capacity() <= KEPT_BYTES_MAX
    }

    fn add(&mut self, text: &str) -> Range<usize> {
        let start = self.text.len();
        self.text.push_str(text);
        start..self.text.len()
    }

    /// The first handler.
    fn read_head<B>(&mut self, request: &Request<B>) {
        self.path = self.add(request.uri().path());
        for field in request.uri().query().unwrap_or_default().split('&') {
            if let Some((name, value)) = field.split_once('=') {
                let field = [self.add(name), self.add(value)];
                self.fields.push(field);
            }
        }
        let user = request.headers().get("x-user");
        self.user = user.map(|user| self.add(&String::from_utf8_lossy(user.as_bytes())));
    }

    /// The last handler: shows all.
    fn answer(&self, mut to: impl BufMut + std::fmt::Write) -> std::fmt::Result {
        let text = |range: &Range<usize>| &self.text[range.clone()];
        writeln!(to, "path {}", text(&self.path))?;
        if let Some(user) = &self.user {
            writeln!(to, "user {}", text(user))?;
        }
        for [name, value] in &self.fields {
            writeln!(to, "{} is {}", text(name), text(value))?;
        }
        to.put_slice(&self.body);
        Ok(())
    }
}

fn contexts() -> ObjectPool<Context> {
    let contexts = ObjectPool::builder(Context::default)
        .reset(Context::reset)
        .keep(Context::is_small);
    contexts.build().expect("the options are valid")
}

async fn accept<S: Source>(
    listener: TcpListener,
    source: S,
    contexts: impl Objects<Context>,
) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (source, contexts) = (source.clone(), contexts.clone());
        let service = service_fn(move |request| {
            // Dropped with the future, also if the client goes away.
            let context = contexts.object();
            respond(request, context, source.clone())
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn respond<S: Source>(
    request: Request<Incoming>,
    mut context: impl std::ops::DerefMut<Target = Context>,
    source: S,
) -> io::Result<Response<Answer<<S::Buffer as Buffer>::Part>>> {
    context.read_head(&request);
    let mut body = request.into_body();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(mut data) = frame.map_err(io::Error::other)?.into_data() {
            while data.has_remaining() {
                context.body.extend_from_slice(data.chunk());
                data.advance(data.chunk().len());
            }
        }
    }
    let mut answer = source.get(ANSWER_BYTES);
    context.answer(&mut answer).map_err(io::Error::other)?;
    checked(1);
    Ok(Response::new(Answer(Some(answer.freeze()))))
}

/// A body of one part.
struct Answer<P>(Option<P>);

impl<P: Buf + Unpin> Body for Answer<P> {
    type Data = P;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Waker<'_>,
    ) -> Poll<Option<io::Result<Frame<P>>>> {
        Poll::Ready(self.0.take().map(|part| Ok(Frame::data(part))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, Buf::remaining) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_request_is_seen_by_the_next() {
        let contexts = contexts();
        let mut random = Random(0);
        for number in 0..1000 {
            let sent = Sent::new(&mut random);
            let mut context = contexts.get();
            assert_eq!(*context, Context::default(), "request {number}");
            let request = Request::post(format!("{}?", sent.path)).body(());
            let mut request = request.unwrap();
            let query = sent.request();
            let target = String::from_utf8_lossy(&query);
            *request.uri_mut() = target.split(' ').nth(1).unwrap().parse().unwrap();
            if let Some(user) = &sent.user {
                let headers = request.headers_mut();
                headers.insert("x-user", user.parse().unwrap());
            }
            context.read_head(&request);
            context.body.extend_from_slice(&sent.body);
            let mut answer = bytes::BytesMut::new();
            context.answer(&mut answer).unwrap();
            assert_eq!(answer, sent.answer());
        }
        let stats = contexts.stats();
        assert_eq!((stats.gets, stats.misses, stats.outstanding), (1000, 1, 0));
    }

    #[test]
    fn a_context_that_has_grown_is_not_kept() {
        let contexts = contexts();
        contexts.get().body.reserve(KEPT_BYTES_MAX + 1);
        let stats = contexts.stats();
        assert_eq!((stats.discarded_by_keep, stats.idle), (1, 0));
    }
}
