//! Promises of the Connect protocol and its JSON: canonical proto3 JSON both ways, clear refusals,
//! bounded work for hostile input.

use prism_codec::{
    connect::JsonCodec,
    grpc::{Code, Status},
    message::keyvalue::{PutView, ScanView},
    proto::{
        google::rpc,
        prism::{common::v1 as common, keyvalue::v1 as kv},
    },
};
use prost::Message as _;
use serde_json::{Value, json};

const PUT: &str = "/prism.keyvalue.v1.KeyValue/Put";

fn to_proto(path: &str, json: &str) -> Result<Vec<u8>, String> {
    let codec = JsonCodec::new();
    let mut out = b"x".to_vec();
    let result = codec.request_to_proto(codec.method(path).expect(path), json.as_bytes(), &mut out);
    match result {
        Ok(()) => Ok(out.split_off(1)),
        Err(error) => {
            assert_eq!(out, b"x", "on an error the buffer stays as it was");
            Err(error.to_string())
        }
    }
}

#[test]
fn every_method_is_there() {
    let codec = JsonCodec::new();
    for (path, client_streaming, server_streaming) in [
        (PUT, false, false),
        ("/prism.keyvalue.v1.KeyValue/Scan", false, true),
        ("/prism.admin.v1.Namespaces/Create", false, false),
        ("/grpc.health.v1.Health/Check", false, false),
        (
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            true,
            true,
        ),
    ] {
        let method = codec.method(path).expect(path);
        assert_eq!(
            (method.client_streaming, method.server_streaming),
            (client_streaming, server_streaming)
        );
        assert_eq!(method.path, path);
    }
    for path in [
        "",
        "/",
        "/prism.keyvalue.v1.KeyValue",
        "/prism.keyvalue.v1.KeyValue/put",
        "prism.keyvalue.v1.KeyValue/Put",
    ] {
        assert!(codec.method(path).is_none(), "{path}");
    }
    assert!(codec.methods().count() >= 14);
}

#[test]
fn a_put_in_all_spellings() {
    for (key, value, ttl) in [
        ("aw", "+/8=", "3600s"),
        ("aw==", "-_8", "3600.000s"),
        ("aw=", "+/8", "3600s"),
    ] {
        let json = json!({
            "namespace": "n", "id": "ü",
            "idempotencyToken": {"generationTime": "2026-01-31T12:00:00.5Z", "token": "AQ"},
            "items": [{"key": key, "value": value, "ttl": ttl, "compression": "COMPRESSION_ZSTD"}, {"compression": 2, "key": null}],
        });
        let Ok(proto) = to_proto(PUT, &json.to_string()) else {
            assert_eq!(key, "aw=", "only the half-padded spelling may be refused");
            continue;
        };
        let view = PutView::decode(&proto).expect("within limits");
        assert_eq!((view.namespace, view.id, view.items.len()), ("n", "ü", 2));
        let item = view.items.iter().next().expect("two items");
        assert_eq!(
            (item.key, item.value, item.compression),
            (&b"k"[..], &[0xfb, 0xff][..], 2)
        );
        assert_eq!(item.ttl.and_then(|ttl| ttl.as_millis_ceil()), Some(3_600_000));
        let time = view.token.and_then(|token| token.generation_time).expect("given");
        assert_eq!((time.seconds, time.nanos), (1_769_860_800, 500_000_000));
    }
    // Field names of the .proto are accepted as well, and an empty body is an empty message.
    assert_eq!(
        to_proto(PUT, "{\"idempotency_token\":{\"token\":\"AQ==\"}}").expect("legal"),
        [0x1a, 3, 0x12, 1, 1]
    );
    for empty in ["", "{}", " \r\n", "{ }\n"] {
        assert_eq!(to_proto(PUT, empty).expect("legal"), b"");
    }
}

