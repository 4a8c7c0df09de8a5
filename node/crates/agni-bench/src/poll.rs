//! Waiting for sockets: `poll(2)`, enough for the dozens of connections of a run.

use crate::connection::Connection;
use std::os::fd::AsRawFd;

/// Waits until one of the connections can go on, at most `timeout_ms`.
///
/// # Errors
/// Says what the system call answered.
pub fn wait(connections: &[Connection], timeout_ms: i32) -> Result<(), String> {
    let mut waits: Vec<libc::pollfd> = connections
        .iter()
        .map(|connection| libc::pollfd {
            fd: if connection.paused { -1 } else { connection.socket.as_raw_fd() },
            events: if connection.wants_write() {
                libc::POLLIN | libc::POLLOUT
            } else {
                libc::POLLIN
            },
            revents: 0,
        })
        .collect();
    // SAFETY: the pointer and the length are those of a live vector.
    let answer = unsafe { libc::poll(waits.as_mut_ptr(), waits.len() as libc::nfds_t, timeout_ms) };
    if answer < 0 {
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(format!("poll: {error}"));
        }
    }
    Ok(())
}
