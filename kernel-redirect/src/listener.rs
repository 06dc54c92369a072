//! Which sockets connections can be steered to: they listen where the program sends them, and nobody
//! else reaches them. Steers nothing.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use socket2::SockRef;

use crate::{EnrolledPod, netns_cookie};

/// Where the socket listens, or why connections can not be steered to it.
pub(crate) fn check(pod: &EnrolledPod, listener: BorrowedFd<'_>) -> Result<SocketAddr, String> {
    let cookie = netns_cookie(listener).map_err(|e| format!("its network namespace: {e}"))?;
    if cookie != pod.netns_cookie {
        return Err(format!(
            "it was made in the network namespace with cookie {cookie}; make it in the pod's"
        ));
    }
    let address = check_address(pod, listener)?;
    match SockRef::from(&listener).device() {
        Ok(Some(device)) if device == b"lo" => Ok(address),
        Ok(_) => Err(
            "it is not bound to device lo, so that it could be reached from outside the pod".into(),
        ),
        Err(e) => Err(e.to_string()),
    }
}

/// Where the socket listens, or why that is not where a pod's listener has to.
pub(crate) fn check_address(
    pod: &EnrolledPod,
    listener: BorrowedFd<'_>,
) -> Result<SocketAddr, String> {
    let socket = SockRef::from(&listener);
    let accepts = socket.is_listener().map_err(|e| e.to_string())?;
    let address = socket
        .local_addr()
        .map_err(|e| e.to_string())?
        .as_socket()
        .filter(|_| accepts)
        .ok_or("it is no TCP socket that listens")?;
    if address.port() != pod.listener_port || !address.ip().is_unspecified() {
        return Err(format!(
            "it listens on {address} and not on every address of port {}",
            pod.listener_port
        ));
    }
    Ok(address)
}