#[test]
fn refusals_name_the_field_and_what_is_allowed() {
    const GET: &str = "/prism.keyvalue.v1.KeyValue/Get";
    for (path, json, expected) in [
        (
            PUT,
            r#"{"namespce": "n"}"#,
            r#"field "namespce": is unknown; did you mean "namespace"?"#,
        ),
        (
            PUT,
            r#"{"items":[{},{"vaule":""}]}"#,
            r#"field "items[1].vaule": is unknown; did you mean "value"?"#,
        ),
        (
            PUT,
            r#"{"zzzzzz": 1}"#,
            r#"field "zzzzzz": is unknown; allowed: namespace, id, idempotencyToken, items"#,
        ),
        (PUT, r#"{"id": 5}"#, r#"field "id": must be a string; it is 5"#),
        (
            PUT,
            r#"{"items": {}}"#,
            r#"field "items": must be a list; it is an object"#,
        ),
        (
            PUT,
            r#"{"items": [1]}"#,
            r#"field "items[0]": must be an object; it is 1"#,
        ),
        (
            PUT,
            r#"{"items": [{"key": "%"}]}"#,
            r#"field "items[0].key": must be bytes in base64 (standard or URL-safe, with or without padding); it is the string "%""#,
        ),
        (
            PUT,
            r#"{"items": [{"ttl": 3600}]}"#,
            r#"field "items[0].ttl": must be a duration in seconds with an s, for example "3600s"; it is 3600"#,
        ),
        (
            PUT,
            r#"{"items": [{"compression": "GZIP"}]}"#,
            "field \"items[0].compression\": must be one of COMPRESSION_UNSPECIFIED, COMPRESSION_GZIP, COMPRESSION_ZSTD, \
             COMPRESSION_LZ4, COMPRESSION_SNAPPY; it is the string \"GZIP\"",
        ),
        (
            PUT,
            r#"{"idempotencyToken": {"generationTime": "yesterday"}}"#,
            "field \"idempotencyToken.generationTime\": must be a time, for example \"2026-01-31T12:00:00Z\"; \
             it is the string \"yesterday\"",
        ),
        (
            GET,
            r#"{"selection": {"pageBytes": -1}}"#,
            r#"field "selection.pageBytes": must be a whole number from 0 to 4294967295; it is -1"#,
        ),
        (
            GET,
            r#"{"predicate": {"all": {}, "keys": {}}}"#,
            r#"field "predicate.keys": contradicts "all": only one of the two may be given"#,
        ),
        (PUT, "[]", "must be an object; it is a list"),
    ] {
        assert_eq!(to_proto(path, json).expect_err(json), expected, "{json}");
    }
    for broken in ["{", "nonsense", "{\"id\":\"\u{1}\"}", "{} {}", "{\"id\":\"a\",}"] {
        let message = to_proto(PUT, broken).expect_err(broken);
        assert!(message.contains("line 1 column"), "{message}");
    }
}

#[test]
fn hostile_json_is_bounded() {
    let deep = format!("{}{}", "{\"items\":[".repeat(100_000), "]}".repeat(100_000));
    assert!(to_proto(PUT, &deep).is_err());
    assert!(to_proto(PUT, &"[".repeat(1_000_000)).is_err());
    let deep_unknown = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(to_proto(PUT, &deep_unknown).is_err());
    let huge_number = format!("{{\"items\":[{{\"compression\":{}}}]}}", "9".repeat(100_000));
    let message = to_proto(PUT, &huge_number).expect_err("no such number");
    assert!(message.len() < 1_000, "{} bytes", message.len());
    let message = to_proto(PUT, "{\"items\":[{\"compression\":1e400}]}").expect_err("no such number");
    assert!(message.len() < 1_000);
    let long_name = format!("{{\"{}\":1}}", "x".repeat(500_000));
    assert!(to_proto(PUT, &long_name).expect_err("unknown").len() < 1_000);
    assert!(to_proto(PUT, "{\"id\":\"\\ud800\"}").is_err());
    assert!(
        JsonCodec::new()
            .request_to_proto(
                JsonCodec::new().method(PUT).expect("there"),
                b"{\"id\":\"\xff\"}",
                &mut Vec::new()
            )
            .is_err()
    );
}

#[test]
fn responses_are_canonical() {
    let codec = JsonCodec::new();
    let write = |path: &str, proto: Vec<u8>| {
        let mut out = Vec::new();
        codec
            .response_to_json(codec.method(path).expect(path), &proto, &mut out)
            .expect("well-formed");
        serde_json::from_slice::<Value>(&out).expect("JSON")
    };
    let result = common::WriteResult {
        durability: 1,
        lane: 3,
        lsn: u64::MAX,
        applied: true,
    };
    let expected = json!({"result": {
        "durability": "DURABILITY_BEST_EFFORT", "lane": 3, "lsn": "18446744073709551615", "applied": true}});
    assert_eq!(
        write(PUT, kv::PutResponse { result: Some(result) }.encode_to_vec()),
        expected
    );

    let ttl = Some(prost_types::Duration {
        seconds: 3_600,
        nanos: 0,
    });
    let item = kv::Item {
        key: vec![0xfb],
        value: vec![],
        ttl,
        compression: 77,
        version: Vec::new(),
    };
    let page = kv::GetResponse {
        items: vec![item],
        next_page_token: vec![1],
    };
    let expected =
        json!({"items": [{"key": "+w==", "ttl": "3600s", "compression": 77}], "nextPageToken": "AQ=="});
    assert_eq!(
        write("/prism.keyvalue.v1.KeyValue/Get", page.encode_to_vec()),
        expected
    );

    // A detail of an unknown type must not cost the client the rest of the answer.
    let known = prost_types::Any {
        type_url: "type.googleapis.com/google.rpc.ErrorInfo".into(),
        value: rpc::ErrorInfo {
            reason: "R".into(),
            ..Default::default()
        }
        .encode_to_vec(),
    };
    let unknown = prost_types::Any {
        type_url: "type.googleapis.com/no.Such".into(),
        value: vec![1],
    };
    let broken = prost_types::Any {
        value: vec![0xff],
        ..known.clone()
    };
    let status = |details| {
        Some(rpc::Status {
            code: 5,
            message: "m".into(),
            details,
        })
    };
    let mutate = kv::MutateResponse {
        results: vec![
            kv::MutationResult {
                status: status(vec![unknown, known, broken]),
                result: None,
            },
            kv::MutationResult {
                status: status(vec![]),
                result: Some(result),
            },
        ],
    };
    let written = write("/prism.keyvalue.v1.KeyValue/Mutate", mutate.encode_to_vec());
    let details = json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "R"}]);
    assert_eq!(
        written["results"][0]["status"],
        json!({"code": 5, "message": "m", "details": details})
    );
    assert_eq!(written["results"][1]["result"]["lsn"], "18446744073709551615");

    let mut out = b"x".to_vec();
    let method = codec.method(PUT).expect("there");
    assert!(codec.response_to_json(method, &[0xff], &mut out).is_err() && out == b"x");
}

