//! Decoding a view, reading all of it, and encoding into a warm buffer allocate nothing.

use prism_codec::{
    message::{common::WriteResultView, keyvalue::*, receipt::encode_write_response},
    proto::prism::keyvalue::v1 as kv,
};
use prost::Message as _;

fn item(number: u8) -> kv::Item {
    let ttl = Some(prost_types::Duration {
        seconds: 60,
        nanos: 5,
    });
    kv::Item {
        key: vec![number; 16],
        value: vec![number; 1_000],
        ttl,
        compression: 1,
        version: b"0123456789abcdef".to_vec(),
    }
}

#[test]
fn the_hot_path_does_not_allocate() {
    let token = prism_codec::proto::prism::common::v1::IdempotencyToken {
        generation_time: Some(prost_types::Timestamp { seconds: 1, nanos: 2 }),
        token: vec![7; 16],
    };
    let put = kv::PutRequest {
        namespace: "user-sessions".into(),
        id: "käse".into(),
        idempotency_token: Some(token),
        items: (0..8).map(item).collect(),
    }
    .encode_to_vec();
    let predicate = kv::Predicate {
        kind: Some(kv::predicate::Kind::Keys(kv::KeySet {
            keys: vec![vec![1]; 3],
        })),
    };
    // The same predicate twice: its keys lie in two pieces.
    let mut get = kv::GetRequest {
        namespace: "n".into(),
        id: "i".into(),
        predicate: Some(predicate.clone()),
        selection: None,
    }
    .encode_to_vec();
    get.extend(
        kv::GetRequest {
            predicate: Some(predicate),
            ..Default::default()
        }
        .encode_to_vec(),
    );
    let mut out = Vec::with_capacity(64 << 10);

    let mut bytes_seen = 0;
    let counted = allocation_counter::measure(|| {
        let view = PutView::decode(&put).expect("well-formed");
        for item in view.items {
            bytes_seen += item.key.len() + item.value.len();
        }
        let view = GetView::decode(&get).expect("well-formed");
        if let PredicateView::Keys(keys) = view.predicate {
            bytes_seen += keys.iter().map(<[u8]>::len).sum::<usize>();
        }
        encode_write_response(
            &mut out,
            &WriteResultView {
                durability: 1,
                lane: 0,
                lsn: 0,
                applied: true,
            },
            &[],
        );
        let view = PutView::decode(&put).expect("well-formed");
        let mut writer = GetResponseWriter::new(&mut out);
        for item in view.items {
            writer.item(&item);
        }
        writer.finish(b"token");
        assert!(PutView::decode(&put[..40]).is_err());
    });
    assert_eq!(bytes_seen, 8 * 1_016 + 6);
    assert_eq!(counted.count_total, 0, "{counted:?}");
}
