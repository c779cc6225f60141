//! One request, and what is done to it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::head::Head;
use super::{Entry, Fault, Shared};
use crate::support::Asked;

/// What a slow line takes in [`SLOW_PAUSE`]: together 10 KiB a second.
const SLOW_PIECE: usize = 1024;
const SLOW_PAUSE: Duration = Duration::from_millis(100);

/// A moment: far below every time-out of sealift.
const PAUSE: Duration = Duration::from_millis(200);

const PIECE: usize = 64 * 1024;

pub async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // Whichever side breaks off, there is nobody to tell.
            let _ = client.set_nodelay(true);
            let _ = serve(client, &shared).await;
        });
    }
}

async fn serve(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    let Some((head, early)) = Head::read(&mut client).await else { return Ok(()) };
    let body = Incoming { left: head.content_length(), early };
    if shared.token.is_some() && head.word(1).starts_with("/token") {
        let text = format!(r#"{{"token":"{}"}}"#, shared.good_token());
        return answer(client, body, 200, &[], &text).await;
    }
    let range = head.get("range").map(str::to_owned);
    let asked = Asked { method: head.word(0).to_owned(), path: head.word(1).to_owned(), range };
    // Whoever shows no token has met nothing yet but the door.
    let known = shared.knows(head.get("authorization"));
    let fault = if known { shared.fault(&asked) } else { None };
    let entry = shared.enter(asked, fault.clone());
    if matches!(fault, Some(Fault::Expire)) {
        shared.expire();
    }
    if !known || matches!(fault, Some(Fault::Expire)) {
        let challenge = format!(r#"Bearer realm="http://{}/token",service="faults""#, shared.address);
        return answer(client, body, 401, &[("WWW-Authenticate", challenge)], "").await;
    }
    if let Some(Fault::Answer(status, after)) = fault {
        let after = after.map(|seconds| ("Retry-After", seconds.to_string()));
        return answer(client, body, status, after.as_slice(), "").await;
    }
    if let Some(Fault::AnswerUntil(status, seconds)) = fault {
        let until = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
        let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&until).unwrap();
        return answer(client, body, status, &[("Retry-After", date)], "").await;
    }
    if let Some(Fault::Refuse(status, text)) = fault {
        return answer(client, body, status, &[], text).await;
    }
    let mut server = TcpStream::connect(&shared.upstream).await?;
    server.set_nodelay(true)?;
    if up(&mut client, &mut server, head.clone(), body, &fault, &entry).await? == Up::Cut {
        return end(client, matches!(fault, Some(Fault::ResetUpload(_))));
    }
    if matches!(fault, Some(Fault::Repeat)) {
        // The first answer is for nobody; the body is still there only where there is none.
        let _ = Head::read(&mut server).await;
        server = TcpStream::connect(&shared.upstream).await?;
        server.write_all(&onwards(head, &None).to_bytes()).await?;
        let again = entry.kept.lock().unwrap().clone();
        server.write_all(&again).await?;
    }
    down(client, server, &fault, &entry).await
}

/// An answer of the proxy's own, once the request has come whole.
async fn answer(
    mut client: TcpStream,
    mut body: Incoming,
    status: u16,
    headers: &[(&'static str, String)],
    text: &str,
) -> io::Result<()> {
    while body.next(&mut client).await?.is_some() {}
    let mut head = Head { first: format!("HTTP/1.1 {status} Fault"), headers: Vec::new() };
    headers.iter().for_each(|(name, value)| head.set(name, value));
    head.set("Content-Length", text.len());
    head.set("Connection", "close");
    client.write_all(&head.to_bytes()).await?;
    client.write_all(text.as_bytes()).await
}

/// The body of a request.
struct Incoming {
    left: u64,
    /// What came with the head.
    early: Vec<u8>,
}

impl Incoming {
    async fn next(&mut self, client: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut piece = std::mem::take(&mut self.early);
        if piece.is_empty() && client.read_buf(&mut piece).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= piece.len() as u64;
        Ok(Some(piece))
    }
}

#[derive(PartialEq)]
enum Up {
    Whole,
    Cut,
}

/// The head as the registry gets it.
fn onwards(mut head: Head, fault: &Option<Fault>) -> Head {
    head.set("Connection", "close");
    // Of no meaning to what is behind, and so nothing that it should get.
    if head.get("authorization").is_some_and(|value| value.starts_with("Bearer t")) {
        head.remove("authorization");
    }
    match fault {
        Some(Fault::DropRange) => head.remove("range"),
        Some(Fault::DoubleUpload) => head.set("Content-Length", head.content_length() * 2),
        _ => {}
    }
    head
}

async fn up(
    client: &mut TcpStream,
    server: &mut TcpStream,
    head: Head,
    mut body: Incoming,
    fault: &Option<Fault>,
    entry: &Entry,
) -> io::Result<Up> {
    server.write_all(&onwards(head, fault).to_bytes()).await?;
    let twice = matches!(fault, Some(Fault::DoubleUpload | Fault::Repeat));
    let cut = match fault {
        Some(Fault::CutUpload(at) | Fault::ResetUpload(at)) => Some(*at),
        _ => None,
    };
    let mut at = 0;
    loop {
        let left = cut.map_or(usize::MAX, |cut| usize::try_from(cut - at).unwrap());
        if left == 0 {
            return Ok(Up::Cut);
        }
        let Some(mut piece) = body.next(client).await? else { break };
        piece.truncate(left);
        if let Some(Fault::FlipUpload(place)) = fault {
            flip(&mut piece, at, *place);
        }
        at += piece.len() as u64;
        entry.add_up(piece.len());
        if twice {
            entry.kept.lock().unwrap().extend_from_slice(&piece);
        }
        // One that answers before all has come may close: its answer is what counts.
        if server.write_all(&piece).await.is_err() {
            break;
        }
    }
    if matches!(fault, Some(Fault::DoubleUpload)) {
        let again = entry.kept.lock().unwrap().clone();
        server.write_all(&again).await?;
    }
    Ok(Up::Whole)
}

async fn down(mut client: TcpStream, mut server: TcpStream, fault: &Option<Fault>, entry: &Entry) -> io::Result<()> {
    let Some((mut head, mut piece)) = Head::read(&mut server).await else { return Ok(()) };
    match fault {
        Some(Fault::LieDigest) => head.set("Docker-Content-Digest", format!("sha256:{}", "5a".repeat(32))),
        Some(Fault::LieLength) => head.set("Content-Length", head.content_length() + 1),
        Some(Fault::LoseAnswer) => return Ok(()),
        Some(Fault::Silence) => return until_it_hangs_up(client).await,
        _ => {}
    }
    let bytes = head.to_bytes();
    if matches!(fault, Some(Fault::CutHead)) {
        return client.write_all(&bytes[..bytes.len() / 2]).await;
    }
    client.write_all(&bytes).await?;
    let mut at = 0;
    loop {
        let left = match fault {
            Some(Fault::Cut(cut) | Fault::Reset(cut)) => usize::try_from(cut - at).unwrap(),
            Some(Fault::Pause(pause)) if at == *pause => {
                tokio::time::sleep(PAUSE).await;
                PIECE
            }
            Some(Fault::Stall(stall)) if at == *stall => return until_it_hangs_up(client).await,
            Some(Fault::Stall(stall)) => usize::try_from(stall - at).unwrap(),
            Some(Fault::Pause(pause)) if at < *pause => usize::try_from(pause - at).unwrap(),
            Some(Fault::Slow) => {
                tokio::time::sleep(SLOW_PAUSE).await;
                SLOW_PIECE
            }
            _ => PIECE,
        };
        if left == 0 {
            return end(client, matches!(fault, Some(Fault::Reset(_))));
        }
        if piece.is_empty() && server.read_buf(&mut piece).await? == 0 {
            return Ok(());
        }
        let rest = piece.split_off(piece.len().min(left));
        if let Some(Fault::Flip(place)) = fault {
            flip(&mut piece, at, *place);
        }
        at += piece.len() as u64;
        // Before it is sent: whoever has all of it may look at once.
        entry.add_down(piece.len());
        client.write_all(&piece).await?;
        piece = rest;
    }
}

/// Says nothing more, for as long as the client waits.
async fn until_it_hangs_up(mut client: TcpStream) -> io::Result<()> {
    let mut nothing = [0; 1];
    while client.read(&mut nothing).await? > 0 {}
    Ok(())
}

/// The end of a connection that should have gone on.
fn end(client: TcpStream, reset: bool) -> io::Result<()> {
    if reset {
        client.set_zero_linger()?;
    }
    Ok(())
}

/// Makes one bit another, where `piece`, which begins at `at`, has the byte at `place`.
fn flip(piece: &mut [u8], at: u64, place: u64) {
    let found = place.checked_sub(at).and_then(|inside| piece.get_mut(usize::try_from(inside).unwrap()));
    if let Some(byte) = found {
        *byte ^= 1;
    }
}
