//! The gateway's connection code without the gateway, on three runtimes: what the runtime matters.

use std::{cell::RefCell, net::SocketAddr, rc::Rc};

use prism_codec::{
    h2::{Config, Connection, Event, Input},
    message::{common::WriteResultView, keyvalue::PutView, receipt::encode_write_response},
};

use super::Map;

const RECEIVE_BYTES: usize = 64 << 10;
const APPLIED: WriteResultView = WriteResultView {
    durability: 1,
    lane: 0,
    lsn: 0,
    applied: true,
};

/// One connection and the map that all share.
struct Session {
    h2: Connection,
    map: Rc<RefCell<Map>>,
}

impl Session {
    fn new(map: &Rc<RefCell<Map>>) -> Self {
        Self {
            h2: Connection::new(Config::server()),
            map: map.clone(),
        }
    }

    /// Serves what came and drops it from `bytes`. `false`: the connection is over.
    fn serve(&mut self, bytes: &mut Vec<u8>) -> bool {
        let mut input = Input::new(bytes);
        let alive = loop {
            match self.h2.poll_event(&mut input) {
                Ok(Some(Event::Headers { memoizable: true, .. })) => self.h2.memoize(1),
                Ok(Some(Event::Data {
                    stream,
                    data,
                    end_stream: true,
                })) => {
                    if let Some(view) = data.get(5..).and_then(|message| PutView::decode(message).ok()) {
                        put(&mut self.map.borrow_mut(), &view);
                    }
                    // A stream that is gone takes no reply.
                    let _ = self
                        .h2
                        .send_grpc_reply(stream, |out| encode_write_response(out, &APPLIED, &[]));
                }
                Ok(Some(_)) => {}
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        let used = input.consumed();
        bytes.drain(..used);
        alive
    }
}

fn put(map: &mut Map, view: &PutView<'_>) {
    for item in view.items.iter() {
        match map.get_mut(view.id) {
            Some(value) => {
                value.clear();
                value.extend_from_slice(item.value);
            }
            None => {
                map.insert(view.id.to_owned(), item.value.to_vec());
            }
        }
    }
}

/// On monoio, as the gateway.
pub(super) fn monoio(listen: SocketAddr) -> Result<(), String> {
    use monoio::{
        IoUringDriver, RuntimeBuilder,
        buf::IoBufMut,
        io::{AsyncReadRent, AsyncWriteRentExt},
        net::TcpListener,
    };
    let mut runtime = RuntimeBuilder::<IoUringDriver>::new()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async move {
        let listener = TcpListener::bind(listen).map_err(|error| error.to_string())?;
        let map = Rc::new(RefCell::new(Map::new()));
        loop {
            let (mut socket, _) = listener.accept().await.map_err(|error| error.to_string())?;
            let mut session = Session::new(&map);
            monoio::spawn(async move {
                let _ = socket.set_nodelay(true);
                let mut buffer: Vec<u8> = Vec::with_capacity(RECEIVE_BYTES);
                let mut spare = Vec::new();
                loop {
                    let (filled, capacity) = (buffer.len(), buffer.capacity());
                    let (result, slice) = socket.read(IoBufMut::slice_mut(buffer, filled..capacity)).await;
                    buffer = slice.into_inner();
                    if !matches!(result, Ok(1..)) || !session.serve(&mut buffer) {
                        return;
                    }
                    let output = session.h2.take_output(spare);
                    let (result, output) = socket.write_all(output).await;
                    if result.is_err() {
                        return;
                    }
                    spare = output;
                }
            });
        }
    })
}

/// On glommio.
pub(super) fn glommio(listen: SocketAddr) -> Result<(), String> {
    use futures_lite::{AsyncReadExt, AsyncWriteExt};
    use glommio::{LocalExecutorBuilder, Placement, net::TcpListener};
    LocalExecutorBuilder::new(Placement::Unbound)
        .make()
        .map_err(|error| error.to_string())?
        .run(async move {
            let listener = TcpListener::bind(listen).map_err(|error| error.to_string())?;
            let map = Rc::new(RefCell::new(Map::new()));
            loop {
                let mut socket = listener.accept().await.map_err(|error| error.to_string())?;
                let mut session = Session::new(&map);
                glommio::spawn_local(async move {
                    let _ = socket.set_nodelay(true);
                    let mut chunk = vec![0; RECEIVE_BYTES];
                    let mut buffer = Vec::new();
                    let mut spare = Vec::new();
                    while let Ok(count @ 1..) = socket.read(&mut chunk).await {
                        buffer.extend_from_slice(&chunk[..count]);
                        if !session.serve(&mut buffer) {
                            return;
                        }
                        let output = session.h2.take_output(spare);
                        if socket.write_all(&output).await.is_err() {
                            return;
                        }
                        spare = output;
                    }
                })
                .detach();
            }
        })
}

/// On tokio, one thread.
pub(super) fn tokio(listen: SocketAddr) -> Result<(), String> {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };
    super::on_tokio(async move {
        let listener = TcpListener::bind(listen)
            .await
            .map_err(|error| error.to_string())?;
        let map = Rc::new(RefCell::new(Map::new()));
        loop {
            let (mut socket, _) = listener.accept().await.map_err(|error| error.to_string())?;
            let mut session = Session::new(&map);
            tokio::task::spawn_local(async move {
                let _ = socket.set_nodelay(true);
                let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
                let mut spare = Vec::new();
                while let Ok(1..) = socket.read_buf(&mut buffer).await {
                    if !session.serve(&mut buffer) {
                        return;
                    }
                    let output = session.h2.take_output(spare);
                    if socket.write_all(&output).await.is_err() {
                        return;
                    }
                    spare = output;
                    buffer.reserve(RECEIVE_BYTES / 2);
                }
            });
        }
    })
}