#[test]
fn requests_survive_the_way_through_json() {
    let codec = JsonCodec::new();
    let method = codec.method(PUT).expect("there");
    for seed in 0u8..50 {
        let item = |number: u8| kv::Item {
            key: vec![number; usize::from(number % 5)],
            value: (0..number).collect(),
            ttl: number.is_multiple_of(2).then(|| prost_types::Duration {
                seconds: i64::from(number),
                nanos: 1_000_000,
            }),
            compression: i32::from(number % 5),
            version: vec![number; 3],
        };
        let put = kv::PutRequest {
            namespace: "n".into(),
            id: "\u{0}\"\\ü𝄞".into(),
            idempotency_token: None,
            items: (seed..seed + 4).map(item).collect(),
        };
        let (mut json, mut proto) = (Vec::new(), Vec::new());
        codec
            .request_to_json(method, &put.encode_to_vec(), &mut json)
            .expect("well-formed");
        codec
            .request_to_proto(method, &json, &mut proto)
            .expect("own JSON");
        assert_eq!(kv::PutRequest::decode(&proto[..]).expect("well-formed"), put);
    }
}

#[test]
fn calls_without_side_effects_are_marked() {
    let codec = JsonCodec::new();
    let mut marked: Vec<_> = codec
        .methods()
        .filter(|method| method.no_side_effects)
        .map(|method| method.path.as_str())
        .collect();
    marked.sort_unstable();
    assert_eq!(
        marked,
        [
            "/grpc.health.v1.Health/Check",
            "/grpc.health.v1.Health/List",
            "/grpc.health.v1.Health/Watch",
            "/prism.admin.v1.DeadLetters/Get",
            "/prism.admin.v1.DeadLetters/List",
            "/prism.admin.v1.Namespaces/Get",
            "/prism.admin.v1.Namespaces/List",
            "/prism.admin.v1.Namespaces/Plan",
            "/prism.admin.v1.Namespaces/Status",
            "/prism.admin.v1.Namespaces/Validate",
            "/prism.keyvalue.v1.KeyValue/Get",
            "/prism.keyvalue.v1.KeyValue/Scan",
            "/prism.pubsub.v1.PubSub/ListGroups",
            "/prism.pubsub.v1.PubSub/Subscribe",
            "/prism.queue.v1.Queue/Peek",
            "/prism.queue.v1.Queue/Stats",
        ]
    );
}

