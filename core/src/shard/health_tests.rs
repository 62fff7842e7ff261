//! Health of all services, as a probe sees it.

use prism_codec::{
    method::Api,
    proto::grpc::health::v1::{HealthCheckRequest, HealthListResponse},
};
use prost::Message;

use super::bench::lone_dispatcher;

#[test]
fn every_service_of_prism_has_a_health() {
    let mut dispatcher = lone_dispatcher();
    dispatcher.health_list(b"").expect("an empty request");
    let response = HealthListResponse::decode(dispatcher.reply.as_slice()).expect("our own reply");
    let mut listed: Vec<&str> = response.statuses.keys().map(String::as_str).collect();
    listed.sort_unstable();
    let own = Api::ALL.iter().map(|api| api.service());
    let mut expected: Vec<&str> = own.filter(|service| service.starts_with("prism.")).collect();
    expected.push("");
    expected.sort_unstable();
    assert_eq!(listed, expected);
    assert!(listed.contains(&"prism.pubsub.v1.PubSub"));
    for service in listed {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        dispatcher
            .health(&request.encode_to_vec(), true)
            .expect("a service that is listed");
    }
}
