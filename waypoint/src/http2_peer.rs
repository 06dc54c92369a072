//! The other end of an HTTP/2 connection, for tests: answers what a connection needs to live, and tells when it was
//! pinged. Frames are read by hand, for no library tells of PINGs.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

const PREFACE_BYTES: usize = 24;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;

/// When each PING came, while this much time goes by.
pub async fn pings(mut stream: DuplexStream, lasts: Duration) -> Vec<Instant> {
    let mut pings = Vec::new();
    let talk = talk(&mut stream, &mut pings);
    // An end of the connection is as good as the end of the time: there are no more PINGs.
    let _ = tokio::time::timeout(lasts, talk).await;
    pings
}

async fn talk(stream: &mut DuplexStream, pings: &mut Vec<Instant>) -> std::io::Result<()> {
    stream.read_exact(&mut [0; PREFACE_BYTES]).await?;
    frame(stream, SETTINGS, 0, &[]).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, ..] = head;
        let mut body = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut body).await?;
        match kind {
            SETTINGS if flags & ACK == 0 => frame(stream, SETTINGS, ACK, &[]).await?,
            PING if flags & ACK == 0 => {
                pings.push(Instant::now());
                frame(stream, PING, ACK, &body).await?;
            }
            _ => {}
        }
    }
}

async fn frame(stream: &mut DuplexStream, kind: u8, flags: u8, body: &[u8]) -> std::io::Result<()> {
    let head = [0, 0, body.len() as u8, kind, flags, 0, 0, 0, 0];
    stream.write_all(&[&head, body].concat()).await
}