#[test]
fn a_stream_goes_on_after_the_place_that_its_last_answer_named() {
    let codec = JsonCodec::new();
    let scan = codec
        .method("/prism.keyvalue.v1.KeyValue/Scan")
        .expect("a method");
    let page = kv::ScanResponse {
        entries: Vec::new(),
        next_page_token: b"\0here".to_vec(),
    };
    let mut json = Vec::new();
    let place = codec
        .stream_to_json(scan, &page.encode_to_vec(), &mut json)
        .expect("a response");
    assert_eq!(place, page.next_page_token);
    assert_eq!(json, b"{\"nextPageToken\":\"AGhlcmU=\"}");

    let request = kv::ScanRequest {
        namespace: "n".to_owned(),
        selection: Some(kv::Selection {
            page_bytes: 7,
            page_token: b"another".to_vec(),
            ..kv::Selection::default()
        }),
    };
    let mut message = request.encode_to_vec();
    assert!(scan.resume_after(&place, &mut message));
    let view = ScanView::decode(&message).expect("a request");
    assert_eq!(
        (view.selection.page_bytes, view.selection.page_token),
        (7, &place[..])
    );
    let put = codec.method(PUT).expect("a method");
    assert!(!put.resume_after(&place, &mut Vec::new()));
}

#[test]
fn errors_have_the_body_of_the_specification() {
    let status =
        Status::new(Code::NotFound, "no namespace \"x\"").with_reason("NAMESPACE_UNKNOWN", &[("name", "x")]);
    let codec = JsonCodec::new();
    let mut full = Vec::new();
    codec.error_json(&status, &mut full);
    let full: Value = serde_json::from_slice(&full).expect("JSON");
    assert_eq!(full["code"], "not_found");
    assert_eq!(full["message"], "no namespace \"x\"");
    assert_eq!(full["details"][0]["type"], "google.rpc.ErrorInfo");
    assert_eq!(full["details"][0]["debug"]["reason"], "NAMESPACE_UNKNOWN");
    let value = full["details"][0]["value"].as_str().expect("text");
    let info = prism_codec::grpc::decode_binary(value.as_bytes()).expect("base64");
    assert_eq!(rpc::ErrorInfo::decode(&info[..]).expect("proto").domain, "prism");
    let mut bare = Vec::new();
    codec.error_json(&Status::new(Code::Internal, ""), &mut bare);
    assert_eq!(bare, b"{\"code\":\"internal\"}");
}
