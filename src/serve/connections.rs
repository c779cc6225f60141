//! Connections of clients: how many, and how long each may keep the others waiting.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::stream::STALL_MAX;

/// How many clients may be connected. The next one waits in the queue of the system.
const CONNECTIONS_MAX: usize = 1024;

/// How many of them may be of one machine, so that one alone cannot keep all others out. A proxy on this machine may have all.
const OF_ONE_MAX: usize = 256;

/// How long a client may take for the handshake of TLS.
pub(super) const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// How long a client may take for the head of a request, and be silent between two requests. Longer than clients keep a
/// connection that they do not use: 90 seconds, mostly.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(100);

/// The most headers of a request.
const HEADERS_MAX: usize = 100;

/// The most bytes of a request that wait in memory: its head, or a piece of its body. Smaller pieces make uploads slower.
const HEAD_MAX: usize = 256 * 1024;

/// How long to wait when the system gives out no more connections.
const EXHAUSTED_PAUSE: Duration = Duration::from_secs(1);

/// How long clients may take.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    pub handshake: Duration,
    pub silence: Duration,
    pub stall: Duration,
    /// How long requests may go on after the server was told to stop.
    pub stopping: Duration,
}

/// What every connection gets.
#[derive(Clone)]
pub(super) struct Connections {
    pub router: Router,
    /// `None` for plain HTTP.
    pub tls: Option<TlsAcceptor>,
    pub patience: Patience,
}

impl Patience {
    pub const USUAL: Patience =
        Patience { handshake: HANDSHAKE_MAX, silence: SILENCE_MAX, stall: STALL_MAX, stopping: super::STOPPING_MAX };
}

impl Connections {
    /// Serves until `shutdown` is ready; then requests under way have a little time to end.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let (tell, told) = watch::channel(false);
        let room = Room::new();
        let mut clients = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                (stream, place) = room.next(&listener) => {
                    clients.spawn(self.clone().client(stream, told.clone(), place));
                }
                // Only so that what has ended takes no memory.
                Some(_) = clients.join_next() => {}
            }
        }
        drop(listener);
        let _ = tell.send(true);
        // What is not over by then is broken off with the set.
        let _ = timeout(self.patience.stopping, async { while clients.join_next().await.is_some() {} }).await;
    }

    async fn client(self, stream: TcpStream, mut told: watch::Receiver<bool>, place: Place) {
        let _place = place;
        // Small answers must not wait for the acknowledgement of the one before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
        let stream = Patient::new(stream, self.patience.stall);
        let Some(acceptor) = &self.tls else { return self.requests(stream, told).await };
        let handshake = timeout(self.patience.handshake, acceptor.accept(stream));
        let done = tokio::select! {
            done = handshake => done,
            () = is_told(&mut told) => return,
        };
        match done {
            Ok(Ok(stream)) => self.requests(stream, told).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn requests(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        mut told: watch::Receiver<bool>,
    ) {
        let service = TowerToHyperService::new(self.router.clone());
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(self.patience.silence);
        builder.max_headers(HEADERS_MAX).max_buf_size(HEAD_MAX);
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = is_told(&mut told) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection broke off");
        }
    }
}

/// Ready when the server was told to stop.
async fn is_told(told: &mut watch::Receiver<bool>) {
    // A sender that has gone is no better.
    drop(told.wait_for(|stop| *stop).await);
}

/// Who is connected.
#[derive(Clone)]
struct Room {
    places: Arc<Semaphore>,
    /// How many connections each other machine has.
    clients: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// The place of one connection in the room; free when it is dropped.
struct Place {
    _permit: OwnedSemaphorePermit,
    client: IpAddr,
    room: Room,
}

impl Room {
    fn new() -> Self {
        Room { places: Arc::new(Semaphore::new(CONNECTIONS_MAX)), clients: Arc::default() }
    }

