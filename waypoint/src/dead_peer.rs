//! TCP connections whose other end is gone without a word: how soon the kernel gives them up. For HTTP/2 without PINGs,
//! and not for TCP that is passed on: an application there may read as late as it likes.

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::limits::UNACKNOWLEDGED_TIMEOUT;

/// A stream whose dead other end is noticed, which connections without PINGs are made of: there is no other way to one.
#[derive(Debug)]
pub struct Noticed<S>(S);

/// What a stream can do about it.
pub trait GiveUp {
    /// Has the TCP connection underneath given up when the other end is dead, unless something else looks after it.
    fn give_up_dead(&self);
}

impl GiveUp for TcpStream {
    fn give_up_dead(&self) {
        give_up(self);
    }
}

/// In the memory of a test nobody dies.
#[cfg(test)]
impl GiveUp for tokio::io::DuplexStream {
    fn give_up_dead(&self) {}
}

impl<S: GiveUp> Noticed<S> {
    /// Has it noticed from now on.
    pub fn new(stream: S) -> Self {
        stream.give_up_dead();
        Self(stream)
    }
}

impl<S> Noticed<S> {
    /// What is made over it, such as TLS.
    ///
    /// # Errors
    /// Those of making it.
    pub async fn within<T, E, F>(self, make: impl FnOnce(S) -> F) -> Result<Noticed<T>, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        make(self.0).await.map(Noticed)
    }

    /// The stream.
    pub fn into_inner(self) -> S {
        self.0
    }
}

/// Ends the connection when the other end acknowledges nothing for [`UNACKNOWLEDGED_TIMEOUT`], whether something was sent
/// or not: the probes of a quiet connection begin after half of it.
fn give_up(tcp: &TcpStream) {
    let socket = SockRef::from(tcp);
    let probes = TcpKeepalive::new()
        .with_time(UNACKNOWLEDGED_TIMEOUT / 2)
        .with_interval(UNACKNOWLEDGED_TIMEOUT / 2);
    // Without them the connection works, and a dead one is noticed later.
    let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIMEOUT));
    let _ = socket.set_tcp_keepalive(&probes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Carrier;

    #[tokio::test]
    async fn a_dead_endpoint_is_given_up_though_nothing_is_sent_to_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await;
        let carrier = Noticed::new(Carrier::Plain(tcp.unwrap())).into_inner();
        let Carrier::Plain(in_carrier) = &carrier else {
            panic!("it was");
        };
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await;
        let alone = Noticed::new(tcp.unwrap()).into_inner();
        for tcp in [in_carrier, &alone] {
            is_given_up(&SockRef::from(tcp));
        }
    }

    fn is_given_up(socket: &SockRef<'_>) {
        let unacknowledged = socket.tcp_user_timeout().unwrap();
        assert_eq!(unacknowledged, Some(UNACKNOWLEDGED_TIMEOUT));
        // Data is probed for by TCP itself; a quiet connection is not, unless it is asked to be.
        assert!(socket.keepalive().unwrap());
        let silent =
            socket.tcp_keepalive_time().unwrap() + socket.tcp_keepalive_interval().unwrap();
        assert!(silent <= UNACKNOWLEDGED_TIMEOUT, "{silent:?}");
    }
}
