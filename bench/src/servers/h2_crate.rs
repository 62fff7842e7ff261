//! The `h2` crate on one tokio thread, with prost: the protocol layer of the usual stack without
//! its frameworks.

use std::{cell::RefCell, net::SocketAddr, rc::Rc};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Response};
use prism_codec::proto::prism::{
    common::v1::{Durability, WriteResult},
    keyvalue::v1::{PutRequest, PutResponse},
};
use prost::Message;
use tokio::net::TcpListener;

use super::Map;

pub(super) fn serve(listen: SocketAddr) -> Result<(), String> {
    super::on_tokio(async move {
        let listener = TcpListener::bind(listen)
            .await
            .map_err(|error| error.to_string())?;
        let map = Rc::new(RefCell::new(Map::new()));
        loop {
            let (socket, _) = listener.accept().await.map_err(|error| error.to_string())?;
            let map = map.clone();
            tokio::task::spawn_local(async move {
                let _ = socket.set_nodelay(true);
                let handshake = h2::server::Builder::new()
                    .initial_window_size(1 << 20)
                    .initial_connection_window_size(8 << 20)
                    .max_concurrent_streams(1_024)
                    .handshake::<_, Bytes>(socket);
                let Ok(mut connection) = handshake.await else {
                    return;
                };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::task::spawn_local(answer(request.into_body(), respond, map.clone()));
                }
            });
        }
    })
}

async fn answer(
    mut body: h2::RecvStream,
    mut respond: h2::server::SendResponse<Bytes>,
    map: Rc<RefCell<Map>>,
) {
    let mut message = BytesMut::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        message.extend_from_slice(&data);
    }
    if message.len() < 5 {
        return;
    }
    let Ok(request) = PutRequest::decode(&message[5..]) else {
        return;
    };
    for item in request.items {
        map.borrow_mut().insert(request.id.clone(), item.value);
    }
    let response = PutResponse {
        result: Some(WriteResult {
            durability: Durability::BestEffort.into(),
            lane: 0,
            lsn: 0,
            applied: true,
        }),
    };
    let mut out = BytesMut::with_capacity(64);
    out.put_u8(0);
    out.put_u32(response.encoded_len() as u32);
    // The buffer grows as needed, so encoding cannot fail.
    let _ = response.encode(&mut out);
    let Ok(head) = Response::builder()
        .header("content-type", "application/grpc")
        .body(())
    else {
        return;
    };
    let Ok(mut send) = respond.send_response(head, false) else {
        return;
    };
    let _ = send.send_data(out.freeze(), false);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let _ = send.send_trailers(trailers);
}
