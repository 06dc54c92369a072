//! TCP connections whose other end is gone without a word: how soon the kernel gives them up. For HTTP/2 without PINGs,
//! and not for TCP that is passed on: an application there may read as late as it likes.

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::limits::UNACKNOWLEDGED_TIMEOUT;

/// Ends the connection when the other end acknowledges nothing for [`UNACKNOWLEDGED_TIMEOUT`], whether something was sent
/// or not: the probes of a quiet connection begin after half of it.
pub fn give_up(tcp: &TcpStream) {
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
        let carrier = Carrier::Plain(tcp.unwrap());
        carrier.give_up_dead();
        let Carrier::Plain(tcp) = &carrier else {
            panic!("it was");
        };
        let socket = SockRef::from(tcp);
        let unacknowledged = socket.tcp_user_timeout().unwrap();
        assert_eq!(unacknowledged, Some(UNACKNOWLEDGED_TIMEOUT));
        // Data is probed for by TCP itself; a quiet connection is not, unless it is asked to be.
        assert!(socket.keepalive().unwrap());
        let silent =
            socket.tcp_keepalive_time().unwrap() + socket.tcp_keepalive_interval().unwrap();
        assert!(silent <= UNACKNOWLEDGED_TIMEOUT, "{silent:?}");
    }
}
