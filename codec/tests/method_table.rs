//! The table of methods against the descriptor set: each method of each service has exactly one
//! row, and the row agrees with the proto.

use std::collections::BTreeSet;

use prism_codec::{
    method::{
        Api, DeadLettersMethod, Effect, KeyValueMethod, Method, NamespacesMethod, Permissions, PubSubMethod,
        QueueMethod, Shape,
    },
    proto::FILE_DESCRIPTOR_SET,
};
use prost_reflect::{DescriptorPool, MessageDescriptor};

fn paths_of_the_descriptors() -> Vec<(String, Shape)> {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("build.rs made it");
    let methods = pool
        .services()
        .flat_map(|service| service.methods().collect::<Vec<_>>());
    let all = methods.map(|method| {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let shape = match (method.is_client_streaming(), method.is_server_streaming()) {
            (false, false) => Shape::Unary,
            (false, true) => Shape::Stream,
            _ => Shape::Dialogue,
        };
        (path, shape)
    });
    all.collect()
}

#[test]
fn every_method_of_every_service_has_exactly_one_row() {
    let expected = paths_of_the_descriptors();
    assert!(expected.len() >= 18, "{expected:?}");
    let rows: Vec<_> = Method::all()
        .map(|method| (method.spec().path.to_owned(), method.spec().shape))
        .collect();
    assert_eq!(rows, expected, "the rows, in the order of the descriptors");
    let distinct: BTreeSet<_> = rows.iter().map(|(path, _)| path).collect();
    assert_eq!(distinct.len(), rows.len());
}

#[test]
fn a_path_leads_to_its_method_and_nothing_else_does() {
    for method in Method::all() {
        let path = method.spec().path;
        assert_eq!(Method::of_path(path.as_bytes()), Some(method), "{path}");
        assert_eq!(method.api().method(method.index()), Some(method));
        assert_eq!(
            path,
            format!("/{}/{}", method.api().service(), method.spec().name)
        );
        for wrong in [
            path[1..].to_owned(),
            format!("{path}/"),
            format!("{path}x"),
            path.to_lowercase(),
            path[..path.len() - 1].to_owned(),
            format!("/{path}"),
        ] {
            assert_eq!(Method::of_path(wrong.as_bytes()), None, "{wrong}");
        }
    }
    for wrong in [
        "",
        "/",
        "//",
        "/prism.keyvalue.v1.KeyValue",
        "/prism.keyvalue.v1.KeyValue/",
        "/x/Put",
    ] {
        assert_eq!(Method::of_path(wrong.as_bytes()), None, "{wrong}");
    }
    assert_eq!(Api::KeyValue.method(KeyValueMethod::ALL.len()), None);
}

#[test]
fn rows_say_what_the_protos_say() {
    use Effect::{Certain, Direct, Judged, None};
    const READ: Permissions = Permissions::READ;
    const WRITE: Permissions = Permissions::WRITE;
    const ADMIN: Permissions = Permissions::ADMIN;
    let expected: [(Method, Permissions, Effect); 27] = [
        (KeyValueMethod::Put.into(), WRITE, Certain),
        (KeyValueMethod::Get.into(), READ, None),
        (KeyValueMethod::Delete.into(), WRITE, Certain),
        (KeyValueMethod::Scan.into(), READ, None),
        (KeyValueMethod::Mutate.into(), WRITE, Certain),
        (KeyValueMethod::CompareAndSwap.into(), READ.and(WRITE), Judged),
        (PubSubMethod::Publish.into(), WRITE, Certain),
        (PubSubMethod::PublishBatch.into(), WRITE, Certain),
        (PubSubMethod::Subscribe.into(), READ, None),
        (PubSubMethod::Commit.into(), READ, Direct),
        (PubSubMethod::ListGroups.into(), READ, None),
        (PubSubMethod::ResetGroup.into(), ADMIN, Judged),
        (PubSubMethod::DeleteGroup.into(), ADMIN, Judged),
        (QueueMethod::Send.into(), WRITE, Certain),
        (QueueMethod::SendBatch.into(), WRITE, Certain),
        (QueueMethod::Receive.into(), READ, Direct),
        (QueueMethod::Ack.into(), READ, Judged),
        (QueueMethod::Nack.into(), READ, Judged),
        (QueueMethod::Extend.into(), READ, Direct),
        (QueueMethod::Peek.into(), READ, None),
        (QueueMethod::Redrive.into(), WRITE, Judged),
        (QueueMethod::Delete.into(), ADMIN, Judged),
        (QueueMethod::Stats.into(), READ, None),
        (NamespacesMethod::Validate.into(), Permissions::NONE, None),
        (NamespacesMethod::Create.into(), ADMIN, Direct),
        (DeadLettersMethod::Redrive.into(), ADMIN, Direct),
        (
            Method::of_path(b"/grpc.health.v1.Health/Check").expect("served"),
            Permissions::NONE,
            None,
        ),
    ];
    for (method, permissions, effect) in expected {
        let spec = method.spec();
        assert_eq!(
            (spec.permissions, spec.effect),
            (permissions, effect),
            "{}",
            spec.path
        );
    }
    // A call that changes data needs more than a known caller.
    for method in Method::all().filter(|method| method.spec().effect != None) {
        assert_ne!(
            method.spec().permissions,
            Permissions::NONE,
            "{}",
            method.spec().path
        );
    }
}

/// The log answers writes by this rule, without knowing their API.
#[test]
fn every_write_answers_with_its_result_in_field_1() {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("build.rs made it");
    let is = |message: &MessageDescriptor, number, name: &str| {
        let field = message.get_field(number);
        let kind = field.map(|field| field.kind());
        kind.and_then(|kind| kind.as_message().map(|message| message.full_name() == name)) == Some(true)
    };
    let mut forms = BTreeSet::new();
    for method in Method::all().filter(|method| method.spec().effect == Effect::Certain) {
        let service = pool.get_service_by_name(method.api().service()).expect("served");
        let rpc = service.methods().nth(method.index()).expect("a row for each");
        let response = rpc.output();
        let first = response.get_field(1).expect("a field 1");
        if first.is_list() {
            let item = first
                .kind()
                .as_message()
                .cloned()
                .expect("a message for each item");
            assert!(is(&item, 1, "google.rpc.Status"), "{}", method.spec().path);
            assert!(
                is(&item, 2, "prism.common.v1.WriteResult"),
                "{}",
                method.spec().path
            );
        } else {
            assert!(
                is(&response, 1, "prism.common.v1.WriteResult"),
                "{}",
                method.spec().path
            );
        }
        forms.insert(first.is_list());
    }
    assert_eq!(forms.len(), 2, "single writes and batches");
}

#[test]
fn permissions_add_up_and_admin_includes_all() {
    let both = Permissions::READ.and(Permissions::WRITE);
    assert!(both.allow(Permissions::READ) && both.allow(Permissions::WRITE) && both.allow(both));
    assert!(
        !Permissions::READ.allow(both) && !Permissions::WRITE.allow(both) && !both.allow(Permissions::ADMIN)
    );
    assert!(Permissions::ADMIN.allow(both) && Permissions::ADMIN.allow(Permissions::ADMIN));
    assert!(Permissions::NONE.allow(Permissions::NONE) && !Permissions::NONE.allow(Permissions::READ));
}
