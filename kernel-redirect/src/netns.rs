//! The cookie by which the kernel knows a network namespace. Enters none.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `SO_NETNS_COOKIE`; missing in some C libraries' headers.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The cookie of the network namespace in which the socket `fd` was made. It is never used twice
/// while the kernel runs. Needs kernel 5.14.
///
/// # Errors
/// What getsockopt(2) says; `ENOPROTOOPT` on older kernels.
pub fn netns_cookie(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: `cookie` has the 8 bytes that `length` says, and both live across the call.
    #[allow(unsafe_code, reason = "no crate wraps this socket option")]
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}