    /// The next client, when there is room for it.
    async fn next(&self, listener: &TcpListener) -> (TcpStream, Place) {
        loop {
            let Ok(permit) = Arc::clone(&self.places).acquire_owned().await else {
                return std::future::pending().await;
            };
            match listener.accept().await {
                Ok((stream, from)) => match self.place(permit, from.ip()) {
                    Some(place) => return (stream, place),
                    None => tracing::debug!(%from, "a client has too many connections"),
                },
                Err(error) if is_of_client(&error) => {}
                Err(error) => {
                    // Too many open files, most likely: that passes when others end.
                    tracing::error!(%error, "no connection can be taken");
                    sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }

    fn place(&self, permit: OwnedSemaphorePermit, client: IpAddr) -> Option<Place> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let count = clients.entry(client).or_default();
        if *count >= OF_ONE_MAX && !client.to_canonical().is_loopback() {
            return None;
        }
        *count += 1;
        Some(Place { _permit: permit, client, room: self.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut clients = self.room.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = clients.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

/// The client went away before it was taken.
fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// A stream whose other end has to take what is sent: a client that takes nothing for too long loses its connection.
struct Patient<S> {
    stream: S,
    patience: Duration,
    /// Runs while a write waits.
    overdue: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncWrite + Unpin> Patient<S> {
    fn new(stream: S, patience: Duration) -> Self {
        Patient { stream, patience, overdue: None }
    }

    /// What a write came to, or that it has waited too long.
    fn within<T>(&mut self, polled: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.overdue = None;
            return polled;
        }
        let end = Instant::now() + self.patience;
        let overdue = self.overdue.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        match overdue.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within(polled, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.within(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.within(polled, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.within(polled, context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SHORT: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_secs(60);

    async fn serve(patience: Patience, tls: Option<TlsAcceptor>, body: usize) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(move || async move { vec![b'x'; body] });
        tokio::spawn(Connections { router, tls, patience }.serve(listener, std::future::pending()));
        address
    }

    fn patience() -> Patience {
        Patience { handshake: LONG, silence: LONG, stall: LONG, stopping: LONG }
    }

    /// Everything up to the end of the connection, which must come.
    async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
        let mut all = Vec::new();
        // A reset is an end too.
        let _ = timeout(LONG, stream.read_to_end(&mut all)).await.expect("the connection stays open");
        all
    }

    #[tokio::test]
    async fn a_client_that_sends_no_request_is_let_go() {
        let address = serve(Patience { silence: SHORT, ..patience() }, None, 1).await;
        for half in ["", "GET / HTTP/1.1\r\nHost: a", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(half.as_bytes()).await.unwrap();
            let answered = until_closed(&mut stream).await;
            assert_eq!(answered.starts_with(b"HTTP/1.1 200"), half.ends_with("\r\n\r\n"), "{half:?}");
        }
    }

    #[tokio::test]
    async fn a_handshake_that_does_not_go_on_ends() {
        let certificate = super::super::Certificate::of_tests();
        let address = serve(Patience { handshake: SHORT, ..patience() }, Some(certificate.acceptor()), 1).await;
        for begun in [&b""[..], b"\x16\x03\x01\x02\x00"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(begun).await.unwrap();
            assert_eq!(until_closed(&mut stream).await, b"");
        }
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_loses_its_connection() {
        let address = serve(Patience { stall: SHORT, ..patience() }, None, 64 << 20).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        sleep(10 * SHORT).await;
        assert!(until_closed(&mut stream).await.len() < 64 << 20, "nothing was broken off");
    }

    #[tokio::test]
    async fn one_machine_does_not_keep_all_others_out() {
        let room = Room::new();
        let place = |address: &str| {
            let permit = Arc::clone(&room.places).try_acquire_owned().unwrap();
            room.place(permit, address.parse().unwrap())
        };
        let mut places: Vec<Place> = (0..OF_ONE_MAX).map(|_| place("10.0.0.1").unwrap()).collect();
        assert!(place("10.0.0.1").is_none());
        places.push(place("10.0.0.2").unwrap());
        places.extend((0..2 * OF_ONE_MAX).map(|_| place("127.0.0.1").unwrap()));
        places.remove(0);
        assert!(place("10.0.0.1").is_some());
        drop(places);
        assert_eq!((room.clients.lock().unwrap().len(), room.places.available_permits()), (0, CONNECTIONS_MAX));
    }

    #[tokio::test]
    async fn a_large_head_is_refused() {
        let address = serve(patience(), None, 1).await;
        let many: String = (0..=HEADERS_MAX).map(|at| format!("x-{at}: y\r\n")).collect();
        let large = format!("x: {}\r\n", "y".repeat(2 * HEAD_MAX));
        for headers in [many, large] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // It may be refused before all of it was sent.
            let _ = stream.write_all(format!("GET / HTTP/1.1\r\n{headers}\r\n").as_bytes()).await;
            let answered = String::from_utf8(until_closed(&mut stream).await).unwrap();
            assert!(answered.is_empty() || answered.starts_with("HTTP/1.1 431"), "{answered}");
        }
    }
}
