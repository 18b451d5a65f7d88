//! Connections that can be cut from inside a handler, and bodies that come broken.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use futures_util::StreamExt;
use futures_util::stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

const OPEN: u8 = 0;
const CLOSE: u8 = 1;
const RESET: u8 = 2;

/// The switch of one connection. What was written before it is thrown still goes out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cut(Arc<AtomicU8>);

impl Cut {
    pub(crate) fn close(&self) {
        self.0.store(CLOSE, Ordering::Release);
    }

    pub(crate) fn reset(&self) {
        self.0.store(RESET, Ordering::Release);
    }
}

/// A connection with its switch.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    cut: Cut,
}

impl Wire {
    /// The HTTP layer flushes once everything it has is written: that is the moment to cut.
    fn check(&self) -> io::Result<()> {
        match self.cut.0.load(Ordering::Acquire) {
            OPEN => return Ok(()),
            RESET => self.stream.set_zero_linger()?,
            _ => {}
        }
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut by a fault"))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Ready(Ok(())) => Poll::Ready(self.check()),
            other => other,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Accepts connections with a switch.
#[derive(Debug)]
pub(crate) struct Listener(pub(crate) TcpListener);

impl axum::serve::Listener for Listener {
    type Io = Wire;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Wire, SocketAddr) {
        let (stream, address) = axum::serve::Listener::accept(&mut self.0).await;
        (Wire { stream, cut: Cut::default() }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, Listener>> for Cut {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        stream.io().cut.clone()
    }
}

/// The first part of a body; then, after a while, the connection is cut.
pub(crate) fn partial(body: &Bytes, fraction: f64, wait: Duration, cut: impl FnOnce() + Send + 'static) -> Body {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a part of the length, rounded as it may"
    )]
    let length = (body.len() as f64 * fraction.clamp(0.0, 1.0)) as usize;
    let part = body.slice(..length.min(body.len().saturating_sub(1)));
    let never = stream::once(async move {
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        cut();
        std::future::pending::<Bytes>().await
    });
    Body::from_stream(stream::once(std::future::ready(part)).chain(never).map(Ok::<_, Infallible>))
}

/// The body in pieces, with pauses between them.
pub(crate) fn drip(body: Bytes, pieces: usize, over: Duration) -> Body {
    let pieces = pieces.max(1);
    let size = body.len().div_ceil(pieces).max(1);
    let pause = over / u32::try_from(pieces).unwrap_or(u32::MAX);
    let parts = stream::unfold(body, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(pause).await;
        let part = rest.split_to(size.min(rest.len()));
        Some((Ok::<_, Infallible>(part), rest))
    });
    Body::from_stream(parts)
}

/// The body, and then the same letter until nobody listens.
pub(crate) fn endless(body: Bytes) -> Body {
    let filler = Bytes::from(vec![b'x'; 64 * 1024]);
    let parts = stream::once(std::future::ready(body)).chain(stream::repeat(filler));
    Body::from_stream(parts.map(Ok::<_, Infallible>))
}
