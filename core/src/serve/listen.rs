//! The listening sockets: one for each shard, all on the same port.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::ServeError;

/// Connections that the kernel holds until they are accepted.
const LISTEN_BACKLOG: i32 = 4_096;
/// Time for which a gateway that has just ended may still hold the port.
const RESTART_PATIENCE: Duration = Duration::from_secs(2);

/// Makes one listening socket for each shard on the same port (SO_REUSEPORT): the kernel spreads
/// the connections.
pub(super) fn bind(address: SocketAddr, count: u16) -> Result<(Vec<TcpListener>, SocketAddr), ServeError> {
    let in_use = |cause: &io::Error| {
        let advice = match cause.kind() {
            io::ErrorKind::AddrInUse => {
                "; another program listens there. Stop it, or choose another port with --listen"
            }
            io::ErrorKind::AddrNotAvailable => {
                "; this machine has no such address. Choose another with --listen"
            }
            io::ErrorKind::PermissionDenied => {
                "; ports below 1024 need privileges. Choose another with --listen"
            }
            _ => "",
        };
        ServeError(format!("cannot listen on {address}: {cause}{advice}"))
    };
    // With SO_REUSEPORT a second gateway of the same user could share the port unnoticed; a plain
    // bind fails then.
    if address.port() != 0 {
        drop(bind_alone(address).map_err(|cause| in_use(&cause))?);
    }
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut bound = address;
    for _ in 0..count {
        let listener = listen(bound).map_err(|cause| in_use(&cause))?;
        bound = listener.local_addr().map_err(|cause| in_use(&cause))?;
        listeners.push(listener);
    }
    Ok((listeners, bound))
}

/// Makes the listeners as many as there are shards.
pub(super) fn resize(
    listeners: &mut Vec<TcpListener>,
    address: SocketAddr,
    count: u16,
) -> Result<(), ServeError> {
    listeners.truncate(usize::from(count));
    while listeners.len() < usize::from(count) {
        let listener = listen(address);
        listeners.push(listener.map_err(|cause| ServeError(format!("cannot listen on {address}: {cause}")))?);
    }
    Ok(())
}

/// Binds without sharing the port. The kernel closes an io_uring, and its listeners, only after its
/// process has ended: the port of a gateway that has just been stopped stays in use for a moment.
fn bind_alone(address: SocketAddr) -> io::Result<TcpListener> {
    let patience = Instant::now() + RESTART_PATIENCE;
    loop {
        match TcpListener::bind(address) {
            Err(cause) if cause.kind() == io::ErrorKind::AddrInUse && Instant::now() < patience => {
                thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}
