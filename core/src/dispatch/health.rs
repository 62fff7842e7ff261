//! The service `grpc.health.v1`: whether the gateway, or one of its services, takes calls.

use std::iter;

use prism_codec::{
    grpc::{Code, Status},
    method::Api,
    proto::grpc::health::v1::{
        HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
        health_check_response::ServingStatus,
    },
};
use prost::Message;

use super::{Dispatcher, Progress};
use crate::call::error;

/// The services whose health can be asked for; the empty name is the gateway as a whole.
fn services() -> impl Iterator<Item = &'static str> {
    let is_ours = |api: &&Api| !matches!(api, Api::Health | Api::ServerReflection);
    iter::once("").chain(Api::ALL.iter().filter(is_ours).map(|api| api.service()))
}

impl Dispatcher {
    /// Answers `Check`.
    pub(crate) fn health(&mut self, message: &[u8], serving: bool) -> Result<(), Box<Status>> {
        let service = decode(message)?;
        if !services().any(|known| known == service) {
            return Err(error::status(
                Code::NotFound,
                "no such service; ask for \"\" to get the health of the gateway",
            ));
        }
        self.encode_health(if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        });
        Ok(())
    }

    /// Answers `List`: all services at once.
    pub(crate) fn health_list(&mut self, message: &[u8]) -> Result<(), Box<Status>> {
        if HealthListRequest::decode(message).is_err() {
            return Err(error::status(Code::InvalidArgument, "not a HealthListRequest"));
        }
        let status = match self.readiness() {
            Ok(()) => ServingStatus::Serving,
            Err(_) => ServingStatus::NotServing,
        };
        let response = HealthListResponse {
            statuses: services()
                .map(|service| {
                    let health = HealthCheckResponse {
                        status: status.into(),
                    };
                    (service.to_owned(), health)
                })
                .collect(),
        };
        self.reply.clear();
        // A Vec grows as needed, so encoding into it cannot fail.
        let _ = response.encode(&mut self.reply);
        Ok(())
    }

    /// Starts `Watch`: the state now, and again when it changes. An unknown service is a state of
    /// its own there.
    pub(crate) fn watch_health(&mut self, message: &[u8]) -> Progress {
        let service = match decode(message) {
            Ok(service) => service,
            Err(status) => return Progress::Done(Err(status)),
        };
        let known = services().any(|known| known == service);
        let state = match (known, self.readiness().is_ok()) {
            (false, _) => ServingStatus::ServiceUnknown,
            (true, true) => ServingStatus::Serving,
            (true, false) => ServingStatus::NotServing,
        };
        self.encode_health(state);
        Progress::Watch
    }

    fn encode_health(&mut self, status: ServingStatus) {
        self.reply.clear();
        let response = HealthCheckResponse {
            status: status.into(),
        };
        // A Vec grows as needed, so encoding into it cannot fail.
        let _ = response.encode(&mut self.reply);
    }
}

fn decode(message: &[u8]) -> Result<String, Box<Status>> {
    match HealthCheckRequest::decode(message) {
        Ok(request) => Ok(request.service),
        Err(_) => Err(error::status(Code::InvalidArgument, "not a HealthCheckRequest")),
    }
}
