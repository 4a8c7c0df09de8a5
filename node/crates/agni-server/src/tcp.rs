//! What a connection between nodes asks of TCP: that what was lost is sent again soon.
//!
//! TCP waits 200 ms at least before it sends anything again, and twice as long after each try.
//! Where one packet in three is lost that soon is longer than a leader may be silent.

use crate::limits;
use socket2::SockRef;
use tokio::net::TcpStream;

/// Has a connection to another node try again soon, as far as the kernel knows how to.
pub fn retry_soon(socket: &SockRef<'_>) {
    #[cfg(target_os = "linux")]
    linux::retry_soon(socket);
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}

/// A look at a connection that somebody else uses. The connection stays open for as long as this.
pub struct Probe {
    #[cfg(target_os = "linux")]
    socket: std::os::fd::OwnedFd,
}

impl Probe {
    /// At this one.
    ///
    /// # Errors
    /// When there are no more file descriptors.
    pub fn new(stream: &TcpStream) -> std::io::Result<Probe> {
        #[cfg(target_os = "linux")]
        let probe = Probe { socket: std::os::fd::AsFd::as_fd(stream).try_clone_to_owned()? };
        #[cfg(not(target_os = "linux"))]
        let probe = Probe {};
        Ok(probe)
    }

    /// How often TCP has sent in vain again the first of what isn't acknowledged: 0 if nothing is
    /// held up, or if that isn't known.
    pub fn tries(&self) -> u32 {
        #[cfg(target_os = "linux")]
        return linux::tries(&self.socket);
        #[cfg(not(target_os = "linux"))]
        0
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use super::{SockRef, limits};
    use std::os::fd::{AsRawFd, OwnedFd};

    pub(super) fn tries(socket: &OwnedFd) -> u32 {
        // SAFETY: all of it are numbers, for which all zeroes is a value.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut size = size_of_val(&info) as libc::socklen_t;
        let at = (&raw mut info).cast();
        // SAFETY: `at` points to `size` bytes, which hold numbers of any value.
        let answer = unsafe {
            let option = libc::TCP_INFO;
            libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, at, &raw mut size)
        };
        if answer == 0 { u32::from(info.tcpi_retransmits) } else { 0 }
    }

    /// The longest pause between two tries, in milliseconds. Since Linux 6.15.
    const TCP_RTO_MAX_MS: libc::c_int = 44;
    /// What is added to the round trip at least before the first one, in microseconds. As old.
    const TCP_RTO_MIN_US: libc::c_int = 45;

    pub(super) fn retry_soon(socket: &SockRef<'_>) {
        // Not twice as long each time, as long as little is under way.
        let _ = socket.set_tcp_thin_linear_timeouts(true);
        set(socket, TCP_RTO_MIN_US, limits::PEER_RETRY_US_MIN);
        set(socket, TCP_RTO_MAX_MS, limits::PEER_RETRY_MS_MAX);
    }

    /// Sets what the kernel may be too old for; then it tries again later.
    fn set(socket: &SockRef<'_>, option: libc::c_int, value: u32) {
        let size = size_of_val(&value) as libc::socklen_t;
        let value = (&raw const value).cast();
        // SAFETY: `value` points to `size` bytes that live as long as the call.
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, value, size) };
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use std::net::{TcpListener, TcpStream};

        fn get(socket: &SockRef<'_>, option: libc::c_int) -> Option<u32> {
            let mut value = 0_u32;
            let mut size = size_of_val(&value) as libc::socklen_t;
            let at = (&raw mut value).cast();
            // SAFETY: `at` points to `size` bytes, which a number of any value may fill.
            let answer = unsafe {
                libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, at, &raw mut size)
            };
            (answer == 0).then_some(value)
        }

        #[test]
        fn what_the_kernel_knows_is_set_and_the_rest_does_no_harm() {
            let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
            let stream = TcpStream::connect(listener.local_addr().expect("address"));
            let stream = stream.expect("connect");
            let socket = SockRef::from(&stream);
            retry_soon(&socket);
            assert!(socket.tcp_thin_linear_timeouts().expect("known for long"));
            for (option, wanted) in [
                (TCP_RTO_MIN_US, limits::PEER_RETRY_US_MIN),
                (TCP_RTO_MAX_MS, limits::PEER_RETRY_MS_MAX),
            ] {
                let found = get(&socket, option);
                assert!(found.is_none_or(|found| found == wanted), "{option}: {found:?}");
            }
            set(&socket, libc::c_int::MAX, 1);
        }
    }
}
