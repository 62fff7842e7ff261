//! The floor: receives a request of known size, answers a reply of known size, on the gateway's
//! runtime. What is below this is the kernel's.

use std::net::SocketAddr;

use monoio::{
    IoUringDriver, RuntimeBuilder,
    io::{AsyncReadRent, AsyncWriteRentExt},
    net::TcpListener,
};

use super::{ECHO_REPLY_BYTES, ECHO_REQUEST_BYTES};

pub(super) fn serve(listen: SocketAddr) -> Result<(), String> {
    let mut runtime = RuntimeBuilder::<IoUringDriver>::new()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async move {
        let listener = TcpListener::bind(listen).map_err(|error| error.to_string())?;
        loop {
            let (mut socket, _) = listener.accept().await.map_err(|error| error.to_string())?;
            monoio::spawn(async move {
                let _ = socket.set_nodelay(true);
                let mut buffer: Vec<u8> = Vec::with_capacity(16 << 10);
                let mut reply = Vec::new();
                let mut received = 0;
                loop {
                    let (result, filled) = socket.read(buffer).await;
                    buffer = filled;
                    let Ok(count @ 1..) = result else { return };
                    received += count;
                    let requests = received / ECHO_REQUEST_BYTES;
                    received %= ECHO_REQUEST_BYTES;
                    reply.clear();
                    reply.resize(requests * ECHO_REPLY_BYTES, 7);
                    let (result, sent) = socket.write_all(reply).await;
                    reply = sent;
                    if result.is_err() {
                        return;
                    }
                }
            });
        }
    })
}
