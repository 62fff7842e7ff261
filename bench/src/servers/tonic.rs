//! tonic on one tokio thread, with the service that its own generator makes of `proto/`.

use std::{net::SocketAddr, sync::Mutex};

use tonic::{Request, Response, Status, transport::Server};

use self::generated::prism::{
    common::v1::{Durability, WriteResult},
    keyvalue::v1::{
        CompareAndSwapRequest, CompareAndSwapResponse, DeleteRequest, DeleteResponse, GetRequest,
        GetResponse, MutateRequest, MutateResponse, PutRequest, PutResponse, ScanRequest, ScanResponse,
        key_value_server::{KeyValue, KeyValueServer},
    },
};
use super::Map;

#[allow(missing_docs, clippy::all, unreachable_pub, unused_qualifications)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/tonic/mod.rs"));
}

struct Service(Mutex<Map>);

#[tonic::async_trait]
impl KeyValue for Service {
    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let request = request.into_inner();
        let mut map = self.0.lock().map_err(|_| Status::internal("poisoned"))?;
        for item in request.items {
            map.insert(request.id.clone(), item.value);
        }
        let result = WriteResult {
            durability: Durability::BestEffort.into(),
            lane: 0,
            lsn: 0,
            applied: true,
        };
        Ok(Response::new(PutResponse { result: Some(result) }))
    }

    async fn get(&self, _: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        Err(Status::unimplemented("only Put is compared"))
    }

    async fn delete(&self, _: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        Err(Status::unimplemented("only Put is compared"))
    }

    type ScanStream = tokio_stream::Empty<Result<ScanResponse, Status>>;

    async fn scan(&self, _: Request<ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        Err(Status::unimplemented("only Put is compared"))
    }

    async fn mutate(&self, _: Request<MutateRequest>) -> Result<Response<MutateResponse>, Status> {
        Err(Status::unimplemented("only Put is compared"))
    }

    async fn compare_and_swap(
        &self,
        _: Request<CompareAndSwapRequest>,
    ) -> Result<Response<CompareAndSwapResponse>, Status> {
        Err(Status::unimplemented("only Put is compared"))
    }
}

pub(super) fn serve(listen: SocketAddr) -> Result<(), String> {
    super::on_tokio(async move {
        Server::builder()
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(8 << 20)
            .max_concurrent_streams(1_024)
            .tcp_nodelay(true)
            .add_service(KeyValueServer::new(Service(Mutex::new(Map::new()))))
            .serve(listen)
            .await
            .map_err(|error| error.to_string())
    })
}
