//! HPACK: an accepted block means the same to an independent decoder, and decoded headers survive
//! encoding.

use prism_codec::h2::hpack::{DEFAULT_TABLE_SIZE, Decoder, Encoder, HeaderList, HpackError, Indexing};

const MAX_LIST: usize = 8 << 10;

/// Input: blocks of one connection, each after a byte with its length.
pub fn hpack(input: &[u8]) {
    let mut ours = Decoder::new(DEFAULT_TABLE_SIZE);
    let mut theirs = fluke_hpack::Decoder::new();
    theirs.set_max_allowed_table_size(DEFAULT_TABLE_SIZE);
    let mut encoder = Encoder::new(DEFAULT_TABLE_SIZE);
    let mut mirror = Decoder::new(DEFAULT_TABLE_SIZE);
    let (mut list, mut mirrored) = (HeaderList::new(), HeaderList::new());
    let mut rest = input;
    while let Some((&len, after)) = rest.split_first() {
        let (block, after) = after.split_at(after.len().min(usize::from(len)));
        rest = after;
        let version = ours.table_version();
        let info = match ours.decode(block, MAX_LIST, &mut list) {
            Ok(info) => info,
            Err(error) => {
                assert!(list.is_empty());
                // The other decoder panics on blocks that end too soon, and does not know the other
                // rules.
                let shared = matches!(
                    error,
                    HpackError::IndexZero
                        | HpackError::IndexPastTable
                        | HpackError::HuffmanEos
                        | HpackError::HuffmanPadding
                );
                assert!(
                    !shared || theirs.decode(block).is_err(),
                    "we say {error}: {block:02x?}"
                );
                return;
            }
        };
        assert!(ours.table_bytes() <= DEFAULT_TABLE_SIZE);
        assert!(list.byte_len() <= MAX_LIST && list.byte_len() as u64 <= info.list_bytes);
        assert_eq!(info.too_large, info.list_bytes > MAX_LIST as u64);
        assert!(
            !info.repeatable || ours.table_version() == version,
            "a repeatable block changes nothing"
        );

        let expected = match theirs.decode(block) {
            Ok(fields) => fields,
            // The other decoder refuses a block of nothing but size updates, which no rule forbids.
            // Its table is then out of step.
            Err(_) if list.is_empty() && !info.too_large && !block.is_empty() => return,
            Err(error) => panic!("we accept, they say {error:?}: {block:02x?}"),
        };
        assert!(info.too_large || expected.len() == list.len());
        for ((name, value), (their_name, their_value)) in list.iter().zip(&expected) {
            assert_eq!((name, value), (&their_name[..], &their_value[..]));
        }

        let mut encoded = Vec::new();
        for (at, (name, value)) in list.iter().enumerate() {
            let indexing =
                [Indexing::Incremental, Indexing::Without, Indexing::Never][(at + block.len()) % 3];
            encoder.encode(&mut encoded, name, value, indexing);
        }
        let again = mirror
            .decode(&encoded, MAX_LIST, &mut mirrored)
            .expect("our own block");
        assert_eq!((&mirrored, again.too_large), (&list, false));
        assert_eq!(mirror.insert_count(), encoder.insert_count());
    }
}
